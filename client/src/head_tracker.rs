//! The heads of one ledger that this process has verified.

use std::{
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use deed_evidence::trust::HeadError;
use deed_proto::v1;
use deed_tlog::{LeafIndex, TreeHead, VerifierKey};

use crate::{
    error::{Error, ErrorKind},
    head::SignedHead,
    link_heads::read_proof,
    trust::{
        Contradiction, ForkEvidence, ForkKind, KnownKeys, Pin, Refused, TrustError, TrustStore,
        UnlinkedHeads,
    },
};

/// More unlinked heads than this are linked without waiting for the interval.
const UNLINKED_MAX: usize = 512;
/// After this many attempts in a row to link the heads that the server lets fail, nothing of it is
/// trusted any more. Each attempt has retried as the retry policy says, and they are an interval apart.
const LINK_FAILURES_MAX: u32 = 16;

/// The trusted state of one ledger: its keys, its heads, and how far they are linked.
#[derive(Debug)]
pub(crate) struct HeadTracker {
    pub(crate) pin: Pin,
    /// The log keys that are followed so far.
    pub(crate) keys: Mutex<KnownKeys>,
    /// Held while following: one at a time.
    pub(crate) following: tokio::sync::Mutex<()>,
    pub(crate) store: Option<TrustStore>,
    pub(crate) unlinked: Mutex<UnlinkedHeads>,
    /// The head that this process knows to be on disk, and consistent with all unlinked heads. Held
    /// while linking: one at a time.
    pub(crate) stored: tokio::sync::Mutex<Option<TreeHead>>,
    link_state: Mutex<LinkState>,
    /// The newest trust statement that was shown to this process.
    shown_trust: Mutex<Option<LeafIndex>>,
    /// Linking in the background is under way.
    pub(crate) linking: AtomicBool,
    interval: Duration,
}

#[derive(Debug)]
struct LinkState {
    at: Instant,
    /// Attempts in the background that the server let fail, since the last one that did not.
    failures: u32,
    /// Linking in the background found that the ledger is not to be trusted: nothing is, from then on.
    failure: Option<Error>,
}

impl HeadTracker {
    pub(crate) fn new(
        pin: Pin,
        keys: KnownKeys,
        store: Option<TrustStore>,
        trusted: SignedHead,
        stored: Option<TreeHead>,
        interval: Duration,
    ) -> Self {
        Self {
            pin,
            keys: Mutex::new(keys),
            following: tokio::sync::Mutex::new(()),
            store,
            unlinked: Mutex::new(UnlinkedHeads::new(trusted)),
            stored: tokio::sync::Mutex::new(stored),
            link_state: Mutex::new(LinkState {
                at: Instant::now(),
                failures: 0,
                failure: None,
            }),
            shown_trust: Mutex::new(None),
            linking: AtomicBool::new(false),
            interval,
        }
    }

    /// Returns the head from which an append asks for a proof, and marks it as asked from.
    pub(crate) fn take_base(&self) -> SignedHead {
        lock(&self.unlinked).take_base()
    }

    /// Returns the largest verified head.
    pub(crate) fn newest(&self) -> SignedHead {
        lock(&self.unlinked).newest().clone()
    }

    /// The store on disk; `None` if nothing is kept.
    pub(crate) const fn store(&self) -> Option<&TrustStore> {
        self.store.as_ref()
    }

    /// The leaf of the newest trust statement that was shown to this process.
    pub(crate) fn shown_trust(&self) -> Option<LeafIndex> {
        *lock(&self.shown_trust)
    }

    /// Remembers the leaf of a trust statement that was shown to this process.
    pub(crate) fn note_trust(&self, newest: LeafIndex) {
        let mut shown = lock(&self.shown_trust);
        *shown = (*shown).max(Some(newest));
    }

    /// The log keys that are followed so far.
    pub(crate) fn keys(&self) -> KnownKeys {
        lock(&self.keys).clone()
    }

    /// Adds a head that was opened and came with a proof from `base`.
    pub(crate) fn observe_head(
        &self,
        head: &SignedHead,
        base: &SignedHead,
        proof: Option<&v1::ConsistencyProof>,
        server: &str,
    ) -> Result<(), Error> {
        let proof = match proof {
            // A proof from elsewhere is none.
            Some(proof) if proof.old_size == base.head.size.get() => {
                Some(read_proof(&proof.hashes)?)
            }
            _ => None,
        };
        let taken = lock(&self.unlinked).observe(head, base, proof.as_ref());
        taken.map_err(|refused| self.refuse(refused, server))
    }

    /// Verifies a head's signature, unless it is the newest one once more (many answers share
    /// the head of one commit).
    pub(crate) fn open(&self, note: &[u8]) -> Result<SignedHead, HeadError> {
        {
            let unlinked = lock(&self.unlinked);
            if unlinked.newest().note == note {
                return Ok(unlinked.newest().clone());
            }
        }
        lock(&self.keys).open(note)
    }

    /// Turns a head that was not opened into an error. A head that a replaced key signs is a fork, because
    /// that key has also signed the head that handed over.
    pub(crate) fn refuse_head(&self, error: HeadError, note: &[u8], server: &str) -> Error {
        let keys = self.keys();
        let handover = match &error {
            HeadError::Retired { replaced, .. } => keys
                .handovers()
                .iter()
                .find(|handover| handover.head.size == *replaced),
            _ => None,
        };
        match (error, handover) {
            (HeadError::Retired { head, .. }, Some(handover)) => {
                let signed = SignedHead {
                    head,
                    note: bytes::Bytes::copy_from_slice(note),
                };
                let kind = ForkKind::RetiredKey;
                let refused = Refused::contradiction(kind, handover, &signed, None);
                self.refuse(refused, server)
            }
            (error, _) => TrustError::of_head(error, &self.pin, &keys).into(),
        }
    }

    /// The newest known key that has signed a head of this size: of a retired one, that one.
    fn signer(&self, head: &SignedHead) -> VerifierKey {
        let keys = self.keys();
        let all = keys.keys().all().iter().rev();
        let mut signers = all.filter(|known| SignedHead::open(&head.note, &known.key).is_ok());
        let signer = signers.next().map(|known| known.key.clone());
        signer.unwrap_or_else(|| self.pin.vkey.clone())
    }

    /// Turns a refusal into an error, and keeps the evidence if there is any.
    pub(crate) fn refuse(&self, refused: Refused, server: &str) -> Error {
        let error = match refused {
            Refused::Trust(error) => error.into(),
            Refused::Contradiction(contradiction) => self.keep_fork(*contradiction, server),
        };
        self.fail(&error);
        error
    }

    fn keep_fork(&self, contradiction: Contradiction, server: &str) -> Error {
        let Contradiction {
            kind,
            older,
            newer,
            proof,
        } = contradiction;
        let seen_at_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| {
                u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
            });
        let heads = [&older, &newer];
        let signers = [self.signer(&older), self.signer(&newer)];
        let evidence = ForkEvidence::new(
            kind,
            &self.pin,
            [&signers[0], &signers[1]],
            server,
            heads,
            proof.as_deref(),
            seen_at_us,
        );
        let kept_in = match self.store.as_ref().map(|store| store.keep_fork(&evidence)) {
            None => None,
            Some(Ok(path)) => Some(path),
            // A full disk must not hide the fork: the log gets the evidence, and the caller the error.
            Some(Err(error)) => {
                tracing::error!(%error, ?evidence, "fork evidence could not be kept");
                None
            }
        };
        TrustError::Fork {
            kind,
            old_size: older.head.size.get(),
            new_size: newer.head.size.get(),
            kept_in,
        }
        .into()
    }

    pub(crate) fn check_failure(&self) -> Result<(), Error> {
        match &lock(&self.link_state).failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    pub(crate) fn fail(&self, error: &Error) {
        lock(&self.link_state)
            .failure
            .get_or_insert_with(|| error.clone());
    }

    /// Returns true if it is time to link the heads; once per interval.
    pub(crate) fn is_due(&self) -> bool {
        let many = lock(&self.unlinked).len() > UNLINKED_MAX;
        let mut link_state = lock(&self.link_state);
        let at_once = many && link_state.failures == 0;
        let due =
            link_state.failure.is_none() && (at_once || link_state.at.elapsed() >= self.interval);
        if due {
            link_state.at = Instant::now();
        }
        due
    }

    /// Remembers the result of linking in the background. A server that goes on answering but does not
    /// prove that its heads are of one history is not trusted for ever.
    pub(crate) fn note_linked(&self, outcome: &Result<(), Error>) {
        let failures = {
            let mut link_state = lock(&self.link_state);
            match outcome {
                Ok(()) => link_state.failures = 0,
                // A failure on this machine (a full disk) says nothing about the server.
                Err(error) if error.kind() == ErrorKind::Input => {}
                Err(_) => link_state.failures = link_state.failures.saturating_add(1),
            }
            // The next attempt is an interval after the end of this one.
            link_state.at = Instant::now();
            link_state.failures
        };
        if failures >= LINK_FAILURES_MAX {
            let not_shown = lock(&self.unlinked).not_shown();
            self.fail(&not_shown.into());
        }
    }
}

/// Locks a mutex, even a poisoned one. A panic elsewhere leaves these values consistent: each change is
/// one call that does not panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
