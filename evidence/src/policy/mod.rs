//! The evidence policy: which evidence an action needs, as code.
//!
//! A ledger's owner writes it in Cedar ([`EvidencePolicy`]). Every Intent is judged by it when it
//! is recorded, and one that waits is judged again when evidence for it arrives
//! ([`EvidencePolicy::judge`]). The question that Cedar is asked:
//!
//! | variable | is |
//! |---|---|
//! | `principal` | `Agent::"<producer>"`, with `controller` if one is known |
//! | `action` | `Action::"<name>"`, in the groups that the schema declares for it |
//! | `resource` | `Resource::"<resource>"`, with its text once more as `name` |
//! | `context` | `tier`, `amount` if there is one, and `evidence` ([`Evidence`]) |
//!
//! Two things differ from Cedar alone. A policy that fails to evaluate is skipped by Cedar, which
//! may then allow; here an error is never an allow ([`Ruling::Error`]). And Cedar knows yes and no
//! only, while an Intent may have to wait: what can still arrive (a decision, approvals) is
//! supposed to be there, and if the answer becomes yes, the least of it that is enough is what is
//! missing ([`Ruling::Waiting`]).
//!
//! Architecture invariant: a ruling follows from the two texts and the request alone. Texts are
//! bounded in size, nesting and the kinds of requests that they declare, so that compiling ends
//! soon, and so that no thread's stack is too small for one verifier and large enough for another.
//! The cost of judging is bounded in units that follow from the texts and the request as well
//! (`cost`). The diagnostics of Cedar are for people: another version may word them differently, so
//! no ruling has them.

mod ask;
mod bound;
mod compile;
mod cost;
mod diagnostics;
mod duties;
mod evaluate;
mod evidence;
mod judge;
mod nesting;
mod program;
mod stored;
#[cfg(test)]
mod tests;
mod types;

use std::{fmt, sync::Arc};

use sha2::{Digest as _, Sha256};

pub use bound::PolicyCost;
pub use compile::PolicyInfo;
pub use cost::{ASKS_MAX, JUDGEMENT_UNITS_MAX, LIKE_STEPS_MAX, SET_ELEMENTS_MAX};
pub use diagnostics::PolicyError;
pub use duties::Duties;
pub use evidence::{Evidence, Need};
pub use judge::{Judging, Ruling};
pub use stored::{StoredPolicy, UnreadablePolicy, reads};

use compile::Compiled;

/// Version of the Cedar language that this build evaluates.
pub const CEDAR_VERSION: &str = "4.6";

/// Most policies in one set.
pub const POLICIES_MAX: usize = 256;

/// Longest text of policies, in bytes.
pub const POLICIES_BYTES_MAX: usize = 32_768;

/// Longest schema, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 16_384;

/// The policies that Deed ships: one for each risk tier. Each says in plain English what it wants.
pub const DEFAULT_POLICIES: &str = concat!(
    include_str!("../../policies/low.cedar"),
    "\n",
    include_str!("../../policies/payment.cedar"),
    "\n",
    include_str!("../../policies/customer_communication.cedar"),
    "\n",
    include_str!("../../policies/deployment.cedar"),
    "\n",
    include_str!("../../policies/deletion.cedar"),
);

/// The schema of [`DEFAULT_POLICIES`]. Policies of one's own may use it as it is, or with their
/// actions added: the entity types and the context are what Deed asks with.
pub const DEFAULT_SCHEMA: &str = include_str!("../../policies/deed.cedarschema");

/// A set of policies that is valid under its schema. Clones share it; two are equal if their
/// digests are.
#[derive(Clone)]
pub struct EvidencePolicy(Arc<Compiled>);

/// An Intent as the policies see it. Its texts may be anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// The producer of the Intent.
    pub agent: &'a str,
    /// The controller of the key that signed it; none if no registered key did.
    pub controller: Option<&'a str>,
    /// The action's name.
    pub action: &'a str,
    /// The resource that it acts on.
    pub resource: &'a str,
    /// The task's tier; unspecified if the task was never opened.
    pub tier: deed_proto::v1::RiskTier,
    /// The amount, in the currency's minor unit, and the currency.
    pub amount: Option<(i64, &'a str)>,
    /// The evidence that is there.
    pub evidence: Evidence,
}

impl EvidencePolicy {
    /// Parses both texts and validates the policies under the schema, in Cedar's strict mode.
    ///
    /// # Errors
    /// [`PolicyError`] if a text is too long, nested too deeply or not Cedar, if the policies are
    /// not valid under the schema, if one is a template, if an annotation is not one that Deed
    /// knows (`@id`, `@description`, and on a permit `@keep` and `@corroborate`), or if checking them
    /// or judging by them costs too much.
    pub fn compile(policies: &str, schema: &str) -> Result<Self, PolicyError> {
        Compiled::new(policies, schema).map(|compiled| Self(Arc::new(compiled)))
    }

    /// As [`digest`] of the two texts.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.0.digest
    }

    /// The policies, as they were written.
    #[must_use]
    pub fn policies(&self) -> &str {
        &self.0.policies_text
    }

    /// The schema, as it was written.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.0.schema_text
    }

    /// The policies, in the order of the text: 1 to [`POLICIES_MAX`].
    #[must_use]
    pub fn infos(&self) -> &[PolicyInfo] {
        &self.0.infos
    }

    /// Cedar's warnings, by place: policies that can never apply, texts that look like others.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.0.warnings
    }

    /// The greatest cost of judging an Intent, as long as it expects no effects elsewhere.
    #[must_use]
    pub fn cost(&self) -> PolicyCost {
        self.0.cost
    }

    /// Judges an Intent by the evidence that is there. Never panics, whatever the request says.
    #[must_use]
    pub fn judge(&self, request: &Request<'_>) -> Ruling {
        // The first ruling of a judgement is always given.
        self.judging().judge(request).unwrap_or(Ruling::Error {
            diagnostics: Vec::new(),
        })
    }

    /// Begins the judgement of an Intent that may be about several resources.
    #[must_use]
    pub fn judging(&self) -> Judging<'_> {
        Judging::new(&self.0.program)
    }
}

impl PartialEq for EvidencePolicy {
    fn eq(&self, other: &Self) -> bool {
        self.0.digest == other.0.digest
    }
}

impl Eq for EvidencePolicy {}

impl fmt::Debug for EvidencePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EvidencePolicy")
            .field("digest", &hex::encode(self.0.digest))
            .field("policies", &self.0.infos.len())
            .finish()
    }
}

/// A text as a message has room for it.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// SHA-256 over the length of `policies` as 8 bytes, big-endian, its bytes, and those of `schema`.
///
/// Source: `PolicySet.digest` in deed/v1/statement.proto.
#[must_use]
pub fn digest(policies: &str, schema: &str) -> [u8; 32] {
    let length = policies.len() as u64;
    Sha256::new()
        .chain_update(length.to_be_bytes())
        .chain_update(policies)
        .chain_update(schema)
        .finalize()
        .into()
}
