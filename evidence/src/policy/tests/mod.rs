//! The evidence policy: what the default policies want, how rulings are found, and what is refused.

mod compiling;
mod defaults;
mod limits;
mod oracle;
mod rulings;

use crate::policy::{
    DEFAULT_POLICIES, DEFAULT_SCHEMA, Duties, Evidence, EvidencePolicy, Request, Ruling,
};
use deed_proto::v1::RiskTier;
use proptest::prelude::{Strategy, any};

fn default_policy() -> EvidencePolicy {
    EvidencePolicy::compile(DEFAULT_POLICIES, DEFAULT_SCHEMA).unwrap()
}

/// Policies under the default schema.
fn policy(text: &str) -> EvidencePolicy {
    EvidencePolicy::compile(text, DEFAULT_SCHEMA).unwrap()
}

fn request(tier: RiskTier, evidence: Evidence) -> Request<'static> {
    Request {
        agent: "spiffe://example.org/agents/refunds",
        controller: Some("https://example.org"),
        action: "payments.refund",
        resource: "orders/1234",
        tier,
        amount: Some((12_900, "EUR")),
        evidence,
    }
}

/// Everything that the default policies want.
const FULL: Evidence = Evidence {
    signed: true,
    grant: true,
    arguments: true,
    prompt: true,
    model: false,
    decision: true,
    approvals: 1,
    approvals_multi_factor: 0,
    approvals_phishing_resistant: 0,
};

/// Any evidence, with fewer than `most` approvals of each kind.
fn any_evidence(most: u32) -> impl Strategy<Value = Evidence> {
    let flags = any::<[bool; 6]>();
    (flags, 0..most, 0..most, 0..most).prop_map(|(flags, any, multi, resistant)| {
        let [signed, grant, arguments, prompt, model, decision] = flags;
        Evidence {
            signed,
            grant,
            arguments,
            prompt,
            model,
            decision,
            approvals: any,
            approvals_multi_factor: multi.min(any),
            approvals_phishing_resistant: resistant.min(multi).min(any),
        }
    })
}

const NO_DUTIES: Duties = Duties {
    tool_call: false,
    response: false,
    result: false,
    corroborate_within_us: None,
};

fn judge(policies: &str, evidence: Evidence) -> Ruling {
    policy(policies).judge(&request(RiskTier::Payment, evidence))
}

fn denied(reasons: &[&str]) -> Ruling {
    Ruling::Denied {
        reasons: reasons.iter().map(ToString::to_string).collect(),
    }
}
