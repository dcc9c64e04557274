//! The file that `--receipts` names.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use deed_client::Answer;

use crate::{
    failure::{CommandResult, Failure},
    files::{Readers, WholeFile},
    render::{ReceiptJson, to_json},
};

/// Receipts on their way to a file, shared by the producers.
pub(super) struct ReceiptFile {
    path: PathBuf,
    under_way: Mutex<UnderWay>,
}

struct UnderWay {
    /// `None` once it is in its place.
    file: Option<WholeFile>,
    receipts: u64,
}

impl ReceiptFile {
    /// Begins a temporary file beside `path`; what is at `path` stays until [`keep`](Self::keep).
    pub(super) fn create(path: &Path) -> CommandResult<Self> {
        let file =
            WholeFile::create(path, Readers::All).map_err(|error| cannot_write(path, error))?;
        Ok(Self {
            path: path.to_owned(),
            under_way: Mutex::new(UnderWay {
                file: Some(file),
                receipts: 0,
            }),
        })
    }

    /// Adds the receipts of one request. After [`keep`](Self::keep) nothing is added any more.
    pub(super) fn write(
        &self,
        line: u64,
        run_id: &str,
        payloads: &[Bytes],
        answer: &Answer,
    ) -> CommandResult {
        let mut under_way = self.lock();
        let UnderWay { file, receipts } = &mut *under_way;
        let Some(file) = file else {
            return Ok(());
        };
        for (payload, item) in payloads.iter().zip(&answer.items) {
            let json = to_json(&ReceiptJson::new(Some(line), Some(run_id), payload, item))?;
            writeln!(file, "{json}").map_err(|error| cannot_write(&self.path, error))?;
            *receipts += 1;
        }
        Ok(())
    }

    /// Puts the file in its place, synced, even if the import did not finish: received receipts are worth
    /// keeping. Without any receipt an existing file is left alone.
    pub(super) fn keep(&self, at_the_end: bool) -> CommandResult {
        let mut under_way = self.lock();
        match under_way.file.take() {
            Some(file) if at_the_end || under_way.receipts > 0 => {
                file.keep().map_err(|error| cannot_write(&self.path, error))
            }
            _ => Ok(()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, UnderWay> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn cannot_write(path: &Path, error: std::io::Error) -> Failure {
    Failure::Usage(
        anyhow::Error::new(error).context(format!("cannot write receipts to {}", path.display())),
    )
}
