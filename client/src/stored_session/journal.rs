//! The journal of a session: what was made, and how much of it is acknowledged.
//!
//! ```text
//! "deedjnl1"
//! repeated:  length (u32, of kind and data)  kind (u8)  data  check (8 bytes)
//!   kind 1   a statement: deed.v1.Envelope with its payload and attachments
//!   kind 2   acknowledged: every sequence below this one (u64)
//!   kind 3   where the session stands: next sequence (u64), digest of the payload before it
//!            (32 bytes; left out if it is not known); nothing before it counts any more
//!   kind 4   used: every sequence below this one (u64) was sent, or may have been
//! ```
//!
//! Integers are big-endian. The check is the beginning of BLAKE3 over length, kind and data. A
//! crash leaves at most an unfinished record at the end, which was never said to be there; it is
//! cut off. A wrong check with a whole record behind it is damage, and refused.
//!
//! Records are only added. What must not stay here any longer (contents whose receipt came, or that
//! were erased) leaves with a new file that takes the old one's place whole: `journal.new` is written
//! and synced before it is renamed, so a crash leaves one or the other, and what it leaves of the first
//! is removed when the journal is opened. Then the old file's bytes are overwritten. (File systems and
//! disks that write elsewhere, and backups, keep what they keep.)

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use deed_evidence::{PayloadDigest, Sequence};
use deed_files::{Readers, WholeFile};
use deed_proto::v1;
use prost::Message as _;

use super::SessionError;
use crate::signing::Statement;

const MAGIC: &[u8; 8] = b"deedjnl1";
const CHECK_BYTES: usize = 8;
/// A statement with eight attachments of 64 KiB has less.
const RECORD_BYTES_MAX: usize = 1024 * 1024;

/// A record of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Statement(Statement),
    Acknowledged(Sequence),
    Position(Sequence, Option<PayloadDigest>),
    Used(Sequence),
}

/// The open file.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl Journal {
    /// Opens the journal, and reads what is in it.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Record>), SessionError> {
        let failed = |action| move |error: io::Error| SessionError::io(action, path, &error);
        remove_unfinished(&path.with_extension("new")).map_err(failed("clear"))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed("open"))?;
        // The journal holds contents, so an existing file must be private too.
        file.set_permissions(fs::Permissions::from_mode(0o600))
            .map_err(failed("protect"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("read"))?;
        let (records, good) = match parse(&bytes) {
            Ok(parsed) => parsed,
            Err(offset) => {
                return Err(SessionError::Damaged {
                    path: path.to_owned(),
                    offset,
                });
            }
        };
        let mut journal = Self {
            file,
            path: path.to_owned(),
            bytes: good,
        };
        if good < bytes.len() as u64 || good == 0 {
            // An unfinished end, or a journal that was never begun.
            journal.file.set_len(good).map_err(failed("cut"))?;
        }
        journal
            .file
            .seek(SeekFrom::Start(good))
            .map_err(failed("read"))?;
        if good == 0 {
            journal.write(MAGIC)?;
            journal.sync()?;
        }
        Ok((journal, records))
    }

    /// Adds records; they are there after a crash of this process, and after [`sync`](Self::sync)
    /// also after one of the machine.
    pub(super) fn add(&mut self, records: &[Record]) -> Result<(), SessionError> {
        let mut out = Vec::new();
        for record in records {
            encode(record, &mut out);
        }
        self.write(&out)
    }

    pub(super) fn sync(&self) -> Result<(), SessionError> {
        let synced = self.file.sync_data();
        synced.map_err(|error| SessionError::io("sync", &self.path, &error))
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Begins anew with these records, in place of all.
    pub(super) fn replace(&mut self, records: &[Record]) -> Result<(), SessionError> {
        let path = self.path.clone();
        let failed = |action| {
            let path = path.clone();
            move |error: io::Error| SessionError::io(action, &path, &error)
        };
        let temporary = self.path.with_extension("new");
        let mut out = MAGIC.to_vec();
        for record in records {
            encode(record, &mut out);
        }
        remove_unfinished(&temporary).map_err(failed("clear"))?;
        let mut file =
            WholeFile::create_as(&self.path, &temporary, Readers::Owner).map_err(failed("make"))?;
        file.write_all(&out).map_err(failed("write"))?;
        let file = file.rename().map_err(failed("replace"))?;
        let mut old = std::mem::replace(&mut self.file, file);
        self.bytes = out.len() as u64;
        deed_files::sync_directory_of(&self.path).map_err(failed("sync"))?;
        // The old file has no name any more; a failure to overwrite it changes nothing for the session.
        let _ = overwrite(&mut old);
        Ok(())
    }

    fn write(&mut self, out: &[u8]) -> Result<(), SessionError> {
        if let Err(error) = self.file.write_all(out) {
            // Half a record must not stand before a whole one.
            let _ = self.file.set_len(self.bytes);
            let _ = self.file.seek(SeekFrom::Start(self.bytes));
            return Err(SessionError::io("write", &self.path, &error));
        }
        self.bytes += out.len() as u64;
        Ok(())
    }
}

/// Overwrites all of a file.
fn overwrite(file: &mut File) -> io::Result<()> {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    let mut left = file.metadata()?.len();
    file.seek(SeekFrom::Start(0))?;
    while left > 0 {
        let now = left.min(ZEROS.len() as u64);
        // At most 64 KiB.
        file.write_all(&ZEROS[..usize::try_from(now).unwrap_or(ZEROS.len())])?;
        left -= now;
    }
    file.sync_data()
}

/// Removes what a crash left of a new file.
fn remove_unfinished(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).open(path) {
        Ok(mut file) => {
            let _ = overwrite(&mut file);
            fs::remove_file(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn encode(record: &Record, out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(&[0; 4]);
    match record {
        Record::Statement(statement) => {
            out.push(1);
            let envelope = v1::Envelope {
                payload_type: v1::PayloadType::Statement.into(),
                payload: statement.payload.clone(),
                attachments: statement.attachments.clone(),
                ..v1::Envelope::default()
            };
            out.extend_from_slice(&envelope.encode_to_vec());
        }
        Record::Acknowledged(below) => {
            out.push(2);
            out.extend_from_slice(&below.get().to_be_bytes());
        }
        Record::Position(next, digest) => {
            out.push(3);
            out.extend_from_slice(&next.get().to_be_bytes());
            out.extend_from_slice(digest.as_ref().map_or(&[][..], |digest| digest.as_bytes()));
        }
        Record::Used(below) => {
            out.push(4);
            out.extend_from_slice(&below.get().to_be_bytes());
        }
    }
    // Statements are bounded by the appender's checks, far below 32 bits.
    let length = u32::try_from(out.len() - begin - 4).unwrap_or(u32::MAX);
    out[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
    let check = blake3::hash(&out[begin..]);
    out.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
}

/// The records, and how many bytes they and the beginning take; or where it is damaged.
fn parse(bytes: &[u8]) -> Result<(Vec<Record>, u64), u64> {
    let mut records = Vec::new();
    if bytes.len() < MAGIC.len() && MAGIC.starts_with(bytes) {
        return Ok((records, 0));
    }
    if !bytes.starts_with(MAGIC) {
        return Err(0);
    }
    let mut at = MAGIC.len();
    while at < bytes.len() {
        match next_record(&bytes[at..]) {
            Some((record, length)) => {
                records.push(record);
                at += length;
            }
            // A complete record after an incomplete one means damage, not a torn write.
            None if anything_whole(&bytes[at + 1..]) => return Err(at as u64),
            None => break,
        }
    }
    Ok((records, at as u64))
}

fn anything_whole(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|at| next_record(&bytes[at..]).is_some())
}

fn next_record(bytes: &[u8]) -> Option<(Record, usize)> {
    let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    if length == 0 || length > RECORD_BYTES_MAX {
        return None;
    }
    let body = bytes.get(..4 + length)?;
    let check = bytes.get(4 + length..4 + length + CHECK_BYTES)?;
    if blake3::hash(body).as_bytes()[..CHECK_BYTES] != *check {
        return None;
    }
    let (kind, data) = (body[4], &body[5..]);
    let sequence = |data: &[u8]| {
        data.try_into()
            .ok()
            .map(u64::from_be_bytes)
            .map(Sequence::new)
    };
    let record = match kind {
        1 => {
            let envelope = v1::Envelope::decode(Bytes::copy_from_slice(data)).ok()?;
            Record::Statement(Statement {
                payload: envelope.payload,
                attachments: envelope.attachments,
            })
        }
        2 => Record::Acknowledged(sequence(data)?),
        3 => {
            let (next, digest) = data.split_at_checked(8)?;
            let digest = match digest {
                [] => None,
                digest => Some(PayloadDigest::from_slice(digest)?),
            };
            Record::Position(sequence(next)?, digest)
        }
        4 => Record::Used(sequence(data)?),
        _ => return None,
    };
    Some((record, 4 + length + CHECK_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let statement = |byte: u8| {
            Record::Statement(Statement {
                payload: Bytes::from(vec![byte; 30]),
                attachments: vec![v1::Attachment {
                    salt: Bytes::from(vec![7; 32]),
                    content: Bytes::from_static(b"content"),
                }],
            })
        };
        vec![
            Record::Position(Sequence::new(3), Some(PayloadDigest::new([4; 32]))),
            statement(1),
            Record::Acknowledged(Sequence::new(4)),
            Record::Used(Sequence::new(9)),
            statement(2),
        ]
    }

    fn encoded() -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for record in &records() {
            encode(record, &mut out);
        }
        out
    }

    #[test]
    fn an_unfinished_end_is_cut_at_every_length() {
        let whole = encoded();
        let mut ends = vec![0, MAGIC.len()];
        for record in &records() {
            let mut out = Vec::new();
            encode(record, &mut out);
            ends.push(ends[ends.len() - 1] + out.len());
        }
        for length in 0..=whole.len() {
            let (found, good) = parse(&whole[..length]).unwrap();
            let end = ends.iter().rposition(|end| *end <= length).unwrap();
            assert_eq!(good, ends[end] as u64);
            assert_eq!(found, records()[..end.saturating_sub(1)]);
        }
    }

    #[test]
    fn a_changed_byte_before_the_end_is_damage_and_never_another_record() {
        let whole = encoded();
        let mut last = Vec::new();
        encode(&records()[4], &mut last);
        for at in 0..whole.len() - last.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(parse(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn it_is_read_as_it_was_written_and_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let (mut journal, found) = Journal::open(&path).unwrap();
        assert_eq!(found, []);
        journal.add(&records()).unwrap();
        journal.sync().unwrap();
        drop(journal);
        fs::write(&path, [fs::read(&path).unwrap(), vec![0, 0, 1]].concat()).unwrap();
        let (mut journal, found) = Journal::open(&path).unwrap();
        assert_eq!(found, records());
        let position = Record::Position(Sequence::new(9), None);
        journal.replace(std::slice::from_ref(&position)).unwrap();
        journal.add(&records()[..1]).unwrap();
        let (_, found) = Journal::open(&path).unwrap();
        assert_eq!(found, [position, records()[0].clone()]);
    }
}
