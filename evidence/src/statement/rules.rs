//! Rules between the fields of the bodies that are seldom recorded.
//!
//! Trust statements are rare, so their keys are checked as points here: nothing that parses names
//! a key for which everybody can sign.

use deed_proto::v1::KeyRole;
use deed_tlog::{PublicKey, SignatureType, VerifierKey};

use super::{
    BodyKind,
    fields::{Fields, texts},
};
use crate::{
    Problem, WireError, name, schema, uri,
    wire::{self, Message, Value},
};

/// Checks what holds between the fields of a body, or between it and the world. The walk has been
/// over `bytes` before.
#[cold]
pub(super) fn check(body: BodyKind, bytes: &[u8]) -> Result<(), WireError> {
    match body {
        BodyKind::Clearance => clearance(bytes),
        BodyKind::TaskReceipt => task_receipt(bytes),
        BodyKind::Grant => grant(bytes),
        BodyKind::Approval => approval(bytes),
        BodyKind::Observation => observation(bytes),
        BodyKind::AuthoritiesChanged => authorities_changed(bytes),
        BodyKind::KeyRegistered => key_registered(bytes),
        BodyKind::PrincipalBound => principal_bound(bytes),
        BodyKind::PolicySet => policy_set(bytes),
        BodyKind::LogKeyRotated => log_key_rotated(bytes),
        // `Fields::into_header` has checked these against the header's fields.
        BodyKind::Tick | BodyKind::TaskOpened | BodyKind::Heartbeat | BodyKind::SessionClosed => {
            Ok(())
        }
        BodyKind::Genesis
        | BodyKind::TaskClosed
        | BodyKind::GrantAccepted
        | BodyKind::Intent
        | BodyKind::Outcome
        | BodyKind::Decision
        | BodyKind::Revocation
        | BodyKind::FindingDisposition
        | BodyKind::KeyRevoked
        | BodyKind::RetentionSet
        | BodyKind::LegalHoldPlaced
        | BodyKind::LegalHoldReleased
        | BodyKind::Erasure => Ok(()),
    }
}

/// Evidence names the Intent by its leaf hash, so all of it lies behind the Intent.
fn clearance(bytes: &[u8]) -> Result<(), WireError> {
    let mut last = 0;
    let mut unordered = false;
    wire::walk(&schema::CLEARANCE, bytes, |field, value| {
        match (field.number, value) {
            (1, Value::Bytes(intent)) => last = leaf_index(intent),
            (3, Value::Bytes(evidence)) => {
                let leaf = leaf_index(evidence);
                unordered |= last >= leaf;
                last = leaf;
            }
            _ => {}
        }
    })?;
    if unordered {
        let rule = "must be strictly ascending by leaf_index, and behind the Intent";
        return Err(WireError::rule("clearance.evidence", rule));
    }
    Ok(())
}

/// Index in a LeafRef that the walk has been over.
fn leaf_index(bytes: &[u8]) -> u64 {
    let mut index = 0;
    // Checked on the way here.
    let _ = wire::walk(&schema::LEAF_REF, bytes, |field, value| {
        if let (1, Value::Number(n)) = (field.number, value) {
            index = n;
        }
    });
    index
}

/// Leaf 0 is the genesis entry and no task's, so up to leaf n there are at most n entries of one.
fn task_receipt(bytes: &[u8]) -> Result<(), WireError> {
    let (mut through, mut count) = (0, 0);
    wire::walk(&schema::TASK_RECEIPT, bytes, |field, value| {
        match (field.number, value) {
            (1, Value::Number(n)) => through = n,
            (2, Value::Number(n)) => count = n,
            _ => {}
        }
    })?;
    if count > through {
        let rule = "must be at most through_leaf";
        return Err(WireError::rule("task_receipt.count", rule));
    }
    Ok(())
}

fn grant(bytes: &[u8]) -> Result<(), WireError> {
    let table = &schema::GRANT;
    not_the_ledgers(table, 1, bytes, "grant.subject")?;
    check_names(bytes)?;
    let (mut from, mut until) = (0, 0);
    let mut negative = false;
    wire::walk(table, bytes, |field, value| match (field.number, value) {
        (5, Value::Number(n)) => from = n,
        (6, Value::Number(n)) => until = n,
        (8, Value::Bytes(amount)) => {
            // Checked on the way here. Negative numbers have the top bit.
            let _ = wire::walk(&schema::AMOUNT, amount, |field, value| {
                if let (1, Value::Number(n)) = (field.number, value) {
                    negative = n > i64::MAX as u64;
                }
            });
        }
        _ => {}
    })?;
    if until <= from {
        let rule = "must be later than not_before_us";
        return Err(WireError::rule("grant.expires_us", rule));
    }
    if negative {
        let rule = "must not be negative";
        return Err(WireError::rule("grant.amount.minor_units", rule));
    }
    Ok(())
}

fn approval(bytes: &[u8]) -> Result<(), WireError> {
    let (mut shown, mut opened, mut decided) = (0, 0, 0);
    wire::walk(&schema::APPROVAL, bytes, |field, value| {
        match (field.number, value) {
            (4, Value::Number(n)) => shown = n,
            (5, Value::Number(n)) => opened = n,
            (6, Value::Number(n)) => decided = n,
            _ => {}
        }
    })?;
    if opened != 0 && opened < shown {
        let rule = "must not be before shown_at_us";
        return Err(WireError::rule("approval.opened_at_us", rule));
    }
    if decided < opened.max(shown) {
        let rule = "must not be before opened_at_us and shown_at_us";
        return Err(WireError::rule("approval.decided_at_us", rule));
    }
    Ok(())
}

/// Checks the texts that a grant compares: one text for one thing.
fn check_names(bytes: &[u8]) -> Result<(), WireError> {
    let (mut actions, mut resources) = (0, 0);
    for (field, text) in Fields(bytes).texts() {
        let (name, position) = match field {
            3 => ("actions", &mut actions),
            4 => ("resources", &mut resources),
            _ => continue,
        };
        if let Some(flaw) = name::flaw(text) {
            let path = format!("grant.{name}[{position}]");
            return Err(WireError::rule(path, flaw.rule()));
        }
        *position += 1;
    }
    let [subject, token] = texts(bytes, [1, 10]);
    check_canonical("grant.subject", subject, |text| {
        uri::canonical(text).ok_or("must be a URI that has a canonical form")
    })?;
    let [value] = texts(token, [2]);
    check_seen("grant.outside_token.value", value)?;
    check_producers("grant.gateways", bytes, 11)
}

/// Producers that somebody may act for, or that may act.
fn check_producers(path: &'static str, bytes: &[u8], number: u32) -> Result<(), WireError> {
    let producers = Fields(bytes).texts().filter(|(field, _)| *field == number);
    for (_, producer) in producers {
        if is_the_ledgers(producer) {
            let rule = "must not begin with deed:, which is the ledger's own";
            return Err(WireError::rule(path, rule));
        }
        check_canonical(path, producer, |text| {
            uri::canonical(text).ok_or("must be a URI that has a canonical form")
        })?;
    }
    Ok(())
}

/// As an Outcome's effects from rules version 2 on: observations were never there before.
fn observation(bytes: &[u8]) -> Result<(), WireError> {
    let effects = Fields(bytes).texts().filter(|(field, _)| *field == 2);
    for (position, (_, effect)) in effects.enumerate() {
        let [kind, resource, external_id] = texts(effect, [1, 2, 3]);
        for (name, text) in [("kind", kind), ("resource", resource)] {
            if let Some(flaw) = name::flaw(text) {
                let path = format!("observation.effects[{position}].{name}");
                return Err(WireError::rule(path, flaw.rule()));
            }
        }
        let path = "observation.effects.external_id";
        check_seen(path, external_id)?;
    }
    Ok(())
}

fn principal_bound(bytes: &[u8]) -> Result<(), WireError> {
    let table = &schema::PRINCIPAL_BOUND;
    not_the_ledgers(table, 2, bytes, "principal_bound.producer")?;
    let [principal] = texts(bytes, [1]);
    check_seen("principal_bound.principal", principal)
}

fn check_seen(path: &'static str, text: &[u8]) -> Result<(), WireError> {
    if name::has_unseen_bytes(text) {
        return Err(WireError::rule(path, name::UNSEEN_RULE));
    }
    Ok(())
}

/// Refuses every text but its canonical form, and says which that is.
fn check_canonical(
    path: &'static str,
    text: &[u8],
    form: impl FnOnce(&str) -> Result<String, &'static str>,
) -> Result<(), WireError> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let form = form(text).map_err(|rule| WireError::rule(path, rule))?;
    if form != text {
        return Err(WireError::new(path, Problem::NotCanonical { form }));
    }
    Ok(())
}

fn authorities_changed(bytes: &[u8]) -> Result<(), WireError> {
    let path = "authorities_changed.authority_keys";
    let table = &schema::AUTHORITIES_CHANGED;
    let mut position = 0;
    let mut bad = None;
    wire::walk(table, bytes, |field, value| {
        if let (1, Value::Bytes(message)) = (field.number, value) {
            // Tag and length, then the 32 bytes of the key: its one field.
            let key = message.get(2..).unwrap_or_default();
            if !is_key(key) {
                bad.get_or_insert(position);
            }
            position += 1;
        }
    })?;
    match bad {
        Some(position) => Err(bad_key(format!("{path}[{position}].public_key"))),
        None => Ok(()),
    }
}

fn key_registered(bytes: &[u8]) -> Result<(), WireError> {
    let table = &schema::KEY_REGISTERED;
    let mut key: &[u8] = &[];
    let (mut from, mut until, mut role) = (0, 0, 0);
    let (mut acts_for, mut resources) = (false, false);
    wire::walk(table, bytes, |field, value| match (field.number, value) {
        (1, Value::Bytes(b)) => key = b,
        (2, Value::Number(n)) => role = n,
        (5, Value::Number(n)) => from = n,
        (6, Value::Number(n)) => until = n,
        (8, _) => acts_for = true,
        (9, _) => resources = true,
        _ => {}
    })?;
    if !is_key(key) {
        return Err(bad_key("key_registered.public_key".to_owned()));
    }
    not_the_ledgers(table, 3, bytes, "key_registered.producer")?;
    let [controller] = texts(bytes, [4]);
    check_canonical("key_registered.controller", controller, |text| {
        uri::canonical_controller(text).ok_or("must be an https or spiffe URI with a host")
    })?;
    if until != 0 && until <= from {
        let rule = "must be later than valid_from_us";
        return Err(WireError::rule("key_registered.valid_until_us", rule));
    }
    check_producers("key_registered.acts_for", bytes, 8)?;
    let own = Fields(bytes).texts().filter(|(field, _)| *field == 9);
    for (position, (_, resource)) in own.enumerate() {
        if let Some(flaw) = name::flaw(resource) {
            let path = format!("key_registered.resources[{position}]");
            return Err(WireError::rule(path, flaw.rule()));
        }
    }
    let has_role = |wanted: KeyRole| u64::try_from(wanted as i32) == Ok(role);
    let is_system = has_role(KeyRole::DownstreamSystem);
    if resources != is_system {
        let rule = if is_system {
            "a downstream system names the resources that are its own, or `*` for all"
        } else {
            "only a downstream system has resources of its own"
        };
        return Err(WireError::rule("key_registered.resources", rule));
    }
    if acts_for && !is_system && !has_role(KeyRole::Agent) && !has_role(KeyRole::Platform) {
        let rule = "only an agent, a platform or a downstream system carries out acts for others";
        return Err(WireError::rule("key_registered.acts_for", rule));
    }
    Ok(())
}

/// The only rules that a ledger can be brought to; see `PolicySet.rules_version`.
fn policy_set(bytes: &[u8]) -> Result<(), WireError> {
    const _: () = assert!(crate::RULES_VERSION == 2, "the rule says which it is");
    let mut version = 0;
    wire::walk(&schema::POLICY_SET, bytes, |field, value| {
        if let (5, Value::Number(n)) = (field.number, value) {
            version = n;
        }
    })?;
    if version != u64::from(crate::RULES_VERSION) {
        return Err(WireError::rule("policy_set.rules_version", "must be 2"));
    }
    Ok(())
}

/// One text for one key, as everywhere: what is compared as a key is then equal as bytes.
fn log_key_rotated(bytes: &[u8]) -> Result<(), WireError> {
    let mut fits = false;
    wire::walk(&schema::LOG_KEY_ROTATED, bytes, |field, value| {
        if let (1, Value::Bytes(log_key)) = (field.number, value) {
            // Checked on the way here.
            let _ = wire::walk(&schema::LOG_KEY, log_key, |_, value| {
                if let Value::Bytes(vkey) = value {
                    fits = is_log_key(vkey);
                }
            });
        }
    })?;
    if fits {
        return Ok(());
    }
    Err(WireError::rule(
        "log_key_rotated.log_key.vkey",
        "must be the verifier key of an Ed25519 key that signs checkpoints",
    ))
}

fn is_log_key(vkey: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(vkey) else {
        return false;
    };
    let parsed = text.parse::<VerifierKey>();
    parsed
        .is_ok_and(|key| key.signature_type() == SignatureType::Ed25519 && key.to_string() == text)
}

/// `deed:` URIs are the ledger's own. Schemes are the same in upper and lower case (RFC 3986
/// section 3.1), so nobody gets one that only looks different.
fn not_the_ledgers(
    table: &Message,
    number: u32,
    bytes: &[u8],
    path: &'static str,
) -> Result<(), WireError> {
    let mut is_the_ledgers = false;
    wire::walk(table, bytes, |field, value| {
        if let Value::Bytes(uri) = value
            && field.number == number
        {
            is_the_ledgers = self::is_the_ledgers(uri);
        }
    })?;
    if is_the_ledgers {
        return Err(WireError::rule(
            path,
            "must not begin with deed:, which is the ledger's own",
        ));
    }
    Ok(())
}

pub(super) fn is_the_ledgers(uri: &[u8]) -> bool {
    let scheme = uri.get(..5);
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"deed:"))
}

fn is_key(bytes: &[u8]) -> bool {
    bytes
        .try_into()
        .is_ok_and(|key| PublicKey::from_bytes(key).is_ok())
}

fn bad_key(path: String) -> WireError {
    WireError::rule(
        path,
        "must be an Ed25519 key, canonical and not of small order",
    )
}
