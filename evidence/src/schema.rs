//! The tables behind [`crate::wire`]: every message that is hashed or signed, field by field.
//!
//! They are generated from the options in the .proto files (`deed/v1/rules.proto`), and tests of
//! `deed-proto` hold them against the declarations there.

pub(crate) use deed_proto::rules::*;

/// The .proto says the same of an entry's payload.
const _: () = assert!(matches!(
    ENTRY.fields[1].kind,
    Kind::Bytes {
        min: 1,
        max: crate::PAYLOAD_BYTES_MAX
    }
));

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
