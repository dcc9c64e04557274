//! The tables behind [`crate::wire`]: every message that is hashed or signed, field by field.
//!
//! The .proto files are the reference for people; `schema_tests.rs` fails when a name, number,
//! type or presence differs from them.

use crate::{
    text::{ANYTHING, CURRENCY, LOWER_NAME, MEDIA_TYPE, NO_CONTROL, URI},
    wire::{
        Field,
        Kind::{self, Bool, Bytes, Enum, I64, Text, U32, U64},
        Message,
        Presence::{self, Explicit, Implicit, OneOf, Repeated, Required},
    },
};

/// Numbers of the fields that other modules look at.
pub(crate) mod number {
    pub(crate) const LEDGER_ID: u32 = 1;
    pub(crate) const PRODUCER: u32 = 2;
    pub(crate) const SESSION: u32 = 3;
    pub(crate) const SEQUENCE: u32 = 4;
    pub(crate) const PREVIOUS: u32 = 5;
    pub(crate) const SKIPPED_FROM: u32 = 6;
    pub(crate) const OCCURRED_AT: u32 = 7;
    pub(crate) const TASK: u32 = 8;
    pub(crate) const TRACE_ID: u32 = 9;
    pub(crate) const SPAN_ID: u32 = 10;
    pub(crate) const CORRELATION_KEYS: u32 = 11;
    pub(crate) const NONCE: u32 = 12;
    pub(crate) const GENESIS: u32 = 20;
    pub(crate) const TICK: u32 = 21;
    pub(crate) const CLEARANCE: u32 = 22;
    pub(crate) const TASK_RECEIPT: u32 = 23;
    pub(crate) const TASK_OPENED: u32 = 24;
    pub(crate) const TASK_CLOSED: u32 = 25;
    pub(crate) const GRANT: u32 = 26;
    pub(crate) const GRANT_ACCEPTED: u32 = 27;
    pub(crate) const INTENT: u32 = 28;
    pub(crate) const OUTCOME: u32 = 29;
    pub(crate) const DECISION: u32 = 30;
    pub(crate) const APPROVAL: u32 = 31;
    pub(crate) const OBSERVATION: u32 = 32;
    pub(crate) const HEARTBEAT: u32 = 34;
    pub(crate) const SESSION_CLOSED: u32 = 35;
    pub(crate) const REVOCATION: u32 = 36;
    pub(crate) const FINDING_DISPOSITION: u32 = 37;
    pub(crate) const AUTHORITIES_CHANGED: u32 = 40;
    pub(crate) const KEY_REGISTERED: u32 = 41;
    pub(crate) const KEY_REVOKED: u32 = 42;
    pub(crate) const PRINCIPAL_BOUND: u32 = 43;
    pub(crate) const POLICY_SET: u32 = 44;
    pub(crate) const RETENTION_SET: u32 = 45;
    pub(crate) const LEGAL_HOLD_PLACED: u32 = 46;
    pub(crate) const LEGAL_HOLD_RELEASED: u32 = 47;
    pub(crate) const LOG_KEY_ROTATED: u32 = 48;
    pub(crate) const ERASURE: u32 = 49;
}

const fn f(number: u32, name: &'static str, kind: Kind, presence: Presence) -> Field {
    Field {
        number,
        name,
        kind,
        presence,
    }
}

const fn digest(number: u32, name: &'static str, presence: Presence) -> Field {
    f(number, name, Bytes { min: 32, max: 32 }, presence)
}

const fn text(number: u32, name: &'static str, max: usize, presence: Presence) -> Field {
    let kind = Text {
        min: 1,
        max,
        rule: &NO_CONTROL,
    };
    f(number, name, kind, presence)
}

const fn uri(number: u32, name: &'static str) -> Field {
    let kind = Text {
        min: 1,
        max: 512,
        rule: &URI,
    };
    f(number, name, kind, Required)
}

/// A field of up to `max` producers.
const fn uris(number: u32, name: &'static str, max: usize) -> Field {
    let kind = Text {
        min: 1,
        max: 512,
        rule: &URI,
    };
    f(number, name, kind, Repeated { min: 0, max })
}

/// Actions or resources that a grant covers.
const fn patterns(number: u32, name: &'static str, max: usize) -> Field {
    let kind = Text {
        min: 1,
        max,
        rule: &NO_CONTROL,
    };
    f(number, name, kind, Repeated { min: 1, max: 64 })
}

/// Up to 1,024 bytes in which anything may stand.
const fn reason(number: u32, presence: Presence) -> Field {
    let kind = Text {
        min: 1,
        max: 1024,
        rule: &ANYTHING,
    };
    f(number, "reason", kind, presence)
}

const NON_NEGATIVE: Kind = I64 { non_negative: true };
const ID: Kind = Bytes { min: 16, max: 16 };

pub(crate) static STATEMENT: Message = Message {
    fields: &[
        digest(number::LEDGER_ID, "ledger_id", Implicit),
        f(
            number::PRODUCER,
            "producer",
            Text {
                min: 1,
                max: 512,
                rule: &URI,
            },
            Required,
        ),
        f(
            number::SESSION,
            "session",
            Bytes { min: 16, max: 16 },
            Implicit,
        ),
        f(number::SEQUENCE, "sequence", U64, Implicit),
        digest(number::PREVIOUS, "previous", Implicit),
        f(number::SKIPPED_FROM, "skipped_from", U64, Explicit),
        f(
            number::OCCURRED_AT,
            "occurred_at_us",
            NON_NEGATIVE,
            Implicit,
        ),
        f(number::TASK, "task", Bytes { min: 16, max: 16 }, Implicit),
        f(
            number::TRACE_ID,
            "trace_id",
            Bytes { min: 16, max: 16 },
            Implicit,
        ),
        f(
            number::SPAN_ID,
            "span_id",
            Bytes { min: 8, max: 8 },
            Implicit,
        ),
        f(
            number::CORRELATION_KEYS,
            "correlation_keys",
            Kind::Message(&CORRELATION_KEY),
            Repeated { min: 0, max: 16 },
        ),
        f(number::NONCE, "nonce", ID, Implicit),
        f(number::GENESIS, "genesis", Kind::Message(&GENESIS), OneOf),
        f(number::TICK, "tick", Kind::Message(&TICK), OneOf),
        f(
            number::CLEARANCE,
            "clearance",
            Kind::Message(&CLEARANCE),
            OneOf,
        ),
        f(
            number::TASK_RECEIPT,
            "task_receipt",
            Kind::Message(&TASK_RECEIPT),
            OneOf,
        ),
        f(
            number::TASK_OPENED,
            "task_opened",
            Kind::Message(&TASK_OPENED),
            OneOf,
        ),
        f(
            number::TASK_CLOSED,
            "task_closed",
            Kind::Message(&TASK_CLOSED),
            OneOf,
        ),
        f(number::GRANT, "grant", Kind::Message(&GRANT), OneOf),
        f(
            number::GRANT_ACCEPTED,
            "grant_accepted",
            Kind::Message(&GRANT_ACCEPTED),
            OneOf,
        ),
        f(number::INTENT, "intent", Kind::Message(&INTENT), OneOf),
        f(number::OUTCOME, "outcome", Kind::Message(&OUTCOME), OneOf),
        f(
            number::DECISION,
            "decision",
            Kind::Message(&DECISION),
            OneOf,
        ),
        f(
            number::APPROVAL,
            "approval",
            Kind::Message(&APPROVAL),
            OneOf,
        ),
        f(
            number::OBSERVATION,
            "observation",
            Kind::Message(&OBSERVATION),
            OneOf,
        ),
        f(
            number::HEARTBEAT,
            "heartbeat",
            Kind::Message(&HEARTBEAT),
            OneOf,
        ),
        f(
            number::SESSION_CLOSED,
            "session_closed",
            Kind::Message(&SESSION_CLOSED),
            OneOf,
        ),
        f(
            number::REVOCATION,
            "revocation",
            Kind::Message(&REVOCATION),
            OneOf,
        ),
        f(
            number::FINDING_DISPOSITION,
            "finding_disposition",
            Kind::Message(&FINDING_DISPOSITION),
            OneOf,
        ),
        f(
            number::AUTHORITIES_CHANGED,
            "authorities_changed",
            Kind::Message(&AUTHORITIES_CHANGED),
            OneOf,
        ),
        f(
            number::KEY_REGISTERED,
            "key_registered",
            Kind::Message(&KEY_REGISTERED),
            OneOf,
        ),
        f(
            number::KEY_REVOKED,
            "key_revoked",
            Kind::Message(&KEY_REVOKED),
            OneOf,
        ),
        f(
            number::PRINCIPAL_BOUND,
            "principal_bound",
            Kind::Message(&PRINCIPAL_BOUND),
            OneOf,
        ),
        f(
            number::POLICY_SET,
            "policy_set",
            Kind::Message(&POLICY_SET),
            OneOf,
        ),
        f(
            number::RETENTION_SET,
            "retention_set",
            Kind::Message(&RETENTION_SET),
            OneOf,
        ),
        f(
            number::LEGAL_HOLD_PLACED,
            "legal_hold_placed",
            Kind::Message(&LEGAL_HOLD_PLACED),
            OneOf,
        ),
        f(
            number::LEGAL_HOLD_RELEASED,
            "legal_hold_released",
            Kind::Message(&LEGAL_HOLD_RELEASED),
            OneOf,
        ),
        f(
            number::LOG_KEY_ROTATED,
            "log_key_rotated",
            Kind::Message(&LOG_KEY_ROTATED),
            OneOf,
        ),
        f(number::ERASURE, "erasure", Kind::Message(&ERASURE), OneOf),
    ],
    oneof_required: Some("body"),
};

pub(crate) static CORRELATION_KEY: Message = Message {
    fields: &[
        f(
            1,
            "kind",
            Text {
                min: 1,
                max: 64,
                rule: &LOWER_NAME,
            },
            Required,
        ),
        text(2, "value", 256, Required),
    ],
    oneof_required: None,
};

pub(crate) static COMMITMENT: Message = Message {
    fields: &[
        digest(1, "digest", Required),
        f(
            2,
            "media_type",
            Text {
                min: 3,
                max: 127,
                rule: &MEDIA_TYPE,
            },
            Required,
        ),
    ],
    oneof_required: None,
};

pub(crate) static AMOUNT: Message = Message {
    fields: &[
        f(
            1,
            "minor_units",
            I64 {
                non_negative: false,
            },
            Implicit,
        ),
        f(
            2,
            "currency",
            Text {
                min: 3,
                max: 16,
                rule: &CURRENCY,
            },
            Required,
        ),
    ],
    oneof_required: None,
};

static STATEMENT_REF: Message = Message {
    fields: &[
        f(1, "session", Bytes { min: 16, max: 16 }, Implicit),
        f(2, "sequence", U64, Implicit),
        digest(3, "payload_digest", Required),
    ],
    oneof_required: None,
};

pub(crate) static LEAF_REF: Message = Message {
    fields: &[
        f(1, "leaf_index", U64, Implicit),
        digest(2, "leaf_hash", Required),
    ],
    oneof_required: None,
};

pub(crate) static TICK: Message = Message {
    // One of them is there: `statement` checks that.
    fields: &[
        f(1, "due_us", NON_NEGATIVE, Implicit),
        f(2, "clock_us", NON_NEGATIVE, Implicit),
    ],
    oneof_required: None,
};

pub(crate) static CLEARANCE: Message = Message {
    fields: &[
        f(1, "intent", Kind::Message(&LEAF_REF), Required),
        // Leaf 0 is the genesis entry, never a PolicySet.
        f(2, "policy_leaf", U64, Required),
        f(
            3,
            "evidence",
            Kind::Message(&LEAF_REF),
            Repeated { min: 1, max: 64 },
        ),
    ],
    oneof_required: None,
};

pub(crate) static TASK_RECEIPT: Message = Message {
    fields: &[
        f(1, "through_leaf", U64, Required),
        f(2, "count", U64, Required),
        digest(3, "digest", Required),
        f(4, "trust_head", Kind::Message(&LEAF_REF), Required),
        digest(5, "assessment_digest", Required),
        f(6, "requested", Bool, Implicit),
    ],
    oneof_required: None,
};

pub(crate) static GENESIS: Message = Message {
    fields: &[
        text(1, "origin", 512, Required),
        f(
            2,
            "log_keys",
            Kind::Message(&LOG_KEY),
            Repeated { min: 1, max: 1 },
        ),
        f(
            3,
            "authority_keys",
            Kind::Message(&AUTHORITY_KEY),
            Repeated { min: 1, max: 16 },
        ),
        f(4, "created_at_us", NON_NEGATIVE, Required),
        digest(5, "nonce", Required),
        f(6, "rules_version", U32, Required),
    ],
    oneof_required: None,
};

pub(crate) static LOG_KEY: Message = Message {
    fields: &[text(1, "vkey", 640, Required)],
    oneof_required: None,
};

static AUTHORITY_KEY: Message = Message {
    fields: &[digest(1, "public_key", Required)],
    oneof_required: None,
};

pub(crate) static TASK_OPENED: Message = Message {
    fields: &[
        f(
            1,
            "objective_text",
            Text {
                min: 1,
                max: 4096,
                rule: &ANYTHING,
            },
            OneOf,
        ),
        f(2, "objective_commitment", Kind::Message(&COMMITMENT), OneOf),
        text(3, "requested_by", 512, Required),
        f(4, "risk_tier", Enum { max: 5 }, Required),
        f(5, "deadline_us", NON_NEGATIVE, Implicit),
        f(6, "nonce", ID, Implicit),
    ],
    oneof_required: None,
};

static TASK_CLOSED: Message = Message {
    fields: &[
        f(1, "end", Enum { max: 4 }, Required),
        f(
            2,
            "reason",
            Text {
                min: 1,
                max: 1024,
                rule: &ANYTHING,
            },
            Implicit,
        ),
    ],
    oneof_required: None,
};

pub(crate) static GRANT: Message = Message {
    fields: &[
        uri(1, "subject"),
        f(2, "subject_key", ID, Implicit),
        patterns(3, "actions", 256),
        patterns(4, "resources", 1024),
        f(5, "not_before_us", NON_NEGATIVE, Implicit),
        f(6, "expires_us", NON_NEGATIVE, Required),
        f(7, "uses", U64, Implicit),
        f(8, "amount", Kind::Message(&AMOUNT), Implicit),
        digest(9, "parent", Implicit),
        f(10, "outside_token", Kind::Message(&OUTSIDE_TOKEN), Implicit),
        uris(11, "gateways", 16),
    ],
    oneof_required: None,
};

pub(crate) static OUTSIDE_TOKEN: Message = Message {
    fields: &[
        f(
            1,
            "kind",
            Text {
                min: 1,
                max: 64,
                rule: &LOWER_NAME,
            },
            Required,
        ),
        text(2, "value", 256, Required),
        digest(3, "key_thumbprint", Implicit),
    ],
    oneof_required: None,
};

static GRANT_ACCEPTED: Message = Message {
    fields: &[digest(1, "grant", Required)],
    oneof_required: None,
};

pub(crate) static INTENT: Message = Message {
    fields: &[
        text(1, "action", 256, Required),
        text(2, "resource", 1024, Required),
        f(3, "amount", Kind::Message(&AMOUNT), Implicit),
        digest(4, "grant", Implicit),
        f(5, "deadline_us", NON_NEGATIVE, Implicit),
        f(6, "arguments", Kind::Message(&COMMITMENT), Implicit),
        f(7, "prompt", Kind::Message(&COMMITMENT), Implicit),
        text(8, "model", 256, Implicit),
        digest(9, "system_prompt_digest", Implicit),
        digest(10, "tool_manifest_digest", Implicit),
        text(11, "tool_call_id", 256, Implicit),
        f(
            12,
            "expected_effects",
            Kind::Message(&EFFECT),
            Repeated { min: 0, max: 64 },
        ),
    ],
    oneof_required: None,
};

pub(crate) static EFFECT: Message = Message {
    fields: &[
        text(1, "kind", 128, Required),
        text(2, "resource", 1024, Required),
        text(3, "external_id", 256, Implicit),
        f(4, "amount", Kind::Message(&AMOUNT), Implicit),
        digest(5, "before_digest", Implicit),
        digest(6, "after_digest", Implicit),
    ],
    oneof_required: None,
};

pub(crate) static OUTCOME: Message = Message {
    fields: &[
        f(1, "intent", Kind::Message(&STATEMENT_REF), Required),
        f(2, "status", Enum { max: 4 }, Required),
        f(
            3,
            "effects",
            Kind::Message(&EFFECT),
            Repeated { min: 0, max: 64 },
        ),
        f(4, "tool_call", Kind::Message(&COMMITMENT), Implicit),
        f(5, "response", Kind::Message(&COMMITMENT), Implicit),
        f(6, "result", Kind::Message(&COMMITMENT), Implicit),
        f(7, "arguments", Kind::Message(&COMMITMENT), Implicit),
    ],
    oneof_required: None,
};

static DECISION: Message = Message {
    fields: &[
        f(1, "intent", Kind::Message(&LEAF_REF), Required),
        f(2, "verdict", Enum { max: 2 }, Required),
        text(3, "engine", 256, Required),
        text(4, "policy_version", 256, Implicit),
        digest(5, "policy_digest", Implicit),
        reason(6, Implicit),
    ],
    oneof_required: None,
};

pub(crate) static APPROVAL: Message = Message {
    fields: &[
        f(1, "intent", Kind::Message(&LEAF_REF), Required),
        f(2, "verdict", Enum { max: 2 }, Required),
        f(3, "shown", Kind::Message(&COMMITMENT), Required),
        f(4, "shown_at_us", NON_NEGATIVE, Implicit),
        f(5, "opened_at_us", NON_NEGATIVE, Implicit),
        f(6, "decided_at_us", NON_NEGATIVE, Required),
        f(7, "strength", Enum { max: 3 }, Required),
        f(
            8,
            "rationale",
            Text {
                min: 1,
                max: 1024,
                rule: &ANYTHING,
            },
            Implicit,
        ),
        f(9, "assertion", Kind::Message(&ASSERTION), Implicit),
    ],
    oneof_required: None,
};

static ASSERTION: Message = Message {
    fields: &[
        f(
            1,
            "format",
            Text {
                min: 1,
                max: 64,
                rule: &LOWER_NAME,
            },
            Required,
        ),
        f(2, "data", Bytes { min: 1, max: 8192 }, Required),
    ],
    oneof_required: None,
};

static OBSERVATION: Message = Message {
    fields: &[
        f(1, "intent", Kind::Message(&LEAF_REF), Implicit),
        f(
            2,
            "effects",
            Kind::Message(&EFFECT),
            Repeated { min: 1, max: 64 },
        ),
        text(3, "reference", 256, Implicit),
        f(4, "observed_at_us", NON_NEGATIVE, Implicit),
    ],
    oneof_required: None,
};

pub(crate) static HEARTBEAT: Message = Message {
    fields: &[
        f(1, "last_sequence", U64, Implicit),
        f(2, "count", U64, Required),
        f(3, "next_within_us", NON_NEGATIVE, Implicit),
    ],
    oneof_required: None,
};

pub(crate) static SESSION_CLOSED: Message = Message {
    fields: &[
        f(1, "last_sequence", U64, Implicit),
        f(2, "count", U64, Required),
    ],
    oneof_required: None,
};

static REVOCATION: Message = Message {
    fields: &[digest(1, "grant", Required), reason(2, Implicit)],
    oneof_required: None,
};

static FINDING_DISPOSITION: Message = Message {
    fields: &[
        f(1, "leaf_index", U64, Required),
        f(2, "number", U32, Implicit),
        f(3, "kind", Enum { max: 3 }, Required),
        text(4, "reviewed_by", 512, Required),
        reason(5, Required),
    ],
    oneof_required: None,
};

pub(crate) static POLICY_SET: Message = Message {
    fields: &[
        f(
            1,
            "policies",
            Text {
                min: 1,
                max: 32_768,
                rule: &ANYTHING,
            },
            Required,
        ),
        f(
            2,
            "schema",
            Text {
                min: 1,
                max: 16_384,
                rule: &ANYTHING,
            },
            Required,
        ),
        digest(3, "digest", Required),
        text(4, "cedar_version", 16, Required),
        f(5, "rules_version", U32, Required),
        reason(6, Implicit),
    ],
    oneof_required: None,
};

pub(crate) static AUTHORITIES_CHANGED: Message = Message {
    fields: &[
        f(
            1,
            "authority_keys",
            Kind::Message(&AUTHORITY_KEY),
            Repeated { min: 1, max: 16 },
        ),
        reason(2, Implicit),
    ],
    oneof_required: None,
};

pub(crate) static KEY_REGISTERED: Message = Message {
    fields: &[
        digest(1, "public_key", Required),
        f(2, "role", Enum { max: 6 }, Required),
        uri(3, "producer"),
        uri(4, "controller"),
        f(5, "valid_from_us", NON_NEGATIVE, Implicit),
        f(6, "valid_until_us", NON_NEGATIVE, Implicit),
        f(7, "possession", Bytes { min: 64, max: 64 }, Required),
        uris(8, "acts_for", 64),
        f(
            9,
            "resources",
            Text {
                min: 1,
                max: 1024,
                rule: &NO_CONTROL,
            },
            Repeated { min: 0, max: 64 },
        ),
    ],
    oneof_required: None,
};

static KEY_REVOKED: Message = Message {
    fields: &[
        f(1, "key_id", ID, Required),
        f(2, "compromised_since_us", NON_NEGATIVE, Explicit),
        reason(3, Implicit),
    ],
    oneof_required: None,
};

pub(crate) static PRINCIPAL_BOUND: Message = Message {
    fields: &[
        text(1, "principal", 512, Required),
        uri(2, "producer"),
        f(3, "valid_until_us", NON_NEGATIVE, Implicit),
    ],
    oneof_required: None,
};

static RETENTION_SET: Message = Message {
    fields: &[
        f(1, "floor_us", NON_NEGATIVE, Implicit),
        reason(2, Implicit),
    ],
    oneof_required: None,
};

static LEGAL_HOLD_PLACED: Message = Message {
    fields: &[
        f(1, "hold", ID, Required),
        f(2, "task", ID, OneOf),
        digest(3, "commitment", OneOf),
        reason(4, Required),
    ],
    oneof_required: None,
};

static LEGAL_HOLD_RELEASED: Message = Message {
    fields: &[f(1, "hold", ID, Required), reason(2, Required)],
    oneof_required: None,
};

pub(crate) static LOG_KEY_ROTATED: Message = Message {
    fields: &[
        f(1, "log_key", Kind::Message(&LOG_KEY), Required),
        reason(2, Required),
    ],
    oneof_required: None,
};

pub(crate) static ERASURE: Message = Message {
    fields: &[
        digest(1, "commitments", Repeated { min: 1, max: 64 }),
        text(2, "requested_by", 512, Required),
        reason(3, Required),
        text(4, "legal_basis", 256, Required),
    ],
    oneof_required: None,
};

pub(crate) static BATCH_MANIFEST: Message = Message {
    fields: &[
        digest(1, "ledger_id", Required),
        uri(2, "producer"),
        f(3, "session", ID, Required),
        f(4, "first_sequence", U64, Implicit),
        f(5, "count", U32, Required),
        digest(6, "root", Required),
    ],
    oneof_required: None,
};

pub(crate) static TRUST_LINK: Message = Message {
    fields: &[
        f(1, "leaf_index", U64, Implicit),
        digest(2, "leaf_hash", Required),
    ],
    oneof_required: None,
};

pub(crate) static ENTRY: Message = Message {
    fields: &[
        f(1, "payload_type", Enum { max: 2 }, Required),
        f(
            2,
            "payload",
            Bytes {
                min: 1,
                max: crate::PAYLOAD_BYTES_MAX,
            },
            Required,
        ),
        f(3, "key_id", Bytes { min: 16, max: 16 }, Implicit),
        f(4, "signature", Bytes { min: 64, max: 64 }, Implicit),
        f(5, "author", Enum { max: 4 }, Required),
        f(6, "received_at_us", NON_NEGATIVE, Required),
        f(7, "principal_leaf", U64, Explicit),
        f(8, "previous_trust", Kind::Message(&TRUST_LINK), Implicit),
    ],
    oneof_required: None,
};

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
