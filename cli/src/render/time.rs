//! Times in the words of a server.

use deed_evidence::Micros;

use super::shown;

/// A ledger's words with each time in them (`1790000000000000 us`) as people read it.
pub(crate) fn with_times(message: &str) -> String {
    let mut words: Vec<_> = message.split(' ').map(str::to_owned).collect();
    for at in 1..words.len() {
        let unit = words[at].trim_end_matches(['.', ',', ';', ')']).to_owned();
        let number = words[at - 1].clone();
        // Shorter ones are durations, or times of 1970.
        let is_time = unit == "us" && (14..=18).contains(&number.len());
        if let (true, Ok(us)) = (is_time, number.parse()) {
            words[at - 1] = shown(Micros::new(us));
            words[at] = words[at].split_off(unit.len());
        }
    }
    let mut text = String::with_capacity(message.len());
    for (position, word) in words.iter().enumerate() {
        let is_end = matches!(word.as_str(), "" | "." | "," | ";" | ")");
        if position > 0 && !is_end {
            text.push(' ');
        }
        text.push_str(word);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_a_sentence_are_for_people() {
        let message = "content ab has to be kept until 1795485420000000 us; it is \
                       1795485421000000 us now (after 1795485420000000 us)";
        assert_eq!(
            with_times(message),
            "content ab has to be kept until 2026-11-24T01:57:00Z; it is 2026-11-24T01:57:01Z now \
             (after 1795485420000000 us)"
                .replace("after 1795485420000000 us", "after 2026-11-24T01:57:00Z")
        );
        for same in ["", "us", "5 us", "no times here", "a  b"] {
            let _ = with_times(same);
        }
        assert_eq!(with_times("5 us passed"), "5 us passed");
    }
}
