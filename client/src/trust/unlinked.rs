//! The verified heads that are not yet proven to be of one history.
//!
//! With one request at a time, each head is proven consistent with the one before it, and nothing more
//! is needed. A pipelined stream is different: with 32 requests in flight, an answer's head is proven
//! consistent with a head of 32 answers ago, and a server could keep 32 histories apart, one for each
//! request in flight, without any proof failing. So the heads are kept from which no newer head was
//! proven; each request asks for a proof from one of them, and from time to time the remaining ones are
//! proven to lead to the newest (`link_heads.rs`). Then one head is left, and every head ever seen is a
//! prefix of it.
//!
//! Invariant: every verified head is in this set, or a chain of verified proofs leads from it to one
//! that is.

use std::collections::BTreeMap;

use deed_tlog::{ConsistencyProof, Hash, verify_consistency};

use super::{ForkKind, TrustError};
use crate::head::SignedHead;

/// The largest number of unlinked heads; no further head is trusted then. A server that answers appends
/// but proves nothing must not fill the memory. An honest server leaves about as many as requests are
/// under way, 32 for each appender; this many have about 8 MiB.
const UNLINKED_LIMIT: usize = 16_384;

/// The verified heads from which no newer head was proven.
#[derive(Debug)]
pub(crate) struct UnlinkedHeads {
    /// Heads by tree size. Invariant: not empty; `newest` is the last one.
    heads: BTreeMap<u64, UnlinkedHead>,
    newest: SignedHead,
}

#[derive(Debug)]
struct UnlinkedHead {
    head: SignedHead,
    /// A request that is under way asks for a proof from this head.
    requested: bool,
}

/// Two signed heads that contradict each other.
#[derive(Debug)]
pub(crate) struct Contradiction {
    pub(crate) kind: ForkKind,
    pub(crate) older: SignedHead,
    pub(crate) newer: SignedHead,
    pub(crate) proof: Option<Vec<Hash>>,
}

/// The reason why a head is not trusted.
#[derive(Debug)]
pub(crate) enum Refused {
    Contradiction(Box<Contradiction>),
    Trust(TrustError),
}

impl UnlinkedHeads {
    /// Begins with one head that is trusted.
    pub(crate) fn new(trusted: SignedHead) -> Self {
        let head = UnlinkedHead {
            head: trusted.clone(),
            requested: false,
        };
        Self {
            heads: BTreeMap::from([(trusted.head.size.get(), head)]),
            newest: trusted,
        }
    }

    /// The largest verified head.
    pub(crate) const fn newest(&self) -> &SignedHead {
        &self.newest
    }

    /// Returns the number of heads in the set: 1 if all heads are of one history.
    pub(crate) fn len(&self) -> usize {
        self.heads.len()
    }

    /// Returns the head from which the next append asks for a proof, and marks it: the oldest one that no
    /// request under way asks from already, else the newest.
    pub(crate) fn take_base(&mut self) -> SignedHead {
        match self.heads.values_mut().find(|older| !older.requested) {
            Some(older) => {
                older.requested = true;
                older.head.clone()
            }
            None => self.newest.clone(),
        }
    }

    /// Adds a head whose signature was verified, with the proof from `base` that came along.
    ///
    /// A head that is older than its base cannot have a proof from it; it stays in the set until
    /// the heads are linked.
    pub(crate) fn observe(
        &mut self,
        head: &SignedHead,
        base: &SignedHead,
        proof: Option<&ConsistencyProof>,
    ) -> Result<(), Refused> {
        self.compare_with_same_size(head)?;
        check(base, head, proof)?;
        let size = head.head.size.get();
        if base.head.size < head.head.size {
            self.drop_proven(base)?;
        }
        // The very same head again is no news. Neither is the one that just was the base.
        self.heads.entry(size).or_insert_with(|| UnlinkedHead {
            head: head.clone(),
            requested: false,
        });
        if size > self.newest.head.size.get() {
            self.newest = head.clone();
        }
        if self.heads.len() > UNLINKED_LIMIT {
            return Err(Refused::Trust(self.not_shown()));
        }
        Ok(())
    }

    /// Returns all heads of the set but the newest.
    pub(crate) fn behind(&self) -> Vec<SignedHead> {
        let newest = self.newest.head.size.get();
        self.heads
            .range(..newest)
            .map(|(_, older)| older.head.clone())
            .collect()
    }

    /// Checks the proof that `older` leads to `newer`, a verified head, and drops `older`.
    pub(crate) fn link(
        &mut self,
        older: &SignedHead,
        newer: &SignedHead,
        proof: &ConsistencyProof,
    ) -> Result<(), Refused> {
        check(older, newer, Some(proof))?;
        if older.head.size < newer.head.size {
            self.drop_proven(older)?;
        }
        Ok(())
    }

    /// Drops a head from which a proof leads on. A head of the same size but another
    /// root was not proven by that: it is the other side of a fork.
    fn drop_proven(&mut self, proven: &SignedHead) -> Result<(), Refused> {
        self.compare_with_same_size(proven)?;
        self.heads.remove(&proven.head.size.get());
        Ok(())
    }

    /// Returns the error for heads that the server does not prove to be of one history.
    pub(crate) fn not_shown(&self) -> TrustError {
        let newest = self.newest.head.size.get();
        TrustError::NoProof {
            old_size: self.heads.keys().next().copied().unwrap_or(newest),
            new_size: newest,
        }
    }

    /// Two roots for one size are a fork, whatever any proof says.
    pub(crate) fn compare_with_same_size(&self, head: &SignedHead) -> Result<(), Refused> {
        let known = self
            .heads
            .get(&head.head.size.get())
            .map(|known| &known.head);
        match known {
            Some(known) => same_root(known, head),
            None => Ok(()),
        }
    }
}

/// Checks that `newer` extends `older`, unless it is the older one of the two.
fn check(
    older: &SignedHead,
    newer: &SignedHead,
    proof: Option<&ConsistencyProof>,
) -> Result<(), Refused> {
    if older.head.size == newer.head.size {
        return same_root(older, newer);
    }
    if older.head.size > newer.head.size {
        return Ok(());
    }
    let Some(proof) = proof else {
        return Err(Refused::Trust(TrustError::NoProof {
            old_size: older.head.size.get(),
            new_size: newer.head.size.get(),
        }));
    };
    verify_consistency(proof, &older.head, &newer.head).map_err(|_| {
        Refused::contradiction(ForkKind::ProofFails, older, newer, Some(proof.hashes()))
    })
}

fn same_root(known: &SignedHead, head: &SignedHead) -> Result<(), Refused> {
    if known.head.root == head.head.root {
        return Ok(());
    }
    Err(Refused::contradiction(
        ForkKind::SameSize,
        known,
        head,
        None,
    ))
}

impl Refused {
    /// Returns the error, without evidence on disk: nothing of the ledger is kept there yet.
    pub(crate) fn unkept(self) -> TrustError {
        match self {
            Self::Trust(error) => error,
            Self::Contradiction(contradiction) => TrustError::Fork {
                kind: contradiction.kind,
                old_size: contradiction.older.head.size.get(),
                new_size: contradiction.newer.head.size.get(),
                kept_in: None,
            },
        }
    }

    pub(crate) fn contradiction(
        kind: ForkKind,
        older: &SignedHead,
        newer: &SignedHead,
        proof: Option<&[Hash]>,
    ) -> Self {
        Self::Contradiction(Box::new(Contradiction {
            kind,
            older: older.clone(),
            newer: newer.clone(),
            proof: proof.map(<[Hash]>::to_vec),
        }))
    }
}

#[cfg(test)]
#[path = "../../../tlog/tests/it/reference.rs"]
#[allow(dead_code, reason = "tlog's tests use more of it")]
mod reference;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use deed_tlog::{TreeHead, TreeSize, leaf_hash};

    use super::{
        reference::{proof, root},
        *,
    };

    /// A history whose first five leaves all others share.
    struct History(Vec<Hash>);

    impl History {
        fn new(name: u8) -> Self {
            let leaf = |index: u8| leaf_hash(&[if index < 5 { 0 } else { name }, index]);
            Self((0..40).map(leaf).collect())
        }

        fn head(&self, size: usize) -> SignedHead {
            signed(size as u64, root(&self.0[..size]))
        }

        fn proof(&self, old: usize, new: usize) -> ConsistencyProof {
            ConsistencyProof::from_hashes(proof(old, &self.0[..new])).unwrap()
        }

        fn observe(
            &self,
            unlinked: &mut UnlinkedHeads,
            [old, new]: [usize; 2],
        ) -> Result<(), Refused> {
            let proof = self.proof(old, new);
            unlinked.observe(&self.head(new), &self.head(old), Some(&proof))
        }
    }

    fn signed(size: u64, root: Hash) -> SignedHead {
        SignedHead {
            head: TreeHead::new(TreeSize::new(size), root),
            note: Bytes::new(),
        }
    }

    fn sizes(unlinked: &UnlinkedHeads) -> Vec<u64> {
        unlinked.heads.keys().copied().collect()
    }

    fn assert_two_roots(refused: Result<(), Refused>, size: u64) {
        let Err(Refused::Contradiction(found)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(found.kind, ForkKind::SameSize);
        assert_eq!(found.older.head.size.get(), size);
        assert_eq!(found.newer.head.size.get(), size);
        assert_ne!(found.older.head.root, found.newer.head.root);
    }

    /// 10B is proven from 5 only, and nothing was ever proven from it. A proof from 10A says
    /// nothing about it.
    #[test]
    fn a_proof_drops_the_head_that_it_leads_on_from_and_no_other() {
        let (a, b) = (History::new(1), History::new(2));
        let mut unlinked = UnlinkedHeads::new(a.head(5));
        a.observe(&mut unlinked, [5, 10]).unwrap();
        a.observe(&mut unlinked, [10, 20]).unwrap();
        assert_eq!(sizes(&unlinked), [20]);
        b.observe(&mut unlinked, [5, 10]).unwrap();
        assert_eq!(sizes(&unlinked), [10, 20]);
        assert_two_roots(a.observe(&mut unlinked, [10, 30]), 10);
        assert!(sizes(&unlinked).contains(&10), "the forked head stays");
    }

    #[test]
    fn linking_drops_the_head_that_was_linked_and_no_other() {
        let (a, b) = (History::new(1), History::new(2));
        let mut unlinked = UnlinkedHeads::new(a.head(5));
        a.observe(&mut unlinked, [5, 20]).unwrap();
        b.observe(&mut unlinked, [5, 10]).unwrap();
        let linked = unlinked.link(&a.head(10), &a.head(20), &a.proof(10, 20));
        assert_two_roots(linked, 10);
        assert_eq!(sizes(&unlinked), [10, 20]);
        // Heads of one history can be linked.
        let mut unlinked = UnlinkedHeads::new(a.head(5));
        a.observe(&mut unlinked, [5, 20]).unwrap();
        a.observe(&mut unlinked, [5, 10]).unwrap();
        assert_eq!(sizes(&unlinked), [10, 20]);
        unlinked
            .link(&a.head(10), &a.head(20), &a.proof(10, 20))
            .unwrap();
        assert_eq!(sizes(&unlinked), [20]);
    }

    #[test]
    fn tips_are_bounded() {
        let newest = signed(1 << 40, Hash::new([1; 32]));
        let mut unlinked = UnlinkedHeads::new(newest.clone());
        // Heads that are older than their base come without a proof.
        let mut observe = |size: usize| {
            let head = signed(size as u64, Hash::new([2; 32]));
            unlinked.observe(&head, &newest, None)
        };
        (1..UNLINKED_LIMIT).for_each(|size| observe(size).unwrap());
        let refused = observe(UNLINKED_LIMIT);
        let Err(Refused::Trust(TrustError::NoProof { old_size, new_size })) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!((old_size, new_size), (1, 1 << 40));
    }
}
