//! Sessions that outlive their process.
//!
//! ```text
//! <state>/sessions/<name>-<hash>/session.json   whose session it is; written once
//!                                journal        what is not acknowledged yet (journal.rs)
//!                                lock           held by the process that uses it
//! ```
//!
//! A statement counts once [`StoredSession::append`] has returned: it is in the journal, synced with
//! [`Sync::Each`], and stays there until its receipt comes. After a crash the session is opened again, and
//! its statements without a receipt are sent as the same bytes; the ledger answers recorded ones with their
//! first receipt. So no statement is lost, and none is recorded twice.
//!
//! Contents that travel with statements stay in the journal as long as they may have to be sent again.
//! After their receipts the journal is rewritten without them: at the latest when no statement waits any
//! more, and as soon as they are more bytes than the contents that wait. [`StoredSession::erase`] removes
//! erased contents.
//!
//! These calls wait for the disk. In async code wrap them (`tokio::task::block_in_place`).

mod error;
mod files;
mod journal;

use std::{
    collections::{BTreeSet, VecDeque},
    fs, io,
    path::Path,
};

use deed_evidence::{
    CommitmentDigest, KeyId, LedgerId, Nonce, PayloadDigest, Sequence, SessionId,
    commitment::{Salt, digest_of},
    statement::{self, BodyKind},
};

pub use self::{error::SessionError, files::StoredAbout};
use self::{
    files::{Lock, SessionFile, compare, directory, lock, read_about, write_about},
    journal::{Journal, Record},
};
use crate::{
    session::{Session, random_nonce},
    signing::{Signing, Statement},
    trust::StateDir,
};

/// A journal that has nothing left is begun anew beyond this size.
const JOURNAL_BYTES_MAX: u64 = 1024 * 1024;

/// The moment from which a statement counts as kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sync {
    /// After it is on disk: a power failure loses nothing that was taken.
    #[default]
    Each,
    /// After the system has it: a killed process loses nothing, a power failure may.
    System,
}

/// A statement without a receipt.
#[derive(Debug, Clone)]
struct Unacknowledged {
    sequence: Sequence,
    digest: PayloadDigest,
    closes: bool,
    statement: Statement,
}

/// A session on disk, used by this process alone.
#[derive(Debug)]
pub struct StoredSession {
    about: SessionFile,
    id: SessionId,
    nonce: Option<Nonce>,
    ledger_id: LedgerId,
    journal: Journal,
    sync: Sync,
    /// The sequence after the last acknowledged statement, and that statement's digest.
    acknowledged: (Sequence, Option<PayloadDigest>),
    /// Sequences below this one were sent, or may have been: no other statement gets them.
    used: Sequence,
    waiting: VecDeque<Unacknowledged>,
    closed: bool,
    /// The position before the last statement of a closed session, and that statement, once it has its
    /// receipt.
    closing: Option<(Sequence, Option<PayloadDigest>, Statement)>,
    /// Bytes of contents in the journal, of statements that wait or not.
    held: u64,
    /// Holds the lock.
    _lock: Lock,
}

impl StoredSession {
    /// Opens the session `name` of a ledger, or begins it with a random nonce. It belongs to one
    /// producer and one way of signing for good.
    ///
    /// # Errors
    /// [`SessionError`]; [`SessionError::InUse`] if another process has it.
    pub fn open(
        state: &StateDir,
        ledger_id: LedgerId,
        name: &str,
        producer: &str,
        signing: &Signing,
        sync: Sync,
    ) -> Result<Self, SessionError> {
        let directory = directory(state, ledger_id, name);
        let lock = lock(&directory, name)?;
        let path = directory.join("session.json");
        let kept = match fs::read(&path) {
            Ok(bytes) => Some(read_about(&path, &bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(SessionError::io("read", &path, &error)),
        };
        let wanted = |session: String, nonce: Option<String>| SessionFile {
            name: name.to_owned(),
            ledger_id: ledger_id.to_string(),
            producer: producer.to_owned(),
            session,
            nonce,
            signing: signing.name().to_owned(),
            key_id: signing.key_id().as_ref().map(KeyId::to_string),
        };
        let about = match kept {
            Some(kept) => {
                let wanted = wanted(kept.session.clone(), kept.nonce.clone());
                compare(&kept, &wanted)?;
                kept
            }
            None => {
                let nonce = random_nonce()?;
                let id = SessionId::derive(ledger_id, producer, &nonce);
                let about = wanted(id.to_string(), Some(nonce.to_string()));
                write_about(&directory, &path, &about)?;
                about
            }
        };
        Self::read(&directory, about, ledger_id, lock, sync)
    }

    /// Opens a session that was begun, whosever it is; `None` if there is none of that name.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn find(
        state: &StateDir,
        ledger_id: LedgerId,
        name: &str,
    ) -> Result<Option<Self>, SessionError> {
        let directory = directory(state, ledger_id, name);
        let path = directory.join("session.json");
        let about = match fs::read(&path) {
            Ok(bytes) => read_about(&path, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SessionError::io("read", &path, &error)),
        };
        let lock = lock(&directory, name)?;
        Self::read(&directory, about, ledger_id, lock, Sync::Each).map(Some)
    }

    /// The sessions that a state directory keeps, of all ledgers, by name. Takes no lock.
    ///
    /// # Errors
    /// [`SessionError::Io`], and [`SessionError::Damaged`] if it cannot be told whose one is.
    pub fn list(state: &StateDir) -> Result<Vec<StoredAbout>, SessionError> {
        let directory = state.path().join("sessions");
        let failed = |error: &io::Error| SessionError::io("read", &directory, error);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(&error)),
        };
        let mut sessions = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| failed(&error))?.path();
            let path = path.join("session.json");
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                // The session is being made, or the directory is none of a session.
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(SessionError::io("read", &path, &error)),
            };
            let about = read_about(&path, &bytes)?;
            let damaged = || SessionError::Damaged {
                path: path.clone(),
                offset: 0,
            };
            sessions.push(StoredAbout::new(about).ok_or_else(damaged)?);
        }
        sessions.sort_by(|a, b| (&a.name, a.ledger_id).cmp(&(&b.name, b.ledger_id)));
        Ok(sessions)
    }

    fn read(
        directory: &Path,
        about: SessionFile,
        ledger_id: LedgerId,
        lock: Lock,
        sync: Sync,
    ) -> Result<Self, SessionError> {
        let damaged = || SessionError::Damaged {
            path: directory.join("session.json"),
            offset: 0,
        };
        let mut id = [0; SessionId::LEN];
        hex::decode_to_slice(&about.session, &mut id).map_err(|_| damaged())?;
        let nonce = about.nonce.as_ref().map(|text| {
            let mut nonce = [0; Nonce::LEN];
            hex::decode_to_slice(text, &mut nonce).map(|()| Nonce::new(nonce))
        });
        let nonce = nonce.transpose().map_err(|_| damaged())?;
        let (journal, records) = Journal::open(&directory.join("journal"))?;
        let mut session = Self {
            about,
            id: SessionId::new(id),
            nonce,
            ledger_id,
            journal,
            sync,
            acknowledged: (Sequence::FIRST, None),
            used: Sequence::FIRST,
            waiting: VecDeque::new(),
            closed: false,
            closing: None,
            held: 0,
            _lock: lock,
        };
        for record in records {
            match record {
                Record::Statement(statement) => {
                    session.held += contents(&statement);
                    let next = session.check(&statement)?;
                    session.take(next);
                }
                Record::Acknowledged(below) => session.drop_acknowledged(below),
                Record::Position(next, digest) => {
                    session.acknowledged = (next, digest);
                    session.waiting.clear();
                    session.closed = false;
                    session.closing = None;
                    session.used = Sequence::FIRST;
                }
                Record::Used(below) => session.used = session.used.max(below),
            }
        }
        if session.held > session.waits() {
            // A crash after a receipt, or an earlier version, left contents there.
            session.write_anew()?;
        }
        Ok(session)
    }

    /// Removes erased contents from the journals of all sessions in a state directory. A statement that
    /// waits for its receipt keeps waiting, without them. Returns the sessions that could not be searched:
    /// one that is in use drops its contents with their receipts. `own` is a session that the caller has
    /// open; another one that this process has open counts as in use.
    ///
    /// # Errors
    /// [`SessionError::Io`] if it cannot be told which sessions there are.
    pub fn erase(
        state: &StateDir,
        erased: &BTreeSet<CommitmentDigest>,
        mut own: Option<&mut Self>,
    ) -> Result<Vec<(String, SessionError)>, SessionError> {
        let mut left = Vec::new();
        for about in Self::list(state)? {
            let cleared = match &mut own {
                Some(own) if own.id == about.id && own.ledger_id == about.ledger_id => {
                    own.take_out(erased)
                }
                _ => match Self::find(state, about.ledger_id, &about.name) {
                    Ok(Some(mut session)) => session.take_out(erased),
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = cleared {
                left.push((about.name, error));
            }
        }
        Ok(left)
    }

    fn take_out(&mut self, erased: &BTreeSet<CommitmentDigest>) -> Result<(), SessionError> {
        for waiting in &mut self.waiting {
            waiting.statement.attachments.retain(|attachment| {
                let salt = <[u8; 32]>::try_from(attachment.salt.as_ref()).ok();
                let salt = salt.map(Salt::from_bytes);
                let digest = salt.map(|salt| digest_of(&salt, &attachment.content));
                digest.is_none_or(|digest| !erased.contains(&digest))
            });
        }
        if self.held > self.waits() {
            self.write_anew()?;
        }
        Ok(())
    }

    /// Bytes of contents that may have to be sent again.
    fn waits(&self) -> u64 {
        let waiting = self.waiting.iter();
        waiting.map(|waiting| contents(&waiting.statement)).sum()
    }

    /// Writes the journal anew with what has to be in it.
    fn write_anew(&mut self) -> Result<(), SessionError> {
        let mut records = Vec::new();
        match &self.closing {
            Some((next, digest, statement)) => records.extend([
                Record::Position(*next, *digest),
                Record::Statement(statement.clone()),
                Record::Acknowledged(self.acknowledged.0),
            ]),
            None => {
                let (next, digest) = self.acknowledged;
                records.push(Record::Position(next, digest));
            }
        }
        let left = self.waiting.iter();
        records.extend(left.map(|waiting| Record::Statement(waiting.statement.clone())));
        records.push(Record::Used(self.used));
        self.journal.replace(&records)?;
        self.held = self.waits();
        Ok(())
    }

    /// Returns the id of the session.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// Returns the nonce of the first statement, which keeps others from opening the session; `None` if
    /// version 0.1 began it.
    #[must_use]
    pub const fn nonce(&self) -> Option<Nonce> {
        self.nonce
    }

    /// The producer.
    #[must_use]
    pub fn producer(&self) -> &str {
        &self.about.producer
    }

    /// Returns the way of signing (`none`, `each` or `batch`), and the id of the key.
    #[must_use]
    pub fn signing(&self) -> (&str, Option<&str>) {
        (&self.about.signing, self.about.key_id.as_deref())
    }

    /// The sequence that the next statement gets, and the digest of the payload before it, if that is
    /// known.
    #[must_use]
    pub fn next(&self) -> (Sequence, Option<PayloadDigest>) {
        let (stands, digest) = self.stands();
        (stands.max(self.used), digest)
    }

    /// First sequence of the hole that the next statement has to own up to, if there is one:
    /// statements were sent for these sequences that the ledger does not take, by its word.
    #[must_use]
    pub fn skipped_from(&self) -> Option<Sequence> {
        let (stands, _) = self.stands();
        (stands < self.used).then_some(stands)
    }

    /// Makes the statements that come next, in their places.
    #[must_use]
    pub fn maker(&self) -> Session {
        let (stands, digest) = self.stands();
        let producer = self.about.producer.clone();
        let session = match self.nonce {
            Some(nonce) => Session::with_nonce(self.ledger_id, producer, nonce),
            None => Session::uncertified(self.ledger_id, producer, self.id),
        };
        let mut session = session.at(stands, digest);
        session.skip_to(self.used);
        session
    }

    /// The sequence at which the ledger stands if it takes all that waits, and the digest of the
    /// payload before it.
    fn stands(&self) -> (Sequence, Option<PayloadDigest>) {
        match self.waiting.back() {
            Some(last) => (after(last.sequence), Some(last.digest)),
            None => self.acknowledged,
        }
    }

    /// The first sequence without a receipt.
    #[must_use]
    pub const fn acknowledged(&self) -> Sequence {
        self.acknowledged.0
    }

    /// Returns true if its last statement was SessionClosed.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Statements without a receipt, in order: what is to be sent again after a crash.
    #[must_use]
    pub fn unacknowledged(&self) -> impl ExactSizeIterator<Item = &Statement> {
        self.waiting.iter().map(|waiting| &waiting.statement)
    }

    /// Keeps the session's next statements. Once this returns they are not lost.
    ///
    /// # Errors
    /// [`SessionError`] if one of them is not the next, or cannot be kept; none is kept then.
    pub fn append(&mut self, statements: &[Statement]) -> Result<(), SessionError> {
        let before = (self.waiting.len(), self.closed);
        let mut records = Vec::with_capacity(statements.len());
        let mut kept = Ok(());
        for statement in statements {
            match self.check(statement) {
                Ok(next) => self.take(next),
                Err(error) => {
                    kept = Err(error);
                    break;
                }
            }
            records.push(Record::Statement(statement.clone()));
        }
        let kept = kept
            .and_then(|()| self.journal.add(&records))
            .and_then(|()| match self.sync {
                Sync::Each => self.journal.sync(),
                Sync::System => Ok(()),
            });
        if kept.is_err() {
            self.waiting.truncate(before.0);
            self.closed = before.1;
        } else {
            self.held += statements.iter().map(contents).sum::<u64>();
        }
        kept
    }

    /// Every statement below `sequence` has its receipt. That is not synced: what is sent again
    /// because it was forgotten comes back as duplicate. Their contents leave the journal.
    ///
    /// # Errors
    /// [`SessionError::Io`].
    pub fn acknowledge(&mut self, sequence: Sequence) -> Result<(), SessionError> {
        if sequence <= self.acknowledged.0 {
            return Ok(());
        }
        self.drop_acknowledged(sequence);
        let waits = self.waits();
        let settled = self.held.saturating_sub(waits);
        let is_long = self.waiting.is_empty() && self.journal.bytes() > JOURNAL_BYTES_MAX;
        // Rewriting pays if it drops at least as many bytes as it writes again.
        if is_long || (settled > 0 && settled >= waits) {
            return self.write_anew();
        }
        self.journal.add(&[Record::Acknowledged(sequence)])
    }

    /// The statement at `sequence` and those after it were never sent, nor ever will be: they are
    /// forgotten, and others take their places. (What was sent is for
    /// [`refused`](Self::refused).)
    ///
    /// # Errors
    /// [`SessionError::Io`].
    pub fn go_back(&mut self, sequence: Sequence) -> Result<(), SessionError> {
        self.forget_from(sequence)
    }

    /// The ledger refused the statement at `sequence` for good: it and those after it are not sent
    /// again. That they are not recorded is the server's word, so their places are used: the session
    /// goes on behind them, and owns up to the hole. `expected` is the sequence that the server says
    /// it wants instead, if it does.
    ///
    /// # Errors
    /// [`SessionError::Io`].
    pub fn refused(
        &mut self,
        sequence: Sequence,
        expected: Option<Sequence>,
    ) -> Result<(), SessionError> {
        self.used = self.next().0;
        self.waiting.retain(|waiting| waiting.sequence < sequence);
        let behind = |expected: &Sequence| {
            self.waiting.is_empty() && (self.acknowledged.0..=self.used).contains(expected)
        };
        if let Some(expected) = expected.filter(behind) {
            // The statement there is not known. (No place that was used is given again for that.)
            self.acknowledged = (expected, None);
        }
        self.forget_from(sequence)
    }

    fn forget_from(&mut self, sequence: Sequence) -> Result<(), SessionError> {
        self.waiting.retain(|waiting| waiting.sequence < sequence);
        self.closed = self.waiting.back().is_some_and(|last| last.closes);
        self.write_anew()
    }

    /// Checks that a statement is the next one of this session.
    fn check(&self, statement: &Statement) -> Result<Unacknowledged, SessionError> {
        if self.closed {
            return Err(SessionError::Closed {
                name: self.about.name.clone(),
            });
        }
        let header = statement::parse(&statement.payload)?;
        let (next, digest) = self.next();
        let differs = |what, found: String, wanted: String| {
            if found == wanted {
                return Ok(());
            }
            Err(SessionError::NotNext {
                what,
                found,
                wanted,
            })
        };
        let ledger_id = header
            .ledger_id
            .map_or_else(String::new, |id| id.to_string());
        differs("ledger_id", ledger_id, self.ledger_id.to_string())?;
        differs("session", header.session.to_string(), self.id.to_string())?;
        differs(
            "producer",
            header.producer.to_owned(),
            self.about.producer.clone(),
        )?;
        // A hole that is owned up to begins where the session stands.
        let begins = header.skipped_from.unwrap_or(header.sequence);
        match self.skipped_from() {
            None => differs("sequence", begins.to_string(), next.to_string())?,
            Some(from) => {
                differs("skipped_from", begins.to_string(), from.to_string())?;
                if header.sequence < next {
                    differs("sequence", header.sequence.to_string(), next.to_string())?;
                }
            }
        }
        if let Some(previous) = header.previous {
            let wanted = digest.map_or_else(String::new, |digest| digest.to_string());
            differs("previous", previous.to_string(), wanted)?;
        }
        Ok(Unacknowledged {
            sequence: header.sequence,
            digest: PayloadDigest::of(&statement.payload),
            closes: header.body == BodyKind::SessionClosed,
            statement: statement.clone(),
        })
    }

    fn take(&mut self, next: Unacknowledged) {
        self.closed = next.closes;
        self.waiting.push_back(next);
    }

    fn drop_acknowledged(&mut self, below: Sequence) {
        while let Some(first) = self.waiting.front().filter(|first| first.sequence < below) {
            if first.closes {
                let (next, digest) = self.acknowledged;
                self.closing = Some((next, digest, first.statement.clone()));
            }
            self.acknowledged = (after(first.sequence), Some(first.digest));
            self.waiting.pop_front();
        }
    }
}

/// Bytes of the contents that travel with a statement.
fn contents(statement: &Statement) -> u64 {
    let attachments = statement.attachments.iter();
    attachments.map(|one| one.content.len() as u64).sum()
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn after(sequence: Sequence) -> Sequence {
    Sequence::new(sequence.get().saturating_add(1))
}

#[cfg(test)]
mod tests;
