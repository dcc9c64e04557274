//! The time by which entries are recorded, and the faults because of which nothing is recorded.
//!
//! If a clock that leaps ahead were followed, it would fire every deadline, and after its return
//! every append would be refused until real time has caught up: recorded times never go back. If a
//! clock that is set back were followed, it would date back what is recorded in ledgers that were
//! idle. So in both cases nothing is recorded and no time passes in ledgers. While the server runs,
//! the machine's clock is compared with the time since boot, which cannot be set; also across
//! restarts, as long as the machine was not booted again. Where that is impossible, at the first
//! start after a boot, it is compared with the newest entries and the time that was believed last.
//! A fault is over when the clock comes back, or an operator confirms the time
//! (`clock::confirmation`).

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use deed_evidence::Micros;
use parking_lot::Mutex;
use thiserror::Error;

use super::{Clock, ahead::LedgersAhead, confirmation};
use crate::options::ClockOptions;

/// Largest time by which the machine's clock may lie behind recorded times, in microseconds.
pub const BEHIND_MAX_US: i64 = 5_000_000;

/// Largest difference between a confirmed time and the machine's clock when the server reads it, in
/// microseconds.
const CONFIRMED_WITHIN_US: i64 = 60_000_000;

/// A clock that is corrected slowly moves by at most one part in this many (adjtime(3) takes half
/// of that).
const SLEW: i64 = 1_000;

/// Shortest time between two such corrections, in microseconds.
const SLEW_EVERY_US: i64 = 1_000_000;

/// The reason for which nothing is recorded now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ClockFault {
    #[error(
        "the server's clock has leapt {} s ahead of the time that has passed; nothing is recorded until it \
         comes back or an operator confirms it (deed-server clock confirm); try again later",
        .ahead_us / 1_000_000
    )]
    Leapt { ahead_us: i64 },
    #[error(
        "the server's clock was set back, and is {} s behind the time that has passed; nothing is recorded \
         until it comes back or an operator confirms it (deed-server clock confirm); try again later",
        .behind_us / 1_000_000
    )]
    SetBack { behind_us: i64 },
    #[error(
        "the server's clock is {} s ahead of everything that was recorded here; nothing is recorded until \
         it comes back or an operator confirms it (deed-server clock confirm); try again later",
        .ahead_us / 1_000_000
    )]
    AheadAtStart { ahead_us: i64 },
    #[error(
        "the server's clock is {} s behind everything that was recorded here last; nothing is recorded until \
         it has come to that or an operator confirms it (deed-server clock confirm); try again later",
        .behind_us / 1_000_000
    )]
    BehindAtStart { behind_us: i64 },
}

impl ClockFault {
    /// Returns true if the clock is behind what it should say, and not ahead.
    pub(crate) fn is_behind(&self) -> bool {
        matches!(self, Self::SetBack { .. } | Self::BehindAtStart { .. })
    }

    fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// The machine's clock, checked each time it is read.
pub struct Timekeeper {
    clock: Arc<dyn Clock>,
    options: ClockOptions,
    /// Directory with the confirmations; `None` where there are none.
    data_dir: Option<PathBuf>,
    /// Ledgers that go on although the clock is behind them.
    pub ahead: LedgersAhead,
    kept: Mutex<Kept>,
    refused_ahead: AtomicU64,
    refused_behind: AtomicU64,
}

struct Kept {
    /// Newest times of the ledgers at the start, the confirmed time, and the time that was believed
    /// last.
    recorded: Vec<Micros>,
    /// The time that was believed last, and the time since boot at which that was; `None` before
    /// the first check.
    base: Option<Base>,
    /// The fault that was logged last, if it still lasts.
    fault: Option<ClockFault>,
    /// The time that an operator has confirmed last.
    confirmed: Option<Micros>,
    /// The confirmation that was read last, whether it was accepted or not.
    read: Option<Micros>,
    /// The reason for which the file of confirmations cannot be read, if it cannot.
    unreadable: Option<String>,
    /// The clock as it was saved last, if that was since this boot.
    saved: Option<confirmation::Kept>,
}

/// A point in time: the clock said `wall` when `boot` had passed since the machine was booted.
#[derive(Debug, Clone, Copy)]
struct Base {
    wall: i64,
    boot: i64,
}

impl Base {
    /// Returns the time that the clock should show when `boot` has passed since the machine was
    /// booted.
    fn expected(&self, boot: Option<Micros>) -> Micros {
        let passed = boot.map_or(0, |boot| boot.get().saturating_sub(self.boot));
        Micros::new(self.wall.saturating_add(passed))
    }
}

impl Timekeeper {
    /// Reads what the data directory has of the clock; `recorded` are the newest times in the
    /// ledgers, as far as they are known.
    pub fn open(
        clock: Arc<dyn Clock>,
        options: ClockOptions,
        data_dir: Option<PathBuf>,
        mut recorded: Vec<Micros>,
    ) -> Self {
        let boot = clock.since_boot();
        let now = clock.now();
        // A file that cannot be read is reported when the server runs.
        let confirmed = data_dir.as_deref().map(confirmation::read);
        let confirmed = confirmed.and_then(Result::ok).flatten();
        recorded.extend(confirmed);
        // The clock is behind the confirmed time, so that confirmation is not used.
        let latest = now.get().saturating_add(BEHIND_MAX_US);
        let confirmed = confirmed.filter(|time| time.get() <= latest);
        // A new confirmation is taken when the server runs, which logs it.
        let is_new = confirmed.is_some_and(|time| is_within(now, time, CONFIRMED_WITHIN_US));
        let boot_id = clock.boot_id();
        if boot.is_none() || boot_id.is_none() {
            tracing::warn!(
                start_ahead_max_ms = options.start_ahead_max_ms,
                "the machine does not report its boots (CLOCK_BOOTTIME, /proc/sys/kernel/random/boot_id): a \
                 clock that has leapt by less than clock.start_ahead_max_ms is believed after a restart \
                 of the server"
            );
        }
        let saved = data_dir.as_deref().and_then(|dir| {
            confirmation::read_base(dir).unwrap_or_else(|error| {
                tracing::warn!(
                    %error,
                    "clock-base in the data directory cannot be read: this start is like one after a boot"
                );
                None
            })
        });
        recorded.extend(saved.as_ref().map(|saved| saved.believed));
        let saved = saved.filter(|saved| saved.boot_id.is_some() && saved.boot_id == boot_id);
        let base = boot.zip(saved.as_ref()).map(|(boot, saved)| Base {
            wall: saved.offset.saturating_add(boot.get()),
            boot: boot.get(),
        });
        Self {
            clock,
            options,
            ahead: LedgersAhead::open(data_dir.as_deref()),
            data_dir,
            kept: Mutex::new(Kept {
                recorded,
                base,
                fault: None,
                confirmed,
                read: confirmed.filter(|_| !is_new),
                unreadable: None,
                saved,
            }),
            refused_ahead: AtomicU64::new(0),
            refused_behind: AtomicU64::new(0),
        }
    }

    /// Returns the present time, by which entries are recorded.
    ///
    /// # Errors
    /// [`ClockFault`] if the clock is not believed. Each change of that is logged once.
    pub fn read(&self) -> Result<Micros, ClockFault> {
        let mut kept = self.kept.lock();
        let now = self.clock.now();
        let judged = self.judge(&mut kept, now.get());
        let before = kept.fault;
        kept.fault = judged.err();
        match (before, kept.fault) {
            (None, None) => {}
            (Some(_), None) => tracing::info!("the server's clock is believed again"),
            (Some(before), Some(fault)) if before.is_like(&fault) => {}
            (_, Some(fault)) => {
                tracing::error!(clock_us = now.get(), "nothing is recorded: {fault}");
            }
        }
        judged.map(|()| now)
    }

    fn judge(&self, kept: &mut Kept, wall: i64) -> Result<(), ClockFault> {
        let boot = self.clock.since_boot();
        let Some(base) = kept.base else {
            return self.begin(kept, wall, boot);
        };
        let Some(boot) = boot else { return Ok(()) };
        let passed = boot.get().saturating_sub(base.boot);
        let expected = base.expected(Some(boot)).get();
        let ahead = wall.saturating_sub(expected);
        let jump_max = us(self.options.jump_max_ms);
        if ahead > jump_max {
            return Err(ClockFault::Leapt { ahead_us: ahead });
        }
        let behind = ahead.saturating_neg();
        if behind > jump_max {
            return Err(ClockFault::SetBack { behind_us: behind });
        }
        if passed >= SLEW_EVERY_US {
            let slew = passed / SLEW;
            kept.base = Some(Base {
                wall: expected.saturating_add(ahead.clamp(-slew, slew)),
                boot: boot.get(),
            });
        }
        Ok(())
    }

    /// Checks the clock for the first time: only recorded times are there to compare it with.
    fn begin(&self, kept: &mut Kept, wall: i64, boot: Option<Micros>) -> Result<(), ClockFault> {
        let latest = wall.saturating_add(BEHIND_MAX_US);
        let recorded = kept.recorded.iter().map(|time| time.get());
        let newest = recorded.clone().filter(|time| *time <= latest).max();
        match (newest, recorded.min()) {
            (None, Some(earliest)) => {
                let behind_us = earliest.saturating_sub(wall);
                return Err(ClockFault::BehindAtStart { behind_us });
            }
            (Some(newest), _) => {
                let ahead_us = wall.saturating_sub(newest);
                if ahead_us > us(self.options.start_ahead_max_ms) {
                    return Err(ClockFault::AheadAtStart { ahead_us });
                }
            }
            (None, None) => {}
        }
        let boot = boot.map_or(0, Micros::get);
        kept.base = Some(Base { wall, boot });
        Ok(())
    }

    /// Returns the time that an operator has confirmed last. A ledger whose entries are all older
    /// records that before anything else.
    pub fn confirmed(&self) -> Option<Micros> {
        self.kept.lock().confirmed
    }

    /// Reads an operator's confirmation and, if it is new and agrees with the clock, believes the
    /// clock from now on. Returns the confirmed time then.
    pub fn take_confirmation(&self) -> Option<Micros> {
        let read = confirmation::read(self.data_dir.as_deref()?);
        let mut kept = self.kept.lock();
        let time = match read {
            Ok(time) => {
                kept.unreadable = None;
                time?
            }
            Err(error) => {
                let why = error.to_string();
                if kept.unreadable.as_ref() != Some(&why) {
                    tracing::error!(
                        %error,
                        "clock-confirmed in the data directory cannot be read, so it confirms nothing; make it \
                         readable for the server, or remove it and confirm again"
                    );
                }
                kept.unreadable = Some(why);
                return None;
            }
        };
        if kept.read == Some(time) {
            return None;
        }
        kept.read = Some(time);
        let now = self.clock.now();
        if !is_within(now, time, CONFIRMED_WITHIN_US) {
            tracing::error!(
                clock_us = now.get(),
                confirmed_us = time.get(),
                "the confirmed time is not the clock's; nothing was changed, confirm it again"
            );
            return None;
        }
        tracing::warn!(
            clock_us = now.get(),
            "an operator has confirmed the server's clock; each ledger says so in an entry"
        );
        let boot = self.clock.since_boot().map_or(0, Micros::get);
        let wall = now.get();
        kept.base = Some(Base { wall, boot });
        kept.confirmed = Some(time);
        Some(time)
    }

    /// Returns the reason for which an operator's confirmation cannot be read, if it cannot.
    pub fn unreadable(&self) -> Option<String> {
        self.kept.lock().unreadable.clone()
    }

    /// Saves the believed time for the next start, if it has changed by enough or was saved long
    /// enough ago.
    pub fn save(&self) {
        let mut kept = self.kept.lock();
        let (Some(base), Some(dir)) = (kept.base, self.data_dir.as_deref()) else {
            return;
        };
        let offset = base.wall.saturating_sub(base.boot);
        let believed = base.expected(self.clock.since_boot());
        let is_new = kept.saved.as_ref().is_none_or(|saved| {
            saved.offset.abs_diff(offset) > SAVED_WITHIN_US
                || !is_within(saved.believed, believed, SAVED_EVERY_US)
        });
        if kept.fault.is_some() || !is_new {
            return;
        }
        let saved = confirmation::Kept {
            boot_id: self.clock.boot_id(),
            offset,
            believed,
        };
        kept.saved = Some(saved.clone());
        drop(kept);
        if let Err(error) = confirmation::write_base(dir, &saved) {
            tracing::warn!(%error, "the clock could not be saved for the next start");
        }
    }

    /// Counts a request that was refused for the clock's sake.
    pub fn refused(&self, behind: bool) {
        let count = if behind {
            &self.refused_behind
        } else {
            &self.refused_ahead
        };
        count.fetch_add(1, Relaxed);
    }

    /// Returns the number of refused requests, by reason.
    pub fn refusals(&self) -> [(&'static str, u64); 2] {
        [
            ("ahead", self.refused_ahead.load(Relaxed)),
            ("behind", self.refused_behind.load(Relaxed)),
        ]
    }
}

/// The clock is saved again when its offset has changed by more than this, in microseconds.
const SAVED_WITHIN_US: u64 = 1_000_000;

/// The clock is saved again after this time, in microseconds.
const SAVED_EVERY_US: i64 = 600_000_000;

/// The best guess of the time for uses that record nothing: a clock that has leapt is not followed.
impl Clock for Timekeeper {
    fn now(&self) -> Micros {
        let mut kept = self.kept.lock();
        let now = self.clock.now();
        if self.judge(&mut kept, now.get()).is_ok() {
            return now;
        }
        let boot = self.clock.since_boot();
        match (kept.base, boot) {
            (Some(base), Some(_)) => base.expected(boot),
            _ => kept.recorded.iter().copied().min().unwrap_or(now).min(now),
        }
    }
}

fn is_within(one: Micros, other: Micros, us: i64) -> bool {
    one.get().abs_diff(other.get()) <= us.unsigned_abs()
}

fn us(ms: u64) -> i64 {
    i64::try_from(ms.saturating_mul(1_000)).unwrap_or(i64::MAX)
}
