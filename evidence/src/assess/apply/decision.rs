//! Decision.

use deed_proto::v1::{AuthenticationStrength, EvidencePart, FindingKind, KeyRole, Verdict};
use deed_tlog::Hash;

use super::Apply;
use crate::{
    TaskId,
    assess::{View, body::LeafRef, table::Event},
};

impl<V: View> Apply<'_, V> {
    /// Takes what a policy engine decided of an Intent.
    pub(super) fn decision(
        &mut self,
        task: TaskId,
        leaf_hash: &Hash,
        intent: &LeafRef,
        verdict: Verdict,
    ) -> Result<(), V::Error> {
        let Some(mut act) = self.act_referred(task, intent)? else {
            return self
                .object(FindingKind::OutOfPlace)
                .says("the decision is of no Intent of this task");
        };
        act = self.fire_deadline(act)?;
        if !self.author.has_role(KeyRole::PolicyEngine) {
            // An unsigned decision is somebody's word, and counts for nothing.
            if self.author.is_signed() {
                self.object(FindingKind::WrongRole)
                    .contradicts(act.leaf)
                    .says("a decision is signed by a policy engine that an authority registered")?;
            }
            return Ok(());
        }
        if let Some(rival) = self.rival_of(&act, EvidencePart::Decision) {
            // Of its own side a no proves as little as a yes.
            return self
                .find(FindingKind::UnprovenClaim)
                .contradicts(rival.leaf)
                .says(
                    "the policy engine has the controller of somebody whose act it decides, or who \
                          approves it",
                );
        }
        if verdict == Verdict::Deny {
            let why = "a policy engine denied it";
            let event = Event::DecisionDenied;
            act.decision_denied |= self.refuse(&mut act, event, why)?;
        } else {
            let none = AuthenticationStrength::Unspecified;
            self.weigh(&mut act, leaf_hash, none)?;
        }
        self.put_act(act)
    }
}
