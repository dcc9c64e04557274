//! Trust statements that were shown once, and that a server does not hide afterwards.
//!
//! A chain of trust statements proves that none is left out between its first and its last. That none
//! follows the last is the server's word, and a server that hides a revocation lies with that word. So
//! the newest statement that was ever shown is remembered, by the process and in the state directory
//! for those that come after it: a chain that lacks it, in a tree that holds it, is refused.

use bytes::Bytes;
use deed_tlog::LeafIndex;

use crate::{error::Error, head::SignedHead, ledger::Ledger, trust::TrustError};

impl Ledger {
    /// The leaf of the newest trust statement that the server has shown to this process; `None` if it
    /// has shown none yet, or verification is switched off. That none follows is the server's word.
    #[must_use]
    pub fn newest_trust(&self) -> Option<LeafIndex> {
        self.shared.tracker.as_ref()?.shown_trust()
    }

    /// Refuses a chain of trust statements, proven in the tree of `head`, that lacks one which was shown
    /// before; and remembers how far it goes. `entries` are in the order of their leaves.
    pub(crate) async fn remember_trust(
        &self,
        entries: &[(LeafIndex, Bytes)],
        head: &SignedHead,
    ) -> Result<(), Error> {
        let (Some(tracker), Some((newest, _))) = (&self.shared.tracker, entries.last()) else {
            return Ok(());
        };
        let newest = *newest;
        let has = |shown: LeafIndex| {
            // Another process may have seen a larger tree meanwhile.
            let is_behind = shown.get() >= head.head.size.get();
            let there = entries.binary_search_by_key(&shown, |(leaf, _)| *leaf);
            if is_behind || there.is_ok() {
                return Ok(());
            }
            Err(TrustError::TrustChain {
                reason: format!(
                    "it hides the trust statement at leaf {shown}, which the server has shown before: \
                     the chain that it shows now goes to leaf {newest}"
                ),
            })
        };
        if let Some(shown) = tracker.shown_trust() {
            has(shown)?;
        }
        if let Some(store) = tracker.store() {
            let from = store.clone();
            let kept = tokio::task::spawn_blocking(move || from.trust());
            let kept = kept.await.map_err(|_| Error::Ended)??;
            kept.map_or(Ok(()), has)?;
            if kept.is_none_or(|kept| kept < newest) {
                // The stored leaf must lie in the tree whose head is stored, and not in a fork of it.
                self.flush().await?;
                let to = store.clone();
                let kept = tokio::task::spawn_blocking(move || to.keep_trust(newest));
                has(kept.await.map_err(|_| Error::Ended)??)?;
            }
        }
        tracker.note_trust(newest);
        Ok(())
    }
}
