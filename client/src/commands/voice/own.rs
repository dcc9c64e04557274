//! A producer who speaks in a session of its own: a fresh one, or one that is kept on disk.

use deed_client::{
    Appended, Error, Header, Ledger, Receipt, Session, Signing, Statement, StoredSession, Sync,
};
use deed_evidence::{Sequence, SessionId, statement};
use deed_proto::v1::{self, statement::Body};

use super::{
    super::authority::{forget_if_refused, rejected},
    Said,
};
use crate::cli::{Failure, Global, Outcome};

/// A producer in a session of its own.
pub(super) struct Own {
    producer: String,
    signing: Signing,
    session: Place,
}

enum Place {
    Fresh(Session),
    Kept(Box<StoredSession>),
}

impl Own {
    pub(super) fn open(
        name: Option<&str>,
        producer: String,
        signing: Signing,
        global: &Global,
        ledger: &Ledger,
    ) -> Outcome<Self> {
        let id = ledger.ledger_id();
        let session = match name {
            None => Place::Fresh(
                Session::begin(id, &producer).map_err(|error| Failure::Usage(error.into()))?,
            ),
            Some(name) => Place::Kept(Box::new(
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

    pub(super) fn producer(&self) -> &str {
        &self.producer
    }

    pub(super) fn place(&self) -> (SessionId, Sequence) {
        match &self.session {
            Place::Fresh(session) => (session.id(), session.next()),
            Place::Kept(stored) => (stored.id(), stored.next().0),
        }
    }

    pub(super) async fn say(
        &mut self,
        ledger: &Ledger,
        header: &Header<'_>,
        body: Body,
        attachments: Vec<v1::Attachment>,
    ) -> Outcome<Said> {
        let (session, sequence) = self.place();
        let mut maker = match &self.session {
            Place::Fresh(session) => session.clone(),
            Place::Kept(stored) => stored.maker(),
        };
        let made = maker.make(header, body);
        let made = made.map_err(|error| Failure::usage(error.to_string()))?;
        let statement = Statement {
            payload: made.payload,
            attachments,
        };
        if let Place::Kept(stored) = &mut self.session {
            let kept = stored.append(std::slice::from_ref(&statement));
            kept.map_err(Error::from)?;
        }
        if let Place::Fresh(session) = &mut self.session {
            // Whatever comes of it: nothing else is said in its place.
            session.skip_to(maker.next());
        }
        let receipt = self.deliver(ledger, &statement).await?;
        if let Place::Fresh(session) = &mut self.session {
            *session = maker;
        }
        Ok(Said {
            receipt,
            producer: self.producer.clone(),
            session,
            sequence,
            signed_by: self.signing.key_id(),
        })
    }

    async fn deliver(&mut self, ledger: &Ledger, statement: &Statement) -> Outcome<Receipt> {
        let sequence = statement::parse(&statement.payload)
            .map_err(|error| Failure::usage(error.to_string()))?
            .sequence;
        let statements = std::slice::from_ref(statement);
        let answer = match ledger.append_signed(statements, &self.signing).await {
            Ok(answer) => answer,
            Err(error) => {
                if let Place::Kept(stored) = &mut self.session {
                    forget_if_refused(ledger, stored, sequence, &error).await?;
                }
                return Err(error.into());
            }
        };
        let item = answer.items.into_iter().next();
        let item =
            item.ok_or_else(|| Failure::does_not_verify("the server's answer lacks the result"))?;
        match (item, &mut self.session) {
            (Appended::Rejected(rejection), place) => {
                let expected = rejection.expected_sequence.map(Sequence::new);
                match place {
                    Place::Kept(stored) => {
                        stored.refused(sequence, expected).map_err(Error::from)?;
                    }
                    Place::Fresh(session) => {
                        if let Some(expected) = expected {
                            session.stands_at(expected);
                        }
                    }
                }
                Err(rejected(&rejection))
            }
            (Appended::Accepted(receipt) | Appended::Duplicate(receipt), Place::Kept(stored)) => {
                let after = Sequence::new(sequence.get().saturating_add(1));
                stored.acknowledge(after).map_err(Error::from)?;
                Ok(receipt)
            }
            (Appended::Accepted(receipt) | Appended::Duplicate(receipt), Place::Fresh(_)) => {
                Ok(receipt)
            }
        }
    }

    /// What was kept and has no receipt was perhaps recorded: it goes out first, as the same bytes.
    pub(super) async fn finish_earlier(&mut self, ledger: &Ledger) -> Outcome {
        let Place::Kept(stored) = &self.session else {
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
