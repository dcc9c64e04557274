//! A customer's yes.

/// A yes at the beginning.
const FIRST: [&str; 6] = ["yes", "yeah", "yep", "yup", "confirmed", "confirming"];
/// A yes anywhere.
const PHRASES: [&str; 3] = ["please proceed", "please go ahead", "i confirm"];
/// Words after which a yes may mean something else.
const DOUBT: [&str; 23] = [
    "no", "not", "don't", "dont", "doesn't", "didn't", "can't", "cannot", "won't", "wouldn't",
    "isn't", "aren't", "never", "but", "however", "instead", "unless", "until", "if", "wait",
    "actually", "unsure", "stop",
];

/// Returns true if a message is a clear yes to what was asked before it: it begins with one, or holds a
/// phrase that is one, and neither doubts, limits nor asks anything. Rather misses a yes than
/// makes one up: what it finds is recorded as somebody's claim that a customer agreed.
pub(super) fn is_yes(message: &str) -> bool {
    if message.contains('?') {
        return false;
    }
    let text = message.to_lowercase().replace('\u{2019}', "'");
    let words: Vec<&str> = text
        .split(|c: char| !c.is_alphanumeric() && c != '\'')
        .filter(|word| !word.is_empty())
        .collect();
    let doubts = words.iter().any(|word| DOUBT.contains(word));
    let begins = words.first().is_some_and(|word| FIRST.contains(word));
    let says = || {
        let text = format!(" {} ", words.join(" "));
        PHRASES
            .iter()
            .any(|phrase| text.contains(&format!(" {phrase} ")))
    };
    !doubts && (begins || says())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yes_is_clear_or_none() {
        for yes in [
            "Yes",
            "yes, please.",
            "Yes, please proceed with the cancellation.",
            "Yes, everything looks correct. Please go ahead with the update. Thank you!",
            "Oui, please proceed with canceling this reservation. Merci bien!",
            "I confirm the upgrade for reservation WUNA5K. Please go ahead.",
            "Confirming to proceed with both actions.",
            "YES",
        ] {
            assert!(is_yes(yes), "{yes}");
        }
        for other in [
            "",
            "No.",
            "Yes, but only the first one.",
            "Yes, proceed with those steps. What's the total cost?",
            "If that's the only option, then yes, please go ahead.",
            "I don't want you to proceed. Please proceed with nothing.",
            "Yes, that would be helpful, but I\u{2019}m not sure.",
            "Can you please proceed?",
            "It was delayed. And yes, I'm looking for compensation.",
            "I'll go with the first option.",
            "Yesterday I called already.",
            "My goal: please proceeding faster.",
            "Yes, I can\u{2019}t wait.",
        ] {
            assert!(!is_yes(other), "{other}");
        }
    }
}
