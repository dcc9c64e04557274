//! The rpcs of the fake.

use bytes::Bytes;
use deed_evidence::SessionId;
use deed_proto::v1::{
    self, get_inclusion_proof_request::Leaf, ledger_server::Ledger as LedgerService,
    log_server::Log as LogService,
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{Fake, Lag, Lie, history::hashes};
use crate::merkle;

#[tonic::async_trait]
impl LedgerService for Fake {
    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        self.speak().await;
        self.respond(&request.into_inner()).map(Response::new)
    }

    type AppendStreamStream = ReceiverStream<Result<v1::AppendResponse, Status>>;

    async fn append_stream(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        {
            let mut state = self.lock();
            state.script.streams += 1;
            if !state.script.exhausted.is_empty() {
                let delay = state.script.exhausted.remove(0);
                let details = ErrorDetails::with_retry_info(Some(delay));
                let message = "too much waits";
                return Err(Status::with_error_details(
                    Code::ResourceExhausted,
                    message,
                    details,
                ));
            }
        }
        let (sender, receiver) = mpsc::channel(1024);
        let fake = self.clone();
        let mut requests = request.into_inner();
        // Recording goes on while answers are held back, as in a pipelined server.
        let (recorded, mut to_answer) = mpsc::unbounded_channel();
        let recording = fake.clone();
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let _ = recorded.send(recording.respond(&request));
            }
        });
        tokio::spawn(async move {
            while let Some(answer) = to_answer.recv().await {
                fake.answers.acquire().await.unwrap().forget();
                let ends = answer.is_err();
                if sender.send(answer).await.is_err() || ends {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn create_ledger(
        &self,
        request: Request<v1::CreateLedgerRequest>,
    ) -> Result<Response<v1::CreateLedgerResponse>, Status> {
        if request.into_inner().name != self.name() {
            return Err(Status::already_exists("this fake has one ledger"));
        }
        // Whatever keys were sent: the ledger that is there has its own.
        let info = self.info();
        let checkpoint = self.checkpoint(&self.lock().histories[0].leaves, Lie::None);
        Ok(Response::new(v1::CreateLedgerResponse {
            ledger: Some(info),
            checkpoint,
        }))
    }

    async fn list_ledgers(
        &self,
        _: Request<v1::ListLedgersRequest>,
    ) -> Result<Response<v1::ListLedgersResponse>, Status> {
        Ok(Response::new(v1::ListLedgersResponse {
            ledgers: vec![self.info()],
            next_page_token: String::new(),
        }))
    }

    async fn get_ledger(
        &self,
        request: Request<v1::GetLedgerRequest>,
    ) -> Result<Response<v1::LedgerInfo>, Status> {
        self.speak().await;
        if request.into_inner().name != self.name() {
            return Err(Status::not_found("no such ledger"));
        }
        Ok(Response::new(self.info()))
    }
}

#[tonic::async_trait]
impl LogService for Fake {
    async fn get_tree_head(
        &self,
        request: Request<v1::GetTreeHeadRequest>,
    ) -> Result<Response<v1::TreeHeadResponse>, Status> {
        self.speak().await;
        let request = request.into_inner();
        self.grown(request.min_size)?;
        self.head(request.consistency_from).map(Response::new)
    }

    type WatchTreeHeadsStream = ReceiverStream<Result<v1::TreeHeadResponse, Status>>;

    async fn watch_tree_heads(
        &self,
        request: Request<v1::WatchTreeHeadsRequest>,
    ) -> Result<Response<Self::WatchTreeHeadsStream>, Status> {
        let request = request.into_inner();
        self.grown(request.min_size)?;
        let mut from = request.consistency_from;
        let (fake, mut heads) = (self.clone(), self.heads.subscribe());
        let (sender, receiver) = mpsc::channel(1);
        let lie = {
            let mut state = self.lock();
            state.script.watches += 1;
            state.script.lie
        };
        if lie == Lie::WatchOutOfRange {
            return Err(Status::out_of_range("beyond the tree"));
        }
        tokio::spawn(async move {
            fake.speak().await;
            loop {
                heads.mark_unchanged();
                let head = fake.head(from);
                from = from.map(|_| fake.size());
                if sender.send(head).await.is_err() || lie == Lie::ShortWatch {
                    return;
                }
                if heads.changed().await.is_err() {
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
        self.speak().await;
        let request = request.into_inner();
        self.grown(request.min_size)?;
        let state = self.lock();
        let (history, lie) = (&state.histories[0], state.script.lie);
        let size = match request.tree_size {
            0 => history.leaves.len(),
            size => size as usize,
        };
        let index = match request.leaf {
            Some(Leaf::LeafIndex(index)) => index as usize,
            Some(Leaf::LeafHash(hash)) => history
                .leaves
                .iter()
                .position(|leaf| leaf.as_bytes()[..] == hash)
                .ok_or_else(|| Status::not_found("no such leaf"))?,
            Some(Leaf::Statement(place)) => {
                let session = SessionId::from_slice(&place.session);
                let recorded = session.and_then(|session| history.sessions.get(&session));
                let at = recorded.and_then(|recorded| recorded.get(place.sequence as usize));
                let (_, leaf) = at.ok_or_else(|| Status::not_found("no such statement"))?;
                *leaf as usize
            }
            None => return Err(Status::invalid_argument("leaf")),
        };
        if size > history.leaves.len() || index >= size {
            return Err(Status::out_of_range("beyond the tree"));
        }
        let leaves = &history.leaves[..size];
        Ok(Response::new(v1::InclusionProofResponse {
            leaf_index: index as u64,
            leaf_hash: Bytes::copy_from_slice(leaves[index].as_bytes()),
            tree_size: size as u64,
            hashes: hashes(&merkle::path(index, leaves), lie == Lie::Inclusion),
            checkpoint: self.checkpoint(leaves, lie),
        }))
    }

    async fn get_consistency_proof(
        &self,
        request: Request<v1::GetConsistencyProofRequest>,
    ) -> Result<Response<v1::ConsistencyProofResponse>, Status> {
        self.speak().await;
        let request = request.into_inner();
        let proofs = self.lock().script.lag == Lag::AllButProofs;
        if !proofs {
            self.grown(request.min_size)?;
        }
        let delay = {
            let script = &mut self.lock().script;
            script.proofs += 1;
            script.proofs_now += 1;
            script.proofs_at_once = script.proofs_at_once.max(script.proofs_now);
            script.proof_delay
        };
        tokio::time::sleep(delay).await;
        let mut state = self.lock();
        state.script.proofs_now -= 1;
        if state.script.lie == Lie::NoConsistencyRpc {
            return Err(Status::internal("not today"));
        }
        let which = match request.new_size {
            size if state.script.two_histories => (size % 2) as usize,
            _ => 0,
        };
        let (history, lie) = (&state.histories[which], state.script.lie);
        let new = match request.new_size {
            0 => history.leaves.len(),
            size => size as usize,
        };
        if new > history.leaves.len() || request.old_size as usize > new {
            return Err(Status::out_of_range("beyond the tree"));
        }
        let leaves = &history.leaves[..new];
        let proof = merkle::consistency(request.old_size as usize, leaves);
        Ok(Response::new(v1::ConsistencyProofResponse {
            old_size: request.old_size,
            new_size: new as u64,
            hashes: hashes(&proof, lie == Lie::Consistency),
            checkpoint: match lie {
                Lie::ProofHead => self.checkpoint(leaves, Lie::Signature),
                lie => self.checkpoint(leaves, lie),
            },
        }))
    }

    type GetEntriesStream = ReceiverStream<Result<v1::GetEntriesResponse, Status>>;

    async fn get_entries(
        &self,
        request: Request<v1::GetEntriesRequest>,
    ) -> Result<Response<Self::GetEntriesStream>, Status> {
        let request = request.into_inner();
        self.grown(request.min_size)?;
        let (sender, receiver) = mpsc::channel(1);
        if self.lock().script.lie == Lie::Silence {
            tokio::spawn(async move { sender.closed().await });
            return Ok(Response::new(ReceiverStream::new(receiver)));
        }
        let state = self.lock();
        let history = &state.histories[0];
        let entries = history
            .entries
            .get(request.start as usize..request.end as usize)
            .ok_or_else(|| Status::out_of_range("beyond the tree"))?;
        let mut entries = entries.to_vec();
        if let Some(entry) = entries
            .first_mut()
            .filter(|_| state.script.lie == Lie::Entry)
        {
            let mut changed = entry.to_vec();
            *changed.last_mut().unwrap() ^= 1;
            *entry = changed.into();
        }
        let message = v1::GetEntriesResponse {
            start: request.start,
            entries,
            tree_size: history.leaves.len() as u64,
        };
        sender.try_send(Ok(message)).unwrap();
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_batch_proof(
        &self,
        request: Request<v1::GetBatchProofRequest>,
    ) -> Result<Response<v1::GetBatchProofResponse>, Status> {
        let request = request.into_inner();
        self.grown(request.min_size)?;
        self.batch_proof(&request).map(Response::new)
    }

    type GetTrustChainStream = ReceiverStream<Result<v1::GetTrustChainResponse, Status>>;

    async fn get_trust_chain(
        &self,
        request: Request<v1::GetTrustChainRequest>,
    ) -> Result<Response<Self::GetTrustChainStream>, Status> {
        self.grown(request.into_inner().min_size)?;
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(Ok(self.trust_chain())).unwrap();
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type GetLogKeysStream = ReceiverStream<Result<v1::GetLogKeysResponse, Status>>;

    async fn get_log_keys(
        &self,
        request: Request<v1::GetLogKeysRequest>,
    ) -> Result<Response<Self::GetLogKeysStream>, Status> {
        self.grown(request.into_inner().min_size)?;
        let messages = self.log_keys();
        let (sender, receiver) = mpsc::channel(messages.len().max(1));
        for message in messages {
            sender.try_send(Ok(message)).unwrap();
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::SessionInfo>, Status> {
        let request = request.into_inner();
        self.grown(request.min_size)?;
        self.session_info(&request.session).map(Response::new)
    }
}
