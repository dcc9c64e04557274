//! Findings about acts, tasks and sessions.

use super::*;

pub(super) const OF_OUTCOMES: [(F, Story); 10] = [
    (F::OutcomeWithoutIntent, |s| {
        let opened = s.open(RiskTier::Low);
        s.mark();
        let leaf = s.done(&opened).leaf;
        told(leaf, "the Outcome is of no Intent of this task")
    }),
    (F::OutcomeWithoutClearance, |s| {
        let intent = s.waits(0);
        s.mark();
        let leaf = s.done(&intent).leaf;
        told(leaf, "it was done while evidence was missing")
            .about(intent.leaf)
            .contradicts(leaf)
            .outcome(intent.leaf, OutcomeState::Unobserved)
    }),
    (F::OutcomeLate, |s| {
        let intent = s.cleared(500);
        s.tick(500);
        let detail = "the Outcome came after the Intent's deadline";
        outcome_with(s, &intent, |_| {}, detail)
    }),
    (F::IntentLapsed, |s| {
        let intent = s.waits(500);
        s.mark();
        told(s.tick(500), "its evidence did not come by its deadline")
            .about(intent.leaf)
            .before(intent.leaf, IntentState::Lapsed)
    }),
    (F::IntentOverdue, |s| {
        let intent = s.cleared(500);
        s.mark();
        told(s.tick(500), "its Outcome did not come by its deadline")
            .about(intent.leaf)
            .before(intent.leaf, IntentState::Overdue)
    }),
    (F::ArgumentsChanged, |s| {
        let intent = s.cleared(0);
        let other = |said: &mut v1::Outcome| said.arguments = Some(committed("others"));
        let detail = "it was called with other arguments than the Intent's";
        outcome_with(s, &intent, other, detail)
    }),
    (F::MissingContent, |s| {
        let intent = s.cleared(0);
        let detail = "the policy wants the tool call committed to";
        outcome_with(s, &intent, |said| said.tool_call = None, detail)
    }),
    (F::EffectMismatch, |s| {
        let intent = s.cleared(0);
        s.done(&intent);
        s.mark();
        let seen = s.seen(&intent, 501);
        let detail = "refund.created on orders/7 differs from what was declared";
        told(seen.leaf, detail)
            .about(intent.leaf)
            .contradicts(seen.leaf)
            .outcome(intent.leaf, OutcomeState::Contradicted)
    }),
    (F::HiddenSideEffect, |s| {
        let intent = s.cleared(0);
        s.done(&intent);
        s.mark();
        let body = observation(Some(&intent), vec![effect("orders/8", 500)]);
        let seen = s.ledger.say(DOWNSTREAM, Some(1), body);
        let detail = "refund.created on orders/8 was declared by nobody";
        told(seen.leaf, detail)
            .about(intent.leaf)
            .contradicts(seen.leaf)
            .outcome(intent.leaf, OutcomeState::Contradicted)
    }),
    (F::Uncorroborated, |s| {
        let intent = s.cleared(0);
        let outcome = s.done(&intent);
        s.mark();
        let leaf = s.tick(100 + 86_400);
        let detail = "nobody independent has seen all of its effects in time";
        let mut told = told(leaf, detail)
            .about(intent.leaf)
            .contradicts(outcome.leaf)
            .outcome(intent.leaf, OutcomeState::Uncorroborated);
        std::mem::swap(&mut told.before, &mut told.after);
        told
    }),
];

pub(super) const OF_SESSIONS: [(F, Story); 8] = [
    (F::SequenceGap, |s| {
        s.open(RiskTier::Low);
        s.mark();
        let skips = |made: &mut v1::Statement| {
            (made.skipped_from, made.sequence) = (Some(0), 3);
        };
        let body = Body::Intent(intent("orders/7", 500, None));
        let leaf = s.ledger.try_say(AGENT, Some(1), body, skips).unwrap().leaf;
        let detail = "3 statements of the session are lost, from sequence 0 on";
        told(leaf, detail).after(leaf, IntentState::Cleared)
    }),
    (F::SessionSilent, |s| {
        s.open(RiskTier::Low);
        let promise = s.ledger.say(AGENT, None, heartbeat(0, 60));
        s.mark();
        let detail = "the session promised another statement by now; its end may be cut off";
        let mut told = told(s.tick(160), detail).about(promise.leaf);
        told.task = None;
        told
    }),
    (F::Equivocation, |s| {
        s.open(RiskTier::Low);
        let first = s.intend(None, |_| {});
        s.mark();
        let other = Body::Intent(intent("orders/8", 500, None));
        let second = s.ledger.equivocate(AGENT, &first, Some(1), other).unwrap();
        let detail = "two statements are signed for one place in a session";
        told(second.leaf, detail).contradicts(first.leaf)
    }),
    (F::ClockSkew, |s| {
        s.mark();
        let ahead = |made: &mut v1::Statement| made.occurred_at_us += 301_000_000;
        let body = task_opened(RiskTier::Low, 0);
        let opened = s.ledger.try_say(PLATFORM, Some(1), body, ahead).unwrap();
        let mut told = told(opened.leaf, "the producer's clock is 301 s ahead");
        told.after.push(digest::Event::Task {
            leaf: opened.leaf,
            state: v1::TaskState::Open,
        });
        told
    }),
    (F::UnknownTask, |s| {
        s.mark();
        let body = Body::Intent(intent("orders/7", 500, None));
        let intent = s.ledger.say(AGENT, Some(7), body);
        let mut told = denied(&intent, "no TaskOpened stands before this statement");
        told.task = Some(7);
        told
    }),
    (F::OutOfPlace, |s| {
        let first = s.open(RiskTier::Low);
        s.mark();
        let second = s.open(RiskTier::Payment);
        told(second.leaf, "the task was opened before").contradicts(first.leaf)
    }),
    (F::UnprovenClaim, |s| {
        let intent = s.cleared(0);
        s.done(&intent);
        s.mark();
        let claimed = observation(Some(&intent), vec![effect("orders/7", 501)]);
        let claimed = s.ledger.say(ANYBODY, Some(1), claimed);
        let detail =
            "refund.created on orders/7 is claimed, and the Outcome does not declare it so";
        told(claimed.leaf, detail).contradicts(intent.leaf)
    }),
    (F::NotCompared, |s| {
        s.open(RiskTier::Low);
        let intent = s.intend(None, |said| said.amount = None);
        let change = |n: usize| v1::Effect {
            external_id: format!("R-{n}"),
            amount: None,
            ..effect("orders/7", 1)
        };
        for part in 0..4 {
            let changes = (part * 64..part * 64 + 64).map(change).collect();
            s.ledger
                .say(DOWNSTREAM, Some(1), observation(Some(&intent), changes));
        }
        s.mark();
        let beyond = observation(Some(&intent), vec![change(256)]);
        let beyond = s.ledger.say(DOWNSTREAM, Some(1), beyond);
        let detail = "more changes were seen of this act than are compared; this one is not";
        told(beyond.leaf, detail)
            .about(intent.leaf)
            .contradicts(beyond.leaf)
    }),
];
