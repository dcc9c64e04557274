//! Connecting to a ledger: its pin, its log keys, and the first trusted head.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use deed_proto::v1;
use deed_tlog::{LeafIndex, VerifierKey};
use tonic::{Response, Status};

use crate::{
    attempts::Attempts,
    connection::{Connection, Server},
    error::Error,
    follow::{FollowError, LogKeyClient},
    head::SignedHead,
    head_tracker::HeadTracker,
    ledger::{Ledger, Shared},
    options::{Event, Options, Verification},
    read::check_size,
    retry::RetryPolicy,
    rpc,
    trust::{ForkKind, KnownKeys, Pin, Refused, StateDir, TrustError, TrustStore},
};

impl Ledger {
    /// Connects, and pins the ledger if it is seen for the first time: its key and id are
    /// computed from its genesis entry, whose inclusion in the newest head is verified.
    ///
    /// Does not wait for a server that is not there: the first connection to each is tried once.
    ///
    /// # Errors
    /// [`Error::Unreachable`]; [`Error::Refused`] if there is no such ledger; [`Error::Trust`] if
    /// it is not the ledger that is pinned; [`Error::Store`].
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let access = options.access.clone();
        let connection = Connection::open_any(&options.servers, access).await?;
        let request = v1::GetLedgerRequest {
            name: options.ledger.clone(),
        };
        let timeout = Duration::from_millis(options.timeout_ms);
        let info = once(&connection, timeout, |server| {
            let request = request.clone();
            async move { server.ledger().get_ledger(request).await }
        })
        .await?;
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
        let tracker = match options.verification {
            Verification::Off => None,
            Verification::On => {
                let client = LogKeyClient {
                    connection: &connection,
                    ledger: &options.ledger,
                    timeout: Duration::from_millis(options.timeout_ms),
                    retry: options.retry,
                    pin: &pin,
                    genesis_entry: &info.genesis_entry,
                };
                Some(track_heads(&client, &claimed, &options).await?)
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
            tracker,
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
        if let Some(tracker) = &shared.tracker {
            if !tracker.keys().keys().contains(&shared.claimed) {
                self.follow_log_keys(tracker).await?;
            }
            check_claimed(&tracker.keys(), &shared.claimed)?;
        }
        check_wanted(&self.log_keys(), wanted)?;
        Ok(())
    }

    /// Asks the server for later log keys, and follows them. The client does the same by itself at the first
    /// head that only a new key has signed; a caller can do it earlier with this function. Does nothing with
    /// verification switched off.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Trust`] if the server does not show that the trusted key handed over.
    pub async fn update_log_keys(&self) -> Result<KnownKeys, Error> {
        if let Some(tracker) = &self.shared.tracker {
            self.follow_log_keys(tracker).await?;
        }
        Ok(self.log_keys())
    }

    /// Returns the client that asks for log keys which took over.
    pub(crate) fn log_key_client(&self) -> LogKeyClient<'_> {
        LogKeyClient {
            connection: &self.connection,
            ledger: &self.shared.name,
            timeout: self.shared.timeout,
            retry: self.shared.retry,
            pin: &self.shared.pin,
            genesis_entry: &self.shared.genesis_entry,
        }
    }
}

/// Compares the ledger with its pin, or pins it, and returns the tracker of its heads.
async fn track_heads(
    client: &LogKeyClient<'_>,
    claimed: &VerifierKey,
    options: &Options,
) -> Result<HeadTracker, Error> {
    let (connection, pin) = (client.connection, client.pin);
    let interval = Duration::from_millis(options.link_interval_ms);
    let mut keys = KnownKeys::new(pin.vkey.clone());
    let Some(state) = &options.state else {
        let head = first_head(client, &mut keys, claimed).await?;
        check_claimed(&keys, claimed)?;
        check_wanted(&keys, options.vkey.as_ref())?;
        return Ok(HeadTracker::new(
            pin.clone(),
            keys,
            None,
            head,
            None,
            interval,
        ));
    };
    let unknown = check_origins(state, connection, options, pin)?;
    let store = state.store(&pin.origin);
    let forks = store.forks()?;
    if !forks.is_empty() {
        options.observer.report(&Event::ForksKept {
            count: forks.len(),
            directory: store.directory().to_owned(),
        });
    }
    let pinned = store.pin()?;
    if let Some(pinned) = &pinned {
        compare(pinned, pin, &store)?;
    }
    // Files without a pin beside them are not trusted.
    let head = match &pinned {
        Some(_) => {
            keys = store.keys(pin)?;
            store.head(pin)?
        }
        None => None,
    };
    let tracker = match (pinned, head) {
        (Some(_), Some(head)) => {
            let stored = Some(head.head);
            HeadTracker::new(pin.clone(), keys, Some(store), head, stored, interval)
        }
        (pinned, _) => {
            let head = first_head(client, &mut keys, claimed).await?;
            check_claimed(&keys, claimed)?;
            check_wanted(&keys, options.vkey.as_ref())?;
            if pinned.is_none() {
                compare(&store.pin_first(pin, &keys, &head)?, pin, &store)?;
                options.observer.report(&Event::Pinned {
                    origin: pin.origin.to_string(),
                    vkey: keys.keys().newest().key.to_string(),
                    ledger_id: pin.ledger_id,
                    kept_in: Some(store.directory().to_owned()),
                });
            }
            // Another process may have stored its head meanwhile; `link_heads` compares that head with ours.
            let keys = store.keep_keys(pin, &keys)?;
            HeadTracker::new(pin.clone(), keys, Some(store), head, None, interval)
        }
    };
    for server in unknown {
        state.keep_origin(server, &options.ledger, &pin.origin)?;
    }
    Ok(tracker)
}

/// The same server and name must lead to the same origin: else a server that renames the ledger would be
/// trusted anew. Of several servers that holds for each. Returns those that were never seen before.
fn check_origins<'a>(
    state: &StateDir,
    connection: &'a Connection,
    options: &Options,
    pin: &Pin,
) -> Result<Vec<&'a str>, Error> {
    let ledger = options.ledger.as_str();
    let mut unknown = Vec::new();
    for server in connection.servers() {
        match state.known_origin(server, ledger)? {
            None => unknown.push(server),
            Some(known) if known == pin.origin.as_str() => {}
            Some(known) => {
                return Err(TrustError::OtherLedger {
                    what: "origin",
                    found: pin.origin.to_string(),
                    pinned: known,
                    remove: state.server_file(server, ledger).display().to_string(),
                }
                .into());
            }
        }
    }
    Ok(unknown)
}

/// Calls an rpc once at each server, until one answers.
async fn once<T, F>(
    connection: &Connection,
    timeout: Duration,
    rpc: impl Fn(Server) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let mut attempts = Attempts::new(connection, RetryPolicy::never());
    rpc::call(connection, timeout, &mut attempts, None, rpc)
        .await
        .map_err(|failure| {
            let server = attempts.server(connection).url();
            Error::of_status(&failure.status, server)
        })
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

/// Returns the newest head, and proves that the genesis entry is leaf 0 of it. Follows the ledger to the key
/// that the server names, and to the key that has signed that head. (These differ at a head that hands
/// over, which both keys have signed.)
async fn first_head(
    client: &LogKeyClient<'_>,
    keys: &mut KnownKeys,
    claimed: &VerifierKey,
) -> Result<SignedHead, Error> {
    let head = genesis_head(client, keys).await?;
    if keys.keys().contains(claimed) {
        return Ok(head);
    }
    match client.follow(keys, Some(&head)).await {
        Ok(Some(followed)) => {
            *keys = followed.keys;
            let newest = followed.heads.into_iter().last();
            Ok(newest.map_or(head, |(newest, _)| newest))
        }
        Ok(None) => Ok(head),
        Err(FollowError::Error(error)) => Err(error),
        Err(FollowError::Refused(refused)) => Err(refused.unkept().into()),
    }
}

async fn genesis_head(
    client: &LogKeyClient<'_>,
    keys: &mut KnownKeys,
) -> Result<SignedHead, Error> {
    let pin = client.pin;
    let mut wanted = None;
    loop {
        let size = wanted
            .as_ref()
            .map_or(0, |head: &SignedHead| head.head.size.get());
        let request = v1::GetInclusionProofRequest {
            ledger: client.ledger.to_owned(),
            leaf: Some(v1::get_inclusion_proof_request::Leaf::LeafIndex(0)),
            tree_size: size,
            min_size: size,
        };
        let answer = once(client.connection, client.timeout, |server| {
            let request = request.clone();
            async move { server.log().get_inclusion_proof(request).await }
        })
        .await?;
        let head = match keys.open(&answer.checkpoint) {
            Ok(head) => head,
            Err(error) if error.is_unknown_key() && wanted.is_none() => {
                match client.follow(keys, None).await {
                    Ok(Some(followed)) => {
                        *keys = followed.keys;
                        // The proofs lead to this one, so it is asked for now.
                        wanted = followed.heads.last().map(|(head, _)| head.clone());
                        continue;
                    }
                    Ok(None) => return Err(TrustError::of_head(error, pin, keys).into()),
                    Err(FollowError::Error(error)) => return Err(error),
                    Err(FollowError::Refused(refused)) => return Err(refused.unkept().into()),
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
