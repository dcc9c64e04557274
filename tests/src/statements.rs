//! Payloads, made from the protocol's messages alone, without the client library.

use bytes::Bytes;
use deed_evidence::{
    LedgerId, Nonce, PayloadDigest, RULES_ASSESSED, SessionId, TaskId,
    policy::{CEDAR_VERSION, DEFAULT_SCHEMA, digest},
    statement,
};
use deed_proto::v1::{self, statement::Body};
pub use deed_testkit::signed::envelope;

/// A producer that makes a session's statements.
#[derive(Debug, Clone)]
pub struct Producer {
    ledger_id: LedgerId,
    name: String,
    /// The nonce from which the session is derived.
    nonce: [u8; 16],
    /// Another producer's session, to use in place of its own.
    intrudes: Option<SessionId>,
    task: [u8; 16],
    next: u64,
    previous: Option<PayloadDigest>,
    chained: bool,
}

impl Producer {
    /// Makes a producer with a session that is derived from a number.
    #[must_use]
    pub fn new(ledger_id: LedgerId, session: u64) -> Self {
        let mut nonce = [0x5e; 16];
        nonce[8..].copy_from_slice(&session.to_be_bytes());
        Self {
            ledger_id,
            name: format!("spiffe://example.org/agent/{session}"),
            nonce,
            intrudes: None,
            task: [0x7a; 16],
            next: 0,
            previous: None,
            chained: true,
        }
    }

    /// Gives the producer another name, and so another session from the same number.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Returns the producer's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Leaves `previous` empty: the session is no chain.
    #[must_use]
    pub fn unchained(mut self) -> Self {
        self.chained = false;
        self
    }

    /// Makes statements in another producer's session.
    #[must_use]
    pub fn intruding(mut self, session: &[u8]) -> Self {
        self.intrudes = SessionId::from_slice(session);
        self
    }

    /// Returns the session's id.
    #[must_use]
    pub fn session(&self) -> Bytes {
        let own = || SessionId::derive(self.ledger_id, &self.name, &Nonce::new(self.nonce));
        let id = self.intrudes.unwrap_or_else(own);
        Bytes::copy_from_slice(id.as_bytes())
    }

    /// Returns the sequence of the next statement.
    #[must_use]
    pub const fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Returns the next statement's message, for tests that change something in it.
    #[must_use]
    pub fn message(&self, mut body: Body) -> v1::Statement {
        let previous = self.previous.filter(|_| self.chained);
        // An authority's statements belong to no task.
        let of_ledger = self.name.starts_with("deed:");
        let task = match &mut body {
            // The task is the producer's own, and its nonce is the given name.
            Body::TaskOpened(opened) => {
                if opened.nonce.is_empty() {
                    opened.nonce = Bytes::copy_from_slice(&self.task);
                }
                let nonce = Nonce::from_slice(&opened.nonce).expect("a nonce");
                let id = TaskId::derive(self.ledger_id, &self.name, &nonce);
                Bytes::copy_from_slice(id.as_bytes())
            }
            _ if of_ledger => Bytes::new(),
            _ => Bytes::copy_from_slice(&task_id(self.ledger_id, self.task)),
        };
        v1::Statement {
            ledger_id: Bytes::copy_from_slice(self.ledger_id.as_bytes()),
            producer: self.name.clone(),
            session: self.session(),
            sequence: self.next,
            previous: previous.map_or_else(Bytes::new, |digest| {
                Bytes::copy_from_slice(digest.as_bytes())
            }),
            task,
            nonce: match (self.next, self.intrudes) {
                (0, None) => Bytes::copy_from_slice(&self.nonce),
                _ => Bytes::new(),
            },
            body: Some(body),
            ..v1::Statement::default()
        }
    }

    /// Makes the next statement.
    ///
    /// # Panics
    /// If the body breaks a rule.
    #[track_caller]
    pub fn make(&mut self, body: Body) -> Bytes {
        self.take(&self.message(body))
    }

    /// Encodes a message as the next statement.
    ///
    /// # Panics
    /// If the message breaks a rule.
    #[track_caller]
    pub fn take(&mut self, message: &v1::Statement) -> Bytes {
        let payload = statement::encode(message).expect("a statement by the rules");
        self.next += 1;
        self.previous = Some(PayloadDigest::of(&payload));
        payload
    }

    /// Makes the next statement of the task of this name: an authority's task, or the producer's
    /// own if the statement opens it.
    ///
    /// # Panics
    /// If the body breaks a rule.
    #[track_caller]
    pub fn make_in(&mut self, task: [u8; 16], mut body: Body) -> Bytes {
        if let Body::TaskOpened(opened) = &mut body {
            opened.nonce = Bytes::copy_from_slice(&task);
            return self.make(body);
        }
        let message = v1::Statement {
            task: Bytes::copy_from_slice(&task_id(self.ledger_id, task)),
            ..self.message(body)
        };
        self.take(&message)
    }

    /// Makes an Intent that contains `mark`.
    pub fn intent(&mut self, mark: &str) -> Bytes {
        self.make(intent(mark))
    }

    /// Makes several Intents.
    pub fn intents(&mut self, count: usize) -> Vec<Bytes> {
        (0..count)
            .map(|_| {
                let mark = format!("orders/{}", self.next);
                self.intent(&mark)
            })
            .collect()
    }

    /// Makes the session's last statement.
    pub fn close(&mut self) -> Bytes {
        let closed = v1::SessionClosed {
            last_sequence: self.next,
            count: self.next + 1,
        };
        let mut message = self.message(Body::SessionClosed(closed));
        message.task = Bytes::new();
        let payload = statement::encode(&message).expect("a statement by the rules");
        self.next += 1;
        payload
    }
}

/// Returns the task of this name that the ledger's owner derives from it.
#[must_use]
pub fn task_id(ledger_id: LedgerId, name: [u8; 16]) -> [u8; 16] {
    *TaskId::derive(ledger_id, statement::AUTHORITY_PRODUCER, &Nonce::new(name)).as_bytes()
}

/// Returns the body of an Intent on the resource `mark`.
#[must_use]
pub fn intent(mark: &str) -> Body {
    Body::Intent(v1::Intent {
        action: "orders.update".to_owned(),
        resource: mark.to_owned(),
        ..v1::Intent::default()
    })
}

/// Returns these policies, under the schema that Deed ships.
#[must_use]
pub fn policy_set(policies: &str) -> v1::PolicySet {
    v1::PolicySet {
        digest: Bytes::copy_from_slice(&digest(policies, DEFAULT_SCHEMA)),
        policies: policies.to_owned(),
        schema: DEFAULT_SCHEMA.to_owned(),
        cedar_version: CEDAR_VERSION.to_owned(),
        rules_version: RULES_ASSESSED,
        reason: String::new(),
    }
}
