//! Statements as JSON, for people and scripts.
//!
//! The names are those of `deed/v1/statement.proto`. Byte fields are lower hex, enum values short
//! lower-case names (`"succeeded"`, `"payment"`), numbers are JSON numbers. The body stands beside
//! the header under its own name:
//!
//! ```json
//! {"producer": "spiffe://example.org/agent",
//!  "task_opened": {"requested_by": "order-service", "risk_tier": "low"}}
//! ```
//!
//! In place of a commitment (`{"digest": ..., "media_type": ...}`) the content may stand itself, as
//! `{"file": "call.json", "media_type": "application/json"}` or `{"text": "...", "media_type":
//! "text/plain"}`; see [`StatementJson::resolve`].
//!
//! A field that is left out has its default, as in the binary form. An unknown name is an error: a
//! mistyped field must not vanish from evidence.

mod commitment;
mod encoding;
mod hex_bytes;
mod object;

use bytes::Bytes;
use deed_evidence::{LedgerId, Micros, Nonce, Sequence, SessionId, statement::BodyKind};
use deed_proto::{
    rules::{COMMITMENTS, STATEMENT, number},
    v1::{self, statement::Body},
};
use prost::Message as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeSeed as _};
use thiserror::Error;

pub use commitment::{ContentJson, ContentSource};
use object::{Object, ObjectOf, Value};

/// A statement in JSON, read but not completed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementJson(Object);

/// Values for fields that were left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// The ledger.
    pub ledger_id: LedgerId,
    /// Session and sequence, for a statement that names neither.
    pub place: Option<(SessionId, Sequence)>,
    /// The nonce that the session is derived from.
    pub nonce: Option<Nonce>,
    /// The time of the act.
    pub occurred_at: Micros,
}

/// The reason why JSON is no statement.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Not JSON, or not of this form. The message names the field or the column.
    #[error("{reason}")]
    Form {
        /// The mistake.
        reason: String,
    },
    /// No body, or several.
    #[error("a statement has exactly one body ({names}), found {found}", names = body_names().join(", "))]
    Bodies {
        /// The number of bodies.
        found: usize,
    },
    /// Session without sequence, or the other way round.
    #[error("session (or its nonce) and sequence go together: give both or neither")]
    HalfPlace,
    /// No place, and none to fill in.
    #[error("session and sequence are missing")]
    NoPlace,
    /// Two fields of which only one can be there.
    #[error("{body}: give {first} or {second}, not both")]
    NotBoth {
        /// The body that they are in.
        body: &'static str,
        /// The first field.
        first: &'static str,
        /// The second field.
        second: &'static str,
    },
    /// A content where only a copy of a commitment belongs.
    #[error("{slot}: give the digest of the Intent's arguments; a copy is no content of its own")]
    Copy {
        /// The field.
        slot: &'static str,
    },
    /// A commitment needs exactly one of digest and content.
    #[error("{slot}: give exactly one of digest, file and text")]
    Commitment {
        /// The field.
        slot: &'static str,
    },
}

/// Returns the names of the bodies that a producer or an authority writes, without those that only the
/// ledger writes.
fn body_names() -> Vec<&'static str> {
    let said = BodyKind::ALL.iter().filter(|body| !body.is_ledgers());
    said.map(|body| body.name()).collect()
}

impl StatementJson {
    /// Reads one JSON object.
    ///
    /// # Errors
    /// [`JsonError::Form`] names an unknown or malformed field.
    pub fn parse(json: &str) -> Result<Self, JsonError> {
        // The line end is removed, so that the parser sees one line.
        serde_json::from_str(json.trim_end()).map_err(|error| JsonError::Form {
            reason: plain(&error),
        })
    }

    /// Returns true if it says where it belongs: session and sequence.
    ///
    /// # Errors
    /// [`JsonError::HalfPlace`] if it has only one of them.
    pub fn has_place(&self) -> Result<bool, JsonError> {
        let session = self.0.get(number::SESSION).or(self.0.get(number::NONCE));
        match (session, self.0.get(number::SEQUENCE)) {
            (Some(_), Some(_)) => Ok(true),
            (None, None) => Ok(false),
            _ => Err(JsonError::HalfPlace),
        }
    }

    /// Returns the producer.
    #[must_use]
    pub fn producer(&self) -> &str {
        self.0.text(number::PRODUCER).unwrap_or_default()
    }

    /// Returns the session and sequence that it names. A nonce names the session that is derived
    /// from it.
    ///
    /// # Errors
    /// [`JsonError::NoPlace`], [`JsonError::HalfPlace`], [`JsonError::Form`] if the session is no
    /// id of 16 bytes.
    pub fn place(&self, ledger_id: LedgerId) -> Result<(SessionId, Sequence), JsonError> {
        if !self.has_place()? {
            return Err(JsonError::NoPlace);
        }
        let sequence = self.0.number(number::SEQUENCE).unwrap_or_default();
        let session = match self.0.bytes(number::SESSION) {
            Some(session) => SessionId::from_slice(session).ok_or("session"),
            None => {
                let nonce = self.0.bytes(number::NONCE);
                nonce
                    .and_then(|nonce| Nonce::from_slice(nonce))
                    .map(|nonce| SessionId::derive(ledger_id, self.producer(), &nonce))
                    .ok_or("nonce")
            }
        };
        let session = session.map_err(|name| JsonError::Form {
            reason: format!("{name}: must be 16 bytes"),
        })?;
        Ok((session, Sequence::new(sequence)))
    }

    /// Replaces each content that stands in place of a commitment (`{"file": ...}` or
    /// `{"text": ...}`) by the commitment that `commit` makes of it. Not called, such a field is
    /// a commitment without a digest, which no ledger takes.
    ///
    /// # Errors
    /// [`JsonError::Commitment`], or what `commit` fails with.
    pub fn resolve<E: From<JsonError>>(
        &mut self,
        mut commit: impl FnMut(ContentJson) -> Result<v1::Commitment, E>,
    ) -> Result<(), E> {
        for field in COMMITMENTS {
            let Some(Value::Object(body)) = self.0.get_mut(field.body) else {
                continue;
            };
            if let Some(Value::Commitment(commitment)) = body.get_mut(field.field)
                && let Some(content) = commitment.content(field.name)?
            {
                *commitment = commit(content)?.into();
            }
        }
        Ok(())
    }

    /// Fills in what was left out. The rules of the fields are checked when it is encoded
    /// (`deed_evidence::statement::encode`).
    ///
    /// # Errors
    /// [`JsonError`] if it has no place, or not exactly one body.
    pub fn into_statement(mut self, defaults: &Defaults) -> Result<v1::Statement, JsonError> {
        self.fill_in_place(defaults)?;
        if self.0.get(number::LEDGER_ID).is_none() {
            self.set_bytes(number::LEDGER_ID, defaults.ledger_id.as_bytes());
        }
        if self.0.get(number::OCCURRED_AT_US).is_none() {
            let occurred_at = Value::Number(defaults.occurred_at.get().cast_unsigned());
            self.0.set(number::OCCURRED_AT_US, occurred_at);
        }
        self.check_body()?;
        let encoding = encoding::encode(&self.0);
        v1::Statement::decode(Bytes::from(encoding)).map_err(|error| JsonError::Form {
            reason: error.to_string(),
        })
    }

    fn fill_in_place(&mut self, defaults: &Defaults) -> Result<(), JsonError> {
        if !self.has_place()? {
            let (session, sequence) = defaults.place.ok_or(JsonError::NoPlace)?;
            self.set_bytes(number::SESSION, session.as_bytes());
            self.0.set(number::SEQUENCE, Value::Number(sequence.get()));
            if let Some(nonce) = &defaults.nonce {
                self.set_bytes(number::NONCE, nonce.as_bytes());
            }
        } else if self.0.get(number::SESSION).is_none() {
            let (session, _) = self.place(defaults.ledger_id)?;
            self.set_bytes(number::SESSION, session.as_bytes());
        }
        let begins = [number::SEQUENCE, number::SKIPPED_FROM];
        if !begins.iter().any(|field| self.0.number(*field) == Some(0)) {
            // A session's nonce goes into its first statement alone.
            self.0.remove(number::NONCE);
        }
        Ok(())
    }

    fn set_bytes(&mut self, number: u32, bytes: &[u8]) {
        self.0
            .set(number, Value::Bytes(Bytes::copy_from_slice(bytes)));
    }

    /// Checks that there is one body, with at most one field of those that exclude each other.
    fn check_body(&self) -> Result<(), JsonError> {
        let mut bodies = self.0.one_of();
        let (Some((body, Value::Object(object))), 0) = (bodies.next(), bodies.count()) else {
            let found = self.0.one_of().count();
            return Err(JsonError::Bodies { found });
        };
        let mut exclusive = object.one_of().map(|(field, _)| field.name);
        match (exclusive.next(), exclusive.next()) {
            (Some(first), Some(second)) => Err(JsonError::NotBoth {
                body: body.name,
                first,
                second,
            }),
            _ => Ok(()),
        }
    }
}

impl Serialize for StatementJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StatementJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ObjectOf(&STATEMENT).deserialize(deserializer).map(Self)
    }
}

/// Shows a statement with everything that it says.
impl From<v1::Statement> for StatementJson {
    fn from(statement: v1::Statement) -> Self {
        let is_genesis = matches!(statement.body, Some(Body::Genesis(_)));
        // Statements of the ledger itself are in no session.
        let has_place = !statement.session.is_empty();
        let mut json = Self(encoding::decode(
            &STATEMENT,
            statement.encode_to_vec().into(),
        ));
        if is_genesis {
            json.0.remove(number::LEDGER_ID);
        } else {
            json.set_bytes(number::LEDGER_ID, &statement.ledger_id);
        }
        if has_place {
            json.0
                .set(number::SEQUENCE, Value::Number(statement.sequence));
        } else {
            json.0.remove(number::SEQUENCE);
        }
        let occurred_at = Value::Number(statement.occurred_at_us.cast_unsigned());
        json.0.set(number::OCCURRED_AT_US, occurred_at);
        json
    }
}

/// The reason without "at line 1", which says nothing about one line of many.
pub(crate) fn plain(error: &serde_json::Error) -> String {
    let reason = error.to_string();
    match reason.rsplit_once(" at line 1 column ") {
        Some((reason, column)) => format!("{reason}, at column {column}"),
        None => reason,
    }
}
