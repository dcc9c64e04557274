//! The rules of `deed/v1/statement.proto`, told a second time: over decoded messages, straight
//! from the comments there, without a look at the tables that are tested with this.

use deed_proto::v1::{self, statement::Body};

#[path = "oracle_header.rs"]
mod header;
#[path = "oracle_names.rs"]
mod names;
pub(crate) use header::header;
pub(crate) use names::breach;
use names::{canonical, controller, name, seen};

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
    match body {
        Body::Genesis(genesis) => self::genesis(genesis),
        Body::Tick(tick) => {
            let until = 0..=statement.occurred_at_us;
            require(until.contains(&tick.due_us), "due_us")?;
            require(until.contains(&tick.clock_us), "clock_us")?;
            require(tick.due_us > 0 || tick.clock_us > 0, "due_us")
        }
        Body::Clearance(clearance) => self::clearance(clearance),
        Body::TaskReceipt(receipt) => {
            require(receipt.through_leaf > 0, "through_leaf")?;
            let most = receipt.through_leaf;
            require((1..=most).contains(&receipt.count), "count")?;
            require(receipt.digest.len() == 32, "digest")?;
            leaf_ref(Some(receipt.trust_head.as_ref().ok_or("trust_head")?))?;
            require(receipt.assessment_digest.len() == 32, "assessment_digest")
        }
        Body::TaskOpened(opened) => task_opened(opened),
        Body::TaskClosed(closed) => {
            require((1..=4).contains(&closed.end), "end")?;
            require(closed.reason.len() <= 1024, "reason")
        }
        Body::Grant(grant) => self::grant(grant),
        Body::GrantAccepted(accepted) => require(accepted.grant.len() == 32, "grant"),
        Body::Intent(intent) => self::intent(intent),
        Body::Outcome(outcome) => self::outcome(outcome),
        Body::Decision(decision) => {
            leaf_ref(Some(decision.intent.as_ref().ok_or("intent")?))?;
            require([1, 2].contains(&decision.verdict), "verdict")?;
            require(text(&decision.engine, 1, 256), "engine")?;
            require(text(&decision.policy_version, 0, 256), "policy_version")?;
            require(empty_or(&decision.policy_digest, 32), "policy_digest")?;
            require(decision.reason.len() <= 1024, "reason")
        }
        Body::Approval(approval) => self::approval(approval),
        Body::Observation(observation) => {
            leaf_ref(observation.intent.as_ref())?;
            require((1..=64).contains(&observation.effects.len()), "effects")?;
            effects(&observation.effects)?;
            for effect in &observation.effects {
                require(name(&effect.kind) && name(&effect.resource), "effects")?;
                require(seen(&effect.external_id), "effects.external_id")?;
            }
            require(text(&observation.reference, 0, 256), "reference")?;
            require(observation.observed_at_us >= 0, "observed_at_us")
        }
        Body::Heartbeat(beat) => {
            require(beat.next_within_us >= 0, "next_within_us")?;
            count(beat.last_sequence, beat.count, statement.sequence)
        }
        Body::SessionClosed(closed) => {
            count(closed.last_sequence, closed.count, statement.sequence)
        }
        Body::Revocation(revocation) => {
            require(revocation.grant.len() == 32, "grant")?;
            require(revocation.reason.len() <= 1024, "reason")
        }
        Body::FindingDisposition(disposition) => {
            require(disposition.leaf_index > 0, "leaf_index")?;
            require((1..=3).contains(&disposition.kind), "kind")?;
            require(text(&disposition.reviewed_by, 1, 512), "reviewed_by")?;
            require((1..=1024).contains(&disposition.reason.len()), "reason")
        }
        Body::AuthoritiesChanged(changed) => {
            let keys = &changed.authority_keys;
            require((1..=16).contains(&keys.len()), "authority_keys")?;
            require(ascending(keys, |key| &key.public_key), "authority_keys")?;
            for key in keys {
                require(is_key(&key.public_key), "public_key")?;
            }
            require(changed.reason.len() <= 1024, "reason")
        }
        Body::KeyRegistered(key) => key_registered(key),
        Body::KeyRevoked(key) => {
            require(key.key_id.len() == 16, "key_id")?;
            let since = key.compromised_since_us;
            require(since.is_none_or(|since| since >= 0), "compromised_since_us")?;
            require(key.reason.len() <= 1024, "reason")
        }
        Body::PrincipalBound(bound) => {
            require(text(&bound.principal, 1, 512), "principal")?;
            require(seen(&bound.principal), "principal")?;
            require(producers_own(&bound.producer), "producer")?;
            require(bound.valid_until_us >= 0, "valid_until_us")
        }
        Body::PolicySet(set) => {
            require((1..=32_768).contains(&set.policies.len()), "policies")?;
            require((1..=16_384).contains(&set.schema.len()), "schema")?;
            require(set.digest.len() == 32, "digest")?;
            require(text(&set.cedar_version, 1, 16), "cedar_version")?;
            require(set.rules_version == 2, "rules_version")?;
            require(set.reason.len() <= 1024, "reason")
        }
        Body::RetentionSet(set) => {
            require(set.floor_us >= 0, "floor_us")?;
            require(set.reason.len() <= 1024, "reason")
        }
        Body::LegalHoldPlaced(placed) => {
            use v1::legal_hold_placed::Scope;
            require(placed.hold.len() == 16, "hold")?;
            match &placed.scope {
                None => {}
                Some(Scope::Task(task)) => require(task.len() == 16, "task")?,
                Some(Scope::Commitment(digest)) => require(digest.len() == 32, "commitment")?,
            }
            require((1..=1024).contains(&placed.reason.len()), "reason")
        }
        Body::LegalHoldReleased(released) => {
            require(released.hold.len() == 16, "hold")?;
            require((1..=1024).contains(&released.reason.len()), "reason")
        }
        Body::LogKeyRotated(rotated) => {
            let log_key = rotated.log_key.as_ref().ok_or("log_key")?;
            require(is_log_key(&log_key.vkey), "log_key")?;
            require((1..=1024).contains(&rotated.reason.len()), "reason")
        }
        Body::Erasure(erasure) => {
            let digests = &erasure.commitments;
            require((1..=64).contains(&digests.len()), "commitments")?;
            require(digests.iter().all(|d| d.len() == 32), "commitments")?;
            require(ascending(digests, |digest| digest), "commitments")?;
            require(text(&erasure.requested_by, 1, 512), "requested_by")?;
            require((1..=1024).contains(&erasure.reason.len()), "reason")?;
            require(text(&erasure.legal_basis, 1, 256), "legal_basis")
        }
    }
}

fn key_registered(key: &v1::KeyRegistered) -> Result<(), Broken> {
    require(is_key(&key.public_key), "public_key")?;
    require((1..=6).contains(&key.role), "role")?;
    require(producers_own(&key.producer), "producer")?;
    require(uri(&key.controller, 512), "controller")?;
    require(controller(&key.controller), "controller")?;
    require(key.valid_from_us >= 0, "valid_from_us")?;
    let until = key.valid_until_us;
    require(until == 0 || until > key.valid_from_us, "valid_until_us")?;
    require(key.possession.len() == 64, "possession")?;
    producers(&key.acts_for, 64)?;
    require(key.resources.len() <= 64, "resources")?;
    let names = &key.resources;
    require(names.iter().all(|one| text(one, 1, 1024)), "resources")?;
    require(names.iter().all(|one| name(one)), "resources")?;
    require(ascending(names, |one| one.as_bytes()), "resources")?;
    require(names.is_empty() == (key.role != 4), "resources")?;
    let acts = [1, 4, 5].contains(&key.role);
    require(acts || key.acts_for.is_empty(), "acts_for")
}

/// Producers that act for others, or for whom others act.
fn producers(list: &[String], max: usize) -> Result<(), Broken> {
    require(list.len() <= max, "producers")?;
    require(list.iter().all(|one| uri(one, 512)), "producers")?;
    require(list.iter().all(|one| producers_own(one)), "producers")?;
    require(list.iter().all(|one| canonical(one)), "producers")?;
    require(ascending(list, |one| one.as_bytes()), "producers")
}

/// A producer that is none of the ledger's own.
fn producers_own(producer: &str) -> bool {
    uri(producer, 512) && !producer.to_ascii_lowercase().starts_with("deed:")
}

fn is_key(bytes: &[u8]) -> bool {
    bytes.len() == 32 && deed_tlog::PublicKey::from_bytes(&array(bytes)).is_ok()
}

/// The key of a log, in the one form that it has.
fn is_log_key(vkey: &str) -> bool {
    let parsed = vkey.parse::<deed_tlog::VerifierKey>();
    text(vkey, 1, 640)
        && parsed.is_ok_and(|key| {
            key.signature_type() == deed_tlog::SignatureType::Ed25519 && key.to_string() == vkey
        })
}

fn ascending<T>(list: &[T], bytes: impl Fn(&T) -> &[u8]) -> bool {
    list.windows(2).all(|two| bytes(&two[0]) < bytes(&two[1]))
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

fn lower_name(name: &str) -> bool {
    let allowed = "abcdefghijklmnopqrstuvwxyz0123456789._-";
    (1..=64).contains(&name.len()) && name.chars().all(|c| allowed.contains(c))
}

fn genesis(genesis: &v1::Genesis) -> Result<(), Broken> {
    require(text(&genesis.origin, 1, 512), "origin")?;
    require(genesis.log_keys.len() == 1, "log_keys")?;
    require(text(&genesis.log_keys[0].vkey, 1, 640), "vkey")?;
    let keys = &genesis.authority_keys;
    require((1..=16).contains(&keys.len()), "authority_keys")?;
    require(
        keys.iter().all(|key| key.public_key.len() == 32),
        "authority_keys",
    )?;
    require(
        keys.windows(2)
            .all(|two| two[0].public_key < two[1].public_key),
        "authority_keys",
    )?;
    require(genesis.created_at_us > 0, "created_at_us")?;
    require(genesis.nonce.len() == 32, "nonce")?;
    require(genesis.rules_version > 0, "rules_version")
}

fn task_opened(opened: &v1::TaskOpened) -> Result<(), Broken> {
    use v1::task_opened::Objective;
    match &opened.objective {
        None => {}
        Some(Objective::ObjectiveText(text)) => {
            require((1..=4096).contains(&text.len()), "objective_text")?;
        }
        Some(Objective::ObjectiveCommitment(inner)) => commitment(Some(inner))?,
    }
    require(text(&opened.requested_by, 1, 512), "requested_by")?;
    require((1..=5).contains(&opened.risk_tier), "risk_tier")?;
    require(opened.deadline_us >= 0, "deadline_us")
}

fn clearance(clearance: &v1::Clearance) -> Result<(), Broken> {
    let intent = clearance.intent.as_ref().ok_or("intent")?;
    require(clearance.policy_leaf > 0, "policy_leaf")?;
    require((1..=64).contains(&clearance.evidence.len()), "evidence")?;
    let mut leaves = vec![intent.leaf_index];
    for one in &clearance.evidence {
        leaf_ref(Some(one))?;
        leaves.push(one.leaf_index);
    }
    leaf_ref(Some(intent))?;
    let mut sorted = leaves.clone();
    sorted.sort_unstable();
    sorted.dedup();
    require(leaves == sorted, "evidence")
}

fn leaf_ref(leaf: Option<&v1::LeafRef>) -> Result<(), Broken> {
    require(
        leaf.is_none_or(|leaf| leaf.leaf_hash.len() == 32),
        "leaf_hash",
    )
}

fn grant(grant: &v1::Grant) -> Result<(), Broken> {
    require(producers_own(&grant.subject), "subject")?;
    require(canonical(&grant.subject), "subject")?;
    require(empty_or(&grant.subject_key, 16), "subject_key")?;
    for (list, max) in [(&grant.actions, 256), (&grant.resources, 1024)] {
        require((1..=64).contains(&list.len()), "patterns")?;
        require(list.iter().all(|one| text(one, 1, max)), "patterns")?;
        require(list.iter().all(|one| name(one)), "patterns")?;
        require(ascending(list, |one| one.as_bytes()), "patterns")?;
    }
    require(grant.not_before_us >= 0, "not_before_us")?;
    require(grant.expires_us > grant.not_before_us, "expires_us")?;
    amount(grant.amount.as_ref())?;
    let most = grant.amount.as_ref().map(|amount| amount.minor_units);
    require(most.is_none_or(|most| most >= 0), "amount")?;
    require(empty_or(&grant.parent, 32), "parent")?;
    producers(&grant.gateways, 16)?;
    let Some(token) = &grant.outside_token else {
        return Ok(());
    };
    require(lower_name(&token.kind), "outside_token.kind")?;
    require(text(&token.value, 1, 256), "outside_token.value")?;
    require(seen(&token.value), "outside_token.value")?;
    require(empty_or(&token.key_thumbprint, 32), "key_thumbprint")
}

fn approval(approval: &v1::Approval) -> Result<(), Broken> {
    leaf_ref(Some(approval.intent.as_ref().ok_or("intent")?))?;
    require([1, 2].contains(&approval.verdict), "verdict")?;
    commitment(Some(approval.shown.as_ref().ok_or("shown")?))?;
    let times = [
        approval.shown_at_us,
        approval.opened_at_us,
        approval.decided_at_us,
    ];
    require(times.iter().all(|time| *time >= 0), "times")?;
    require(approval.decided_at_us > 0, "decided_at_us")?;
    let known: Vec<_> = times.into_iter().filter(|time| *time > 0).collect();
    require(known.is_sorted(), "times")?;
    require((1..=3).contains(&approval.strength), "strength")?;
    require(approval.rationale.len() <= 1024, "rationale")?;
    let Some(assertion) = &approval.assertion else {
        return Ok(());
    };
    require(lower_name(&assertion.format), "assertion.format")?;
    require((1..=8192).contains(&assertion.data.len()), "assertion.data")
}

fn intent(intent: &v1::Intent) -> Result<(), Broken> {
    require(text(&intent.action, 1, 256), "action")?;
    require(text(&intent.resource, 1, 1024), "resource")?;
    amount(intent.amount.as_ref())?;
    require(empty_or(&intent.grant, 32), "grant")?;
    require(intent.deadline_us >= 0, "deadline_us")?;
    commitment(intent.arguments.as_ref())?;
    commitment(intent.prompt.as_ref())?;
    require(text(&intent.model, 0, 256), "model")?;
    require(
        empty_or(&intent.system_prompt_digest, 32),
        "system_prompt_digest",
    )?;
    require(
        empty_or(&intent.tool_manifest_digest, 32),
        "tool_manifest_digest",
    )?;
    require(text(&intent.tool_call_id, 0, 256), "tool_call_id")?;
    require(intent.expected_effects.len() <= 64, "expected_effects")?;
    effects(&intent.expected_effects)
}

fn outcome(outcome: &v1::Outcome) -> Result<(), Broken> {
    let intent = outcome.intent.as_ref().ok_or("intent")?;
    require(empty_or(&intent.session, 16), "intent.session")?;
    require(intent.payload_digest.len() == 32, "intent.payload_digest")?;
    require((1..=4).contains(&outcome.status), "status")?;
    require(outcome.effects.len() <= 64, "effects")?;
    effects(&outcome.effects)?;
    commitment(outcome.tool_call.as_ref())?;
    commitment(outcome.response.as_ref())?;
    commitment(outcome.result.as_ref())?;
    commitment(outcome.arguments.as_ref())
}

fn effects(effects: &[v1::Effect]) -> Result<(), Broken> {
    for effect in effects {
        require(text(&effect.kind, 1, 128), "effects.kind")?;
        require(text(&effect.resource, 1, 1024), "effects.resource")?;
        require(text(&effect.external_id, 0, 256), "effects.external_id")?;
        amount(effect.amount.as_ref())?;
        require(empty_or(&effect.before_digest, 32), "effects.before_digest")?;
        require(empty_or(&effect.after_digest, 32), "effects.after_digest")?;
    }
    Ok(())
}

fn count(last_sequence: u64, count: u64, sequence: u64) -> Result<(), Broken> {
    require(last_sequence == sequence, "last_sequence")?;
    let most = u128::from(last_sequence) + 1;
    require((1..=most).contains(&u128::from(count)), "count")
}

fn commitment(commitment: Option<&v1::Commitment>) -> Result<(), Broken> {
    let Some(commitment) = commitment else {
        return Ok(());
    };
    require(commitment.digest.len() == 32, "commitment.digest")?;
    require(media_type(&commitment.media_type), "commitment.media_type")
}

/// RFC 6838 section 4.2, as characters rather than bytes.
fn media_type(text: &str) -> bool {
    let name = |name: &str| {
        let mut chars = name.chars();
        chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
            && chars.all(|c| c.is_ascii_alphanumeric() || "!#$&-^_.+".contains(c))
    };
    let (essence, _) = text.split_once(';').unwrap_or((text, ""));
    let parts: Vec<_> = essence.split('/').collect();
    text.len() <= 127
        && text.chars().all(|c| c == ' ' || c.is_ascii_graphic())
        && parts.len() == 2
        && parts.into_iter().all(name)
}

fn amount(amount: Option<&v1::Amount>) -> Result<(), Broken> {
    let Some(amount) = amount else {
        return Ok(());
    };
    let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
    require(
        (3..=16).contains(&amount.currency.len()) && amount.currency.chars().all(upper),
        "amount.currency",
    )
}

fn uri(text: &str, max: usize) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let mut scheme = scheme.chars();
    text.len() <= max
        && scheme.next().is_some_and(|c| c.is_ascii_alphabetic())
        && scheme.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        && !rest.is_empty()
        && rest.chars().all(|c| c.is_ascii_graphic())
}

fn text(text: &str, min: usize, max: usize) -> bool {
    (min..=max).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn empty_or(bytes: &[u8], length: usize) -> bool {
    bytes.is_empty() || bytes.len() == length
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("as long as the rules say")
}
