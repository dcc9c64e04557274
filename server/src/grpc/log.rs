//! The service `deed.v1.Log`.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use deed_evidence::{Sequence, SessionId, session::Binding};
use deed_proto::v1::{
    self, get_batch_proof_request::Leaf as BatchedLeaf, get_inclusion_proof_request::Leaf,
    log_server::Log,
};
use deed_tlog::{Hash, LeafIndex, SizeRange, TreeSize};
use tonic::{Request, Response, Status};

use super::{
    Answers, Context,
    answer::{Messages, Reading, Step},
    log_keys,
};
use deed_engine::{
    append::{consistency, hashes},
    ledger::{Ledger, PublishedTree, read::Heads},
    pressure::answers::{CHUNK_BYTES, CHUNK_ROOM, PROOF_ROOM},
};

use crate::{
    access::{Caller, table::Method},
    status::ApiError,
};

/// Most entries of one message.
const CHUNK_ENTRIES: usize = 1024;

/// Most trust entries of one message.
const TRUST_ENTRIES: usize = 64;

pub(crate) struct LogService(pub(crate) Context);

#[tonic::async_trait]
impl Log for LogService {
    async fn get_tree_head(
        &self,
        request: Request<v1::GetTreeHeadRequest>,
    ) -> Result<Response<v1::TreeHeadResponse>, Status> {
        let (caller, ledger, request) = self.0.begin_read(Method::GetTreeHead, request).await?;
        let from = request.consistency_from.map(TreeSize::new);
        self.0
            .answer_for(&caller, PROOF_ROOM, move || {
                head(&ledger, &ledger.readable(), from)
            })
            .await
    }

    type WatchTreeHeadsStream = Answers<v1::TreeHeadResponse>;

    async fn watch_tree_heads(
        &self,
        request: Request<v1::WatchTreeHeadsRequest>,
    ) -> Result<Response<Self::WatchTreeHeadsStream>, Status> {
        let (caller, ledger, request) = self.0.begin_read(Method::WatchTreeHeads, request).await?;
        let mut heads = ledger.watch();
        // The head that is published now is the first message.
        heads.mark_changed();
        let watching = Watching {
            heads,
            from: request.consistency_from.map(TreeSize::new),
        };
        let reading = self
            .0
            .open_reading(caller, Method::WatchTreeHeads, &ledger)?;
        Ok(reading.stream(None, Some(watching)))
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<v1::GetInclusionProofRequest>,
    ) -> Result<Response<v1::InclusionProofResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let wanted = Wanted::parse(request.leaf)?;
        let ledger = self
            .0
            .ledger_of_size(&caller, wanted.method(), &request.ledger, request.min_size)
            .await?;
        self.0
            .answer_for(&caller, PROOF_ROOM, move || {
                inclusion(&ledger, &wanted, request.tree_size)
            })
            .await
    }

    async fn get_consistency_proof(
        &self,
        request: Request<v1::GetConsistencyProofRequest>,
    ) -> Result<Response<v1::ConsistencyProofResponse>, Status> {
        let (caller, ledger, request) = self
            .0
            .begin_read(Method::GetConsistencyProof, request)
            .await?;
        self.0
            .answer_for(&caller, PROOF_ROOM, move || {
                let readable = ledger.readable();
                let new = or_newest(request.new_size, &readable);
                let old = TreeSize::new(request.old_size);
                ledger.check_size(&readable, "old_size", old)?;
                ledger.check_size(&readable, "new_size", new)?;
                if old > new {
                    let what = format!("{old} is larger than new_size, which is {new}");
                    return Err(ApiError::field("old_size", what));
                }
                let proof = ledger.consistency(&readable, SizeRange { old, new })?;
                Ok(v1::ConsistencyProofResponse {
                    old_size: old.get(),
                    new_size: new.get(),
                    hashes: hashes(proof.hashes()),
                    checkpoint: ledger.checkpoint_at(&readable, new)?,
                })
            })
            .await
    }

    type GetEntriesStream = Answers<v1::GetEntriesResponse>;

    async fn get_entries(
        &self,
        request: Request<v1::GetEntriesRequest>,
    ) -> Result<Response<Self::GetEntriesStream>, Status> {
        let (caller, ledger, request) = self.0.begin_read(Method::GetEntries, request).await?;
        let size = ledger.readable().size();
        let end = if request.end == 0 {
            size.get()
        } else {
            request.end
        };
        for (what, asked) in [("start", request.start), ("end", end)] {
            if asked > size.get() {
                return Err(ApiError::BeyondTree {
                    message: format!("{what} {asked} is beyond the tree, which has {size} leaves"),
                    size,
                }
                .into());
            }
        }
        if request.start > end {
            let what = format!("{} is larger than end, which is {end}", request.start);
            return Err(ApiError::field("start", what).into());
        }
        // Each chunk is a read of its own: a slow reader holds one chunk, for which it has room,
        // and no place among the reads.
        let begin = (request.start < end).then_some(request.start);
        let reading = self.0.open_reading(caller, Method::GetEntries, &ledger)?;
        let answers = reading.stream_steps(None, begin, CHUNK_ROOM, move |start| {
            let answer = chunk(&ledger, start, end, size)?;
            let next = start + answer.entries.len() as u64;
            Ok((Some(answer), (next < end).then_some(next)))
        });
        Ok(answers)
    }

    async fn get_batch_proof(
        &self,
        request: Request<v1::GetBatchProofRequest>,
    ) -> Result<Response<v1::GetBatchProofResponse>, Status> {
        let (caller, ledger, request) = self.0.begin_read(Method::GetBatchProof, request).await?;
        let wanted = match request.leaf {
            None => Err(ApiError::field(
                "leaf",
                "one of leaf_index and statement is required",
            )),
            Some(BatchedLeaf::LeafIndex(index)) => Ok(Wanted::Index(LeafIndex::new(index))),
            Some(BatchedLeaf::Statement(at)) => Wanted::statement(&at),
        }?;
        self.0
            .answer_for(&caller, CHUNK_ROOM, move || {
                batch_proof(&ledger, &wanted, request.tree_size)
            })
            .await
    }

    type GetTrustChainStream = Answers<v1::GetTrustChainResponse>;

    async fn get_trust_chain(
        &self,
        request: Request<v1::GetTrustChainRequest>,
    ) -> Result<Response<Self::GetTrustChainStream>, Status> {
        let (caller, ledger, request) = self.0.begin_read(Method::GetTrustChain, request).await?;
        let readable = ledger.readable();
        let reading = self
            .0
            .open_reading(caller, Method::GetTrustChain, &ledger)?;
        let begin = Some(Next::begin(request.start));
        let answers = reading.stream_steps(None, begin, CHUNK_ROOM, move |next| {
            let (answer, next) = trust_entries(&ledger, &readable, &next)?;
            Ok((Some(answer), next))
        });
        Ok(answers)
    }

    type GetLogKeysStream = Answers<v1::GetLogKeysResponse>;

    async fn get_log_keys(
        &self,
        request: Request<v1::GetLogKeysRequest>,
    ) -> Result<Response<Self::GetLogKeysStream>, Status> {
        let (caller, ledger, _) = self.0.begin_read(Method::GetLogKeys, request).await?;
        let readable = ledger.readable();
        let reading = self.0.open_reading(caller, Method::GetLogKeys, &ledger)?;
        let messages = log_keys::messages(&ledger, readable.size()).into_iter();
        type Messages = std::vec::IntoIter<log_keys::Message>;
        let answers = reading.stream_steps(
            None,
            Some(messages),
            CHUNK_ROOM,
            move |mut messages: Messages| match messages.next() {
                Some(next) => Ok((Some(next.answer(&ledger, &readable)?), Some(messages))),
                None => Ok((None, None)),
            },
        );
        Ok(answers)
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::SessionInfo>, Status> {
        let (caller, ledger, request) = self.0.begin_read(Method::GetSession, request).await?;
        let session = SessionId::from_slice(&request.session).ok_or_else(|| {
            let what = format!("{} bytes where 16 are wanted", request.session.len());
            ApiError::field("session", what)
        })?;
        self.0
            .answer_for(&caller, PROOF_ROOM, move || session_info(&ledger, &session))
            .await
    }
}

/// A stream of tree heads.
struct Watching {
    heads: Heads,
    from: Option<TreeSize>,
}

impl Messages for Watching {
    type Message = v1::TreeHeadResponse;

    async fn next(mut self, reading: &Reading) -> Step<v1::TreeHeadResponse, Self> {
        reading.changed(&mut self.heads).await?;
        // Room is taken before the newest head is read: there may be another one meanwhile.
        let share = reading.take_room(PROOF_ROOM).await?;
        reading.require()?;
        let readable = self.heads.borrow_and_update().clone();
        let (ledger, from) = (Arc::clone(&reading.ledger), self.from);
        self.from = from.map(|_| readable.size());
        let read = reading.read(move || head(&ledger, &readable, from));
        let answer = read.await?;
        reading.made(share, &answer);
        Ok((Some(answer), Some(self)))
    }
}

/// Returns a head, and the proof that it is consistent with the tree of `from` leaves.
fn head(
    ledger: &Ledger,
    readable: &PublishedTree,
    from: Option<TreeSize>,
) -> Result<v1::TreeHeadResponse, ApiError> {
    Ok(v1::TreeHeadResponse {
        checkpoint: readable.checkpoint.clone(),
        witnessed_size: 0,
        consistency: from
            .map(|from| {
                if from > readable.size() {
                    let size = readable.size();
                    let message = format!(
                        "consistency_from {from} is beyond the tree, which has {size} leaves"
                    );
                    return Err(ApiError::BeyondTree { message, size });
                }
                Ok(consistency(ledger, readable, from)?)
            })
            .transpose()?,
    })
}

/// The leaf that a proof is about.
enum Wanted {
    Index(LeafIndex),
    Hash(Hash),
    Statement(SessionId, Sequence),
}

impl Wanted {
    fn parse(leaf: Option<Leaf>) -> Result<Self, ApiError> {
        match leaf {
            None => Err(ApiError::field(
                "leaf",
                "one of leaf_index, leaf_hash and statement is required",
            )),
            Some(Leaf::LeafIndex(index)) => Ok(Self::Index(LeafIndex::new(index))),
            Some(Leaf::LeafHash(hash)) => Hash::try_from(&hash[..]).map(Self::Hash).map_err(|_| {
                ApiError::field(
                    "leaf_hash",
                    format!("{} bytes where 32 are wanted", hash.len()),
                )
            }),
            Some(Leaf::Statement(at)) => Self::statement(&at),
        }
    }

    /// Returns the method. A proof for an index or a hash tells a caller nothing new, but only
    /// readers may learn whether and where a statement is in the ledger.
    fn method(&self) -> Method {
        match self {
            Self::Index(_) | Self::Hash(_) => Method::GetInclusionProof,
            Self::Statement(..) => Method::StatementProof,
        }
    }

    fn statement(at: &v1::StatementPosition) -> Result<Self, ApiError> {
        SessionId::from_slice(&at.session)
            .map(|session| Self::Statement(session, Sequence::new(at.sequence)))
            .ok_or_else(|| {
                let what = format!("{} bytes where 16 are wanted", at.session.len());
                ApiError::field("statement.session", what)
            })
    }

    /// Returns the leaf's index, and fails unless the leaf is in the tree of `size` leaves.
    fn find(
        &self,
        ledger: &Ledger,
        readable: &PublishedTree,
        size: TreeSize,
    ) -> Result<LeafIndex, ApiError> {
        ledger.check_size(readable, "tree_size", size)?;
        let index = match self {
            Self::Index(index) => {
                ledger.check_index(readable, *index)?;
                *index
            }
            Self::Hash(hash) => ledger.leaf_of_hash(readable, hash)?,
            Self::Statement(session, sequence) => {
                ledger.leaf_of_statement(readable, session, *sequence)?
            }
        };
        if size.contains(index) {
            return Ok(index);
        }
        // The published tree has the leaf; the smaller tree of the request does not.
        let what = format!("leaf {index} is not yet in the tree of {size} leaves");
        Err(match self {
            Self::Index(_) => ApiError::field("tree_size", what),
            Self::Hash(_) | Self::Statement(..) => ApiError::NotFound(what),
        })
    }
}

fn or_newest(size: u64, readable: &PublishedTree) -> TreeSize {
    match size {
        0 => readable.size(),
        size => TreeSize::new(size),
    }
}

fn inclusion(
    ledger: &Ledger,
    wanted: &Wanted,
    tree_size: u64,
) -> Result<v1::InclusionProofResponse, ApiError> {
    let readable = ledger.readable();
    let size = or_newest(tree_size, &readable);
    let index = wanted.find(ledger, &readable, size)?;
    let proof = ledger.inclusion(&readable, index, size)?;
    let leaf_hash = ledger.leaf_hash(&readable, index)?;
    Ok(v1::InclusionProofResponse {
        leaf_index: index.get(),
        leaf_hash: Bytes::copy_from_slice(leaf_hash.as_bytes()),
        tree_size: size.get(),
        hashes: hashes(proof.hashes()),
        checkpoint: ledger.checkpoint_at(&readable, size)?,
    })
}

fn batch_proof(
    ledger: &Ledger,
    wanted: &Wanted,
    tree_size: u64,
) -> Result<v1::GetBatchProofResponse, ApiError> {
    let readable = ledger.readable();
    let size = or_newest(tree_size, &readable);
    let index = wanted.find(ledger, &readable, size)?;
    let found = ledger
        .batched_statement(&readable, index, size)?
        .ok_or_else(|| ApiError::Precondition {
            reason: "NOT_BATCHED",
            message: format!("no batch manifest covers leaf {index}; its own entry says who spoke"),
            metadata: HashMap::from([("leaf_index".to_owned(), index.to_string())]),
        })?;
    Ok(v1::GetBatchProofResponse {
        manifest_index: found.manifest_index.get(),
        position: found.position.get(),
        manifest_entry: found.manifest_entry,
        statement_entry: found.statement_entry,
        batch_path: hashes(found.batch_path.hashes()),
        manifest_inclusion: hashes(found.manifest_inclusion.hashes()),
        statement_inclusion: hashes(found.statement_inclusion.hashes()),
        checkpoint: ledger.checkpoint_at(&readable, size)?,
    })
}

/// The place where the next message of a trust chain begins.
struct Next {
    leaf: u64,
    /// True for the first message, which brings the tree head that all proofs lead to.
    first: bool,
}

impl Next {
    fn begin(leaf: u64) -> Self {
        Self { leaf, first: true }
    }
}

/// Returns the next trust entries under one tree head, and where those after them begin.
fn trust_entries(
    ledger: &Ledger,
    readable: &PublishedTree,
    from: &Next,
) -> Result<(v1::GetTrustChainResponse, Option<Next>), ApiError> {
    let size = readable.size().get();
    let genesis = (from.leaf == 0).then_some(Ok(0));
    let (mut leaves, mut found) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    let mut more = None;
    for item in genesis.into_iter().chain(ledger.trust_leaves(from.leaf)) {
        let leaf = item?;
        // The store may be a turn ahead of the published tree.
        if leaf >= size {
            break;
        }
        if leaves.len() >= TRUST_ENTRIES || bytes >= CHUNK_BYTES {
            more = Some(Next { leaf, first: false });
            break;
        }
        let index = LeafIndex::new(leaf);
        let entry = ledger.entry(readable, index)?;
        bytes += entry.len();
        leaves.push(index);
        found.push(entry);
    }
    let proofs = ledger.inclusions(readable, &leaves)?;
    let entries = leaves.iter().zip(found).zip(proofs);
    let entries = entries.map(|((index, entry), proof)| v1::TrustEntry {
        leaf_index: index.get(),
        entry,
        inclusion_proof: hashes(proof.hashes()),
    });
    let entries = entries.collect();
    let checkpoint = if from.first {
        readable.checkpoint.clone()
    } else {
        Bytes::new()
    };
    let answer = v1::GetTrustChainResponse {
        checkpoint,
        entries,
    };
    Ok((answer, more))
}

fn session_info(ledger: &Ledger, id: &SessionId) -> Result<v1::SessionInfo, ApiError> {
    let (session, last_run) = ledger
        .session(id)?
        .ok_or_else(|| ApiError::NotFound(format!("nothing is recorded in session {id}")))?;
    Ok(v1::SessionInfo {
        producer: session.producer,
        next_sequence: session.next.get(),
        last_payload: session.last_payload.map_or_else(Bytes::new, |digest| {
            Bytes::copy_from_slice(digest.as_bytes())
        }),
        recorded: session.recorded,
        skipped: session.skipped,
        closed: session.closed,
        key_id: match session.bound_to {
            Binding::Key(key) => Bytes::copy_from_slice(key.as_bytes()),
            Binding::Principal(_) | Binding::Nobody => Bytes::new(),
        },
        last_leaf: last_run.first_leaf + last_run.count - 1,
    })
}

fn chunk(
    ledger: &Ledger,
    start: u64,
    end: u64,
    size: TreeSize,
) -> Result<v1::GetEntriesResponse, ApiError> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    for (expected, item) in (start..).zip(ledger.entries(start, end)) {
        let (index, entry) = item?;
        if index != expected {
            return Err(ApiError::Damaged(format!("leaf {expected} is missing")));
        }
        bytes += entry.len();
        entries.push(entry);
        if entries.len() >= CHUNK_ENTRIES || bytes >= CHUNK_BYTES {
            break;
        }
    }
    if entries.is_empty() {
        return Err(ApiError::Damaged(format!("leaf {start} is missing")));
    }
    Ok(v1::GetEntriesResponse {
        start,
        entries,
        tree_size: size.get(),
    })
}
