//! An oracle: reads a whole log, and computes it again from its entries alone.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use deed_evidence::{
    PayloadDigest,
    entry::Entry,
    statement::{self, LEDGER_PRODUCER},
};
use deed_tlog::{Frontier, Hash, TreeHead, leaf_hash, node_hash};

use crate::rpc::{Clients, TestLedger};

/// All entries of a tree.
#[derive(Debug, Clone)]
pub struct Log {
    /// The entries, in order of their index.
    pub entries: Vec<Bytes>,
    /// The leaf hashes, computed from the entries.
    pub leaf_hashes: Vec<Hash>,
    /// The signed head, which agrees with the entries.
    pub head: TreeHead,
}

impl Log {
    /// Reads a ledger and checks that its entries give its signed head.
    ///
    /// # Panics
    /// If something is missing, or they do not.
    pub async fn read(clients: &Clients, ledger: &TestLedger) -> Self {
        let head = ledger.head(clients).await;
        let messages = clients
            .entries(&ledger.name, 0, head.size.get())
            .await
            .expect("entries");
        let mut entries: Vec<Bytes> = Vec::new();
        for message in messages {
            assert_eq!(message.start, entries.len() as u64, "entries come in order");
            entries.extend(message.entries);
        }
        Self::check(entries, head)
    }

    /// Checks that the entries give the head.
    ///
    /// # Panics
    /// If they do not.
    #[track_caller]
    #[must_use]
    pub fn check(entries: Vec<Bytes>, head: TreeHead) -> Self {
        let leaf_hashes: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        assert_eq!(
            leaf_hashes.len() as u64,
            head.size.get(),
            "as many entries as the head says"
        );
        assert_eq!(
            root(&leaf_hashes),
            head.root,
            "the entries give the signed root"
        );
        Self {
            entries,
            leaf_hashes,
            head,
        }
    }

    /// Checks that every one of these heads is that of a prefix of this log.
    ///
    /// # Panics
    /// If one is not.
    #[track_caller]
    pub fn expect_heads(&self, heads: impl IntoIterator<Item = TreeHead>) {
        let mut wanted: BTreeMap<u64, Hash> = BTreeMap::new();
        for head in heads {
            let known = *wanted.entry(head.size.get()).or_insert(head.root);
            assert_eq!(known, head.root, "two heads of size {}", head.size);
        }
        let mut frontier = Frontier::new();
        let mut leaves = self.leaf_hashes.iter();
        for (size, root) in wanted {
            assert!(
                size <= self.head.size.get(),
                "a head of size {size} was lost"
            );
            while frontier.size().get() < size {
                frontier.push(*leaves.next().expect("as many leaves as the head says"));
            }
            assert_eq!(
                frontier.root(),
                root,
                "the head of size {size} was of another history"
            );
        }
    }

    /// Returns the payloads of each session, in the order of the log, with their leaves. Checks
    /// that the sequences have no gap and no repetition.
    ///
    /// # Panics
    /// If they have.
    #[must_use]
    pub fn sessions(&self) -> HashMap<[u8; 16], Vec<Recorded>> {
        let mut sessions: HashMap<[u8; 16], Vec<Recorded>> = HashMap::new();
        // Leaf 0 is the genesis entry.
        for (leaf, bytes) in self.entries.iter().enumerate().skip(1) {
            let entry = Entry::parse(bytes).expect("an entry");
            let header = statement::parse(entry.payload).expect("a statement");
            if header.producer == LEDGER_PRODUCER {
                // The ledger's own statements have no session.
                continue;
            }
            let session = sessions.entry(*header.session.as_bytes()).or_default();
            let position = session.len() as u64;
            assert_eq!(
                header.sequence.get(),
                position,
                "leaf {leaf}: every sequence once"
            );
            session.push(Recorded {
                leaf: leaf as u64,
                digest: PayloadDigest::of(entry.payload),
            });
        }
        sessions
    }
}

/// A statement in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// Leaf index.
    pub leaf: u64,
    /// Digest of its payload.
    pub digest: PayloadDigest,
}

/// Returns the inclusion proof of a leaf by RFC 6962's definition: PATH(m, D\[n\]), section 2.1.1.
///
/// # Panics
/// If the tree does not have the leaf.
#[must_use]
pub fn inclusion(leaf: usize, leaves: &[Hash]) -> Vec<Hash> {
    assert!(leaf < leaves.len(), "leaf {leaf} of {}", leaves.len());
    if leaves.len() == 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let (mut path, other) = match leaf.checked_sub(left.len()) {
        None => (inclusion(leaf, left), right),
        Some(leaf) => (inclusion(leaf, right), left),
    };
    path.push(root(other));
    path
}

/// Returns the consistency proof between the first `old` leaves and all of them, by RFC 6962's
/// definition: PROOF(m, D\[n\]), section 2.1.2; empty for no leaves, which the definition does not
/// cover.
///
/// # Panics
/// If there are fewer leaves.
#[must_use]
pub fn consistency(old: usize, leaves: &[Hash]) -> Vec<Hash> {
    assert!(old <= leaves.len(), "{old} of {} leaves", leaves.len());
    match old {
        0 => Vec::new(),
        _ => subproof(old, leaves, true),
    }
}

fn subproof(old: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if whole {
            Vec::new()
        } else {
            vec![root(leaves)]
        };
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let (mut proof, other) = if old <= left.len() {
        (subproof(old, left, whole), right)
    } else {
        (subproof(old - left.len(), right, false), left)
    };
    proof.push(root(other));
    proof
}

/// Returns the root by RFC 6962's definition: MTH(D\[n\]), section 2.1.
///
/// # Panics
/// If there are no leaves.
#[must_use]
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => panic!("nobody signs the empty tree here"),
        [leaf] => *leaf,
        _ => {
            let k = leaves.len().next_power_of_two() / 2;
            let (left, right) = leaves.split_at(k);
            node_hash(&root(left), &root(right))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statements::Producer;
    use deed_evidence::{LedgerId, Micros};
    use deed_tlog::TreeSize;
    use std::panic::catch_unwind;

    fn log(payloads: &[Bytes]) -> Log {
        let genesis = Bytes::from_static(b"not looked into");
        let entries: Vec<_> = std::iter::once(genesis)
            .chain(
                payloads
                    .iter()
                    .map(|payload| Entry::unsigned(payload, Micros::new(1)).encode()),
            )
            .collect();
        let hashes: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let head = TreeHead::new(TreeSize::new(hashes.len() as u64), root(&hashes));
        Log::check(entries, head)
    }

    fn payloads() -> Vec<Bytes> {
        Producer::new(LedgerId::new(Hash::new([1; 32])), 1).intents(20)
    }

    /// An oracle that accepts everything would prove nothing.
    #[test]
    fn what_is_wrong_is_rejected() {
        let payloads = payloads();
        let right = log(&payloads);
        let heads = |size: usize| {
            TreeHead::new(TreeSize::new(size as u64), root(&right.leaf_hashes[..size]))
        };
        right.expect_heads((1..=21).map(heads));
        assert_eq!(right.sessions().len(), 1);

        let mut other = payloads.clone();
        other.swap(3, 4);
        let other = log(&other);
        assert!(catch_unwind(|| other.sessions()).is_err(), "out of order");
        assert!(
            catch_unwind(|| other.expect_heads([heads(21)])).is_err(),
            "another history"
        );
        assert!(
            catch_unwind(|| other.expect_heads([heads(5)])).is_err(),
            "since leaf 4"
        );
        other.expect_heads([heads(4)]);

        let shorter = log(&payloads[..19]);
        assert!(
            catch_unwind(|| shorter.expect_heads([heads(21)])).is_err(),
            "a lost leaf"
        );
        let hole = log(&payloads[1..]);
        assert!(catch_unwind(|| hole.sessions()).is_err(), "a hole");
        let twice = log(&[&payloads[..], &payloads[19..]].concat());
        assert!(catch_unwind(|| twice.sessions()).is_err(), "a duplicate");
        let wrong = TreeHead::new(right.head.size, heads(20).root);
        assert!(
            catch_unwind(|| Log::check(right.entries.clone(), wrong)).is_err(),
            "a root"
        );
    }
}
