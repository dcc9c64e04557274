//! Evidence for an Intent that waits: what counts, and what an answer of no does.

use deed_proto::v1::{AuthenticationStrength, EvidencePart, FindingKind, IntentState};
use deed_tlog::Hash;

use super::{
    LIST_MAX,
    act::{copied, task_of},
    apply::Apply,
    cells::{Act, Evidence},
    keys::{self, ReliedKey},
    table::{Event, State},
    view::View,
};
use crate::KeyId;

impl<V: View> Apply<'_, V> {
    /// Somebody who may said no. Returns whether that came before the act was cleared: afterwards it
    /// stays on record, and changes nothing.
    pub(super) fn refuse(
        &mut self,
        act: &mut Act,
        event: Event,
        why: &str,
    ) -> Result<bool, V::Error> {
        self.find(FindingKind::DecisionDenied)
            .of(act)
            .contradicts_this()
            .says(why)?;
        let moved = self.move_intent(act, event)?.is_some();
        if moved {
            act.clearing = false;
            act.denied.push(why.to_owned());
        }
        let counts = moved
            || matches!(
                act.state(),
                IntentState::Waiting | IntentState::Denied | IntentState::Lapsed
            );
        if counts {
            self.rest_on_refusal(act, event);
        }
        Ok(counts)
    }

    /// Counts evidence that has come for a waiting act, and judges it again.
    pub(super) fn weigh(
        &mut self,
        act: &mut Act,
        leaf_hash: &Hash,
        strength: AuthenticationStrength,
    ) -> Result<(), V::Error> {
        // An act with an Outcome is not to be done any more: no permit for it.
        if self.effective_state(act)? != State::Waiting || act.outcome.is_some() {
            return Ok(());
        }
        if !act.clearing {
            self.drop_revoked(act)?;
        }
        if !self.count(act, leaf_hash, strength) {
            let detail = format!("more than {LIST_MAX} of its kind count for this Intent already");
            self.find(FindingKind::NotCompared)
                .in_task(task_of(act))
                .contradicts(act.leaf)
                .says(detail)?;
        }
        // A Clearance names its evidence: without any the Intent goes on waiting, also if the policy
        // has changed meanwhile.
        if act.clearing || act.evidence.is_empty() {
            return Ok(());
        }
        self.with_expected(act)?;
        let (Some(waiting), Some(task)) = (&act.waiting, task_of(act)) else {
            return Ok(());
        };
        let judgement = self.judge(&waiting.request(task, act))?;
        self.settle(act, judgement)
    }

    /// Evidence whose key was revoked since does not count any more. Before new evidence is counted:
    /// the same approver or engine may have spoken again, with another key.
    fn drop_revoked(&mut self, act: &mut Act) -> Result<(), V::Error> {
        for one in std::mem::take(&mut act.evidence) {
            let key = KeyId::from_slice(&one.key).and_then(|key| self.trust.key(key));
            match key.filter(|key| key.revoked_at.is_some()) {
                None => act.evidence.push(one),
                Some(key) => {
                    let revoked = key.revoked_leaf.map(deed_tlog::LeafIndex::get);
                    let detail =
                        format!("the key of the evidence at leaf {} was revoked", one.leaf);
                    // It speaks against that evidence, not against the act.
                    self.find(FindingKind::RevokedKeyUse)
                        .in_task(task_of(act))
                        .about(one.leaf)
                        .contradicts(revoked)
                        .says(detail)?;
                }
            }
        }
        Ok(())
    }

    /// The statement that a speaker is not independent of, if there is one.
    pub(super) fn rival_of(&self, act: &Act, part: EvidencePart) -> Option<ReliedKey> {
        keys::rival(act, self.trust, self.author.record?, part)
    }

    /// Lists the key of a no that counts: a layer rests on it. One for each controller and kind.
    fn rest_on_refusal(&mut self, act: &mut Act, event: Event) {
        let part = match event {
            Event::DecisionDenied => EvidencePart::Decision,
            _ => EvidencePart::Approval,
        };
        if let Some(key) = self.author.key {
            self.rest_on(act, key, part);
        }
    }

    /// Counts evidence: one approval a controller, one decision an engine's controller. Returns false if
    /// there is no room for it.
    fn count(&self, act: &mut Act, leaf_hash: &Hash, strength: AuthenticationStrength) -> bool {
        let Some(key) = self.author.key else {
            return true;
        };
        let controller_of = |key: &[u8]| {
            let key = KeyId::from_slice(key).and_then(|key| self.trust.key(key));
            key.map(|key| key.controller.as_str())
        };
        let is_approval = strength != AuthenticationStrength::Unspecified;
        let alike = |one: &&Evidence| (one.strength != 0) == is_approval;
        let known = act
            .evidence
            .iter()
            .position(|one| alike(&one) && controller_of(&one.key) == self.author.controller());
        match known {
            // Neither kind takes the other's places.
            None if act.evidence.iter().filter(alike).count() >= LIST_MAX => return false,
            None => {}
            // The same controller again, more strongly authenticated.
            Some(at) if act.evidence[at].strength < strength.into() => {
                act.evidence.remove(at);
            }
            Some(_) => return true,
        }
        act.evidence.push(Evidence {
            leaf: self.leaf,
            leaf_hash: copied(leaf_hash.as_bytes()),
            key: copied(key.as_bytes()),
            strength: strength.into(),
            at_us: self.at.get(),
        });
        true
    }
}
