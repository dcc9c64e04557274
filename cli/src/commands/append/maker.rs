//! Makes statements of lines.

use std::{fs::File, io::Read as _, path::Path};

use bytes::Bytes;
use deed_client::{
    CONTENT_INLINE_BYTES_MAX, Ledger, Session, StateDir, Statement, random_nonce,
    statement_json::{ContentJson, ContentSource, Defaults, JsonError, StatementJson},
};
use deed_evidence::{
    CommitmentDigest, Nonce, PayloadDigest, Sequence, SessionId, TaskId,
    commitment::{Salt, digest_of},
    statement::{self, BodyKind},
};
use deed_proto::v1::{self, statement::Body};

use super::kept::{Kept, Position};
use crate::{
    args::now,
    author::secret,
    failure::{CommandResult, Failure},
};

/// Longest content that is read from a file: the default limit of a server.
const CONTENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Makes one session's statements, or those of the sessions that the lines name.
pub(super) struct Maker {
    ledger: Ledger,
    state: StateDir,
    kept: Option<Kept>,
    /// True if the lines name session and sequence: the first line decides.
    given: Option<bool>,
    /// The position of a session that the lines do not name.
    position: Option<Position>,
    /// The task that was opened last.
    task: Option<TaskId>,
    /// The secret that the salts of contents derive from; read with the first content.
    secret: Option<[u8; 32]>,
}

/// A content that does not travel beside its statement.
struct Ahead {
    digest: CommitmentDigest,
    salt: Salt,
    content: Bytes,
}

impl From<JsonError> for Failure {
    fn from(error: JsonError) -> Self {
        Self::usage(error.to_string())
    }
}

impl Maker {
    pub(super) const fn new(ledger: Ledger, state: StateDir, kept: Option<Kept>) -> Self {
        Self {
            ledger,
            state,
            kept,
            given: None,
            position: None,
            task: None,
            secret: None,
        }
    }

    /// Makes the statement of a line. Stores contents first that are too long to travel with it.
    pub(super) async fn statement(&mut self, line: &str) -> CommandResult<Statement> {
        let mut json = StatementJson::parse(line)?;
        let given = json.has_place()?;
        if given && self.kept.is_some() {
            return Err(Failure::usage(
                "with --session no line may name session and sequence",
            ));
        }
        if *self.given.get_or_insert(given) != given {
            return Err(Failure::usage(
                "either all lines name session and sequence, or none does",
            ));
        }
        let position = if given {
            None
        } else {
            Some(self.position(json.producer())?)
        };
        let (attachments, ahead) = self.contents(&mut json, position)?;
        let defaults = Defaults {
            ledger_id: self.ledger.ledger_id(),
            place: position.map(|position| (position.session, position.next)),
            nonce: position.and_then(|position| position.nonce),
            occurred_at: now(),
        };
        let mut message = json.into_statement(&defaults)?;
        self.name_task(&mut message)?;
        if let Some(from) = position.and_then(|position| position.skipped_from) {
            // Statements for these sequences were refused; no other statement may take their places.
            message.skipped_from = Some(from.get());
            // The first statement that the ledger takes carries the nonce, which proves whose session it
            // is.
            let nonce = position.and_then(|position| position.nonce);
            if let Some(nonce) = nonce.filter(|_| from == Sequence::FIRST) {
                message.nonce = Bytes::copy_from_slice(nonce.as_bytes());
            }
            let previous = position.and_then(|position| position.previous);
            if let Some(previous) = previous {
                message.previous = Bytes::copy_from_slice(previous.as_bytes());
            }
        } else if let Some(previous) = position.and_then(|position| position.previous)
            && message.previous.is_empty()
            && message.skipped_from.is_none()
        {
            message.previous = Bytes::copy_from_slice(previous.as_bytes());
        }
        let payload =
            statement::encode(&message).map_err(|error| Failure::usage(error.to_string()))?;
        for content in ahead {
            let Ahead {
                digest,
                salt,
                content,
            } = content;
            self.ledger
                .contents()
                .put_bytes(digest, &salt, content)
                .await?;
        }
        if let Some(position) = position {
            self.position = Some(Position {
                next: Sequence::new(position.next.get().saturating_add(1)),
                previous: Some(PayloadDigest::of(&payload)),
                skipped_from: None,
                ..position
            });
        }
        Ok(Statement {
            payload,
            attachments,
        })
    }

    /// Gives an id to a task that is opened without one. Later statements of the same input that name no
    /// task get the id of the last task that was opened.
    fn name_task(&mut self, message: &mut v1::Statement) -> CommandResult {
        let is_empty = message.task.is_empty();
        match &mut message.body {
            Some(Body::TaskOpened(opened)) if is_empty => {
                let nonce = match Nonce::from_slice(&opened.nonce) {
                    Some(nonce) => nonce,
                    None => random_nonce().map_err(|error| Failure::Usage(error.into()))?,
                };
                let id = TaskId::derive(self.ledger.ledger_id(), &message.producer, &nonce);
                opened.nonce = Bytes::copy_from_slice(nonce.as_bytes());
                message.task = Bytes::copy_from_slice(id.as_bytes());
                self.task = Some(id);
            }
            Some(Body::TaskOpened(_)) => self.task = TaskId::from_slice(&message.task),
            Some(body) if is_empty && BodyKind::of(body).needs_task() => {
                if let Some(task) = self.task {
                    message.task = Bytes::copy_from_slice(task.as_bytes());
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the position at which the session goes on: the one on disk, or a new one.
    fn position(&mut self, producer: &str) -> CommandResult<Position> {
        if let Some(position) = self.position {
            return Ok(position);
        }
        let position = match &self.kept {
            Some(kept) => tokio::task::block_in_place(|| kept.open(&self.ledger, producer))
                .map_err(deed_client::Error::from)?,
            None => {
                let fresh = Session::begin(self.ledger.ledger_id(), producer)
                    .map_err(|error| Failure::Usage(error.into()))?;
                Position {
                    session: fresh.id(),
                    nonce: fresh.nonce(),
                    next: fresh.next(),
                    previous: None,
                    skipped_from: None,
                }
            }
        };
        self.position = Some(position);
        Ok(position)
    }

    /// Replaces contents by commitments. Returns the contents that travel with the statement, and the
    /// contents that must be stored before.
    fn contents(
        &mut self,
        json: &mut StatementJson,
        position: Option<Position>,
    ) -> CommandResult<(Vec<v1::Attachment>, Vec<Ahead>)> {
        let (mut attachments, mut ahead) = (Vec::new(), Vec::new());
        let place = match position {
            Some(position) => Ok((position.session, position.next)),
            None => json.place(self.ledger.ledger_id()),
        };
        json.resolve(|content| -> CommandResult<v1::Commitment> {
            let ContentJson {
                slot,
                source,
                media_type,
            } = content;
            let content = match source {
                ContentSource::Text(text) => Bytes::from(text),
                ContentSource::File(path) => tokio::task::block_in_place(|| read(&path))?,
            };
            let salt = self.salt(place.clone()?, slot)?;
            let digest = digest_of(&salt, &content);
            if content.len() <= CONTENT_INLINE_BYTES_MAX {
                attachments.push(v1::Attachment {
                    salt: Bytes::copy_from_slice(salt.as_bytes()),
                    content,
                });
            } else {
                ahead.push(Ahead {
                    digest,
                    salt,
                    content,
                });
            }
            Ok(v1::Commitment {
                digest: Bytes::copy_from_slice(digest.as_bytes()),
                media_type,
            })
        })?;
        Ok((attachments, ahead))
    }

    fn salt(
        &mut self,
        (session, sequence): (SessionId, Sequence),
        slot: &str,
    ) -> CommandResult<Salt> {
        let secret = match &self.secret {
            Some(secret) => secret,
            None => self.secret.insert(secret::made_once(&self.state)?),
        };
        Ok(Salt::derive(secret, session, sequence, slot))
    }
}

fn read(path: &Path) -> CommandResult<Bytes> {
    let in_file = |failure: Failure| failure.context(path.display().to_string());
    let cannot = |error: std::io::Error| in_file(Failure::Usage(error.into()));
    let mut content = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(CONTENT_BYTES_MAX + 1)
        .read_to_end(&mut content)
        .map_err(cannot)?;
    if content.len() as u64 > CONTENT_BYTES_MAX {
        return Err(in_file(Failure::usage(format!(
            "longer than {CONTENT_BYTES_MAX} bytes; put it with deed content put, and name its \
             digest"
        ))));
    }
    Ok(content.into())
}
