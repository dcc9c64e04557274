//! A history of the fake's ledger: its leaves, and the receipts and proofs that it gives.

use std::collections::HashMap;

use bytes::Bytes;
use deed_evidence::{
    Micros, SessionId,
    entry::{Entry, KeyedSignature, TrustLink},
    statement,
};
use deed_proto::v1::{self, append_result::Result as Item};
use deed_tlog::{Hash, LeafIndex, leaf_hash};

use super::Lie;
use crate::merkle;

/// Receive time of entries that follow on nothing later: after the ledger was made.
const RECEIVED_US: i64 = 1_700_000_000_000_001;

/// One history of a ledger.
#[derive(Clone)]
pub(super) struct History {
    pub(super) entries: Vec<Bytes>,
    pub(super) leaves: Vec<Hash>,
    /// Payload and leaf index of each session's statements.
    pub(super) sessions: HashMap<SessionId, Vec<(Bytes, u64)>>,
    /// Leaves of the trust statements, the genesis entry's first.
    pub(super) trust: Vec<u64>,
}

impl History {
    /// The history of a ledger that was made without a server.
    pub(super) fn of_story(entries: &[Bytes]) -> Self {
        let mut history = Self {
            entries: Vec::new(),
            leaves: Vec::new(),
            sessions: HashMap::new(),
            trust: Vec::new(),
        };
        for entry in entries {
            history.take(entry.clone());
        }
        history
    }

    /// Adds an entry, whatever it is.
    pub(super) fn take(&mut self, bytes: Bytes) -> u64 {
        let leaf = self.push(bytes.clone());
        let entry = Entry::parse(&bytes).unwrap();
        if entry.payload_type != v1::PayloadType::Statement {
            return leaf;
        }
        let header = statement::parse(entry.payload).unwrap();
        if leaf == 0 || header.body.is_trust() {
            self.trust.push(leaf);
        }
        if leaf > 0 && entry.author != v1::Author::Ledger {
            let said = self.sessions.entry(header.session).or_default();
            said.push((bytes.slice_ref(entry.payload), leaf));
        }
        leaf
    }

    pub(super) fn push(&mut self, entry: Bytes) -> u64 {
        self.leaves.push(leaf_hash(&entry));
        self.entries.push(entry);
        self.entries.len() as u64 - 1
    }

    /// Odd sizes for the second history, even ones for the first, so that a base tells which.
    pub(super) fn fill_up(&mut self, which: usize) {
        while self.leaves.len() % 2 != which {
            let filler = [which as u8 + 100; 4];
            self.push(Entry::unsigned(&filler, Micros::new(1)).encode());
        }
    }

    /// Records a batch's manifest, or finds it again if its first statement is recorded.
    pub(super) fn append_manifest(&mut self, envelopes: &[v1::Envelope], lie: Lie) -> Item {
        let header = statement::parse(&envelopes[1].payload).unwrap();
        let recorded = self.sessions.get(&header.session);
        let recorded = recorded.and_then(|all| all.get(header.sequence.get() as usize));
        let receipt = |leaf_index| v1::Receipt {
            leaf_index,
            ..Default::default()
        };
        if let Some((_, first)) = recorded {
            return Item::Duplicate(receipt(first - 1));
        }
        let manifest = &envelopes[0];
        let signature = signature_of(manifest).unwrap();
        let entry = Entry::manifest(&manifest.payload, signature, self.received_at()).encode();
        let leaf = self.push(entry);
        if lie == Lie::Spliced {
            self.push(Entry::unsigned(&[1; 4], Micros::new(1)).encode());
        }
        Item::Accepted(receipt(leaf))
    }

    /// Time does not go back.
    fn received_at(&self) -> Micros {
        let times = self.entries.iter().filter_map(|entry| {
            let entry = Entry::parse(entry).ok()?;
            Some(entry.received_at)
        });
        times.max().max(Some(Micros::new(RECEIVED_US))).unwrap()
    }

    fn entry(&self, envelope: &v1::Envelope, batched: bool, lie: Lie) -> Bytes {
        let (payload, at) = (&envelope.payload[..], self.received_at());
        let is_trust = statement::parse(payload).unwrap().body.is_trust();
        let entry = match signature_of(envelope) {
            Some(signature) if is_trust => {
                let newest = *self.trust.last().unwrap();
                let link = if lie == Lie::PreviousTrust { 0 } else { newest };
                let link = TrustLink {
                    leaf_index: LeafIndex::new(link),
                    leaf_hash: self.leaves[link as usize],
                };
                Entry::trust(payload, signature, at, link)
            }
            Some(signature) => Entry::signed(payload, signature, at),
            None if batched => Entry::batched(payload, at),
            None => Entry::unsigned(payload, at),
        };
        entry.encode()
    }

    pub(super) fn append(
        &mut self,
        envelope: &v1::Envelope,
        batched: bool,
        forget: bool,
        any_sequence: bool,
        lie: Lie,
    ) -> Item {
        let payload = &envelope.payload;
        let header = statement::parse(payload).unwrap();
        let (session, sequence) = (header.session, header.sequence.get() as usize);
        let recorded = self.sessions.entry(session).or_default();
        let expected = recorded.len();
        if !any_sequence {
            if let Some((first, index)) = recorded.get(sequence) {
                if first == payload {
                    return Item::Duplicate(v1::Receipt {
                        leaf_index: *index,
                        ..Default::default()
                    });
                }
                return rejected(v1::rejection::Reason::SequenceReused, expected);
            }
            let owned_up_to = header.skipped_from.map(|from| from.get() as usize);
            if !forget && sequence > expected && owned_up_to == Some(expected) {
                recorded.resize(sequence, (Bytes::new(), 0));
            } else if forget || sequence > expected {
                return rejected(v1::rejection::Reason::SequenceNotNext, expected);
            }
        }
        let index = self.push(self.entry(envelope, batched, lie));
        if header.body.is_trust() {
            self.trust.push(index);
        }
        self.sessions
            .entry(session)
            .or_default()
            .push((payload.clone(), index));
        Item::Accepted(v1::Receipt {
            leaf_index: index,
            ..Default::default()
        })
    }

    /// Completes a receipt, with what is asked for and what is lied about.
    pub(super) fn result(&self, item: Item, with_proofs: bool, lie: Lie) -> v1::AppendResult {
        let complete = |receipt: v1::Receipt| {
            let index = receipt.leaf_index as usize;
            let mut leaf_hash = self.leaves[index];
            if lie == Lie::LeafHash {
                leaf_hash = Hash::new([5; 32]);
            }
            let proof = if with_proofs && lie != Lie::NoInclusion {
                hashes(&merkle::path(index, &self.leaves), lie == Lie::Inclusion)
            } else {
                Vec::new()
            };
            let entry = Entry::parse(&self.entries[index]).unwrap();
            let previous_trust = entry.previous_trust.map(|link| v1::TrustLink {
                leaf_index: link.leaf_index.get() + u64::from(lie == Lie::ReceiptTrust),
                leaf_hash: Bytes::copy_from_slice(link.leaf_hash.as_bytes()),
            });
            v1::Receipt {
                leaf_index: if lie == Lie::LeafBeyond {
                    1 << 40
                } else {
                    receipt.leaf_index
                },
                leaf_hash: Bytes::copy_from_slice(leaf_hash.as_bytes()),
                received_at_us: entry.received_at.get(),
                principal_leaf: None,
                inclusion_proof: proof,
                previous_trust,
                assessed: None,
            }
        };
        v1::AppendResult {
            result: Some(match item {
                Item::Accepted(receipt) => Item::Accepted(complete(receipt)),
                Item::Duplicate(receipt) => Item::Duplicate(complete(receipt)),
                rejected => rejected,
            }),
        }
    }
}

impl History {
    /// Says of an Intent that was recorded now how it stands.
    pub(super) fn assess(
        &self,
        result: v1::AppendResult,
        assessed: Option<&v1::Assessed>,
    ) -> v1::AppendResult {
        let Some(Item::Accepted(mut receipt)) = result.result else {
            return result;
        };
        // A lie may name a leaf beyond the tree.
        let entry = self.entries.get(receipt.leaf_index as usize);
        let entry = entry.and_then(|entry| Entry::parse(entry).ok());
        let header = entry.and_then(|entry| statement::parse(entry.payload).ok());
        if header.is_some_and(|header| header.body == statement::BodyKind::Intent) {
            receipt.assessed = assessed.cloned();
        }
        v1::AppendResult {
            result: Some(Item::Accepted(receipt)),
        }
    }
}

/// The first two requests open the two histories; later ones say by the size of their base which
/// one they belong to.
pub(super) fn history_of(request: &v1::AppendRequest, number: u32) -> usize {
    match request.consistency_from {
        Some(1) | None => (number as usize + 1) % 2,
        Some(size) => (size % 2) as usize,
    }
}

pub(super) fn is_manifest(envelope: &v1::Envelope) -> bool {
    envelope.payload_type() == v1::PayloadType::BatchManifest
}

fn signature_of(envelope: &v1::Envelope) -> Option<KeyedSignature<'_>> {
    KeyedSignature::from_slices(&envelope.key_id, &envelope.signature)
}

fn rejected(reason: v1::rejection::Reason, expected: usize) -> Item {
    Item::Rejected(v1::Rejection {
        reason: reason.into(),
        message: "no".to_owned(),
        field: "sequence".to_owned(),
        expected_sequence: Some(expected as u64),
    })
}

/// A rejection, whatever is true.
pub(super) fn refused(expected: Option<u64>) -> Item {
    match expected {
        None => unwanted(),
        Some(expected) => rejected(
            v1::rejection::Reason::SequenceNotNext,
            usize::try_from(expected).unwrap_or(usize::MAX),
        ),
    }
}

/// A rejection for good, for what a statement says.
pub(super) fn unwanted() -> Item {
    Item::Rejected(v1::Rejection {
        reason: v1::rejection::Reason::Malformed.into(),
        message: "no".to_owned(),
        field: "body".to_owned(),
        expected_sequence: None,
    })
}

pub(super) fn consistency_to(
    from: Option<u64>,
    leaves: &[Hash],
    lie: Lie,
) -> Option<v1::ConsistencyProof> {
    let from = from.filter(|from| *from <= leaves.len() as u64)?;
    if lie == Lie::NoConsistency {
        return None;
    }
    Some(v1::ConsistencyProof {
        old_size: from,
        hashes: hashes(
            &merkle::consistency(from as usize, leaves),
            lie == Lie::Consistency,
        ),
    })
}

pub(super) fn hashes(hashes: &[Hash], change: bool) -> Vec<Bytes> {
    let mut hashes: Vec<_> = hashes
        .iter()
        .map(|hash| Bytes::copy_from_slice(hash.as_bytes()))
        .collect();
    if let Some(first) = hashes.first_mut().filter(|_| change) {
        *first = Bytes::from_static(&[6; 32]);
    }
    hashes
}
