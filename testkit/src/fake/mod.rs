//! A server that keeps its ledger in memory and tells exactly the lies it is asked for.

mod actions;
mod evidence;
mod history;
mod script;
mod service;
mod whims;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use deed_client::{Ledger, Options, RetryPolicy, StateDir};
use deed_evidence::{Micros, entry::Entry, genesis::Genesis, statement};
use deed_proto::v1::{
    self, actions_server::ActionsServer, content_server::ContentServer,
    ledger_server::LedgerServer, log_server::LogServer,
};
use deed_tlog::{
    Checkpoint, Hash, NoteSigner, Origin, SigningKey, TreeHead, TreeSize, VerifierKey, leaf_hash,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_stream::{StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Code, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

use self::evidence::HeldContent;
use self::history::{History, consistency_to, history_of, is_manifest, refused, unwanted};
use crate::merkle;

pub use self::{
    script::{Lag, Lie, Script, Whim},
    whims::any_whims,
};

pub const NAME: &str = "test";

pub struct State {
    histories: [History; 2],
    pub script: Script,
    contents: HashMap<Bytes, HeldContent>,
    erased: HashMap<Bytes, u64>,
    pub findings: Vec<v1::Finding>,
}

/// A leaf, and the seed of the key that takes over there.
type Rotation = (u64, [u8; 32]);

#[derive(Clone)]
pub struct Fake {
    pub address: SocketAddr,
    seed: [u8; 32],
    origin: Origin,
    /// Leaves at which another log key takes over, with its seed.
    rotations: Arc<Mutex<Vec<Rotation>>>,
    state: Arc<Mutex<State>>,
    /// Permits to answer requests on streams.
    pub answers: Arc<Semaphore>,
    heads: watch::Sender<u64>,
    /// Requests that were recorded, answered or not.
    pub recorded: watch::Sender<u32>,
}

impl Fake {
    pub async fn start() -> Self {
        let seed = [42; 32];
        let origin: Origin = format!("fake.example/logs/{NAME}").parse().unwrap();
        let genesis = Genesis {
            log_key: NoteSigner::from_seed(&origin, &seed).verifier_key().clone(),
            origin: origin.clone(),
            authority_keys: vec![authority()],
            created_at: Micros::new(1_700_000_000_000_000),
            nonce: [3; 32],
            rules_version: 2,
        };
        let mut history = History {
            entries: Vec::new(),
            leaves: Vec::new(),
            sessions: HashMap::new(),
            trust: vec![0],
        };
        history.push(genesis.to_entry().unwrap());
        Self::serve(seed, origin, history).await
    }

    /// A server of a ledger that has these entries and the log key of the seed 1.
    pub async fn telling(entries: &[Bytes]) -> Self {
        let (genesis, _) = Genesis::from_entry(&entries[0]).unwrap();
        let history = History::of_story(entries);
        Self::serve([1; 32], genesis.origin, history).await
    }

    /// A server with the same key and the first `keep` entries: a fork once both have gone on, a
    /// rollback until then.
    pub async fn twin(&self, keep: usize) -> Self {
        let mut history = self.lock().histories[0].clone();
        history.entries.truncate(keep);
        history.leaves.truncate(keep);
        history.sessions.clear();
        history.trust.retain(|leaf| *leaf < keep as u64);
        Self::serve(self.seed, self.origin(), history).await
    }

    async fn serve(seed: [u8; 32], origin: Origin, history: History) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            address: listener.local_addr().unwrap(),
            seed,
            origin,
            rotations: Arc::default(),
            state: Arc::new(Mutex::new(State {
                histories: [history.clone(), history],
                script: Script::default(),
                contents: HashMap::new(),
                erased: HashMap::new(),
                findings: Vec::new(),
            })),
            answers: Arc::new(Semaphore::new(1 << 20)),
            heads: watch::Sender::new(0),
            recorded: watch::Sender::new(0),
        };
        let serving = Server::builder()
            .add_service(LedgerServer::new(fake.clone()))
            .add_service(LogServer::new(fake.clone()))
            .add_service(ContentServer::new(fake.clone()))
            .add_service(ActionsServer::new(fake.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener).map(|connection| {
                // Without this, each small answer waits for the delayed acknowledgement of the one
                // before.
                connection.and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            }));
        tokio::spawn(serving);
        fake
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The key of this seed signs from the next leaf on, which is to say so.
    pub fn rotate(&self, seed: [u8; 32]) {
        let leaf = self.size();
        self.rotations.lock().unwrap().push((leaf, seed));
    }

    /// A log key of the fake's origin.
    pub fn log_key(&self, seed: [u8; 32]) -> VerifierKey {
        let signer = NoteSigner::from_seed(self.origin(), &seed);
        signer.verifier_key().clone()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn options(&self) -> Options {
        options_of(&self.url(), self.name())
    }

    pub async fn connect(&self, state: &StateDir) -> Ledger {
        let options = self.options().state(state.clone());
        Ledger::connect(options).await.unwrap()
    }

    pub fn size(&self) -> u64 {
        self.lock().histories[0].leaves.len() as u64
    }

    /// Adds a leaf that no client asked for.
    pub fn add_leaf(&self, seed: u8) {
        let payload = [seed; 8];
        let entry = Entry::unsigned(&payload, Micros::new(1)).encode();
        self.lock().histories[0].push(entry);
        self.heads.send_modify(|changes| *changes += 1);
    }

    /// Makes watches look at the head again.
    pub fn tell_watches(&self) {
        self.heads.send_modify(|changes| *changes += 1);
    }

    /// Takes over the entries of another server, as a copy does.
    pub fn follow(&self, other: &Self) {
        let history = other.lock().histories[0].clone();
        self.lock().histories[0] = history;
        self.tell_watches();
    }

    /// Refuses a read that asks for more leaves than there are.
    fn grown(&self, min_size: u64) -> Result<(), Status> {
        let size = self.size();
        let script = &mut self.lock().script;
        let behind = match script.lag {
            Lag::None => size < min_size,
            Lag::Ignored => false,
            Lag::Always | Lag::AllButProofs => min_size > 0,
            Lag::Everything => true,
            Lag::Down => return Err(Status::unavailable("down")),
        };
        if !behind {
            return Ok(());
        }
        script.behinds += 1;
        let size = [("tree_size".to_owned(), size.to_string())];
        let mut details = ErrorDetails::with_error_info("BEHIND", "deed.v1", size);
        details.set_retry_info(Some(Duration::from_millis(1)));
        let code = Code::Unavailable;
        Err(Status::with_error_details(
            code,
            "the ledger is behind",
            details,
        ))
    }

    /// Waits for ever if the fake says nothing.
    async fn speak(&self) {
        let silent = self.lock().script.lie == Lie::Silence;
        if silent {
            std::future::pending::<()>().await;
        }
    }

    fn origin(&self) -> Origin {
        self.origin.clone()
    }

    pub fn name(&self) -> &str {
        self.origin.as_str().rsplit_once('/').unwrap().1
    }

    fn checkpoint(&self, leaves: &[Hash], lie: Lie) -> Bytes {
        let size = leaves.len() as u64;
        let mut seeds = vec![self.seed];
        for (leaf, seed) in self.rotations.lock().unwrap().iter() {
            if *leaf + 1 == size && lie != Lie::NoHandover {
                seeds.insert(0, *seed);
            } else if *leaf < size {
                seeds = vec![*seed];
            }
        }
        match lie {
            Lie::Signature => seeds = vec![[9; 32]],
            Lie::Retired => seeds = vec![self.seed],
            _ => {}
        }
        let head = TreeHead::new(TreeSize::new(size), merkle::root(leaves));
        let checkpoint = Checkpoint::new(self.origin(), head);
        let sign = |seed| {
            let signer = NoteSigner::from_seed(self.origin(), seed);
            checkpoint.sign(&signer).unwrap()
        };
        let mut note = sign(&seeds[0]);
        for seed in &seeds[1..] {
            let other = sign(seed).signatures()[0].clone();
            note.push_signature(other).unwrap();
        }
        note.to_string().into()
    }

    /// Answers as the next whim is.
    fn respond(&self, request: &v1::AppendRequest) -> Result<v1::AppendResponse, Status> {
        let whim = {
            let script = &mut self.lock().script;
            for envelope in &request.envelopes {
                let Ok(header) = statement::parse(&envelope.payload) else {
                    continue;
                };
                let place = (header.session, header.sequence.get());
                let first = script.said.entry(place);
                if *first.or_insert_with(|| envelope.payload.clone()) != envelope.payload {
                    script.said_otherwise.push(place.1);
                }
            }
            script.whims.pop_front().unwrap_or(Whim::Fair)
        };
        match whim {
            Whim::Fair => Ok(self.answer(request)),
            Whim::Lose { record, code } => {
                if record {
                    self.answer(request);
                }
                Err(Status::new(code, "not today"))
            }
            Whim::Refuse { record, expected } => {
                if record {
                    self.answer(request);
                }
                let leaves = &self.lock().histories[0].leaves;
                let results = request.envelopes.iter().map(|_| v1::AppendResult {
                    result: Some(refused(expected)),
                });
                Ok(v1::AppendResponse {
                    checkpoint: self.checkpoint(leaves, Lie::None),
                    witnessed_size: 0,
                    results: results.collect(),
                    consistency: consistency_to(request.consistency_from, leaves, Lie::None),
                })
            }
        }
    }

    fn answer(&self, request: &v1::AppendRequest) -> v1::AppendResponse {
        let mut state = self.lock();
        let State {
            histories, script, ..
        } = &mut *state;
        script.requests += 1;
        script.bases.push(request.consistency_from);
        let batched = is_manifest(&request.envelopes[0]);
        let first = &request.envelopes[usize::from(batched)].payload;
        let first = statement::parse(first).unwrap();
        script.sequences.push(first.sequence.get());
        let which = if script.two_histories {
            history_of(request, script.requests)
        } else {
            0
        };
        let history = &mut histories[which];
        let before = history.leaves.len();
        let forget = !script.forget.is_empty() && script.forget.remove(0);
        let (lie, mut results) = (script.lie, Vec::new());
        if batched {
            results.push(history.append_manifest(&request.envelopes, lie));
        }
        let statements = request.envelopes.iter().skip(usize::from(batched));
        results.extend(statements.map(|envelope| {
            let header = statement::parse(&envelope.payload).unwrap();
            if script.unwanted.contains(&header.sequence.get()) {
                return unwanted();
            }
            history.append(
                envelope,
                batched,
                forget || script.forget_always,
                script.two_histories,
                lie,
            )
        }));
        if script.two_histories {
            history.fill_up(which);
        }
        let covered = match lie {
            Lie::StaleHead => &history.leaves[..before],
            _ => &history.leaves[..],
        };
        let mut results = results
            .into_iter()
            .map(|item| history.result(item, request.with_proofs, lie))
            .map(|result| history.assess(result, script.assessed.as_ref()))
            .collect::<Vec<_>>();
        if lie == Lie::Results {
            results.pop();
        }
        self.recorded.send_modify(|recorded| *recorded += 1);
        self.heads.send_modify(|changes| *changes += 1);
        v1::AppendResponse {
            checkpoint: self.checkpoint(covered, lie),
            witnessed_size: 0,
            results,
            consistency: consistency_to(request.consistency_from, covered, lie),
        }
    }

    fn info(&self) -> v1::LedgerInfo {
        let state = self.lock();
        let (history, lie) = (&state.histories[0], state.script.lie);
        let mut genesis_entry = history.entries[0].clone();
        if lie == Lie::Genesis {
            let (mut genesis, _) = Genesis::from_entry(&genesis_entry).unwrap();
            genesis.nonce = [4; 32];
            genesis_entry = genesis.to_entry().unwrap();
        }
        let newest = self.rotations.lock().unwrap().last().copied();
        let seed = match lie {
            Lie::Vkey => [9; 32],
            _ => newest.map_or(self.seed, |(_, seed)| seed),
        };
        let ledger_id = if lie == Lie::LedgerId {
            Hash::new([1; 32])
        } else {
            leaf_hash(&genesis_entry)
        };
        v1::LedgerInfo {
            name: self.name().to_owned(),
            origin: self.origin().to_string(),
            vkey: NoteSigner::from_seed(self.origin(), &seed)
                .verifier_key()
                .to_string(),
            ledger_id: Bytes::copy_from_slice(ledger_id.as_bytes()),
            size: history.leaves.len() as u64,
            root: Bytes::copy_from_slice(merkle::root(&history.leaves).as_bytes()),
            genesis_entry,
            next_log_key: String::new(),
        }
    }

    fn head(&self, consistency_from: Option<u64>) -> Result<v1::TreeHeadResponse, Status> {
        let state = self.lock();
        let (history, lie) = (&state.histories[0], state.script.lie);
        let mut shown = &history.leaves[..];
        if lie == Lie::OldHead {
            shown = &shown[..shown.len() - 1];
        } else if consistency_from.is_some_and(|from| from > shown.len() as u64) {
            return Err(Status::out_of_range("beyond the tree"));
        }
        Ok(v1::TreeHeadResponse {
            checkpoint: self.checkpoint(shown, lie),
            witnessed_size: 0,
            consistency: consistency_to(consistency_from, shown, lie),
        })
    }
}

pub fn authority() -> [u8; 32] {
    *authority_key().public_key().as_bytes()
}

pub fn authority_key() -> SigningKey {
    SigningKey::from_seed(&[8; 32])
}

/// Fast retries; heads are settled by `flush` alone, so that tests decide when.
pub fn options(url: &str) -> Options {
    options_of(url, NAME)
}

fn options_of(url: &str, name: &str) -> Options {
    Options::new(url, name)
        .link_interval_ms(u64::MAX)
        .retry(RetryPolicy {
            initial_ms: 1,
            pause_ms_max: 4,
            attempts_max: 8,
            total_ms_max: 60_000,
        })
}
