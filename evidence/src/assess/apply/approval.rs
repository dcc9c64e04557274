//! Approval.

use deed_proto::v1::{EvidencePart, FindingKind, KeyRole, Verdict};
use deed_tlog::Hash;

use super::Apply;
use crate::{
    TaskId,
    assess::{HASTY_US, SKEW_US, View, body::Approval, cells::Act, keys, table::Event},
};

impl<V: View> Apply<'_, V> {
    /// Takes what somebody approved or refused.
    pub(super) fn approval(
        &mut self,
        task: TaskId,
        leaf_hash: &Hash,
        body: &Approval,
    ) -> Result<(), V::Error> {
        let Some(mut act) = self.act_referred(task, &body.intent)? else {
            return self
                .object(FindingKind::ApprovalOfOtherIntent)
                .says("what was approved is no Intent of this task");
        };
        act = self.fire_deadline(act)?;
        if !self.author.has_role(KeyRole::Approver) {
            if self.author.is_signed() && !self.author.has_role(KeyRole::Importer) {
                self.object(FindingKind::WrongRole)
                    .contradicts(act.leaf)
                    .says("an approval is signed by an approver that an authority registered")?;
            }
            act.approval_claimed = true;
            return self.put_act(act);
        }
        let rival = self.rival_of(&act, EvidencePart::Approval);
        if rival.is_none() {
            self.approval_times(&mut act, body)?;
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
            self.find(kind).contradicts(rival.leaf).says(detail)?;
            act.approval_claimed = true;
        } else if body.verdict == Verdict::Deny {
            let why = "an approver refused it";
            let event = Event::Refused;
            act.refused |= self.refuse(&mut act, event, why)?;
        } else if keys::is_claim(&act, self.trust) {
            // Whoever acts has not signed: that the act is somebody else's cannot be shown.
            act.approval_claimed = true;
        } else {
            self.weigh(&mut act, leaf_hash, body.strength)?;
        }
        self.put_act(act)
    }

    fn approval_times(&mut self, act: &mut Act, body: &Approval) -> Result<(), V::Error> {
        let decided = body.decided_at.get();
        let opened = body.opened_at.max(body.shown_at).get();
        if body.verdict == Verdict::Allow && opened > 0 && decided - opened < HASTY_US {
            let detail = format!(
                "decided {} ms after it was opened",
                (decided - opened) / 1000
            );
            self.find(FindingKind::HastyApproval)
                .of(act)
                .contradicts_this()
                .says(detail)?;
        }
        let before = act.at_us.saturating_sub(decided) > SKEW_US;
        if before || decided.saturating_sub(self.at.get()) > SKEW_US {
            let detail = if before {
                "decided before there was an Intent"
            } else {
                "decided in the future"
            };
            self.find(FindingKind::ClockSkew)
                .of(act)
                .contradicts_this()
                .says(detail)?;
        }
        Ok(())
    }
}
