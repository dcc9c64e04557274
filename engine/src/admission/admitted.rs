//! The results of admission: payloads that only their session and the ledger's trust state can
//! still refuse, and envelopes that admission itself refused.

use std::{
    ops::{Deref, Range},
    slice,
    sync::Arc,
};

use deed_evidence::{
    CommitmentDigest, KeyId, Micros, PayloadDigest, PrincipalHash, Sequence, SessionId, TaskId,
    assess::body::ParsedBody,
    entry::Entry,
    session::{BatchStep, Binding},
    statement::{BodyKind, Breach, Header, SessionHeader},
    trust::{Reference, TrustStatement},
};
use deed_proto::v1::rejection::Reason;
use deed_tlog::{Hash, leaf_hash};

use crate::content::{ContentStatus, SharedGate};

/// The evidence for the author of an admitted payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorship {
    Unsigned,
    /// The payload has its own signature.
    Signed(KeyId),
    /// The manifest before the payload has a signature.
    Batched(KeyId),
}

impl Authorship {
    pub fn key(self) -> Option<KeyId> {
        match self {
            Self::Unsigned => None,
            Self::Signed(key) | Self::Batched(key) => Some(key),
        }
    }
}

/// A part of a request that is placed whole or not at all.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "most pieces are statements, and none of those costs an allocation"
)]
pub enum Piece {
    /// A statement that is not in a batch; with what it says if it is a trust statement.
    Single(Admitted, Option<Box<TrustStatement>>),
    Batch(StatementBatch),
}

/// A manifest and the statements that follow it.
#[derive(Debug)]
pub struct StatementBatch {
    pub(crate) manifest: AdmittedPayload,
    pub(crate) step: BatchStep,
    pub(crate) members: Vec<Admitted>,
}

impl Piece {
    pub(super) fn manifest(&self) -> Option<&AdmittedPayload> {
        match self {
            Self::Single(..) => None,
            Self::Batch(group) => Some(&group.manifest),
        }
    }

    pub(crate) fn statements(&self) -> &[Admitted] {
        match self {
            Self::Single(statement, _) => slice::from_ref(statement),
            Self::Batch(group) => &group.members,
        }
    }

    fn statements_mut(&mut self) -> &mut [Admitted] {
        match self {
            Self::Single(statement, _) => slice::from_mut(statement),
            Self::Batch(group) => &mut group.members,
        }
    }

    /// Returns the manifest, if there is one, and then the statements.
    pub(crate) fn payloads(&self) -> impl Iterator<Item = &AdmittedPayload> {
        let statements = self.statements().iter().map(|statement| &statement.written);
        self.manifest().into_iter().chain(statements)
    }
}

/// The payload of a statement or manifest, and the entry that admission wrote for it.
#[derive(Debug)]
pub struct AdmittedPayload {
    /// Position of its envelope in the request.
    pub envelope: usize,
    /// The leaf hash of the entry that admission wrote. The step completes the entry of a trust
    /// statement, which then has another hash.
    pub leaf_hash: Hash,
    pub(crate) authorship: Authorship,
    /// The leaf that lets the sender speak for the producer.
    pub(crate) principal_leaf: Option<u64>,
    /// The entry's range in the batch's buffer.
    entry: Range<usize>,
    payload: Range<usize>,
}

/// A statement that only its session and the ledger's trust state can still refuse.
#[derive(Debug)]
pub struct Admitted {
    /// Its payload and entry, whose fields are read as those of the statement.
    pub(super) written: AdmittedPayload,
    /// Computed if the session's next state, the next statement or the assessment will need it.
    pub payload_digest: Option<PayloadDigest>,
    /// The range of the producer's name in the batch's buffer.
    producer: Range<usize>,
    session: SessionId,
    sequence: Sequence,
    previous: Option<PayloadDigest>,
    skipped_from: Option<Sequence>,
    task: Option<TaskId>,
    body: BodyKind,
    /// The step judges it by the rules at its leaf, because a statement that was recorded before is
    /// still a duplicate.
    breach: Option<Breach>,
    /// The parsed body, if the ledger's rules assess it.
    pub said: Option<ParsedBody>,
    /// The range of the statement's contents in the batch's references.
    pub(super) references: Range<usize>,
}

/// A content that an Erasure names, as it was found under the ledger's content gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasable {
    pub content: CommitmentDigest,
    pub state: ContentStatus,
    /// The statements that commit to the content: the newest one of each task.
    pub(crate) references: Vec<Reference>,
}

/// The payloads of one request that were admitted.
#[derive(Debug, Default)]
pub struct AdmittedBatch {
    /// Entries, one after the other.
    pub(super) buffer: Vec<u8>,
    pub(super) pieces: Vec<Piece>,
    pub(super) received_at: Micros,
    pub(super) principal: Option<(Arc<str>, PrincipalHash)>,
    /// Held contents that these statements commit to.
    pub(super) references: Vec<CommitmentDigest>,
    /// The state of the contents that an Erasure in this batch names.
    pub(super) erasable: Option<Vec<Erasable>>,
    /// Attachments whose content was erased: envelope, content, leaf of the Erasure; sorted.
    pub(super) erased: Vec<(usize, CommitmentDigest, u64)>,
    /// Keeps the contents that the statements name from being erased or collected, until they are
    /// recorded.
    pub(super) gate: Option<SharedGate>,
}

/// An envelope that is not recorded, whatever the state of its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Position of its envelope in the request.
    pub envelope: usize,
    pub reason: Reason,
    pub message: String,
    /// Path of the field that is wrong; empty if none is.
    pub field: String,
}

impl Rejected {
    pub fn new(reason: Reason, field: &str, message: impl Into<String>) -> Self {
        Self {
            envelope: 0,
            reason,
            message: message.into(),
            field: field.to_owned(),
        }
    }

    pub fn at(mut self, envelope: usize) -> Self {
        self.envelope = envelope;
        self
    }
}

impl Deref for Admitted {
    type Target = AdmittedPayload;

    fn deref(&self) -> &AdmittedPayload {
        &self.written
    }
}

impl Admitted {
    pub fn session(&self) -> SessionId {
        self.session
    }

    pub fn task(&self) -> Option<TaskId> {
        self.task
    }
}

impl AdmittedBatch {
    /// Makes an empty batch, with room for entries of `bytes` in all.
    pub(super) fn with_capacity(
        bytes: usize,
        received_at: Micros,
        principal: Option<Arc<str>>,
    ) -> Self {
        Self {
            buffer: Vec::with_capacity(bytes),
            pieces: Vec::new(),
            received_at,
            principal: principal.map(|name| {
                let hash = PrincipalHash::of(&name);
                (name, hash)
            }),
            references: Vec::new(),
            erasable: None,
            erased: Vec::new(),
            gate: None,
        }
    }

    /// Writes the entry of a statement, which the caller then adds in a piece; `header` must be
    /// borrowed from this very payload.
    pub(super) fn write_statement(
        &mut self,
        entry: &Entry<'_>,
        envelope: usize,
        authorship: Authorship,
        header: &Header<'_>,
        said: Option<ParsedBody>,
    ) -> Admitted {
        // An Outcome will name this digest.
        let assessed_intent = said.is_some() && header.body == BodyKind::Intent;
        let payload_digest = assessed_intent.then(|| PayloadDigest::of(entry.payload));
        let written = self.write(entry, envelope, authorship);
        let producer_at =
            written.payload.start + offset_of(entry.payload, header.producer.as_bytes());
        Admitted {
            written,
            payload_digest,
            producer: producer_at..producer_at + header.producer.len(),
            session: header.session,
            sequence: header.sequence,
            previous: header.previous,
            skipped_from: header.skipped_from,
            task: header.task,
            body: header.body,
            breach: header.breach,
            said,
            references: 0..0,
        }
    }

    /// Writes the entry of a statement or manifest.
    pub(super) fn write(
        &mut self,
        entry: &Entry<'_>,
        envelope: usize,
        authorship: Authorship,
    ) -> AdmittedPayload {
        let begin = self.buffer.len();
        entry.encode_into(&mut self.buffer);
        let written = &self.buffer[begin..];
        let payload = begin + payload_offset(written, entry.payload);
        AdmittedPayload {
            envelope,
            leaf_hash: leaf_hash(written),
            authorship,
            principal_leaf: entry.principal_leaf,
            entry: begin..self.buffer.len(),
            payload: payload..payload + entry.payload.len(),
        }
    }

    /// Sets the held contents that the statements commit to: envelope and digest, sorted by
    /// envelope.
    pub(crate) fn set_references(&mut self, held: Vec<(usize, CommitmentDigest)>) {
        let mut begin = 0;
        for statement in self.pieces.iter_mut().flat_map(Piece::statements_mut) {
            let behind = &held[begin..];
            let skipped = behind.partition_point(|(envelope, _)| *envelope < statement.envelope);
            let own = behind[skipped..].partition_point(|(at, _)| *at == statement.envelope);
            statement.references = begin + skipped..begin + skipped + own;
            begin += skipped + own;
        }
        self.references = held.into_iter().map(|(_, digest)| digest).collect();
    }

    /// Returns the held contents that a statement commits to.
    pub(crate) fn references(&self, statement: &Admitted) -> &[CommitmentDigest] {
        &self.references[statement.references.clone()]
    }

    /// Sets the attachments that bring erased content back: envelope, content, leaf of the Erasure;
    /// sorted by envelope.
    pub(crate) fn set_erased(&mut self, erased: Vec<(usize, CommitmentDigest, u64)>) {
        self.erased = erased;
    }

    /// Returns an attachment of the statement whose content was erased, and the leaf of the
    /// Erasure.
    pub(crate) fn erased_attachment(
        &self,
        statement: &Admitted,
    ) -> Option<(CommitmentDigest, u64)> {
        if self.erased.is_empty() {
            return None;
        }
        let at = self
            .erased
            .binary_search_by_key(&statement.envelope, |(envelope, ..)| *envelope)
            .ok()?;
        let (_, content, leaf) = self.erased[at];
        Some((content, leaf))
    }

    /// Sets the state of the contents that an Erasure in this batch names.
    pub(crate) fn set_erasable(&mut self, known: Vec<Erasable>) {
        self.erasable = Some(known);
    }

    /// Returns the state of the contents that [`AdmittedBatch::set_erasable`] has set.
    pub(crate) fn erasable(&self) -> Option<&[Erasable]> {
        self.erasable.as_deref()
    }

    /// Holds a ledger's content gate until the batch is recorded.
    pub(crate) fn set_gate(&mut self, gate: SharedGate) {
        self.gate = Some(gate);
    }

    /// Releases the gate, once an erasure can find the references of the statements.
    pub(crate) fn release_gate(&mut self) {
        self.gate = None;
    }

    /// Makes a statement look as if its ledger had assessed nothing at its admission, with bytes
    /// that cannot be parsed.
    #[cfg(test)]
    pub(crate) fn spoil(&mut self, position: usize) {
        let mut all = self.pieces.iter_mut().flat_map(Piece::statements_mut);
        let statement = all.nth(position).expect("the batch has that many");
        statement.said = None;
        statement.written.payload.end -= 1;
    }

    /// Hashes the payloads whose digests the step will need: the last one of each session, and
    /// those that a later statement names as `previous`. (The step computes any other that it
    /// turns out to need.)
    pub(super) fn digest_payloads(&mut self) {
        let mut left = &mut self.pieces[..];
        while let [piece, rest @ ..] = left {
            left = rest;
            let Piece::Single(statement, _) = piece else {
                // Checking the batch has computed what its session needs.
                continue;
            };
            // The statements of a session mostly follow each other, so the next statement shows it.
            let is_followed = matches!(left.first(), Some(Piece::Single(next, _))
                if next.session == statement.session && next.previous.is_none());
            if !is_followed {
                let payload = &self.buffer[statement.payload.clone()];
                statement.payload_digest = Some(PayloadDigest::of(payload));
            }
        }
    }

    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Returns all payloads, in the order of their envelopes.
    pub fn payloads(&self) -> impl Iterator<Item = &AdmittedPayload> {
        self.pieces.iter().flat_map(Piece::payloads)
    }

    /// Returns the bytes of all entries.
    pub(crate) fn byte_len(&self) -> usize {
        self.buffer.len()
    }

    pub fn received_at(&self) -> Micros {
        self.received_at
    }

    /// Returns the binding of a session that begins with this statement: it says who may continue
    /// it.
    pub(crate) fn binding(&self, statement: &Admitted) -> Binding {
        match (statement.authorship.key(), &self.principal) {
            (Some(key), _) => Binding::Key(key),
            (None, Some((_, hash))) => Binding::Principal(*hash),
            (None, None) => Binding::Nobody,
        }
    }

    pub fn entry(&self, of: &AdmittedPayload) -> &[u8] {
        &self.buffer[of.entry.clone()]
    }

    pub fn payload(&self, of: &AdmittedPayload) -> &[u8] {
        &self.buffer[of.payload.clone()]
    }

    /// Returns the part of a statement's header that the rules of sessions read.
    pub fn header(&self, statement: &Admitted) -> SessionHeader<'_> {
        let producer = &self.buffer[statement.producer.clone()];
        SessionHeader {
            // The producer's name was UTF-8 when it was parsed.
            producer: std::str::from_utf8(producer).unwrap_or_default(),
            session: statement.session,
            sequence: statement.sequence,
            previous: statement.previous,
            skipped_from: statement.skipped_from,
            task: statement.task,
            body: statement.body,
            breach: statement.breach,
        }
    }
}

/// Returns the offset of the payload in an entry: behind the type (2 bytes), its own tag and its
/// length.
fn payload_offset(entry: &[u8], payload: &[u8]) -> usize {
    let offset = 3 + prost::length_delimiter_len(payload.len());
    debug_assert_eq!(&entry[offset..offset + payload.len()], payload);
    offset
}

/// Returns the offset of a slice that was borrowed from `whole`.
fn offset_of(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr() - whole.as_ptr().addr()
}
