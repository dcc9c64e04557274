//! The heads that are verified but not yet shown to lie on one line.
//!
//! One request at a time, each head is proven consistent with the one before it, and that is all.
//! A pipelined stream is different: with 32 requests in flight, an answer's head is proven
//! consistent with a head of 32 answers ago, and a server could keep 32 histories apart, one for
//! each request in flight, without any proof failing. So the heads that nothing newer was proven
//! from (*tips*) are kept; each request names one of them, and from time to time the remaining
//! ones are proven to lead to the newest (`settle.rs`). Then one tip is left, and every head ever
//! seen is a prefix of it:
//!
//! Invariant: every verified head is a tip, or a chain of verified proofs leads from it to one.

use std::collections::BTreeMap;

use deed_tlog::{ConsistencyProof, Hash, verify_consistency};

use super::{ForkKind, TrustError};
use crate::head::SignedHead;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Tips {
    /// By size. Invariant: not empty; `newest` is the last one.
    tips: BTreeMap<u64, Tip>,
    newest: SignedHead,
}

#[derive(Debug)]
struct Tip {
    head: SignedHead,
    /// A request that is under way asks for a proof from here.
    named: bool,
}

/// Two signed heads that contradict each other.
#[derive(Debug)]
pub(crate) struct Contradiction {
    pub(crate) kind: ForkKind,
    pub(crate) older: SignedHead,
    pub(crate) newer: SignedHead,
    pub(crate) proof: Option<Vec<Hash>>,
}

/// Why a head is not taken in.
#[derive(Debug)]
pub(crate) enum Refused {
    Contradiction(Box<Contradiction>),
    Trust(TrustError),
}

impl Tips {
    /// Begins with one head that is trusted.
    pub(crate) fn new(trusted: SignedHead) -> Self {
        let tip = Tip {
            head: trusted.clone(),
            named: false,
        };
        Self {
            tips: BTreeMap::from([(trusted.head.size.get(), tip)]),
            newest: trusted,
        }
    }

    /// The largest verified head.
    pub(crate) const fn newest(&self) -> &SignedHead {
        &self.newest
    }

    /// How many heads are not yet shown to lie on one line.
    pub(crate) fn len(&self) -> usize {
        self.tips.len()
    }

    /// The head that the next request shall ask for a proof from: the oldest tip that no request
    /// under way names already, else the newest head.
    pub(crate) fn name_base(&mut self) -> SignedHead {
        match self.tips.values_mut().find(|tip| !tip.named) {
            Some(tip) => {
                tip.named = true;
                tip.head.clone()
            }
            None => self.newest.clone(),
        }
    }

    /// Takes in a head whose signature was verified, with the proof from `base` that came along.
    ///
    /// A head that is older than its base cannot have a proof from it; it becomes a tip and is
    /// proven to lead to the newest when the tips are settled.
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
            self.tips.remove(&base.head.size.get());
        }
        // The very same head again is no news. Neither is the one that just was the base.
        self.tips.entry(size).or_insert_with(|| Tip {
            head: head.clone(),
            named: false,
        });
        if size > self.newest.head.size.get() {
            self.newest = head.clone();
        }
        Ok(())
    }

    /// All tips but the newest.
    pub(crate) fn behind(&self) -> Vec<SignedHead> {
        let newest = self.newest.head.size.get();
        self.tips
            .range(..newest)
            .map(|(_, tip)| tip.head.clone())
            .collect()
    }

    /// Checks a proof that `tip` leads to `newer`, a verified head, and drops the tip.
    pub(crate) fn link(
        &mut self,
        tip: &SignedHead,
        newer: &SignedHead,
        proof: &ConsistencyProof,
    ) -> Result<(), Refused> {
        check(tip, newer, Some(proof))?;
        if tip.head.size < newer.head.size {
            self.tips.remove(&tip.head.size.get());
        }
        Ok(())
    }

    /// Two roots for one size are a fork, whatever any proof says.
    pub(crate) fn compare_with_same_size(&self, head: &SignedHead) -> Result<(), Refused> {
        let known = self.tips.get(&head.head.size.get()).map(|tip| &tip.head);
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
