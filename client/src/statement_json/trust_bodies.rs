//! Trust statements in JSON: who speaks for whom, and which rules are in force.

use deed_proto::v1::{self, legal_hold_placed::Scope, statement::Body};
use serde::{Deserialize, Serialize};

use super::{
    JsonError,
    bodies::{AuthorityKeyJson, LogKeyJson, Wire, is_absent, mirror, names},
    hex_bytes::HexBytes,
};

mirror!(AuthoritiesChangedJson = AuthoritiesChanged {
    authority_keys: Vec<AuthorityKeyJson>,
} + {
    reason: String,
});
mirror!(KeyRegisteredJson = KeyRegistered {
    public_key: HexBytes,
    role: KeyRoleName,
    producer: String,
    controller: String,
    possession: HexBytes,
} + {
    valid_from_us: i64,
    valid_until_us: i64,
    acts_for: Vec<String>,
    resources: Vec<String>,
});
mirror!(KeyRevokedJson = KeyRevoked { key_id: HexBytes } + {
    compromised_since_us: Option<i64>,
    reason: String,
});
mirror!(PrincipalBoundJson = PrincipalBound {
    principal: String,
    producer: String,
} + {
    valid_until_us: i64,
});
mirror!(PolicySetJson = PolicySet {
    policies: String,
    schema: String,
    digest: HexBytes,
    cedar_version: String,
    rules_version: u32,
} + {
    reason: String,
});
mirror!(RetentionSetJson = RetentionSet { floor_us: i64 } + { reason: String });
mirror!(
    LegalHoldReleasedJson = LegalHoldReleased {
        hold: HexBytes,
        reason: String,
    } + {}
);
mirror!(
    LogKeyRotatedJson = LogKeyRotated {
        log_key: Option<LogKeyJson>,
        reason: String,
    } + {}
);
mirror!(
    ErasureJson = Erasure {
        commitments: Vec<HexBytes>,
        requested_by: String,
        reason: String,
        legal_basis: String,
    } + {}
);

names!(
    KeyRoleName = KeyRole {
        Agent,
        Approver,
        PolicyEngine,
        DownstreamSystem,
        Platform,
        Importer,
    }
);

/// LegalHoldPlaced; the scope is one of two fields, or the whole ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LegalHoldPlacedJson {
    hold: HexBytes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<HexBytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    commitment: Option<HexBytes>,
    reason: String,
}

impl LegalHoldPlacedJson {
    pub(super) fn into_body(self) -> Result<Body, JsonError> {
        let scope = match (self.task, self.commitment) {
            (Some(_), Some(_)) => return Err(JsonError::Scopes),
            (Some(task), None) => Some(Scope::Task(task.into())),
            (None, Some(commitment)) => Some(Scope::Commitment(commitment.into())),
            (None, None) => None,
        };
        Ok(Body::LegalHoldPlaced(v1::LegalHoldPlaced {
            hold: self.hold.into(),
            reason: self.reason,
            scope,
        }))
    }
}

impl From<v1::LegalHoldPlaced> for LegalHoldPlacedJson {
    fn from(message: v1::LegalHoldPlaced) -> Self {
        let (task, commitment) = match message.scope {
            Some(Scope::Task(task)) => (Some(task.into()), None),
            Some(Scope::Commitment(commitment)) => (None, Some(commitment.into())),
            None => (None, None),
        };
        Self {
            hold: message.hold.into(),
            task,
            commitment,
            reason: message.reason,
        }
    }
}
