//! Reading a ledger: heads, proofs and entries, all verified.

use bytes::Bytes;
use deed_evidence::{Sequence, SessionId, receipt};
use deed_proto::v1;
use deed_tlog::{
    ConsistencyProof, Hash, InclusionProof, LeafIndex, TreeHead, TreeSize, leaf_hash,
    verify_consistency, verify_inclusion,
};
use tonic::{Code, Response, Status, Streaming};

use crate::{
    attempts::Attempts,
    error::{AnswerError, Error, InputError},
    head::{Head, SignedHead},
    head_tracker::HeadTracker,
    ledger::Ledger,
    link_heads::read_proof,
    retry::within,
    trust::TrustError,
};

/// A leaf to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaf {
    /// The leaf at this index.
    Index(LeafIndex),
    /// The leaf with this hash.
    Hash(Hash),
    /// The leaf of the statement at this place of a session.
    Statement(SessionId, Sequence),
}

/// A leaf that was proven to be in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenLeaf {
    /// The position of the leaf.
    pub index: LeafIndex,
    /// The hash of the leaf.
    pub hash: Hash,
    /// The proof.
    pub proof: InclusionProof,
    /// The signed head of the tree that it was proven in, consistent with what is trusted.
    pub head: SignedHead,
}

/// An entry that was proven to be in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenEntry {
    /// The bytes of the entry, as hashed.
    pub bytes: Bytes,
    /// The proven leaf of the entry.
    pub leaf: ProvenLeaf,
}

/// Two heads, one proven to be the beginning of the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenConsistency {
    /// The smaller one; `None` for the empty tree, which nobody signs.
    pub old: Option<SignedHead>,
    /// The larger one.
    pub new: SignedHead,
    /// The proof.
    pub proof: ConsistencyProof,
}

impl Ledger {
    /// The newest tree head, consistent with what was trusted before, and trusted from now on.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Trust`] if the server's tree is smaller than what it signed before.
    pub async fn head(&self) -> Result<Head, Error> {
        let Some(tracker) = &self.shared.tracker else {
            let answer = self.tree_head(None).await?;
            return Ok(Head {
                signed: self.shared.open_unverified(&answer.checkpoint)?,
                witnessed_size: answer.witnessed_size,
                consistent_with: None,
            });
        };
        let trusted = tracker.newest();
        let answer = match self.tree_head(Some(trusted.head.size)).await {
            // The trusted head lies beyond the server's tree, it says. Its own head then has to
            // lead there.
            Err(call) if call.status.code() == Code::OutOfRange => self.tree_head(None).await,
            answer => answer,
        }?;
        let proof = answer.consistency.as_ref();
        let signed = self
            .observe_head(tracker, &answer.checkpoint, &trusted, proof)
            .await?;
        check_not_stale(&signed, &trusted)?;
        self.link_heads_if_due();
        Ok(Head {
            signed,
            witnessed_size: answer.witnessed_size,
            consistent_with: Some(trusted.head),
        })
    }

    async fn tree_head(
        &self,
        consistency_from: Option<TreeSize>,
    ) -> Result<v1::TreeHeadResponse, crate::rpc::CallError> {
        let request = v1::GetTreeHeadRequest {
            ledger: self.shared.name.clone(),
            consistency_from: consistency_from.map(TreeSize::get),
            min_size: consistency_from.map_or(0, TreeSize::get),
        };
        self.call(|server| {
            let request = request.clone();
            async move { server.log().get_tree_head(request).await }
        })
        .await
    }

    /// Proves a leaf in the tree of `size`, or in the newest one, and verifies that.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Refused`] if there is no such leaf.
    pub async fn prove_leaf(
        &self,
        leaf: Leaf,
        size: Option<TreeSize>,
    ) -> Result<ProvenLeaf, Error> {
        use v1::get_inclusion_proof_request::Leaf as Asked;
        let request = v1::GetInclusionProofRequest {
            ledger: self.shared.name.clone(),
            leaf: Some(match leaf {
                Leaf::Index(index) => Asked::LeafIndex(index.get()),
                Leaf::Hash(hash) => Asked::LeafHash(Bytes::copy_from_slice(hash.as_bytes())),
                Leaf::Statement(session, sequence) => Asked::Statement(v1::StatementPosition {
                    session: Bytes::copy_from_slice(session.as_bytes()),
                    sequence: sequence.get(),
                }),
            }),
            tree_size: size.map_or(0, TreeSize::get),
            min_size: self.shared.min_size(),
        };
        let answer = self
            .call(|server| {
                let request = request.clone();
                async move { server.log().get_inclusion_proof(request).await }
            })
            .await?;
        let head = self.trust_note(&answer.checkpoint).await?;
        check_tree(&head, size, request.min_size)?;
        let hash = Hash::try_from(answer.leaf_hash.as_ref()).map_err(|_| AnswerError::Missing {
            what: "a leaf hash of 32 bytes",
        })?;
        let index = LeafIndex::new(answer.leaf_index);
        check_leaf(leaf, index, hash)?;
        let proof =
            receipt::inclusion_proof(&answer.hashes).map_err(|_| TrustError::MalformedProof {
                what: "an inclusion proof",
            })?;
        verify_inclusion(&proof, &hash, index, &head.head).map_err(|source| TrustError::Proof {
            what: format!("the inclusion proof of leaf {index}"),
            source,
        })?;
        self.link_heads_if_due();
        Ok(ProvenLeaf {
            index,
            hash,
            proof,
            head,
        })
    }

    /// Fetches an entry and verifies its inclusion in the newest tree, or in that of `size`.
    ///
    /// # Errors
    /// As [`prove_leaf`](Self::prove_leaf).
    pub async fn entry(
        &self,
        index: LeafIndex,
        size: Option<TreeSize>,
    ) -> Result<ProvenEntry, Error> {
        let end = index.get().saturating_add(1);
        let request = v1::GetEntriesRequest {
            ledger: self.shared.name.clone(),
            start: index.get(),
            end,
            min_size: self.shared.min_size(),
        };
        let message = self
            .call(|server| {
                let request = request.clone();
                async move {
                    let entries = server.log().get_entries(request).await?;
                    entries.into_inner().message().await.map(Response::new)
                }
            })
            .await?;
        let bytes = message
            .filter(|message| message.start == index.get())
            .and_then(|message| message.entries.into_iter().next())
            .ok_or(AnswerError::Missing { what: "the entry" })?;
        let leaf = self.prove_leaf(Leaf::Index(index), size).await?;
        let found = leaf_hash(&bytes);
        if found != leaf.hash {
            return Err(AnswerError::Other {
                what: "an entry with leaf hash",
                found: found.to_string(),
                wanted: leaf.hash.to_string(),
            }
            .into());
        }
        Ok(ProvenEntry { bytes, leaf })
    }

    /// Proves that the tree of `old` leaves is the beginning of the tree of `new` leaves (or of
    /// the newest one), between signed heads of both, and verifies that.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Refused`] for sizes beyond the tree.
    pub async fn prove_consistency(
        &self,
        old: TreeSize,
        new: Option<TreeSize>,
    ) -> Result<ProvenConsistency, Error> {
        let min_size = self.shared.min_size();
        let answer = self.consistency(old, new).await?;
        let new_head = self.trust_note(&answer.checkpoint).await?;
        check_tree(&new_head, new, min_size)?;
        let old_head = if old.is_zero() {
            None
        } else {
            // A proof from the empty tree comes with the signed head of the size asked for.
            let signed = self
                .consistency(TreeSize::ZERO, Some(old))
                .await?
                .checkpoint;
            let head = self.trust_note(&signed).await?;
            check_size(&head, Some(old))?;
            Some(head)
        };
        let proof = read_proof(&answer.hashes)?;
        let old_tree = old_head.as_ref().map_or(TreeHead::EMPTY, |head| head.head);
        verify_consistency(&proof, &old_tree, &new_head.head).map_err(|source| {
            TrustError::Proof {
                what: format!("the consistency proof from size {old}"),
                source,
            }
        })?;
        self.link_heads_if_due();
        Ok(ProvenConsistency {
            old: old_head,
            new: new_head,
            proof,
        })
    }

    async fn consistency(
        &self,
        old: TreeSize,
        new: Option<TreeSize>,
    ) -> Result<v1::ConsistencyProofResponse, Error> {
        let request = v1::GetConsistencyProofRequest {
            ledger: self.shared.name.clone(),
            old_size: old.get(),
            new_size: new.map_or(0, TreeSize::get),
            min_size: self.shared.min_size(),
        };
        let answer = self
            .call(|server| {
                let request = request.clone();
                async move { server.log().get_consistency_proof(request).await }
            })
            .await?;
        Ok(answer)
    }

    /// Follows the tree head: the newest one now, then each that is newer.
    ///
    /// # Errors
    /// [`Error::Input`] with verification switched off.
    pub fn watch_heads(&self) -> Result<HeadWatch, Error> {
        if self.shared.tracker.is_none() {
            return Err(InputError::Unverified.into());
        }
        Ok(HeadWatch {
            ledger: self.clone(),
            attempts: self.attempts(),
            stream: None,
            reported: None,
        })
    }
}

/// A stream of verified heads that survives lost connections. Each head is larger than the one
/// before.
#[derive(Debug)]
pub struct HeadWatch {
    ledger: Ledger,
    attempts: Attempts,
    stream: Option<OpenWatch>,
    /// Size of the last head that was handed out.
    reported: Option<TreeSize>,
}

#[derive(Debug)]
struct OpenWatch {
    messages: Streaming<v1::TreeHeadResponse>,
    /// The head that the next one is proven consistent with.
    last: SignedHead,
    /// True if a first message came. It is due at once; each later one when the tree has grown.
    answered: bool,
}

impl HeadWatch {
    /// Waits for the next head and verifies it.
    ///
    /// # Errors
    /// Any [`Error`]; lost connections are tried again first. [`Error::Trust`] if the server's
    /// tree is smaller than what it signed before.
    pub async fn next(&mut self) -> Result<Head, Error> {
        let ledger = self.ledger.clone();
        let Some(tracker) = &ledger.shared.tracker else {
            return Err(InputError::Unverified.into());
        };
        loop {
            let status = match self.next_message(tracker).await {
                Ok((answer, last)) => {
                    let head = self.take(tracker, &answer, last).await?;
                    if self.is_news(&head) {
                        return Ok(head);
                    }
                    // After a reconnect the first one was reported before.
                    continue;
                }
                Err(status) if status.code() == Code::OutOfRange => {
                    self.stream = None;
                    // The server's tree is smaller than a head that it signed: let it explain.
                    let head = ledger.head().await?;
                    if self.is_news(&head) {
                        return Ok(head);
                    }
                    let reason = "the server's stream of tree heads stays behind its own head";
                    Status::aborted(reason)
                }
                Err(status) => status,
            };
            self.stream = None;
            ledger.wait_after(&status, &mut self.attempts).await?;
        }
    }

    /// Returns true if a verified head is larger than the last one that was handed out; only that is
    /// progress. The caller hands it out then.
    fn is_news(&mut self, head: &Head) -> bool {
        let size = head.signed.head.size;
        let is_news = self.reported.is_none_or(|reported| reported < size);
        if is_news {
            self.reported = Some(size);
            self.attempts.reset();
        }
        is_news
    }

    async fn next_message(
        &mut self,
        tracker: &HeadTracker,
    ) -> Result<(v1::TreeHeadResponse, SignedHead), Status> {
        let timeout = self.ledger.shared.timeout;
        let open = match &mut self.stream {
            Some(open) => open,
            None => {
                let last = tracker.newest();
                let request = v1::WatchTreeHeadsRequest {
                    ledger: self.ledger.shared.name.clone(),
                    consistency_from: Some(last.head.size.get()),
                    min_size: last.head.size.get(),
                };
                let mut client = self.attempts.server(&self.ledger.connection).log();
                let answer = within(timeout, client.watch_tree_heads(request)).await?;
                self.stream.insert(OpenWatch {
                    messages: answer.into_inner(),
                    last,
                    answered: false,
                })
            }
        };
        let message = if open.answered {
            open.messages.message().await?
        } else {
            within(timeout, open.messages.message()).await?
        };
        open.answered = true;
        match message {
            Some(answer) => Ok((answer, open.last.clone())),
            None => Err(Status::unavailable("the server ended the stream")),
        }
    }

    async fn take(
        &mut self,
        tracker: &HeadTracker,
        answer: &v1::TreeHeadResponse,
        last: SignedHead,
    ) -> Result<Head, Error> {
        // The server proves each head from the one before it, so a refused head ends the stream.
        let stream = self.stream.take();
        let proof = answer.consistency.as_ref();
        let signed = self
            .ledger
            .observe_head(tracker, &answer.checkpoint, &last, proof)
            .await?;
        check_not_stale(&signed, &last)?;
        self.stream = stream.map(|open| OpenWatch {
            last: signed.clone(),
            ..open
        });
        self.ledger.link_heads_if_due();
        Ok(Head {
            signed,
            witnessed_size: answer.witnessed_size,
            consistent_with: Some(last.head),
        })
    }
}

/// The newest head must not be older than the one that the request named: it was signed before
/// the request was made. That it leads to the other one is known by then.
pub(crate) fn check_not_stale(newest: &SignedHead, trusted: &SignedHead) -> Result<(), TrustError> {
    check_grown(newest, trusted.head.size.get())
}

/// The server must speak of the leaf that was asked for.
fn check_leaf(asked: Leaf, index: LeafIndex, hash: Hash) -> Result<(), AnswerError> {
    let (what, found, wanted) = match asked {
        Leaf::Index(wanted) => ("leaf", index.to_string(), wanted.to_string()),
        Leaf::Hash(wanted) => ("leaf hash", hash.to_string(), wanted.to_string()),
        // The caller compares the entry with the statement's place.
        Leaf::Statement(..) => return Ok(()),
    };
    if found == wanted {
        return Ok(());
    }
    Err(AnswerError::Other {
        what,
        found,
        wanted,
    })
}

/// The tree must be that of `wanted` leaves, or the newest one: with at least the `min_size` leaves that the
/// request named.
pub(crate) fn check_tree(
    head: &SignedHead,
    wanted: Option<TreeSize>,
    min_size: u64,
) -> Result<(), TrustError> {
    match wanted {
        Some(_) => check_size(head, wanted),
        None => check_grown(head, min_size),
    }
}

/// The newest tree must have at least the `min_size` leaves that the request named.
pub(crate) fn check_grown(head: &SignedHead, min_size: u64) -> Result<(), TrustError> {
    let found = head.head.size.get();
    if found < min_size {
        return Err(TrustError::Stale {
            found,
            trusted: min_size,
        });
    }
    Ok(())
}

pub(crate) fn check_size(head: &SignedHead, wanted: Option<TreeSize>) -> Result<(), TrustError> {
    match wanted {
        Some(wanted) if wanted != head.head.size => Err(TrustError::OtherSize {
            found: head.head.size.get(),
            wanted: wanted.get(),
        }),
        _ => Ok(()),
    }
}
