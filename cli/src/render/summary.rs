//! A statement in a line.

use deed_proto::v1::{self, statement::Body};

use super::names::{short, words};

/// Returns a statement in a few words. They may quote others, so they must be made printable.
pub(crate) fn of(statement: &v1::Statement) -> String {
    match &statement.body {
        Some(Body::Genesis(_)) => "begins the ledger".to_owned(),
        Some(Body::Tick(tick)) if tick.clock_us > 0 => {
            "the operator confirmed the server's clock".to_owned()
        }
        Some(Body::Tick(_)) => "a deadline is due".to_owned(),
        Some(Body::Clearance(it)) => format!("clears the Intent at leaf {}", leaf(&it.intent)),
        Some(Body::TaskReceipt(it)) => format!("receipt of {} entries", it.count),
        Some(Body::TaskOpened(_)) => "opens the task".to_owned(),
        Some(Body::TaskClosed(it)) => {
            let end = short(it.end().as_str_name(), "TASK_END_");
            format!("closes the task: {}", words(&end))
        }
        Some(Body::Grant(it)) if it.parent.is_empty() => format!("grants to {}", it.subject),
        Some(Body::Grant(it)) => format!("passes a grant on to {}", it.subject),
        Some(Body::GrantAccepted(_)) => "accepts a grant".to_owned(),
        Some(Body::Intent(it)) => format!("intends {} on {}", it.action, it.resource),
        Some(Body::Outcome(it)) => {
            let status = short(it.status().as_str_name(), "OUTCOME_STATUS_");
            format!("reports: {}", words(&status))
        }
        Some(Body::Decision(it)) => {
            let verdict = match it.verdict() {
                v1::Verdict::Allow => "allows",
                _ => "denies",
            };
            format!(
                "{verdict} the Intent at leaf {} ({})",
                leaf(&it.intent),
                it.engine
            )
        }
        Some(Body::Approval(it)) => {
            let verdict = match it.verdict() {
                v1::Verdict::Allow => "approves",
                _ => "refuses",
            };
            format!("{verdict} the Intent at leaf {}", leaf(&it.intent))
        }
        Some(Body::Observation(it)) => match it.effects.as_slice() {
            [one] => format!("saw {} on {}", one.kind, one.resource),
            all => format!("saw {} effects", all.len()),
        },
        Some(Body::Heartbeat(_)) => "is alive".to_owned(),
        Some(Body::SessionClosed(_)) => "closes its session".to_owned(),
        Some(Body::Revocation(_)) => "revokes a grant".to_owned(),
        Some(Body::FindingDisposition(it)) => {
            let kind = short(it.kind().as_str_name(), "DISPOSITION_KIND_");
            format!("finding {}.{}: {kind}", it.leaf_index, it.number)
        }
        Some(Body::AuthoritiesChanged(_)) => "changes the authorities".to_owned(),
        Some(Body::KeyRegistered(it)) => format!("registers a key for {}", it.producer),
        Some(Body::KeyRevoked(_)) => "revokes a key".to_owned(),
        Some(Body::PrincipalBound(it)) => format!("binds a principal to {}", it.producer),
        Some(Body::PolicySet(_)) => "sets the evidence policy".to_owned(),
        Some(Body::RetentionSet(_)) => "sets the retention floor".to_owned(),
        Some(Body::LegalHoldPlaced(_)) => "places a legal hold".to_owned(),
        Some(Body::LegalHoldReleased(_)) => "releases a legal hold".to_owned(),
        Some(Body::LogKeyRotated(_)) => "replaces the log key".to_owned(),
        Some(Body::Erasure(it)) => format!("erases {} contents", it.commitments.len()),
        None => "says nothing".to_owned(),
    }
}

fn leaf(intent: &Option<v1::LeafRef>) -> u64 {
    intent.as_ref().map_or(0, |intent| intent.leaf_index)
}
