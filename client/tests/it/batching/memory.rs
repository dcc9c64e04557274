//! A server in memory that takes signed batches.

use super::*;

pub(super) const SEED: [u8; 32] = [42; 32];

/// A ledger in memory.
#[derive(Clone)]
pub(super) struct Memory {
    pub(super) url: String,
    pub(super) state: Arc<Mutex<State>>,
    /// Permits to answer requests on streams.
    pub(super) answers: Arc<Semaphore>,
    pub(super) recorded: watch::Sender<usize>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) entries: Vec<Bytes>,
    pub(super) leaves: Vec<Hash>,
    pub(super) sessions: HashMap<SessionId, Vec<(Bytes, u64)>>,
    /// Each append request, as it came.
    pub(super) requests: Vec<Vec<Bytes>>,
    /// So many of the next answers are lost, and the stream with them.
    pub(super) lose: usize,
    pub(super) lie: Lie,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Lie {
    #[default]
    None,
    /// The manifest's receipt names a leaf of its own kind elsewhere.
    ManifestElsewhere,
    /// The last statement of a batch is refused, the others are recorded.
    Half,
    /// A batch proof's path has one hash changed.
    Path,
    /// A batch proof names the position beside.
    Position,
    /// A batch proof is of the statement beside.
    OtherStatement,
}

pub(super) fn origin() -> Origin {
    format!("memory.example/logs/{NAME}").parse().unwrap()
}

fn bytes(hashes: &[Hash]) -> Vec<Bytes> {
    let copied = |hash: &Hash| Bytes::copy_from_slice(hash.as_bytes());
    hashes.iter().map(copied).collect()
}

impl State {
    fn push(&mut self, entry: &Entry<'_>) -> v1::Receipt {
        let encoded = entry.encode();
        self.leaves.push(leaf_hash(&encoded));
        self.entries.push(encoded);
        self.receipt(self.leaves.len() as u64 - 1)
    }

    fn receipt(&self, leaf_index: u64) -> v1::Receipt {
        let leaf_hash = self.leaves[leaf_index as usize];
        v1::Receipt {
            leaf_index,
            leaf_hash: Bytes::copy_from_slice(leaf_hash.as_bytes()),
            received_at_us: 7,
            ..v1::Receipt::default()
        }
    }

    fn checkpoint(&self) -> Bytes {
        let size = TreeSize::new(self.leaves.len() as u64);
        let head = TreeHead::new(size, merkle::root(&self.leaves));
        let signer = NoteSigner::from_seed(origin(), &SEED);
        let signed = Checkpoint::new(origin(), head).sign(&signer).unwrap();
        signed.to_string().into()
    }

    fn append(&mut self, request: &v1::AppendRequest) -> v1::AppendResponse {
        let envelopes = &request.envelopes;
        self.requests
            .push(envelopes.iter().map(|e| e.encode_to_vec().into()).collect());
        let mut items = match envelopes[0].payload_type() {
            v1::PayloadType::BatchManifest => self.batch(envelopes),
            _ => envelopes
                .iter()
                .map(|envelope| self.single(envelope))
                .collect(),
        };
        if request.with_proofs {
            for item in &mut items {
                if let Item::Accepted(receipt) | Item::Duplicate(receipt) = item {
                    let index = receipt.leaf_index as usize;
                    receipt.inclusion_proof = bytes(&merkle::path(index, &self.leaves));
                }
            }
        }
        self.lie_about(&mut items);
        let consistency = request
            .consistency_from
            .map(|old_size| v1::ConsistencyProof {
                old_size,
                hashes: bytes(&merkle::consistency(old_size as usize, &self.leaves)),
            });
        let results = items
            .into_iter()
            .map(|item| v1::AppendResult { result: Some(item) });
        v1::AppendResponse {
            checkpoint: self.checkpoint(),
            witnessed_size: 0,
            results: results.collect(),
            consistency,
        }
    }

    fn single(&mut self, envelope: &v1::Envelope) -> Item {
        let header = statement::parse(&envelope.payload).unwrap();
        let expected = self.sessions.entry(header.session).or_default().len() as u64;
        if header.sequence.get() != expected {
            return rejected(Reason::SequenceNotNext, Some(expected));
        }
        let signature = KeyedSignature::from_slices(&envelope.key_id, &envelope.signature);
        let entry = match signature {
            Some(signature) => Entry::signed(&envelope.payload, signature, Micros::new(7)),
            None => Entry::unsigned(&envelope.payload, Micros::new(7)),
        };
        let receipt = self.push(&entry);
        let session = self.sessions.entry(header.session).or_default();
        session.push((envelope.payload.clone(), receipt.leaf_index));
        Item::Accepted(receipt)
    }

    fn batch(&mut self, envelopes: &[v1::Envelope]) -> Vec<Item> {
        let (manifest, statements) = envelopes.split_first().unwrap();
        let parsed = Manifest::parse(&manifest.payload).unwrap();
        assert_eq!(parsed.count.get() as usize, statements.len());
        let payloads: Vec<_> = statements.iter().map(|s| &s.payload).collect();
        assert_eq!(Manifest::over(&payloads).unwrap(), parsed);
        let recorded = self.sessions.entry(parsed.session).or_default();
        let (first, expected) = (parsed.first_sequence.get(), recorded.len() as u64);
        if first < expected {
            let leaf = recorded[first as usize].1;
            let before = Entry::parse(&self.entries[leaf as usize - 1]).unwrap();
            if before.payload == &manifest.payload[..] {
                let leaves = leaf - 1..leaf + statements.len() as u64;
                return leaves
                    .map(|leaf| Item::Duplicate(self.receipt(leaf)))
                    .collect();
            }
        }
        if first != expected {
            let reason = if first < expected {
                Reason::SequenceReused
            } else {
                Reason::SequenceNotNext
            };
            let mut items = vec![rejected(Reason::BatchRefused, None); envelopes.len()];
            items[1] = rejected(reason, Some(expected));
            return items;
        }
        let signature = KeyedSignature::from_slices(&manifest.key_id, &manifest.signature).unwrap();
        let entry = Entry::manifest(&manifest.payload, signature, Micros::new(7));
        let mut items = vec![Item::Accepted(self.push(&entry))];
        for statement in statements {
            assert!(statement.signature.is_empty());
            let receipt = self.push(&Entry::batched(&statement.payload, Micros::new(7)));
            let session = self.sessions.entry(parsed.session).or_default();
            session.push((statement.payload.clone(), receipt.leaf_index));
            items.push(Item::Accepted(receipt));
        }
        items
    }

    fn lie_about(&self, items: &mut [Item]) {
        match (self.lie, items) {
            (Lie::ManifestElsewhere, [Item::Accepted(manifest), ..]) => {
                // Where nobody looks: its hash holds anyway.
                manifest.leaf_index -= 1;
                manifest.inclusion_proof.clear();
            }
            (Lie::Half, [.., last]) => *last = rejected(Reason::Malformed, None),
            _ => {}
        }
    }

    fn batch_proof(&self, session: SessionId, sequence: u64) -> v1::GetBatchProofResponse {
        let beside = u64::from(self.lie == Lie::OtherStatement);
        let leaf = self.sessions[&session][(sequence + beside) as usize].1 as usize;
        let is_manifest = |entry: &Bytes| {
            let entry = Entry::parse(entry).unwrap();
            entry.payload_type == v1::PayloadType::BatchManifest
        };
        let manifest = (0..leaf)
            .rev()
            .find(|at| is_manifest(&self.entries[*at]))
            .unwrap();
        let head = Entry::parse(&self.entries[manifest]).unwrap();
        let count = Manifest::parse(head.payload).unwrap().count.get() as usize;
        let payloads: Vec<_> = self.entries[manifest + 1..=manifest + count]
            .iter()
            .map(|entry| Entry::parse(entry).unwrap().payload)
            .collect();
        let position = (leaf - manifest - 1) as u32;
        let tree = BatchTree::new(&payloads).unwrap();
        let path = tree.prove(BatchPosition::new(position)).unwrap();
        let mut batch_path = bytes(path.hashes());
        if self.lie == Lie::Path {
            batch_path[0] = Bytes::from_static(&[6; 32]);
        }
        v1::GetBatchProofResponse {
            manifest_index: manifest as u64,
            position: position + u32::from(self.lie == Lie::Position),
            manifest_entry: self.entries[manifest].clone(),
            statement_entry: self.entries[leaf].clone(),
            batch_path,
            manifest_inclusion: bytes(&merkle::path(manifest, &self.leaves)),
            statement_inclusion: bytes(&merkle::path(leaf, &self.leaves)),
            checkpoint: self.checkpoint(),
        }
    }
}

fn rejected(reason: Reason, expected_sequence: Option<u64>) -> Item {
    Item::Rejected(v1::Rejection {
        reason: reason.into(),
        message: "no".to_owned(),
        field: String::new(),
        expected_sequence,
    })
}

impl Memory {
    pub(super) async fn start() -> Self {
        let genesis = Genesis {
            log_key: NoteSigner::from_seed(origin(), &SEED)
                .verifier_key()
                .clone(),
            origin: origin(),
            authority_keys: vec![authority()],
            created_at: Micros::new(1_700_000_000_000_000),
            nonce: [3; 32],
            rules_version: 2,
        };
        let entry = genesis.to_entry().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let memory = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            state: Arc::new(Mutex::new(State {
                leaves: vec![leaf_hash(&entry)],
                entries: vec![entry],
                ..State::default()
            })),
            answers: Arc::new(Semaphore::new(1 << 20)),
            recorded: watch::Sender::new(0),
        };
        let serving = Server::builder()
            .add_service(LedgerServer::new(memory.clone()))
            .add_service(LogServer::new(memory.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
        memory
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) async fn connect(&self, state: &StateDir) -> Ledger {
        let options = options(&self.url).state(state.clone());
        Ledger::connect(options).await.unwrap()
    }

    pub(super) fn sizes(&self) -> Vec<usize> {
        // Without the manifest.
        self.lock().requests.iter().map(|r| r.len() - 1).collect()
    }
}

#[tonic::async_trait]
impl LedgerService for Memory {
    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        Ok(Response::new(self.lock().append(&request.into_inner())))
    }

    type AppendStreamStream = ReceiverStream<Result<v1::AppendResponse, Status>>;

    async fn append_stream(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let (sender, receiver) = mpsc::channel(64);
        let (recorded, mut to_answer) = mpsc::channel(64);
        let (memory, mut requests) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let (answer, lost) = {
                    let mut state = memory.lock();
                    let lost = state.lose > 0;
                    state.lose -= usize::from(lost);
                    (state.append(&request), lost)
                };
                memory.recorded.send_modify(|recorded| *recorded += 1);
                let answer = if lost {
                    Err(Status::unavailable("lost"))
                } else {
                    Ok(answer)
                };
                if recorded.send(answer).await.is_err() || lost {
                    return;
                }
            }
        });
        let answers = Arc::clone(&self.answers);
        tokio::spawn(async move {
            while let Some(answer) = to_answer.recv().await {
                answers.acquire().await.unwrap().forget();
                if sender.send(answer).await.is_err() {
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
        Err(Status::unimplemented("not here"))
    }

    async fn list_ledgers(
        &self,
        _: Request<v1::ListLedgersRequest>,
    ) -> Result<Response<v1::ListLedgersResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_ledger(
        &self,
        _: Request<v1::GetLedgerRequest>,
    ) -> Result<Response<v1::LedgerInfo>, Status> {
        let state = self.lock();
        Ok(Response::new(v1::LedgerInfo {
            name: NAME.to_owned(),
            origin: origin().to_string(),
            vkey: NoteSigner::from_seed(origin(), &SEED)
                .verifier_key()
                .to_string(),
            ledger_id: Bytes::copy_from_slice(state.leaves[0].as_bytes()),
            size: state.leaves.len() as u64,
            root: Bytes::copy_from_slice(merkle::root(&state.leaves).as_bytes()),
            genesis_entry: state.entries[0].clone(),
            next_log_key: String::new(),
        }))
    }
}

#[tonic::async_trait]
impl LogService for Memory {
    async fn get_tree_head(
        &self,
        _: Request<v1::GetTreeHeadRequest>,
    ) -> Result<Response<v1::TreeHeadResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    type WatchTreeHeadsStream = ReceiverStream<Result<v1::TreeHeadResponse, Status>>;

    async fn watch_tree_heads(
        &self,
        _: Request<v1::WatchTreeHeadsRequest>,
    ) -> Result<Response<Self::WatchTreeHeadsStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_inclusion_proof(
        &self,
        _: Request<v1::GetInclusionProofRequest>,
    ) -> Result<Response<v1::InclusionProofResponse>, Status> {
        let state = self.lock();
        Ok(Response::new(v1::InclusionProofResponse {
            leaf_index: 0,
            leaf_hash: Bytes::copy_from_slice(state.leaves[0].as_bytes()),
            tree_size: state.leaves.len() as u64,
            hashes: bytes(&merkle::path(0, &state.leaves)),
            checkpoint: state.checkpoint(),
        }))
    }

    async fn get_consistency_proof(
        &self,
        request: Request<v1::GetConsistencyProofRequest>,
    ) -> Result<Response<v1::ConsistencyProofResponse>, Status> {
        let (request, state) = (request.into_inner(), self.lock());
        let mut smaller = State {
            leaves: state.leaves.clone(),
            ..State::default()
        };
        smaller.leaves.truncate(request.new_size as usize);
        let proof = merkle::consistency(request.old_size as usize, &smaller.leaves);
        Ok(Response::new(v1::ConsistencyProofResponse {
            old_size: request.old_size,
            new_size: request.new_size,
            hashes: bytes(&proof),
            checkpoint: smaller.checkpoint(),
        }))
    }

    type GetEntriesStream = ReceiverStream<Result<v1::GetEntriesResponse, Status>>;

    async fn get_entries(
        &self,
        _: Request<v1::GetEntriesRequest>,
    ) -> Result<Response<Self::GetEntriesStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_batch_proof(
        &self,
        request: Request<v1::GetBatchProofRequest>,
    ) -> Result<Response<v1::GetBatchProofResponse>, Status> {
        let Some(v1::get_batch_proof_request::Leaf::Statement(place)) = request.into_inner().leaf
        else {
            return Err(Status::unimplemented("not here"));
        };
        let session = SessionId::from_slice(&place.session).unwrap();
        Ok(Response::new(
            self.lock().batch_proof(session, place.sequence),
        ))
    }

    type GetTrustChainStream = ReceiverStream<Result<v1::GetTrustChainResponse, Status>>;

    async fn get_trust_chain(
        &self,
        _: Request<v1::GetTrustChainRequest>,
    ) -> Result<Response<Self::GetTrustChainStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    type GetLogKeysStream = ReceiverStream<Result<v1::GetLogKeysResponse, Status>>;

    async fn get_log_keys(
        &self,
        _: Request<v1::GetLogKeysRequest>,
    ) -> Result<Response<Self::GetLogKeysStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_session(
        &self,
        _: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::SessionInfo>, Status> {
        Err(Status::unimplemented("not here"))
    }
}
