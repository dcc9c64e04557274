//! A connection to one ledger.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use deed_evidence::LedgerId;
use deed_proto::v1;
use deed_tlog::LeafIndex;
use tonic::{Response, Status};

use crate::{
    answer::{Answer, read_items},
    appender::{Appender, AppenderOptions},
    connection::{Connection, REQUEST_BYTES_MAX, REQUEST_ITEMS_MAX},
    error::{Error, InputError},
    head::SignedHead,
    options::{Event, Observer, Options, Verification},
    retry::{Backoff, RetryPolicy, within},
    settle::Belief,
    signing::{Signing, Statement},
    trust::{Pin, TrustError, TrustStore},
};

/// A verifying connection to one ledger. Clones share it, and what it trusts.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub(crate) connection: Connection,
    pub(crate) shared: Arc<Shared>,
}

/// What all clones and connections of one ledger have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) pin: Pin,
    pub(crate) retry: RetryPolicy,
    /// For each attempt of a call.
    pub(crate) timeout: Duration,
    pub(crate) observer: Observer,
    /// `None` with verification switched off.
    pub(crate) belief: Option<Belief>,
}

impl Ledger {
    /// Connects, and pins the ledger if it is seen for the first time: its key and id are
    /// computed from its genesis entry, whose inclusion in the newest head is verified.
    ///
    /// Does not wait for a server that is not there: the first connection is tried once.
    ///
    /// # Errors
    /// [`Error::Unreachable`]; [`Error::Refused`] if there is no such ledger; [`Error::Trust`] if
    /// it is not the ledger that is pinned; [`Error::Store`].
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let connection = Connection::open_with(&options.server, options.access.clone()).await?;
        let request = v1::GetLedgerRequest {
            name: options.ledger.clone(),
        };
        let timeout = Duration::from_millis(options.timeout_ms);
        let info = within(timeout, connection.ledger().get_ledger(request))
            .await
            .map_err(|status| Error::of_status(&status, connection.server()))?
            .into_inner();
        Self::trust(connection, &info, options).await
    }

    /// Trusts the ledger that `info` speaks of, as [`connect`](Self::connect) does.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn trust(
        connection: Connection,
        info: &v1::LedgerInfo,
        options: Options,
    ) -> Result<Self, Error> {
        let pin = Pin::from_info(info, &options.ledger)?;
        if let Some(wanted) = options.vkey.as_ref().filter(|vkey| **vkey != pin.vkey) {
            return Err(TrustError::OtherKey {
                found: pin.vkey.to_string(),
                wanted: wanted.to_string(),
            }
            .into());
        }
        let belief = match options.verification {
            Verification::Off => None,
            Verification::On => Some(believe(&connection, &pin, &options).await?),
        };
        let shared = Shared {
            name: options.ledger,
            pin,
            retry: options.retry,
            timeout: Duration::from_millis(options.timeout_ms),
            observer: options.observer,
            belief,
        };
        Ok(Self {
            connection,
            shared: Arc::new(shared),
        })
    }

    /// The same ledger over a further connection, trusting what this one trusts.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn connect_again(&self) -> Result<Self, Error> {
        Ok(Self {
            connection: self.connection.again().await?,
            shared: Arc::clone(&self.shared),
        })
    }

    /// The ledger's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Origin, log key and id.
    #[must_use]
    pub fn pin(&self) -> &Pin {
        &self.shared.pin
    }

    /// The id that every statement for this ledger carries.
    #[must_use]
    pub fn ledger_id(&self) -> LedgerId {
        self.shared.pin.ledger_id
    }

    /// The connection, for rpcs that this library does not wrap. Nothing is verified there.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Appends 1 to 4,096 statements (at most [`REQUEST_BYTES_MAX`]), each with an inclusion
    /// proof, and verifies the answer. Failures that may pass are tried again with the same
    /// bytes: what was recorded then comes back as [`Appended::Duplicate`](crate::Appended).
    ///
    /// # Errors
    /// Any [`Error`]. A rejected statement is not one: it is an item of the answer.
    pub async fn append(&self, payloads: &[Bytes]) -> Result<Answer, Error> {
        let statements: Vec<Statement> = payloads.iter().cloned().map(Into::into).collect();
        self.append_signed(&statements, &Signing::None).await
    }

    /// [`append`](Self::append) of statements that are signed, and may bring contents along.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn append_signed(
        &self,
        statements: &[Statement],
        signing: &Signing,
    ) -> Result<Answer, Error> {
        check_request(statements)?;
        let envelopes = signing
            .envelopes(statements.iter())
            .map_err(InputError::from)?;
        let mut backoff = Backoff::new(self.shared.retry);
        loop {
            let base = self.shared.name_base();
            let request = self.shared.request(envelopes.clone(), base.as_ref(), true);
            let mut client = self.connection.ledger();
            match within(self.shared.timeout, client.append(request)).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    let answer = self
                        .read_answer(&answer, &envelopes, base.as_ref(), true)
                        .await?;
                    self.settle_if_due();
                    return Ok(answer);
                }
                Err(status) => self.wait_after(&status, &mut backoff).await?,
            }
        }
    }

    /// A pipelined stream of appends.
    #[must_use]
    pub fn appender(&self, options: AppenderOptions) -> Appender {
        Appender::start(self.clone(), options)
    }

    /// Verifies an answer: its head, what the head is consistent with, and every receipt.
    pub(crate) async fn read_answer(
        &self,
        answer: &v1::AppendResponse,
        sent: &[v1::Envelope],
        base: Option<&SignedHead>,
        with_proofs: bool,
    ) -> Result<Answer, Error> {
        let head = match (&self.shared.belief, base) {
            (Some(belief), Some(base)) => {
                // Nothing recorded and no head: nothing to believe.
                let nothing_recorded = answer.results.iter().all(|result| {
                    matches!(result.result, Some(v1::append_result::Result::Rejected(_)))
                });
                if answer.checkpoint.is_empty() && nothing_recorded {
                    None
                } else {
                    let proof = answer.consistency.as_ref();
                    Some(
                        self.take_in(belief, &answer.checkpoint, base, proof)
                            .await?
                            .head,
                    )
                }
            }
            _ => None,
        };
        let items = match (&head, &self.shared.belief) {
            (None, Some(_)) => read_rejections(&answer.results, sent)?,
            _ => read_items(&answer.results, sent, head.as_ref(), with_proofs)?,
        };
        Ok(Answer {
            head,
            witnessed_size: answer.witnessed_size,
            items,
        })
    }

    /// Calls an rpc until it answers, or fails for good.
    pub(crate) async fn call<T, F>(&self, rpc: impl Fn(Connection) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut backoff = Backoff::new(self.shared.retry);
        loop {
            match within(self.shared.timeout, rpc(self.connection.clone())).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => match self.wait_after(&status, &mut backoff).await {
                    Ok(()) => {}
                    Err(error) => return Err(CallError { status, error }),
                },
            }
        }
    }

    /// Waits before the next attempt, or says why there is none.
    pub(crate) async fn wait_after(
        &self,
        status: &Status,
        backoff: &mut Backoff,
    ) -> Result<(), Error> {
        let Some(pause) = backoff.pause_after(status) else {
            return Err(Error::of_status(status, self.connection.server()));
        };
        self.shared.tell_retrying(backoff.attempts(), pause, status);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// A call that failed for good: the last status, and the error that it amounts to.
pub(crate) struct CallError {
    pub(crate) status: Status,
    pub(crate) error: Error,
}

impl From<CallError> for Error {
    fn from(call: CallError) -> Self {
        call.error
    }
}

impl Shared {
    /// The head that the next request asks for a proof from.
    pub(crate) fn name_base(&self) -> Option<SignedHead> {
        self.belief.as_ref().map(Belief::name_base)
    }

    pub(crate) fn request(
        &self,
        envelopes: Vec<v1::Envelope>,
        base: Option<&SignedHead>,
        with_proofs: bool,
    ) -> v1::AppendRequest {
        v1::AppendRequest {
            ledger: self.name.clone(),
            envelopes,
            with_proofs: with_proofs && self.belief.is_some(),
            consistency_from: base.map(|base| base.head.size.get()),
        }
    }

    pub(crate) fn tell_retrying(&self, attempt: u32, pause: Duration, status: &Status) {
        self.observer.tell(&Event::Retrying {
            attempt,
            pause_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            reason: status.message().to_owned(),
        });
    }
}

/// Refuses requests that a server would refuse as a whole.
pub(crate) fn check_request(statements: &[Statement]) -> Result<usize, InputError> {
    if statements.is_empty() || statements.len() > REQUEST_ITEMS_MAX {
        return Err(InputError::Items {
            found: statements.len(),
            max: REQUEST_ITEMS_MAX,
        });
    }
    let found = statements.iter().map(Statement::bytes).sum();
    if found > REQUEST_BYTES_MAX {
        return Err(InputError::Bytes {
            found,
            max: REQUEST_BYTES_MAX,
        });
    }
    Ok(found)
}

/// Items of an answer without a head: a receipt would have nothing to stand on.
fn read_rejections(
    results: &[v1::AppendResult],
    sent: &[v1::Envelope],
) -> Result<Vec<crate::Appended>, Error> {
    // No receipt is among them, so none is taken unverified.
    read_items(results, sent, None, false)
}

/// Compares the ledger with its pin, or pins it.
async fn believe(connection: &Connection, pin: &Pin, options: &Options) -> Result<Belief, Error> {
    let interval = Duration::from_millis(options.settle_interval_ms);
    let Some(state) = &options.state else {
        let head = first_head(connection, pin, options).await?;
        return Ok(Belief::new(pin.clone(), None, head, None, interval));
    };
    // The same server and name must lead to the same origin: else a server that renames the
    // ledger would be trusted anew.
    let (server, ledger) = (connection.server(), options.ledger.as_str());
    let known = state.known_origin(server, ledger)?;
    if let Some(known) = known
        .as_deref()
        .filter(|known| *known != pin.origin.as_str())
    {
        return Err(TrustError::OtherLedger {
            what: "origin",
            found: pin.origin.to_string(),
            pinned: known.to_owned(),
            remove: state.server_file(server, ledger).display().to_string(),
        }
        .into());
    }
    let store = state.store(&pin.origin);
    let forks = store.forks()?;
    if !forks.is_empty() {
        options.observer.tell(&Event::ForksKept {
            count: forks.len(),
            directory: store.directory().to_owned(),
        });
    }
    let pinned = store.pin()?;
    if let Some(pinned) = &pinned {
        compare(pinned, pin, &store)?;
    }
    let belief = match (pinned, store.head(&pin.vkey)?) {
        (Some(_), Some(head)) => {
            let stored = Some(head.head);
            Belief::new(pin.clone(), Some(store), head, stored, interval)
        }
        (pinned, _) => {
            let head = first_head(connection, pin, options).await?;
            if pinned.is_none() {
                compare(&store.pin_first(pin, &head)?, pin, &store)?;
                options.observer.tell(&Event::Pinned {
                    origin: pin.origin.to_string(),
                    vkey: pin.vkey.to_string(),
                    ledger_id: pin.ledger_id,
                    kept_in: Some(store.directory().to_owned()),
                });
            }
            // What is stored may be another process's head: it is compared when settled.
            Belief::new(pin.clone(), Some(store), head, None, interval)
        }
    };
    if known.is_none() {
        state.keep_origin(server, ledger, &pin.origin)?;
    }
    Ok(belief)
}

fn compare(pinned: &Pin, found: &Pin, store: &TrustStore) -> Result<(), TrustError> {
    for (what, pinned, found) in [
        (
            "origin",
            pinned.origin.to_string(),
            found.origin.to_string(),
        ),
        ("log key", pinned.vkey.to_string(), found.vkey.to_string()),
        (
            "ledger id",
            pinned.ledger_id.to_string(),
            found.ledger_id.to_string(),
        ),
    ] {
        if pinned != found {
            return Err(TrustError::OtherLedger {
                what,
                found,
                pinned,
                remove: store.directory().display().to_string(),
            });
        }
    }
    Ok(())
}

/// The newest head, in which the genesis entry is proven to be leaf 0.
async fn first_head(
    connection: &Connection,
    pin: &Pin,
    options: &Options,
) -> Result<SignedHead, Error> {
    let request = v1::GetInclusionProofRequest {
        ledger: options.ledger.clone(),
        leaf: Some(v1::get_inclusion_proof_request::Leaf::LeafIndex(0)),
        tree_size: 0,
    };
    let timeout = Duration::from_millis(options.timeout_ms);
    let answer = within(timeout, connection.log().get_inclusion_proof(request))
        .await
        .map_err(|status| Error::of_status(&status, connection.server()))?
        .into_inner();
    let head = crate::settle::open(&answer.checkpoint, pin)?;
    let not_included = |reason: &dyn ToString| TrustError::GenesisNotIncluded {
        ledger_id: pin.ledger_id,
        reason: reason.to_string(),
    };
    let proof = deed_evidence::receipt::inclusion_proof(&answer.hashes)
        .map_err(|error| not_included(&error))?;
    deed_tlog::verify_inclusion(&proof, pin.ledger_id.hash(), LeafIndex::new(0), &head.head)
        .map_err(|error| not_included(&error))?;
    Ok(head)
}
