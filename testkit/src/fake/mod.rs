//! A server that keeps its ledger in memory and tells exactly the lies it is asked for.

mod actions;
mod evidence;
mod history;
mod service;
mod whims;

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use deed_client::{Ledger, Options, RetryPolicy, StateDir};
use deed_evidence::{Micros, SessionId, entry::Entry, genesis::Genesis, statement};
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

pub use self::whims::any_whims;

pub const NAME: &str = "test";

/// The answers to reads that ask for a tree of at least some size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lag {
    /// It says that it is behind if its tree is smaller, without having waited.
    #[default]
    None,
    /// It knows no `min_size`.
    Ignored,
    /// It says that it is behind, however large its tree is.
    Always,
    /// The same, to reads that ask for no size too.
    Everything,
    /// The same, but proofs of consistency are given: copies of different age stand behind one address.
    AllButProofs,
    /// All reads fail.
    Down,
}

/// What a fake does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lie {
    #[default]
    None,
    /// Receipts name another leaf hash.
    LeafHash,
    /// Receipts name a leaf beyond the tree.
    LeafBeyond,
    /// Inclusion proofs have one hash changed.
    Inclusion,
    /// Inclusion proofs are left out.
    NoInclusion,
    /// Consistency proofs have one hash changed.
    Consistency,
    /// Consistency proofs are left out.
    NoConsistency,
    /// Heads are signed by another key of the same name.
    Signature,
    /// The head that hands over to another log key is signed with the new key alone.
    NoHandover,
    /// Nothing is told of log keys.
    NoLogKeys,
    /// All heads are signed with the first log key.
    Retired,
    /// LedgerInfo names another log key.
    Vkey,
    /// LedgerInfo names another ledger id.
    LedgerId,
    /// LedgerInfo's genesis entry is not leaf 0.
    Genesis,
    /// One result too few.
    Results,
    /// Answers to appends carry the head before them.
    StaleHead,
    /// Entries have their last byte changed.
    Entry,
    /// The newest head is the one before the last leaf, whatever the client knows.
    OldHead,
    /// Consistency proofs are refused, with INTERNAL.
    NoConsistencyRpc,
    /// No rpc is answered; streams are opened and stay empty.
    Silence,
    /// Watches are refused as being of a head beyond the tree.
    WatchOutOfRange,
    /// Watches end after their first head.
    ShortWatch,
    /// Trust statements link to the genesis entry, whatever came between.
    PreviousTrust,
    /// Receipts of trust statements name another link than their entry has.
    ReceiptTrust,
    /// The trust chain lacks its second entry.
    TrustOmitted,
    /// The trust chain begins with its second entry.
    TrustWithoutGenesis,
    /// A leaf stands between a batch manifest and its statements.
    Spliced,
    /// Batch proofs name the leaf after the manifest.
    ManifestIndex,
    /// Batch proofs have one hash of the path changed.
    BatchPath,
    /// Sessions are said to be one statement longer.
    SessionEnd,
    /// Contents have one byte changed.
    ContentByte,
    /// Contents lack their last byte.
    ContentShort,
    /// Contents have a byte too many.
    ContentLong,
    /// Contents come with another salt.
    ContentSalt,
    /// Contents are said to be erased by the genesis entry.
    ErasureLeaf,
    /// Stories of tasks are for others to read.
    MayNotRead,
    /// Receipts have another digest.
    ReceiptDigest,
    /// Receipts are left out of a task's story, which is made to fit.
    ReceiptHidden,
    /// A task's digest is another one.
    TaskDigest,
    /// A task is said to have 530,000 entries, and its story tells none of them.
    TaskLong,
    /// A task's second entry is left out of its story.
    TaskOmitted,
    /// The same, and number and digest are made to fit.
    TaskRewritten,
    /// A task's acts point to its first entry.
    TaskPointer,
    /// The receipt that was asked for is the task's first entry.
    OtherReceipt,
    /// Everything is found, whatever was searched for.
    SearchOther,
    /// All findings are told, whichever were asked for.
    FindingsOther,
}

/// The fate of one append request, whatever is true.
#[derive(Debug, Clone, Copy)]
pub enum Whim {
    Fair,
    /// Everything in it is said to be refused, and this sequence to be wanted.
    Refuse {
        record: bool,
        expected: Option<u64>,
    },
    /// This status is all that comes.
    Lose {
        record: bool,
        code: Code,
    },
}

/// What a fake does, and what it saw.
#[derive(Default)]
pub struct Script {
    pub lie: Lie,
    /// The next streams are refused with RESOURCE_EXHAUSTED and this delay.
    pub exhausted: Vec<Duration>,
    /// The next requests (counted from now) that are refused item by item as not being the next.
    pub forget: Vec<bool>,
    /// Every request is refused like that.
    pub forget_always: bool,
    /// Two histories: each request is answered from the one that its base belongs to.
    pub two_histories: bool,
    /// Sequences that are rejected for good.
    pub unwanted: Vec<u64>,
    /// Erasures are refused with PERMISSION_DENIED and this message.
    pub erasure_refused: Option<&'static str>,
    /// What is said of each Intent that is recorded.
    pub assessed: Option<v1::Assessed>,
    /// Where every Intent stands, one after the other.
    pub standings: Vec<v1::ClearanceResponse>,
    /// Acts that are told in place of those that follow from the entries.
    pub acts: Vec<v1::ActInfo>,
    /// The answers to reads that name a `min_size`.
    pub lag: Lag,
    /// Reads that were told that the ledger is behind.
    pub behinds: u32,
    /// Leaves that are left out of a task's story, which is made to fit.
    pub hidden: Vec<u64>,
    /// Trust statements that the trust chain leaves out.
    pub hidden_trust: Vec<u64>,
    /// The trust chain is that of the tree of so many leaves.
    pub trust_size: Option<usize>,
    /// No findings are told.
    pub no_findings: bool,
    /// The next streams of the service for acts that break after their first message.
    pub cuts: u32,
    /// Clearances asked for.
    pub clearances: u32,
    pub streams: u32,
    /// Watches opened.
    pub watches: u32,
    /// Consistency proofs asked for, and how many of these at the same time.
    pub proofs: u32,
    pub proofs_now: u32,
    pub proofs_at_once: u32,
    /// How long a consistency proof takes.
    pub proof_delay: Duration,
    pub requests: u32,
    /// consistency_from of each append request.
    pub bases: Vec<Option<u64>>,
    /// The sequence of the first statement of each append request.
    pub sequences: Vec<u64>,
    /// The fates of the next append requests.
    pub whims: VecDeque<Whim>,
    /// Sessions are said to be no longer than this.
    pub session_length: Option<usize>,
    /// The first statement that was sent for each place in a session, recorded or not.
    pub said: HashMap<(SessionId, u64), Bytes>,
    /// Places for which something else was sent later.
    pub said_otherwise: Vec<u64>,
}

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
