//! Admission: everything about a statement that can be checked without its session's state, done
//! by many threads at once.
//!
//! A statement that leaves here is refused for good, or only its session and the ledger's trust
//! state can still refuse it. The entry is written and hashed here, once: the shard copies it and
//! never looks inside. (Trust statements are the exception: their entries name the trust statement
//! before them, which only the shard knows.)
//!
//! ```text
//! admit: canonical form, whose key, entry, leaf hash      -> Admitting
//!        signatures, in parallel                          -> Admitting::refuse
//!        policies that authorities signed, compiled        -> Admitting::refuse_policy
//!        batches: what the manifest says of its statements -> Admitting::finish
//! ```

mod admitted;
mod batch;
mod contents;
mod encoding;
#[cfg(test)]
mod encoding_tests;
mod signatures;

use std::sync::Arc;

use bytes::Bytes;
use deed_evidence::{
    KeyId, LedgerId, Micros, PAYLOAD_BYTES_MAX, Problem, RULES_ASSESSED, WireError,
    assess::body::ParsedBody,
    entry::{Entry, KeyedSignature, OVERHEAD_BYTES_MAX},
    statement::{self, Header},
    trust::{self, TrustStatement},
};
use deed_proto::v1::{self, PayloadType, rejection::Reason};
use deed_tlog::PublicKey;
use parking_lot::RwLock;

use crate::identity::log_signers::LogSigners;
pub use admitted::{
    Admitted, AdmittedBatch, AdmittedPayload, Authorship, Erasable, Piece, Rejected, StatementBatch,
};
pub use contents::{Attached, Contents};

/// Most envelopes of a request: a batch manifest and its 4,096 statements.
pub(crate) const ENVELOPES_MAX: usize = 4097;

/// Most bytes of all payloads and attachments of a request.
pub(crate) const REQUEST_PAYLOAD_BYTES_MAX: usize = 4 << 20;

/// Most trust statements of a request.
const TRUST_STATEMENTS_MAX: usize = 256;

/// Most PolicySets of a request: each may take a fifth of a second to compile.
const POLICY_SETS_MAX: usize = 4;

/// Returns true if a payload that is canonical is an authority's: behind the ledger id (34 bytes
/// with tag and length) it has the authorities' producer, which nobody else may name.
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

/// The sender of a request, as far as admission needs to know.
#[derive(Debug, Clone, Default)]
pub struct Sender {
    /// `None` if senders need not say who they are.
    pub principal: Option<Arc<str>>,
    /// True if the sender may deliver producers' statements.
    pub may_append: bool,
    /// True if the sender may deliver trust statements.
    pub may_change_trust: bool,
}

impl Sender {
    /// Returns a sender who may deliver everything, for servers without access control.
    pub fn anybody() -> Self {
        Self {
            principal: None,
            may_append: true,
            may_change_trust: true,
        }
    }
}

/// Envelopes in the middle of their admission: their signatures are not checked yet.
#[derive(Debug)]
pub(crate) struct Admitting {
    batch: AdmittedBatch,
    rejected: Vec<Rejected>,
    contents: Contents,
    /// The signatures to be verified, each with its key and the signed bytes.
    signatures: Vec<signatures::Unverified>,
}

/// The circumstances in which a request is admitted.
#[derive(Clone, Copy)]
pub(crate) struct Admission<'a> {
    pub ledger_id: LedgerId,
    pub trust: &'a RwLock<trust::TrustState>,
    pub sender: &'a Sender,
    pub received_at: Micros,
    /// True if contents are held that statements without attachments may name.
    pub(crate) holds_contents: bool,
    /// The ledger's log keys; `None` if no heads are signed here, and then no new log key is
    /// accepted.
    pub(crate) log_signers: Option<&'a LogSigners>,
}

impl Admission<'_> {
    /// Refuses a log key that the server does not have: it would end the ledger, because nobody
    /// could sign the next head. A key that signed before is accepted, so that a statement that is
    /// sent again is found to be a duplicate; otherwise the step refuses it.
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
        let mut admitting = Admitting {
            batch: AdmittedBatch::with_capacity(
                bytes.min(2 * REQUEST_PAYLOAD_BYTES_MAX),
                self.received_at,
                self.sender.principal.clone(),
            ),
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
                // Not before the loop, because a batch takes one piece for all its statements.
                admitting.batch.pieces.reserve(envelopes.len() - position);
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

/// Looks up what the envelopes of a request mostly have in common.
struct Lookup<'a> {
    admission: Admission<'a>,
    /// The producer that was looked up last, and the leaf that binds the sender to it.
    binding: Option<(String, u64)>,
    /// Trust statements of the request so far.
    trust_statements: usize,
    /// PolicySets of the request so far.
    policy_sets: usize,
    /// True if the ledger's rules assess entries.
    assessed: bool,
}

impl Lookup<'_> {
    /// Fails if a trust statement must not be parsed, because that decompresses keys: its sender
    /// may deliver none, or the request has too many of them.
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

    /// Admits one envelope that is not part of a batch.
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
        let trust = if header.body.is_trust() {
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
            Some(Box::new(statement))
        } else {
            None
        };
        let principal_leaf = self.principal_leaf(header.producer)?;
        admitting.take_contents(position, envelope, &header, self.admission.holds_contents)?;
        let authorship = key
            .as_ref()
            .map_or(Authorship::Unsigned, |(id, _)| Authorship::Signed(*id));
        // This comes before the push, because every pushed statement must have its signature
        // verified.
        let said = self.said(&envelope.payload)?;
        let statement = admitting.batch.write_statement(
            &Entry {
                principal_leaf,
                ..match signature {
                    Some(signature) => {
                        Entry::signed(&envelope.payload, signature, self.admission.received_at)
                    }
                    None => Entry::unsigned(&envelope.payload, self.admission.received_at),
                }
            },
            position,
            authorship,
            &header,
            said,
        );
        admitting.batch.pieces.push(Piece::Single(statement, trust));
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

    /// Parses a statement's body if the ledger's rules assess it: here, where many threads can do
    /// it, and not in the step.
    fn said(&self, payload: &Bytes) -> Result<Option<ParsedBody>, Rejected> {
        if !self.assessed {
            return Ok(None);
        }
        let said = ParsedBody::read(payload).map_err(|error| malformed(&error))?;
        Ok(Some(said))
    }

    /// Returns the key that signed. The step judges at the leaf whether it is in force.
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

    /// Returns the leaf that binds the sender to a producer; `None` if senders need not say who
    /// they are, and for authorities' statements, which need no binding.
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
        // The step judges whether the binding is in force, after it has looked at the session: a
        // statement that was recorded before the binding ended is still a duplicate.
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

/// Returns the trust statement of a payload, after checking its own proofs.
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

/// Returns the key id and signature of an envelope; `None` if it has neither.
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

impl Admitting {
    /// Returns the PolicySets that are signed by keys that are authorities now; their signatures
    /// have been verified. (Any other is refused in the step, or was recorded before, so nobody has
    /// to compile it.)
    pub(crate) fn policies(&self, trust: &RwLock<trust::TrustState>) -> PolicySets {
        debug_assert!(self.signatures.is_empty(), "every signature was looked at");
        let sets = self.batch.pieces.iter().filter_map(|piece| {
            let Piece::Single(statement, Some(said)) = piece else {
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

    /// Refuses a PolicySet whose policy cannot be used.
    pub(crate) fn refuse_policy(&mut self, envelope: usize, error: &WireError) {
        self.rejected.push(malformed(error).at(envelope));
    }

    /// Ends admission: removes statements whose signatures did not verify, and with one of a batch
    /// the whole batch.
    pub(crate) fn finish(mut self) -> (AdmittedBatch, Vec<Rejected>, Contents) {
        debug_assert!(self.signatures.is_empty(), "every signature was looked at");
        batch::refuse_whole(&mut self.batch.pieces, &mut self.rejected);
        self.rejected.sort_by_key(|rejected| rejected.envelope);
        if !self.contents.is_empty() && !self.rejected.is_empty() {
            let admitted = self.batch.payloads();
            let admitted: Vec<_> = admitted.map(|payload| payload.envelope).collect();
            self.contents.retain(&admitted);
        }
        self.batch.digest_payloads();
        (self.batch, self.rejected, self.contents)
    }
}
