//! The true answers about the log, from the server of a forged ledger.

use bytes::Bytes;
use deed_evidence::{PayloadDigest, batch::Manifest, entry::Entry, statement};
use deed_proto::v1::{
    self, Author, PayloadType, content_server::Content, get_batch_proof_request,
    get_inclusion_proof_request::Leaf, ledger_server::Ledger, log_server::Log,
};
use deed_tlog::{BatchPosition, BatchTree};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    ledger::index,
    serve::{Forged, State},
};

pub(super) type Sent<A> = ReceiverStream<Result<A, Status>>;

/// Returns a stream of messages that are all there already.
pub(super) fn all<A>(messages: Vec<A>) -> Response<Sent<A>> {
    let (sender, receiver) = mpsc::channel(messages.len().max(1));
    for message in messages {
        // There is room for all of them, and the receiver exists.
        let _ = sender.try_send(Ok(message));
    }
    Response::new(ReceiverStream::new(receiver))
}

fn beyond() -> Status {
    Status::out_of_range("beyond the tree")
}

impl State {
    fn info(&self) -> v1::LedgerInfo {
        let ledger = &self.ledger;
        let root = crate::oracle::root(&ledger.leaves);
        v1::LedgerInfo {
            name: ledger.name().to_owned(),
            origin: ledger.origin().to_string(),
            vkey: ledger.vkey(),
            ledger_id: Bytes::copy_from_slice(ledger.id().as_bytes()),
            size: ledger.size(),
            root: Bytes::copy_from_slice(root.as_bytes()),
            genesis_entry: ledger.entries[0].clone(),
            next_log_key: String::new(),
        }
    }

    fn head(&self, consistency_from: Option<u64>) -> Result<v1::TreeHeadResponse, Status> {
        let size = self.ledger.size();
        if consistency_from.is_some_and(|from| from > size) {
            return Err(beyond());
        }
        Ok(v1::TreeHeadResponse {
            checkpoint: self.checkpoint(size),
            witnessed_size: 0,
            consistency: consistency_from.map(|from| v1::ConsistencyProof {
                old_size: from,
                hashes: self.ledger.consistency(from, size),
            }),
        })
    }

    /// Returns the requested size; 0 stands for the newest.
    fn size(&self, asked: u64) -> Result<u64, Status> {
        match asked {
            0 => Ok(self.ledger.size()),
            size if size <= self.ledger.size() => Ok(size),
            _ => Err(beyond()),
        }
    }

    fn at(&self, place: &v1::StatementPosition) -> Result<u64, Status> {
        let found = self.ledger.sessions.get(&place.session);
        let found = found.and_then(|all| all.get(usize::try_from(place.sequence).ok()?));
        let leaf = found.ok_or_else(|| Status::not_found("no such statement"))?;
        Ok(*leaf)
    }

    fn inclusion(
        &self,
        request: &v1::GetInclusionProofRequest,
    ) -> Result<v1::InclusionProofResponse, Status> {
        let size = self.size(request.tree_size)?;
        let leaf = match &request.leaf {
            Some(Leaf::LeafIndex(leaf)) => *leaf,
            Some(Leaf::LeafHash(hash)) => {
                let mut leaves = (0..).zip(&self.ledger.leaves);
                let found = leaves.find(|(_, leaf)| leaf.as_bytes()[..] == **hash);
                found.ok_or_else(|| Status::not_found("no such leaf"))?.0
            }
            Some(Leaf::Statement(place)) => self.at(place)?,
            None => return Err(Status::invalid_argument("leaf: is missing")),
        };
        if leaf >= size {
            return Err(beyond());
        }
        let hash = self.ledger.leaves[index(leaf)];
        Ok(v1::InclusionProofResponse {
            leaf_index: leaf,
            leaf_hash: Bytes::copy_from_slice(hash.as_bytes()),
            tree_size: size,
            hashes: self.ledger.inclusion(leaf, size),
            checkpoint: self.checkpoint(size),
        })
    }

    pub(super) fn batch_proof(
        &self,
        request: &v1::GetBatchProofRequest,
    ) -> Result<v1::GetBatchProofResponse, Status> {
        use get_batch_proof_request::Leaf;
        let size = self.size(request.tree_size)?;
        let leaf = match &request.leaf {
            Some(Leaf::LeafIndex(leaf)) => *leaf,
            Some(Leaf::Statement(place)) => self.at(place)?,
            None => return Err(Status::invalid_argument("leaf: is missing")),
        };
        if leaf >= size {
            return Err(beyond());
        }
        let no_batch = || Status::failed_precondition("the statement is not one of a batch");
        let parsed = |leaf: u64| Entry::parse(&self.ledger.entries[index(leaf)]).ok();
        let is_batched = parsed(leaf).is_some_and(|entry| entry.author == Author::Batched);
        let mut before = (0..leaf).rev();
        let manifest_leaf = before
            .find(|leaf| {
                parsed(*leaf).is_some_and(|entry| entry.payload_type == PayloadType::BatchManifest)
            })
            .filter(|_| is_batched)
            .ok_or_else(no_batch)?;
        let manifest = parsed(manifest_leaf).ok_or_else(no_batch)?;
        let manifest = Manifest::parse(manifest.payload).map_err(|_| no_batch())?;
        let first = manifest_leaf + 1;
        let behind = first..first + u64::from(manifest.count.get());
        let covered = behind.contains(&leaf) && behind.end <= self.ledger.size();
        let payloads: Option<Vec<_>> = covered
            .then(|| behind.map(|leaf| Some(parsed(leaf)?.payload)).collect())
            .flatten();
        let tree = payloads.and_then(|payloads| BatchTree::new(&payloads).ok());
        let position = u32::try_from(leaf - first).map_err(|_| no_batch())?;
        let path = tree.and_then(|tree| tree.prove(BatchPosition::new(position)).ok());
        let path = path.ok_or_else(no_batch)?;
        let hashes = path.hashes().iter();
        Ok(v1::GetBatchProofResponse {
            manifest_index: manifest_leaf,
            position,
            manifest_entry: self.ledger.entries[index(manifest_leaf)].clone(),
            statement_entry: self.ledger.entries[index(leaf)].clone(),
            batch_path: hashes
                .map(|hash| Bytes::copy_from_slice(hash.as_bytes()))
                .collect(),
            manifest_inclusion: self.ledger.inclusion(manifest_leaf, size),
            statement_inclusion: self.ledger.inclusion(leaf, size),
            checkpoint: self.checkpoint(size),
        })
    }

    fn trust_chain(&self, start: u64) -> v1::GetTrustChainResponse {
        let trust = self.ledger.trust.iter().filter(|leaf| **leaf >= start);
        let entries = trust.map(|leaf| {
            let proven = self.proven(*leaf);
            v1::TrustEntry {
                leaf_index: proven.leaf_index,
                entry: proven.entry,
                inclusion_proof: proven.inclusion_proof,
            }
        });
        v1::GetTrustChainResponse {
            checkpoint: self.checkpoint(self.ledger.size()),
            entries: entries.collect(),
        }
    }

    fn session(&self, session: &Bytes) -> Result<v1::SessionInfo, Status> {
        let found = self.ledger.sessions.get(session);
        let none = || Status::not_found("no such session");
        let leaves = found.filter(|all| !all.is_empty()).ok_or_else(none)?;
        let last = leaves[leaves.len() - 1];
        let entry = Entry::parse(&self.ledger.entries[index(last)]).map_err(|_| none())?;
        let header = statement::parse(entry.payload).map_err(|_| none())?;
        let key = entry.signature.map(|signed| signed.key_id.to_vec());
        Ok(v1::SessionInfo {
            producer: header.producer.to_owned(),
            next_sequence: header.sequence.get() + 1,
            last_payload: Bytes::copy_from_slice(PayloadDigest::of(entry.payload).as_bytes()),
            recorded: leaves.len() as u64,
            skipped: 0,
            closed: header.body == statement::BodyKind::SessionClosed,
            key_id: key.unwrap_or_default().into(),
            last_leaf: last,
        })
    }
}

#[tonic::async_trait]
impl Ledger for Forged {
    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let answer = self.lock().append(request.get_ref());
        self.changed.send_replace(());
        Ok(Response::new(answer))
    }

    type AppendStreamStream = Sent<v1::AppendResponse>;

    async fn append_stream(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        let (forged, mut requests) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let answer = forged.lock().append(&request);
                forged.changed.send_replace(());
                if sender.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn create_ledger(
        &self,
        _: Request<v1::CreateLedgerRequest>,
    ) -> Result<Response<v1::CreateLedgerResponse>, Status> {
        Err(Status::already_exists("a forged server has one ledger"))
    }

    async fn list_ledgers(
        &self,
        _: Request<v1::ListLedgersRequest>,
    ) -> Result<Response<v1::ListLedgersResponse>, Status> {
        Ok(Response::new(v1::ListLedgersResponse {
            ledgers: vec![self.lock().info()],
            next_page_token: String::new(),
        }))
    }

    async fn get_ledger(
        &self,
        request: Request<v1::GetLedgerRequest>,
    ) -> Result<Response<v1::LedgerInfo>, Status> {
        let state = self.lock();
        if request.get_ref().name != state.ledger.name() {
            return Err(Status::not_found("no such ledger"));
        }
        Ok(Response::new(state.info()))
    }
}

#[tonic::async_trait]
impl Log for Forged {
    async fn get_tree_head(
        &self,
        request: Request<v1::GetTreeHeadRequest>,
    ) -> Result<Response<v1::TreeHeadResponse>, Status> {
        let head = self.lock().head(request.get_ref().consistency_from)?;
        Ok(Response::new(head))
    }

    type WatchTreeHeadsStream = Sent<v1::TreeHeadResponse>;

    async fn watch_tree_heads(
        &self,
        request: Request<v1::WatchTreeHeadsRequest>,
    ) -> Result<Response<Self::WatchTreeHeadsStream>, Status> {
        let mut from = request.get_ref().consistency_from;
        let (forged, mut changed) = (self.clone(), self.changed.subscribe());
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                changed.mark_unchanged();
                let (head, size) = {
                    let state = forged.lock();
                    (state.head(from), state.ledger.size())
                };
                from = from.map(|_| size);
                if sender.send(head).await.is_err() || changed.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<v1::GetInclusionProofRequest>,
    ) -> Result<Response<v1::InclusionProofResponse>, Status> {
        let answer = self.lock().inclusion(request.get_ref())?;
        Ok(Response::new(answer))
    }

    async fn get_consistency_proof(
        &self,
        request: Request<v1::GetConsistencyProofRequest>,
    ) -> Result<Response<v1::ConsistencyProofResponse>, Status> {
        let (state, request) = (self.lock(), request.into_inner());
        let new = state.size(request.new_size)?;
        if request.old_size > new {
            return Err(beyond());
        }
        Ok(Response::new(v1::ConsistencyProofResponse {
            old_size: request.old_size,
            new_size: new,
            hashes: state.ledger.consistency(request.old_size, new),
            checkpoint: state.checkpoint(new),
        }))
    }

    type GetEntriesStream = Sent<v1::GetEntriesResponse>;

    async fn get_entries(
        &self,
        request: Request<v1::GetEntriesRequest>,
    ) -> Result<Response<Self::GetEntriesStream>, Status> {
        let (state, request) = (self.lock(), request.into_inner());
        let size = state.ledger.size();
        if request.start > request.end || request.end > size {
            return Err(beyond());
        }
        let entries = &state.ledger.entries[index(request.start)..index(request.end)];
        Ok(all(vec![v1::GetEntriesResponse {
            start: request.start,
            entries: entries.to_vec(),
            tree_size: size,
        }]))
    }

    async fn get_batch_proof(
        &self,
        request: Request<v1::GetBatchProofRequest>,
    ) -> Result<Response<v1::GetBatchProofResponse>, Status> {
        let answer = self.lock().batch_proof(request.get_ref())?;
        Ok(Response::new(answer))
    }

    type GetTrustChainStream = Sent<v1::GetTrustChainResponse>;

    async fn get_trust_chain(
        &self,
        request: Request<v1::GetTrustChainRequest>,
    ) -> Result<Response<Self::GetTrustChainStream>, Status> {
        Ok(all(vec![self.lock().trust_chain(request.get_ref().start)]))
    }

    type GetLogKeysStream = Sent<v1::GetLogKeysResponse>;

    async fn get_log_keys(
        &self,
        _: Request<v1::GetLogKeysRequest>,
    ) -> Result<Response<Self::GetLogKeysStream>, Status> {
        // The log key of a forged ledger is never replaced.
        Ok(all(Vec::new()))
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::SessionInfo>, Status> {
        let answer = self.lock().session(&request.get_ref().session)?;
        Ok(Response::new(answer))
    }
}

/// A forged ledger has no contents.
#[tonic::async_trait]
impl Content for Forged {
    async fn put_content(
        &self,
        request: Request<Streaming<v1::PutContentRequest>>,
    ) -> Result<Response<v1::PutContentResponse>, Status> {
        let mut parts = request.into_inner();
        while parts.message().await?.is_some() {}
        Ok(Response::new(v1::PutContentResponse {
            already_held: false,
        }))
    }

    type GetContentStream = Sent<v1::GetContentResponse>;

    async fn get_content(
        &self,
        _: Request<v1::GetContentRequest>,
    ) -> Result<Response<Self::GetContentStream>, Status> {
        Err(Status::not_found("no such content"))
    }

    async fn erase_content(
        &self,
        _: Request<v1::EraseContentRequest>,
    ) -> Result<Response<v1::EraseContentResponse>, Status> {
        Err(Status::not_found("no such content"))
    }
}
