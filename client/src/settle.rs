//! Taking in heads, and settling them: proving that all lie on one line, and storing the newest.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use deed_evidence::{receipt::consistency_proof, trust::HeadError};
use deed_proto::v1;
use deed_tlog::{ConsistencyProof, LeafIndex, TreeHead, VerifierKey};
use tonic::Code;

use crate::{
    error::{Error, ErrorKind},
    follow::NotFollowed,
    head::SignedHead,
    ledger::Ledger,
    options::Event,
    trust::{
        Advance, Contradiction, ForkEvidence, ForkKind, KnownKeys, Pin, Refused, Tips, TrustError,
        TrustStore,
    },
};

/// More tips than this are settled without waiting for the interval.
const TIPS_MAX: usize = 512;
/// After this many attempts to settle in a row that the server lets fail, it is not believed any
/// more. Each has tried again as often as the retry policy says, and they are an interval apart.
const SETTLE_FAILURES_MAX: u32 = 16;

/// What is believed of one ledger at the moment.
#[derive(Debug)]
pub(crate) struct Belief {
    pin: Pin,
    /// The log keys that are followed so far.
    keys: Mutex<KnownKeys>,
    /// Held while following: one at a time.
    following: tokio::sync::Mutex<()>,
    store: Option<TrustStore>,
    tips: Mutex<Tips>,
    /// The head that this process knows to be on disk, and consistent with all tips. Held while
    /// settling: one at a time.
    stored: tokio::sync::Mutex<Option<TreeHead>>,
    settled: Mutex<Settled>,
    /// The newest trust statement that was shown to this process.
    shown_trust: Mutex<Option<LeafIndex>>,
    /// Settling in the background is under way.
    settling: AtomicBool,
    interval: Duration,
}

#[derive(Debug)]
struct Settled {
    at: Instant,
    /// Attempts in the background that the server let fail, since the last one that did not.
    failures: u32,
    /// Settling in the background found that the ledger is not to be believed: nothing is, from
    /// then on.
    failure: Option<Error>,
}

impl Belief {
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
            tips: Mutex::new(Tips::new(trusted)),
            stored: tokio::sync::Mutex::new(stored),
            settled: Mutex::new(Settled {
                at: Instant::now(),
                failures: 0,
                failure: None,
            }),
            shown_trust: Mutex::new(None),
            settling: AtomicBool::new(false),
            interval,
        }
    }

    pub(crate) fn name_base(&self) -> SignedHead {
        lock(&self.tips).name_base()
    }

    pub(crate) fn newest(&self) -> SignedHead {
        lock(&self.tips).newest().clone()
    }

    /// Where it is kept, if it is.
    pub(crate) const fn store(&self) -> Option<&TrustStore> {
        self.store.as_ref()
    }

    /// The leaf of the newest trust statement that was shown to this process.
    pub(crate) fn shown_trust(&self) -> Option<LeafIndex> {
        *lock(&self.shown_trust)
    }

    /// See [`shown_trust`](Self::shown_trust).
    pub(crate) fn note_trust(&self, newest: LeafIndex) {
        let mut shown = lock(&self.shown_trust);
        *shown = (*shown).max(Some(newest));
    }

    /// The log keys that are followed so far.
    pub(crate) fn keys(&self) -> KnownKeys {
        lock(&self.keys).clone()
    }

    /// Takes in a head that was opened and came with a proof from `base`.
    fn take_in(
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
        let taken = lock(&self.tips).observe(head, base, proof.as_ref());
        taken.map_err(|refused| self.refuse(refused, server))
    }

    /// Verifies a head's signature, unless it is the newest one once more (many answers share
    /// the head of one commit).
    fn open(&self, note: &[u8]) -> Result<SignedHead, HeadError> {
        {
            let tips = lock(&self.tips);
            if tips.newest().note == note {
                return Ok(tips.newest().clone());
            }
        }
        lock(&self.keys).open(note)
    }

    /// Turns a head that was not opened into an error. One that a replaced key signs is a fork: the
    /// head that handed over says so, and that key has signed it.
    fn refuse_head(&self, error: HeadError, note: &[u8], server: &str) -> Error {
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
            // That the ledger forked must not be lost behind a full disk.
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

    fn check_failure(&self) -> Result<(), Error> {
        match &lock(&self.settled).failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    fn fail(&self, error: &Error) {
        lock(&self.settled)
            .failure
            .get_or_insert_with(|| error.clone());
    }

    /// Whether it is time to settle; says so once per interval.
    fn is_due(&self) -> bool {
        let many = lock(&self.tips).len() > TIPS_MAX;
        let mut settled = lock(&self.settled);
        let at_once = many && settled.failures == 0;
        let due = settled.failure.is_none() && (at_once || settled.at.elapsed() >= self.interval);
        if due {
            settled.at = Instant::now();
        }
        due
    }

    /// Remembers how settling in the background went. A server that goes on answering but does not
    /// show that its heads belong together is not believed for ever.
    fn note_settled(&self, outcome: &Result<(), Error>) {
        let failures = {
            let mut settled = lock(&self.settled);
            match outcome {
                Ok(()) => settled.failures = 0,
                // What fails here (a full disk) says nothing about the server.
                Err(error) if error.kind() == ErrorKind::Input => {}
                Err(_) => settled.failures = settled.failures.saturating_add(1),
            }
            // The next attempt is an interval after the end of this one.
            settled.at = Instant::now();
            settled.failures
        };
        if failures >= SETTLE_FAILURES_MAX {
            let not_shown = lock(&self.tips).not_shown();
            self.fail(&not_shown.into());
        }
    }
}

/// The right to settle in the background, given back when dropped.
struct Settling(Ledger);

impl Settling {
    fn begin(ledger: &Ledger, belief: &Belief) -> Option<Self> {
        let first = !belief.settling.swap(true, Ordering::Acquire);
        first.then(|| Self(ledger.clone()))
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        if let Some(belief) = &self.0.shared.belief {
            belief.settling.store(false, Ordering::Release);
        }
    }
}

impl Ledger {
    /// Proves that every head seen so far leads to the newest one, and stores that.
    ///
    /// Answers are verified when they come; what a pipelined stream cannot show by itself (that
    /// all its heads belong to one history) is shown here: about every second while appending,
    /// and whenever this is called. Call it at the end, or the next process begins with a head
    /// of up to a second before.
    ///
    /// # Errors
    /// [`Error::Trust`] if the ledger showed two histories; [`Error::Unreachable`],
    /// [`Error::Refused`] and [`Error::Store`] if it could not be done.
    pub async fn flush(&self) -> Result<(), Error> {
        let Some(belief) = &self.shared.belief else {
            return Ok(());
        };
        let mut stored = belief.stored.lock().await;
        // Whoever settled meanwhile may have found something.
        belief.check_failure()?;
        let (newest, behind) = {
            let tips = lock(&belief.tips);
            (tips.newest().clone(), tips.behind())
        };
        for tip in &behind {
            self.link(belief, tip, &newest).await?;
        }
        let Some(store) = &belief.store else {
            return Ok(());
        };
        while *stored != Some(newest.head) {
            let from = stored.unwrap_or(newest.head);
            match self.advance(store, from, &newest, belief).await? {
                Advance::Stored => *stored = Some(newest.head),
                Advance::Moved(other) => {
                    // Another process stored a head that it verified. Ours must lead to it, or
                    // the other way round.
                    if other.head.size <= newest.head.size {
                        self.link(belief, &other, &newest).await?;
                        *stored = Some(other.head);
                        continue;
                    }
                    let proof = self.prove_between(belief, &newest, &other).await?;
                    let taken = lock(&belief.tips).observe(&other, &newest, Some(&proof));
                    taken.map_err(|refused| belief.refuse(refused, self.connection.server()))?;
                    *stored = Some(other.head);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Verifies a head that came with a proof from `base`, and remembers it. One that is older
    /// than its base is proven to lead there.
    pub(crate) async fn take_in(
        &self,
        belief: &Belief,
        note: &[u8],
        base: &SignedHead,
        proof: Option<&v1::ConsistencyProof>,
    ) -> Result<SignedHead, Error> {
        belief.check_failure()?;
        let head = self.open_head(belief, note).await?;
        belief.take_in(&head, base, proof, self.connection.server())?;
        if head.head.size < base.head.size {
            self.link(belief, &head, base).await?;
        }
        Ok(head)
    }

    /// Opens a head with the keys of its size. If none of those that are known has signed it, asks
    /// whether another one took over.
    pub(crate) async fn open_head(
        &self,
        belief: &Belief,
        note: &[u8],
    ) -> Result<SignedHead, Error> {
        // Each round but the last knows more keys, and there are only so many.
        loop {
            let error = match belief.open(note) {
                Ok(head) => return Ok(head),
                Err(error) => error,
            };
            if !error.is_unknown_key() || !self.follow_log_keys(belief).await? {
                return Err(belief.refuse_head(error, note, self.connection.server()));
            }
        }
    }

    /// Follows the ledger to its newest log key; whether more keys are known afterwards. What shows it
    /// is kept on disk before anything that the new key signs is believed.
    pub(crate) async fn follow_log_keys(&self, belief: &Belief) -> Result<bool, Error> {
        let seen = belief.keys();
        let _following = belief.following.lock().await;
        belief.check_failure()?;
        let server = self.connection.server();
        let (known, trusted) = (belief.keys(), belief.newest());
        if known != seen {
            // Somebody else has followed meanwhile.
            return Ok(true);
        }
        let followed = match self.asking().follow(&known, Some(&trusted)).await {
            Ok(None) => return Ok(false),
            Ok(Some(followed)) => followed,
            Err(NotFollowed::Refused(refused)) => return Err(belief.refuse(refused, server)),
            Err(NotFollowed::Error(error)) => return Err(error),
        };
        let mut keys = followed.keys;
        if let Some(store) = belief.store.clone() {
            let (pin, found) = (belief.pin.clone(), keys);
            keys = tokio::task::spawn_blocking(move || store.keep_keys(&pin, &found))
                .await
                .map_err(|_| Error::Ended)??;
        }
        let before = known.keys().all().len();
        for key in keys.keys().all().iter().skip(before) {
            self.shared.observer.tell(&Event::LogKeyRotated {
                origin: belief.pin.origin.to_string(),
                vkey: key.key.to_string(),
                first_size: key.first_size.get(),
            });
        }
        *lock(&belief.keys) = keys;
        let mut base = trusted;
        for (head, proof) in followed.heads {
            let taken = lock(&belief.tips).observe(&head, &base, Some(&proof));
            taken.map_err(|refused| belief.refuse(refused, server))?;
            base = head;
        }
        Ok(true)
    }

    /// Settles in the background if it is time, one at a time. What it finds is reported by the
    /// next call.
    pub(crate) fn settle_if_due(&self) {
        let Some(belief) = &self.shared.belief else {
            return;
        };
        let Some(settling) = Settling::begin(self, belief) else {
            return;
        };
        if !belief.is_due() {
            return;
        }
        tokio::spawn(async move {
            let ledger = &settling.0;
            let outcome = ledger.flush().await;
            // Contradictions are remembered by the belief; anything else is tried again, within
            // bounds.
            if let Some(belief) = &ledger.shared.belief {
                belief.note_settled(&outcome);
            }
            if let Err(error) = outcome {
                let reason = error.to_string();
                ledger.shared.observer.tell(&Event::NotSettled { reason });
            }
        });
    }

    async fn advance(
        &self,
        store: &TrustStore,
        from: TreeHead,
        to: &SignedHead,
        belief: &Belief,
    ) -> Result<Advance, Error> {
        let (store, to, pin) = (store.clone(), to.clone(), belief.pin.clone());
        // Syncs to disk: not on a thread that answers are waiting for.
        tokio::task::spawn_blocking(move || store.advance(&from, &to, &pin))
            .await
            .map_err(|_| Error::Ended)?
            .map_err(Error::from)
    }

    /// Proves that `tip` leads to `newer`, and drops it from the tips.
    async fn link(
        &self,
        belief: &Belief,
        tip: &SignedHead,
        newer: &SignedHead,
    ) -> Result<(), Error> {
        let proof = if tip.head.size < newer.head.size {
            self.prove_between(belief, tip, newer).await?
        } else {
            ConsistencyProof::default()
        };
        let linked = lock(&belief.tips).link(tip, newer, &proof);
        linked.map_err(|refused| belief.refuse(refused, self.connection.server()))
    }

    /// Asks for the proof between two signed heads of different sizes. A server that signed both
    /// and cannot give it has forked, or lost what it signed.
    async fn prove_between(
        &self,
        belief: &Belief,
        older: &SignedHead,
        newer: &SignedHead,
    ) -> Result<ConsistencyProof, Error> {
        let request = v1::GetConsistencyProofRequest {
            ledger: self.shared.name.clone(),
            old_size: older.head.size.get(),
            new_size: newer.head.size.get(),
            min_size: 0,
        };
        let answer = self
            .call(|connection| {
                let request = request.clone();
                async move { connection.log().get_consistency_proof(request).await }
            })
            .await;
        let server = self.connection.server();
        match answer {
            Ok(answer) => {
                // The proof comes with a signed head of the newer size: if the server forked,
                // that one differs from ours, which proves it without any proof.
                let signed = self.open_head(belief, &answer.checkpoint).await?;
                if signed.head.size == newer.head.size && signed.head.root != newer.head.root {
                    let refused = Refused::contradiction(ForkKind::SameSize, newer, &signed, None);
                    return Err(belief.refuse(refused, server));
                }
                read_proof(&answer.hashes)
            }
            Err(call)
                if matches!(
                    call.status.code(),
                    Code::OutOfRange | Code::NotFound | Code::InvalidArgument
                ) =>
            {
                let refused = Refused::contradiction(ForkKind::NoProof, older, newer, None);
                Err(belief.refuse(refused, server))
            }
            Err(call) => Err(call.error),
        }
    }

    /// Verifies a signed head of any size that came from somewhere: its signature, and that it is
    /// consistent with what is trusted. It is trusted from then on.
    ///
    /// # Errors
    /// [`Error::Trust`] if it does not verify; [`Error::Unreachable`] and [`Error::Refused`].
    pub async fn trust_note(&self, note: &[u8]) -> Result<SignedHead, Error> {
        let Some(belief) = &self.shared.belief else {
            return Ok(self.shared.open_unverified(note)?);
        };
        belief.check_failure()?;
        let head = self.open_head(belief, note).await?;
        let newest = belief.newest();
        let same_size = lock(&belief.tips).compare_with_same_size(&head);
        same_size.map_err(|refused| belief.refuse(refused, self.connection.server()))?;
        if head.head.size > newest.head.size {
            let proof = self.prove_between(belief, &newest, &head).await?;
            let taken = lock(&belief.tips).observe(&head, &newest, Some(&proof));
            taken.map_err(|refused| belief.refuse(refused, self.connection.server()))?;
        } else {
            self.link(belief, &head, &newest).await?;
        }
        Ok(head)
    }
}

pub(crate) fn read_proof(hashes: &[bytes::Bytes]) -> Result<ConsistencyProof, Error> {
    consistency_proof(hashes).map_err(|_| {
        TrustError::MalformedProof {
            what: "a consistency proof",
        }
        .into()
    })
}

/// A panic elsewhere leaves these consistent: each change is one call that does not panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
