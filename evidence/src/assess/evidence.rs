//! Decisions and Approvals: who may say yes or no to an act, and what counts.

use deed_proto::v1::{
    AuthenticationStrength, EvidencePart, FindingKind, IntentState, KeyRole, Verdict,
};
use deed_tlog::Hash;

use super::{
    HASTY_US, LIST_MAX, SKEW_US,
    act::{copied, task_of},
    assessor::{Assessor, Author, EntryContext, View},
    body::{Approval, LeafRef},
    cells::{Act, Evidence},
    keys::{self, ReliedKey},
    table::{Event, State},
};
use crate::{KeyId, TaskId};

impl Assessor {
    #[expect(
        clippy::too_many_arguments,
        reason = "what was said, by whom, and where"
    )]
    pub(super) fn decision<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        voice: Author<'_>,
        task: TaskId,
        leaf_hash: &Hash,
        intent: &LeafRef,
        verdict: Verdict,
    ) -> Result<(), V::Error> {
        let Some(mut act) = self.act_referred(view, task, intent)? else {
            let kind = FindingKind::OutOfPlace;
            let detail = "the decision is of no Intent of this task";
            return self.object(view, here, voice, kind, task, None, detail);
        };
        act = self.fire_deadline(view, here, act)?;
        if !voice.has_role(KeyRole::PolicyEngine) {
            // An unsigned decision is somebody's word, and counts for nothing.
            if voice.is_signed() {
                let kind = FindingKind::WrongRole;
                let detail = "a decision is signed by a policy engine that an authority registered";
                self.object(view, here, voice, kind, task, Some(act.leaf), detail)?;
            }
            return Ok(());
        }
        if let Some(rival) = rival_of(here, voice, &act, EvidencePart::Decision) {
            // Of its own side a no proves as little as a yes.
            let kind = FindingKind::UnprovenClaim;
            let detail = "the policy engine has the controller of somebody whose act it decides, or who \
                          approves it";
            let contradicts = Some(rival.leaf);
            return self.find(view, here, kind, Some(task), here.leaf, contradicts, detail);
        }
        if verdict == Verdict::Deny {
            let why = "a policy engine denied it";
            let event = Event::DecisionDenied;
            act.decision_denied |= self.refuse(view, here, &mut act, voice, event, why)?;
        } else {
            let none = AuthenticationStrength::Unspecified;
            self.weigh(view, here, &mut act, voice, leaf_hash, none)?;
        }
        self.put_act(view, act)
    }

    pub(super) fn approval<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        voice: Author<'_>,
        task: TaskId,
        leaf_hash: &Hash,
        said: &Approval,
    ) -> Result<(), V::Error> {
        let Some(mut act) = self.act_referred(view, task, &said.intent)? else {
            let kind = FindingKind::ApprovalOfOtherIntent;
            let detail = "what was approved is no Intent of this task";
            return self.object(view, here, voice, kind, task, None, detail);
        };
        act = self.fire_deadline(view, here, act)?;
        if !voice.has_role(KeyRole::Approver) {
            if voice.is_signed() && !voice.has_role(KeyRole::Importer) {
                let kind = FindingKind::WrongRole;
                let detail = "an approval is signed by an approver that an authority registered";
                self.object(view, here, voice, kind, task, Some(act.leaf), detail)?;
            }
            act.approval_claimed = true;
            return self.put_act(view, act);
        }
        let rival = rival_of(here, voice, &act, EvidencePart::Approval);
        if rival.is_none() {
            self.approval_times(view, here, &mut act, said)?;
        }
        if let Some(rival) = rival {
            // Of its own side a no proves as little as a yes.
            let (kind, detail) = match rival.part {
                EvidencePart::Decision => (
                    FindingKind::UnprovenClaim,
                    "the approver has the controller of the policy engine that decided",
                ),
                _ => (
                    FindingKind::SelfApproval,
                    "the approver has the controller of somebody who acts here",
                ),
            };
            let contradicts = Some(rival.leaf);
            self.find(view, here, kind, Some(task), here.leaf, contradicts, detail)?;
            act.approval_claimed = true;
        } else if said.verdict == Verdict::Deny {
            let why = "an approver refused it";
            let event = Event::Refused;
            act.refused |= self.refuse(view, here, &mut act, voice, event, why)?;
        } else if keys::is_claim(&act, here.registry) {
            // Whoever acts has not signed: that the act is somebody else's cannot be shown.
            act.approval_claimed = true;
        } else {
            self.weigh(view, here, &mut act, voice, leaf_hash, said.strength)?;
        }
        self.put_act(view, act)
    }

    fn approval_times<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        act: &mut Act,
        said: &Approval,
    ) -> Result<(), V::Error> {
        let decided = said.decided_at.get();
        let opened = said.opened_at.max(said.shown_at).get();
        if said.verdict == Verdict::Allow && opened > 0 && decided - opened < HASTY_US {
            let detail = format!(
                "decided {} ms after it was opened",
                (decided - opened) / 1000
            );
            let kind = FindingKind::HastyApproval;
            self.find_of(view, here, act, kind, Some(here.leaf), detail)?;
        }
        let before = act.at_us.saturating_sub(decided) > SKEW_US;
        if before || decided.saturating_sub(here.at.get()) > SKEW_US {
            let detail = if before {
                "decided before there was an Intent"
            } else {
                "decided in the future"
            };
            let kind = FindingKind::ClockSkew;
            self.find_of(view, here, act, kind, Some(here.leaf), detail)?;
        }
        Ok(())
    }

    /// Somebody who may said no. Returns whether that came before the act was cleared: afterwards it
    /// stays on record, and changes nothing.
    fn refuse<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        act: &mut Act,
        voice: Author<'_>,
        event: Event,
        why: &str,
    ) -> Result<bool, V::Error> {
        let kind = FindingKind::DecisionDenied;
        self.find_of(view, here, act, kind, Some(here.leaf), why)?;
        let moved = self.move_intent(view, here, act, event)?.is_some();
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
            rest_on(act, here, voice, event);
        }
        Ok(counts)
    }

    /// Counts evidence that has come for a waiting act, and judges it again.
    fn weigh<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        act: &mut Act,
        voice: Author<'_>,
        leaf_hash: &Hash,
        strength: AuthenticationStrength,
    ) -> Result<(), V::Error> {
        // An act with an Outcome is not to be done any more: no permit for it.
        if self.effective_state(view, act)? != State::Waiting || act.outcome.is_some() {
            return Ok(());
        }
        if !act.clearing {
            self.drop_revoked(view, here, act)?;
        }
        if !count(act, here, voice, leaf_hash, strength) {
            let kind = FindingKind::NotCompared;
            let detail = format!("more than {LIST_MAX} of its kind count for this Intent already");
            self.find(
                view,
                here,
                kind,
                task_of(act),
                here.leaf,
                Some(act.leaf),
                detail,
            )?;
        }
        // A Clearance names its evidence: without any the Intent goes on waiting, also if the policy
        // has changed meanwhile.
        if act.clearing || act.evidence.is_empty() {
            return Ok(());
        }
        self.with_expected(view, act)?;
        let (Some(waiting), Some(task)) = (&act.waiting, task_of(act)) else {
            return Ok(());
        };
        let judged = self.judge(view, here, &waiting.asked(task, act))?;
        self.settle(view, here, act, judged)
    }

    /// Evidence whose key was revoked since does not count any more. Before new evidence is counted:
    /// the same approver or engine may have spoken again, with another key.
    fn drop_revoked<V: View>(
        &mut self,
        view: &mut V,
        here: EntryContext<'_>,
        act: &mut Act,
    ) -> Result<(), V::Error> {
        for one in std::mem::take(&mut act.evidence) {
            let key = KeyId::from_slice(&one.key).and_then(|key| here.registry.key(key));
            match key.filter(|key| key.revoked_at.is_some()) {
                None => act.evidence.push(one),
                Some(key) => {
                    let revoked = key.revoked_leaf.map(deed_tlog::LeafIndex::get);
                    let detail =
                        format!("the key of the evidence at leaf {} was revoked", one.leaf);
                    // It speaks against that evidence, not against the act.
                    let (kind, task) = (FindingKind::RevokedKeyUse, task_of(act));
                    self.find(view, here, kind, task, one.leaf, revoked, detail)?;
                }
            }
        }
        Ok(())
    }
}

/// The statement that a speaker is not independent of, if there is one.
fn rival_of(
    here: EntryContext<'_>,
    voice: Author<'_>,
    act: &Act,
    part: EvidencePart,
) -> Option<ReliedKey> {
    keys::rival(act, here.registry, voice.record?, part)
}

/// Lists the key of a no that counts: a layer rests on it. One for each controller and kind.
fn rest_on(act: &mut Act, here: EntryContext<'_>, voice: Author<'_>, event: Event) {
    let part = match event {
        Event::DecisionDenied => EvidencePart::Decision,
        _ => EvidencePart::Approval,
    };
    if let Some(key) = voice.key {
        keys::rest_on(act, here, key, part);
    }
}

/// Counts evidence: one approval a controller, one decision an engine's controller. Returns false if
/// there is no room for it.
fn count(
    act: &mut Act,
    here: EntryContext<'_>,
    voice: Author<'_>,
    leaf_hash: &Hash,
    strength: AuthenticationStrength,
) -> bool {
    let Some(key) = voice.key else { return true };
    let controller_of = |key: &[u8]| {
        let key = KeyId::from_slice(key).and_then(|key| here.registry.key(key));
        key.map(|key| key.controller.as_str())
    };
    let is_approval = strength != AuthenticationStrength::Unspecified;
    let alike = |one: &&Evidence| (one.strength != 0) == is_approval;
    let known = act
        .evidence
        .iter()
        .position(|one| alike(&one) && controller_of(&one.key) == voice.controller());
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
        leaf: here.leaf,
        leaf_hash: copied(leaf_hash.as_bytes()),
        key: copied(key.as_bytes()),
        strength: strength.into(),
        at_us: here.at.get(),
    });
    true
}
