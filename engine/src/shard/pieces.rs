//! Pieces of work: how long each keeps its thread, and when a turn has taken enough of a request.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, Timespec, clock_gettime};

use super::{schedule::SLOW_PIECE, turn::TURN_BYTES};

/// Pieces are measured together until they have taken this long, or a few milliseconds if they are
/// statements of a request, because asking for a thread's processor time is a system call.
const LAP: Duration = Duration::from_millis(1);

/// Measures the work of a turn, piece by piece. A ledger is charged with the processor time of its
/// pieces, and not with the time in which the disk took earlier turns or in which the machine was
/// busy with something else. A piece that took very long in all, for instance because it read much
/// from the disk, counts as long, but not as slow.
pub(super) struct Stopwatch {
    lap_began: Cell<Instant>,
    processor: Cell<Duration>,
    /// Time spent on waiting for earlier turns to reach the disk: in all, and until the lap began.
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

    /// Runs `wait`, which waits for earlier turns to reach the disk, and counts the time as
    /// waiting.
    pub(super) fn wait<T>(&self, wait: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let waited_for = wait();
        self.waited.set(self.waited.get() + began.elapsed());
        waited_for
    }

    /// Returns the time spent in [`Stopwatch::wait`] so far.
    pub(super) fn waited(&self) -> Duration {
        self.waited.get()
    }

    /// Ends a piece and returns its length. Short pieces count as zero until they are long enough
    /// together.
    pub(super) fn lap(&self) -> Duration {
        self.lap_at(Instant::now())
    }

    /// Ends a piece as [`Stopwatch::lap`] does, at the time `now`.
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

/// Returns the length of a piece that took `processor` of processor time, and `in_all` of elapsed
/// time without the waits for earlier turns.
fn length(processor: Duration, in_all: Duration) -> Duration {
    if in_all > SLOW_PIECE {
        processor.max(SLOW_PIECE)
    } else {
        processor
    }
}

/// Returns the processor time that this thread has had.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // The seconds are never negative, and the nanoseconds always fit.
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// Watches the placement of a request's statements, piece by piece.
pub(super) struct Pieces<'t> {
    turn_until: Instant,
    /// Entry bytes of the whole turn so far.
    pub(super) bytes: usize,
    watch: &'t Stopwatch,
    pub(super) longest: Duration,
    /// The coarse time of the last check; `None` if the turn's time is over already, so that it
    /// ends after one piece.
    tick: Option<Timespec>,
}

impl<'t> Pieces<'t> {
    /// Begins in a turn that has `bytes` so far.
    pub(super) fn new(watch: &'t Stopwatch, turn_until: Instant, bytes: usize) -> Self {
        Self {
            turn_until,
            bytes,
            watch,
            longest: Duration::ZERO,
            tick: (Instant::now() < turn_until).then(tick),
        }
    }

    /// Notes the end of a piece whose entries have `bytes`. Returns true if the turn takes no more.
    pub(super) fn is_enough(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
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

/// Returns the time to within a few milliseconds. A finer clock costs more, which very many short
/// pieces would feel.
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
        // On a busy machine, the piece ran for 2 of 200 ms.
        assert_eq!(length(ms(2), ms(200)), ms(2));
        // A piece that reads for a second is no slower than a long batch.
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
