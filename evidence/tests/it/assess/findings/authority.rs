//! Findings about grants and evidence.

use super::*;

pub(super) const OF_GRANTS: [(F, Story); 8] = [
    (F::UnknownGrant, |s| {
        s.open(RiskTier::Low);
        s.mark();
        let nowhere = |said: &mut v1::Intent| said.grant = vec![9; 32].into();
        denied(&s.intend(None, nowhere), "there is no such grant")
    }),
    (F::ExpiredGrant, |s| {
        s.open(RiskTier::Low);
        let root = s.root(|_| {});
        s.ledger.at(10_000);
        s.mark();
        let intent = s.intend(Some(&root), |_| {});
        denied(&intent, "the grant has expired").contradicts(root.leaf)
    }),
    (F::ScopeExceeded, |s| {
        s.open(RiskTier::Low);
        let root = s.root(|_| {});
        s.mark();
        let intent = s.intend(Some(&root), |said| said.resource = "stock/7".into());
        denied(&intent, "the grant does not cover the resource").contradicts(root.leaf)
    }),
    (F::LimitExceeded, |s| {
        s.open(RiskTier::Low);
        let root = s.root(|grant| grant.amount = Some(amount(499)));
        s.mark();
        let intent = s.intend(Some(&root), |_| {});
        let detail = "the amount goes beyond what is left of the grant";
        denied(&intent, detail).contradicts(root.leaf)
    }),
    (F::TaskClosed, |s| {
        s.open(RiskTier::Low);
        let end = s.close();
        s.mark();
        let intent = s.intend(None, |_| {});
        denied(&intent, "the task has ended").contradicts(end.leaf)
    }),
    (F::DelegationEscalation, |s| {
        s.open(RiskTier::Low);
        let root = s.root(|grant| grant.uses = 3);
        s.mark();
        let part = s.part(&root, |grant| grant.uses = 4);
        told(part.leaf, "its uses go beyond the parent's").contradicts(root.leaf)
    }),
    (F::DelegationUnaccepted, |s| {
        s.open(RiskTier::Low);
        let root = s.root(|_| {});
        let part = s.part(&root, |_| {});
        s.mark();
        let said = Body::Intent(intent("orders/7", 500, Some(part.hash)));
        let intent = s.ledger.say(HELPER, Some(1), said);
        denied(&intent, "the grant was not accepted by its subject").contradicts(part.leaf)
    }),
    (F::TokenUsedAfterClose, |s| {
        s.open(RiskTier::Low);
        let token = v1::OutsideToken {
            kind: "jti".into(),
            value: "t-1".into(),
            ..v1::OutsideToken::default()
        };
        s.root(|grant| grant.outside_token = Some(token));
        let intent = s.intend(None, |_| {});
        s.done(&intent);
        let end = s.close();
        s.mark();
        let body = observation(Some(&intent), vec![effect("orders/7", 500)]);
        let with_token = |made: &mut v1::Statement| {
            made.correlation_keys = vec![v1::CorrelationKey {
                kind: "jti".into(),
                value: "t-1".into(),
            }];
        };
        let seen = s
            .ledger
            .try_say(DOWNSTREAM, None, body, with_token)
            .unwrap();
        let detail = "a credential of the task was used after the task had ended";
        let told = told(seen.leaf, detail).contradicts(end.leaf);
        told.outcome(intent.leaf, OutcomeState::Corroborated)
    }),
];

pub(super) const OF_EVIDENCE: [(F, Story); 8] = [
    (F::RevokedKeyUse, |s| {
        let intent = s.waits(0);
        let decided = s.decide(&intent, Verdict::Allow);
        assert_eq!(decided.leaf, 14, "as the detail says");
        let revoked = s.ledger.say(AUTHORITY, None, key_revoked(ENGINE, None));
        s.mark();
        let approved = s.approve(APPROVER, &intent, Verdict::Allow);
        let detail = "the key of the evidence at leaf 14 was revoked";
        told(approved.leaf, detail)
            .about(decided.leaf)
            .contradicts(revoked.leaf)
    }),
    (F::CompromisedKeyUse, |s| {
        s.open(RiskTier::Low);
        let intent = s.intend(None, |_| {});
        s.mark();
        let since = key_revoked(AGENT, Some(100));
        let revoked = s.ledger.say(AUTHORITY, None, since);
        let told = told(revoked.leaf, "");
        told.about(intent.leaf).contradicts(revoked.leaf)
    }),
    (F::DecisionDenied, |s| {
        let intent = s.waits(0);
        s.mark();
        let decided = s.decide(&intent, Verdict::Deny);
        told(decided.leaf, "a policy engine denied it")
            .about(intent.leaf)
            .contradicts(decided.leaf)
            .after(intent.leaf, IntentState::Denied)
    }),
    (F::ApprovalOfOtherIntent, |s| {
        let mut intent = s.waits(0);
        intent.hash = Hash::new([7; 32]);
        s.mark();
        let approved = s.approve(APPROVER, &intent, Verdict::Allow);
        told(approved.leaf, "what was approved is no Intent of this task")
    }),
    (F::SelfApproval, |s| {
        let intent = s.waits(0);
        s.mark();
        let approved = s.approve(COLLEAGUE, &intent, Verdict::Allow);
        let detail = "the approver has the controller of somebody who acts here";
        told(approved.leaf, detail).contradicts(intent.leaf)
    }),
    (F::HastyApproval, |s| {
        let intent = s.waits(0);
        s.mark();
        let now = s.ledger.now().get();
        let body = Body::Approval(v1::Approval {
            intent: Some(intent.leaf_ref()),
            verdict: Verdict::Allow.into(),
            shown: Some(committed("approval.shown")),
            shown_at_us: now - 1_999_999,
            opened_at_us: 0,
            decided_at_us: now,
            strength: AuthenticationStrength::MultiFactor.into(),
            rationale: String::new(),
            assertion: None,
        });
        let approved = s.ledger.say(APPROVER, Some(1), body);
        told(approved.leaf, "decided 1999 ms after it was opened")
            .about(intent.leaf)
            .contradicts(approved.leaf)
    }),
    (F::PolicyError, |s| {
        let policy = s.ledger.set_policy(FAILS);
        s.open(RiskTier::Low);
        s.mark();
        denied(&s.intend(None, |_| {}), "").contradicts(policy.leaf)
    }),
    (F::WrongRole, |s| {
        let intent = s.waits(0);
        s.mark();
        let said = decision(&intent, Verdict::Allow);
        let decided = s.ledger.say(APPROVER, Some(1), said);
        let detail = "a decision is signed by a policy engine that an authority registered";
        told(decided.leaf, detail).contradicts(intent.leaf)
    }),
];
