//! Whose signatures a task's entries bear.

use deed_client::{ProvenStatement, ProvenTask};
use deed_evidence::{entry::Entry, signature, statement::AUTHORITY_PRODUCER, trust::Registry};
use deed_proto::v1::Author;
use serde::Serialize;

use crate::cli::{Failure, Outcome};

/// How many entries bear which signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(super) struct Signatures {
    /// Their own, verified under a key that the trust chain registers for their producer.
    pub(super) verified: u64,
    /// That of the batch manifest before them, not followed here.
    pub(super) batched: u64,
    /// None: the producer is claimed.
    pub(super) unsigned: u64,
    /// The ledger's own: the tree head's signature covers them.
    pub(super) ledgers: u64,
}

/// Verifies the signatures that entries bear themselves. Whether a key was in force at that time is
/// assessed by the ledger.
pub(super) fn verify(task: &ProvenTask, registry: &Registry) -> Outcome<Signatures> {
    let mut found = Signatures::default();
    for entry in &task.entries {
        match entry.author {
            Author::Signed => {
                check(entry, registry)?;
                found.verified += 1;
            }
            Author::Batched => found.batched += 1,
            Author::Ledger => found.ledgers += 1,
            Author::Unsigned | Author::Unspecified => found.unsigned += 1,
        }
    }
    Ok(found)
}

fn check(proven: &ProvenStatement, registry: &Registry) -> Outcome {
    let fails = |what: &str| {
        Failure::does_not_verify(format!("the signature at leaf {}: {what}", proven.index))
    };
    let entry = Entry::parse(&proven.entry).map_err(|error| fails(&error.to_string()))?;
    let signed = entry.signature.ok_or_else(|| fails("there is none"))?;
    let (id, producer) = (signed.key(), proven.statement.producer.as_str());
    let key = match registry.key(id) {
        Some(record) if record.producer == producer => &record.public_key,
        Some(_) => return Err(fails("the key is registered for another producer")),
        None => match registry.was_authority(id) {
            Some(key) if producer == AUTHORITY_PRODUCER => key,
            _ => return Err(fails("the trust chain knows no such key")),
        },
    };
    signature::verify(key, entry.payload_type, entry.payload, signed.signature)
        .map_err(|error| fails(&error.to_string()))
}
