//! A connection to one ledger.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use deed_evidence::LedgerId;
use deed_proto::v1;
use deed_tlog::{LeafIndex, VerifierKey};
use tonic::{Response, Status};

use crate::{
    answer::{Answer, read_items},
    appender::{Appender, AppenderOptions},
    connection::{Connection, REQUEST_BYTES_MAX, REQUEST_ITEMS_MAX},
    error::{Error, InputError},
    follow::{Asking, NotFollowed},
    head::SignedHead,
    options::{Event, Observer, Options, Verification},
    proofs::KnownTrust,
    read::check_size,
    retry::{Backoff, RetryPolicy, within},
    settle::Belief,
    signing::{Signing, Statement},
    trust::{ForkKind, KnownKeys, Pin, Refused, TrustError, TrustStore},
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
    /// The log key that the server named when it was connected to. Believed for nothing.
    claimed: VerifierKey,
    pub(crate) genesis_entry: Bytes,
    pub(crate) retry: RetryPolicy,
    /// For each attempt of a call.
    pub(crate) timeout: Duration,
    pub(crate) observer: Observer,
    /// `None` with verification switched off.
    pub(crate) belief: Option<Belief>,
    /// The trust chain, once somebody has asked for it.
    pub(crate) trust: tokio::sync::Mutex<Option<Arc<KnownTrust>>>,
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
        let claimed = claimed_key(info, &pin)?;
        let belief = match options.verification {
            Verification::Off => None,
            Verification::On => {
                let asking = Asking {
                    connection: &connection,
                    ledger: &options.ledger,
                    timeout: Duration::from_millis(options.timeout_ms),
                    retry: options.retry,
                    pin: &pin,
                    genesis_entry: &info.genesis_entry,
                };
                Some(believe(&asking, &claimed, &options).await?)
            }
        };
        let wanted = options.vkey;
        let shared = Shared {
            name: options.ledger,
            pin,
            claimed,
            genesis_entry: Bytes::copy_from_slice(&info.genesis_entry),
            retry: options.retry,
            timeout: Duration::from_millis(options.timeout_ms),
            observer: options.observer,
            belief,
            trust: tokio::sync::Mutex::new(None),
        };
        let ledger = Self {
            connection,
            shared: Arc::new(shared),
        };
        ledger.check_keys(wanted.as_ref()).await?;
        Ok(ledger)
    }

    /// The key that the server names is one that is known, or that took over since; and the one that
    /// was demanded is among them.
    async fn check_keys(&self, wanted: Option<&VerifierKey>) -> Result<(), Error> {
        let shared = &self.shared;
        if let Some(belief) = &shared.belief {
            if !belief.keys().keys().contains(&shared.claimed) {
                self.follow_log_keys(belief).await?;
            }
            check_claimed(&belief.keys(), &shared.claimed)?;
        }
        check_wanted(&self.log_keys(), wanted)?;
        Ok(())
    }

    /// The log keys that are known, from the genesis entry's on: with verification switched off, the
    /// one that the server names.
    #[must_use]
    pub fn log_keys(&self) -> KnownKeys {
        match &self.shared.belief {
            Some(belief) => belief.keys(),
            None => KnownKeys::new(self.shared.claimed.clone()),
        }
    }

    /// Asks whether other log keys took over, and follows. Heads that a new key has signed alone lead to
    /// the same by themselves; this is for whoever wants to know before. Nothing happens with
    /// verification switched off.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Trust`] if the server does not show that the trusted key handed over.
    pub async fn update_log_keys(&self) -> Result<KnownKeys, Error> {
        if let Some(belief) = &self.shared.belief {
            self.follow_log_keys(belief).await?;
        }
        Ok(self.log_keys())
    }

    /// Whom to ask, when another log key may have taken over.
    pub(crate) fn asking(&self) -> Asking<'_> {
        Asking {
            connection: &self.connection,
            ledger: &self.shared.name,
            timeout: self.shared.timeout,
            retry: self.shared.retry,
            pin: &self.shared.pin,
            genesis_entry: &self.shared.genesis_entry,
        }
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

    /// Origin, first log key and id.
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
    /// Opens a head with verification switched off: the server's key by its own word.
    pub(crate) fn open_unverified(&self, note: &[u8]) -> Result<SignedHead, TrustError> {
        SignedHead::open(note, &self.claimed).map_err(|source| TrustError::Checkpoint {
            origin: self.pin.origin.to_string(),
            source,
        })
    }

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
async fn believe(
    asking: &Asking<'_>,
    claimed: &VerifierKey,
    options: &Options,
) -> Result<Belief, Error> {
    let (connection, pin) = (asking.connection, asking.pin);
    let interval = Duration::from_millis(options.settle_interval_ms);
    let mut keys = KnownKeys::new(pin.vkey.clone());
    let Some(state) = &options.state else {
        let head = first_head(asking, &mut keys, claimed).await?;
        check_claimed(&keys, claimed)?;
        check_wanted(&keys, options.vkey.as_ref())?;
        return Ok(Belief::new(pin.clone(), keys, None, head, None, interval));
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
    // Without a pin nothing that lies there is trusted.
    let head = match &pinned {
        Some(_) => {
            keys = store.keys(pin)?;
            store.head(pin)?
        }
        None => None,
    };
    let belief = match (pinned, head) {
        (Some(_), Some(head)) => {
            let stored = Some(head.head);
            Belief::new(pin.clone(), keys, Some(store), head, stored, interval)
        }
        (pinned, _) => {
            let head = first_head(asking, &mut keys, claimed).await?;
            check_claimed(&keys, claimed)?;
            check_wanted(&keys, options.vkey.as_ref())?;
            if pinned.is_none() {
                compare(&store.pin_first(pin, &keys, &head)?, pin, &store)?;
                options.observer.tell(&Event::Pinned {
                    origin: pin.origin.to_string(),
                    vkey: keys.keys().newest().key.to_string(),
                    ledger_id: pin.ledger_id,
                    kept_in: Some(store.directory().to_owned()),
                });
            }
            // What is stored may be another process's head: it is compared when settled.
            let keys = store.keep_keys(pin, &keys)?;
            Belief::new(pin.clone(), keys, Some(store), head, None, interval)
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

/// A log key that the server names without showing that it took over is a contradiction of the
/// genesis entry.
fn check_claimed(keys: &KnownKeys, claimed: &VerifierKey) -> Result<(), TrustError> {
    if keys.keys().contains(claimed) {
        return Ok(());
    }
    Err(TrustError::Contradiction {
        what: "log key",
        claimed: claimed.to_string(),
        genesis: keys.keys().newest().key.to_string(),
    })
}

fn check_wanted(keys: &KnownKeys, wanted: Option<&VerifierKey>) -> Result<(), TrustError> {
    match wanted {
        Some(wanted) if !keys.keys().contains(wanted) => Err(TrustError::OtherKey {
            found: keys.keys().newest().key.to_string(),
            wanted: wanted.to_string(),
        }),
        _ => Ok(()),
    }
}

/// The log key that the server names.
fn claimed_key(info: &v1::LedgerInfo, pin: &Pin) -> Result<VerifierKey, TrustError> {
    info.vkey.parse().map_err(|_| TrustError::Contradiction {
        what: "log key",
        claimed: info.vkey.clone(),
        genesis: pin.vkey.to_string(),
    })
}

/// The newest head, in which the genesis entry is proven to be leaf 0. Follows the ledger to the key
/// that the server names, and to the one that has signed that head. (These differ at a head that
/// hands over: whoever knows either key can read it.)
async fn first_head(
    asking: &Asking<'_>,
    keys: &mut KnownKeys,
    claimed: &VerifierKey,
) -> Result<SignedHead, Error> {
    let head = genesis_head(asking, keys).await?;
    if keys.keys().contains(claimed) {
        return Ok(head);
    }
    match asking.follow(keys, Some(&head)).await {
        Ok(Some(followed)) => {
            *keys = followed.keys;
            let newest = followed.heads.into_iter().last();
            Ok(newest.map_or(head, |(newest, _)| newest))
        }
        Ok(None) => Ok(head),
        Err(NotFollowed::Error(error)) => Err(error),
        Err(NotFollowed::Refused(refused)) => Err(refused.unkept().into()),
    }
}

async fn genesis_head(asking: &Asking<'_>, keys: &mut KnownKeys) -> Result<SignedHead, Error> {
    let (pin, server) = (asking.pin, asking.connection.server());
    let mut wanted = None;
    loop {
        let request = v1::GetInclusionProofRequest {
            ledger: asking.ledger.to_owned(),
            leaf: Some(v1::get_inclusion_proof_request::Leaf::LeafIndex(0)),
            tree_size: wanted
                .as_ref()
                .map_or(0, |head: &SignedHead| head.head.size.get()),
            min_size: 0,
        };
        let mut rpc = asking.connection.log();
        let answer = within(asking.timeout, rpc.get_inclusion_proof(request))
            .await
            .map_err(|status| Error::of_status(&status, server))?
            .into_inner();
        let head = match keys.open(&answer.checkpoint) {
            Ok(head) => head,
            Err(error) if error.is_unknown_key() && wanted.is_none() => {
                match asking.follow(keys, None).await {
                    Ok(Some(followed)) => {
                        *keys = followed.keys;
                        // The proofs lead to this one, so it is asked for now.
                        wanted = followed.heads.last().map(|(head, _)| head.clone());
                        continue;
                    }
                    Ok(None) => return Err(TrustError::of_head(error, pin, keys).into()),
                    Err(NotFollowed::Error(error)) => return Err(error),
                    Err(NotFollowed::Refused(refused)) => return Err(refused.unkept().into()),
                }
            }
            Err(error) => return Err(TrustError::of_head(error, pin, keys).into()),
        };
        if let Some(wanted) = &wanted {
            check_size(&head, Some(wanted.head.size))?;
            if wanted.head != head.head {
                let fork = Refused::contradiction(ForkKind::SameSize, wanted, &head, None);
                return Err(fork.unkept().into());
            }
        }
        let not_included = |reason: &dyn ToString| TrustError::GenesisNotIncluded {
            ledger_id: pin.ledger_id,
            reason: reason.to_string(),
        };
        let proof = deed_evidence::receipt::inclusion_proof(&answer.hashes)
            .map_err(|error| not_included(&error))?;
        deed_tlog::verify_inclusion(&proof, pin.ledger_id.hash(), LeafIndex::new(0), &head.head)
            .map_err(|error| not_included(&error))?;
        return Ok(head);
    }
}
