//! An admitted batch as bytes, version 1: everything of a request that the step needs, so that the
//! batch can be stepped at another time or on another machine. Integers are big-endian.
//!
//! ```text
//! version (u8, 1)
//! receive time in microseconds (i64)
//! principal: flag (u8); with 1: length (u16), UTF-8
//! statements: count (u32), each:
//!   position of its envelope in the request (u16), ascending
//!   flags (u8): 1 its body was parsed, 2 its policy was compiled
//!   entry: length (u16), bytes; of a trust statement without the link, which the step adds
//!   contents that are held and that it commits to: count (u16), digests (32 each)
//! attachments of erased contents: count (u32), each, by ascending envelopes:
//!   position of the envelope (u16), digest (32), leaf of the Erasure (u64)
//! contents of an Erasure: flag (u8); with 1: count (u32), each:
//!   digest (32), state (u8: 0 held, 1 erased, 2 unknown); with 1: leaf of the Erasure (u64)
//!   statements that commit to it: count (u32), each:
//!     leaf (u64), recorded at (i64), task: flag (u8); with 1: id (16)
//! ```
//!
//! Whatever follows from an entry's bytes is left out: it is read from the entry again, with the
//! functions that admission uses. So a batch has one encoding, and bytes that decode encode to the
//! same bytes. Signatures are not checked again: whoever decodes must know that the bytes come from
//! an admission. The content gate is not encoded: it stays where it was taken.

use bytes::Bytes;
use deed_evidence::{
    CommitmentDigest, KeyId, LedgerId, Micros, PrincipalHash, TaskId,
    assess::body::ParsedBody,
    batch::{self, Manifest},
    entry::{Entry, KeyedSignature},
    statement::{self, AUTHORITY_PRODUCER, Header},
    trust::{Reference, TrustStatement},
};
use deed_proto::v1::{Author, PayloadType};
use deed_tlog::LeafIndex;
use thiserror::Error;

use super::{Admitted, AdmittedBatch, Authorship, ENVELOPES_MAX, Erasable, Piece, StatementBatch};
use crate::content::ContentStatus;

/// The version that is written.
const VERSION: u8 = 1;

/// Most bytes of an encoded batch.
pub(crate) const ENCODED_BYTES_MAX: usize = 8 << 20;

/// Most bytes of a principal's name.
const PRINCIPAL_BYTES_MAX: usize = u16::MAX as usize;

const SAID: u8 = 1;
const COMPILED: u8 = 2;

/// Least bytes of one item of each kind that is counted.
const STATEMENT_BYTES_MIN: usize = 2 + 1 + 2 + 2;
const ERASED_BYTES: usize = 2 + CommitmentDigest::LEN + 8;
const ERASABLE_BYTES_MIN: usize = CommitmentDigest::LEN + 1 + 4;
const REFERENCE_BYTES_MIN: usize = 8 + 8 + 1;

/// A batch that has no encoding.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum EncodeError {
    #[error("the batch takes {found} bytes, more than {ENCODED_BYTES_MAX}")]
    TooLarge { found: usize },
    #[error("the principal's name has {found} bytes, more than {PRINCIPAL_BYTES_MAX}")]
    Principal { found: usize },
}

/// Bytes that are no batch.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum DecodeError {
    #[error("{found} bytes, more than {ENCODED_BYTES_MAX}")]
    TooLarge { found: usize },
    #[error("version {found}, and this build reads {VERSION}")]
    Version { found: u8 },
    #[error("the bytes end within the batch")]
    Truncated,
    #[error("{found} bytes behind the batch")]
    Trailing { found: usize },
    #[error("{what}")]
    Malformed { what: &'static str },
    #[error("statement {position}: {what}")]
    Statement { position: usize, what: String },
}

impl AdmittedBatch {
    /// Returns the bytes of this batch.
    ///
    /// # Errors
    /// [`EncodeError`] if they are too many.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let count = self.payloads().count();
        let mut out = Vec::with_capacity(self.buffer.len() + 64 * count + 64);
        out.push(VERSION);
        out.extend(self.received_at.get().to_be_bytes());
        match &self.principal {
            None => out.push(0),
            Some((name, _)) => {
                let length = u16::try_from(name.len())
                    .map_err(|_| EncodeError::Principal { found: name.len() })?;
                out.push(1);
                out.extend(length.to_be_bytes());
                out.extend(name.as_bytes());
            }
        }
        put_count(&mut out, count);
        for piece in &self.pieces {
            let manifest = piece.manifest().map(|manifest| (manifest, 0, &[][..]));
            let statements = piece.statements().iter();
            let statements =
                statements.map(|one| (&**one, flags(piece, one), self.references(one)));
            for (payload, flags, references) in manifest.into_iter().chain(statements) {
                put_envelope(&mut out, payload.envelope);
                out.push(flags);
                let entry = self.entry(payload);
                put_short_count(&mut out, entry.len());
                out.extend(entry);
                put_short_count(&mut out, references.len());
                for digest in references {
                    out.extend(digest.as_bytes());
                }
            }
        }
        put_count(&mut out, self.erased.len());
        for (envelope, digest, leaf) in &self.erased {
            put_envelope(&mut out, *envelope);
            out.extend(digest.as_bytes());
            out.extend(leaf.to_be_bytes());
        }
        match &self.erasable {
            None => out.push(0),
            Some(erasable) => {
                out.push(1);
                put_count(&mut out, erasable.len());
                for one in erasable {
                    put_erasable(&mut out, one);
                }
            }
        }
        if out.len() > ENCODED_BYTES_MAX {
            return Err(EncodeError::TooLarge { found: out.len() });
        }
        Ok(out)
    }

    /// Reads a batch that was admitted for the ledger `ledger_id`.
    ///
    /// # Errors
    /// [`DecodeError`] for anything but the exact bytes of one batch.
    pub(crate) fn decode(bytes: &[u8], ledger_id: LedgerId) -> Result<Self, DecodeError> {
        if bytes.len() > ENCODED_BYTES_MAX {
            let found = bytes.len();
            return Err(DecodeError::TooLarge { found });
        }
        let mut reader = Reader(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(DecodeError::Version { found: version });
        }
        let mut batch = Self {
            received_at: Micros::new(reader.i64()?),
            ..Self::default()
        };
        if reader.flag()? {
            let length = reader.u16()?;
            let name = std::str::from_utf8(reader.take(length.into())?);
            let name = name.map_err(|_| malformed("the principal's name is not UTF-8"))?;
            batch.principal = Some((name.into(), PrincipalHash::of(name)));
        }
        let statements = reader.count(STATEMENT_BYTES_MIN)?;
        if statements > ENVELOPES_MAX {
            return Err(malformed("more statements than a request has"));
        }
        let mut encoded = Vec::with_capacity(statements);
        for position in 0..statements {
            let one = Encoded::read(&mut reader).map_err(|error| error.in_statement(position))?;
            if encoded
                .last()
                .is_some_and(|last: &Encoded<'_>| last.envelope >= one.envelope)
            {
                return Err(malformed("envelopes are not in ascending order"));
            }
            encoded.push(one);
        }
        batch.push_all(&encoded, ledger_id)?;
        batch.erased = read_erased(&mut reader)?;
        if reader.flag()? {
            let count = reader.count(ERASABLE_BYTES_MIN)?;
            let erasable = (0..count).map(|_| read_erasable(&mut reader));
            batch.erasable = Some(erasable.collect::<Result<_, _>>()?);
        }
        match reader.0.len() {
            0 => Ok(batch),
            found => Err(DecodeError::Trailing { found }),
        }
    }

    fn push_all(
        &mut self,
        encoded: &[Encoded<'_>],
        ledger_id: LedgerId,
    ) -> Result<(), DecodeError> {
        let bytes = encoded.iter().map(|one| one.entry_bytes.len()).sum();
        self.buffer.reserve_exact(bytes);
        let mut position = 0;
        while let Some(one) = encoded.get(position) {
            let at = move |what: String| DecodeError::Statement { position, what };
            let rest = &encoded[position + 1..];
            let piece = match one.entry.payload_type {
                PayloadType::BatchManifest => self.read_group(one, rest, ledger_id),
                _ => self
                    .read_statement(one, None, ledger_id)
                    .map(|(statement, trust)| Piece::Single(statement, trust)),
            }
            .map_err(at)?;
            position += piece.payloads().count();
            self.pieces.push(piece);
        }
        self.digest_payloads();
        Ok(())
    }

    /// Reads a statement that is unsigned or has its own signature, or, with `batched`, a statement
    /// of the batch that this key has signed; and what it says if it is a trust statement.
    fn read_statement(
        &mut self,
        one: &Encoded<'_>,
        batched: Option<KeyId>,
        ledger_id: LedgerId,
    ) -> Result<(Admitted, Option<Box<TrustStatement>>), String> {
        let header = self.header_of(one, ledger_id)?;
        let authorship = match (one.entry.author, &one.entry.signature, batched) {
            (Author::Signed, Some(signature), None) => Authorship::Signed(signature.key()),
            (Author::Unsigned, None, None) => Authorship::Unsigned,
            (Author::Batched, None, Some(key)) => Authorship::Batched(key),
            _ => return Err("its author is not known as its place demands".to_owned()),
        };
        if header.producer == AUTHORITY_PRODUCER && authorship.key().is_none() {
            return Err("what an authority says is not signed".to_owned());
        }
        let payload = Bytes::copy_from_slice(one.entry.payload);
        let trust = if header.body.is_trust() {
            Some(Box::new(trust_statement(&payload, one.is_compiled)?))
        } else if one.is_compiled {
            return Err("it has no policy that was compiled".to_owned());
        } else {
            None
        };
        let said = one.is_said.then(|| ParsedBody::read(&payload));
        let said = said.transpose().map_err(|error| error.to_string())?;
        let mut statement =
            self.write_statement(&one.entry, one.envelope, authorship, &header, said);
        let begin = self.references.len();
        self.references.extend(&one.references);
        statement.references = begin..self.references.len();
        Ok((statement, trust))
    }

    /// Reads a manifest and the statements behind it.
    fn read_group(
        &mut self,
        one: &Encoded<'_>,
        rest: &[Encoded<'_>],
        ledger_id: LedgerId,
    ) -> Result<Piece, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let manifest = Manifest::parse(one.entry.payload).map_err(|error| text(&error))?;
        if manifest.ledger_id != ledger_id || one.entry.received_at != self.received_at {
            return Err("it is of another ledger or time".to_owned());
        }
        if one.is_said || one.is_compiled || !one.references.is_empty() {
            return Err("a manifest has no body and names no contents".to_owned());
        }
        let key = one.entry.signature.as_ref().map(KeyedSignature::key);
        let key = key.ok_or_else(|| "a manifest must be signed".to_owned())?;
        let count = manifest.count.get() as usize;
        let members = rest
            .get(..count)
            .ok_or_else(|| format!("{} statements follow it of {count}", rest.len()))?;
        let headers = members.iter().map(|member| {
            let header = self.header_of(member, ledger_id)?;
            Ok((header, member.entry.payload))
        });
        let headers = headers.collect::<Result<Vec<_>, String>>()?;
        let step = batch::check(&manifest, headers).map_err(|error| text(&error))?;
        let manifest = self.write(&one.entry, one.envelope, Authorship::Signed(key));
        // No trust statement is in a batch: that was checked with the manifest.
        let members = members.iter().map(|member| {
            let (statement, _) = self.read_statement(member, Some(key), ledger_id)?;
            Ok(statement)
        });
        Ok(Piece::Batch(StatementBatch {
            manifest,
            step,
            members: members.collect::<Result<_, String>>()?,
        }))
    }

    fn header_of<'e>(&self, one: &Encoded<'e>, ledger_id: LedgerId) -> Result<Header<'e>, String> {
        if one.entry.payload_type != PayloadType::Statement {
            return Err("it is no statement".to_owned());
        }
        if one.entry.received_at != self.received_at {
            return Err("its receive time is not the batch's".to_owned());
        }
        let header = statement::parse(one.entry.payload).map_err(|error| error.to_string())?;
        if header.body.is_ledgers() || header.ledger_id != Some(ledger_id) {
            return Err("it is the ledger's own or for another ledger".to_owned());
        }
        Ok(header)
    }
}

/// A statement as it is encoded.
struct Encoded<'e> {
    envelope: usize,
    is_said: bool,
    is_compiled: bool,
    entry_bytes: &'e [u8],
    entry: Entry<'e>,
    references: Vec<CommitmentDigest>,
}

impl<'e> Encoded<'e> {
    fn read(reader: &mut Reader<'e>) -> Result<Self, DecodeError> {
        let envelope = reader.envelope()?;
        let flags = reader.u8()?;
        if flags & !(SAID | COMPILED) != 0 {
            return Err(malformed("its flags are not known"));
        }
        let length = reader.u16()?;
        let entry_bytes = reader.take(length.into())?;
        let entry = Entry::parse(entry_bytes).map_err(|error| DecodeError::Statement {
            position: 0,
            what: error.to_string(),
        })?;
        if entry.previous_trust.is_some() {
            return Err(malformed("it was recorded already"));
        }
        let count = reader.u16()?;
        let references = (0..count).map(|_| reader.digest());
        Ok(Self {
            envelope,
            is_said: flags & SAID != 0,
            is_compiled: flags & COMPILED != 0,
            entry_bytes,
            entry,
            references: references.collect::<Result<_, _>>()?,
        })
    }
}

impl DecodeError {
    /// Makes the error one of the statement at `position`.
    fn in_statement(self, position: usize) -> Self {
        let what = match self {
            Self::Malformed { what } => what.to_owned(),
            Self::Statement { what, .. } => what,
            other => return other,
        };
        Self::Statement { position, what }
    }
}

fn malformed(what: &'static str) -> DecodeError {
    DecodeError::Malformed { what }
}

fn flags(piece: &Piece, statement: &Admitted) -> u8 {
    let mut flags = 0;
    if statement.said.is_some() {
        flags |= SAID;
    }
    if let Piece::Single(_, Some(trust)) = piece
        && let TrustStatement::PolicySet { policy, .. } = &**trust
        && policy.is_compiled()
    {
        flags |= COMPILED;
    }
    flags
}

/// Returns the trust statement of a payload. A policy that was compiled at admission is compiled
/// here, too, because the step does not compile it.
fn trust_statement(payload: &Bytes, is_compiled: bool) -> Result<TrustStatement, String> {
    let statement = TrustStatement::parse(payload)
        .map_err(|error| error.to_string())?
        .ok_or_else(|| "it is not a trust statement".to_owned())?;
    if is_compiled {
        if !matches!(statement, TrustStatement::PolicySet { .. }) {
            return Err("it has no policy that was compiled".to_owned());
        }
        statement
            .check_policy()
            .map_err(|error| error.to_string())?;
    }
    Ok(statement)
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    // A larger count makes the batch too large, because each item takes several bytes.
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    out.extend(count.to_be_bytes());
}

/// Writes the length of an entry, or the number of commitments in one.
fn put_short_count(out: &mut Vec<u8>, count: usize) {
    let count = u16::try_from(count).expect("an entry has at most 65,535 bytes");
    out.extend(count.to_be_bytes());
}

fn put_envelope(out: &mut Vec<u8>, envelope: usize) {
    let envelope = u16::try_from(envelope).expect("a request has at most 4,097 envelopes");
    out.extend(envelope.to_be_bytes());
}

fn put_erasable(out: &mut Vec<u8>, one: &Erasable) {
    out.extend(one.content.as_bytes());
    match one.state {
        ContentStatus::Held => out.push(0),
        ContentStatus::Erased(leaf) => {
            out.push(1);
            out.extend(leaf.to_be_bytes());
        }
        ContentStatus::Unknown => out.push(2),
    }
    put_count(out, one.references.len());
    for reference in &one.references {
        out.extend(reference.leaf.get().to_be_bytes());
        out.extend(reference.recorded_at.get().to_be_bytes());
        match &reference.task {
            None => out.push(0),
            Some(task) => {
                out.push(1);
                out.extend(task.as_bytes());
            }
        }
    }
}

fn read_erased(
    reader: &mut Reader<'_>,
) -> Result<Vec<(usize, CommitmentDigest, u64)>, DecodeError> {
    let count = reader.count(ERASED_BYTES)?;
    let mut erased: Vec<(usize, CommitmentDigest, u64)> = Vec::with_capacity(count);
    for _ in 0..count {
        let one = (reader.envelope()?, reader.digest()?, reader.u64()?);
        if erased.last().is_some_and(|last| last.0 > one.0) {
            return Err(malformed("attachments are not in ascending order"));
        }
        erased.push(one);
    }
    Ok(erased)
}

fn read_erasable(reader: &mut Reader<'_>) -> Result<Erasable, DecodeError> {
    let content = reader.digest()?;
    let state = match reader.u8()? {
        0 => ContentStatus::Held,
        1 => ContentStatus::Erased(reader.u64()?),
        2 => ContentStatus::Unknown,
        _ => return Err(malformed("a content's state is not known")),
    };
    let count = reader.count(REFERENCE_BYTES_MIN)?;
    let references = (0..count).map(|_| {
        Ok(Reference {
            leaf: LeafIndex::new(reader.u64()?),
            recorded_at: Micros::new(reader.i64()?),
            task: if reader.flag()? {
                Some(TaskId::new(reader.array()?))
            } else {
                None
            },
        })
    });
    let references = references.collect::<Result<_, DecodeError>>()?;
    Ok(Erasable {
        content,
        state,
        references,
    })
}

/// The bytes that are still to be read.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], DecodeError> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn digest(&mut self) -> Result<CommitmentDigest, DecodeError> {
        Ok(CommitmentDigest::new(self.array()?))
    }

    fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(malformed("a flag is neither 0 nor 1")),
        }
    }

    fn envelope(&mut self) -> Result<usize, DecodeError> {
        let envelope = usize::from(self.u16()?);
        if envelope < ENVELOPES_MAX {
            Ok(envelope)
        } else {
            Err(malformed("a request has no such envelope"))
        }
    }

    /// Reads the count of items that take at least `each` bytes. It fails if the bytes cannot hold
    /// that many, so that no more is allocated than there may be.
    fn count(&mut self, each: usize) -> Result<usize, DecodeError> {
        let count = u32::from_be_bytes(self.array()?) as usize;
        if count > self.0.len() / each {
            return Err(DecodeError::Truncated);
        }
        Ok(count)
    }
}
