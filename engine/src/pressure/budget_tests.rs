//! Tests of budgets: the order in which room is given out, and that all of it comes back.

use std::{
    collections::HashMap,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use tokio::sync::Semaphore;

use super::*;
use crate::{options::QuotaOptions, pressure::quota::MachineTicks};

/// Polls a future once.
fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn ready<F: Future>(future: F) -> F::Output {
    match poll(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

const A: SourceKey = SourceKey::Connection(1);
const B: SourceKey = SourceKey::Connection(2);

#[test]
fn what_is_taken_comes_back_in_part_and_whole() {
    let budget = Budget::new(100, 100);
    let mut share = ready(budget.take(&A, 60));
    assert!(budget.try_take(&B, 41).is_none());
    let other = budget.try_take(&B, 40).unwrap();
    assert_eq!(budget.held(), 100);
    share.shrink(10);
    share.shrink(50);
    assert_eq!((share.amount(), budget.held()), (10, 50));
    drop(share);
    drop(other);
    assert_eq!(budget.held(), 0);
    assert!(budget.is_unused());
    // A request for more than the total counts as one for the total.
    assert_eq!(ready(budget.take(&A, 1000)).amount(), 100);
}

#[test]
fn a_source_holds_no_more_than_its_bound_and_others_pass_it() {
    let budget = Budget::new(100, 50);
    let held = ready(budget.take(&A, 30));
    let mut waiting = Box::pin(budget.take(&A, 30));
    assert!(poll(waiting.as_mut()).is_pending());
    // The first request in the queue waits because of its own source's bound alone.
    let other = ready(budget.take(&B, 50));
    drop(held);
    let Poll::Ready(share) = poll(waiting.as_mut()) else {
        panic!("there is room again");
    };
    drop((share, other));
    assert_eq!(budget.held(), 0);
}

#[test]
fn who_holds_nothing_finds_room_in_the_reserve_whoever_holds_the_rest() {
    let budget = Budget::reserving(800);
    let holders: Vec<_> = (10..15).map(SourceKey::Connection).collect();
    let mut held: Vec<_> = holders
        .iter()
        .map(|source| ready(budget.take(source, 140)))
        .collect();
    // Everything but the reserve is taken, and sources that hold some wait for more.
    let mut waiting = Box::pin(budget.take(&holders[0], 10));
    assert!(poll(waiting.as_mut()).is_pending());
    let mut small = ready(budget.take(&A, 60));
    // Each source gets room of the reserve once, and no more than there is.
    assert!(budget.try_take(&A, 10).is_none() && budget.try_take(&B, 41).is_none());
    let other = budget.try_take(&B, 40).unwrap();
    assert_eq!(budget.held(), 800);
    // Room of the reserve goes to no source that holds something, and at once to one that holds
    // nothing.
    let third = SourceKey::Connection(3);
    let mut later = Box::pin(budget.take(&third, 30));
    assert!(poll(later.as_mut()).is_pending());
    small.shrink(20);
    assert!(poll(waiting.as_mut()).is_pending());
    let Poll::Ready(later) = poll(later.as_mut()) else {
        panic!("there is room in the reserve");
    };
    held.pop();
    assert!(poll(waiting.as_mut()).is_ready());
    drop((small, other, later, held));
    assert_eq!(budget.held(), 0);
    assert_eq!(ready(budget.take(&A, 400)).amount(), 350);
}

#[test]
fn strangers_hold_no_more_than_their_part_however_many_addresses_they_have() {
    let stranger = |host: u8| SourceKey::Address([192, 0, 2, host].into());
    let budget = Budget::with_strangers(100, 50, 30, 0);
    let held: Vec<_> = (0..3)
        .map(|host| budget.try_take(&stranger(host), 10).unwrap())
        .collect();
    assert!(budget.try_take(&stranger(9), 1).is_none());
    let next = stranger(9);
    let mut waiting = Box::pin(budget.take(&next, 10));
    assert!(poll(waiting.as_mut()).is_pending());
    // A known caller passes a stranger that waits because of the strangers' bound.
    let known = ready(budget.take(&A, 50));
    drop(held);
    let Poll::Ready(share) = poll(waiting.as_mut()) else {
        panic!("there is room again");
    };
    drop((share, known));
    assert_eq!(budget.held(), 0);
    // A request for more than strangers may ever hold counts as one for that much.
    assert_eq!(ready(budget.take(&next, 1000)).amount(), 30);
}

#[test]
fn a_part_of_a_share_is_given_back_by_itself() {
    let budget = Budget::new(100, 100);
    let mut share = ready(budget.take(&A, 60));
    let part = share.split(20);
    assert_eq!((share.amount(), part.amount(), budget.held()), (40, 20, 60));
    drop(part);
    assert_eq!(budget.held(), 40);
    let rest = share.split(1000);
    assert_eq!((share.amount(), rest.amount()), (0, 40));
    drop((share, rest));
    assert_eq!(budget.held(), 0);
    assert!(budget.is_unused());
}

#[test]
fn who_holds_a_share_knows_whether_another_source_waits() {
    let (one, other) = (SourceKey::Connection(1), SourceKey::Connection(2));
    let budget = Budget::new(1, 1);
    let held = ready(budget.take(&one, 1));
    assert!(!held.is_wanted());
    let mut own = pin!(budget.take(&one, 1));
    assert!(poll(own.as_mut()).is_pending());
    assert!(!held.is_wanted());
    {
        let mut others = pin!(budget.take(&other, 1));
        assert!(poll(others.as_mut()).is_pending());
        assert!(held.is_wanted());
    }
    assert!(!held.is_wanted(), "it has given up");
}

#[test]
fn places_are_given_to_sources_in_turn() {
    let (one, other) = (SourceKey::Connection(1), SourceKey::Connection(2));
    let budget = Budget::of_places(1, 1);
    let mut held = ready(budget.take(&one, 1));
    let waits = |source| Box::pin(budget.take(source, 1));
    // Each source asks for the next place before it gives the last one back.
    let mut own = vec![waits(&one), waits(&one)];
    let mut others = waits(&other);
    own.iter_mut()
        .for_each(|own| assert!(poll(own.as_mut()).is_pending()));
    assert!(poll(others.as_mut()).is_pending());
    for turn in 1.. {
        own.push(waits(&one));
        own.iter_mut()
            .for_each(|own| assert!(poll(own.as_mut()).is_pending()));
        drop(held);
        if poll(others.as_mut()).is_ready() {
            assert!(turn <= 2, "{turn}");
            break;
        }
        let Poll::Ready(next) = poll(own.remove(0).as_mut()) else {
            panic!("nobody has it");
        };
        held = next;
    }
}

#[test]
fn a_large_request_is_not_starved_by_small_ones() {
    let budget = Budget::new(100, 100);
    let mut small: Vec<_> = (0..10).map(|_| ready(budget.take(&A, 10))).collect();
    let mut large = Box::pin(budget.take(&B, 100));
    assert!(poll(large.as_mut()).is_pending());
    let mut later: Vec<_> = (0..10).map(|_| Box::pin(budget.take(&A, 10))).collect();
    for waiting in &mut later {
        assert!(poll(waiting.as_mut()).is_pending());
    }
    while let Some(share) = small.pop() {
        drop(share);
        // Its turn comes once, and then no other request passes it.
        let passed = later
            .iter_mut()
            .filter_map(|waiting| match poll(waiting.as_mut()) {
                Poll::Ready(share) => Some(share),
                Poll::Pending => None,
            })
            .count();
        assert!(passed <= 1, "{passed}");
        if poll(large.as_mut()).is_ready() {
            return;
        }
        later.retain_mut(|waiting| poll(waiting.as_mut()).is_pending());
        if small.is_empty() {
            break;
        }
    }
    assert!(poll(large.as_mut()).is_ready());
}

#[test]
fn many_waiters_of_one_source_do_not_keep_another_out() {
    const REQUEST_BYTES: usize = 1 << 20;
    let budget = Budget::new(4 * REQUEST_BYTES, 4 * REQUEST_BYTES);
    let full = ready(budget.take(&SourceKey::Server, 4 * REQUEST_BYTES));
    let mut waiting: Vec<_> = std::iter::repeat_n(&A, 400)
        .chain(std::iter::repeat_n(&B, 40))
        .map(|source| (source, Box::pin(budget.take(source, REQUEST_BYTES))))
        .collect();
    for (_, future) in &mut waiting {
        assert!(poll(future.as_mut()).is_pending());
    }
    drop(full);
    let mut served: HashMap<&SourceKey, usize> = HashMap::new();
    // While both have requests waiting, each gets half of what is given out.
    while served.get(&B).is_none_or(|&count| count < 40) {
        let before = waiting.len();
        waiting.retain_mut(|(source, future)| {
            let done = poll(future.as_mut()).is_ready();
            *served.entry(*source).or_insert(0) += usize::from(done);
            !done
        });
        assert!(waiting.len() < before, "somebody gets on: {served:?}");
    }
    assert!(served[&A] <= 40 + 8, "{served:?}");
}

#[test]
fn giving_up_gives_back_at_every_point() {
    let budget = Budget::new(100, 100);
    let full = ready(budget.take(&A, 100));
    let mut first = Box::pin(budget.take(&A, 100));
    let mut second = Box::pin(budget.take(&B, 10));
    assert!(poll(first.as_mut()).is_pending());
    assert!(poll(second.as_mut()).is_pending());
    // The future is dropped while it waits: the request behind it gets on.
    let mut half = Box::pin(budget.take(&B, 1));
    assert!(poll(half.as_mut()).is_pending());
    drop(half);
    drop(full);
    // The room was granted, and the future is dropped before it learned of that.
    drop(first);
    drop(second);
    assert_eq!(budget.held(), 0);
    assert!(budget.is_unused());
    assert_eq!(ready(budget.take(&B, 100)).amount(), 100);
}

fn pressure(connection: usize, ledger: usize, server: usize) -> Pressure {
    let limits = LimitOptions {
        connection_bytes: connection,
        ledger_bytes: ledger,
        server_bytes: server,
        quota: QuotaOptions::default(),
        ..LimitOptions::default()
    };
    Pressure::new(&limits, Arc::new(MachineTicks::default()))
}

fn connection(id: u64, bytes: usize) -> Source {
    Source {
        id,
        budget: Arc::new(Semaphore::new(bytes)),
        principal: None,
        anonymous: false,
        network: std::net::Ipv4Addr::LOCALHOST.into(),
    }
}

#[test]
fn a_principal_counts_once_however_many_connections_it_opens() {
    let of = |id, principal: Option<&str>| Source {
        principal: principal.map(Arc::from),
        ..connection(id, 1)
    };
    assert_eq!(of(1, Some("a")).key(), of(2, Some("a")).key());
    assert_ne!(of(1, Some("a")).key(), of(1, Some("b")).key());
    assert_ne!(of(1, None).key(), of(2, None).key());
    let nobody = |id, host: u8| Source {
        anonymous: true,
        network: [192, 0, 2, host].into(),
        ..connection(id, 1)
    };
    assert_eq!(nobody(1, 1).key(), nobody(2, 1).key());
    assert_ne!(nobody(1, 1).key(), nobody(1, 2).key());
    assert_ne!(nobody(1, 1).key(), of(1, Some("a")).key());
}

#[test]
fn the_answer_keeps_its_own_share_and_nothing_else() {
    let pressure = pressure(1000, 1000, 1000);
    let source = connection(1, 1000);
    let (mut room, ()) =
        ready(pressure.room(&source, LedgerNumber(1), 400, std::future::ready(()))).unwrap();
    assert_eq!(pressure.held_bytes(), 400);
    assert_eq!(pressure.arriving.held(), 0);
    room.answered(50);
    assert_eq!(pressure.held_bytes(), 50);
    assert_eq!(source.budget.available_permits(), 950);
    assert_eq!(pressure.ledger(LedgerNumber(1)).held(), 0);
    drop(room);
    assert_eq!(pressure.held_bytes(), 0);
    assert_eq!(source.budget.available_permits(), 1000);
}

#[test]
fn what_waits_decoded_is_bounded_and_refused_at_once() {
    let pressure = pressure(100, 1000, 1000);
    let source = connection(1, 100);
    let no_place = std::future::ready;
    let held = ready(pressure.room(&source, LedgerNumber(1), 100, no_place(()))).unwrap();
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut room =
            Box::pin(pressure.room(&source, LedgerNumber(1), 100, std::future::ready(())));
        assert!(poll(room.as_mut()).is_pending());
        waiting.push(room);
    }
    let refused = ready(pressure.room(&source, LedgerNumber(1), 100, std::future::ready(())));
    assert_eq!(refused.err(), Some(Overloaded));
    drop(waiting);
    assert_eq!(pressure.arriving.held(), 0);
    drop(held);
}

/// Random requests of random sources and ledgers, some of which give up: all others are served, and
/// all room comes back. The budgets are so small that nearly every request waits.
#[test]
fn whatever_the_order_nobody_waits_for_ever() {
    for seed in 1..=16_u64 {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        let pressure = Arc::new(pressure(1000, 1500, 2000));
        let shard = Budget::new(1800, 900);
        let connections: Vec<_> = (1..=4).map(|id| connection(id, 1000)).collect();
        let mut random = seed;
        let mut next = |bound: u64| {
            // xorshift64, A. Marsaglia 2003.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % bound
        };
        runtime.block_on(async {
            let mut tasks = Vec::new();
            for _ in 0..200 {
                let mut source = connections[next(4) as usize].clone();
                if next(3) == 0 {
                    source.principal = Some(next(2).to_string().into());
                }
                let ledger = LedgerNumber(u32::try_from(next(3)).unwrap());
                let bytes = 1 + next(1200) as usize;
                let (gives_up, yields) = (next(4) == 0, next(5));
                let (pressure, shard) = (Arc::clone(&pressure), shard.clone());
                tasks.push(tokio::spawn(async move {
                    let key = source.key();
                    loop {
                        let place = shard.take(&key, bytes);
                        let room = pressure.room(&source, ledger, bytes, place);
                        let taken = if gives_up {
                            tokio::select! {
                                biased;
                                () = tokio::task::yield_now() => return,
                                taken = room => taken,
                            }
                        } else {
                            room.await
                        };
                        let Ok((mut room, place)) = taken else {
                            tokio::task::yield_now().await;
                            continue;
                        };
                        for _ in 0..yields {
                            tokio::task::yield_now().await;
                        }
                        drop(place);
                        room.answered(bytes / 10);
                        return;
                    }
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
        });
        assert_eq!((pressure.held_bytes(), shard.held()), (0, 0), "seed {seed}");
        assert_eq!(pressure.arriving.held(), 0);
        for number in 0..3 {
            assert_eq!(pressure.ledger(LedgerNumber(number)).held(), 0);
        }
        for connection in &connections {
            assert_eq!(connection.budget.available_permits(), 1000);
        }
    }
}
