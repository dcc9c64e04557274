//! Proofs of authorship: batched statements followed to their signature, the trust chain, and where a
//! session stands.

use std::sync::Arc;

use bytes::Bytes;
use deed_evidence::{
    KeyId, PayloadDigest, Sequence, SessionId,
    batch::{self, VerifiedPath},
    entry::Entry,
    receipt, signature, statement,
    trust::{ChainError, TrustChain, TrustState},
};
use deed_proto::v1::{self, get_batch_proof_request::Leaf as Asked};
use deed_tlog::{LeafIndex, PublicKey, TreeSize, leaf_hash, verify_inclusion};
use tonic::{Code, Response};

use crate::{
    answer::Receipt,
    connection::Server,
    error::{AnswerError, Error},
    head::SignedHead,
    head_tracker::HeadTracker,
    ledger::Ledger,
    read::{Leaf, ProvenEntry, check_not_stale, check_tree},
    retry::within,
    signing::Signing,
    trust::TrustError,
};

/// Trust entries that are read at most: a million statements about keys.
const TRUST_ENTRIES_MAX: usize = 1 << 20;

/// A batched statement, its signature, and proofs that both are in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct ProvenBatched {
    /// The places of statement and manifest, and the key of the signature.
    pub path: VerifiedPath,
    /// The proof as it came, to be kept.
    pub proof: v1::GetBatchProofResponse,
    /// The head that both were proven under, consistent with what is trusted.
    pub head: SignedHead,
}

/// The keys and their producers, recomputed from the ledger's trust statements.
#[derive(Debug, Clone)]
pub struct ProvenTrust {
    /// The trust state after all statements.
    pub state: TrustState,
    /// Leaf index and bytes of each entry, the genesis entry first.
    pub entries: Vec<(LeafIndex, Bytes)>,
    /// The entries with the proof of each one's inclusion, to be kept.
    pub proof: v1::GetTrustChainResponse,
    /// The head that all of them were proven under. That none follow the last is the server's
    /// word; that none is left out between them is proven.
    pub head: SignedHead,
}

/// The position of a session, with the entry of its last statement.
#[derive(Debug, Clone, PartialEq)]
pub struct ProvenSession {
    /// The server's word, except for the fields that `last` proves.
    pub info: v1::SessionInfo,
    /// The last statement's entry: its session, sequence, producer and payload digest are those of
    /// `info`, and it is in the log. (That nothing follows is the server's word.)
    pub last: ProvenEntry,
}

/// The trust chain as far as it was read.
#[derive(Debug, Clone)]
pub(crate) struct KnownTrust {
    chain: TrustChain,
    /// The genesis entry first.
    pub(crate) entries: Vec<(LeafIndex, Bytes)>,
}

impl KnownTrust {
    /// The trust state: who speaks for whom.
    pub(crate) const fn state(&self) -> &TrustState {
        self.chain.trust()
    }
}

fn pushed(chain: &mut TrustChain, index: LeafIndex, entry: &Bytes) -> Result<(), TrustError> {
    chain.push(index, entry).map_err(unchained)
}

fn unchained(error: ChainError) -> TrustError {
    TrustError::TrustChain {
        reason: error.to_string(),
    }
}

/// A trust entry must be in the tree.
fn included(entry: &v1::TrustEntry, head: &SignedHead) -> Result<(), TrustError> {
    let index = LeafIndex::new(entry.leaf_index);
    let proof = receipt::inclusion_proof(&entry.inclusion_proof).map_err(|_| {
        TrustError::MalformedProof {
            what: "an inclusion proof of the trust chain",
        }
    })?;
    let hash = leaf_hash(&entry.entry);
    verify_inclusion(&proof, &hash, index, &head.head).map_err(|source| TrustError::Proof {
        what: format!("the inclusion proof of trust entry {index}"),
        source,
    })
}

/// The entry at a session's sequence.
pub(crate) struct Recorded {
    pub(crate) payload: Bytes,
    pub(crate) receipt: Receipt,
}

impl Ledger {
    /// Follows a batched statement to the signature of its manifest, and proves both in the newest
    /// tree or that of `size`. `key` gives the public key of a key id, from a
    /// [`trust chain`](Self::trust_chain) for example. Whether the key spoke for the producer at
    /// that time is for the caller to judge.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Refused`] if there is no such statement, or no batch manifest covers
    /// it; [`Error::Trust`] if something does not hold.
    pub async fn prove_batched(
        &self,
        leaf: Leaf,
        size: Option<TreeSize>,
        key: impl Fn(KeyId) -> Option<PublicKey>,
    ) -> Result<ProvenBatched, Error> {
        let leaf_index = match leaf {
            Leaf::Hash(_) => Some(self.prove_leaf(leaf, size).await?.index),
            Leaf::Index(index) => Some(index),
            Leaf::Statement(..) => None,
        };
        let request = v1::GetBatchProofRequest {
            ledger: self.shared.name.clone(),
            leaf: Some(match (leaf_index, leaf) {
                (None, Leaf::Statement(session, sequence)) => {
                    Asked::Statement(v1::StatementPosition {
                        session: Bytes::copy_from_slice(session.as_bytes()),
                        sequence: sequence.get(),
                    })
                }
                (index, _) => Asked::LeafIndex(index.map_or(0, LeafIndex::get)),
            }),
            tree_size: size.map_or(0, TreeSize::get),
            min_size: self.shared.min_size(),
        };
        let proof = self
            .call(|server| {
                let request = request.clone();
                async move { server.log().get_batch_proof(request).await }
            })
            .await?;
        let head = self.trust_note(&proof.checkpoint).await?;
        check_tree(&head, size, request.min_size)?;
        let fails = |error: &dyn std::fmt::Display| TrustError::BatchProof {
            reason: error.to_string(),
        };
        let signer = batch::signer(&proof).map_err(|error| fails(&error))?;
        let key = key(signer).ok_or_else(|| {
            let unknown = format!("no key {signer} is registered in this ledger");
            TrustError::BatchProof { reason: unknown }
        })?;
        let path = batch::verify_path(&proof, self.ledger_id(), &key, &head.head)
            .map_err(|error| fails(&error))?;
        check_asked(leaf, leaf_index, &path, &proof)?;
        self.link_heads_if_due();
        Ok(ProvenBatched { path, proof, head })
    }

    /// Fetches the ledger's trust statements and replays them: links, signatures, rules, and the
    /// inclusion of each under one head that is not older than what is trusted. How far they go is kept
    /// with the trusted head: a chain that lacks a statement which was shown before is refused.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Trust`] if a statement is left out, or does not hold; [`Error::Store`].
    pub async fn trust_chain(&self) -> Result<ProvenTrust, Error> {
        let (proof, head) = self.read_trust_from(0).await?;
        let mut chain: Option<TrustChain> = None;
        let mut entries = Vec::new();
        let fails = |reason: String| TrustError::TrustChain { reason };
        for entry in &proof.entries {
            let index = LeafIndex::new(entry.leaf_index);
            included(entry, &head)?;
            match &mut chain {
                Some(chain) => chain
                    .push(index, &entry.entry)
                    .map_err(|error| fails(error.to_string()))?,
                None => {
                    let begun = TrustChain::begin(&entry.entry);
                    let begun = begun.map_err(|error| fails(error.to_string()))?;
                    if index.get() != 0 || begun.trust().ledger_id() != self.ledger_id() {
                        let reason = "it does not begin with this ledger's genesis entry";
                        return Err(fails(reason.to_owned()).into());
                    }
                    chain = Some(begun);
                }
            }
            entries.push((index, entry.entry.clone()));
        }
        let chain = chain.ok_or(AnswerError::Missing {
            what: "the genesis entry of the trust chain",
        })?;
        self.remember_trust(&entries, &head).await?;
        self.link_heads_if_due();
        Ok(ProvenTrust {
            state: chain.into_trust(),
            entries,
            proof,
            head,
        })
    }

    /// Returns the present trust chain. Keeps the entries that were read before, and asks only for later
    /// ones.
    pub(crate) async fn follow_trust(&self) -> Result<Arc<KnownTrust>, Error> {
        let mut known = self.shared.trust.lock().await;
        let Some(before) = known.clone() else {
            let read = self.trust_chain().await?;
            let mut chain = TrustChain::begin(&self.shared.genesis_entry).map_err(unchained)?;
            for (index, entry) in read.entries.iter().skip(1) {
                pushed(&mut chain, *index, entry)?;
            }
            let first = Arc::new(KnownTrust {
                chain,
                entries: read.entries,
            });
            *known = Some(Arc::clone(&first));
            return Ok(first);
        };
        let last = before.entries.last().map_or(0, |(index, _)| index.get());
        // The last known statement is asked for too: it is always there.
        let (read, head) = self.read_trust_from(last).await?;
        let mut next = None;
        for entry in read.entries {
            let index = LeafIndex::new(entry.leaf_index);
            if index.get() <= last {
                continue;
            }
            included(&entry, &head)?;
            let known = next.get_or_insert_with(|| KnownTrust::clone(&before));
            pushed(&mut known.chain, index, &entry.entry)?;
            known.entries.push((index, entry.entry));
        }
        let now = next.map_or(before, Arc::new);
        self.remember_trust(&now.entries, &head).await?;
        *known = Some(Arc::clone(&now));
        Ok(now)
    }

    /// Reads the trust chain from the leaf `start` on, under a head that is not older than the trusted
    /// one. Does not verify the entries.
    async fn read_trust_from(
        &self,
        start: u64,
    ) -> Result<(v1::GetTrustChainResponse, SignedHead), Error> {
        let trusted = self.shared.tracker.as_ref().map(HeadTracker::newest);
        let messages = self
            .call(|server| self.read_trust_chain(server, start))
            .await?;
        let mut messages = messages.into_iter();
        let mut chain = messages.next().ok_or(AnswerError::Missing {
            what: "the trust chain",
        })?;
        chain
            .entries
            .extend(messages.flat_map(|message| message.entries));
        let head = self.trust_note(&chain.checkpoint).await?;
        if let Some(trusted) = &trusted {
            check_not_stale(&head, trusted)?;
        }
        Ok((chain, head))
    }

    async fn read_trust_chain(
        &self,
        server: Server,
        start: u64,
    ) -> Result<Response<Vec<v1::GetTrustChainResponse>>, tonic::Status> {
        let request = v1::GetTrustChainRequest {
            ledger: self.shared.name.clone(),
            start,
            min_size: self.shared.min_size(),
        };
        let mut stream = server.log().get_trust_chain(request).await?.into_inner();
        let (mut messages, mut entries) = (Vec::new(), 0);
        while let Some(message) = within(self.shared.timeout, stream.message()).await? {
            entries += message.entries.len();
            if message.entries.is_empty() || entries > TRUST_ENTRIES_MAX {
                let reason = "the server's trust chain has empty messages, or does not end";
                return Err(tonic::Status::data_loss(reason));
            }
            messages.push(message);
        }
        Ok(Response::new(messages))
    }

    /// Returns true if a statement may be in the log although sending it failed with `error`. A refused
    /// request recorded nothing, but an earlier attempt may have recorded it whose answer was lost. Then
    /// another statement at the same place would be an equivocation. Also returns true if the ledger does
    /// not tell.
    pub async fn may_have(&self, session: SessionId, sequence: Sequence, error: &Error) -> bool {
        match error {
            // The statement was never sent: the same bytes would have failed before.
            Error::Input(_) => false,
            Error::Refused { .. } | Error::NotAllowed { .. } => match self.session(session).await {
                Ok(stands) => {
                    stands.is_some_and(|stands| stands.info.next_sequence > sequence.get())
                }
                Err(_) => true,
            },
            _ => true,
        }
    }

    /// Returns the server's position of a session, compared with the session's last entry; `None` if nothing
    /// was recorded in it, by the server's word.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Answer`] if the entry is another statement's.
    pub async fn session(&self, session: SessionId) -> Result<Option<ProvenSession>, Error> {
        let request = v1::GetSessionRequest {
            ledger: self.shared.name.clone(),
            session: Bytes::copy_from_slice(session.as_bytes()),
            min_size: self.shared.min_size(),
        };
        let answer = self
            .call(|server| {
                let request = request.clone();
                async move { server.log().get_session(request).await }
            })
            .await;
        let info = match answer {
            Ok(info) => info,
            Err(call) if call.status.code() == Code::NotFound => return Ok(None),
            Err(call) => return Err(call.error),
        };
        let last = self.entry(LeafIndex::new(info.last_leaf), None).await?;
        let shown = |wanted: String, found: String| AnswerError::Other {
            what: "a session's last statement",
            found,
            wanted,
        };
        let payload = payload_of(&last.bytes)?;
        let header = statement::parse(&payload).map_err(|error| TrustError::Entry {
            index: info.last_leaf,
            reason: error.to_string(),
        })?;
        let digest = PayloadDigest::of(&payload);
        let found = format!("{} {} {digest}", header.session, header.sequence);
        // The last sequence of all has none after it.
        let sequence = match (info.next_sequence, info.closed) {
            (u64::MAX, true) if header.sequence.get() == u64::MAX => u64::MAX,
            (next, _) => next.wrapping_sub(1),
        };
        let wanted = format!("{session} {sequence} {}", hex::encode(&info.last_payload));
        if found != wanted || header.producer != info.producer {
            return Err(shown(wanted, found).into());
        }
        Ok(Some(ProvenSession { info, last }))
    }

    /// Returns the statement at a session's sequence, proven to be in the log; `None` if there is none, by
    /// the server's word. In a batch it is proven to be one that this key signed.
    pub(crate) async fn recorded(
        &self,
        session: SessionId,
        sequence: Sequence,
        signing: &Signing,
    ) -> Result<Option<Recorded>, Error> {
        let leaf = Leaf::Statement(session, sequence);
        let own = |id: KeyId| {
            let key = signing.key().map(|key| key.public_key().clone());
            key.filter(|_| signing.key_id() == Some(id))
        };
        match self.prove_batched(leaf, None, own).await {
            Ok(proven) => recorded(
                &proven.proof.statement_entry,
                proven.path.statement_index,
                Some(proven.path.manifest_index),
            )
            .map(Some),
            Err(Error::Refused {
                code: Code::FailedPrecondition,
                ..
            }) => {
                let index = self.prove_leaf(leaf, None).await?.index;
                let entry = self.entry(index, None).await?;
                check_signed(&entry.bytes, signing)?;
                recorded(&entry.bytes, index, None).map(Some)
            }
            Err(Error::Refused {
                code: Code::NotFound,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn recorded(
    bytes: &Bytes,
    leaf_index: LeafIndex,
    manifest: Option<LeafIndex>,
) -> Result<Recorded, Error> {
    let entry = parsed(bytes)?;
    Ok(Recorded {
        payload: bytes.slice_ref(entry.payload),
        receipt: Receipt {
            leaf_index,
            leaf_hash: leaf_hash(bytes),
            received_at: entry.received_at,
            inclusion_verified: true,
            principal_leaf: entry.principal_leaf.map(LeafIndex::new),
            manifest,
            assessed: None,
        },
    })
}

/// An entry that no manifest covers must bear the key's own signature: what was sent was signed.
fn check_signed(bytes: &Bytes, signing: &Signing) -> Result<(), Error> {
    let entry = parsed(bytes)?;
    let holds = match (signing.key(), &entry.signature) {
        (None, _) => true,
        (Some(key), Some(found)) => {
            let (payload_type, key) = (entry.payload_type, key.public_key());
            signature::verify(key, payload_type, entry.payload, found.signature).is_ok()
        }
        (Some(_), None) => false,
    };
    if holds {
        return Ok(());
    }
    Err(AnswerError::Missing {
        what: "this key's signature of the statement that is recorded",
    }
    .into())
}

fn payload_of(bytes: &Bytes) -> Result<Bytes, Error> {
    Ok(bytes.slice_ref(parsed(bytes)?.payload))
}

fn parsed(bytes: &Bytes) -> Result<Entry<'_>, Error> {
    Entry::parse(bytes).map_err(|_| {
        AnswerError::Missing {
            what: "an entry that can be read",
        }
        .into()
    })
}

/// The proof must be of the statement that was asked for.
fn check_asked(
    asked: Leaf,
    index: Option<LeafIndex>,
    path: &VerifiedPath,
    proof: &v1::GetBatchProofResponse,
) -> Result<(), Error> {
    let (what, found, wanted) = match (index, asked) {
        (Some(index), _) => ("leaf", path.statement_index.to_string(), index.to_string()),
        (None, Leaf::Statement(session, sequence)) => {
            let payload = payload_of(&proof.statement_entry)?;
            let header = statement::parse(&payload).map_err(|error| TrustError::BatchProof {
                reason: error.to_string(),
            })?;
            let found = format!("{} {}", header.session, header.sequence);
            ("statement", found, format!("{session} {sequence}"))
        }
        (None, _) => return Ok(()),
    };
    if found == wanted {
        return Ok(());
    }
    Err(AnswerError::Other {
        what,
        found,
        wanted,
    }
    .into())
}
