//! A server that is killed while producers make acts.

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
    entry::Entry,
};
use deed_proto::v1::{self, Verdict, append_result, statement::Body};
use deed_tests::{
    keys::{AUTHORITY, authority, key},
    oracle::Log,
    random::Random,
    rpc::{Clients, TestLedger, hash},
    run_within,
    statements::Producer,
    until, within,
};
use deed_tlog::{Hash, SigningKey};
use prost::Message as _;

use super::{PRODUCERS, Verdicts};
use crate::{
    AGENT, APPROVER, Announced, BANK, ENGINE, Scene, Voice, agent_key, approval, committed,
    decision, gates::replays, grant, now, payment, refunded,
};

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
