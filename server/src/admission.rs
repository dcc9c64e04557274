//! Admission: everything about a statement that can be checked without the ledger's state, done
//! by many threads at once.
//!
//! What leaves here is either refused for good, or only its place in its session is still open.
//! The entry is written here, once, and hashed here: the shard copies it and never looks inside.

use std::ops::Range;

use bytes::Bytes;
use deed_evidence::{
    LedgerId, Micros, PAYLOAD_BYTES_MAX, PayloadDigest, Problem, Sequence, SessionId,
    entry::{Entry, OVERHEAD_BYTES_MAX},
    statement::{self, BodyKind, Header},
};
use deed_proto::v1::{self, rejection::Reason};
use deed_tlog::{Hash, leaf_hash};

/// Most envelopes of a request.
pub(crate) const ENVELOPES_MAX: usize = 4096;

/// Most bytes of all payloads of a request.
pub(crate) const REQUEST_PAYLOAD_BYTES_MAX: usize = 4 << 20;

/// A statement that only its session can still refuse.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// Position of its envelope in the request.
    pub(crate) envelope: usize,
    pub(crate) leaf_hash: Hash,
    /// Computed where the session's next state, or the next statement, will need it.
    pub(crate) payload_digest: Option<PayloadDigest>,
    /// In the batch's buffer.
    entry: Range<usize>,
    payload: Range<usize>,
    producer: Range<usize>,
    session: SessionId,
    sequence: Sequence,
    previous: Option<PayloadDigest>,
    skipped_from: Option<Sequence>,
    body: BodyKind,
}

/// The statements of one request that were admitted.
#[derive(Debug, Default)]
pub(crate) struct AdmittedBatch {
    /// Entries, one after the other.
    buffer: Vec<u8>,
    statements: Vec<Admitted>,
    received_at: Micros,
}

/// An envelope that is not recorded, whatever its session says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejected {
    /// Position of its envelope in the request.
    pub(crate) envelope: usize,
    pub(crate) reason: Reason,
    pub(crate) message: String,
    /// Path of the field; empty if it is none of them.
    pub(crate) field: String,
}

/// Admits the envelopes of one request, all with the same receive time.
pub(crate) fn admit(
    envelopes: &[v1::Envelope],
    ledger_id: LedgerId,
    received_at: Micros,
) -> (AdmittedBatch, Vec<Rejected>) {
    let bytes: usize = envelopes
        .iter()
        .map(|envelope| envelope.payload.len() + OVERHEAD_BYTES_MAX)
        .sum();
    let mut batch = AdmittedBatch {
        buffer: Vec::with_capacity(bytes.min(2 * REQUEST_PAYLOAD_BYTES_MAX)),
        statements: Vec::with_capacity(envelopes.len()),
        received_at,
    };
    let mut rejected = Vec::new();
    for (position, envelope) in envelopes.iter().enumerate() {
        match check(envelope, ledger_id) {
            Ok(header) => batch.push(position, &envelope.payload, &header),
            Err(mut rejection) => {
                rejection.envelope = position;
                rejected.push(rejection);
            }
        }
    }
    batch.digest_payloads();
    (batch, rejected)
}

fn check(envelope: &v1::Envelope, ledger_id: LedgerId) -> Result<Header<'_>, Rejected> {
    let refuse = |reason, field: &str, message: String| Rejected {
        envelope: 0,
        reason,
        message,
        field: field.to_owned(),
    };
    if envelope.payload_type() != v1::PayloadType::Statement {
        let message = "only payloads of type PAYLOAD_TYPE_STATEMENT are accepted".to_owned();
        return Err(refuse(Reason::Malformed, "payload_type", message));
    }
    if !envelope.signature.is_empty() || !envelope.key_id.is_empty() {
        let field = if envelope.signature.is_empty() {
            "key_id"
        } else {
            "signature"
        };
        let message = "signed statements are not accepted in this version; leave key_id and \
                       signature empty"
            .to_owned();
        return Err(refuse(Reason::SignatureNotAccepted, field, message));
    }
    if envelope.payload.len() > PAYLOAD_BYTES_MAX {
        let message = format!(
            "the payload has {} bytes, more than {PAYLOAD_BYTES_MAX}: commit to what is large \
             instead of carrying it",
            envelope.payload.len()
        );
        return Err(refuse(Reason::Oversized, "payload", message));
    }
    let header = statement::parse(&envelope.payload).map_err(|error| {
        let reason = match error.problem {
            Problem::UnknownBody { .. } => Reason::BodyNotAccepted,
            _ => Reason::Malformed,
        };
        refuse(reason, &error.field, error.problem.to_string())
    })?;
    if header.body == BodyKind::Genesis {
        let message = "only the ledger itself writes this body".to_owned();
        return Err(refuse(Reason::BodyNotAccepted, "genesis", message));
    }
    if header.ledger_id != Some(ledger_id) {
        let message =
            format!("the statement is for another ledger; this one has the id {ledger_id}");
        return Err(refuse(Reason::WrongLedger, "ledger_id", message));
    }
    Ok(header)
}

impl AdmittedBatch {
    /// Adds a statement; `header` must be borrowed from this very `payload`.
    fn push(&mut self, envelope: usize, payload: &Bytes, header: &Header<'_>) {
        let begin = self.buffer.len();
        Entry::unsigned(payload, self.received_at).encode_into(&mut self.buffer);
        let entry = begin..self.buffer.len();
        let written = &self.buffer[entry.clone()];
        let payload_at = begin + payload_offset(written, payload);
        let producer_at = payload_at + offset_of(payload, header.producer.as_bytes());
        self.statements.push(Admitted {
            envelope,
            leaf_hash: leaf_hash(written),
            payload_digest: None,
            payload: payload_at..payload_at + payload.len(),
            producer: producer_at..producer_at + header.producer.len(),
            entry,
            session: header.session,
            sequence: header.sequence,
            previous: header.previous,
            skipped_from: header.skipped_from,
            body: header.body,
        });
    }

    /// Admits again what a log holds already: an entry of a statement, as it was written.
    #[cfg(test)]
    pub(crate) fn from_entry(bytes: &[u8]) -> Result<Self, Box<dyn std::error::Error>> {
        let entry = Entry::parse(bytes)?;
        let payload = Bytes::copy_from_slice(entry.payload);
        let header = statement::parse(&payload)?;
        let mut batch = Self {
            received_at: entry.received_at,
            ..Self::default()
        };
        batch.push(0, &payload, &header);
        Ok(batch)
    }

    /// Hashes the payloads whose digests the step will need: the last one of each session, and
    /// those that a later statement names as `previous`. (The step computes any other that it
    /// turns out to need.)
    fn digest_payloads(&mut self) {
        for position in (0..self.statements.len()).rev() {
            let session = self.statements[position].session;
            // Sessions mostly come in one piece, so the next statement tells.
            let needed = self
                .statements
                .get(position + 1)
                .is_none_or(|next| next.session != session || next.previous.is_some());
            if needed {
                let payload = &self.buffer[self.statements[position].payload.clone()];
                self.statements[position].payload_digest = Some(PayloadDigest::of(payload));
            }
        }
    }

    pub(crate) fn statements(&self) -> &[Admitted] {
        &self.statements
    }

    /// Bytes of all its entries.
    pub(crate) fn byte_len(&self) -> usize {
        self.buffer.len()
    }

    pub(crate) fn received_at(&self) -> Micros {
        self.received_at
    }

    pub(crate) fn entry(&self, statement: &Admitted) -> &[u8] {
        &self.buffer[statement.entry.clone()]
    }

    pub(crate) fn payload(&self, statement: &Admitted) -> &[u8] {
        &self.buffer[statement.payload.clone()]
    }

    /// The header again, as far as a session's rules look at it.
    pub(crate) fn header(&self, statement: &Admitted, ledger_id: LedgerId) -> Header<'_> {
        let producer = &self.buffer[statement.producer.clone()];
        Header {
            ledger_id: Some(ledger_id),
            // It was UTF-8 when it was parsed.
            producer: std::str::from_utf8(producer).unwrap_or_default(),
            session: statement.session,
            sequence: statement.sequence,
            previous: statement.previous,
            skipped_from: statement.skipped_from,
            occurred_at: Micros::new(0),
            task: None,
            body: statement.body,
        }
    }
}

/// Where the payload stands in an entry: after the type (2 bytes), its own tag and its length.
fn payload_offset(entry: &[u8], payload: &[u8]) -> usize {
    let offset = 3 + prost::length_delimiter_len(payload.len());
    debug_assert_eq!(&entry[offset..offset + payload.len()], payload);
    offset
}

/// Offset of a slice that was borrowed from `whole`.
fn offset_of(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr() - whole.as_ptr().addr()
}
