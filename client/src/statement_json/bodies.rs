//! The bodies of statements in JSON, each as its message in `deed/v1/statement.proto`.

use deed_proto::v1::{self, statement::Body, task_opened::Objective};
use serde::{Deserialize, Serialize};

use super::{JsonError, commitment::CommitmentJson, hex_bytes::HexBytes};

/// Declares a JSON mirror of a message: first the fields that must be given, then the fields that
/// may be left out.
macro_rules! mirror {
    (
        $json:ident = $message:ident {
            $($required:ident: $required_type:ty),* $(,)?
        } + {
            $($field:ident: $type:ty),* $(,)?
        }
    ) => {
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(in crate::statement_json) struct $json {
            $(pub(in crate::statement_json) $required: $required_type,)*
            $(
                #[serde(default, skip_serializing_if = "is_absent")]
                pub(in crate::statement_json) $field: $type,
            )*
        }

        impl From<$json> for v1::$message {
            fn from(json: $json) -> Self {
                Self {
                    $($required: json.$required.into_wire(),)*
                    $($field: json.$field.into_wire(),)*
                }
            }
        }

        impl From<v1::$message> for $json {
            fn from(message: v1::$message) -> Self {
                Self {
                    $($required: Wire::from_wire(message.$required),)*
                    $($field: Wire::from_wire(message.$field),)*
                }
            }
        }
    };
}

/// Declares short names for an enum's values, `UNSPECIFIED` left out: it is refused anyway.
macro_rules! names {
    ($json:ident = $message:ident { $($variant:ident),* $(,)? }) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub(in crate::statement_json) enum $json {
            $($variant,)*
            /// Only in what was read from a ledger: shown, never sent.
            #[serde(skip_deserializing)]
            Unspecified,
        }

        impl Wire<i32> for $json {
            fn into_wire(self) -> i32 {
                match self {
                    $(Self::$variant => v1::$message::$variant.into(),)*
                    Self::Unspecified => 0,
                }
            }

            fn from_wire(number: i32) -> Self {
                match v1::$message::try_from(number) {
                    $(Ok(v1::$message::$variant) => Self::$variant,)*
                    _ => Self::Unspecified,
                }
            }
        }
    };
}

/// Between a field in JSON and the same in the message.
pub(super) trait Wire<T> {
    fn into_wire(self) -> T;
    fn from_wire(wire: T) -> Self;
}

impl Wire<bytes::Bytes> for HexBytes {
    fn into_wire(self) -> bytes::Bytes {
        self.into()
    }

    fn from_wire(wire: bytes::Bytes) -> Self {
        wire.into()
    }
}

macro_rules! same {
    ($($type:ty),*) => {$(
        impl Wire<$type> for $type {
            fn into_wire(self) -> $type {
                self
            }

            fn from_wire(wire: $type) -> Self {
                wire
            }
        }
    )*};
}

same!(String, u32, u64, i64, bool, Option<i64>, Vec<String>);

impl Wire<Vec<bytes::Bytes>> for Vec<HexBytes> {
    fn into_wire(self) -> Vec<bytes::Bytes> {
        self.into_iter().map(Into::into).collect()
    }

    fn from_wire(wire: Vec<bytes::Bytes>) -> Self {
        wire.into_iter().map(Into::into).collect()
    }
}

/// Messages in messages, single or repeated.
macro_rules! nested {
    ($($json:ident = $message:ident),*) => {$(
        impl Wire<Option<v1::$message>> for Option<$json> {
            fn into_wire(self) -> Option<v1::$message> {
                self.map(Into::into)
            }

            fn from_wire(wire: Option<v1::$message>) -> Self {
                wire.map(Into::into)
            }
        }

        impl Wire<Vec<v1::$message>> for Vec<$json> {
            fn into_wire(self) -> Vec<v1::$message> {
                self.into_iter().map(Into::into).collect()
            }

            fn from_wire(wire: Vec<v1::$message>) -> Self {
                wire.into_iter().map(Into::into).collect()
            }
        }
    )*};
}

pub(super) use {mirror, names, nested};

nested!(
    AmountJson = Amount,
    CommitmentJson = Commitment,
    StatementRefJson = StatementRef,
    EffectJson = Effect,
    LogKeyJson = LogKey,
    AuthorityKeyJson = AuthorityKey
);

/// Absent in the binary form, and so left out here.
pub(super) trait Absent {
    fn is_absent(&self) -> bool;
}

impl Absent for String {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl Absent for HexBytes {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl Absent for i64 {
    fn is_absent(&self) -> bool {
        *self == 0
    }
}

impl Absent for u64 {
    fn is_absent(&self) -> bool {
        *self == 0
    }
}

impl Absent for bool {
    fn is_absent(&self) -> bool {
        !*self
    }
}

impl<T> Absent for Option<T> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T> Absent for Vec<T> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

pub(super) fn is_absent(value: &impl Absent) -> bool {
    value.is_absent()
}

mirror!(
    CorrelationKeyJson = CorrelationKey {
        kind: String,
        value: String,
    } + {}
);
mirror!(
    AmountJson = Amount {
        minor_units: i64,
        currency: String,
    } + {}
);
mirror!(StatementRefJson = StatementRef {
    sequence: u64,
    payload_digest: HexBytes,
} + {
    session: HexBytes,
});
mirror!(LogKeyJson = LogKey { vkey: String } + {});
mirror!(
    AuthorityKeyJson = AuthorityKey {
        public_key: HexBytes,
    } + {}
);
mirror!(GenesisJson = Genesis {
    origin: String,
    log_keys: Vec<LogKeyJson>,
    authority_keys: Vec<AuthorityKeyJson>,
    created_at_us: i64,
    nonce: HexBytes,
    rules_version: u32,
} + {});
mirror!(TaskClosedJson = TaskClosed {
    end: TaskEndName,
} + {
    reason: String,
});
mirror!(IntentJson = Intent {
    action: String,
    resource: String,
} + {
    amount: Option<AmountJson>,
    grant: HexBytes,
    deadline_us: i64,
    arguments: Option<CommitmentJson>,
    prompt: Option<CommitmentJson>,
    model: String,
    system_prompt_digest: HexBytes,
    tool_manifest_digest: HexBytes,
    tool_call_id: String,
    expected_effects: Vec<EffectJson>,
});
mirror!(EffectJson = Effect {
    kind: String,
    resource: String,
} + {
    external_id: String,
    amount: Option<AmountJson>,
    before_digest: HexBytes,
    after_digest: HexBytes,
});
mirror!(OutcomeJson = Outcome {
    intent: Option<StatementRefJson>,
    status: OutcomeStatusName,
} + {
    effects: Vec<EffectJson>,
    tool_call: Option<CommitmentJson>,
    response: Option<CommitmentJson>,
    result: Option<CommitmentJson>,
    arguments: Option<CommitmentJson>,
});
mirror!(HeartbeatJson = Heartbeat {
    last_sequence: u64,
    count: u64,
} + {
    next_within_us: i64,
});
mirror!(
    SessionClosedJson = SessionClosed {
        last_sequence: u64,
        count: u64,
    } + {}
);

names!(
    RiskTierName = RiskTier {
        Low,
        Payment,
        CustomerCommunication,
        Deployment,
        Deletion,
    }
);
names!(
    TaskEndName = TaskEnd {
        Completed,
        Failed,
        Cancelled,
        HandedOver,
    }
);
names!(
    OutcomeStatusName = OutcomeStatus {
        Succeeded,
        Failed,
        Reverted,
        NotDone,
    }
);

/// TaskOpened; the objective is one of two fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskOpenedJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    objective_text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) objective_commitment: Option<CommitmentJson>,
    requested_by: String,
    risk_tier: RiskTierName,
    #[serde(default, skip_serializing_if = "is_absent")]
    deadline_us: i64,
    #[serde(default, skip_serializing_if = "HexBytes::is_empty")]
    nonce: HexBytes,
}

impl TaskOpenedJson {
    pub(super) fn into_body(self) -> Result<Body, JsonError> {
        let objective = match (self.objective_text, self.objective_commitment) {
            (Some(_), Some(_)) => return Err(JsonError::Objectives),
            (Some(text), None) => Some(Objective::ObjectiveText(text)),
            (None, Some(json)) => Some(Objective::ObjectiveCommitment(json.into())),
            (None, None) => None,
        };
        Ok(Body::TaskOpened(v1::TaskOpened {
            objective,
            requested_by: self.requested_by,
            risk_tier: self.risk_tier.into_wire(),
            deadline_us: self.deadline_us,
            nonce: self.nonce.into(),
        }))
    }
}

impl From<v1::TaskOpened> for TaskOpenedJson {
    fn from(message: v1::TaskOpened) -> Self {
        let (objective_text, objective_commitment) = match message.objective {
            Some(Objective::ObjectiveText(text)) => (Some(text), None),
            Some(Objective::ObjectiveCommitment(commitment)) => (None, Some(commitment.into())),
            None => (None, None),
        };
        Self {
            objective_text,
            objective_commitment,
            requested_by: message.requested_by,
            risk_tier: Wire::from_wire(message.risk_tier),
            deadline_us: message.deadline_us,
            nonce: message.nonce.into(),
        }
    }
}
