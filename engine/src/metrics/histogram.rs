//! A histogram that takes its writer two additions.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of durations, in microseconds: 50 us to 10 s.
pub(super) const LATENCY_US: &[u64] = &[
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// Upper bounds of the number of leaves in a turn.
pub(super) const LEAVES: &[u64] = &[1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144];

/// Counts of values by size.
#[derive(Debug)]
pub(super) struct Histogram {
    /// Upper bounds, each included.
    bounds: &'static [u64],
    /// One count for each bound, and one for larger values.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    pub(super) fn latency() -> Self {
        Self::new(LATENCY_US)
    }

    pub(super) fn record(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    pub(super) fn record_time(&self, took: Duration) {
        self.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX >> 1));
    }

    /// Returns the sum, the count and the buckets; bounds and sum are divided by `scale`.
    ///
    /// A value that is recorded during the call may be in the sum and not yet in the count, or the
    /// other way round; the count is that of the buckets, as the format demands.
    #[expect(
        clippy::cast_precision_loss,
        reason = "figures for people: 53 bits are more than anybody reads"
    )]
    pub(super) fn read(&self, scale: f64) -> (f64, u64, Vec<(f64, u64)>) {
        let bounds = self.bounds.iter().map(|bound| *bound as f64 / scale);
        let buckets: Vec<(f64, u64)> = bounds
            .chain([f64::INFINITY])
            .zip(self.counts.iter().map(|count| count.load(Relaxed)))
            .collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        (self.sum.load(Relaxed) as f64 / scale, count, buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_bucket_that_includes_it() {
        let histogram = Histogram::latency();
        for us in [0, 50, 51, 10_000_000, 10_000_001] {
            histogram.record_time(Duration::from_micros(us));
        }
        let (sum, count, buckets) = histogram.read(1e6);
        assert_eq!(count, 5);
        assert!((sum - 20.000_102).abs() < 1e-9, "{sum}");
        assert_eq!(buckets.len(), LATENCY_US.len() + 1);
        assert_eq!(buckets[0], (0.000_05, 2));
        assert_eq!(buckets[1], (0.000_1, 1));
        assert_eq!(buckets[16], (10.0, 1));
        assert_eq!(buckets[17], (f64::INFINITY, 1));
    }

    #[test]
    fn bounds_ascend() {
        for bounds in [LATENCY_US, LEAVES] {
            assert!(bounds.is_sorted_by(|a, b| a < b));
        }
    }
}
