//! Tests of quotas with a clock that only the tests move: sleeping moves it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

#[derive(Debug, Default)]
struct TestTicks(AtomicU64);

impl TestTicks {
    fn advance(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap();
        self.0.fetch_add(ns, Ordering::Relaxed);
    }
}

impl Ticks for TestTicks {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.advance(time);
        Box::pin(std::future::ready(()))
    }
}

fn quotas(statements: u32, bytes: u32, streams: u32) -> (Arc<Quotas>, Arc<TestTicks>) {
    let ticks = Arc::new(TestTicks::default());
    // The clock does not begin at zero, because nothing may depend on its beginning.
    ticks.advance(Duration::from_secs(77));
    let options = QuotaOptions {
        statements_per_second: statements,
        bytes_per_second: bytes,
        streams,
        stored_bytes: 0,
    };
    (
        Arc::new(Quotas::new(options, Arc::clone(&ticks) as _)),
        ticks,
    )
}

fn principal(name: &str) -> Arc<str> {
    name.into()
}

#[test]
fn a_second_is_worth_its_quota_and_principals_do_not_share_it() {
    let (quotas, ticks) = quotas(10, 0, 0);
    let (a, b) = (principal("a"), principal("b"));
    for _ in 0..10 {
        quotas.take(Some(&a), 1, 1_000_000).unwrap();
    }
    let over = quotas.take(Some(&a), 1, 1).unwrap_err();
    assert_eq!(over.retry_after, Duration::from_millis(100));
    assert!(
        over.what.contains("10 statements a second"),
        "{}",
        over.what
    );
    quotas.take(Some(&b), 10, 1).unwrap();
    // A caller without a principal has no quota.
    quotas.take(None, 1_000_000, 1).unwrap();
    ticks.advance(over.retry_after);
    quotas.take(Some(&a), 1, 1).unwrap();
    assert!(quotas.take(Some(&a), 1, 1).is_err());
}

#[test]
fn a_request_beyond_the_burst_passes_when_the_bucket_is_full_and_is_paid_for() {
    let (quotas, ticks) = quotas(10, 0, 0);
    let a = principal("a");
    quotas.take(Some(&a), 1, 0).unwrap();
    let over = quotas.take(Some(&a), 100, 0).unwrap_err();
    assert_eq!(over.retry_after, Duration::from_millis(100));
    ticks.advance(over.retry_after);
    quotas.take(Some(&a), 100, 0).unwrap();
    // 100 statements at ten per second are paid for after ten seconds; a single one can be had a
    // bit after nine.
    let over = quotas.take(Some(&a), 1, 0).unwrap_err();
    assert_eq!(over.retry_after, Duration::from_millis(9_100));
    ticks.advance(Duration::from_secs(10));
    quotas.take(Some(&a), 10, 0).unwrap();
}

#[test]
fn what_passes_over_a_long_time_is_the_quota_whatever_the_sizes() {
    let (quotas, ticks) = quotas(0, 1 << 20, 0);
    let a = principal("a");
    let mut passed = 0;
    for step in 0..10_000_usize {
        let bytes = (step * 7919) % (3 << 20);
        if quotas.take(Some(&a), 1, bytes).is_ok() {
            passed += bytes;
        }
        ticks.advance(Duration::from_millis(10));
    }
    // 100 seconds, a full bucket at the start, and the amount that may be owed at the end.
    let most = (100 + 1 + 3) << 20;
    assert!(passed <= most, "{passed}");
    assert!(passed > 90 << 20, "{passed}");
}

#[test]
fn what_one_bucket_gave_comes_back_when_the_other_has_none() {
    let (quotas, ticks) = quotas(10, 10 * 1024, 0);
    let a = principal("a");
    quotas.take(Some(&a), 1, 10 * 1024).unwrap();
    let over = quotas.take(Some(&a), 5, 1024).unwrap_err();
    assert!(over.what.contains("bytes a second"), "{}", over.what);
    quotas.take(Some(&a), 9, 0).unwrap();
    assert!(quotas.take(Some(&a), 1, 0).is_err());
    // The statements of a request that was refused for another reason come back, too.
    quotas.give_back(Some(&a), 9, 0);
    quotas.take(Some(&a), 9, 0).unwrap();
    ticks.advance(Duration::from_secs(2));
    // A bucket never holds more than its size.
    quotas.give_back(Some(&a), 1000, 0);
    quotas.take(Some(&a), 10, 0).unwrap();
    assert!(quotas.take(Some(&a), 1, 0).is_err());
}

#[test]
fn waiting_ends_with_the_quota_or_as_soon_as_it_would_take_too_long() {
    let (quotas, ticks) = quotas(10, 0, 0);
    let a = principal("a");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let wait = Duration::from_secs(5);
        let began = ticks.now_ns();
        for _ in 0..10 {
            quotas.take_waiting(Some(&a), 10, 0, wait).await.unwrap();
        }
        assert_eq!(ticks.now_ns() - began, 9_000_000_000);
        quotas.take_waiting(Some(&a), 1000, 0, wait).await.unwrap();
        let began = ticks.now_ns();
        let over = quotas.take_waiting(Some(&a), 1, 0, wait).await.unwrap_err();
        assert!(over.retry_after > wait);
        assert_eq!(ticks.now_ns(), began);
    });
}

#[test]
fn streams_are_counted_until_they_end() {
    let (quotas, _) = quotas(0, 0, 2);
    let a = principal("a");
    let first = quotas.open_stream(Some(&a)).unwrap();
    let second = quotas.open_stream(Some(&a)).unwrap();
    let over = quotas.open_stream(Some(&a)).unwrap_err();
    assert!(over.what.contains("2 append streams"), "{}", over.what);
    let _other = quotas.open_stream(Some(&principal("b"))).unwrap();
    drop(first);
    let _third = quotas.open_stream(Some(&a)).unwrap();
    assert!(quotas.open_stream(Some(&a)).is_err());
    drop(second);
}

#[test]
fn the_idle_are_forgotten_and_the_busy_are_not() {
    let (quotas, ticks) = quotas(10, 0, 5);
    let streaming = principal("streaming");
    let _open = quotas.open_stream(Some(&streaming)).unwrap();
    let owing = principal("owing");
    quotas.take(Some(&owing), 1000, 0).unwrap();
    for number in 2..PRINCIPALS_MAX {
        quotas
            .take(Some(&principal(&number.to_string())), 1, 0)
            .unwrap();
    }
    let late = principal("late");
    let over = quotas.take(Some(&late), 1, 0).unwrap_err();
    assert!(over.what.contains("busy at once"), "{}", over.what);
    ticks.advance(Duration::from_secs(1));
    quotas.take(Some(&late), 1, 0).unwrap();
    let known = quotas.principals.lock();
    assert_eq!(known.len(), 3);
    assert!(known.contains_key(&streaming) && known.contains_key(&owing));
}
