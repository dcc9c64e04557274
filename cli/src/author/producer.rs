//! A producer's session: a new one, or one that is kept on disk.

use deed_client::{
    Appended, Error, Header, Ledger, Receipt, Session, Signing, Statement, StoredSession, Sync,
};
use deed_evidence::{Sequence, SessionId, statement};
use deed_proto::v1::{self, statement::Body};

use crate::{
    args::Global,
    author::{StatementReceipt, forget_if_refused, rejected},
    failure::{CommandResult, Failure},
};

/// A producer with the session that its statements are part of.
pub(crate) struct ProducerSession {
    producer: String,
    signing: Signing,
    session: SessionKind,
}

enum SessionKind {
    New(Session),
    Stored(Box<StoredSession>),
}

impl ProducerSession {
    pub(crate) fn open(
        name: Option<&str>,
        producer: String,
        signing: Signing,
        global: &Global,
        ledger: &Ledger,
    ) -> CommandResult<Self> {
        let id = ledger.ledger_id();
        let session = match name {
            None => SessionKind::New(
                Session::begin(id, &producer).map_err(|error| Failure::Usage(error.into()))?,
            ),
            Some(name) => SessionKind::Stored(Box::new(
                StoredSession::open(&global.state()?, id, name, &producer, &signing, Sync::Each)
                    .map_err(Error::from)?,
            )),
        };
        Ok(Self {
            producer,
            signing,
            session,
        })
    }

    pub(crate) fn producer(&self) -> &str {
        &self.producer
    }

    pub(crate) fn position(&self) -> (SessionId, Sequence) {
        match &self.session {
            SessionKind::New(session) => (session.id(), session.next()),
            SessionKind::Stored(stored) => (stored.id(), stored.next().0),
        }
    }

    pub(crate) async fn append(
        &mut self,
        ledger: &Ledger,
        header: &Header<'_>,
        body: Body,
        attachments: Vec<v1::Attachment>,
    ) -> CommandResult<StatementReceipt> {
        let (session, sequence) = self.position();
        let mut maker = match &self.session {
            SessionKind::New(session) => session.clone(),
            SessionKind::Stored(stored) => stored.maker(),
        };
        let made = maker.make(header, body);
        let made = made.map_err(|error| Failure::usage(error.to_string()))?;
        let statement = Statement {
            payload: made.payload,
            attachments,
        };
        if let SessionKind::Stored(stored) = &mut self.session {
            let kept = stored.append(std::slice::from_ref(&statement));
            kept.map_err(Error::from)?;
        }
        if let SessionKind::New(session) = &mut self.session {
            // The session uses up this sequence even if the server does not record the statement: a second
            // statement with the same sequence would contradict it.
            session.skip_to(maker.next());
        }
        let receipt = self.deliver(ledger, &statement).await?;
        if let SessionKind::New(session) = &mut self.session {
            *session = maker;
        }
        Ok(StatementReceipt {
            receipt,
            producer: self.producer.clone(),
            session,
            sequence,
            signed_by: self.signing.key_id(),
        })
    }

    async fn deliver(&mut self, ledger: &Ledger, statement: &Statement) -> CommandResult<Receipt> {
        let sequence = statement::parse(&statement.payload)
            .map_err(|error| Failure::usage(error.to_string()))?
            .sequence;
        let statements = std::slice::from_ref(statement);
        let answer = match ledger.append_signed(statements, &self.signing).await {
            Ok(answer) => answer,
            Err(error) => {
                if let SessionKind::Stored(stored) = &mut self.session {
                    forget_if_refused(ledger, stored, sequence, &error).await?;
                }
                return Err(error.into());
            }
        };
        let item = answer.items.into_iter().next();
        let item =
            item.ok_or_else(|| Failure::does_not_verify("the server's answer lacks the result"))?;
        match (item, &mut self.session) {
            (Appended::Rejected(rejection), session) => {
                let expected = rejection.expected_sequence.map(Sequence::new);
                match session {
                    SessionKind::Stored(stored) => {
                        stored.refused(sequence, expected).map_err(Error::from)?;
                    }
                    SessionKind::New(session) => {
                        if let Some(expected) = expected {
                            session.stands_at(expected);
                        }
                    }
                }
                Err(rejected(&rejection))
            }
            (
                Appended::Accepted(receipt) | Appended::Duplicate(receipt),
                SessionKind::Stored(stored),
            ) => {
                let after = Sequence::new(sequence.get().saturating_add(1));
                stored.acknowledge(after).map_err(Error::from)?;
                Ok(receipt)
            }
            (Appended::Accepted(receipt) | Appended::Duplicate(receipt), SessionKind::New(_)) => {
                Ok(receipt)
            }
        }
    }

    /// Sends again, as the same bytes, what an earlier command kept and has no receipt for: it may be
    /// recorded already.
    pub(crate) async fn finish_earlier(&mut self, ledger: &Ledger) -> CommandResult {
        let SessionKind::Stored(stored) = &self.session else {
            return Ok(());
        };
        let earlier: Vec<_> = stored.unacknowledged().cloned().collect();
        for statement in earlier {
            let delivered = self.deliver(ledger, &statement).await;
            delivered.map_err(|failure| {
                failure.context("an earlier statement of this session, sent again")
            })?;
        }
        Ok(())
    }
}
