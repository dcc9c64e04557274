//! The part of a run that earlier imports recorded, compared with the run as it is now.

use bytes::Bytes;
use deed_client::{
    Appended, Error, Leaf, Ledger, ProvenStatement, Receipt, Session, Signing, Statement,
    chat::{Earlier, Given, Import as ChatImport, Recorded, Speaker, Transcript},
};
use deed_evidence::{Micros, PayloadDigest, Sequence, SessionId, WireError, statement};
use deed_proto::v1::{rejection::Reason, statement::Body};
use tonic::Code;

use crate::{
    args::now,
    failure::{CommandResult, Failure},
};

/// The recorded part of a run.
pub(super) struct Known {
    pub(super) earlier: Earlier,
    /// The grants of the run, in the order of the log.
    pub(super) grants: Vec<(Bytes, Receipt)>,
    /// Digest of the payload before [`Earlier::next`].
    last: PayloadDigest,
}

/// A statement of the run, made now, in a place that is taken.
struct Place {
    sequence: Sequence,
    digest: PayloadDigest,
}

impl Known {
    /// Asks the ledger; `None` if nothing of the run is recorded, by its word, and a reason if that
    /// cannot be read. Who may not read is answered by what the ledger takes (`signing`; none if nothing
    /// may be sent).
    pub(super) async fn find(
        ledger: &Ledger,
        import: &ChatImport,
        signing: Option<&Signing>,
        run_id: &str,
    ) -> CommandResult<Result<Option<Self>, String>> {
        let session = match ledger.session(import.session(run_id)).await {
            Ok(Some(session)) => session,
            Ok(None) => return Ok(Ok(None)),
            Err(Error::NotAllowed { .. }) => return unread(ledger, import, signing, run_id).await,
            Err(error) => return Err(error.into()),
        };
        let last = PayloadDigest::from_slice(&session.info.last_payload);
        let last = last.ok_or_else(|| Failure::does_not_verify("a session without a digest"))?;
        let mut earlier = Earlier {
            next: Sequence::new(session.info.next_sequence),
            at: now(),
            ..Earlier::default()
        };
        let mut found = Vec::new();
        // Looks for the grant sessions of this import, and of imports with another grantor.
        for (own, session) in [true, false].into_iter().zip(import.grant_sessions(run_id)) {
            let Some(stands) = ledger.session(session).await? else {
                continue;
            };
            for sequence in 0..stands.info.next_sequence {
                let sequence = Sequence::new(sequence);
                // The server's count of statements is not trusted.
                let Some(statement) = recorded(ledger, session, sequence).await? else {
                    break;
                };
                if own {
                    let digest = PayloadDigest::of(&statement.payload());
                    earlier.granted = Some((sequence, digest));
                }
                found.push(statement);
            }
        }
        found.sort_by_key(|statement| statement.index);
        let mut grants = Vec::new();
        for statement in found {
            if let Some(given) = Given::read(statement.hash, &statement.statement) {
                earlier.grants.push(given);
                grants.push((statement.payload(), receipt(&statement)));
            }
        }
        Ok(Ok(Some(Self {
            earlier,
            grants,
            last,
        })))
    }

    /// Makes the run's statements again as far as they are recorded, without sending any. Returns why
    /// they are not what is recorded, if they are not: in one place nothing is ever said twice.
    pub(super) async fn contradiction(
        &self,
        ledger: &Ledger,
        import: &ChatImport,
        transcript: &Transcript,
    ) -> CommandResult<Option<String>> {
        let session = import.session(&transcript.run_id);
        let next = self.earlier.next;
        let mut making = import.resume(transcript, &self.earlier);
        let (mut places, mut last) = (Vec::new(), None);
        let broken = |error: WireError| Failure::usage(error.to_string());
        while let Some(part) = making.next(last.as_ref()).map_err(broken)? {
            last = Some(Recorded::STAND_IN);
            if part.speaker == Speaker::Grantor {
                continue;
            }
            let taken = part.statements.iter().filter(|made| made.sequence < next);
            places.extend(taken.map(|made| Place {
                sequence: made.sequence,
                digest: made.digest,
            }));
            let end = part.statements.last().filter(|made| made.sequence < next);
            let Some(end) = end else {
                // All later statements are new.
                break;
            };
            // The next statement may name the place of this one.
            match recorded(ledger, session, end.sequence).await? {
                Some(found) if found.payload() == end.payload => last = Some(place(&found)),
                _ => return self.first(ledger, session, &places).await,
            }
        }
        // Each statement names the one before it: if the last one is the same, all are.
        let Some(end) = places.last() else {
            return Ok(None);
        };
        let same = if end.sequence.get().saturating_add(1) == next.get() {
            end.digest == self.last
        } else {
            digest_at(ledger, session, end.sequence).await? == Some(end.digest)
        };
        if same {
            return Ok(None);
        }
        self.first(ledger, session, &places).await
    }

    /// Names the first place at which something else is recorded.
    async fn first(
        &self,
        ledger: &Ledger,
        session: SessionId,
        places: &[Place],
    ) -> CommandResult<Option<String>> {
        // Up to one place all are the same, and from there on none is.
        let (mut same, mut other) = (0, places.len());
        while same < other {
            let middle = same + (other - same) / 2;
            let place = &places[middle];
            if digest_at(ledger, session, place.sequence).await? == Some(place.digest) {
                same = middle + 1;
            } else {
                other = middle;
            }
        }
        let Some(place) = places.get(same) else {
            return Ok(None);
        };
        let Some(found) = recorded(ledger, session, place.sequence).await? else {
            let sequence = place.sequence;
            return Ok(Some(format!(
                "the server does not show what it has of this run at sequence {sequence}"
            )));
        };
        if matches!(
            found.body(),
            Some(Body::TaskClosed(_) | Body::SessionClosed(_))
        ) {
            return Ok(Some(format!(
                "an earlier import said that it was over (--ended, leaf {}), and it has grown since; \
                 nothing of it was sent",
                found.index
            )));
        }
        Ok(Some(format!(
            "is not what was imported before: leaf {} ({}) says something else at sequence {}. Its \
             messages up to there must be the same, and so must --model, --risk-tier and --producer; \
             a run that has changed needs another run_id. Nothing of it was sent",
            found.index,
            name_of(&found),
            place.sequence
        )))
    }
}

/// Handles a caller that may append and not read, so recorded statements cannot be compared.
///
/// Unsigned statements can be sent anyway: the ledger answers recorded ones as duplicates, and refuses
/// others in their places. A second signed statement for the same place would be evidence against its own
/// key, so a run with recorded statements is refused. To learn if there are any, the command sends a
/// statement with a sequence far ahead, which the ledger never takes.
async fn unread(
    ledger: &Ledger,
    import: &ChatImport,
    signing: Option<&Signing>,
    run_id: &str,
) -> CommandResult<Result<Option<Known>, String>> {
    let key = match signing {
        None | Some(Signing::None) => return Ok(Ok(None)),
        Some(Signing::Each(key) | Signing::Batch(key)) => key,
    };
    let ahead = (Sequence::new(FAR_AHEAD), PayloadDigest::new([0; 32]));
    let session = import.session(run_id);
    let session = Session::resume(ledger.ledger_id(), &*import.producer, session, ahead);
    let asked = session.close(Micros::default());
    let asked = asked.map_err(|error| Failure::usage(error.to_string()))?;
    let signing = Signing::Each(std::sync::Arc::clone(key));
    let answer = ledger
        .append_signed(&[Statement::from(asked)], &signing)
        .await?;
    let is_recorded = match answer.items.first() {
        Some(Appended::Rejected(rejection)) => match rejection.reason() {
            Reason::SequenceNotNext => rejection.expected_sequence != Some(0),
            Reason::SessionClosed | Reason::SessionTaken => true,
            // For any other reason the run's own statements are rejected too, and their answers say so.
            _ => false,
        },
        _ => {
            return Err(Failure::does_not_verify(
                "the server took a statement out of its place",
            ));
        }
    };
    Ok(if is_recorded {
        Err(format!("is recorded already: {NEEDS_READ}"))
    } else {
        Ok(None)
    })
}

/// A sequence that no run gets to.
const FAR_AHEAD: u64 = 1 << 60;
/// The advice for a run that cannot be compared.
pub(super) const NEEDS_READ: &str = "comparing what it is now with what it was then, and going on \
     from there, needs the role read besides append. Nothing more of it was sent";

/// The statement at a place of a session; `None` if there is none, by the server's word.
async fn recorded(
    ledger: &Ledger,
    session: SessionId,
    sequence: Sequence,
) -> CommandResult<Option<ProvenStatement>> {
    let leaf = Leaf::Statement(session, sequence);
    let index = match ledger.prove_leaf(leaf, None).await {
        Ok(leaf) => leaf.index,
        Err(Error::Refused {
            code: Code::NotFound,
            ..
        }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let found = ledger.statement(index).await?;
    let shown = &found.statement;
    if shown.session != session.as_bytes()[..] || shown.sequence != sequence.get() {
        return Err(Failure::does_not_verify(format!(
            "leaf {index} is not the statement {sequence} of session {session} that it was said to be"
        )));
    }
    Ok(Some(found))
}

async fn digest_at(
    ledger: &Ledger,
    session: SessionId,
    sequence: Sequence,
) -> CommandResult<Option<PayloadDigest>> {
    let found = recorded(ledger, session, sequence).await?;
    Ok(found.map(|found| PayloadDigest::of(&found.payload())))
}

/// The kind of the statement.
fn name_of(found: &ProvenStatement) -> &'static str {
    statement::parse(&found.payload()).map_or("a statement", |header| header.body.name())
}

const fn place(found: &ProvenStatement) -> Recorded {
    Recorded {
        leaf_index: found.index,
        leaf_hash: found.hash,
        received_at: found.received_at,
    }
}

const fn receipt(found: &ProvenStatement) -> Receipt {
    Receipt {
        leaf_index: found.index,
        leaf_hash: found.hash,
        received_at: found.received_at,
        inclusion_verified: true,
        principal_leaf: None,
        manifest: None,
        assessed: None,
    }
}
