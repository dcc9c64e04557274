//! `deed.v1.Log`.

use std::sync::Arc;

use bytes::Bytes;
use deed_evidence::{Sequence, SessionId};
use deed_proto::v1::{self, get_inclusion_proof_request::Leaf, log_server::Log};
use deed_tlog::{Hash, LeafIndex, SizeRange, TreeSize};
use futures::{StreamExt as _, stream};
use tonic::{Request, Response, Status};

use super::{Answers, Context, stopping};
use crate::{
    access::{Caller, table::Method},
    append::{consistency, hashes},
    ledger::{Ledger, Readable, read::Heads},
    status::Refusal,
};

/// Entries of one message at most.
const CHUNK_ENTRIES: usize = 1024;

/// Bytes of one message's entries; the last entry may go beyond.
const CHUNK_BYTES: usize = 1 << 20;

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
            .read(move || head(&ledger, &ledger.readable(), from))
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
            .ledger(&caller, Method::GetInclusionProof, &request.ledger)
            .await?;
        let answer = self
            .0
            .read(move || inclusion(&ledger, &wanted, request.tree_size))
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
            .read(move || {
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
        // Each chunk is a read of its own: a reader that is slow, or gone, holds nothing.
        let context = self.0.clone();
        let chunks = stream::unfold(Some(request.start), move |next| {
            let (context, ledger) = (context.clone(), Arc::clone(&ledger));
            async move {
                let start = next.filter(|&start| start < end)?;
                let read = context.read(move || chunk(&ledger, start, end, size));
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
        _request: Request<v1::GetBatchProofRequest>,
    ) -> Result<Response<v1::GetBatchProofResponse>, Status> {
        Err(Status::unimplemented("not in this fake"))
    }

    type GetTrustChainStream = Answers<v1::GetTrustChainResponse>;

    async fn get_trust_chain(
        &self,
        _request: Request<v1::GetTrustChainRequest>,
    ) -> Result<Response<Self::GetTrustChainStream>, Status> {
        Err(Status::unimplemented("not in this fake"))
    }

    async fn get_session(
        &self,
        _request: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::SessionInfo>, Status> {
        Err(Status::unimplemented("not in this fake"))
    }
}

/// A stream of heads.
struct Watching {
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
        let readable = self.heads.borrow_and_update().clone();
        let (ledger, from) = (Arc::clone(&self.ledger), self.from);
        self.from = from.map(|_| readable.size());
        self.context
            .read(move || head(&ledger, &readable, from))
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
            Some(Leaf::Statement(at)) => SessionId::from_slice(&at.session)
                .map(|session| Self::Statement(session, Sequence::new(at.sequence)))
                .ok_or_else(|| {
                    let what = format!("{} bytes where 16 are wanted", at.session.len());
                    Refusal::field("statement.session", what)
                }),
        }
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
    ledger.check_size(&readable, "tree_size", size)?;
    let index = match wanted {
        Wanted::Index(index) => {
            ledger.check_index(&readable, *index)?;
            *index
        }
        Wanted::Hash(hash) => ledger.leaf_of_hash(&readable, hash)?,
        Wanted::Statement(session, sequence) => {
            ledger.leaf_of_statement(&readable, session, *sequence)?
        }
    };
    if !size.contains(index) {
        // The tree has it, the beginning of the tree that was asked for has not.
        let what = format!("leaf {index} is not yet in the tree of {size} leaves");
        return Err(match wanted {
            Wanted::Index(_) => Refusal::field("tree_size", what),
            Wanted::Hash(_) | Wanted::Statement(..) => Refusal::NotFound(what),
        });
    }
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
