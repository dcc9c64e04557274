//! Ledgers that go on although their own time is ahead of the clock, and whose entries cannot
//! record that.
//!
//! A ledger of rules version 1 has no entries of the ledger itself, so it cannot record that an
//! operator has confirmed the clock. The confirmation is kept outside of it, in a file of the data
//! directory with a line for each ledger:
//!
//! ```text
//! clock-ahead   the ledger's number, its newest time, the time that was confirmed then
//! ```
//!
//! The ledger's new entries bear the confirmed clock's time, which is before that of the wrong
//! ones, so a reader of the log can see it. The rules of version 1 go by the largest time of all,
//! which stands still meanwhile.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

use deed_evidence::Micros;
use parking_lot::Mutex;

use super::{confirmation, keeper::BEHIND_MAX_US};
use crate::store::LedgerNumber;

const FILE: &str = "clock-ahead";

/// Largest size of the file, in bytes: some 20,000 ledgers.
const BYTES_MAX: u64 = 1 << 20;

/// The ledgers whose time is ahead, and their confirmed clocks.
pub struct LedgersAhead {
    data_dir: Option<PathBuf>,
    ledgers: Mutex<BTreeMap<u32, Known>>,
    /// Held while the file is written, so that readers do not wait for the disk.
    writing: Mutex<()>,
}

/// A ledger's newest time, and the clock that was confirmed at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    at_us: i64,
    clock_us: i64,
}

impl LedgersAhead {
    pub(super) fn open(data_dir: Option<&Path>) -> Self {
        let text = data_dir.map_or(Ok(None), |dir| {
            confirmation::text(&dir.join(FILE), BYTES_MAX)
        });
        let text = text.unwrap_or_else(|error| {
            tracing::error!(
                %error,
                "{FILE} in the data directory cannot be read: ledgers whose time is ahead wait until the \
                 clock is confirmed again"
            );
            None
        });
        let ledgers = text.iter().flat_map(|text| text.lines());
        Self {
            data_dir: data_dir.map(Path::to_owned),
            ledgers: Mutex::new(ledgers.filter_map(Known::parse).collect()),
            writing: Mutex::new(()),
        }
    }

    /// Returns the clock that was confirmed for this ledger, if its newest time is still `newest`.
    pub fn confirmed(&self, ledger: LedgerNumber, newest: Micros) -> Option<Micros> {
        let known = self.ledgers.lock().get(&ledger.0).copied()?;
        (known.at_us == newest.get()).then_some(Micros::new(known.clock_us))
    }

    /// Returns true if the ledger goes on by the clock `now`: not if that was set back once more
    /// since the confirmation.
    pub(crate) fn goes_on(&self, ledger: LedgerNumber, newest: Micros, now: Micros) -> bool {
        let confirmed = self.confirmed(ledger, newest);
        confirmed.is_some_and(|clock| now.get() >= clock.get().saturating_sub(BEHIND_MAX_US))
    }

    /// Notes that the clock was confirmed while a ledger's newest time was `newest`. Blocks.
    pub fn note(&self, ledger: LedgerNumber, newest: Micros, clock: Micros) -> io::Result<()> {
        let _writing = self.writing.lock();
        let mut all = self.ledgers.lock().clone();
        // Ledgers whose time the clock has passed need no line any more.
        all.retain(|_, known| known.at_us > clock.get());
        let known = Known {
            at_us: newest.get(),
            clock_us: clock.get(),
        };
        all.insert(ledger.0, known);
        if let Some(dir) = &self.data_dir {
            let mut text = String::new();
            for (number, Known { at_us, clock_us }) in &all {
                writeln!(text, "{number} {at_us} {clock_us}").map_err(io::Error::other)?;
            }
            confirmation::write(dir, FILE, &text)?;
        }
        *self.ledgers.lock() = all;
        Ok(())
    }
}

impl Known {
    fn parse(line: &str) -> Option<(u32, Self)> {
        let mut words = line.split(' ');
        let number = words.next()?.parse().ok()?;
        let at_us = words.next()?.parse().ok()?;
        let clock_us = words.next()?.parse().ok()?;
        Some((number, Self { at_us, clock_us }))
    }
}
