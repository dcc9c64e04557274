//! Pieces of work: how long one keeps its thread, and when a turn has enough of a request.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, Timespec, clock_gettime};

use super::{schedule::SLOW_PIECE, turn::TURN_BYTES};
use crate::admission::AdmittedBatch;

/// Pieces are measured together until they took so long, or a few milliseconds where they are
/// statements of a request: asking for a thread's time of the processor is a system call.
const LAP: Duration = Duration::from_millis(1);

/// Measures the work of a turn, piece by piece. What a ledger is to answer for is the time of the
/// processor that its piece took, and not that the disk had to take the turn before first, or that
/// the machine was busy with something else. Only a piece that took very long in all, say because it
/// read what nobody had in memory, is long whatever it waited for; but it is not slow for that.
pub(super) struct Stopwatch {
    lap_began: Cell<Instant>,
    processor: Cell<Duration>,
    /// Time that went by while turns before were on their way to the disk: in all, and until the lap
    /// began.
    waited: Cell<Duration>,
    waited_before: Cell<Duration>,
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self {
            lap_began: Cell::new(Instant::now()),
            processor: Cell::new(processor_time()),
            waited: Cell::default(),
            waited_before: Cell::default(),
        }
    }

    /// Waits for turns before to be on disk.
    pub(super) fn wait<T>(&self, wait: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let waited_for = wait();
        self.waited.set(self.waited.get() + began.elapsed());
        waited_for
    }

    /// Time that went by in [`Stopwatch::wait`] so far.
    pub(super) fn waited(&self) -> Duration {
        self.waited.get()
    }

    /// Ends a piece: how long it counts. Short ones count nothing until they are long together.
    pub(super) fn lap(&self) -> Duration {
        self.lap_at(Instant::now())
    }

    /// The same where the time is known.
    fn lap_at(&self, now: Instant) -> Duration {
        let in_all = now - self.lap_began.get();
        if in_all < LAP {
            return Duration::ZERO;
        }
        let processor = processor_time();
        let waited = self.waited.get();
        let length = length(
            processor.saturating_sub(self.processor.get()),
            in_all.saturating_sub(waited - self.waited_before.get()),
        );
        self.lap_began.set(now);
        self.processor.set(processor);
        self.waited_before.set(waited);
        length
    }
}

/// The length of a piece that had so much of the processor and took so long in all.
fn length(processor: Duration, in_all: Duration) -> Duration {
    if in_all > SLOW_PIECE {
        processor.max(SLOW_PIECE)
    } else {
        processor
    }
}

/// Time of the processor that this thread has had.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // Neither is ever negative, nor are there so many nanoseconds.
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// Watches what is placed of a request, piece by piece.
pub(super) struct Pieces<'t> {
    turn_until: Instant,
    /// Of the whole turn.
    pub(super) bytes: usize,
    /// Statements that were placed when the last piece was.
    placed: usize,
    watch: &'t Stopwatch,
    pub(super) longest: Duration,
    /// When the clock was looked at; `None` if the turn is over, so that one piece is placed.
    tick: Option<Timespec>,
}

impl<'t> Pieces<'t> {
    /// Watches what is placed behind `placed` statements, in a turn that has `bytes` so far.
    pub(super) fn new(
        watch: &'t Stopwatch,
        turn_until: Instant,
        bytes: usize,
        placed: usize,
    ) -> Self {
        Self {
            turn_until,
            bytes,
            placed,
            watch,
            longest: Duration::ZERO,
            tick: (Instant::now() < turn_until).then(tick),
        }
    }

    /// A piece was placed, and with it so many statements. Returns true if the turn takes no more.
    pub(super) fn is_enough(&mut self, batch: &AdmittedBatch, placed: usize) -> bool {
        let new = &batch.statements()[self.placed..placed];
        self.placed = placed;
        self.bytes += new.iter().map(|one| batch.entry(one).len()).sum::<usize>();
        let tick = Some(tick());
        if tick == self.tick && self.bytes < TURN_BYTES {
            return false;
        }
        self.tick = tick;
        let now = Instant::now();
        self.longest = self.longest.max(self.watch.lap_at(now));
        self.bytes >= TURN_BYTES || now >= self.turn_until
    }
}

/// The time to a few milliseconds: what it costs to ask for more would be felt by very many short pieces.
fn tick() -> Timespec {
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::MonotonicCoarse;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::Monotonic;
    clock_gettime(CLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn what_a_piece_waited_for_does_not_make_it_slow() {
        // A busy machine: of 200 ms it ran for 2.
        assert_eq!(length(ms(2), ms(200)), ms(2));
        // It read for a second, and is no slower than a long batch.
        assert_eq!(length(ms(2), ms(1000)), SLOW_PIECE);
        assert_eq!(length(ms(4000), ms(4001)), ms(4000));
    }

    #[test]
    fn waiting_for_the_disk_is_nobodys_work() {
        let watch = Stopwatch::start();
        watch.wait(|| std::thread::sleep(SLOW_PIECE + LAP));
        assert!(watch.waited() > SLOW_PIECE);
        assert!(watch.lap() < SLOW_PIECE);
    }

    #[test]
    fn work_is_measured_whatever_comes_before_it() {
        let watch = Stopwatch::start();
        let began = processor_time();
        while processor_time() - began < ms(30) {}
        assert!(watch.lap() >= ms(30));
        assert_eq!(watch.lap(), Duration::ZERO);
    }
}
