//! A bound on log lines: a caller that floods the server must not flood its log.
//!
//! Lines of one *kind*, that is from one place in the code, are written up to a bound in each
//! interval. Those beyond are counted, and reported in one line at the interval's end. The bound
//! holds for every line, whichever crate writes it: the lines that a stranger can make a library
//! write are not known.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tracing::{
    Event, Level, Metadata, callsite::Identifier, level_filters::LevelFilter, subscriber::Interest,
};
use tracing_subscriber::layer::{Context, Filter};

/// Length of an interval.
const INTERVAL: Duration = Duration::from_secs(10);

/// Most lines of one kind in an interval. Debug lines have a higher bound, because an operator who
/// wants them wants many.
const LINES_MAX: u64 = 50;
const DEBUG_LINES_MAX: u64 = 20_000;

/// Most kinds that are named when lines were left out; the others are counted.
const NAMED_MAX: usize = 8;

/// Number of lines left out since the process began.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// Returns the number of lines left out, for `/metrics`.
pub(crate) fn left_out() -> u64 {
    LEFT_OUT.load(Relaxed)
}

/// Counts of the lines of this interval, by kind.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    kinds: Mutex<HashMap<Identifier, Kind>>,
}

#[derive(Debug)]
struct Kind {
    metadata: &'static Metadata<'static>,
    lines: u64,
}

impl Kind {
    fn max(metadata: &Metadata<'_>) -> u64 {
        if *metadata.level() <= Level::INFO {
            LINES_MAX
        } else {
            DEBUG_LINES_MAX
        }
    }

    fn left_out(&self) -> u64 {
        self.lines.saturating_sub(Self::max(self.metadata))
    }
}

impl Limiter {
    /// Counts a line; returns true if it is to be written.
    fn admits(&self, metadata: &'static Metadata<'static>) -> bool {
        let mut kinds = self.kinds.lock();
        let kind = kinds
            .entry(metadata.callsite())
            .or_insert(Kind { metadata, lines: 0 });
        kind.lines += 1;
        let admitted = kind.left_out() == 0;
        if !admitted {
            LEFT_OUT.fetch_add(1, Relaxed);
        }
        admitted
    }

    /// Ends the interval. Returns the number and kinds of the lines left out; `None` if there were
    /// none.
    fn end_interval(&self) -> Option<(u64, String)> {
        let kinds = std::mem::take(&mut *self.kinds.lock());
        let mut kinds: Vec<_> = kinds
            .into_values()
            .map(|kind| (kind.left_out(), kind.metadata))
            .filter(|(left_out, _)| *left_out > 0)
            .collect();
        kinds.sort_by_key(|(left_out, metadata)| (u64::MAX - left_out, metadata.target()));
        let sum: u64 = kinds.iter().map(|(left_out, _)| left_out).sum();
        let mut named = String::new();
        for (left_out, metadata) in kinds.iter().take(NAMED_MAX) {
            let (target, line) = (metadata.target(), metadata.line().unwrap_or_default());
            let _ = write!(named, "{} {target}:{line} x{left_out}", metadata.level());
            named.push_str(", ");
        }
        if kinds.len() > NAMED_MAX {
            let _ = write!(named, "{} other kinds", kinds.len() - NAMED_MAX);
        }
        let named = named.trim_end_matches(", ").to_owned();
        (sum > 0).then_some((sum, named))
    }

    /// Logs at the end of each interval how many lines were left out.
    pub(super) async fn keep_telling(self: Arc<Self>) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Some((left_out, kinds)) = self.end_interval() {
                tracing::warn!(left_out, kinds, "too many log lines; these were left out");
            }
        }
    }
}

/// The limiter as a filter of a layer that writes lines.
pub(super) struct Limited(pub(super) Arc<Limiter>);

impl<S> Filter<S> for Limited {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::always()
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.0.admits(event.metadata())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }
}

#[cfg(test)]
mod tests {
    use deed_testkit::statements::observe;
    use tracing_subscriber::{
        EnvFilter, Layer as _, filter::FilterExt as _, layer::SubscriberExt as _,
    };

    use super::*;
    use crate::telemetry::tests::Lines;

    fn flood() {
        tracing::warn!("flood");
    }

    fn within<T>(limiter: &Arc<Limiter>, lines: &Lines, act: impl FnOnce() -> T) -> T {
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(lines.clone())
            .with_filter(EnvFilter::new("info").and(Limited(Arc::clone(limiter))));
        let subscriber = tracing_subscriber::Registry::default().with(layer);
        let _observing = observe(subscriber);
        act()
    }

    #[test]
    fn lines_of_one_kind_are_bounded_and_the_rest_is_counted() {
        let (limiter, lines) = (Arc::new(Limiter::default()), Lines::default());
        within(&limiter, &lines, || {
            for _ in 0..14_000 {
                flood();
                tracing::debug!("not wanted");
            }
            tracing::warn!("rare");
        });
        assert_eq!(lines.with("flood"), 50);
        assert_eq!(lines.with("rare"), 1);
        assert_eq!(lines.with("not wanted"), 0);
        let (left_out, kinds) = limiter.end_interval().unwrap();
        assert_eq!(left_out, 13_950);
        assert!(kinds.starts_with("WARN deed_server::telemetry::limiter::tests:"));
        assert!(kinds.ends_with(" x13950"), "{kinds}");
        assert!(left_out <= super::left_out());
        // The next interval begins with new counts.
        assert_eq!(limiter.end_interval(), None);
        within(&limiter, &lines, flood);
        assert_eq!(lines.with("flood"), 51);
        assert_eq!(limiter.end_interval(), None);
    }
}
