//! Reading transcripts while they are imported: bounded memory, one thread.

use std::{
    collections::HashMap,
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use deed_client::{
    chat::Transcript,
    records::{Record, Records},
};
use indicatif::ProgressBar;
use tokio::sync::{mpsc, watch};

use super::summary::{Refusal, Refusals};

/// Longest transcript that is read.
const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Names under which an object holds transcripts.
const LISTS: [&str; 2] = ["runs", "transcripts"];

/// One transcript and the line that it begins in.
pub(super) struct NumberedRun {
    pub(super) line: u64,
    pub(super) transcript: Transcript,
}

/// The runs of a file, each taken by one producer.
#[derive(Clone)]
pub(super) struct Runs {
    runs: Arc<tokio::sync::Mutex<Incoming>>,
    shared: Arc<Shared>,
}

struct Incoming {
    /// Taken out of order.
    found: Option<NumberedRun>,
    receiver: mpsc::Receiver<NumberedRun>,
}

struct Shared {
    stop: watch::Sender<bool>,
    /// Bytes of the file, packed as they are.
    bytes: AtomicU64,
    refusals: Refusals,
}

impl Runs {
    /// Begins to read on a thread of its own, `ahead` runs ahead of the producers. What is no
    /// transcript is refused, and reading goes on behind it.
    pub(super) fn read(
        source: Box<dyn Read + Send>,
        ahead: usize,
        bar: ProgressBar,
        refusals: Refusals,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(ahead);
        let shared = Arc::new(Shared {
            stop: watch::Sender::new(false),
            bytes: AtomicU64::new(0),
            refusals,
        });
        let counted = Counted {
            source,
            bar,
            shared: Arc::clone(&shared),
        };
        let reader = Reader {
            seen: HashMap::new(),
            shared: Arc::clone(&shared),
        };
        // The thread reads the first bytes too: the input may be a pipe that stays silent for ever.
        std::thread::spawn(move || {
            let lists = LISTS.map(str::to_owned).to_vec();
            let records = Records::new(counted, lists).record_bytes_max(RECORD_BYTES_MAX);
            reader.read_all(records, &sender);
        });
        let incoming = Incoming {
            found: None,
            receiver,
        };
        Self {
            runs: Arc::new(tokio::sync::Mutex::new(incoming)),
            shared,
        }
    }

    /// Waits for the first run for which `check` finds no reason to refuse it, and keeps it for
    /// [`next`](Self::next); those before it are refused. Returns false if there is none.
    pub(super) async fn find<T>(&self, check: impl Fn(&NumberedRun) -> Result<T, String>) -> bool {
        let mut runs = self.runs.lock().await;
        while let Some(run) = runs.receiver.recv().await {
            match check(&run) {
                Ok(_) => {
                    runs.found = Some(run);
                    return true;
                }
                Err(reason) => self.shared.refusals.refuse(Refusal {
                    line: run.line,
                    run_id: Some(run.transcript.run_id),
                    reason,
                }),
            }
        }
        false
    }

    /// The next run, unless reading has stopped.
    pub(super) async fn next(&self) -> Option<NumberedRun> {
        // The file may be a pipe that is silent for ever.
        let mut stop = self.shared.stop.subscribe();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => None,
            run = async {
                let mut runs = self.runs.lock().await;
                match runs.found.take() {
                    Some(run) => Some(run),
                    None => runs.receiver.recv().await,
                }
            } => run,
        }
    }

    /// No further runs: something went wrong elsewhere.
    pub(super) fn stop(&self) {
        self.shared.stop.send_replace(true);
    }

    /// Returns true if there was nothing at all to read.
    pub(super) fn is_empty(&self) -> bool {
        self.shared.bytes.load(Ordering::Relaxed) == 0
    }
}

/// Counts what is read.
struct Counted {
    source: Box<dyn Read + Send>,
    bar: ProgressBar,
    shared: Arc<Shared>,
}

impl Read for Counted {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(out)?;
        self.bar.inc(read as u64);
        self.shared.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

struct Reader {
    /// Digest of each run id, and its line. 16 bytes of BLAKE3 instead of the ids: millions of
    /// runs fit.
    seen: HashMap<[u8; 16], u64>,
    shared: Arc<Shared>,
}

impl Reader {
    fn read_all(mut self, records: Records<'_>, runs: &mpsc::Sender<NumberedRun>) {
        for record in records {
            if *self.shared.stop.borrow() {
                return;
            }
            let run = match record {
                Ok(record) => self.run(&record),
                Err(flaw) => Err(Refusal {
                    line: flaw.place.line,
                    run_id: None,
                    reason: flaw.reason,
                }),
            };
            match run {
                Ok(run) => {
                    if runs.blocking_send(run).is_err() {
                        return;
                    }
                }
                Err(refusal) => self.shared.refusals.refuse(refusal),
            }
        }
    }

    fn run(&mut self, record: &Record) -> Result<NumberedRun, Refusal> {
        let line = record.place.line;
        let transcript = Transcript::parse(&record.text).map_err(|error| Refusal {
            line,
            run_id: error.run_id,
            reason: error.reason,
        })?;
        let mut digest = [0; 16];
        blake3::Hasher::new()
            .update(transcript.run_id.as_bytes())
            .finalize_xof()
            .fill(&mut digest);
        if let Some(first) = self.seen.get(&digest) {
            return Err(Refusal {
                line,
                reason: format!(
                    "its run_id is that of another run in this file (line {first}); give each run \
                     its own"
                ),
                run_id: Some(transcript.run_id),
            });
        }
        self.seen.insert(digest, line);
        Ok(NumberedRun { line, transcript })
    }
}
