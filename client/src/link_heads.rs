//! Linking heads: proving that all heads that were seen are of one history, and storing the newest.

use std::sync::atomic::Ordering;

use deed_evidence::receipt::consistency_proof;
use deed_proto::v1;
use deed_tlog::{ConsistencyProof, TreeHead, verify_consistency};

use crate::{
    consistency::{Asked, Unproven, holds},
    error::Error,
    follow::FollowError,
    head::SignedHead,
    head_tracker::{HeadTracker, lock},
    ledger::Ledger,
    options::Event,
    retry::RetryPolicy,
    trust::{Advance, ForkKind, Refused, TrustError, TrustStore},
};

/// The permit to link heads in the background, given back when dropped.
struct LinkPermit(Ledger);

impl LinkPermit {
    fn begin(ledger: &Ledger, tracker: &HeadTracker) -> Option<Self> {
        let first = !tracker.linking.swap(true, Ordering::Acquire);
        first.then(|| Self(ledger.clone()))
    }
}

impl Drop for LinkPermit {
    fn drop(&mut self) {
        if let Some(tracker) = &self.0.shared.tracker {
            tracker.linking.store(false, Ordering::Release);
        }
    }
}

impl Ledger {
    /// Proves that every head seen so far leads to the newest one, and stores the newest one.
    ///
    /// Answers are verified when they come. A pipelined stream alone does not show that all its heads
    /// belong to one history; this is proven about every second while appending, and by each call of this
    /// function. Call it at the end, or the next process begins with a head of up to a second before.
    ///
    /// # Errors
    /// [`Error::Trust`] if the ledger showed two histories; [`Error::Unreachable`],
    /// [`Error::Refused`] and [`Error::Store`] if it could not be done.
    pub async fn flush(&self) -> Result<(), Error> {
        let Some(tracker) = &self.shared.tracker else {
            return Ok(());
        };
        let mut stored = tracker.stored.lock().await;
        // A flush that ran meanwhile may have found something.
        tracker.check_failure()?;
        let (newest, behind) = {
            let unlinked = lock(&tracker.unlinked);
            (unlinked.newest().clone(), unlinked.behind())
        };
        for older in &behind {
            self.link(tracker, older, &newest, true).await?;
        }
        let Some(store) = &tracker.store else {
            return Ok(());
        };
        while *stored != Some(newest.head) {
            let from = stored.unwrap_or(newest.head);
            match self.advance(store, from, &newest, tracker).await? {
                Advance::Stored => *stored = Some(newest.head),
                Advance::Moved(other) => {
                    // Another process stored a head that it verified. Ours must lead to it, or
                    // the other way round.
                    if other.head.size <= newest.head.size {
                        self.link(tracker, &other, &newest, true).await?;
                        *stored = Some(other.head);
                        continue;
                    }
                    let proof = self.prove_between(tracker, &newest, &other, true).await?;
                    let taken = lock(&tracker.unlinked).observe(&other, &newest, Some(&proof));
                    taken.map_err(|refused| tracker.refuse(refused, self.connection.names()))?;
                    *stored = Some(other.head);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Verifies a head that came with a proof from `base`, and remembers it. One that is older
    /// than its base is proven to lead there.
    pub(crate) async fn observe_head(
        &self,
        tracker: &HeadTracker,
        note: &[u8],
        base: &SignedHead,
        proof: Option<&v1::ConsistencyProof>,
    ) -> Result<SignedHead, Error> {
        tracker.check_failure()?;
        let head = self.open_head(tracker, note).await?;
        if let Some(other) = self.prove_elsewhere(tracker, &head, base, proof).await? {
            let taken = lock(&tracker.unlinked).observe(&head, base, Some(&other));
            taken.map_err(|refused| tracker.refuse(refused, self.connection.names()))?;
            return Ok(head);
        }
        tracker.observe_head(&head, base, proof, self.connection.names())?;
        if head.head.size < base.head.size {
            self.link(tracker, &head, base, true).await?;
        }
        Ok(head)
    }

    /// Asks all servers for the proof from `base` to a larger head, if the one that came along does not
    /// hold. `None` if it holds, if only one server is known, or if no server has one that does: then what
    /// came along is judged.
    async fn prove_elsewhere(
        &self,
        tracker: &HeadTracker,
        head: &SignedHead,
        base: &SignedHead,
        proof: Option<&v1::ConsistencyProof>,
    ) -> Result<Option<ConsistencyProof>, Error> {
        let (old, new) = (&base.head, &head.head);
        let is_proven = |proof: &v1::ConsistencyProof| {
            proof.old_size == old.size.get() && holds(&proof.hashes, old, new)
        };
        if self.connection.count() == 1 || new.size <= old.size || proof.is_some_and(is_proven) {
            return Ok(None);
        }
        let other = self.prove_between(tracker, base, head, true).await;
        // A contradiction between signed heads may have been found meanwhile.
        tracker.check_failure()?;
        Ok(other
            .ok()
            .filter(|proof| verify_consistency(proof, old, new).is_ok()))
    }

    /// Opens a head with the keys of its size. If none of those that are known has signed it, asks
    /// whether another one took over.
    pub(crate) async fn open_head(
        &self,
        tracker: &HeadTracker,
        note: &[u8],
    ) -> Result<SignedHead, Error> {
        // Each round but the last knows more keys, and there are only so many.
        loop {
            let error = match tracker.open(note) {
                Ok(head) => return Ok(head),
                Err(error) => error,
            };
            if !error.is_unknown_key() || !self.follow_log_keys(tracker).await? {
                return Err(tracker.refuse_head(error, note, self.connection.names()));
            }
        }
    }

    /// Follows the ledger to its newest log key; whether more keys are known afterwards. What shows it
    /// is kept on disk before anything that the new key signs is believed.
    pub(crate) async fn follow_log_keys(&self, tracker: &HeadTracker) -> Result<bool, Error> {
        let seen = tracker.keys();
        let _following = tracker.following.lock().await;
        tracker.check_failure()?;
        let server = self.connection.names();
        let (known, trusted) = (tracker.keys(), tracker.newest());
        if known != seen {
            // Somebody else has followed meanwhile.
            return Ok(true);
        }
        let followed = match self.log_key_client().follow(&known, Some(&trusted)).await {
            Ok(None) => return Ok(false),
            Ok(Some(followed)) => followed,
            Err(FollowError::Refused(refused)) => return Err(tracker.refuse(refused, server)),
            Err(FollowError::Error(error)) => return Err(error),
        };
        let mut keys = followed.keys;
        if let Some(store) = tracker.store.clone() {
            let (pin, found) = (tracker.pin.clone(), keys);
            keys = tokio::task::spawn_blocking(move || store.keep_keys(&pin, &found))
                .await
                .map_err(|_| Error::Ended)??;
        }
        let before = known.keys().all().len();
        for key in keys.keys().all().iter().skip(before) {
            self.shared.observer.report(&Event::LogKeyRotated {
                origin: tracker.pin.origin.to_string(),
                vkey: key.key.to_string(),
                first_size: key.first_size.get(),
            });
        }
        *lock(&tracker.keys) = keys;
        let mut base = trusted;
        for (head, proof) in followed.heads {
            let taken = lock(&tracker.unlinked).observe(&head, &base, Some(&proof));
            taken.map_err(|refused| tracker.refuse(refused, server))?;
            base = head;
        }
        Ok(true)
    }

    /// Links the heads in the background if it is time, one at a time. The next call reports what it finds.
    pub(crate) fn link_heads_if_due(&self) {
        let Some(tracker) = &self.shared.tracker else {
            return;
        };
        let Some(linking) = LinkPermit::begin(self, tracker) else {
            return;
        };
        if !tracker.is_due() {
            return;
        }
        tokio::spawn(async move {
            let ledger = &linking.0;
            let outcome = ledger.flush().await;
            // Contradictions are remembered by the tracker; anything else is tried again, within
            // bounds.
            if let Some(tracker) = &ledger.shared.tracker {
                tracker.note_linked(&outcome);
            }
            if let Err(error) = outcome {
                let reason = error.to_string();
                ledger
                    .shared
                    .observer
                    .report(&Event::HeadsNotLinked { reason });
            }
        });
    }

    async fn advance(
        &self,
        store: &TrustStore,
        from: TreeHead,
        to: &SignedHead,
        tracker: &HeadTracker,
    ) -> Result<Advance, Error> {
        let (store, to, pin) = (store.clone(), to.clone(), tracker.pin.clone());
        // Syncs to disk: not on a thread that answers are waiting for.
        tokio::task::spawn_blocking(move || store.advance(&from, &to, &pin))
            .await
            .map_err(|_| Error::Ended)?
            .map_err(Error::from)
    }

    /// Proves that `older` leads to `newer`, and drops it from the unlinked heads.
    async fn link(
        &self,
        tracker: &HeadTracker,
        older: &SignedHead,
        newer: &SignedHead,
        patient: bool,
    ) -> Result<(), Error> {
        let proof = if older.head.size < newer.head.size {
            self.prove_between(tracker, older, newer, patient).await?
        } else {
            ConsistencyProof::default()
        };
        let linked = lock(&tracker.unlinked).link(older, newer, &proof);
        linked.map_err(|refused| tracker.refuse(refused, self.connection.names()))
    }

    /// Asks for the proof between two signed heads of different sizes. If every server denies it, the
    /// ledger has forked, or lost what it signed. Without `patient` each server is asked once, and does not
    /// wait for a tree that it lacks.
    async fn prove_between(
        &self,
        tracker: &HeadTracker,
        older: &SignedHead,
        newer: &SignedHead,
        patient: bool,
    ) -> Result<ConsistencyProof, Error> {
        let (shared, connection) = (&self.shared, &self.connection);
        let asked = Asked {
            connection,
            ledger: &shared.name,
            timeout: shared.timeout,
            retry: if patient {
                shared.retry
            } else {
                RetryPolicy::never()
            },
            observer: Some(&shared.observer),
            patient,
        };
        match asked.consistency(&older.head, &newer.head).await {
            Ok(proofs) => {
                match self.open_head(tracker, &proofs.chosen.checkpoint).await {
                    Ok(head) => self.refuse_other(tracker, newer, &head)?,
                    // The proof is between two heads that are known. One of several servers must not
                    // keep them apart by what it sends beside it.
                    Err(error) => {
                        tracker.check_failure()?;
                        if connection.count() == 1 {
                            return Err(error);
                        }
                    }
                }
                self.refuse_others(tracker, newer, &proofs.failing)?;
                read_proof(&proofs.chosen.hashes)
            }
            Err(Unproven::Denied) => {
                let refused = Refused::contradiction(ForkKind::NoProof, older, newer, None);
                Err(tracker.refuse(refused, connection.names()))
            }
            Err(Unproven::Unknown { error, failing }) => {
                self.refuse_others(tracker, newer, &failing)?;
                Err(error)
            }
        }
    }

    /// Fails if the heads of some answers contradict `newer`. Heads that do not open say nothing.
    fn refuse_others(
        &self,
        tracker: &HeadTracker,
        newer: &SignedHead,
        answers: &[v1::ConsistencyProofResponse],
    ) -> Result<(), Error> {
        let opened = answers.iter();
        let mut opened = opened.filter_map(|answer| tracker.open(&answer.checkpoint).ok());
        opened.try_for_each(|head| self.refuse_other(tracker, newer, &head))
    }

    /// Fails if a signed head has the size of `newer` and another root: a fork that needs no proof.
    fn refuse_other(
        &self,
        tracker: &HeadTracker,
        newer: &SignedHead,
        other: &SignedHead,
    ) -> Result<(), Error> {
        if other.head.size != newer.head.size || other.head.root == newer.head.root {
            return Ok(());
        }
        let refused = Refused::contradiction(ForkKind::SameSize, newer, other, None);
        Err(tracker.refuse(refused, self.connection.names()))
    }

    /// Verifies a signed head of any size that came from somewhere: its signature, and that it is
    /// consistent with what is trusted. It is trusted from then on.
    ///
    /// # Errors
    /// [`Error::Trust`] if it does not verify; [`Error::Unreachable`] and [`Error::Refused`].
    pub async fn trust_note(&self, note: &[u8]) -> Result<SignedHead, Error> {
        match &self.shared.tracker {
            Some(tracker) => self.compare_note(tracker, note, true).await,
            None => Ok(self.shared.open_unverified(note)?),
        }
    }

    /// As [`trust_note`](Self::trust_note). Without `patient` each server is asked once.
    pub(crate) async fn compare_note(
        &self,
        tracker: &HeadTracker,
        note: &[u8],
        patient: bool,
    ) -> Result<SignedHead, Error> {
        tracker.check_failure()?;
        let head = self.open_head(tracker, note).await?;
        let newest = tracker.newest();
        let same_size = lock(&tracker.unlinked).compare_with_same_size(&head);
        same_size.map_err(|refused| tracker.refuse(refused, self.connection.names()))?;
        if head.head.size > newest.head.size {
            let proof = self.prove_between(tracker, &newest, &head, patient).await?;
            let taken = lock(&tracker.unlinked).observe(&head, &newest, Some(&proof));
            taken.map_err(|refused| tracker.refuse(refused, self.connection.names()))?;
        } else {
            self.link(tracker, &head, &newest, patient).await?;
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
