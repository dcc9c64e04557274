//! Bodies that the cast says.

use super::*;

/// A commitment to something that nobody has.
/// Names the order that a statement is about.
pub(crate) fn with_order(made: &mut v1::Statement) {
    made.correlation_keys = vec![v1::CorrelationKey {
        kind: "order".into(),
        value: "7".into(),
    }];
}

pub(crate) fn committed(what: &str) -> v1::Commitment {
    let session = SessionId::new([0x55; 16]);
    let salt = commitment::Salt::derive(&[0x42; 32], session, Sequence::new(7), what);
    commitment::commit(&salt, what.as_bytes(), "application/json")
}

pub(crate) fn policy_set(policies: &str) -> Body {
    let schema = policy::DEFAULT_SCHEMA;
    Body::PolicySet(v1::PolicySet {
        policies: policies.into(),
        schema: schema.into(),
        digest: policy::digest(policies, schema).to_vec().into(),
        cedar_version: policy::CEDAR_VERSION.into(),
        rules_version: 2,
        reason: String::new(),
    })
}

/// A task that ends by itself so many seconds after [`TIME_US`]; 0 for never.
pub(crate) fn task_opened(tier: RiskTier, deadline_s: i64) -> Body {
    Body::TaskOpened(v1::TaskOpened {
        objective: None,
        requested_by: "https://example.org/people/dee".into(),
        risk_tier: tier.into(),
        deadline_us: seconds(deadline_s),
        nonce: Bytes::new(),
    })
}

pub(crate) fn task_closed() -> Body {
    Body::TaskClosed(v1::TaskClosed {
        end: TaskEnd::Completed.into(),
        reason: String::new(),
    })
}

/// A root grant of every action and resource below `refund/` and `orders/`, for 10,000 s.
pub(crate) fn grant(subject: Who) -> v1::Grant {
    v1::Grant {
        subject: subject.producer.into(),
        actions: vec!["refund".into(), "refund/*".into()],
        resources: vec!["orders/*".into()],
        expires_us: seconds(10_000),
        ..v1::Grant::default()
    }
}

pub(crate) fn grant_to(subject: Who) -> Body {
    Body::Grant(grant(subject))
}

/// The same as a part of another.
pub(crate) fn delegated(subject: Who, parent: Hash) -> v1::Grant {
    v1::Grant {
        parent: Bytes::copy_from_slice(parent.as_bytes()),
        ..grant(subject)
    }
}

pub(crate) fn accepted(grant: Hash) -> Body {
    let grant = Bytes::copy_from_slice(grant.as_bytes());
    Body::GrantAccepted(v1::GrantAccepted { grant })
}

pub(crate) fn revocation(grant: Hash) -> Body {
    Body::Revocation(v1::Revocation {
        grant: Bytes::copy_from_slice(grant.as_bytes()),
        reason: String::new(),
    })
}

/// An Intent of `minor_units` cents with all that the default policies ask of it.
pub(crate) fn intent(resource: &str, minor_units: i64, grant: Option<Hash>) -> v1::Intent {
    v1::Intent {
        action: "refund".into(),
        resource: resource.into(),
        amount: Some(amount(minor_units)),
        grant: grant.map_or_else(Bytes::new, |hash| Bytes::copy_from_slice(hash.as_bytes())),
        arguments: Some(committed("intent.arguments")),
        prompt: Some(committed("intent.prompt")),
        model: "model-1".into(),
        ..v1::Intent::default()
    }
}

pub(crate) fn amount(minor_units: i64) -> v1::Amount {
    v1::Amount {
        minor_units,
        currency: "EUR".into(),
    }
}

pub(crate) fn decision(intent: &Place, verdict: Verdict) -> Body {
    Body::Decision(v1::Decision {
        intent: Some(intent.leaf_ref()),
        verdict: verdict.into(),
        engine: "rules".into(),
        ..v1::Decision::default()
    })
}

/// An approval that took a minute, decided at `at`.
pub(crate) fn approval(intent: &Place, verdict: Verdict, at: Micros) -> Body {
    Body::Approval(v1::Approval {
        intent: Some(intent.leaf_ref()),
        verdict: verdict.into(),
        shown: Some(committed("approval.shown")),
        shown_at_us: at.get() - 60_000_000,
        opened_at_us: at.get() - 50_000_000,
        decided_at_us: at.get(),
        strength: AuthenticationStrength::MultiFactor.into(),
        rationale: String::new(),
        assertion: None,
    })
}

pub(crate) fn effect(resource: &str, minor_units: i64) -> v1::Effect {
    v1::Effect {
        kind: "refund.created".into(),
        resource: resource.into(),
        amount: Some(amount(minor_units)),
        ..v1::Effect::default()
    }
}

/// What came of an Intent, with all that the default policies ask of it.
pub(crate) fn outcome(intent: &Place, status: OutcomeStatus, effects: Vec<v1::Effect>) -> Body {
    Body::Outcome(v1::Outcome {
        intent: Some(intent.statement_ref()),
        status: status.into(),
        effects,
        tool_call: Some(committed("outcome.tool_call")),
        response: Some(committed("outcome.response")),
        result: Some(committed("outcome.result")),
        arguments: None,
    })
}

pub(crate) fn observation(intent: Option<&Place>, effects: Vec<v1::Effect>) -> Body {
    Body::Observation(v1::Observation {
        intent: intent.map(Place::leaf_ref),
        effects,
        ..v1::Observation::default()
    })
}

/// A heartbeat at a session's next sequence; use it with [`Ledger::try_say`], which knows it.
pub(crate) fn heartbeat(sequence: u64, next_within_s: i64) -> Body {
    Body::Heartbeat(v1::Heartbeat {
        last_sequence: sequence,
        count: sequence + 1,
        next_within_us: next_within_s * 1_000_000,
    })
}

pub(crate) fn key_revoked(who: Who, compromised_since: Option<i64>) -> Body {
    let key = who.key().unwrap();
    Body::KeyRevoked(v1::KeyRevoked {
        key_id: Bytes::copy_from_slice(key.as_bytes()),
        compromised_since_us: compromised_since.map(seconds),
        reason: String::new(),
    })
}
