//! Admission: everything about a statement that can be checked without its session's state, done
//! by many threads at once.
//!
//! What leaves here is either refused for good, or only its session and the ledger's trust state
//! can still refuse it. The entry is written here, once, and hashed here: the shard copies it and
//! never looks inside. (Trust statements are the exception: their entries name the one before
//! them, which only the shard knows.)
//!
//! ```text
//! admit: canonical form, whose key, entry, leaf hash      -> Admitting
//!        signatures, in parallel                          -> Admitting::refuse
//!        policies that authorities signed, compiled        -> Admitting::refuse_policy
//!        batches: what the manifest says of its statements -> Admitting::finish
//! ```

mod batch;
mod contents;
mod signatures;

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use deed_evidence::{
    CommitmentDigest, KeyId, LedgerId, Micros, PAYLOAD_BYTES_MAX, PayloadDigest, PrincipalHash,
    Problem, RULES_ASSESSED, Sequence, SessionId, TaskId, WireError,
    assess::said::Said,
    batch::Manifest,
    entry::{Entry, KeyedSignature, OVERHEAD_BYTES_MAX},
    session::{BatchStep, Binding},
    statement::{self, BodyKind, Breach, Header},
    trust::{self, Reference, TrustStatement},
};
use deed_proto::v1::{self, PayloadType, rejection::Reason};
use deed_tlog::{Hash, PublicKey, leaf_hash};
use parking_lot::RwLock;

use crate::{
    content::{SharedGate, State},
    identity::log_signers::LogSigners,
};
pub(crate) use contents::{Attached, Contents};

/// Most envelopes of a request: a batch manifest and its 4,096 statements.
pub(crate) const ENVELOPES_MAX: usize = 4097;

/// Most bytes of all payloads and attachments of a request.
pub(crate) const REQUEST_PAYLOAD_BYTES_MAX: usize = 4 << 20;

/// Most trust statements of a request.
const TRUST_STATEMENTS_MAX: usize = 256;

/// Most PolicySets of a request: each may take a fifth of a second to compile.
const POLICY_SETS_MAX: usize = 4;

/// Whether a payload, if it is canonical, is an authority's: after the ledger id (34 bytes with
/// tag and length) stands the authorities' producer, which nobody else may name.
pub(crate) fn is_trust_shaped(payload: &[u8]) -> bool {
    let producer = statement::AUTHORITY_PRODUCER.as_bytes();
    let after_ledger_id = payload.get(34..).unwrap_or_default();
    match after_ledger_id {
        [0x12, length, rest @ ..] => {
            usize::from(*length) == producer.len() && rest.starts_with(producer)
        }
        _ => false,
    }
}

/// PolicySets of a request, by their envelopes.
pub(crate) type PolicySets = Vec<(usize, TrustStatement)>;

/// Who sends a request, as far as admission asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sender {
    /// `None` if nobody has to say who they are here.
    pub(crate) principal: Option<Arc<str>>,
    /// May deliver producers' statements.
    pub(crate) may_append: bool,
    /// May deliver trust statements.
    pub(crate) may_change_trust: bool,
}

impl Sender {
    /// Anybody, where access is not controlled.
    pub(crate) fn anybody() -> Self {
        Self {
            principal: None,
            may_append: true,
            may_change_trust: true,
        }
    }
}

/// How an admitted payload's author is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Authorship {
    Unsigned,
    /// By its own signature.
    Signed(KeyId),
    /// By the signature of the manifest before it.
    Batched(KeyId),
}

impl Authorship {
    pub(crate) fn key(self) -> Option<KeyId> {
        match self {
            Self::Unsigned => None,
            Self::Signed(key) | Self::Batched(key) => Some(key),
        }
    }
}

/// What an admitted payload is.
#[derive(Debug)]
pub(crate) enum Kind {
    Statement,
    /// A manifest; the statements that follow it stand or fall with it.
    Manifest(BatchStep),
    Trust(Box<TrustStatement>),
}

/// A payload that only its session and the ledger's trust state can still refuse.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// Position of its envelope in the request.
    pub(crate) envelope: usize,
    pub(crate) kind: Kind,
    /// Of the entry as it was written here: not of a trust statement's final one.
    pub(crate) leaf_hash: Hash,
    /// Computed where the session's next state, the next statement or the assessment will need it.
    pub(crate) payload_digest: Option<PayloadDigest>,
    pub(crate) authorship: Authorship,
    /// The leaf that lets the sender speak for the producer.
    pub(crate) principal_leaf: Option<u64>,
    /// In the batch's buffer.
    entry: Range<usize>,
    payload: Range<usize>,
    producer: Range<usize>,
    session: SessionId,
    sequence: Sequence,
    previous: Option<PayloadDigest>,
    skipped_from: Option<Sequence>,
    task: Option<TaskId>,
    body: BodyKind,
    /// Judged in the step, by the rules at its leaf: what was recorded before is a duplicate still.
    breach: Option<Breach>,
    /// What it says, where that is assessed.
    pub(crate) said: Option<Said>,
    /// In the batch's references.
    references: Range<usize>,
}

/// A content that an Erasure names, as it was found under the ledger's content gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Erasable {
    pub(crate) content: CommitmentDigest,
    pub(crate) state: State,
    /// The statements that commit to it: for each task the newest.
    pub(crate) references: Vec<Reference>,
}

/// The payloads of one request that were admitted.
#[derive(Debug, Default)]
pub(crate) struct AdmittedBatch {
    /// Entries, one after the other.
    buffer: Vec<u8>,
    statements: Vec<Admitted>,
    received_at: Micros,
    principal: Option<(Arc<str>, PrincipalHash)>,
    /// Contents that are held and that these statements commit to.
    references: Vec<CommitmentDigest>,
    /// What is known of the contents of an Erasure in this batch.
    erasable: Option<Vec<Erasable>>,
    /// Attachments whose content was erased: envelope, content, leaf of the Erasure; sorted.
    erased: Vec<(usize, CommitmentDigest, u64)>,
    /// Keeps what its statements name from being erased or collected, until they are recorded.
    gate: Option<SharedGate>,
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

impl Rejected {
    pub(crate) fn new(reason: Reason, field: &str, message: impl Into<String>) -> Self {
        Self {
            envelope: 0,
            reason,
            message: message.into(),
            field: field.to_owned(),
        }
    }

    pub(crate) fn at(mut self, envelope: usize) -> Self {
        self.envelope = envelope;
        self
    }
}

/// Envelopes on their way through admission: their signatures are not checked yet.
#[derive(Debug)]
pub(crate) struct Admitting {
    batch: AdmittedBatch,
    rejected: Vec<Rejected>,
    contents: Contents,
    /// What is to be verified: with which key, and what was signed.
    signatures: Vec<signatures::Unverified>,
}

/// What admission knows of the ledger.
#[derive(Clone, Copy)]
pub(crate) struct Admission<'a> {
    pub(crate) ledger_id: LedgerId,
    pub(crate) trust: &'a RwLock<trust::Registry>,
    pub(crate) sender: &'a Sender,
    pub(crate) received_at: Micros,
    /// Whether contents are held that statements without attachments may name.
    pub(crate) holds_contents: bool,
    /// The ledger's log keys; `None` where no heads are signed, and so no other key can sign them.
    pub(crate) log_signers: Option<&'a LogSigners>,
}

impl Admission<'_> {
    /// A log key that the server does not have would be the end of the ledger: nobody could sign its
    /// next head. One that signed before passes, so that a statement that is sent again is found to
    /// be a duplicate; else the step refuses it.
    fn check_log_key(&self, statement: &TrustStatement) -> Result<(), Rejected> {
        let TrustStatement::LogKeyRotated { log_key } = statement else {
            return Ok(());
        };
        let trust = self.trust.read();
        let log_keys = trust.log_keys();
        let next = self.log_signers.map(|signers| signers.next(log_keys));
        if log_keys.contains(log_key) || next.as_ref() == Some(log_key) {
            return Ok(());
        }
        let next = next.map_or_else(|| "none".to_owned(), |next| next.to_string());
        let message = format!(
            "the server does not have this key; the next one that it has is {next}: \
             `deed ledger rotate-log-key` takes that"
        );
        let field = "log_key_rotated.log_key.vkey";
        Err(Rejected::new(Reason::TrustRefused, field, message))
    }

    /// Admits the envelopes of one request, all with the same receive time, and checks their
    /// signatures on this thread.
    pub(crate) fn admit_here(self, envelopes: &[v1::Envelope]) -> (AdmittedBatch, Vec<Rejected>) {
        let mut admitting = self.admit(envelopes);
        admitting.verify_here();
        for (envelope, set) in admitting.policies(self.trust) {
            if let Err(error) = set.check_policy() {
                admitting.refuse_policy(envelope, &error);
            }
        }
        let (batch, rejected, _) = admitting.finish();
        (batch, rejected)
    }

    /// Reads envelopes, looks up their keys and writes their entries.
    pub(crate) fn admit(self, envelopes: &[v1::Envelope]) -> Admitting {
        let bytes: usize = envelopes
            .iter()
            .map(|envelope| envelope.payload.len() + OVERHEAD_BYTES_MAX)
            .sum();
        let principal = self.sender.principal.clone();
        let mut admitting = Admitting {
            batch: AdmittedBatch {
                buffer: Vec::with_capacity(bytes.min(2 * REQUEST_PAYLOAD_BYTES_MAX)),
                statements: Vec::with_capacity(envelopes.len()),
                received_at: self.received_at,
                principal: principal.map(|name| {
                    let hash = PrincipalHash::of(&name);
                    (name, hash)
                }),
                references: Vec::new(),
                erasable: None,
                erased: Vec::new(),
                gate: None,
            },
            rejected: Vec::new(),
            contents: Contents::default(),
            signatures: Vec::new(),
        };
        let mut lookup = Lookup {
            admission: self,
            binding: None,
            trust_statements: 0,
            policy_sets: 0,
            assessed: self.trust.read().rules_version() >= RULES_ASSESSED,
        };
        let mut position = 0;
        while position < envelopes.len() {
            position += if envelopes[position].payload_type() == PayloadType::BatchManifest {
                batch::admit(&mut lookup, &mut admitting, envelopes, position)
            } else {
                let single = lookup
                    .may_be_parsed(&envelopes[position].payload)
                    .and_then(|()| lookup.single(&mut admitting, position, &envelopes[position]));
                if let Err(rejected) = single {
                    admitting.rejected.push(rejected.at(position));
                }
                1
            };
        }
        admitting
    }
}

/// Looks up what many envelopes of a request mostly have in common.
struct Lookup<'a> {
    admission: Admission<'a>,
    /// The last producer that was asked about, and the leaf that binds the sender to it.
    binding: Option<(String, u64)>,
    /// Trust statements of the request so far.
    trust_statements: usize,
    /// PolicySets of the request so far.
    policy_sets: usize,
    /// Whether entries are assessed here.
    assessed: bool,
}

impl Lookup<'_> {
    /// Parsing a trust statement decompresses keys: not for whoever may deliver none, and only a
    /// few for anybody.
    fn may_be_parsed(&mut self, payload: &[u8]) -> Result<(), Rejected> {
        if !is_trust_shaped(payload) {
            return Ok(());
        }
        if !self.admission.sender.may_change_trust {
            let message =
                "delivering what an authority says takes the role authority in this ledger";
            return Err(Rejected::new(Reason::PrincipalNotBound, "", message));
        }
        self.trust_statements += 1;
        if self.trust_statements > TRUST_STATEMENTS_MAX {
            let message = format!(
                "a request takes {TRUST_STATEMENTS_MAX} trust statements; send the rest in another"
            );
            return Err(Rejected::new(Reason::Oversized, "", message));
        }
        Ok(())
    }

    /// One envelope that is not part of a batch.
    fn single(
        &mut self,
        admitting: &mut Admitting,
        position: usize,
        envelope: &v1::Envelope,
    ) -> Result<(), Rejected> {
        if envelope.payload_type() != PayloadType::Statement {
            let message = "this payload type is not known here";
            return Err(Rejected::new(Reason::Malformed, "payload_type", message));
        }
        let header = check(&envelope.payload, self.admission.ledger_id)?;
        let by_authority = header.producer == statement::AUTHORITY_PRODUCER;
        let signature = keyed_signature(envelope)?;
        let key = match &signature {
            Some(signature) => Some(self.key(signature.key_id, by_authority)?),
            None if by_authority => {
                let message = "what an authority says must be signed by one of the ledger";
                return Err(Rejected::new(
                    Reason::SignatureRequired,
                    "signature",
                    message,
                ));
            }
            None => None,
        };
        let kind = if header.body.is_trust() {
            let statement = trust_statement(&envelope.payload, self.admission.ledger_id)?;
            self.admission.check_log_key(&statement)?;
            if matches!(statement, TrustStatement::PolicySet { .. }) {
                self.policy_sets += 1;
                if self.policy_sets > POLICY_SETS_MAX {
                    let message = format!(
                        "a request takes {POLICY_SETS_MAX} PolicySets; send the rest in another"
                    );
                    return Err(Rejected::new(Reason::Oversized, "", message));
                }
            }
            Kind::Trust(Box::new(statement))
        } else {
            Kind::Statement
        };
        let principal_leaf = self.principal_leaf(header.producer)?;
        admitting.take_contents(position, envelope, self.admission.holds_contents)?;
        let authorship = key
            .as_ref()
            .map_or(Authorship::Unsigned, |(id, _)| Authorship::Signed(*id));
        // Before anything is pushed: what is pushed must have its signature verified.
        let said = self.said(&envelope.payload)?;
        admitting.batch.push(
            Entry {
                principal_leaf,
                ..match signature {
                    Some(signature) => {
                        Entry::signed(&envelope.payload, signature, self.admission.received_at)
                    }
                    None => Entry::unsigned(&envelope.payload, self.admission.received_at),
                }
            },
            position,
            kind,
            authorship,
            &header,
            said,
        );
        if let (Some((_, key)), Some(signature)) = (key, signature) {
            admitting.signatures.push(signatures::Unverified {
                envelope: position,
                key,
                payload_type: PayloadType::Statement,
                payload: envelope.payload.clone(),
                signature: *signature.signature,
            });
        }
        Ok(())
    }

    /// Reads what a statement says, where that is assessed: here, where many threads can do it, and
    /// not in the step.
    fn said(&self, payload: &Bytes) -> Result<Option<Said>, Rejected> {
        if !self.assessed {
            return Ok(None);
        }
        let said = Said::read(payload).map_err(|error| malformed(&error))?;
        Ok(Some(said))
    }

    /// The key that signed. Whether it is in force is judged in the step, at the leaf.
    fn key(&self, key_id: &[u8; 16], by_authority: bool) -> Result<(KeyId, PublicKey), Rejected> {
        let id = KeyId::new(*key_id);
        let trust = self.admission.trust.read();
        let key = if by_authority {
            trust.was_authority(id)
        } else {
            trust.key(id).map(|record| &record.public_key)
        };
        if let Some(key) = key {
            return Ok((id, key.clone()));
        }
        Err(if trust.was_authority(id).is_some() {
            let message = "an authority's key signs trust statements only; register a key of its \
                           own for the producer";
            Rejected::new(Reason::KeyNotAllowed, "key_id", message)
        } else if trust.key(id).is_some() {
            let message = format!("key {id} is not an authority of this ledger");
            Rejected::new(Reason::KeyNotAllowed, "key_id", message)
        } else {
            let message = format!(
                "key {id} is not registered in this ledger; an authority registers it with \
                 `deed key register`"
            );
            Rejected::new(Reason::KeyUnknown, "key_id", message)
        })
    }

    /// The leaf that binds the sender to a producer; `None` where nobody has to say who they are,
    /// and for what an authority says, which speaks for itself.
    fn principal_leaf(&mut self, producer: &str) -> Result<Option<u64>, Rejected> {
        let Admission { sender, trust, .. } = self.admission;
        if producer == statement::AUTHORITY_PRODUCER {
            if sender.may_change_trust {
                return Ok(None);
            }
            let message =
                "delivering what an authority says takes the role authority in this ledger";
            return Err(Rejected::new(Reason::PrincipalNotBound, "", message));
        }
        if !sender.may_append {
            let message = "delivering this statement takes the role append in this ledger";
            return Err(Rejected::new(Reason::PrincipalNotBound, "", message));
        }
        let Some(principal) = &sender.principal else {
            return Ok(None);
        };
        if let Some((last, leaf)) = &self.binding
            && last == producer
        {
            return Ok(Some(*leaf));
        }
        // Whether it is in force is judged in the step, after the session was asked: what was
        // recorded before it ended is a duplicate still.
        let bound = trust.read().last_binding(principal, producer);
        let leaf = bound.map(deed_tlog::LeafIndex::get).ok_or_else(|| {
            let message = format!(
                "{principal} is not bound to this producer; an authority binds it with `deed \
                 principal bind`"
            );
            Rejected::new(Reason::PrincipalNotBound, "producer", message)
        })?;
        self.binding = Some((producer.to_owned(), leaf));
        Ok(Some(leaf))
    }
}

fn check(payload: &[u8], ledger_id: LedgerId) -> Result<Header<'_>, Rejected> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        let message = format!(
            "the payload has {} bytes, more than {PAYLOAD_BYTES_MAX}: commit to what is large \
             instead of carrying it",
            payload.len()
        );
        return Err(Rejected::new(Reason::Oversized, "payload", message));
    }
    let header = statement::parse(payload).map_err(|error| malformed(&error))?;
    if header.body.is_ledgers() {
        let message = "only the ledger itself writes this body";
        return Err(Rejected::new(
            Reason::BodyNotAccepted,
            header.body.name(),
            message,
        ));
    }
    if header.ledger_id != Some(ledger_id) {
        return Err(wrong_ledger(ledger_id));
    }
    Ok(header)
}

fn malformed(error: &WireError) -> Rejected {
    let reason = match error.problem {
        Problem::UnknownBody { .. } => Reason::BodyNotAccepted,
        Problem::Policy(_) => Reason::PolicyInvalid,
        _ => Reason::Malformed,
    };
    Rejected::new(reason, &error.field, error.problem.to_string())
}

fn wrong_ledger(ledger_id: LedgerId) -> Rejected {
    let message = format!("the statement is for another ledger; this one has the id {ledger_id}");
    Rejected::new(Reason::WrongLedger, "ledger_id", message)
}

/// The trust statement of a payload, with its own proofs checked.
fn trust_statement(payload: &Bytes, ledger_id: LedgerId) -> Result<TrustStatement, Rejected> {
    let statement = TrustStatement::parse(payload)
        .map_err(|error| malformed(&error))?
        .ok_or_else(|| Rejected::new(Reason::Malformed, "body", "is not a trust statement"))?;
    statement.verify_possession(ledger_id).map_err(|error| {
        let field = "key_registered.possession";
        Rejected::new(Reason::TrustRefused, field, error.to_string())
    })?;
    Ok(statement)
}

/// The key id and signature of an envelope, if it has both or neither.
fn keyed_signature(envelope: &v1::Envelope) -> Result<Option<KeyedSignature<'_>>, Rejected> {
    let (key_id, signature) = (&envelope.key_id[..], &envelope.signature[..]);
    if key_id.is_empty() && signature.is_empty() {
        return Ok(None);
    }
    let wrong = |field, found: usize, wanted: usize| {
        let message = format!("{found} bytes where {wanted} are wanted");
        Rejected::new(Reason::Malformed, field, message)
    };
    Ok(Some(KeyedSignature {
        key_id: key_id
            .try_into()
            .map_err(|_| wrong("key_id", key_id.len(), 16))?,
        signature: signature
            .try_into()
            .map_err(|_| wrong("signature", signature.len(), 64))?,
    }))
}

impl Admitted {
    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    pub(crate) fn task(&self) -> Option<TaskId> {
        self.task
    }
}

impl Admitting {
    /// PolicySets whose signatures have been verified, by keys that are authorities now. (Another is
    /// refused in the step, or was recorded before: nobody has to compile it.)
    pub(crate) fn policies(&self, trust: &RwLock<trust::Registry>) -> PolicySets {
        debug_assert!(self.signatures.is_empty(), "every signature was looked at");
        let sets = self.batch.statements.iter().filter_map(|statement| {
            let Kind::Trust(said) = &statement.kind else {
                return None;
            };
            let signer = statement.authorship.key()?;
            let is_set = matches!(**said, TrustStatement::PolicySet { .. });
            let is_refused = |rejected: &Rejected| rejected.envelope == statement.envelope;
            if !is_set || self.rejected.iter().any(is_refused) {
                return None;
            }
            trust.read().is_authority(signer)?;
            Some((statement.envelope, (**said).clone()))
        });
        sets.collect()
    }

    /// Refuses a PolicySet by which nobody could judge.
    pub(crate) fn refuse_policy(&mut self, envelope: usize, error: &WireError) {
        self.rejected.push(malformed(error).at(envelope));
    }

    /// Ends admission: refuses what was signed by nobody, and all of a batch with it.
    pub(crate) fn finish(mut self) -> (AdmittedBatch, Vec<Rejected>, Contents) {
        debug_assert!(self.signatures.is_empty(), "every signature was looked at");
        batch::refuse_whole(&mut self.batch.statements, &mut self.rejected);
        self.rejected.sort_by_key(|rejected| rejected.envelope);
        if !self.contents.is_empty() && !self.rejected.is_empty() {
            let admitted = self.batch.statements.iter();
            let admitted: Vec<_> = admitted.map(|statement| statement.envelope).collect();
            self.contents.retain(&admitted);
        }
        self.batch.digest_payloads();
        (self.batch, self.rejected, self.contents)
    }
}

impl AdmittedBatch {
    /// Adds a payload; `header` must be borrowed from this very payload.
    fn push(
        &mut self,
        entry: Entry<'_>,
        envelope: usize,
        kind: Kind,
        authorship: Authorship,
        header: &Header<'_>,
        said: Option<Said>,
    ) {
        // An Outcome will name it.
        let assessed_intent = said.is_some() && header.body == BodyKind::Intent;
        let payload_digest = assessed_intent.then(|| PayloadDigest::of(entry.payload));
        let (written, payload) = self.write(&entry);
        let producer_at = payload.start + offset_of(entry.payload, header.producer.as_bytes());
        self.statements.push(Admitted {
            envelope,
            leaf_hash: leaf_hash(&self.buffer[written.clone()]),
            payload_digest,
            kind,
            authorship,
            principal_leaf: entry.principal_leaf,
            payload,
            producer: producer_at..producer_at + header.producer.len(),
            entry: written,
            session: header.session,
            sequence: header.sequence,
            previous: header.previous,
            skipped_from: header.skipped_from,
            task: header.task,
            body: header.body,
            breach: header.breach,
            said,
            references: 0..0,
        });
    }

    /// Notes which contents that are held the statements commit to: envelope and digest, sorted by
    /// envelope.
    pub(crate) fn set_references(&mut self, held: Vec<(usize, CommitmentDigest)>) {
        let mut begin = 0;
        for statement in &mut self.statements {
            let behind = &held[begin..];
            let skipped = behind.partition_point(|(envelope, _)| *envelope < statement.envelope);
            let own = behind[skipped..].partition_point(|(at, _)| *at == statement.envelope);
            statement.references = begin + skipped..begin + skipped + own;
            begin += skipped + own;
        }
        self.references = held.into_iter().map(|(_, digest)| digest).collect();
    }

    /// The contents that are held and that a statement commits to.
    pub(crate) fn references(&self, statement: &Admitted) -> &[CommitmentDigest] {
        &self.references[statement.references.clone()]
    }

    /// Notes which attachments bring back what was erased: envelope, content, leaf of the Erasure;
    /// sorted by envelope.
    pub(crate) fn set_erased(&mut self, erased: Vec<(usize, CommitmentDigest, u64)>) {
        self.erased = erased;
    }

    /// An attachment of the statement that was erased, by the entry at that leaf.
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

    /// Brings what is known of the contents that an Erasure in this batch names.
    pub(crate) fn set_erasable(&mut self, known: Vec<Erasable>) {
        self.erasable = Some(known);
    }

    /// What [`AdmittedBatch::set_erasable`] brought.
    pub(crate) fn erasable(&self) -> Option<&[Erasable]> {
        self.erasable.as_deref()
    }

    /// Holds a ledger's content gate until the batch is recorded.
    pub(crate) fn set_gate(&mut self, gate: SharedGate) {
        self.gate = Some(gate);
    }

    /// Lets go of the gate: what its statements name is noted where an erasure looks.
    pub(crate) fn release_gate(&mut self) {
        self.gate = None;
    }

    /// Leaves a statement as if its ledger had assessed nothing when it was admitted, and its bytes could
    /// not be read.
    #[cfg(test)]
    pub(crate) fn spoil(&mut self, position: usize) {
        let statement = &mut self.statements[position];
        statement.said = None;
        statement.payload.end -= 1;
    }

    /// Adds a batch manifest. It has no place in the session; its statements have.
    fn push_manifest(
        &mut self,
        entry: Entry<'_>,
        envelope: usize,
        step: BatchStep,
        authorship: Authorship,
        manifest: &Manifest,
    ) {
        let (written, payload) = self.write(&entry);
        self.statements.push(Admitted {
            envelope,
            leaf_hash: leaf_hash(&self.buffer[written.clone()]),
            payload_digest: None,
            kind: Kind::Manifest(step),
            authorship,
            principal_leaf: entry.principal_leaf,
            producer: payload.start..payload.start,
            payload,
            entry: written,
            session: manifest.session,
            sequence: manifest.first_sequence,
            previous: None,
            skipped_from: None,
            task: None,
            body: BodyKind::Heartbeat,
            breach: None,
            said: None,
            references: 0..0,
        });
    }

    /// Writes an entry; where it is, and the payload in it.
    fn write(&mut self, entry: &Entry<'_>) -> (Range<usize>, Range<usize>) {
        let begin = self.buffer.len();
        entry.encode_into(&mut self.buffer);
        let written = begin..self.buffer.len();
        let payload = begin + payload_offset(&self.buffer[written.clone()], entry.payload);
        (written, payload..payload + entry.payload.len())
    }

    /// Hashes the payloads whose digests the step will need: the last one of each session, and
    /// those that a later statement names as `previous`. (The step computes any other that it
    /// turns out to need.)
    fn digest_payloads(&mut self) {
        for position in (0..self.statements.len()).rev() {
            let statement = &self.statements[position];
            if matches!(statement.kind, Kind::Manifest(_))
                || matches!(statement.authorship, Authorship::Batched(_))
            {
                // Checking the batch has computed what its session needs.
                continue;
            }
            // Sessions mostly come in one piece, so the next statement tells.
            let needed = self.statements.get(position + 1).is_none_or(|next| {
                next.session != statement.session
                    || next.previous.is_some()
                    || matches!(next.kind, Kind::Manifest(_))
            });
            if needed {
                let payload = &self.buffer[statement.payload.clone()];
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

    /// Whom a session belongs to that begins with this statement, and by whom it may be continued.
    pub(crate) fn binding(&self, statement: &Admitted) -> Binding {
        match (statement.authorship.key(), &self.principal) {
            (Some(key), _) => Binding::Key(key),
            (None, Some((_, hash))) => Binding::Principal(*hash),
            (None, None) => Binding::Nobody,
        }
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
            task: statement.task,
            body: statement.body,
            breach: statement.breach,
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
