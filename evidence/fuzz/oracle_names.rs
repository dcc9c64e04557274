//! The demands of rules version 2 on ids and names, told a second time: over characters and decoded
//! messages.

use deed_evidence::{LedgerId, Nonce, SessionId, TaskId, uri};
use deed_proto::v1::{self, statement::Body};
use deed_tlog::Hash;

use super::{Broken, require, values::array};

/// Characters that a reader does not see, or not where they stand.
const UNSEEN: &[(u32, u32)] = &[
    (0x00, 0x1f),
    (0x7f, 0xa0),
    (0xad, 0xad),
    (0x34f, 0x34f),
    (0x61c, 0x61c),
    (0x115f, 0x1160),
    (0x1680, 0x1680),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    (0x2000, 0x200f),
    (0x2028, 0x202f),
    (0x205f, 0x206f),
    (0x2800, 0x2800),
    (0x3000, 0x3000),
    (0x3164, 0x3164),
    (0xfe00, 0xfe0f),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff0, 0xfffb),
    (0x1_bca0, 0x1_bca3),
    (0x1_d173, 0x1_d17a),
    (0xe_0000, 0xe_0fff),
];

pub(super) fn seen(text: &str) -> bool {
    text.chars().all(|c| {
        let code = u32::from(c);
        !UNSEEN
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&code))
    })
}

/// Returns true if it is one name for one thing.
pub(super) fn name(text: &str) -> bool {
    let scheme = text.find("://").filter(|at| {
        let scheme = &text[..*at];
        let mut chars = scheme.chars();
        chars.next().is_some_and(|c| c.is_ascii_alphabetic())
            && chars.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    let path = scheme.map_or(text, |at| &text[at + 3..]);
    let mut segments: Vec<&str> = path.split('/').collect();
    if segments.len() > 1 && segments[0].is_empty() {
        segments.remove(0);
    }
    let is_root = path == "/";
    seen(text)
        && !text.contains('\\')
        && !over_encoded(text)
        && (is_root || segments.iter().all(|segment| !segment.is_empty()))
        && segments.iter().all(|segment| {
            let path = segment.split([';', '?', '#', ' ']).next().unwrap_or("");
            let spaced = segment.starts_with(' ') || segment.ends_with(' ');
            let lone_dots = [".", ".."].contains(&path)
                && segment[path.len()..]
                    .chars()
                    .next()
                    .is_none_or(|c| c != ' ');
            !lone_dots && !encoded_end(segment) && !spaced && !segment.contains("  ")
        })
}

/// Dots in front of an encoded `;`, `?` or `#`.
fn encoded_end(segment: &str) -> bool {
    let lower = segment.to_lowercase();
    let rest = lower.trim_start_matches('.');
    let dots = lower.len() - rest.len();
    (1..=2).contains(&dots)
        && ["%3b", "%3f", "%23"]
            .iter()
            .any(|end| rest.starts_with(end))
}

fn over_encoded(text: &str) -> bool {
    let hex = |text: &str| {
        let digits = text
            .get(..2)
            .filter(|two| two.chars().all(|c| c.is_ascii_hexdigit()));
        digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())
    };
    text.match_indices('%').any(|(at, _)| {
        let behind = &text[at + 1..];
        hex(behind).is_some_and(|byte| {
            let c = char::from(byte);
            c.is_ascii_alphanumeric()
                || "-._~/\\".contains(c)
                || (byte < 0x80 && c.is_control())
                || (c == '%' && hex(&behind[2..]).is_some())
        })
    })
}

pub(super) fn canonical(text: &str) -> bool {
    uri::canonical(text).as_deref() == Some(text)
}

pub(super) fn controller(text: &str) -> bool {
    canonical(text)
        && ["https://", "spiffe://"]
            .iter()
            .any(|one| text.starts_with(one))
}

/// Ids that a statement certifies.
pub(super) fn ids(statement: &v1::Statement) -> Result<(), Broken> {
    let ledger = || LedgerId::new(Hash::new(array(&statement.ledger_id)));
    require([0, 16].contains(&statement.nonce.len()), "nonce")?;
    if !statement.nonce.is_empty() {
        let nonce = Nonce::new(array(&statement.nonce));
        require(is_first(statement), "nonce")?;
        let id = SessionId::derive(ledger(), &statement.producer, &nonce);
        require(statement.session == id.as_bytes()[..], "session")?;
    }
    if let Some(Body::TaskOpened(opened)) = &statement.body
        && !opened.nonce.is_empty()
    {
        require(opened.nonce.len() == 16, "task_opened.nonce")?;
        let nonce = Nonce::new(array(&opened.nonce));
        let id = TaskId::derive(ledger(), &statement.producer, &nonce);
        require(statement.task == id.as_bytes()[..], "task")?;
    }
    Ok(())
}

fn is_first(statement: &v1::Statement) -> bool {
    statement.sequence == 0 || statement.skipped_from == Some(0)
}

/// The field whose form only rules version 1 takes, of a statement that keeps all other rules.
pub(crate) fn breach(statement: &v1::Statement) -> Option<Broken> {
    breaches(statement).err()
}

fn breaches(statement: &v1::Statement) -> Result<(), Broken> {
    use Body::{Clearance, Genesis, TaskReceipt, Tick};
    let body = statement.body.as_ref();
    if matches!(
        body,
        None | Some(Genesis(_) | Tick(_) | Clearance(_) | TaskReceipt(_))
    ) {
        return Ok(());
    }
    if is_first(statement) {
        require(!statement.nonce.is_empty(), "nonce")?;
        let own = statement.producer.to_ascii_lowercase().starts_with("deed:");
        let named = canonical(&statement.producer) && !own;
        require(named || statement.producer == "deed:authority", "producer")?;
    }
    let keys = &statement.correlation_keys;
    require(keys.iter().all(|key| seen(&key.value)), "correlation_keys")?;
    match body {
        Some(Body::TaskOpened(opened)) => require(!opened.nonce.is_empty(), "task_opened.nonce"),
        Some(Body::Intent(intent)) => {
            require(name(&intent.action), "intent.action")?;
            require(name(&intent.resource), "intent.resource")?;
            let due = intent.deadline_us;
            let later = due == 0 || due > statement.occurred_at_us;
            require(later, "intent.deadline_us")?;
            for effect in &intent.expected_effects {
                require(name(&effect.kind), "intent.expected_effects.kind")?;
                require(name(&effect.resource), "intent.expected_effects.resource")?;
                require(
                    seen(&effect.external_id),
                    "intent.expected_effects.external_id",
                )?;
            }
            Ok(())
        }
        Some(Body::Outcome(outcome)) => {
            let not_done = outcome.status == 4;
            require(!not_done || outcome.effects.is_empty(), "outcome.effects")?;
            for effect in &outcome.effects {
                require(name(&effect.kind), "outcome.effects.kind")?;
                require(name(&effect.resource), "outcome.effects.resource")?;
                require(seen(&effect.external_id), "outcome.effects.external_id")?;
            }
            Ok(())
        }
        Some(Body::KeyRegistered(key)) => {
            require(canonical(&key.producer), "key_registered.producer")
        }
        Some(Body::PrincipalBound(bound)) => {
            require(canonical(&bound.producer), "principal_bound.producer")
        }
        _ => Ok(()),
    }
}
