//! Seeded random numbers: a failure can be run again.

use std::time::{SystemTime, UNIX_EPOCH};

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to pick moments and sizes.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begins a sequence with a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Begins a sequence with `DEED_TEST_SEED`, or else with the time, and prints the seed.
    ///
    /// # Panics
    /// If `DEED_TEST_SEED` is not a number.
    #[must_use]
    pub fn seeded() -> Self {
        let seed = match std::env::var("DEED_TEST_SEED") {
            Ok(seed) => seed.parse().expect("DEED_TEST_SEED is a number"),
            Err(_) => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| {
                    u64::from(time.subsec_nanos()) ^ time.as_secs() << 20
                }),
        };
        eprintln!("random numbers: DEED_TEST_SEED={seed}");
        Self(seed)
    }

    /// Begins another sequence, for another thread.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// Returns any number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from `low` to `high`, both included.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// Returns true once in `times` calls on average.
    pub const fn once_in(&mut self, times: u64) -> bool {
        self.between(1, times) == 1
    }
}
