//! Follows a ledger from one log key to the next.
//!
//! A head that no known key has signed is trusted only after the trusted key has handed over: this key and
//! the new one have both signed the smallest tree that holds a LogKeyRotated with the new key; an authority
//! of the ledger has signed that statement; that tree continues the trusted one, and the newest tree
//! continues it. Any larger tree that only the old key signs is a fork.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use deed_evidence::{receipt, trust::LogKeyChain};
use deed_proto::v1;
use deed_tlog::{
    ConsistencyProof, Hash, LeafIndex, leaf_hash, verify_consistency, verify_inclusion,
};
use tonic::{Code, Response, Status};

use crate::{
    attempts::Attempts,
    connection::{Connection, Server},
    consistency::{Asked, Unproven},
    error::{AnswerError, Error},
    head::SignedHead,
    link_heads::read_proof,
    retry::{RetryPolicy, within},
    rpc,
    trust::{ForkKind, KnownKeys, Pin, Refused, TrustError},
};

/// Entries that are read at most: a ledger has at most 256 keys, and authorities change seldom.
const ENTRIES_MAX: usize = 1 << 16;

/// The client that asks one ledger for its log keys.
pub(crate) struct LogKeyClient<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) ledger: &'a str,
    pub(crate) timeout: Duration,
    pub(crate) retry: RetryPolicy,
    pub(crate) pin: &'a Pin,
    pub(crate) genesis_entry: &'a [u8],
}

/// The result of following the log keys.
pub(crate) struct Followed {
    /// All keys, the new ones among them.
    pub(crate) keys: KnownKeys,
    /// The handover heads, and the server's newest head; each with the proof that it continues the
    /// one before it, the first that it continues what was trusted.
    pub(crate) heads: Vec<(SignedHead, ConsistencyProof)>,
}

/// The reason why the log keys could not be followed.
pub(crate) enum FollowError {
    Refused(Refused),
    Error(Error),
}

impl From<Error> for FollowError {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<TrustError> for FollowError {
    fn from(error: TrustError) -> Self {
        Self::Error(error.into())
    }
}

impl From<AnswerError> for FollowError {
    fn from(error: AnswerError) -> Self {
        Self::Error(error.into())
    }
}

impl LogKeyClient<'_> {
    /// Asks for what shows that keys took over since those that are `known`, beginning at the head
    /// that is `trusted`; without one, at the genesis entry. `None` if none did.
    pub(crate) async fn follow(
        &self,
        known: &KnownKeys,
        trusted: Option<&SignedHead>,
    ) -> Result<Option<Followed>, FollowError> {
        let messages = self.log_keys(trusted).await?;
        let mut chain = LogKeyChain::begin(self.genesis_entry).map_err(fails)?;
        let mut keys = known.clone();
        let mut heads: Vec<(SignedHead, ConsistencyProof)> = Vec::new();
        for message in &messages {
            // Signed by the key that is trusted so far, or by one that handed over before.
            let head =
                keys.open(&message.checkpoint)
                    .map_err(|source| TrustError::NotHandedOver {
                        origin: self.pin.origin.to_string(),
                        trusted: keys.keys().newest().key.to_string(),
                        reason: source.to_string(),
                    })?;
            for entry in &message.entries {
                let index = LeafIndex::new(entry.leaf_index);
                check_included(
                    &entry.inclusion_proof,
                    leaf_hash(&entry.entry),
                    index,
                    &head,
                )?;
                let before = chain.log_keys().all().len();
                chain.push(index, &entry.entry).map_err(fails)?;
                let Some(next) = chain.log_keys().all().get(before) else {
                    continue;
                };
                if next.first_size != head.head.size {
                    let size = head.head.size;
                    return Err(fails(format!(
                        "the head of size {size} is not the first one that {} signs",
                        next.key
                    ))
                    .into());
                }
                match keys.keys().all().get(before) {
                    Some(followed) if followed == next => {}
                    Some(_) => {
                        let reason = "it names another log key than was followed before";
                        return Err(fails(reason).into());
                    }
                    None => {
                        let key = next.key.clone();
                        keys.hand_over(key, &message.checkpoint).map_err(|source| {
                            TrustError::NotHandedOver {
                                origin: self.pin.origin.to_string(),
                                trusted: keys.keys().newest().key.to_string(),
                                reason: source.to_string(),
                            }
                        })?;
                        let last = heads.last().map(|(head, _)| head).or(trusted);
                        let proof = self.proven(last, &head).await?;
                        heads.push((head.clone(), proof));
                    }
                }
            }
        }
        let Some((handover, _)) = heads.last() else {
            return Ok(None);
        };
        heads.push(self.newest(&keys, handover).await?);
        Ok(Some(Followed { keys, heads }))
    }

    /// The proof that `head` continues `older`.
    async fn proven(
        &self,
        older: Option<&SignedHead>,
        head: &SignedHead,
    ) -> Result<ConsistencyProof, FollowError> {
        let Some(older) = older else {
            return Ok(ConsistencyProof::default());
        };
        let contradiction = |kind, hashes: Option<&[Hash]>| {
            FollowError::Refused(Refused::contradiction(kind, older, head, hashes))
        };
        if older.head.size > head.head.size {
            // The old key has signed a tree that another key was to sign.
            let refused = Refused::contradiction(ForkKind::RetiredKey, head, older, None);
            return Err(FollowError::Refused(refused));
        }
        if older.head.size == head.head.size {
            return if older.head.root == head.head.root {
                Ok(ConsistencyProof::default())
            } else {
                Err(contradiction(ForkKind::SameSize, None))
            };
        }
        let asked = Asked {
            connection: self.connection,
            ledger: self.ledger,
            timeout: self.timeout,
            retry: self.retry,
            observer: None,
            patient: true,
        };
        let answer = match asked.consistency(&older.head, &head.head).await {
            Ok(proofs) => proofs.chosen,
            Err(Unproven::Denied) => return Err(contradiction(ForkKind::NoProof, None)),
            Err(Unproven::Unknown { error, .. }) => return Err(error.into()),
        };
        let proof = read_proof(&answer.hashes)?;
        verify_consistency(&proof, &older.head, &head.head)
            .map_err(|_| contradiction(ForkKind::ProofFails, Some(proof.hashes())))?;
        Ok(proof)
    }

    /// The server's newest head, which has to continue the one that hands over to its key.
    async fn newest(
        &self,
        keys: &KnownKeys,
        handover: &SignedHead,
    ) -> Result<(SignedHead, ConsistencyProof), FollowError> {
        let request = v1::GetTreeHeadRequest {
            ledger: self.ledger.to_owned(),
            consistency_from: Some(handover.head.size.get()),
            min_size: handover.head.size.get(),
        };
        let answer = self
            .call(|server| {
                let request = request.clone();
                async move { server.log().get_tree_head(request).await }
            })
            .await
            .map_err(|(_, error)| error)?;
        let head = keys
            .open(&answer.checkpoint)
            .map_err(|source| TrustError::of_head(source, self.pin, keys))?;
        let no_proof = TrustError::NoProof {
            old_size: handover.head.size.get(),
            new_size: head.head.size.get(),
        };
        let proof = match &answer.consistency {
            Some(proof) if proof.old_size == handover.head.size.get() => read_proof(&proof.hashes)?,
            _ => return Err(no_proof.into()),
        };
        if head.head.size < handover.head.size {
            return Err(no_proof.into());
        }
        verify_consistency(&proof, &handover.head, &head.head).map_err(|_| {
            FollowError::Refused(Refused::contradiction(
                ForkKind::ProofFails,
                handover,
                &head,
                Some(proof.hashes()),
            ))
        })?;
        Ok((head, proof))
    }

    /// Asks a server that has at least the tree of the head that is `trusted`.
    async fn log_keys(
        &self,
        trusted: Option<&SignedHead>,
    ) -> Result<Vec<v1::GetLogKeysResponse>, FollowError> {
        let min_size = trusted.map_or(0, |trusted| trusted.head.size.get());
        let answer = self
            .call(|server| self.read_log_keys(server, min_size))
            .await;
        match answer {
            Ok(messages) => Ok(messages),
            // A server of a version in which no key is ever replaced.
            Err((Code::Unimplemented, _)) => Ok(Vec::new()),
            Err((_, error)) => Err(error.into()),
        }
    }

    async fn read_log_keys(
        &self,
        server: Server,
        min_size: u64,
    ) -> Result<Response<Vec<v1::GetLogKeysResponse>>, Status> {
        let request = v1::GetLogKeysRequest {
            ledger: self.ledger.to_owned(),
            min_size,
        };
        let mut stream = server.log().get_log_keys(request).await?.into_inner();
        let (mut messages, mut entries) = (Vec::new(), 0);
        while let Some(message) = within(self.timeout, stream.message()).await? {
            entries += message.entries.len();
            if message.entries.is_empty() || entries > ENTRIES_MAX {
                let reason = "the server's log keys have empty messages, or do not end";
                return Err(Status::data_loss(reason));
            }
            messages.push(message);
        }
        Ok(Response::new(messages))
    }

    async fn call<T, F>(&self, rpc: impl Fn(Server) -> F) -> Result<T, (Code, Error)>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut attempts = Attempts::new(self.connection, self.retry);
        rpc::call(self.connection, self.timeout, &mut attempts, None, rpc)
            .await
            .map_err(|failure| {
                let server = attempts.server(self.connection).url();
                let status = &failure.status;
                (status.code(), Error::of_status(status, server))
            })
    }
}

fn fails(reason: impl ToString) -> TrustError {
    TrustError::LogKeys {
        reason: reason.to_string(),
    }
}

fn check_included(
    proof: &[Bytes],
    hash: Hash,
    index: LeafIndex,
    head: &SignedHead,
) -> Result<(), TrustError> {
    let proof = receipt::inclusion_proof(proof).map_err(|_| TrustError::MalformedProof {
        what: "an inclusion proof of the log keys",
    })?;
    verify_inclusion(&proof, &hash, index, &head.head).map_err(|source| TrustError::Proof {
        what: format!("the inclusion proof of trust entry {index}"),
        source,
    })
}
