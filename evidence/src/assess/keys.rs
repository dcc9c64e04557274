//! The keys that an act's layers rest on, in one list.
//!
//! Two questions are answered from this list alone, so that no key can be forgotten in one of them:
//! which layers are in doubt because somebody else may have had a key, and whether a speaker is
//! independent of everybody who counts for the act.

use deed_proto::v1::{EvidencePart, KeyRole};

use super::{
    LIST_MAX,
    act::copied,
    apply::Apply,
    cells::{Act, Relied},
};
use crate::{
    KeyId, Micros,
    trust::{KeyRecord, TrustState},
};

/// A signed statement that an act's layers rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReliedKey {
    /// The key.
    pub key: KeyId,
    /// Leaf of the statement that it signed.
    pub leaf: u64,
    /// Effective time there.
    pub at: Micros,
    /// The statement's part in the act's evidence.
    pub part: EvidencePart,
}

impl ReliedKey {
    fn new(key: &[u8], leaf: u64, at_us: i64, part: EvidencePart) -> Option<Self> {
        Some(Self {
            key: KeyId::from_slice(key)?,
            leaf,
            at: Micros::new(at_us),
            part,
        })
    }

    /// Returns true if somebody else may have had the key when it signed the statement. An
    /// authority's key is in no registration, and is never in doubt here.
    #[must_use]
    pub fn is_doubtful(&self, trust: &TrustState) -> bool {
        let record = trust.key(self.key);
        record.is_some_and(|record| record.is_doubtful(self.at))
    }
}

/// Every key that an act's layers rest on: of the Intent, the task's opening, the grants and their
/// acceptances, what counts as Decision and Approval, the Outcome, and what independent systems saw.
pub fn relied_on(act: &Act) -> impl Iterator<Item = ReliedKey> + '_ {
    let intent = ReliedKey::new(&act.key, act.leaf, act.at_us, EvidencePart::Intent);
    let judged = act.relied.iter().filter_map(|relied: &Relied| {
        ReliedKey::new(&relied.key, relied.leaf, relied.at_us, relied.part())
    });
    let evidence = act.evidence.iter().filter_map(|one| {
        let part = match one.strength {
            0 => EvidencePart::Decision,
            _ => EvidencePart::Approval,
        };
        ReliedKey::new(&one.key, one.leaf, one.at_us, part)
    });
    let outcome = act.outcome.as_ref().filter(|outcome| outcome.signed);
    let outcome = outcome.and_then(|outcome| {
        let part = EvidencePart::Outcome;
        ReliedKey::new(&outcome.key, outcome.leaf, outcome.at_us, part)
    });
    let mut last = None;
    let seen = act.changes.iter().filter_map(move |change| {
        if last.replace(change.leaf) == Some(change.leaf) {
            return None;
        }
        let part = EvidencePart::Observation;
        ReliedKey::new(&change.key, change.leaf, change.at_us, part)
    });
    intent
        .into_iter()
        .chain(judged)
        .chain(evidence)
        .chain(outcome)
        .chain(seen)
}

/// The parts of an act's evidence that rest on a key which somebody else may have had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doubts(u32);

impl Doubts {
    pub(super) fn of(act: &Act, trust: &TrustState) -> Self {
        let doubtful = relied_on(act).filter(|relied| relied.is_doubtful(trust));
        Self(doubtful.fold(0, |parts, relied| parts | bit(relied.part)))
    }

    pub(super) fn any(self, parts: &[EvidencePart]) -> bool {
        parts.iter().any(|part| self.0 & bit(*part) != 0)
    }
}

const fn bit(part: EvidencePart) -> u32 {
    1 << part as u32
}

/// The side whose interest a part of the evidence stands for. The one that acts, the one that
/// handed the authority on and the one that carried it out are one side. The opener of the task
/// takes no side.
const fn side(part: EvidencePart) -> Option<u8> {
    match part {
        EvidencePart::Intent | EvidencePart::Delegation | EvidencePart::Outcome => Some(0),
        EvidencePart::Decision => Some(1),
        EvidencePart::Approval => Some(2),
        EvidencePart::Observation => Some(3),
        EvidencePart::Task | EvidencePart::Unspecified => None,
    }
}

/// Returns true if an act is itself a claim: nobody signed its Intent, or an importer did, whose key
/// shows who brought it in.
pub(super) fn is_claim(act: &Act, trust: &TrustState) -> bool {
    let key = KeyId::from_slice(&act.key).and_then(|key| trust.key(key));
    key.is_none_or(|key| key.role == KeyRole::Importer)
}

impl<V> Apply<'_, V> {
    /// Lists a key that the act's layers rest on from here on, once for each part.
    pub(super) fn rest_on(&self, act: &mut Act, key: KeyId, part: EvidencePart) {
        let mut known = act.relied.iter();
        let known = known.any(|one| one.part() == part && one.key[..] == *key.as_bytes());
        if !known && act.relied.len() < LIST_MAX {
            act.relied.push(Relied {
                key: copied(key.as_bytes()),
                leaf: self.leaf,
                at_us: self.at.get(),
                part: part.into(),
            });
        }
    }
}

/// Returns true if a part of the evidence stands for a side of the act. A yes that the policy did not
/// ask for makes nobody a party to it.
fn takes_side(act: &Act, part: EvidencePart) -> bool {
    match part {
        EvidencePart::Decision => act.decision_asked,
        EvidencePart::Approval => act.approval_asked,
        part => side(part).is_some(),
    }
}

/// The statement of another side that a key under this controller is not independent of; `None` if it
/// is independent of all. What a system sees is held against the acting side alone: else an accused
/// agent could silence it by its choice of an approver. ([`conflicts`] has the rest.)
pub(super) fn rival(
    act: &Act,
    trust: &TrustState,
    speaker: &KeyRecord,
    part: EvidencePart,
) -> Option<ReliedKey> {
    let of_acting = part == EvidencePart::Observation;
    relied_on(act)
        .filter(|relied| takes_side(act, relied.part) && side(relied.part) != side(part))
        .filter(|relied| !of_acting || side(relied.part) == side(EvidencePart::Intent))
        // Whoever decides or approves is none the less free to do so because a system of the same
        // controller has seen something: `conflicts` has what follows.
        .filter(|relied| relied.part != EvidencePart::Observation)
        .find(|relied| controller(trust, relied.key) == Some(&speaker.controller))
}

/// Returns true if a key that counts as `part` is under the controller of another side of the act,
/// whichever of them spoke first.
pub(super) fn conflicts(act: &Act, trust: &TrustState, key: KeyId, part: EvidencePart) -> bool {
    let own = controller(trust, key);
    own.is_some()
        && relied_on(act)
            .filter(|relied| takes_side(act, relied.part) && side(relied.part) != side(part))
            .any(|relied| controller(trust, relied.key) == own)
}

fn controller(trust: &TrustState, key: KeyId) -> Option<&String> {
    trust.key(key).map(|record| &record.controller)
}
