//! A ledger's log keys, with their private halves.

use std::sync::Arc;

use bytes::Bytes;
use deed_evidence::trust::LogKeys;
use deed_tlog::{Checkpoint, NoteSigner, Origin, SignedNote, TreeHead, VerifierKey};
use parking_lot::RwLock;

use super::Identity;

/// Signs the heads of one ledger, each with the key, or both keys, that sign trees of its size.
pub struct LogSigners {
    identity: Arc<Identity>,
    origin: Origin,
    /// Signers by generation: derived once, and kept while the ledger is in memory.
    derived: RwLock<Vec<Arc<NoteSigner>>>,
}

impl LogSigners {
    /// Returns the signers of a ledger; none is derived yet.
    pub(crate) fn new(identity: Arc<Identity>, origin: Origin) -> Self {
        Self {
            identity,
            origin,
            derived: RwLock::default(),
        }
    }

    /// Derives the signers of all keys; returns `None` if the server's secrets do not give all of
    /// them.
    pub(crate) fn open(
        identity: Arc<Identity>,
        origin: Origin,
        log_keys: &LogKeys,
    ) -> Option<Self> {
        let signers = Self::new(identity, origin);
        for (generation, known) in log_keys.all().iter().enumerate() {
            signers.signer(generation, &known.key)?;
        }
        Some(signers)
    }

    /// Returns the key that the ledger gets after these.
    pub(crate) fn next(&self, log_keys: &LogKeys) -> VerifierKey {
        let generation = number(log_keys.all().len());
        let signer = self.identity.log_signer(&self.origin, generation);
        signer.verifier_key().clone()
    }

    /// Signs a head. The result is deterministic: the keys that sign a size never change, so the
    /// same head gives the same bytes.
    pub(crate) fn sign(&self, log_keys: &LogKeys, head: TreeHead) -> Bytes {
        let signers = log_keys.at(head.size);
        let checkpoint = Checkpoint::new(self.origin.clone(), head);
        let signed = |generation, key| -> SignedNote {
            let signer = self
                .signer(generation, key)
                .expect("admission takes no key but the next one that derives from the secrets");
            checkpoint
                .sign(&signer)
                .expect("the key is named after the origin")
        };
        let mut note = signed(signers.generation, signers.key);
        if let Some(before) = signers.handed_over_by {
            let other = signed(signers.generation - 1, before);
            for signature in other.signatures() {
                note.push_signature(signature.clone())
                    .expect("two signatures are not too many");
            }
        }
        Bytes::from(note.to_string())
    }

    fn signer(&self, generation: usize, key: &VerifierKey) -> Option<Arc<NoteSigner>> {
        if let Some(derived) = self.derived.read().get(generation)
            && derived.verifier_key() == key
        {
            return Some(Arc::clone(derived));
        }
        let signer = self
            .identity
            .log_signer_of(&self.origin, number(generation), key)?;
        let signer = Arc::new(signer);
        let mut derived = self.derived.write();
        if derived.len() == generation {
            derived.push(Arc::clone(&signer));
        }
        Some(signer)
    }
}

fn number(generation: usize) -> u32 {
    u32::try_from(generation).expect("a ledger has at most 256 log keys")
}
