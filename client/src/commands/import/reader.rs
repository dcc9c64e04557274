//! Reading transcripts while they are imported: bounded memory, one thread.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    sync::{Arc, Mutex, PoisonError},
};

use deed_client::chat::Transcript;
use indicatif::ProgressBar;
use tokio::sync::{mpsc, watch};

use crate::cli::{Failure, Outcome};

/// Longest line that is read.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// One transcript and its line.
pub(super) struct NumberedRun {
    pub(super) line: u64,
    pub(super) transcript: Transcript,
}

/// The runs of a file, each taken by one producer.
#[derive(Clone)]
pub(super) struct Runs {
    runs: Arc<tokio::sync::Mutex<mpsc::Receiver<NumberedRun>>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: watch::Sender<bool>,
    failure: Mutex<Option<Failure>>,
}

impl Runs {
    /// Begins to read on a thread of its own, `ahead` runs ahead of the producers.
    pub(super) fn read(file: File, ahead: usize, bar: ProgressBar) -> Self {
        let (sender, receiver) = mpsc::channel(ahead);
        let shared = Arc::new(Shared::default());
        let reader = Reader {
            file: BufReader::with_capacity(1 << 20, file),
            line: 0,
            seen: HashMap::new(),
            bar,
        };
        std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || reader.read_all(&sender, &shared)
        });
        Self {
            runs: Arc::new(tokio::sync::Mutex::new(receiver)),
            shared,
        }
    }

    /// The next run, unless reading has stopped.
    pub(super) async fn next(&self) -> Option<NumberedRun> {
        // The file may be a pipe that is silent for ever.
        let mut stop = self.shared.stop.subscribe();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => None,
            run = async { self.runs.lock().await.recv().await } => run,
        }
    }

    /// No further runs: something went wrong elsewhere.
    pub(super) fn stop(&self) {
        self.shared.stop.send_replace(true);
    }

    /// Why reading ended early, if it did.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.shared
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

struct Reader {
    file: BufReader<File>,
    line: u64,
    /// Digest of each run id, and its line. 16 bytes of BLAKE3 instead of the ids: millions of
    /// runs fit.
    seen: HashMap<[u8; 16], u64>,
    bar: ProgressBar,
}

impl Reader {
    fn read_all(mut self, runs: &mpsc::Sender<NumberedRun>, shared: &Shared) {
        while !*shared.stop.borrow() {
            let run = match self.next() {
                Ok(Some(run)) => run,
                Ok(None) => return,
                Err(failure) => {
                    let failure = failure.context(format!("line {}", self.line));
                    let mut kept = shared
                        .failure
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    *kept = Some(failure);
                    return;
                }
            };
            if runs.blocking_send(run).is_err() {
                return;
            }
        }
    }

    fn next(&mut self) -> Outcome<Option<NumberedRun>> {
        loop {
            let mut line = Vec::new();
            self.line += 1;
            let read = self
                .file
                .by_ref()
                .take(LINE_BYTES_MAX + 1)
                .read_until(b'\n', &mut line)
                .map_err(|error| Failure::Usage(error.into()))?;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 > LINE_BYTES_MAX {
                return Err(Failure::usage(format!(
                    "longer than {LINE_BYTES_MAX} bytes"
                )));
            }
            self.bar.inc(read as u64);
            let text = std::str::from_utf8(&line).map_err(|_| Failure::usage("not UTF-8"))?;
            if !text.trim().is_empty() {
                return self.run(text).map(Some);
            }
        }
    }

    fn run(&mut self, text: &str) -> Outcome<NumberedRun> {
        let transcript =
            Transcript::parse(text).map_err(|error| Failure::usage(error.to_string()))?;
        let mut digest = [0; 16];
        blake3::Hasher::new()
            .update(transcript.run_id.as_bytes())
            .finalize_xof()
            .fill(&mut digest);
        if let Some(first) = self.seen.insert(digest, self.line) {
            return Err(Failure::usage(format!(
                "run_id {:?} is that of line {first} already; give each run its own",
                transcript.run_id
            )));
        }
        Ok(NumberedRun {
            line: self.line,
            transcript,
        })
    }
}
