//! The counters as OpenMetrics text.

use std::{
    fmt::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use deed_evidence::assess::finding::{self, KINDS};
use deed_proto::v1::rejection::Reason;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, text},
    metrics::{MetricType, exemplar::Exemplar},
    registry::Registry,
};

use super::{
    CODES, Histogram, Metrics, Stage, Synced,
    assessed::{INTENT_STATES, OWN_BODIES},
};

/// Durations are recorded in microseconds and printed in seconds.
const US_PER_S: f64 = 1e6;

/// Values that are read when `/metrics` is requested, instead of being counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Bytes of statements that each shard holds.
    pub queue_bytes: Vec<u64>,
    /// Ledgers in memory.
    pub ledgers_loaded: u64,
    pub slow_ledgers: u64,
    pub oldest_turn_ms: u64,
    /// Evidence policies compiled since the start.
    pub policies_compiled: u64,
    /// Ledgers in memory whose evidence policy this build cannot read.
    pub policies_unreadable: u64,
    /// Leaves of the ledgers in memory.
    pub leaves: u64,
    /// Deadlines that are set in these ledgers.
    pub due: u64,
    /// Leaves of these ledgers that searches have to scan, because no index covers them.
    pub unindexed_leaves: u64,
    pub connections: Connections,
    /// Number of times that a principal exceeded a quota, by quota.
    pub over_quota: Vec<(&'static str, u64)>,
    /// True if the clock is believed.
    pub on_time: bool,
    /// Requests that were refused because the clock is not believed, by reason.
    pub clock_refusals: Vec<(&'static str, u64)>,
    pub contents: Contents,
    /// Bytes of answers that are made and not taken, and the number of times that there was no room
    /// for one.
    pub answer_bytes: u64,
    pub answers_refused: u64,
    /// Places that are taken, and the number of times that there was none, by kind.
    pub places_taken: Vec<(&'static str, u64)>,
    pub places_refused: Vec<(&'static str, u64)>,
    /// Free and total bytes of the disk; `None` where the system does not report them.
    pub disk_bytes: Option<(u64, u64)>,
    /// Number of times that something was refused for lack of space, by kind.
    pub disk_refused: Vec<(&'static str, u64)>,
    /// Resident memory of the process in bytes; `None` where the system does not report it.
    pub resident_bytes: Option<u64>,
    /// File descriptors that the process has and may have; `None` where the system does not report
    /// them.
    pub descriptors_open: Option<u64>,
    pub descriptors_max: Option<u64>,
    /// Log lines that were not written because there were too many like them.
    pub log_lines_left_out: u64,
    /// Bytes of RocksDB's memory.
    pub memtable_bytes: u64,
    pub block_cache_bytes: u64,
    pub table_reader_bytes: u64,
    /// Bytes of RocksDB's sorted files.
    pub table_file_bytes: u64,
}

/// Numbers of the listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connections {
    pub taken: u64,
    pub open: u64,
    /// Connections that were closed before they were served, or because they were too slow or
    /// silent, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Most connections that may be open at once.
    pub max: u64,
}

/// Numbers of the content store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    pub stored: u64,
    pub stored_bytes: u64,
    pub erased: u64,
    pub(crate) erased_bytes: u64,
}

impl Metrics {
    /// Returns all metrics as OpenMetrics text, version 1.0.0.
    pub fn to_text(self: &Arc<Self>, observed: Observed) -> String {
        let mut registry = Registry::default();
        let metrics = Arc::clone(self);
        registry.register_collector(Box::new(Snapshot { metrics, observed }));
        let mut text = String::new();
        text::encode(&mut text, &registry).expect("a string takes everything");
        text
    }
}

#[derive(Debug)]
struct Snapshot {
    metrics: Arc<Metrics>,
    observed: Observed,
}

type Label = (&'static str, String);

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), Error> {
        let mut out = Out(encoder);
        self.requests(&mut out)?;
        self.statements(&mut out)?;
        self.assessment(&mut out)?;
        self.searches(&mut out)?;
        self.callers(&mut out)?;
        self.memory(&mut out)
    }
}

impl Snapshot {
    fn requests(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let metrics = &self.metrics;
        let name = |rpc| metrics.rpcs.name(rpc).to_owned();
        let requests = metrics.rpcs.all().flat_map(|rpc| {
            let counts = metrics.requests[rpc.0].iter().enumerate();
            // Rows of zero are left out here: they would be some hundred lines.
            let counts = counts.filter(|(_, count)| count.load(Relaxed) > 0);
            counts.map(move |(code, count)| {
                let labels = [("rpc", name(rpc)), ("status", status(code).to_owned())];
                (labels, count.load(Relaxed))
            })
        });
        out.counters("deed_requests", "Requests that have ended", requests)?;
        let times = metrics.rpcs.all().filter_map(|rpc| {
            let times = &metrics.request_times[rpc.0];
            let happened = metrics.rpcs.is_unary(rpc) && times.read(US_PER_S).1 > 0;
            happened.then(|| ([("rpc", name(rpc))], times))
        });
        out.histograms(
            "deed_request_seconds",
            "Time from a request to the end of its answer, streams not counted",
            times,
            US_PER_S,
        )?;
        out.histograms(
            "deed_stage_seconds",
            "Time in each stage of an append",
            Stage::ALL
                .map(|(at, name)| ([("stage", name.to_owned())], &metrics.stages[at as usize])),
            US_PER_S,
        )?;
        out.histograms(
            "deed_sync_seconds",
            "Time of writes that are synced to the disk",
            Synced::ALL
                .map(|(at, name)| ([("file", name.to_owned())], &metrics.syncs[at as usize])),
            US_PER_S,
        )
    }

    fn statements(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let metrics = &self.metrics;
        let results = [
            ("accepted", &metrics.accepted),
            ("duplicate", &metrics.duplicates),
        ];
        out.counters(
            "deed_statements",
            "Statements that were answered with a receipt",
            results.map(|(result, count)| labelled("result", result, count)),
        )?;
        let rejected = metrics
            .rejected
            .iter()
            .enumerate()
            .filter_map(|(number, count)| {
                let reason = match i32::try_from(number).ok().map(Reason::try_from) {
                    Some(Ok(reason)) => reason.as_str_name(),
                    // Known reasons are printed even if they are zero, so that alerts can be
                    // written in advance.
                    _ if count.load(Relaxed) > 0 => "OTHER",
                    _ => return None,
                };
                Some(labelled("reason", reason, count))
            });
        out.counters("deed_rejections", "Statements that were rejected", rejected)?;
        out.counter("deed_entries", "Entries committed", &metrics.entries)?;
        out.counter(
            "deed_entry_bytes",
            "Bytes of entries committed",
            &metrics.entry_bytes,
        )?;
        out.histograms(
            "deed_turn_leaves",
            "Leaves of each committed turn",
            [([], &metrics.turn_leaves)] as [([Label; 0], _); 1],
            1.0,
        )?;
        let queues = self.observed.queue_bytes.iter().enumerate();
        out.gauges(
            "deed_queue_bytes",
            "Bytes of statements that a shard holds until they are answered",
            queues.map(|(shard, bytes)| ([("shard", shard.to_string())], *bytes)),
        )?;
        out.gauge(
            "deed_slow_ledgers",
            "Slow ledgers, which get turns of their own",
            self.observed.slow_ledgers,
        )?;
        out.gauge(
            "deed_oldest_turn_ms",
            "Milliseconds for which the oldest turn has been in work",
            self.observed.oldest_turn_ms,
        )?;
        out.gauge(
            "deed_sessions",
            "Sessions in memory",
            open(&metrics.sessions),
        )?;
        out.gauge(
            "deed_ledgers_loaded",
            "Ledgers in memory",
            self.observed.ledgers_loaded,
        )?;
        out.gauge(
            "deed_policies_unreadable",
            "Ledgers in memory that take no Intents because this build cannot read their policy",
            self.observed.policies_unreadable,
        )?;
        out.count(
            "deed_policies_compiled",
            "Evidence policies that were compiled",
            self.observed.policies_compiled,
        )?;
        out.gauge(
            "deed_leaves",
            "Leaves of all ledgers in memory together",
            self.observed.leaves,
        )
    }

    fn assessment(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let metrics = &self.metrics;
        // All kinds are printed even if they are zero, so that alerts can be written in advance.
        let findings = KINDS.into_iter().zip(&metrics.findings);
        out.counters(
            "deed_findings",
            "Findings that arose, by kind",
            findings.map(|(kind, count)| labelled("kind", &finding::name(kind), count)),
        )?;
        let intents = INTENT_STATES.into_iter().zip(&metrics.intents);
        out.counters(
            "deed_intents",
            "Intents recorded, by their state at that time",
            intents.map(|((_, state), count)| labelled("state", state, count)),
        )?;
        let own = OWN_BODIES.into_iter().zip(&metrics.own_entries);
        out.counters(
            "deed_own_entries",
            "Entries that ledgers wrote themselves, by body",
            own.map(|(body, count)| labelled("body", body.name(), count)),
        )?;
        out.gauge(
            "deed_due",
            "What is due at some time in all ledgers in memory: ends of tasks, Intents, \
             Observations and sessions",
            self.observed.due,
        )
    }

    fn searches(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let metrics = &self.metrics;
        out.counter("deed_searches", "Searches begun", &metrics.searches)?;
        let looked = [
            ("index", &metrics.searched_indexed),
            ("scan", &metrics.searched_scanned),
        ];
        out.counters(
            "deed_searched_entries",
            "Entries that searches examined, by how they were found",
            looked.map(|(by, count)| labelled("by", by, count)),
        )?;
        out.counter(
            "deed_index_segments",
            "Segments of the search index written",
            &metrics.index_segments,
        )?;
        out.gauge(
            "deed_unindexed_leaves",
            "Leaves of all ledgers in memory that the search index does not cover yet",
            self.observed.unindexed_leaves,
        )
    }

    fn callers(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let (metrics, observed) = (&self.metrics, &self.observed);
        let connections = &observed.connections;
        out.count("deed_connections", "Connections taken", connections.taken)?;
        out.gauge(
            "deed_connections_open",
            "Connections open",
            connections.open,
        )?;
        out.gauge(
            "deed_connections_max",
            "Connections that may be open at once",
            connections.max,
        )?;
        let named = |label, counts: &[(&'static str, u64)]| {
            let labelled = counts
                .iter()
                .map(|(name, count)| ([(label, (*name).to_owned())], *count));
            labelled.collect::<Vec<_>>()
        };
        out.counters(
            "deed_connections_refused",
            "Connections closed before they were served, or for being too slow",
            named("why", &connections.refused),
        )?;
        out.gauge(
            "deed_streams_open",
            "Append streams open",
            open(&metrics.streams_open),
        )?;
        out.counters(
            "deed_over_quota",
            "Times that a principal exceeded a quota",
            named("quota", &observed.over_quota),
        )?;
        out.gauge(
            "deed_clock_believed",
            "1 if the machine's clock is believed, 0 if it has leapt or is behind",
            u64::from(observed.on_time),
        )?;
        out.counters(
            "deed_clock_refusals",
            "Requests refused because the clock is ahead of what it can be, or behind what was recorded",
            named("why", &observed.clock_refusals),
        )?;
        out.counter(
            "deed_overload_refusals",
            "Requests that waited too long for room",
            &metrics.overload_refusals,
        )?;
        out.gauge(
            "deed_answer_bytes",
            "Bytes of answers that are made and not taken yet",
            observed.answer_bytes,
        )?;
        out.count(
            "deed_answers_refused",
            "Answers refused for lack of room, because others were not taken",
            observed.answers_refused,
        )?;
        out.gauges(
            "deed_places_taken",
            "Streams of reads and uploads that are open",
            named("what", &observed.places_taken),
        )?;
        out.counters(
            "deed_places_refused",
            "Streams of reads and uploads refused for lack of a place",
            named("what", &observed.places_refused),
        )?;
        out.counter(
            "deed_abandoned_requests",
            "Requests dropped from a queue before a turn had begun them, for their callers had gone",
            &metrics.abandoned,
        )?;
        out.counter(
            "deed_cut_requests",
            "Times that a request did not fit into a turn and went on in a later one",
            &metrics.cut,
        )?;
        out.counter(
            "deed_log_key_rotations",
            "Log keys that came into force after a ledger's first",
            &metrics.log_key_rotations,
        )?;
        out.gauge(
            "deed_head_guard_damaged_slots",
            "Slots of the head guard that had one good half only when the server started",
            metrics.damaged_guard_slots.load(Relaxed),
        )?;
        let contents = &observed.contents;
        for (name, help, count) in [
            ("deed_contents_stored", "Contents stored", contents.stored),
            (
                "deed_content_stored_bytes",
                "Bytes of contents stored",
                contents.stored_bytes,
            ),
            ("deed_contents_erased", "Contents erased", contents.erased),
            (
                "deed_content_erased_bytes",
                "Bytes of contents erased",
                contents.erased_bytes,
            ),
        ] {
            out.count(name, help, count)?;
        }
        Ok(())
    }

    fn memory(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let observed = &self.observed;
        if let Some(resident) = observed.resident_bytes {
            let help = "Resident memory of the process, in bytes";
            out.gauge("process_resident_memory_bytes", help, resident)?;
        }
        out.count(
            "deed_log_lines_left_out",
            "Log lines that were not written because there were too many of their kind",
            observed.log_lines_left_out,
        )?;
        if let Some(open) = observed.descriptors_open {
            out.gauge("process_open_fds", "File descriptors that are open", open)?;
        }
        if let Some(max) = observed.descriptors_max {
            let help = "File descriptors that may be open";
            out.gauge("process_max_fds", help, max)?;
        }
        let parts = [
            ("memtables", observed.memtable_bytes),
            ("block_cache", observed.block_cache_bytes),
            ("table_readers", observed.table_reader_bytes),
        ];
        out.gauges(
            "deed_store_memory_bytes",
            "Memory that RocksDB holds",
            parts.map(|(part, bytes)| ([("part", part.to_owned())], bytes)),
        )?;
        out.gauge(
            "deed_store_files_bytes",
            "Bytes of RocksDB's sorted files",
            observed.table_file_bytes,
        )?;
        if let Some((free, all)) = observed.disk_bytes {
            out.gauge("deed_disk_free_bytes", "Bytes that the disk has free", free)?;
            out.gauge("deed_disk_bytes", "Bytes of the disk", all)?;
        }
        out.counters(
            "deed_disk_refused",
            "Requests that were refused because the disk is nearly full",
            observed
                .disk_refused
                .iter()
                .map(|(what, count)| ([("what", (*what).to_owned())], *count)),
        )
    }
}

fn labelled(name: &'static str, value: &str, count: &AtomicU64) -> ([Label; 1], u64) {
    ([(name, value.to_owned())], count.load(Relaxed))
}

/// Returns the value of a gauge. It may be below zero for a moment while two threads count.
fn open(gauge: &std::sync::atomic::AtomicI64) -> u64 {
    u64::try_from(gauge.load(Relaxed)).unwrap_or_default()
}

/// Returns the name of a status as the specification of gRPC writes it.
fn status(code: usize) -> &'static str {
    const NAMES: [&str; CODES] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES[code]
}

/// Writes metrics, each with its description.
struct Out<'e>(DescriptorEncoder<'e>);

impl Out<'_> {
    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        counts: impl IntoIterator<Item = ([Label; N], u64)>,
    ) -> Result<(), Error> {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, count) in counts {
            let none = None::<&Exemplar<[(&str, &str); 0], u64>>;
            sample(&mut metric, &labels, |metric| {
                metric.encode_counter(&count, none)
            })?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, count: &AtomicU64) -> Result<(), Error> {
        self.count(name, help, count.load(Relaxed))
    }

    fn count(&mut self, name: &str, help: &str, count: u64) -> Result<(), Error> {
        self.counters(name, help, [([], count)] as [([Label; 0], _); 1])
    }

    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([Label; N], u64)>,
    ) -> Result<(), Error> {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            sample(&mut metric, &labels, |metric| metric.encode_gauge(&value))?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.gauges(name, help, [([], value)] as [([Label; 0], _); 1])
    }

    fn histograms<'h, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        histograms: impl IntoIterator<Item = ([Label; N], &'h Histogram)>,
        scale: f64,
    ) -> Result<(), Error> {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, histogram) in histograms {
            let (sum, count, buckets) = histogram.read(scale);
            sample(&mut metric, &labels, |metric| {
                metric.encode_histogram::<[(&str, &str); 0]>(sum, count, &buckets, None)
            })?;
        }
        Ok(())
    }
}

/// Writes a sample. Without labels there are no braces: `name{}` is allowed, and unusual.
fn sample<const N: usize>(
    metric: &mut MetricEncoder<'_>,
    labels: &[Label; N],
    encode: impl FnOnce(&mut MetricEncoder<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    if N == 0 {
        encode(metric)
    } else {
        encode(&mut metric.encode_family(labels)?)
    }
}
