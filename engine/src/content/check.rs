//! The check of a stopped server's contents. It is apart from that of the log, whose integrity does
//! not depend on contents.

use std::{collections::BTreeMap, fmt, path::Path};

use deed_evidence::{CommitmentDigest, LedgerId};

use super::{
    Binding,
    content_keys::ContentKeys as _,
    key_file::{self, KeyFileError},
    key_store::KeyStore,
    pieces::{Pieces, UploadOf},
    seal::{self, Opener, SecretKey},
};
use crate::store::{LedgerNumber, Store, StoreError, content::ContentRecord};

/// Most descriptions of damage that a report keeps.
const DAMAGED_MAX: usize = 100;

/// The result of the check of contents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContentsReport {
    /// Contents that decrypt and open their commitments.
    pub opened: u64,
    /// Contents that were not opened, because the key file was not given.
    pub unopened: u64,
    /// References of leaves to contents that are there.
    pub references: u64,
    /// Contents that are damaged, or missing though a leaf names them.
    pub damaged: u64,
    /// The first hundred of those: which, and what is wrong.
    pub damage: Vec<String>,
}

impl fmt::Display for ContentsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "contents: {} open their commitments, {} not opened (no key file), {} references, {} \
             damaged",
            self.opened, self.unopened, self.references, self.damaged
        )?;
        for damage in &self.damage {
            write!(f, "\n  {damage}")?;
        }
        Ok(())
    }
}

/// Opens every content of these ledgers, if the key file is there; changes nothing.
pub(crate) fn check(
    data_dir: &Path,
    key_file: &Path,
    store: &Store,
    ledgers: &BTreeMap<u32, LedgerId>,
) -> Result<ContentsReport, StoreError> {
    let mut report = ContentsReport::default();
    let keys = KeyStore::open_read_only(data_dir)?;
    let wrapping = match wrapping_key(key_file, keys.as_ref()) {
        Ok(wrapping) => wrapping,
        Err(error) => {
            report.damaged(error.to_string());
            None
        }
    };
    for (&number, &ledger_id) in ledgers {
        let number = LedgerNumber(number);
        for content in store.contents(number, &CommitmentDigest::new([0; 32])) {
            let (digest, record) = content?;
            // This erasure is not finished; the next start finishes it.
            if store.erased(number, &digest)?.is_some() {
                continue;
            }
            let binding = Binding { ledger_id, digest };
            match (&wrapping, &keys) {
                (Some(wrapping), Some(keys)) => {
                    match open(store, keys, wrapping, number, binding, &record)? {
                        Ok(()) => report.opened += 1,
                        Err(what) => report.damaged(format!("content {digest}: {what}")),
                    }
                }
                (_, None) => report.damaged(format!("content {digest}: its key is missing")),
                (None, Some(_)) => report.unopened += 1,
            }
        }
        let mut last = None;
        for reference in store.all_references(number) {
            let (digest, leaf) = reference?;
            report.references += 1;
            // A content is checked once, not once for each leaf that names it.
            if last != Some(digest)
                && store.content(number, &digest)?.is_none()
                && store.erased(number, &digest)?.is_none()
            {
                report.damaged(format!(
                    "content {digest}, which leaf {leaf} names, is missing"
                ));
            }
            last = Some(digest);
        }
    }
    Ok(report)
}

impl ContentsReport {
    fn damaged(&mut self, what: String) {
        self.damaged += 1;
        if self.damage.len() < DAMAGED_MAX {
            self.damage.push(what);
        }
    }
}

/// Returns the wrapping key; `None` if its file is missing. Fails if it is not the right key.
fn wrapping_key(path: &Path, keys: Option<&KeyStore>) -> Result<Option<SecretKey>, CheckKeyError> {
    let (Some(wrapping), Some(keys)) = (key_file::load(path)?, keys) else {
        return Ok(None);
    };
    if keys.check_value()?.as_deref() == Some(&key_file::check_value(&wrapping)[..]) {
        Ok(Some(wrapping))
    } else {
        let path = path.to_owned();
        Err(KeyFileError::Other { path }.into())
    }
}

#[derive(Debug, thiserror::Error)]
enum CheckKeyError {
    #[error(transparent)]
    File(#[from] KeyFileError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Decrypts a whole content. The inner error describes what is wrong with the content.
fn open(
    pieces: &dyn Pieces,
    keys: &KeyStore,
    wrapping: &SecretKey,
    ledger: LedgerNumber,
    binding: Binding,
    record: &ContentRecord,
) -> Result<Result<(), String>, StoreError> {
    let digest = binding.digest;
    let Some(upload) = UploadOf::of_record(ledger, &digest, record) else {
        return Ok(Err("its upload's id has not 16 bytes".to_owned()));
    };
    let key = match keys.get(ledger, &digest) {
        Ok(key) => key.filter(|key| key.upload == upload.id),
        Err(error @ StoreError::CorruptKey { .. }) => return Ok(Err(error.to_string())),
        Err(error) => return Err(error),
    };
    let Some(key) = key else {
        return Ok(Err("its key is missing".to_owned()));
    };
    let Ok(data_key) = seal::unwrap(wrapping, &binding, &key.wrapped) else {
        return Ok(Err("its key does not decrypt".to_owned()));
    };
    if seal::pieces(record.size) != Some(record.chunks) {
        return Ok(Err("its size and its pieces do not fit".to_owned()));
    }
    let mut opener = Opener::new(&data_key, binding, record.size, record.chunks);
    while let Some(number) = opener.next() {
        let Some(sealed) = pieces.get(&upload, number)? else {
            return Ok(Err(format!("piece {number} is missing")));
        };
        if opener.open(&sealed).is_err() {
            let what = format!("piece {number} does not decrypt to what was committed to");
            return Ok(Err(what));
        }
    }
    Ok(Ok(()))
}
