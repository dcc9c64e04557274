//! Replaying a ledger's trust statements.

use std::collections::HashMap;

use deed_proto::v1::PayloadType;
use deed_tlog::{LeafIndex, leaf_hash};
use thiserror::Error;

use super::{LogKeys, TrustLink, TrustRefusal, TrustState, TrustStatement};
use crate::{
    KeyId, LedgerId, Micros, PayloadDigest, Sequence, SessionId, WireError,
    entry::{Entry, EntryError},
    genesis::{Genesis, GenesisError},
    session,
    signature::{self, SignatureError},
    statement::Header,
};

/// Trust entries from the genesis entry on, each checked against those before it.
///
/// It shows that these statements were made by the authorities of their time, in this order, with
/// none in between left out. What it does not: that the entries are in the log (that takes their
/// inclusion proofs), and that none follow. Effective time is known as far as the chain shows it:
/// it is the highest receive time of its entries, and no later than the ledger's own.
#[derive(Debug, Clone)]
pub struct TrustChain {
    trust: TrustState,
    at: Micros,
    /// Sessions that trust statements are in may hold others of the owner's, which the chain does
    /// not show (grants, for example). But sequences rise: a statement that stands twice, or at
    /// another place than its author gave it, is noticed.
    sessions: HashMap<SessionId, Last>,
}

/// The last trust statement of a session.
#[derive(Debug, Clone, Copy)]
struct Last {
    signer: KeyId,
    sequence: Sequence,
    payload: PayloadDigest,
}

/// A trust chain that does not hold. Indexes are as claimed.
#[derive(Debug, Error)]
pub enum ChainError {
    /// It does not begin with a genesis entry.
    #[error("the trust chain's first entry: {0}")]
    Genesis(#[from] GenesisError),
    /// An entry that cannot be read.
    #[error("trust entry at leaf {index}: {source}")]
    Entry {
        /// Leaf index.
        index: LeafIndex,
        /// The reason.
        source: EntryError,
    },
    /// Its payload cannot be read, or does not fit the entry.
    #[error("trust statement at leaf {index}: {source}")]
    Statement {
        /// Leaf index.
        index: LeafIndex,
        /// The reason.
        source: WireError,
    },
    /// It is something else than a trust statement.
    #[error("the entry at leaf {index} is no trust statement")]
    NotTrust {
        /// Leaf index.
        index: LeafIndex,
    },
    /// It is a trust statement that log keys do not follow from.
    #[error("the trust statement at leaf {index} is none that log keys follow from")]
    NotOfLogKeys {
        /// Leaf index.
        index: LeafIndex,
    },
    /// It is for another ledger.
    #[error("the trust statement at leaf {index} is for another ledger than {wanted}")]
    OtherLedger {
        /// Leaf index.
        index: LeafIndex,
        /// The chain's.
        wanted: LedgerId,
    },
    /// It links to another entry than the one before it: one is missing, or foreign.
    #[error(
        "the trust statement at leaf {index} follows leaf {found} with hash {found_hash}, but the one before it is leaf {wanted} with hash {wanted_hash}"
    )]
    Link {
        /// Leaf index.
        index: LeafIndex,
        /// The leaf that it links to.
        found: LeafIndex,
        /// The leaf hash that it links to.
        found_hash: deed_tlog::Hash,
        /// Leaf before it in the chain.
        wanted: LeafIndex,
        /// The hash of that leaf.
        wanted_hash: deed_tlog::Hash,
    },
    /// Indexes do not rise.
    #[error("the trust statement at leaf {index} comes after the one at leaf {before}")]
    Order {
        /// Leaf index.
        index: LeafIndex,
        /// Leaf before it in the chain.
        before: LeafIndex,
    },
    /// A signature, or a proof of possession, that does not hold.
    #[error("trust statement at leaf {index}: {source}")]
    Signature {
        /// Leaf index.
        index: LeafIndex,
        /// The reason.
        source: SignatureError,
    },
    /// A proof of possession that does not hold.
    #[error("proof of possession in the trust statement at leaf {index}: {source}")]
    Possession {
        /// Leaf index.
        index: LeafIndex,
        /// The reason.
        source: SignatureError,
    },
    /// The same place in its session as an earlier one: an old statement shown again.
    #[error("the trust statement at leaf {index} repeats sequence {sequence} of its session")]
    Again {
        /// Leaf index.
        index: LeafIndex,
        /// The sequence.
        sequence: Sequence,
    },
    /// Not the next one of its session.
    #[error("the trust statement at leaf {index}: {source}")]
    Session {
        /// Leaf index.
        index: LeafIndex,
        /// The reason.
        source: session::Refusal,
    },
    /// It contradicts those before it.
    #[error("trust statement at leaf {index}: {source}")]
    Refused {
        /// Leaf index.
        index: LeafIndex,
        /// The reason.
        source: TrustRefusal,
    },
}

impl Last {
    /// Checks that a statement of the same session is of the same key, and behind it.
    fn check(&self, next: &Header<'_>, signer: KeyId, index: LeafIndex) -> Result<(), ChainError> {
        let refused = |source| ChainError::Session { index, source };
        if self.signer != signer {
            return Err(refused(session::Refusal::SessionTaken));
        }
        if next.sequence <= self.sequence {
            return Err(ChainError::Again {
                index,
                sequence: next.sequence,
            });
        }
        let follows = self.sequence.get().checked_add(1) == Some(next.sequence.get());
        if follows
            && next
                .previous
                .is_some_and(|previous| previous != self.payload)
        {
            let expected = next.sequence;
            return Err(refused(session::Refusal::PreviousMismatch { expected }));
        }
        Ok(())
    }
}

impl TrustChain {
    /// Begins with the genesis entry's bytes. Whether it is the ledger that was meant is for the
    /// caller to compare: [`TrustState::ledger_id`].
    ///
    /// # Errors
    /// [`ChainError::Genesis`].
    pub fn begin(genesis_entry: &[u8]) -> Result<Self, ChainError> {
        let (genesis, ledger_id) = Genesis::from_entry(genesis_entry)?;
        Ok(Self {
            trust: TrustState::genesis(ledger_id, &genesis),
            at: genesis.created_at,
            sessions: HashMap::new(),
        })
    }

    /// Takes the next trust entry.
    ///
    /// # Errors
    /// [`ChainError`] if it does not hold; the chain stays as it was then.
    pub fn push(&mut self, index: LeafIndex, entry: &[u8]) -> Result<(), ChainError> {
        self.push_as(index, entry, Complete::Yes)
    }

    fn push_as(
        &mut self,
        index: LeafIndex,
        entry: &[u8],
        complete: Complete,
    ) -> Result<(), ChainError> {
        let hash = leaf_hash(entry);
        let entry = Entry::parse(entry).map_err(|source| ChainError::Entry { index, source })?;
        let malformed = |source| ChainError::Statement { index, source };
        let header = entry.statement().map_err(malformed)?;
        let statement = TrustStatement::parse(entry.payload).map_err(malformed)?;
        let (Some(statement), Some(signed), Some(link)) =
            (statement, entry.signature, entry.previous_trust)
        else {
            return Err(ChainError::NotTrust { index });
        };
        let ledger_id = self.trust.ledger_id();
        if header.ledger_id != Some(ledger_id) {
            return Err(ChainError::OtherLedger {
                index,
                wanted: ledger_id,
            });
        }
        match complete {
            Complete::Yes => self.check_link(index, link)?,
            Complete::LogKeysOnly => {
                let shown = matches!(
                    statement,
                    TrustStatement::AuthoritiesChanged(_) | TrustStatement::LogKeyRotated { .. }
                );
                if !shown {
                    return Err(ChainError::NotOfLogKeys { index });
                }
                self.check_order(index)?;
            }
        }

        let at = self.at.max(entry.received_at);
        // First whether the signer is an authority at all, for the better message.
        let refused = |source| ChainError::Refused { index, source };
        self.trust
            .judge(&statement, signed.key(), at)
            .map_err(refused)?;
        let key = self.trust.is_authority(signed.key()).ok_or_else(|| {
            let signer = signed.key();
            refused(TrustRefusal::SignerUnknown { signer })
        })?;
        signature::verify(key, PayloadType::Statement, entry.payload, signed.signature)
            .map_err(|source| ChainError::Signature { index, source })?;
        statement
            .verify_possession(ledger_id)
            .map_err(|source| ChainError::Possession { index, source })?;

        let signer = signed.key();
        if let Some(last) = self.sessions.get(&header.session) {
            last.check(&header, signer, index)?;
        }
        let last = Last {
            signer,
            sequence: header.sequence,
            payload: PayloadDigest::of(entry.payload),
        };
        self.sessions.insert(header.session, last);

        self.trust.apply(&statement, at, index, hash);
        self.at = at;
        Ok(())
    }

    /// The trust state after the entries so far.
    #[must_use]
    pub const fn trust(&self) -> &TrustState {
        &self.trust
    }

    /// The highest receive time of its entries: no later than the ledger's own effective time.
    #[must_use]
    pub const fn effective_time(&self) -> Micros {
        self.at
    }

    /// Gives the trust state away.
    #[must_use]
    pub fn into_trust(self) -> TrustState {
        self.trust
    }

    /// Checks a whole chain: the genesis entry's bytes, and each trust entry's leaf index and bytes
    /// in order.
    ///
    /// # Errors
    /// [`ChainError`] for the first entry that does not hold.
    pub fn verify<E: AsRef<[u8]>>(
        genesis_entry: &[u8],
        entries: impl IntoIterator<Item = (LeafIndex, E)>,
    ) -> Result<TrustState, ChainError> {
        let mut chain = Self::begin(genesis_entry)?;
        for (index, entry) in entries {
            chain.push(index, entry.as_ref())?;
        }
        Ok(chain.into_trust())
    }

    fn check_link(&self, index: LeafIndex, link: TrustLink) -> Result<(), ChainError> {
        let head = self.trust.head();
        if link != head {
            return Err(ChainError::Link {
                index,
                found: link.leaf_index,
                found_hash: link.leaf_hash,
                wanted: head.leaf_index,
                wanted_hash: head.leaf_hash,
            });
        }
        self.check_order(index)
    }

    fn check_order(&self, index: LeafIndex) -> Result<(), ChainError> {
        let before = self.trust.head().leaf_index;
        if index <= before {
            return Err(ChainError::Order { index, before });
        }
        Ok(())
    }
}

/// The trust entries that a chain is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Complete {
    /// All of them.
    Yes,
    /// Those that log keys follow from.
    LogKeysOnly,
}

/// The trust entries that a ledger's log keys follow from, from the genesis entry on: each
/// AuthoritiesChanged and LogKeyRotated, in order, and nothing of who speaks for whom.
///
/// It shows that each new key was named by an authority of its time, as far as the changes of
/// authorities were shown. What it does not: that none was left out, for that is in the links of
/// the whole [`TrustChain`]; that the entries are in the log; and that the key before has handed
/// over.
#[derive(Debug, Clone)]
pub struct LogKeyChain(TrustChain);

impl LogKeyChain {
    /// Begins as [`TrustChain::begin`].
    ///
    /// # Errors
    /// [`ChainError::Genesis`].
    pub fn begin(genesis_entry: &[u8]) -> Result<Self, ChainError> {
        TrustChain::begin(genesis_entry).map(Self)
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// [`ChainError`] if it does not hold; the chain stays as it was then.
    pub fn push(&mut self, index: LeafIndex, entry: &[u8]) -> Result<(), ChainError> {
        self.0.push_as(index, entry, Complete::LogKeysOnly)
    }

    /// The ledger.
    #[must_use]
    pub const fn ledger_id(&self) -> LedgerId {
        self.0.trust.ledger_id()
    }

    /// The keys so far.
    #[must_use]
    pub const fn log_keys(&self) -> &LogKeys {
        self.0.trust.log_keys()
    }
}
