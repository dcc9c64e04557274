//! Records of the trust state: keys, holds, the policy, references to contents.

use deed_proto::v1::KeyRole;
use deed_tlog::{LeafIndex, PublicKey};

use super::HoldScope;
use crate::{HoldId, KeyId, Micros, TaskId, assess::covers, policy::StoredPolicy};

/// A registered key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its id.
    pub key_id: KeyId,
    /// The key itself, its point decompressed.
    pub public_key: PublicKey,
    /// Its role.
    pub role: KeyRole,
    /// For whom it speaks.
    pub producer: String,
    /// Its controller: the organization or person behind it.
    pub controller: String,
    /// From when on it is in force, by effective time; 0 for at once.
    pub valid_from: Micros,
    /// Until when, that moment excluded; [`Micros::MAX`] for ever.
    pub valid_until: Micros,
    /// Effective time of its revocation.
    pub revoked_at: Option<Micros>,
    /// Since when somebody else may have had it.
    pub compromised_since: Option<Micros>,
    /// Producers whose gateway it is: it may give the Outcomes of their Intents.
    pub acts_for: Vec<String>,
    /// The resources that are a downstream system's own: names and patterns; `*` for all.
    pub resources: Vec<String>,
    /// The leaf that registered it.
    pub registered_leaf: LeafIndex,
    /// The leaf that revoked it.
    pub revoked_leaf: Option<LeafIndex>,
}

impl KeyRecord {
    /// Returns true if it speaks at effective time `at`.
    #[must_use]
    pub fn in_force(&self, at: Micros) -> bool {
        self.revoked_at.is_none() && self.valid_from <= at && at < self.valid_until
    }

    /// Returns true if somebody else may have had it at effective time `at`.
    #[must_use]
    pub fn is_doubtful(&self, at: Micros) -> bool {
        self.compromised_since.is_some_and(|since| since <= at)
    }

    /// Returns true if a resource is this system's own.
    #[must_use]
    pub fn owns(&self, resource: &str) -> bool {
        let covers = |pattern: &String| pattern == "*" || covers(pattern, resource);
        self.resources.iter().any(covers)
    }
}

/// A legal hold in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Its name.
    pub hold: HoldId,
    /// The contents that it covers.
    pub scope: HoldScope,
    /// The leaf that placed it.
    pub placed_leaf: LeafIndex,
}

/// The evidence policy in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyInForce {
    /// The policy. It is compiled when it is first needed.
    pub policy: StoredPolicy,
    /// The leaf that set it.
    pub leaf: LeafIndex,
}

/// A statement that commits to a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// Its leaf.
    pub leaf: LeafIndex,
    /// Effective time at which it was recorded.
    pub recorded_at: Micros,
    /// Its task.
    pub task: Option<TaskId>,
}
