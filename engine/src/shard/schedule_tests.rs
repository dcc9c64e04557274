//! Tests of the order in which ledgers and sources are served, by what they use.

use super::*;

const NOISY: LedgerNumber = LedgerNumber(1);
const QUIET: LedgerNumber = LedgerNumber(2);

/// Lengths of pieces: of quick ledgers, of ledgers with large batches, and of slow ledgers.
const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_millis(100);
const SECONDS: Duration = Duration::from_secs(4);

fn source(number: u64) -> SourceKey {
    SourceKey::Connection(number)
}

fn push(schedule: &mut Schedule<u32>, ledger: LedgerNumber, from: u64, item: u32) {
    push_received(schedule, ledger, from, (item, false), Instant::now());
}

/// Pushes an item that may take long.
fn push_heavy(schedule: &mut Schedule<u32>, ledger: LedgerNumber, from: u64, item: u32) {
    push_received(schedule, ledger, from, (item, true), Instant::now());
}

fn push_received(
    schedule: &mut Schedule<u32>,
    ledger: LedgerNumber,
    from: u64,
    (item, is_heavy): (u32, bool),
    received: Instant,
) {
    let waits = Waits {
        item,
        is_heavy,
        received,
        begun: false,
    };
    schedule.push(ledger, source(from), waits, Instant::now());
}

/// Serves one item of the next ledger, at a cost of `used`.
fn serve(schedule: &mut Schedule<u32>, pace: Pace, used: u64) -> Option<(LedgerNumber, u32)> {
    let ledger = schedule.take(pace)?;
    let (source, item) = schedule.next(ledger).unwrap();
    schedule.served(ledger, &source, used, None);
    schedule.release(ledger, used, SHORT, Instant::now());
    Some((ledger, item))
}

#[test]
fn those_of_a_source_are_served_as_they_were_received() {
    let mut schedule = Schedule::new();
    let begin = Instant::now();
    let at = |ms| begin + Duration::from_millis(ms);
    for (item, received) in [(2, 20), (4, 40), (3, 30), (1, 10), (5, 40)] {
        push_received(&mut schedule, NOISY, 1, (item, false), at(received));
    }
    let ledger = schedule.take(Pace::Quick).unwrap();
    let (from, first) = schedule.next(ledger).unwrap();
    assert_eq!(first, 1);
    // The rest of an item that was begun comes before all other items of its source.
    push_received(&mut schedule, NOISY, 1, (0, false), at(0));
    schedule.served(ledger, &from, 1, Some(1));
    let mut order = Vec::new();
    while let Some((from, item)) = schedule.next(ledger) {
        order.push(item);
        schedule.served(ledger, &from, 1, None);
    }
    assert_eq!(order, [1, 0, 2, 3, 4, 5]);
}

#[test]
fn sources_that_are_hardly_further_are_served_as_they_were_received() {
    let begin = Instant::now();
    let received = |source: u64| begin + Duration::from_millis(10 - source);
    let order = |used: u64| {
        let mut schedule = Schedule::new();
        for from in 1..=3 {
            // The second item of each source is received long after all first ones.
            let item = u32::try_from(from).unwrap();
            push_received(&mut schedule, NOISY, from, (item, false), received(from));
            let later = received(from) + SECONDS;
            push_received(&mut schedule, NOISY, from, (10 + item, false), later);
        }
        let ledger = schedule.take(Pace::Quick).unwrap();
        let mut order = Vec::new();
        while let Some((from, item)) = schedule.next(ledger) {
            order.push(item);
            let used = if from == source(3) { used } else { 1 };
            schedule.served(ledger, &from, used, None);
        }
        order
    };
    assert_eq!(order(1), [3, 2, 1, 13, 12, 11]);
    // A source that has used more waits until the others have had as much.
    assert_eq!(order(2 * AHEAD_MAX), [3, 2, 1, 12, 11, 13]);
}

/// A source that sends one item at a time is not kept waiting by earlier items of others, however
/// many sources have some.
#[test]
fn earlier_items_of_many_sources_pass_a_later_one_for_a_bounded_time() {
    const JOB: u64 = 50_000;
    let mut schedule = Schedule::new();
    let begin = Instant::now();
    let (many, quiet) = (16, 17);
    for _ in 0..2_000 {
        for from in 1..=many {
            push_received(&mut schedule, NOISY, from, (0, false), begin);
        }
    }
    let ledger = schedule.take(Pace::Quick).unwrap();
    for round in 0..100 {
        push_received(&mut schedule, NOISY, quiet, (1, false), begin + SECONDS);
        let mut waited = 0;
        loop {
            let (from, item) = schedule.next(ledger).unwrap();
            schedule.served(ledger, &from, JOB, None);
            if item == 1 {
                break;
            }
            waited += JOB;
        }
        assert!(waited <= PASSED_MAX + (1 + many) * JOB, "{round}: {waited}");
        // The other sources go on while this one sends nothing.
        for _ in 0..20 {
            let (from, _) = schedule.next(ledger).unwrap();
            schedule.served(ledger, &from, JOB, None);
        }
    }
}

#[test]
fn one_large_ledger_and_one_statement_of_another() {
    let mut schedule = Schedule::new();
    for item in 0..40 {
        push(&mut schedule, NOISY, 1, item);
    }
    assert_eq!(serve(&mut schedule, Pace::Quick, 1200), Some((NOISY, 0)));
    push(&mut schedule, QUIET, 2, 100);
    assert_eq!(serve(&mut schedule, Pace::Quick, 1), Some((QUIET, 100)));
    // As long as the quiet ledger uses less, it is first whenever it has an item.
    for item in 101..150 {
        push(&mut schedule, QUIET, 2, item);
        assert_eq!(serve(&mut schedule, Pace::Quick, 1), Some((QUIET, item)));
    }
    // The noisy ledger goes on at once when no other waits.
    assert_eq!(serve(&mut schedule, Pace::Quick, 1200), Some((NOISY, 1)));
}

#[test]
fn what_was_used_is_paid_for_also_by_who_sends_one_at_a_time() {
    let mut schedule = Schedule::new();
    let (mut noisy, mut quiet) = (0, 0);
    push(&mut schedule, NOISY, 1, 0);
    for _ in 0..10 {
        push(&mut schedule, QUIET, 2, 0);
    }
    for _ in 0..500 {
        let ledger = schedule.take(Pace::Quick).unwrap();
        let (source, item) = schedule.next(ledger).unwrap();
        let used = if ledger == NOISY { 100 } else { 1 };
        schedule.served(ledger, &source, used, None);
        schedule.release(ledger, used, SHORT, Instant::now());
        // Each ledger gets its next item when it has its answer.
        push(&mut schedule, ledger, 1, item);
        if ledger == NOISY {
            noisy += 1;
        } else {
            quiet += 1;
        }
    }
    assert!((4..=6).contains(&noisy), "{noisy} and {quiet}");
}

#[test]
fn sources_of_one_ledger_share_it_by_what_they_use() {
    let mut schedule = Schedule::new();
    for item in 0..100 {
        push(&mut schedule, NOISY, 1, item);
        push(&mut schedule, NOISY, 2, item);
    }
    let mut used = HashMap::new();
    for _ in 0..66 {
        let ledger = schedule.take(Pace::Quick).unwrap();
        let (from, _) = schedule.next(ledger).unwrap();
        let cost = AHEAD_MAX * if from == source(1) { 10 } else { 1 };
        *used.entry(from.clone()).or_insert(0) += cost;
        schedule.served(ledger, &from, cost, None);
        schedule.release(ledger, cost, SHORT, Instant::now());
    }
    assert!(
        used[&source(1)].abs_diff(used[&source(2)]) <= 11 * AHEAD_MAX,
        "{used:?}"
    );
}

#[test]
fn what_is_cut_goes_on_before_what_its_source_sent_later_and_behind_others() {
    let mut schedule = Schedule::new();
    push(&mut schedule, NOISY, 1, 0);
    push(&mut schedule, NOISY, 1, 1);
    push(&mut schedule, NOISY, 2, 2);
    let mut order = Vec::new();
    for cut in [true, false, false, false] {
        let ledger = schedule.take(Pace::Quick).unwrap();
        let (from, item) = schedule.next(ledger).unwrap();
        order.push(item);
        schedule.served(ledger, &from, 2 * AHEAD_MAX, cut.then_some(item));
        schedule.release(ledger, 2 * AHEAD_MAX, SHORT, Instant::now());
    }
    assert_eq!(order, [0, 2, 0, 1]);
    assert!(schedule.is_empty() && !schedule.waits(Pace::Quick));
}

/// Serves one item of the next ledger at `now`; its longest piece takes `longest`.
fn serve_at(
    schedule: &mut Schedule<u32>,
    pace: Pace,
    longest: Duration,
    now: Instant,
) -> Option<(LedgerNumber, u32)> {
    let ledger = schedule.take(pace)?;
    let (source, item) = schedule.next(ledger)?;
    let used = u64::try_from(longest.as_micros()).unwrap();
    schedule.served(ledger, &source, used, None);
    schedule.release(ledger, used, longest, now);
    Some((ledger, item))
}

#[test]
fn slow_ledgers_stand_in_a_line_of_their_own_until_they_are_quick_again() {
    let mut schedule = Schedule::new();
    push(&mut schedule, NOISY, 1, 0);
    let ledger = schedule.take(Pace::Quick).unwrap();
    let (from, item) = schedule.next(ledger).unwrap();
    // Nobody else gets the ledger, or more of that source, meanwhile.
    push(&mut schedule, NOISY, 1, 1);
    assert_eq!(schedule.take(Pace::Quick), None);
    let now = Instant::now();
    schedule.served(ledger, &from, 1200, Some(item));
    schedule.release(ledger, 1200, SECONDS, now);
    assert!(!schedule.waits(Pace::Quick) && !schedule.waits(Pace::Long));
    assert_eq!(schedule.slow_ledgers(), 1);
    assert!(schedule.waiting_since(Pace::Slow).is_some());
    // Quick turns do not bring the ledger back soon, because it has held a thread for so long.
    let soon = now + SECONDS * (SEEN_TIMES - 1);
    for turn in 0..3 * SEEN_TURNS {
        let served = serve_at(&mut schedule, Pace::Slow, SHORT, soon);
        assert!(served.is_some(), "{turn}");
        push(&mut schedule, NOISY, 1, 0);
    }
    let then = now + SECONDS * SEEN_TIMES;
    assert!(serve_at(&mut schedule, Pace::Slow, SHORT, then).is_some());
    push(&mut schedule, NOISY, 1, 0);
    assert!(serve(&mut schedule, Pace::Quick, 1).is_some());
    assert_eq!(schedule.slow_ledgers(), 0);
}

#[test]
fn a_ledger_with_long_batches_stays_away_from_the_quick_for_some_turns() {
    let mut schedule = Schedule::new();
    push(&mut schedule, NOISY, 1, 0);
    let now = Instant::now();
    assert!(serve_at(&mut schedule, Pace::Quick, LONG, now).is_some());
    let then = now + LONG * SEEN_TIMES;
    for turn in 0..SEEN_TURNS {
        push(&mut schedule, NOISY, 1, 0);
        let served = serve_at(&mut schedule, Pace::Long, SHORT, then);
        assert!(served.is_some(), "{turn}");
    }
    push(&mut schedule, NOISY, 1, 0);
    assert!(serve_at(&mut schedule, Pace::Quick, SHORT, then).is_some());
}

#[test]
fn what_may_take_long_at_a_stretch_never_meets_the_quick() {
    let mut schedule = Schedule::new();
    let now = Instant::now();
    push(&mut schedule, NOISY, 1, 0);
    push_heavy(&mut schedule, NOISY, 1, 1);
    push(&mut schedule, QUIET, 1, 2);
    assert_eq!(serve(&mut schedule, Pace::Quick, 1), Some((QUIET, 2)));
    assert_eq!(serve(&mut schedule, Pace::Quick, 1), None);
    assert_eq!(serve(&mut schedule, Pace::Long, 1), Some((NOISY, 0)));
    assert_eq!(serve(&mut schedule, Pace::Long, 1), Some((NOISY, 1)));
    // The heavy item did not take long, so its ledger is as quick as before.
    push(&mut schedule, NOISY, 1, 3);
    assert_eq!(serve(&mut schedule, Pace::Quick, 1), Some((NOISY, 3)));
    // The same holds for a heavy item that comes while the ledger is served among the quick ones.
    push(&mut schedule, NOISY, 1, 4);
    let ledger = schedule.take(Pace::Quick).unwrap();
    push_heavy(&mut schedule, NOISY, 1, 5);
    let (from, _) = schedule.next(ledger).unwrap();
    schedule.served(ledger, &from, 1, None);
    assert_eq!(schedule.next(ledger), None);
    schedule.release(ledger, 1, SHORT, now);
    assert_eq!(serve(&mut schedule, Pace::Quick, 1), None);
    assert_eq!(serve(&mut schedule, Pace::Long, 1), Some((NOISY, 5)));
}

#[test]
fn who_goes_from_line_to_line_still_owes_what_it_used() {
    let mut schedule = Schedule::new();
    let mut batches = HashMap::new();
    for ledger in [NOISY, QUIET] {
        push_heavy(&mut schedule, ledger, 1, 0);
    }
    for _ in 0..20 {
        let (ledger, _) = serve(&mut schedule, Pace::Long, 100).unwrap();
        *batches.entry(ledger).or_insert(0) += 1;
        if ledger == NOISY {
            // The ledger is served among the quick ones before its next batch.
            push(&mut schedule, NOISY, 1, 1);
            assert_eq!(serve(&mut schedule, Pace::Quick, 1), Some((NOISY, 1)));
        }
        push_heavy(&mut schedule, ledger, 1, 0);
    }
    assert_eq!(batches, HashMap::from([(NOISY, 10), (QUIET, 10)]));
}

#[test]
fn those_who_have_gone_are_forgotten() {
    let mut schedule = Schedule::new();
    for number in 0..3 * IDLE_LANES_MAX as u32 {
        push(&mut schedule, LedgerNumber(number), 1, 0);
        serve(&mut schedule, Pace::Quick, 1).unwrap();
    }
    assert!(schedule.lanes.len() <= IDLE_LANES_MAX + 1);
    for number in 0..3 * IDLE_FLOWS_MAX as u64 {
        push(&mut schedule, NOISY, number, 0);
        serve(&mut schedule, Pace::Quick, 1).unwrap();
    }
    assert!(schedule.lanes[&NOISY].flows.len() <= IDLE_FLOWS_MAX + 1);
}

#[test]
fn all_that_waits_comes_out_when_it_is_drained() {
    let mut schedule = Schedule::new();
    for item in 0..3 {
        push(&mut schedule, NOISY, u64::from(item), item);
        push(&mut schedule, QUIET, 1, 10 + item);
    }
    let mut all = schedule.drain();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 10, 11, 12]);
    assert!(schedule.is_empty() && schedule.take(Pace::Quick).is_none());
    push(&mut schedule, QUIET, 1, 7);
    assert_eq!(serve(&mut schedule, Pace::Quick, 1), Some((QUIET, 7)));
}
