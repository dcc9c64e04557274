//! A replay says the same as the ledger that it replays.

use deed_proto::v1::{FindingKind, IntentState, OutcomeStatus, RiskTier, Verdict};

use crate::ledger::*;

#[test]
fn a_payment_from_task_to_receipt() {
    for mut ledger in [Ledger::new(), Ledger::forgetting()] {
        ledger.set_default_policy();
        ledger.at(100);
        ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Payment, 0));
        let grant = ledger.say(AUTHORITY, Some(1), grant_to(AGENT));
        let wanted =
            deed_proto::v1::statement::Body::Intent(intent("orders/7", 500, Some(grant.hash)));
        let intent = ledger.say(AGENT, Some(1), wanted);
        assert_eq!(
            intent.state(),
            Some(IntentState::Waiting),
            "{:?}",
            intent.assessed
        );
        ledger.at(200);
        ledger.say(ENGINE, Some(1), decision(&intent, Verdict::Allow));
        let before = ledger.next_leaf();
        let now = ledger.now();
        ledger.say(APPROVER, Some(1), approval(&intent, Verdict::Allow, now));
        assert_eq!(
            ledger.next_leaf(),
            before + 2,
            "the Clearance follows at once"
        );
        assert_eq!(ledger.act(intent.leaf).state(), IntentState::Cleared);
        assert_eq!(ledger.act(intent.leaf).clearance_leaf, Some(before + 1));
        let effects = vec![effect("orders/7", 500)];
        let done = outcome(&intent, OutcomeStatus::Succeeded, effects.clone());
        ledger.say(AGENT, Some(1), done);
        ledger.say(DOWNSTREAM, Some(1), observation(Some(&intent), effects));
        let before = ledger.next_leaf();
        ledger.say(PLATFORM, Some(1), task_closed());
        assert_eq!(ledger.task(1).receipt_leaf, Some(before + 1));
        assert_eq!(ledger.grant(grant.hash).uses_spent, 1);
        assert_eq!(ledger.findings().count(), 0, "{:?}", ledger.kept.findings);
        assert!(!ledger.has(FindingKind::HastyApproval));
    }
}
