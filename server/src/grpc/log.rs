//! `deed.v1.Log`.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use deed_evidence::{Sequence, SessionId, session::Binding};
use deed_proto::v1::{
    self, get_batch_proof_request::Leaf as BatchedLeaf, get_inclusion_proof_request::Leaf,
    log_server::Log,
};
use deed_tlog::{Hash, LeafIndex, SizeRange, TreeSize};
use futures::{StreamExt as _, stream};
use tonic::{Request, Response, Status};

use super::{Answers, Context, log_keys, stopping};
use crate::{
    access::{Caller, table::Method},
    append::{consistency, hashes},
    ledger::{Ledger, Readable, read::Heads},
    pressure::OpenStream,
    status::Refusal,
};

/// Entries of one message at most.
const CHUNK_ENTRIES: usize = 1024;

/// Bytes of one message's entries; the last entry may go beyond.
const CHUNK_BYTES: usize = 1 << 20;

/// Trust entries of one message at most.
const TRUST_ENTRIES: usize = 256;

pub(crate) struct LogService(pub(crate) Context);

#[tonic::async_trait]
impl Log for LogService {
    async fn get_tree_head(
        &self,
        request: Request<v1::GetTreeHeadRequest>,
    ) -> Result<Response<v1::TreeHeadResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let ledger = self
            .0
            .ledger(&caller, Method::GetTreeHead, &request.ledger)
            .await?;
        let from = request.consistency_from.map(TreeSize::new);
        let answer = self
            .0
            .read_for(&caller, move || head(&ledger, &ledger.readable(), from))
            .await?;
        Ok(Response::new(answer))
    }

    type WatchTreeHeadsStream = Answers<v1::TreeHeadResponse>;

    async fn watch_tree_heads(
        &self,
        request: Request<v1::WatchTreeHeadsRequest>,
    ) -> Result<Response<Self::WatchTreeHeadsStream>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let ledger = self
            .0
            .ledger(&caller, Method::WatchTreeHeads, &request.ledger)
            .await?;
        let mut heads = ledger.watch();
        // The newest one now is the first to be sent.
        heads.mark_changed();
        let watching = Watching {
            _open: self.0.open_read_stream(&caller)?,
            caller,
            context: self.0.clone(),
            ledger,
            heads,
            from: request.consistency_from.map(TreeSize::new),
        };
        let answers = stream::unfold(Some(watching), |watching| async {
            let mut watching = watching?;
            match watching.next().await {
                Ok(answer) => Some((Ok(answer), Some(watching))),
                Err(refusal) => Some((Err(refusal.into()), None)),
            }
        });
        Ok(Response::new(Box::pin(answers)))
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
            .ledger(&caller, wanted.method(), &request.ledger)
            .await?;
        let answer = self
            .0
            .read_for(&caller, move || {
                inclusion(&ledger, &wanted, request.tree_size)
            })
            .await?;
        Ok(Response::new(answer))
    }

    async fn get_consistency_proof(
        &self,
        request: Request<v1::GetConsistencyProofRequest>,
    ) -> Result<Response<v1::ConsistencyProofResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let ledger = self
            .0
            .ledger(&caller, Method::GetConsistencyProof, &request.ledger)
            .await?;
        let answer = self
            .0
            .read_for(&caller, move || {
                let readable = ledger.readable();
                let new = or_newest(request.new_size, &readable);
                let old = TreeSize::new(request.old_size);
                ledger.check_size(&readable, "old_size", old)?;
                ledger.check_size(&readable, "new_size", new)?;
                if old > new {
                    let what = format!("{old} is larger than new_size, which is {new}");
                    return Err(Refusal::field("old_size", what));
                }
                let proof = ledger.consistency(&readable, SizeRange { old, new })?;
                Ok(v1::ConsistencyProofResponse {
                    old_size: old.get(),
                    new_size: new.get(),
                    hashes: hashes(proof.hashes()),
                    checkpoint: ledger.checkpoint_at(&readable, new)?,
                })
            })
            .await?;
        Ok(Response::new(answer))
    }

    type GetEntriesStream = Answers<v1::GetEntriesResponse>;

    async fn get_entries(
        &self,
        request: Request<v1::GetEntriesRequest>,
    ) -> Result<Response<Self::GetEntriesStream>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let ledger = self
            .0
            .ledger(&caller, Method::GetEntries, &request.ledger)
            .await?;
        let size = ledger.readable().size();
        let end = if request.end == 0 {
            size.get()
        } else {
            request.end
        };
        for (what, asked) in [("start", request.start), ("end", end)] {
            if asked > size.get() {
                return Err(Refusal::BeyondTree {
                    message: format!("{what} {asked} is beyond the tree, which has {size} leaves"),
                    size,
                }
                .into());
            }
        }
        if request.start > end {
            let what = format!("{} is larger than end, which is {end}", request.start);
            return Err(Refusal::field("start", what).into());
        }
        // Each chunk is a read of its own: a reader that is slow holds one chunk and no share of
        // the reads. How many such readers a connection may have is bounded.
        let open = Arc::new(self.0.open_read_stream(&caller)?);
        let context = self.0.clone();
        let chunks = stream::unfold(Some(request.start), move |next| {
            let (context, ledger) = (context.clone(), Arc::clone(&ledger));
            let (caller, open) = (caller.clone(), Arc::clone(&open));
            async move {
                let _open = open;
                let start = next.filter(|&start| start < end)?;
                // Each time: a stream may outlive what was granted.
                let allowed = caller.require(Method::GetEntries, ledger.name());
                if let Err(refusal) = allowed {
                    return Some((Err(refusal.into()), None));
                }
                let read = context.read_for(&caller, move || chunk(&ledger, start, end, size));
                let answer = tokio::select! {
                    biased;
                    () = context.stopped() => Err(stopping()),
                    answer = read => answer,
                };
                match answer {
                    Ok(answer) => {
                        let next = start + answer.entries.len() as u64;
                        Some((Ok(answer), Some(next)))
                    }
                    Err(refusal) => Some((Err(refusal.into()), None)),
                }
            }
        });
        Ok(Response::new(chunks.boxed()))
    }

    async fn get_batch_proof(
        &self,
        request: Request<v1::GetBatchProofRequest>,
    ) -> Result<Response<v1::GetBatchProofResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let ledger = self
            .0
            .ledger(&caller, Method::GetBatchProof, &request.ledger)
            .await?;
        let wanted = match request.leaf {
            None => Err(Refusal::field(
                "leaf",
                "one of leaf_index and statement is required",
            )),
            Some(BatchedLeaf::LeafIndex(index)) => Ok(Wanted::Index(LeafIndex::new(index))),
            Some(BatchedLeaf::Statement(at)) => Wanted::statement(&at),
        }?;
        let answer = self
            .0
            .read_for(&caller, move || {
                batch_proof(&ledger, &wanted, request.tree_size)
            })
            .await?;
        Ok(Response::new(answer))
    }

    type GetTrustChainStream = Answers<v1::GetTrustChainResponse>;

    async fn get_trust_chain(
        &self,
        request: Request<v1::GetTrustChainRequest>,
    ) -> Result<Response<Self::GetTrustChainStream>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let ledger = self
            .0
            .ledger(&caller, Method::GetTrustChain, &request.ledger)
            .await?;
        let readable = ledger.readable();
        let open = Arc::new(self.0.open_read_stream(&caller)?);
        let context = self.0.clone();
        let chunks = stream::unfold(Some(Next::begin(request.start)), move |next| {
            let (context, ledger) = (context.clone(), Arc::clone(&ledger));
            let readable = Arc::clone(&readable);
            let (caller, open) = (caller.clone(), Arc::clone(&open));
            async move {
                let _open = open;
                let next = next?;
                let allowed = caller.require(Method::GetTrustChain, ledger.name());
                if let Err(refusal) = allowed {
                    return Some((Err(refusal.into()), None));
                }
                let read =
                    context.read_for(&caller, move || trust_entries(&ledger, &readable, &next));
                let answer = tokio::select! {
                    biased;
                    () = context.stopped() => Err(stopping()),
                    answer = read => answer,
                };
                match answer {
                    Ok((answer, next)) => Some((Ok(answer), next)),
                    Err(refusal) => Some((Err(refusal.into()), None)),
                }
            }
        });
        Ok(Response::new(chunks.boxed()))
    }

    type GetLogKeysStream = Answers<v1::GetLogKeysResponse>;

    async fn get_log_keys(
        &self,
        request: Request<v1::GetLogKeysRequest>,
    ) -> Result<Response<Self::GetLogKeysStream>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let ledger = self
            .0
            .ledger(&caller, Method::GetLogKeys, &request.ledger)
            .await?;
        let readable = ledger.readable();
        let open = Arc::new(self.0.open_read_stream(&caller)?);
        let messages = log_keys::messages(&ledger, readable.size());
        let context = self.0.clone();
        let chunks = stream::unfold(messages.into_iter(), move |mut messages| {
            let (context, ledger) = (context.clone(), Arc::clone(&ledger));
            let readable = Arc::clone(&readable);
            let (caller, open) = (caller.clone(), Arc::clone(&open));
            async move {
                let _open = open;
                let next = messages.next()?;
                let ended = Vec::new().into_iter();
                let allowed = caller.require(Method::GetLogKeys, ledger.name());
                if let Err(refusal) = allowed {
                    return Some((Err(refusal.into()), ended));
                }
                let read = context.read_for(&caller, move || next.answer(&ledger, &readable));
                let answer = tokio::select! {
                    biased;
                    () = context.stopped() => Err(stopping()),
                    answer = read => answer,
                };
                match answer {
                    Ok(answer) => Some((Ok(answer), messages)),
                    Err(refusal) => Some((Err(refusal.into()), ended)),
                }
            }
        });
        Ok(Response::new(chunks.boxed()))
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::SessionInfo>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let ledger = self
            .0
            .ledger(&caller, Method::GetSession, &request.ledger)
            .await?;
        let session = SessionId::from_slice(&request.session).ok_or_else(|| {
            let what = format!("{} bytes where 16 are wanted", request.session.len());
            Refusal::field("session", what)
        })?;
        let answer = self
            .0
            .read_for(&caller, move || session_info(&ledger, &session))
            .await?;
        Ok(Response::new(answer))
    }
}

/// A stream of heads.
struct Watching {
    _open: OpenStream,
    caller: Caller,
    context: Context,
    ledger: Arc<Ledger>,
    heads: Heads,
    from: Option<TreeSize>,
}

impl Watching {
    async fn next(&mut self) -> Result<v1::TreeHeadResponse, Refusal> {
        tokio::select! {
            biased;
            () = self.context.stopped() => return Err(stopping()),
            changed = self.heads.changed() => changed.map_err(|_| stopping())?,
        }
        self.caller
            .require(Method::WatchTreeHeads, self.ledger.name())?;
        let readable = self.heads.borrow_and_update().clone();
        let (ledger, from) = (Arc::clone(&self.ledger), self.from);
        self.from = from.map(|_| readable.size());
        self.context
            .read_for(&self.caller, move || head(&ledger, &readable, from))
            .await
    }
}

/// A head, with the proof that it is consistent with the tree of `from`.
fn head(
    ledger: &Ledger,
    readable: &Readable,
    from: Option<TreeSize>,
) -> Result<v1::TreeHeadResponse, Refusal> {
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
                    return Err(Refusal::BeyondTree { message, size });
                }
                consistency(ledger, readable, from)
            })
            .transpose()?,
    })
}

/// Which leaf a proof is wanted of.
enum Wanted {
    Index(LeafIndex),
    Hash(Hash),
    Statement(SessionId, Sequence),
}

impl Wanted {
    fn parse(leaf: Option<Leaf>) -> Result<Self, Refusal> {
        match leaf {
            None => Err(Refusal::field(
                "leaf",
                "one of leaf_index, leaf_hash and statement is required",
            )),
            Some(Leaf::LeafIndex(index)) => Ok(Self::Index(LeafIndex::new(index))),
            Some(Leaf::LeafHash(hash)) => Hash::try_from(&hash[..]).map(Self::Hash).map_err(|_| {
                Refusal::field(
                    "leaf_hash",
                    format!("{} bytes where 32 are wanted", hash.len()),
                )
            }),
            Some(Leaf::Statement(at)) => Self::statement(&at),
        }
    }

    /// A leaf's index and hash say nothing that whoever has them does not know; where a statement is,
    /// and whether there is one, is for readers.
    fn method(&self) -> Method {
        match self {
            Self::Index(_) | Self::Hash(_) => Method::GetInclusionProof,
            Self::Statement(..) => Method::StatementProof,
        }
    }

    fn statement(at: &v1::StatementPosition) -> Result<Self, Refusal> {
        SessionId::from_slice(&at.session)
            .map(|session| Self::Statement(session, Sequence::new(at.sequence)))
            .ok_or_else(|| {
                let what = format!("{} bytes where 16 are wanted", at.session.len());
                Refusal::field("statement.session", what)
            })
    }

    /// The leaf, and that it is in the tree of `size`.
    fn find(
        &self,
        ledger: &Ledger,
        readable: &Readable,
        size: TreeSize,
    ) -> Result<LeafIndex, Refusal> {
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
        // The tree has it, the beginning of the tree that was asked for has not.
        let what = format!("leaf {index} is not yet in the tree of {size} leaves");
        Err(match self {
            Self::Index(_) => Refusal::field("tree_size", what),
            Self::Hash(_) | Self::Statement(..) => Refusal::NotFound(what),
        })
    }
}

fn or_newest(size: u64, readable: &Readable) -> TreeSize {
    match size {
        0 => readable.size(),
        size => TreeSize::new(size),
    }
}

fn inclusion(
    ledger: &Ledger,
    wanted: &Wanted,
    tree_size: u64,
) -> Result<v1::InclusionProofResponse, Refusal> {
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
) -> Result<v1::GetBatchProofResponse, Refusal> {
    let readable = ledger.readable();
    let size = or_newest(tree_size, &readable);
    let index = wanted.find(ledger, &readable, size)?;
    let found = ledger
        .batched_statement(&readable, index, size)?
        .ok_or_else(|| Refusal::Precondition {
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

/// Where the next message of a trust chain begins.
struct Next {
    leaf: u64,
    /// The first message brings the tree head that all proofs lead to.
    first: bool,
}

impl Next {
    fn begin(leaf: u64) -> Self {
        Self { leaf, first: true }
    }
}

/// The next trust entries under one tree head, and where those after them begin.
fn trust_entries(
    ledger: &Ledger,
    readable: &Readable,
    from: &Next,
) -> Result<(v1::GetTrustChainResponse, Option<Next>), Refusal> {
    let size = readable.size().get();
    let mut leaves: Vec<LeafIndex> = Vec::new();
    if from.leaf == 0 {
        leaves.push(LeafIndex::new(0));
    }
    let mut more = None;
    for item in ledger.trust_leaves(from.leaf) {
        let leaf = item?;
        // The store may be a turn ahead of what is readable.
        if leaf >= size {
            break;
        }
        if leaves.len() == TRUST_ENTRIES {
            more = Some(Next { leaf, first: false });
            break;
        }
        leaves.push(LeafIndex::new(leaf));
    }
    let proofs = ledger.inclusions(readable, &leaves)?;
    let mut entries = Vec::with_capacity(leaves.len());
    for (index, proof) in leaves.iter().zip(proofs) {
        entries.push(v1::TrustEntry {
            leaf_index: index.get(),
            entry: ledger.entry(readable, *index)?,
            inclusion_proof: hashes(proof.hashes()),
        });
    }
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

fn session_info(ledger: &Ledger, id: &SessionId) -> Result<v1::SessionInfo, Refusal> {
    let (session, last_run) = ledger
        .session(id)?
        .ok_or_else(|| Refusal::NotFound(format!("nothing is recorded in session {id}")))?;
    Ok(v1::SessionInfo {
        producer: session.producer,
        next_sequence: session.next.get(),
        last_payload: Bytes::copy_from_slice(session.last_payload.as_bytes()),
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
) -> Result<v1::GetEntriesResponse, Refusal> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    for (expected, item) in (start..).zip(ledger.entries(start, end)) {
        let (index, entry) = item?;
        if index != expected {
            return Err(Refusal::Damaged(format!("leaf {expected} is missing")));
        }
        bytes += entry.len();
        entries.push(entry);
        if entries.len() >= CHUNK_ENTRIES || bytes >= CHUNK_BYTES {
            break;
        }
    }
    if entries.is_empty() {
        return Err(Refusal::Damaged(format!("leaf {start} is missing")));
    }
    Ok(v1::GetEntriesResponse {
        start,
        entries,
        tree_size: size.get(),
    })
}
