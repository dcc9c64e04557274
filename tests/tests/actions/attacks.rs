//! Attacks on the ledger's gates that need a network: concurrent requests, replays, order within a
//! batch, kill -9.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use deed_evidence::{
    LedgerId, PayloadDigest,
    assess::cells::{self, CellKey},
    assess::{Assessed, IntentVerdict},
    entry::Entry,
    replay::Replay,
    statement,
};
use deed_proto::v1::{
    self, FindingKind, IntentState, KeyRole, LayerState, Verdict, append_result, rejection::Reason,
    statement::Body,
};
use deed_tests::{
    keys::{AUTHORITY, Authority, authority, batch, key, registration_as, signed},
    oracle::Log,
    random::Random,
    rpc::{Clients, TestLedger, accepted, hash},
    run, run_within,
    statements::Producer,
    until, within,
};
use deed_tlog::{Hash, SigningKey};
use prost::Message as _;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    AGENT, APPROVER, Announced, BANK, ENGINE, LOW, Scene, TASK, Voice, agent_key, approval,
    committed, decision, gates::replays, grant, now, payment, refunded,
};

/// Producers that write at the same time.
const PRODUCERS: u64 = 8;

/// The assessments in receipts, by leaf.
#[derive(Debug, Clone, PartialEq)]
struct Verdicts(BTreeMap<u64, v1::Assessed>);

/// Returns an assessment as the protocol's message.
fn message(assessed: &Assessed) -> v1::Assessed {
    let IntentVerdict {
        state,
        missing,
        denied,
    } = assessed.intent.clone().unwrap_or_default();
    v1::Assessed {
        intent: state.into(),
        missing,
        denied,
        findings: assessed.findings.clone(),
    }
}

impl Verdicts {
    /// Returns the assessments that follow from the entries.
    fn replayed(log: &Log) -> Self {
        let mut entries = (0..).zip(&log.entries);
        let (_, genesis) = entries.next().expect("a genesis entry");
        let mut replay = Replay::begin(genesis).expect("a genesis entry");
        let mut verdicts = BTreeMap::new();
        for (leaf, entry) in entries {
            let assessed = replay.leaf(leaf, entry).expect("an entry in place");
            let said = assessed.filter(|it| it.intent.is_some() || !it.findings.is_empty());
            if let Some(said) = said {
                verdicts.insert(leaf, message(&said));
            }
        }
        replay.end().expect("nothing is missing");
        Self(verdicts)
    }

    /// Checks that receipts said exactly this. Leaves of `told` that are missing here must have got
    /// no assessment.
    #[track_caller]
    fn expect(&self, told: &BTreeMap<u64, Option<v1::Assessed>>) {
        for (leaf, said) in told {
            assert_eq!(said.as_ref(), self.0.get(leaf), "leaf {leaf}");
        }
    }
}

/// Returns the Intents of a log, with their grant's hash and amount.
fn intents(log: &Log) -> Vec<(u64, v1::Intent)> {
    let mut found = Vec::new();
    for (leaf, bytes) in (0..).zip(&log.entries) {
        let entry = Entry::parse(bytes).expect("an entry");
        if entry.payload_type != v1::PayloadType::Statement {
            continue;
        }
        let said = statement::decode(&bytes.slice_ref(entry.payload)).expect("a statement");
        if let Some(Body::Intent(intent)) = said.body {
            found.push((leaf, intent));
        }
    }
    found
}

/// Sends the requests of one of the concurrent producers on a stream, as fast as answers come.
async fn hammer(
    url: String,
    ledger: TestLedger,
    mut voice: Voice,
    grants: Vec<Bytes>,
    mut random: Random,
) -> BTreeMap<u64, Option<v1::Assessed>> {
    const REQUESTS: usize = 25;
    let clients = Clients::open(&url).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let sending = async {
        for _ in 0..REQUESTS {
            let count = random.between(1, 8);
            let made: Vec<_> = (0..count)
                .map(|_| {
                    let which = random.between(0, grants.len() as u64 - 1);
                    let cents = i64::try_from(random.between(1, 60)).unwrap();
                    let grant = &grants[usize::try_from(which).unwrap()];
                    voice
                        .producer
                        .make_in(LOW, Body::Intent(payment(grant, cents)))
                })
                .collect();
            let envelopes = if random.once_in(2) {
                batch(&made, &voice.key)
            } else {
                made.iter().map(|one| signed(one, &voice.key)).collect()
            };
            let request = v1::AppendRequest {
                envelopes,
                ..ledger.request(&[])
            };
            sender.send(request).await.expect("the stream is open");
        }
        drop(sender);
    };
    let taking = async {
        let stream = clients.append_stream(ReceiverStream::new(receiver)).await;
        let mut answers = stream.expect("a stream");
        let mut told = BTreeMap::new();
        while let Some(answer) = within("an answer", answers.message())
            .await
            .expect("no failure")
        {
            for result in &answer.results {
                let receipt = accepted(result);
                told.insert(receipt.leaf_index, receipt.assessed);
            }
        }
        told
    };
    tokio::join!(sending, taking).1
}

#[test]
fn eight_streams_together_spend_what_was_granted_and_no_more() {
    const USES: u64 = 100;
    const CENTS: i64 = 5_000;
    const SHARED: u64 = 40;
    run(async {
        let mut random = Random::seeded();
        let mut scene = Scene::set().await;
        let by_uses = scene.grant(LOW, USES, Some(1_000_000)).await;
        let by_amount = scene.grant(LOW, 0, Some(CENTS)).await;
        // This grant is delegated twice: the two children share what the parent has.
        let parent = scene.grant(LOW, SHARED, None).await;
        let mut helpers = Vec::new();
        for number in [20_u8, 21] {
            let name = format!("spiffe://shop.example/helper/{number}");
            let controller = "https://shop.example/support";
            let (id, helper) = (scene.ledger.id, key(number));
            let registered = registration_as(id, &helper, KeyRole::Agent, &name, controller);
            let said = scene.authority.says(Body::KeyRegistered(registered));
            scene.record(said).await;
            let Body::Grant(whole) = grant(SHARED, None) else {
                unreachable!("it is a grant");
            };
            let child = v1::Grant {
                subject: name.clone(),
                parent: parent.clone(),
                expires_us: whole.expires_us - 60_000_000,
                ..whole
            };
            let said = scene.agent.says_in(LOW, Body::Grant(child));
            let child = scene.record(said).await.leaf_hash;
            let mut voice = Voice {
                producer: Producer::new(id, number.into()).named(&name),
                key: helper,
            };
            let accepts = v1::GrantAccepted {
                grant: child.clone(),
            };
            let said = voice.says_in(LOW, Body::GrantAccepted(accepts));
            scene.record(said).await;
            helpers.push((voice, vec![child]));
        }
        let agents = (0..PRODUCERS - 2).map(|_| {
            let grants = vec![by_uses.clone(), by_amount.clone()];
            (scene.agent_session(), grants)
        });
        let everybody: Vec<_> = agents.chain(helpers).collect();
        let children: Vec<_> = everybody
            .iter()
            .skip(6)
            .map(|(_, of)| of[0].clone())
            .collect();
        let url = scene.server().url();
        let hammering: Vec<_> = everybody
            .into_iter()
            .map(|(voice, grants)| {
                let (url, ledger, random) = (url.clone(), scene.ledger.clone(), random.fork());
                tokio::spawn(hammer(url, ledger, voice, grants, random))
            })
            .collect();
        let mut told = BTreeMap::new();
        for one in hammering {
            told.extend(one.await.expect("a producer without a failure"));
        }

        let log = Log::read(&scene.clients, &scene.ledger).await;
        let cleared = |leaf: &u64| match told.get(leaf) {
            Some(Some(said)) => said.intent() == IntentState::Cleared,
            other => panic!("leaf {leaf} was told {other:?}"),
        };
        // The log's order alone decides: an Intent that still fits is cleared, one that does not is
        // denied.
        let (mut uses, mut spent, mut shared) = (0, 0, 0);
        for (leaf, intent) in intents(&log) {
            let cents = intent.amount.as_ref().unwrap().minor_units;
            let fits = if intent.grant == by_uses {
                uses += 1;
                uses <= USES
            } else if intent.grant == by_amount {
                let fits = spent + cents <= CENTS;
                spent += if fits { cents } else { 0 };
                fits
            } else {
                assert!(children.contains(&intent.grant));
                shared += 1;
                shared <= SHARED
            };
            assert_eq!(cleared(&leaf), fits, "leaf {leaf}: {intent:?}");
        }
        assert!(uses > USES && shared > SHARED, "{uses} and {shared} wanted");
        assert!(spent <= CENTS && spent > CENTS - 60, "{spent} spent");
        Verdicts::replayed(&log).expect(&told);
        replays(&scene).await;
        eprintln!("{uses} uses wanted, {spent} cents spent, {shared} wanted of the shared grant");
        scene.ends_clean();
    });
}

#[test]
fn a_grant_is_good_in_its_own_ledger_alone() {
    run(async {
        let mut scene = Scene::set().await;
        let other = TestLedger::create(&scene.clients, "other").await;
        let said = scene.authority.says_in(LOW, grant(5, None));
        let granted = scene.record(said.clone()).await;
        // The other ledger has the same people, keys and task.
        let mut authority = Authority::new(other.id, 901);
        let controller = "https://shop.example/support";
        let registered = registration_as(other.id, &agent_key(), KeyRole::Agent, AGENT, controller);
        let set = authority.says(Body::KeyRegistered(registered));
        let policies = authority.says(Body::PolicySet(crate::shipped_policies()));
        let opened = authority.says_in(
            LOW,
            Body::TaskOpened(v1::TaskOpened {
                requested_by: "ticket:4711".to_owned(),
                risk_tier: v1::RiskTier::Low.into(),
                ..v1::TaskOpened::default()
            }),
        );
        let send = async |envelopes: Vec<v1::Envelope>| {
            let request = v1::AppendRequest {
                envelopes,
                ..other.request(&[])
            };
            let answer = within("an answer", scene.clients.append(request)).await;
            answer.expect("an answer").results
        };
        for result in send(vec![set, policies, opened]).await {
            accepted(&result);
        }
        // The statement itself is sent again.
        let replayed = send(vec![said]).await;
        let rejection = deed_tests::rpc::rejected(&replayed[0]);
        assert_eq!(rejection.reason(), Reason::WrongLedger, "{rejection:?}");
        // The name of its session is used.
        let mut agent = Voice {
            producer: Producer::new(other.id, 5).named(AGENT),
            key: agent_key(),
        };
        let named = agent.says_in(LOW, Body::Intent(payment(&granted.leaf_hash, 1)));
        let receipt = accepted(&send(vec![named]).await[0]);
        let assessed = receipt.assessed.expect("what is said of it");
        assert_eq!(assessed.intent(), IntentState::Denied, "{assessed:?}");
        assert_eq!(assessed.findings[0].kind(), FindingKind::UnknownGrant);
        // The control: the statement is cleared in its own ledger.
        let here = scene.announce(LOW, payment(&granted.leaf_hash, 1)).await;
        here.expect(IntentState::Cleared, &[]);
        scene.ends_clean();
    });
}

#[test]
fn no_clearance_comes_between_the_statements_of_a_batch() {
    run(async {
        let mut scene = Scene::set().await;
        let grant = scene.grant(TASK, 5, Some(10_000)).await;

        // In one request, each statement signed by itself, the Clearance is recorded between them,
        // as it should be.
        let intent = scene.intends(&grant).await;
        scene.decides(&intent, Verdict::Allow).await;
        let both = vec![
            scene.approver.says(approval(&intent, Verdict::Allow)),
            scene.agent.says(intent.outcome()),
        ];
        let answer = scene.send(both).await;
        let receipts: Vec<_> = answer.results.iter().map(accepted).collect();
        assert_eq!(receipts[1].leaf_index, receipts[0].leaf_index + 2);
        assert!(
            receipts.iter().all(|it| it.assessed.is_none()),
            "{receipts:?}"
        );

        // In one batch nothing is recorded between them: the approver's Outcome counts for nothing, and
        // the Clearance comes behind it.
        let intent = scene.intends(&grant).await;
        scene.decides(&intent, Verdict::Allow).await;
        let statements = [
            scene
                .approver
                .producer
                .make(approval(&intent, Verdict::Allow)),
            scene.approver.producer.make(intent.outcome()),
        ];
        let answer = scene
            .send(batch(&statements, &scene.approver.key.clone()))
            .await;
        let receipts: Vec<_> = answer.results.iter().map(accepted).collect();
        let said = receipts[2]
            .assessed
            .as_ref()
            .expect("what is said of the Outcome");
        let kinds: Vec<_> = said.findings.iter().map(v1::Finding::kind).collect();
        assert_eq!(kinds, [FindingKind::WrongRole], "{said:?}");
        let acts = scene.acts(TASK).await;
        let [good, bad] = &acts[..] else {
            panic!("two acts: {acts:?}");
        };
        assert_eq!(good.state(), IntentState::Completed, "{good:?}");
        assert!(good.clearance_leaf.is_some());
        assert_eq!(bad.state(), IntentState::Cleared, "{bad:?}");
        assert_eq!(
            bad.clearance_leaf,
            Some(receipts[2].leaf_index + 1),
            "{bad:?}"
        );
        assert_eq!(bad.outcome_leaf, None, "{bad:?}");
        let layers = bad.layers.as_ref().unwrap();
        assert_eq!(layers.result(), LayerState::Missing, "{layers:?}");
        let layers = good.layers.as_ref().unwrap();
        assert_eq!(layers.intent(), LayerState::Proven, "{layers:?}");
        replays(&scene).await;
        scene.ends_clean();
    });
}

/// Returns the tasks of a log's statements.
fn tasks_of(log: &Log) -> BTreeSet<[u8; 16]> {
    let entries = log.entries.iter();
    let headers = entries.filter_map(|bytes| Entry::parse(bytes).ok()?.statement().ok()?.task);
    headers.map(|task| *task.as_bytes()).collect()
}

/// The acknowledged facts of a leaf: its hash, its payload's digest, and its assessment if that is
/// known.
type Acknowledged = (Hash, PayloadDigest, Option<Option<v1::Assessed>>);

/// Everything that producers were told until now, and their progress.
#[derive(Debug, Default)]
struct Told {
    stop: AtomicBool,
    stories: AtomicU64,
    /// The acknowledged facts by leaf. A duplicate's receipt has no assessment.
    receipts: Mutex<HashMap<u64, Acknowledged>>,
}

/// A producer that makes whole acts, again and again, and sends the same bytes until there is an
/// answer.
struct Player {
    url: String,
    ledger: TestLedger,
    clients: Clients,
    random: Random,
    told: Arc<Told>,
    agent: Voice,
    approver: Voice,
    engine: Voice,
    bank: Voice,
    /// The authority's session for this player.
    authority: Voice,
    task: [u8; 16],
    grant: Bytes,
}

impl Player {
    async fn send(&mut self, envelopes: Vec<v1::Envelope>) -> Vec<v1::Receipt> {
        let request = v1::AppendRequest {
            envelopes: envelopes.clone(),
            ..self.ledger.request(&[])
        };
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let answer = loop {
            let sent = self.clients.append(request.clone());
            if let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_secs(20), sent).await {
                break answer;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "no answer in the end"
            );
            self.clients = Clients::open(&self.url).await;
        };
        let mut receipts = Vec::new();
        let mut told = self.told.receipts.lock().unwrap();
        for (result, envelope) in answer.results.iter().zip(&envelopes) {
            let (receipt, said) = match &result.result {
                Some(append_result::Result::Accepted(it)) => (it, Some(it.assessed.clone())),
                Some(append_result::Result::Duplicate(it)) => (it, None),
                other => panic!("rejected: {other:?}"),
            };
            let digest = PayloadDigest::of(&envelope.payload);
            told.insert(receipt.leaf_index, (hash(&receipt.leaf_hash), digest, said));
            receipts.push(receipt.clone());
        }
        receipts
    }

    /// Begins a task of its own, with a grant that is soon used up. The task before is closed, or
    /// ends by its deadline while others write.
    async fn begin(&mut self, number: u8) {
        let mut envelopes = Vec::new();
        if number > 0 && self.random.once_in(2) {
            let closed = Body::TaskClosed(v1::TaskClosed {
                end: v1::TaskEnd::Completed.into(),
                reason: String::new(),
            });
            envelopes.push(self.authority.says_in(self.task, closed));
        }
        self.task[15] = number;
        let deadline_us = match self.random.between(0, 2) {
            0 => 0,
            _ => now() + i64::try_from(self.random.between(1, 600_000)).unwrap(),
        };
        let opened = Body::TaskOpened(v1::TaskOpened {
            requested_by: "ticket:4711".to_owned(),
            risk_tier: v1::RiskTier::Payment.into(),
            deadline_us,
            ..v1::TaskOpened::default()
        });
        envelopes.push(self.authority.says_in(self.task, opened));
        envelopes.push(self.authority.says_in(self.task, grant(4, Some(100_000))));
        let receipts = self.send(envelopes).await;
        self.grant = receipts.last().expect("the grant's").leaf_hash.clone();
    }

    /// Makes an act with some or all of the evidence that it needs.
    async fn act(&mut self) {
        let deadline_us = match self.random.between(0, 2) {
            0 => now() + i64::try_from(self.random.between(1, 400_000)).unwrap(),
            _ => 0,
        };
        let session = self.agent.producer.session();
        let sequence = self.agent.producer.next_sequence();
        let intent = v1::Intent {
            deadline_us,
            ..payment(&self.grant, 1999)
        };
        let task = self.task;
        let said = self.agent.says_in(task, Body::Intent(intent));
        let digest = PayloadDigest::of(&said.payload);
        let receipt = self.send(vec![said]).await.remove(0);
        let announced = Announced {
            leaf: v1::LeafRef {
                leaf_index: receipt.leaf_index,
                leaf_hash: receipt.leaf_hash,
            },
            assessed: v1::Assessed::default(),
            reference: v1::StatementRef {
                session,
                sequence,
                payload_digest: Bytes::copy_from_slice(digest.as_bytes()),
            },
            arguments: Some(committed(1)),
        };
        let mut envelopes = Vec::new();
        if !self.random.once_in(5) {
            envelopes.push(
                self.engine
                    .says_in(task, decision(&announced, Verdict::Allow)),
            );
        }
        let verdict = if self.random.once_in(6) {
            Verdict::Deny
        } else {
            Verdict::Allow
        };
        envelopes.push(self.approver.says_in(task, approval(&announced, verdict)));
        if !self.random.once_in(4) {
            envelopes.push(self.agent.says_in(task, announced.outcome()));
        }
        if self.random.once_in(2) {
            let observation = Body::Observation(v1::Observation {
                intent: Some(announced.leaf.clone()),
                effects: vec![refunded()],
                ..v1::Observation::default()
            });
            envelopes.push(self.bank.says_in(task, observation));
        }
        self.send(envelopes).await;
        self.told.stories.fetch_add(1, Relaxed);
    }

    async fn play(mut self) {
        for number in 0..=u8::MAX {
            self.begin(number).await;
            for _ in 0..self.random.between(1, 8) {
                if self.told.stop.load(Relaxed) {
                    return;
                }
                self.act().await;
            }
        }
    }
}

/// Returns the id of a player's task of this number.
fn task_of(player: u64, number: u8) -> [u8; 16] {
    let mut task = [0x44; 16];
    task[7..15].copy_from_slice(&player.to_be_bytes());
    task[15] = number;
    task
}

fn voice(ledger: LedgerId, session: u64, name: &str, key: SigningKey) -> Voice {
    Voice {
        producer: Producer::new(ledger, session).named(name),
        key,
    }
}

#[test]
fn nothing_that_was_said_of_an_act_is_lost_by_kill_9() {
    const KILLS: u64 = 5;
    run_within(Duration::from_secs(360), async {
        let mut random = Random::seeded();
        let mut scene = Scene::set().await;
        let told = Arc::new(Told::default());
        let players: Vec<_> = (0..PRODUCERS)
            .map(|number| {
                let session = 2000 + 10 * number;
                let id = scene.ledger.id;
                let player = Player {
                    url: scene.server().url(),
                    ledger: scene.ledger.clone(),
                    clients: scene.clients.clone(),
                    random: random.fork(),
                    told: Arc::clone(&told),
                    agent: voice(id, session, AGENT, agent_key()),
                    approver: voice(id, session + 1, APPROVER, key(11)),
                    engine: voice(id, session + 2, ENGINE, key(12)),
                    bank: voice(id, session + 3, BANK, key(13)),
                    authority: voice(id, session + 4, AUTHORITY, authority()),
                    task: task_of(number, 0),
                    grant: Bytes::new(),
                };
                tokio::spawn(player.play())
            })
            .collect();
        for _ in 0..KILLS {
            let before = told.stories.load(Relaxed);
            until("some acts", || async {
                (told.stories.load(Relaxed) > before + PRODUCERS).then_some(())
            })
            .await;
            // This is not a wait for an event: it is the time until the kill.
            tokio::time::sleep(Duration::from_millis(random.between(0, 200))).await;
            let address = scene.kill();
            scene.restart(address).await;
            assert!(
                players.iter().all(|it| !it.is_finished()),
                "a player gave up"
            );
        }
        told.stop.store(true, Relaxed);
        for player in players {
            within("the end of a player", player)
                .await
                .expect("no failure");
        }
        // The server is killed once more, so that all answers come from the disk.
        let address = scene.kill();
        scene.restart(address).await;

        let log = Log::read(&scene.clients, &scene.ledger).await;
        let receipts = std::mem::take(&mut *told.receipts.lock().unwrap());
        let mut verdicts = BTreeMap::new();
        for (leaf, (leaf_hash, digest, said)) in receipts {
            let at = usize::try_from(leaf).unwrap();
            assert_eq!(
                log.leaf_hashes.get(at),
                Some(&leaf_hash),
                "leaf {leaf} is not there"
            );
            let entry = Entry::parse(&log.entries[at]).unwrap();
            assert_eq!(PayloadDigest::of(entry.payload), digest, "leaf {leaf}");
            if let Some(said) = said {
                verdicts.insert(leaf, said);
            }
        }
        let replayed = Verdicts::replayed(&log);
        replayed.expect(&verdicts);
        let replay = replays(&scene).await;
        // The states of all acts agree, too.
        let summary = replay.summary();
        let mut states: BTreeMap<String, u64> = BTreeMap::new();
        let mut acts = Vec::new();
        for task in tasks_of(&log) {
            acts.extend(scene.acts_of(task).await);
        }
        for act in acts {
            let name = act.state().as_str_name();
            let name = name
                .trim_start_matches("INTENT_STATE_")
                .to_ascii_lowercase();
            *states.entry(name).or_default() += 1;
        }
        assert_eq!(states, summary.intents);
        assert!(!verdicts.is_empty(), "nothing was told");
        for body in ["clearance", "task_receipt"] {
            assert!(summary.entries.contains_key(body), "{:?}", summary.entries);
        }
        for (key, bytes) in &replay.kept().cells {
            if matches!(key, CellKey::Grant(_)) {
                let grant = cells::Grant::decode(bytes.clone()).unwrap();
                let within = grant.uses == 0 || grant.uses_spent <= grant.uses;
                assert!(within, "{grant:?}");
            }
        }
        eprintln!(
            "{} leaves, {} verdicts told, intents {states:?}, entries {:?}, findings {:?}",
            log.entries.len(),
            verdicts.len(),
            summary.entries,
            summary.findings
        );
        scene.ends_clean();
    });
}
