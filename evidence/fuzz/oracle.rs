//! The rules of `deed/v1/statement.proto`, told a second time: over decoded messages, straight
//! from the comments there, without a look at the tables that are tested with this.

use deed_evidence::{
    LedgerId, Micros, PayloadDigest, Sequence, SessionId, TaskId,
    statement::{BodyKind, Header, SessionHeader},
};
use deed_proto::v1::{self, statement::Body};
use deed_tlog::Hash;

#[path = "oracle_bodies.rs"]
mod bodies;
#[path = "oracle_names.rs"]
mod names;
#[path = "oracle_values.rs"]
mod values;
pub(crate) use names::breach;
use values::{array, empty_or, lower_name, text, uri};

/// The name of a field whose rule is broken.
type Broken = &'static str;

fn require(holds: bool, field: Broken) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(field) }
}

/// Whether the statement keeps every rule that `statement::parse` answers for.
pub(crate) fn rules(statement: &v1::Statement) -> Result<(), Broken> {
    use prost::Message as _;
    require(
        (1..=60_000).contains(&statement.encoded_len()),
        "payload length",
    )?;
    let body = statement.body.as_ref().ok_or("body")?;
    addressing(statement, body)?;
    names::ids(statement)?;
    require(uri(&statement.producer, 512), "producer")?;
    require(empty_or(&statement.previous, 32), "previous")?;
    if let Some(from) = statement.skipped_from {
        require(from < statement.sequence, "skipped_from")?;
    }
    require(statement.occurred_at_us >= 0, "occurred_at_us")?;
    require(empty_or(&statement.trace_id, 16), "trace_id")?;
    require(empty_or(&statement.span_id, 8), "span_id")?;
    let lone_span = statement.trace_id.is_empty() && !statement.span_id.is_empty();
    require(!lone_span, "span_id")?;
    correlation_keys(&statement.correlation_keys)?;
    bodies::rules(statement, body)
}

/// Whose a body may be, and whether it belongs to a task.
struct Belongs {
    to_ledger: bool,
    to_authority: bool,
    to_producer: bool,
    task: Task,
}

/// Lengths that the header's `task` may have.
#[derive(Clone, Copy)]
enum Task {
    Named,
    NamedOrNot,
    None,
}

fn belongs(body: &Body) -> Belongs {
    let (whose, task) = match body {
        Body::Genesis(_) | Body::Tick(_) => ("ledger", Task::None),
        Body::Clearance(_) | Body::TaskReceipt(_) => ("ledger", Task::Named),
        Body::TaskOpened(_) | Body::TaskClosed(_) | Body::Grant(_) => ("both", Task::Named),
        Body::GrantAccepted(_)
        | Body::Intent(_)
        | Body::Outcome(_)
        | Body::Decision(_)
        | Body::Approval(_) => ("producer", Task::Named),
        Body::Observation(_) | Body::Heartbeat(_) | Body::SessionClosed(_) => {
            ("producer", Task::NamedOrNot)
        }
        Body::Revocation(_) => ("authority", Task::Named),
        Body::FindingDisposition(_)
        | Body::AuthoritiesChanged(_)
        | Body::KeyRegistered(_)
        | Body::KeyRevoked(_)
        | Body::PrincipalBound(_)
        | Body::PolicySet(_)
        | Body::RetentionSet(_)
        | Body::LegalHoldPlaced(_)
        | Body::LegalHoldReleased(_)
        | Body::LogKeyRotated(_)
        | Body::Erasure(_) => ("authority", Task::NamedOrNot),
    };
    Belongs {
        to_ledger: whose == "ledger",
        to_authority: whose == "authority" || whose == "both",
        to_producer: whose == "producer" || whose == "both",
        task,
    }
}

/// Whether a manifest keeps every rule.
pub(crate) fn manifest_rules(manifest: &v1::BatchManifest) -> Result<(), Broken> {
    require(manifest.ledger_id.len() == 32, "ledger_id")?;
    require(uri(&manifest.producer, 512), "producer")?;
    let own = ["deed:authority", "deed:ledger"];
    require(!own.contains(&&*manifest.producer), "producer")?;
    require(manifest.session.len() == 16, "session")?;
    require((1..=4096).contains(&manifest.count), "count")?;
    let last = u128::from(manifest.first_sequence) + u128::from(manifest.count) - 1;
    require(last <= u128::from(u64::MAX), "first_sequence")?;
    require(manifest.root.len() == 32, "root")
}

fn addressing(statement: &v1::Statement, body: &Body) -> Result<(), Broken> {
    if matches!(body, Body::Genesis(_)) {
        let nothing = statement.ledger_id.is_empty()
            && statement.session.is_empty()
            && statement.sequence == 0
            && statement.previous.is_empty()
            && statement.skipped_from.is_none()
            && statement.task.is_empty()
            && statement.nonce.is_empty();
        return require(nothing, "genesis header");
    }
    require(statement.ledger_id.len() == 32, "ledger_id")?;
    let belongs = belongs(body);
    let whose = match &*statement.producer {
        "deed:ledger" => belongs.to_ledger,
        "deed:authority" => belongs.to_authority,
        _ => belongs.to_producer,
    };
    require(whose, "producer")?;
    let task = match belongs.task {
        Task::Named => statement.task.len() == 16,
        Task::NamedOrNot => empty_or(&statement.task, 16),
        Task::None => statement.task.is_empty(),
    };
    require(task, "task")?;
    if belongs.to_ledger {
        require(statement.occurred_at_us > 0, "occurred_at_us")?;
        let mut rest = statement.clone();
        rest.ledger_id.clear();
        rest.producer.clear();
        rest.task.clear();
        (rest.occurred_at_us, rest.body) = (0, None);
        return require(rest == v1::Statement::default(), "the ledger's header");
    }
    require(statement.session.len() == 16, "session")?;
    require(
        statement.sequence > 0 || statement.previous.is_empty(),
        "previous",
    )
}

fn correlation_keys(keys: &[v1::CorrelationKey]) -> Result<(), Broken> {
    require(keys.len() <= 16, "correlation_keys")?;
    for key in keys {
        require(lower_name(&key.kind), "correlation_keys.kind")?;
        require(text(&key.value, 1, 256), "correlation_keys.value")?;
    }
    let name = |key: &v1::CorrelationKey| {
        (
            key.kind.clone().into_bytes(),
            key.value.clone().into_bytes(),
        )
    };
    require(
        keys.windows(2).all(|two| name(&two[0]) < name(&two[1])),
        "correlation_keys",
    )
}

/// The header of a statement that keeps every rule.
pub(crate) fn header(statement: &v1::Statement) -> Header<'_> {
    Header {
        ledger_id: (!statement.ledger_id.is_empty())
            .then(|| LedgerId::new(Hash::new(array(&statement.ledger_id)))),
        occurred_at: Micros::new(statement.occurred_at_us),
        in_session: SessionHeader {
            producer: &statement.producer,
            session: if statement.session.is_empty() {
                SessionId::new([0; 16])
            } else {
                SessionId::new(array(&statement.session))
            },
            sequence: Sequence::new(statement.sequence),
            previous: (!statement.previous.is_empty())
                .then(|| PayloadDigest::new(array(&statement.previous))),
            skipped_from: statement.skipped_from.map(Sequence::new),
            task: (!statement.task.is_empty()).then(|| TaskId::new(array(&statement.task))),
            body: match statement.body.as_ref().expect("has a body") {
                Body::Genesis(_) => BodyKind::Genesis,
                Body::Tick(_) => BodyKind::Tick,
                Body::Clearance(_) => BodyKind::Clearance,
                Body::TaskReceipt(_) => BodyKind::TaskReceipt,
                Body::TaskOpened(_) => BodyKind::TaskOpened,
                Body::TaskClosed(_) => BodyKind::TaskClosed,
                Body::Grant(_) => BodyKind::Grant,
                Body::GrantAccepted(_) => BodyKind::GrantAccepted,
                Body::Intent(_) => BodyKind::Intent,
                Body::Outcome(_) => BodyKind::Outcome,
                Body::Decision(_) => BodyKind::Decision,
                Body::Approval(_) => BodyKind::Approval,
                Body::Observation(_) => BodyKind::Observation,
                Body::Heartbeat(_) => BodyKind::Heartbeat,
                Body::SessionClosed(_) => BodyKind::SessionClosed,
                Body::Revocation(_) => BodyKind::Revocation,
                Body::FindingDisposition(_) => BodyKind::FindingDisposition,
                Body::AuthoritiesChanged(_) => BodyKind::AuthoritiesChanged,
                Body::KeyRegistered(_) => BodyKind::KeyRegistered,
                Body::KeyRevoked(_) => BodyKind::KeyRevoked,
                Body::PrincipalBound(_) => BodyKind::PrincipalBound,
                Body::PolicySet(_) => BodyKind::PolicySet,
                Body::RetentionSet(_) => BodyKind::RetentionSet,
                Body::LegalHoldPlaced(_) => BodyKind::LegalHoldPlaced,
                Body::LegalHoldReleased(_) => BodyKind::LegalHoldReleased,
                Body::LogKeyRotated(_) => BodyKind::LogKeyRotated,
                Body::Erasure(_) => BodyKind::Erasure,
            },
            // See `breach`.
            breach: None,
        },
    }
}
