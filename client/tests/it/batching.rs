//! Signed batches against a ledger in memory that keeps a server's rules for them: what waits is
//! signed once, what goes out again goes out as the same bytes, and what another cut recorded is
//! found.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use deed_client::{
    Answer, AnswerError, Appended, AppenderOptions, Error, InputError, Leaf, Ledger, Pending,
    Session, Signing, StateDir, Statement, key,
};
use deed_evidence::{
    Micros, Nonce, Sequence, SessionId, TaskId,
    batch::Manifest,
    entry::{Entry, KeyedSignature},
    genesis::Genesis,
    signature, statement,
};
use deed_proto::v1::{
    self, append_result::Result as Item, ledger_server::Ledger as LedgerService,
    ledger_server::LedgerServer, log_server::Log as LogService, log_server::LogServer,
    rejection::Reason,
};
use deed_tlog::{
    BatchPosition, BatchTree, Checkpoint, Hash, NoteSigner, Origin, SigningKey, TreeHead, TreeSize,
    leaf_hash,
};
use prost::Message as _;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
};
use tokio_stream::{
    StreamExt as _,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::{
    appending::{requests, session_of},
    fake::{NAME, authority, options},
    merkle,
};

const SEED: [u8; 32] = [42; 32];

/// A ledger in memory.
#[derive(Clone)]
struct Memory {
    url: String,
    state: Arc<Mutex<State>>,
    /// Permits to answer requests on streams.
    answers: Arc<Semaphore>,
    recorded: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    entries: Vec<Bytes>,
    leaves: Vec<Hash>,
    sessions: HashMap<SessionId, Vec<(Bytes, u64)>>,
    /// Each append request, as it came.
    requests: Vec<Vec<Bytes>>,
    /// So many of the next answers are lost, and the stream with them.
    lose: usize,
    lie: Lie,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Lie {
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

fn origin() -> Origin {
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
    async fn start() -> Self {
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

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn connect(&self, state: &StateDir) -> Ledger {
        let options = options(&self.url).state(state.clone());
        Ledger::connect(options).await.unwrap()
    }

    fn sizes(&self) -> Vec<usize> {
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

struct Scene {
    memory: Memory,
    ledger: Ledger,
    signing: Signing,
    _directory: tempfile::TempDir,
}

fn signing_key() -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(&[11; 32]))
}

async fn scene() -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let memory = Memory::start().await;
    let ledger = memory.connect(&StateDir::new(directory.path())).await;
    Scene {
        memory,
        ledger,
        signing: Signing::Batch(signing_key()),
        _directory: directory,
    }
}

impl Scene {
    fn options(&self) -> AppenderOptions {
        AppenderOptions {
            signing: self.signing.clone(),
            ..AppenderOptions::default()
        }
    }

    /// Statements of one session, in one piece.
    fn statements(&self, count: usize) -> Vec<Bytes> {
        requests(&self.ledger, 1, 1, count).remove(0)
    }
}

async fn answers(pending: Vec<Pending>) -> Vec<Answer> {
    let mut answers = Vec::new();
    for pending in pending {
        answers.push(pending.await.unwrap());
    }
    answers
}

/// Each receipt lies behind its manifest, and none is there twice.
fn leaves(answers: &[Answer]) -> Vec<u64> {
    let mut seen = HashSet::new();
    let receipts = answers.iter().flat_map(|answer| &answer.items);
    receipts
        .map(|item| {
            let receipt = item.receipt().expect("nothing is rejected");
            assert!(receipt.manifest.unwrap() < receipt.leaf_index);
            assert!(receipt.inclusion_verified);
            assert!(seen.insert(receipt.leaf_index));
            receipt.leaf_index.get()
        })
        .collect()
}

#[tokio::test]
async fn one_signature_covers_a_request_and_each_statement_has_its_receipt() {
    let scene = scene().await;
    let payloads = scene.statements(5);
    let appender = scene.ledger.appender(scene.options());
    let pending = appender.send(payloads.clone()).await.unwrap();
    let answers = answers(vec![pending]).await;
    appender.finish().await.unwrap();
    assert_eq!(leaves(&answers), [2, 3, 4, 5, 6]);
    assert_eq!(answers[0].items.len(), 5);
    // Once more, in one request: all of it was recorded before, and says so.
    let statements: Vec<Statement> = payloads.into_iter().map(Into::into).collect();
    let again = scene.ledger.append_signed(&statements, &scene.signing);
    let again = again.await.unwrap();
    let duplicates = again.items.iter().map(|item| match item {
        Appended::Duplicate(receipt) => receipt.leaf_index.get(),
        other => panic!("{other:?}"),
    });
    assert_eq!(duplicates.collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn what_waits_while_batches_are_under_way_becomes_one() {
    let scene = scene().await;
    scene.memory.answers.forget_permits(usize::MAX);
    let appender = scene.ledger.appender(scene.options());
    let mut recorded = scene.memory.recorded.subscribe();
    let mut payloads = scene.statements(24).into_iter();
    let mut pending = Vec::new();
    // Nothing waits as long as little is under way.
    for batch in 1..=4 {
        let next = payloads.by_ref().take(1);
        pending.push(appender.send(next).await.unwrap());
        recorded
            .wait_for(|recorded| *recorded == batch)
            .await
            .unwrap();
    }
    for payload in payloads {
        pending.push(appender.send([payload]).await.unwrap());
    }
    scene.memory.answers.add_permits(1 << 20);
    let answers = answers(pending).await;
    appender.finish().await.unwrap();
    assert_eq!(scene.memory.sizes(), [1, 1, 1, 1, 20]);
    assert!(answers.iter().all(|answer| answer.items.len() == 1));
    let after_first_four = 10..30;
    let expected: Vec<u64> = [2, 4, 6, 8].into_iter().chain(after_first_four).collect();
    assert_eq!(leaves(&answers), expected);
}

#[tokio::test]
async fn another_session_begins_another_batch() {
    let scene = scene().await;
    scene.memory.answers.forget_permits(usize::MAX);
    let appender = scene.ledger.appender(scene.options());
    let mut recorded = scene.memory.recorded.subscribe();
    let mut pending = Vec::new();
    let mut first = requests(&scene.ledger, 1, 6, 1).into_iter();
    for batch in 1..=4 {
        pending.push(appender.send(first.next().unwrap()).await.unwrap());
        recorded
            .wait_for(|recorded| *recorded == batch)
            .await
            .unwrap();
    }
    let others = requests(&scene.ledger, 2, 3, 1).into_iter();
    for request in first.chain(others) {
        pending.push(appender.send(request).await.unwrap());
    }
    scene.memory.answers.add_permits(1 << 20);
    leaves(&answers(pending).await);
    appender.finish().await.unwrap();
    assert_eq!(scene.memory.sizes(), [1, 1, 1, 1, 2, 3]);
}

#[tokio::test]
async fn what_is_no_batch_is_refused_here() {
    let scene = scene().await;
    let appender = scene.ledger.appender(scene.options());
    let mut payloads = scene.statements(4);
    payloads.remove(2);
    let error = appender.send(payloads.clone()).await.unwrap_err();
    let wanted = InputError::NotNextInBatch { position: 2 };
    assert!(matches!(error, Error::Input(error) if error == wanted));
    let statements: Vec<Statement> = payloads.into_iter().map(Into::into).collect();
    let error = scene.ledger.append_signed(&statements, &scene.signing);
    let error = error.await.unwrap_err();
    assert!(
        matches!(error, Error::Input(InputError::Batch(_))),
        "{error}"
    );
    assert!(scene.memory.sizes().is_empty());
}

#[tokio::test]
async fn after_a_lost_connection_the_same_bytes_go_out_again() {
    let scene = scene().await;
    scene.memory.lock().lose = 1;
    let appender = scene.ledger.appender(scene.options());
    let pending = appender.send(scene.statements(7)).await.unwrap();
    let answer = pending.await.unwrap();
    appender.finish().await.unwrap();
    assert!(
        answer
            .items
            .iter()
            .all(|i| matches!(i, Appended::Duplicate(_)))
    );
    let state = scene.memory.lock();
    assert_eq!(state.requests.len(), 2);
    assert_eq!(state.requests[0], state.requests[1]);
    assert_eq!(state.leaves.len(), 1 + 1 + 7);
}

#[tokio::test]
async fn what_another_batch_recorded_is_found_and_the_rest_is_sent() {
    let scene = scene().await;
    let payloads = scene.statements(6);
    let first: Vec<Statement> = payloads[..4].iter().cloned().map(Into::into).collect();
    let recorded = scene.ledger.append_signed(&first, &scene.signing);
    let recorded = recorded.await.unwrap();
    // As after a crash: the same statements, cut elsewhere.
    let appender = scene.ledger.appender(scene.options());
    let answer = appender.send(payloads).await.unwrap().await.unwrap();
    appender.finish().await.unwrap();
    assert_eq!(answer.items.len(), 6);
    for (before, now) in recorded.items.iter().zip(&answer.items) {
        let (Appended::Accepted(before), Appended::Duplicate(now)) = (before, now) else {
            panic!("{before:?}, {now:?}");
        };
        assert_eq!(before, now);
    }
    assert!(
        answer.items[4..]
            .iter()
            .all(|i| matches!(i, Appended::Accepted(_)))
    );
    assert_eq!(scene.memory.sizes(), [4, 6, 2]);
    assert_eq!(leaves(&[answer]), [2, 3, 4, 5, 7, 8]);
}

#[tokio::test]
async fn other_statements_at_the_same_place_are_refused_for_good() {
    let scene = scene().await;
    let mut other =
        Session::with_nonce(scene.ledger.ledger_id(), "test:agent", Nonce::new([1; 16]));
    let header = deed_client::Header {
        task: Some(TaskId::new([9; 16])),
        ..deed_client::Header::default()
    };
    let closed = v1::statement::Body::TaskClosed(v1::TaskClosed {
        end: v1::TaskEnd::Failed.into(),
        reason: String::new(),
    });
    let made: Statement = other.make(&header, closed).unwrap().into();
    let recorded = scene
        .ledger
        .append_signed(&[made], &scene.signing)
        .await
        .unwrap();
    assert!(recorded.items[0].receipt().is_some());
    let appender = scene.ledger.appender(scene.options());
    let pending = appender.send(scene.statements(1)).await.unwrap();
    let answer = pending.await.unwrap();
    appender.finish().await.unwrap();
    let [Appended::Rejected(rejection)] = &answer.items[..] else {
        panic!("{answer:?}")
    };
    assert_eq!(rejection.reason(), Reason::SequenceReused);
}

#[tokio::test]
async fn a_refused_batch_says_why_to_each_of_its_statements() {
    let scene = scene().await;
    let payloads = scene.statements(5).split_off(2);
    let appender = scene.ledger.appender(scene.options());
    let answer = appender.send(payloads).await.unwrap().await.unwrap();
    appender.finish().await.unwrap();
    let reasons = answer.items.iter().map(|item| match item {
        Appended::Rejected(rejection) => (rejection.reason(), rejection.message.clone()),
        other => panic!("{other:?}"),
    });
    let reasons: Vec<_> = reasons.collect();
    assert_eq!(reasons[0].0, Reason::SequenceNotNext);
    for (reason, message) in &reasons[1..] {
        assert_eq!(*reason, Reason::BatchRefused);
        assert!(message.contains("sequence 2") && message.contains("SEQUENCE_NOT_NEXT"));
    }
}

#[tokio::test]
async fn each_statement_may_be_signed_by_itself() {
    let scene = scene().await;
    let options = AppenderOptions {
        signing: Signing::Each(signing_key()),
        ..AppenderOptions::default()
    };
    let appender = scene.ledger.appender(options);
    let answer = appender
        .send(scene.statements(3))
        .await
        .unwrap()
        .await
        .unwrap();
    appender.finish().await.unwrap();
    let state = scene.memory.lock();
    for (item, index) in answer.items.iter().zip(1..) {
        let receipt = item.receipt().unwrap();
        assert_eq!((receipt.leaf_index.get(), receipt.manifest), (index, None));
        let entry = Entry::parse(&state.entries[index as usize]).unwrap();
        let key = signing_key();
        let (key, found) = (key.public_key(), entry.signature.unwrap());
        signature::verify(key, entry.payload_type, entry.payload, found.signature).unwrap();
    }
}

#[tokio::test]
async fn batches_that_are_not_where_they_should_be() {
    for (lie, wanted) in [
        (
            Lie::ManifestElsewhere,
            AnswerError::NotBehindManifest {
                position: 0,
                found: 2,
                manifest: 0,
            },
        ),
        (Lie::Half, AnswerError::HalfBatch { position: 3 }),
    ] {
        let scene = scene().await;
        scene.memory.lock().lie = lie;
        let options = AppenderOptions {
            with_proofs: false,
            ..scene.options()
        };
        let appender = scene.ledger.appender(options);
        let answer = appender.send(scene.statements(4)).await.unwrap().await;
        let error = answer.unwrap_err();
        assert!(
            matches!(&error, Error::Answer(found) if *found == wanted),
            "{error}"
        );
        assert!(appender.finish().await.is_err());
    }
}

#[tokio::test]
async fn a_statement_is_followed_to_its_signature() {
    let scene = scene().await;
    let statements: Vec<Statement> = scene.statements(6).into_iter().map(Into::into).collect();
    scene
        .ledger
        .append_signed(&statements, &scene.signing)
        .await
        .unwrap();
    let leaf = Leaf::Statement(session_of(&scene.ledger, 1), Sequence::new(3));
    let key = |_| Some(signing_key().public_key().clone());
    let proven = scene.ledger.prove_batched(leaf, None, key).await.unwrap();
    assert_eq!(proven.path.manifest_index.get(), 1);
    assert_eq!(proven.path.statement_index.get(), 5);
    assert_eq!(Some(proven.path.key_id), scene.signing.key_id());
    // Under a key that nobody registered, or another one, it proves nothing.
    let unknown = scene.ledger.prove_batched(leaf, None, |_| None).await;
    assert!(matches!(unknown, Err(Error::Trust(_))));
    let other = key::generate().unwrap();
    let other = |_| Some(other.public_key().clone());
    assert!(scene.ledger.prove_batched(leaf, None, other).await.is_err());
    for lie in [Lie::Path, Lie::Position, Lie::OtherStatement] {
        scene.memory.lock().lie = lie;
        let error = scene
            .ledger
            .prove_batched(leaf, None, key)
            .await
            .unwrap_err();
        assert_eq!(
            error.kind(),
            deed_client::ErrorKind::DoesNotVerify,
            "{error}"
        );
    }
}
