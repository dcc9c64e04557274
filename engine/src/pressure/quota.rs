//! Quotas of principals: statements per second, bytes per second, append streams open.
//!
//! A bucket holds one second's worth. A request that is larger than its bucket passes when the
//! bucket is full, and the excess is owed: so whatever the sizes of requests, the amount that
//! passes over a long time is the quota. The arithmetic is governor's (GCRA); its state is kept
//! here because of what is owed, and because a request needs two buckets: if the second one refuses
//! it, the first one gets back what it gave.

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU32,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{NotKeyed, StateStore},
};
use parking_lot::Mutex;

use crate::options::QuotaOptions;

/// Principals that are remembered. A principal that has used nothing lately is forgotten, so this
/// bounds how many may be busy within a second or owe something.
const PRINCIPALS_MAX: usize = 16_384;

/// Time after which a caller may try again that would be one principal, or one stream, too many.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Bytes of one unit: with single bytes, governor's nanoseconds would be too coarse.
const UNIT_BYTES: u64 = 1024;

/// A clock that never goes back.
pub trait Ticks: fmt::Debug + Send + Sync + 'static {
    /// Returns the nanoseconds since a fixed moment.
    fn now_ns(&self) -> u64;

    /// Waits for `time`.
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The machine's monotonic clock.
#[derive(Debug)]
pub struct MachineTicks(std::time::Instant);

impl Default for MachineTicks {
    fn default() -> Self {
        Self(std::time::Instant::now())
    }
}

impl Ticks for MachineTicks {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(time))
    }
}

#[derive(Debug, Clone)]
struct QuotaClock(Arc<dyn Ticks>);

impl Clock for QuotaClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.now_ns())
    }
}

/// Time at which a bucket will be full, in nanoseconds since it was made; `None` if nothing was
/// ever taken.
#[derive(Debug, Clone, Default)]
struct FullAt(Arc<Mutex<Option<u64>>>);

impl StateStore for FullAt {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut full_at = self.0.lock();
        let (outcome, new) = measure(full_at.map(Nanos::new))?;
        *full_at = Some(new.as_u64());
        Ok(outcome)
    }
}

#[derive(Debug)]
struct Bucket {
    limiter: RateLimiter<NotKeyed, FullAt, QuotaClock, NoOpMiddleware<Nanos>>,
    full_at: FullAt,
    made_at_ns: u64,
    burst: NonZeroU32,
    unit_ns: u64,
}

impl Bucket {
    /// Makes a bucket for `per_second` things per second, which are counted in units of `unit`.
    fn new(per_second: NonZeroU32, unit: u64, clock: &QuotaClock) -> Self {
        let per_second = u64::from(per_second.get());
        let unit_ns = (unit * 1_000_000_000 / per_second).max(1);
        let burst = u32::try_from(per_second.div_ceil(unit)).unwrap_or(u32::MAX);
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(Duration::from_nanos(unit_ns))
            .expect("a unit takes a nanosecond at least")
            .allow_burst(burst);
        let full_at = FullAt::default();
        Self {
            limiter: RateLimiter::new(quota, full_at.clone(), clock.clone()),
            full_at,
            made_at_ns: clock.0.now_ns(),
            burst,
            unit_ns,
        }
    }

    /// Takes `units`; the error is the time after which there will be enough.
    fn take(&self, units: u64) -> Result<(), Duration> {
        let now = u32::try_from(units).unwrap_or(u32::MAX);
        let Some(now) = NonZeroU32::new(now.min(self.burst.get())) else {
            return Ok(());
        };
        match self.limiter.check_n(now) {
            Ok(Ok(())) => {
                let owed_ns = (units - u64::from(now.get())).saturating_mul(self.unit_ns);
                if let Some(full_at) = &mut *self.full_at.0.lock() {
                    *full_at = full_at.saturating_add(owed_ns);
                }
                Ok(())
            }
            Ok(Err(not_until)) => Err(not_until.wait_time_from(self.limiter.clock().now())),
            Err(_) => unreachable!("never more than the burst is asked for"),
        }
    }

    fn give_back(&self, units: u64) {
        let ns = units.saturating_mul(self.unit_ns);
        if let Some(full_at) = &mut *self.full_at.0.lock() {
            *full_at = full_at.saturating_sub(ns);
        }
    }

    fn is_full(&self, now_ns: u64) -> bool {
        let since_made = now_ns.saturating_sub(self.made_at_ns);
        (*self.full_at.0.lock()).is_none_or(|full_at| full_at <= since_made)
    }
}

/// The quotas, and the use that each principal has made of them.
#[derive(Debug)]
pub struct Quotas {
    options: QuotaOptions,
    clock: QuotaClock,
    principals: Mutex<HashMap<Arc<str>, Usage>>,
    over: Over,
}

/// Number of times that each quota was exceeded.
#[derive(Debug, Default)]
struct Over {
    statements: AtomicU64,
    bytes: AtomicU64,
    streams: AtomicU64,
}

#[derive(Debug)]
struct Usage {
    statements: Option<Bucket>,
    bytes: Option<Bucket>,
    streams: u32,
}

/// A refusal because of a quota; nothing was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverQuota {
    /// Description of the quota.
    pub what: String,
    /// Time after which the caller may try again.
    pub retry_after: Duration,
}

/// An append stream; it counts as open until it is dropped.
#[derive(Debug)]
pub struct AppendStream(Option<(Arc<Quotas>, Arc<str>)>);

impl Quotas {
    pub fn new(options: QuotaOptions, ticks: Arc<dyn Ticks>) -> Self {
        Self {
            options,
            clock: QuotaClock(ticks),
            principals: Mutex::default(),
            over: Over::default(),
        }
    }

    /// Returns how often each quota was exceeded.
    pub fn over(&self) -> Vec<(&'static str, u64)> {
        let Over {
            statements,
            bytes,
            streams,
        } = &self.over;
        vec![
            ("statements", statements.load(Relaxed)),
            ("bytes", bytes.load(Relaxed)),
            ("streams", streams.load(Relaxed)),
        ]
    }

    /// Takes statements and bytes of a principal's quota, all of it or nothing. Without a principal
    /// there is no quota: access control decides whether such a caller exists.
    ///
    /// # Errors
    /// [`OverQuota`] if there is not enough.
    pub fn take(
        &self,
        principal: Option<&Arc<str>>,
        statements: usize,
        bytes: usize,
    ) -> Result<(), OverQuota> {
        let QuotaOptions {
            statements_per_second,
            bytes_per_second,
            ..
        } = self.options;
        let Some(principal) = principal else {
            return Ok(());
        };
        if statements_per_second == 0 && bytes_per_second == 0 {
            return Ok(());
        }
        self.with_usage(principal, |usage| {
            let over = |what: &'static str, quota: u32, times: &AtomicU64, retry_after| {
                times.fetch_add(1, Relaxed);
                OverQuota {
                    what: format!("the quota of {quota} {what} a second is used up"),
                    retry_after,
                }
            };
            if let Some(bucket) = &usage.statements {
                let units = statements as u64;
                bucket.take(units).map_err(|retry_after| {
                    over(
                        "statements",
                        statements_per_second,
                        &self.over.statements,
                        retry_after,
                    )
                })?;
            }
            if let Some(bucket) = &usage.bytes {
                let taken = bucket.take(units(bytes));
                if taken.is_err()
                    && let Some(first) = &usage.statements
                {
                    first.give_back(statements as u64);
                }
                taken.map_err(|retry_after| {
                    over("bytes", bytes_per_second, &self.over.bytes, retry_after)
                })?;
            }
            Ok(())
        })?
    }

    /// Takes as [`Quotas::take`], and waits for it, `wait_max` at most.
    ///
    /// # Errors
    /// [`OverQuota`] as soon as it is clear that the wait would be longer.
    pub async fn take_waiting(
        &self,
        principal: Option<&Arc<str>>,
        statements: usize,
        bytes: usize,
        wait_max: Duration,
    ) -> Result<(), OverQuota> {
        let mut left = wait_max;
        loop {
            let over = match self.take(principal, statements, bytes) {
                Ok(()) => return Ok(()),
                Err(over) => over,
            };
            // A wait of zero would spin.
            let wait = over.retry_after.max(Duration::from_millis(1));
            left = left.checked_sub(wait).ok_or(over)?;
            self.clock.0.sleep(wait).await;
        }
    }

    /// Gives back what was taken for a request that was refused for another reason.
    pub(crate) fn give_back(&self, principal: Option<&Arc<str>>, statements: usize, bytes: usize) {
        let Some(principal) = principal else {
            return;
        };
        if let Some(usage) = self.principals.lock().get(principal) {
            if let Some(bucket) = &usage.statements {
                bucket.give_back(statements as u64);
            }
            if let Some(bucket) = &usage.bytes {
                bucket.give_back(units(bytes));
            }
        }
    }

    /// Counts an append stream of a principal until the returned value is dropped.
    ///
    /// # Errors
    /// [`OverQuota`] if the principal has as many as it may.
    pub fn open_stream(
        self: &Arc<Self>,
        principal: Option<&Arc<str>>,
    ) -> Result<AppendStream, OverQuota> {
        let max = self.options.streams;
        let Some(principal) = principal.filter(|_| max > 0) else {
            return Ok(AppendStream(None));
        };
        self.with_usage(principal, |usage| {
            if usage.streams >= max {
                self.over.streams.fetch_add(1, Relaxed);
                return Err(OverQuota {
                    what: format!(
                        "the quota of {max} append streams at once is used up; end one first"
                    ),
                    retry_after: RETRY_AFTER,
                });
            }
            usage.streams += 1;
            Ok(AppendStream(Some((
                Arc::clone(self),
                Arc::clone(principal),
            ))))
        })?
    }

    fn with_usage<T>(
        &self,
        principal: &Arc<str>,
        with: impl FnOnce(&mut Usage) -> T,
    ) -> Result<T, OverQuota> {
        let mut principals = self.principals.lock();
        if let Some(usage) = principals.get_mut(principal) {
            return Ok(with(usage));
        }
        if principals.len() >= PRINCIPALS_MAX {
            let now_ns = self.clock.0.now_ns();
            principals.retain(|_, usage| !usage.is_idle(now_ns));
        }
        if principals.len() >= PRINCIPALS_MAX {
            return Err(OverQuota {
                what: format!("{PRINCIPALS_MAX} principals are busy at once, and no more may be"),
                retry_after: RETRY_AFTER,
            });
        }
        let bucket = |per_second, unit| {
            NonZeroU32::new(per_second).map(|rate| Bucket::new(rate, unit, &self.clock))
        };
        let usage = Usage {
            statements: bucket(self.options.statements_per_second, 1),
            bytes: bucket(self.options.bytes_per_second, UNIT_BYTES),
            streams: 0,
        };
        Ok(with(
            principals.entry(Arc::clone(principal)).or_insert(usage),
        ))
    }
}

fn units(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(UNIT_BYTES)
}

impl Usage {
    /// Returns true if the principal need not be remembered: its buckets are full, and it has no
    /// stream.
    fn is_idle(&self, now_ns: u64) -> bool {
        let full =
            |bucket: &Option<Bucket>| bucket.as_ref().is_none_or(|bucket| bucket.is_full(now_ns));
        self.streams == 0 && full(&self.statements) && full(&self.bytes)
    }
}

impl Drop for AppendStream {
    fn drop(&mut self) {
        if let Some((quotas, principal)) = &self.0
            && let Some(usage) = quotas.principals.lock().get_mut(principal)
        {
            usage.streams -= 1;
        }
    }
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
