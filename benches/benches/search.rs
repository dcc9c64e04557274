//! Measures searches in a large ledger, over loopback, as a client sees them: from the request to
//! the end of the stream.
//!
//! `DEED_BENCH_STATEMENTS` is the number of statements (default: 150,000), `DEED_BENCH_DIR` the
//! directory of the store (default: one that is deleted afterwards; a directory with a full store
//! is searched as it is). Ten million statements take some minutes to write.

use std::{
    env, fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use deed_evidence::{LedgerId, Nonce, SessionId, TaskId, statement};
use deed_proto::v1::{
    self, FindingKind, actions_client::ActionsClient, append_result, ledger_client::LedgerClient,
    statement::Body,
};
use deed_server::{Server, ServerOptions, SystemClock};
use deed_tlog::Hash;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

const LEDGER: &str = "bench";

/// Statements of a request, and requests under way at once.
const BATCH: u64 = 1_000;
const REQUESTS: usize = 16;

/// A task: opened, then Intents each with its Outcome, then closed.
const TASK_STATEMENTS: u64 = 24;

const AGENTS: u64 = 200;
const ACTIONS: [&str; 8] = [
    "payments.refund",
    "payments.charge",
    "mail.send",
    "orders.cancel",
    "orders.change",
    "deploy.start",
    "tickets.close",
    "records.delete",
];

/// One statement in so many declares that the one before it is lost: a finding where the ledger is
/// assessed.
const GAP_EVERY: u64 = 100_000;

/// Number of times that each search is run.
const ROUNDS: u64 = 200;

/// Returns a number that looks random and is the same each time.
fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

fn id(kind: u8, number: u64) -> Bytes {
    let mut id = [kind; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    Bytes::copy_from_slice(&id)
}

fn agent(number: u64) -> String {
    format!("spiffe://example.org/agent/{}", number % AGENTS)
}

fn nonce(bytes: &Bytes) -> Nonce {
    Nonce::from_slice(bytes).expect("16 bytes")
}

/// Returns the id of a task, which the agent opens itself.
fn task_id(ledger_id: LedgerId, task: u64) -> Bytes {
    let id = TaskId::derive(ledger_id, &agent(task), &nonce(&id(2, task)));
    Bytes::copy_from_slice(id.as_bytes())
}

/// Returns the resource of an act. A few resources have many acts, and most have few.
fn resource(task: u64, act: u64) -> String {
    if act.is_multiple_of(4) {
        format!("customers/{}", mixed(task) % 5_000)
    } else {
        format!("orders/{}", mixed(task * 64 + act) % 2_000_000)
    }
}

fn correlation(task: u64) -> v1::CorrelationKey {
    v1::CorrelationKey {
        kind: "ticket".to_owned(),
        value: format!("T-{task}"),
    }
}

/// A session of an agent: every task belongs to one agent, and agents take turns.
struct Session {
    ledger_id: LedgerId,
    agent: u64,
    sequence: u64,
}

impl Session {
    /// Makes the agent's statement at `step` of a task.
    fn statement(&mut self, task: u64, step: u64) -> v1::Envelope {
        let act = step / 2;
        let action = ACTIONS[usize::try_from(mixed(task + act) % 8).expect("a small number")];
        let body = match step {
            0 => Body::TaskOpened(v1::TaskOpened {
                nonce: id(2, task),
                requested_by: "mailto:somebody@example.org".to_owned(),
                risk_tier: v1::RiskTier::Low.into(),
                ..v1::TaskOpened::default()
            }),
            _ if step == TASK_STATEMENTS - 1 => Body::TaskClosed(v1::TaskClosed {
                end: v1::TaskEnd::Completed.into(),
                reason: String::new(),
            }),
            _ if step % 2 == 1 => Body::Intent(v1::Intent {
                action: action.to_owned(),
                resource: resource(task, act),
                ..v1::Intent::default()
            }),
            _ => Body::Outcome(v1::Outcome {
                intent: Some(v1::StatementRef {
                    sequence: self.sequence.saturating_sub(1),
                    payload_digest: Bytes::from_static(&[7; 32]),
                    ..v1::StatementRef::default()
                }),
                status: v1::OutcomeStatus::Succeeded.into(),
                effects: vec![v1::Effect {
                    kind: "order.changed".to_owned(),
                    resource: resource(task, act - 1),
                    ..v1::Effect::default()
                }],
                ..v1::Outcome::default()
            }),
        };
        let lost = mixed(task * TASK_STATEMENTS + step).is_multiple_of(GAP_EVERY);
        let skipped_from = (lost && self.sequence > 0).then_some(self.sequence);
        self.sequence += u64::from(skipped_from.is_some());
        let producer = agent(self.agent);
        let session_nonce = id(1, self.agent);
        let session = SessionId::derive(self.ledger_id, &producer, &nonce(&session_nonce));
        let is_first = self.sequence == 0;
        let payload = statement::encode(&v1::Statement {
            ledger_id: Bytes::copy_from_slice(self.ledger_id.as_bytes()),
            producer,
            session: Bytes::copy_from_slice(session.as_bytes()),
            nonce: if is_first {
                session_nonce
            } else {
                Bytes::new()
            },
            sequence: self.sequence,
            skipped_from,
            occurred_at_us: 1_700_000_000_000_000,
            task: task_id(self.ledger_id, task),
            trace_id: id(3, task * 4 + step / 6),
            correlation_keys: vec![correlation(task)],
            body: Some(body),
            ..v1::Statement::default()
        });
        self.sequence += 1;
        v1::Envelope {
            payload_type: v1::PayloadType::Statement.into(),
            payload: payload.expect("a valid statement"),
            ..v1::Envelope::default()
        }
    }
}

fn ledger_id(told: &v1::LedgerInfo) -> LedgerId {
    LedgerId::new(Hash::try_from(&told.ledger_id[..]).expect("32 bytes"))
}

/// Fills the ledger, and returns its size.
async fn fill(client: &mut LedgerClient<Channel>, statements: u64) -> u64 {
    let asked = v1::GetLedgerRequest {
        name: LEDGER.to_owned(),
    };
    if let Ok(there) = client.get_ledger(asked).await {
        return there.into_inner().size;
    }
    let created = client
        .create_ledger(v1::CreateLedgerRequest {
            name: LEDGER.to_owned(),
            authority_keys: vec![Bytes::copy_from_slice(
                deed_tlog::SigningKey::from_seed(&[1; 32])
                    .public_key()
                    .as_bytes(),
            )],
        })
        .await
        .expect("a ledger is created");
    let ledger_id = ledger_id(&created.into_inner().ledger.expect("it is told"));
    let (requests, receiver) = mpsc::channel(REQUESTS);
    let made = std::thread::spawn(move || {
        let mut sessions: Vec<_> = (0..AGENTS)
            .map(|agent| Session {
                ledger_id,
                agent,
                sequence: 0,
            })
            .collect();
        // Sixteen tasks are under way at once, as in a real ledger.
        let mut said = 0;
        let mut envelopes = Vec::new();
        for first in (0..).step_by(16) {
            for step in 0..TASK_STATEMENTS {
                for task in first..first + 16 {
                    let session = &mut sessions[usize::try_from(task % AGENTS).expect("small")];
                    envelopes.push(session.statement(task, step));
                }
            }
            while envelopes.len() as u64 >= BATCH || said + envelopes.len() as u64 >= statements {
                let rest = envelopes.len().min(usize::try_from(BATCH).expect("small"));
                let rest = envelopes.split_off(rest);
                let batch = std::mem::replace(&mut envelopes, rest);
                said += batch.len() as u64;
                let request = v1::AppendRequest {
                    ledger: LEDGER.to_owned(),
                    envelopes: batch,
                    ..v1::AppendRequest::default()
                };
                if requests.blocking_send(request).is_err() || said >= statements {
                    return;
                }
            }
        }
    });
    let opening = client.append_stream(ReceiverStream::new(receiver));
    let mut answers = opening.await.expect("a stream opens").into_inner();
    let mut size = 1;
    while let Some(answer) = answers.message().await.expect("an answer comes") {
        for result in &answer.results {
            assert!(
                matches!(result.result, Some(append_result::Result::Accepted(_))),
                "{result:?}"
            );
        }
        size += answer.results.len() as u64;
    }
    made.join().expect("no panic");
    size
}

/// Waits until every complete segment is indexed.
async fn indexed(client: &mut ActionsClient<Channel>, size: u64) -> u64 {
    let complete = size / 65_536 * 65_536;
    loop {
        let asked = v1::SearchRequest {
            ledger: LEDGER.to_owned(),
            start: size,
            ..v1::SearchRequest::default()
        };
        let mut answers = client.search(asked).await.expect("a search").into_inner();
        let answer = answers.message().await.expect("an answer").expect("one");
        if answer.indexed_to >= complete {
            return answer.indexed_to;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A kind of search, and the request of one round.
struct Kind {
    name: &'static str,
    request: Box<dyn Fn(u64) -> v1::SearchRequest>,
}

fn kinds(size: u64, times: (i64, i64), ledger_id: LedgerId) -> Vec<Kind> {
    let tasks = size / TASK_STATEMENTS;
    let some_task = move |round: u64| mixed(round + 1) % tasks.max(1);
    let kind = |name, fill: fn(&mut v1::SearchRequest, u64, u64)| Kind {
        name,
        request: Box::new(move |round| {
            let mut request = v1::SearchRequest {
                ledger: LEDGER.to_owned(),
                limit: 1_000,
                ..v1::SearchRequest::default()
            };
            fill(&mut request, some_task(round), round);
            request
        }),
    };
    let (begin, end) = times;
    vec![
        Kind {
            name: "task",
            request: Box::new(move |round| v1::SearchRequest {
                ledger: LEDGER.to_owned(),
                limit: 1_000,
                task: task_id(ledger_id, some_task(round)),
                ..v1::SearchRequest::default()
            }),
        },
        kind("agent and action, first 1,000", |it, task, round| {
            it.agent = agent(task);
            it.action = ACTIONS[usize::try_from(round % 8).expect("small")].to_owned();
        }),
        kind("resource with few entries", |it, task, _| {
            it.resource = resource(task, 1);
        }),
        kind("resource with many entries", |it, task, _| {
            it.resource = resource(task, 0);
        }),
        kind("correlation key", |it, task, _| {
            it.correlation_key = Some(correlation(task));
        }),
        kind("trace", |it, task, _| it.trace_id = id(3, task * 4 + 1)),
        kind("rare finding", |it, _, _| {
            it.finding = FindingKind::SequenceGap.into();
        }),
        kind("what is not there", |it, _, round| it.task = id(9, round)),
        Kind {
            name: "time window, first 1,000",
            request: Box::new(move |round| {
                let span = u64::try_from(end - begin).expect("time goes on").max(1);
                let from = begin + i64::try_from(mixed(round + 7) % span).expect("it fits");
                v1::SearchRequest {
                    ledger: LEDGER.to_owned(),
                    limit: 1_000,
                    from_us: from,
                    until_us: from + 100_000,
                    ..v1::SearchRequest::default()
                }
            }),
        },
    ]
}

/// Returns the receive times of the ledger's first entry and of its last.
async fn times(client: &mut ActionsClient<Channel>, size: u64) -> (i64, i64) {
    let mut times = Vec::new();
    for start in [0, size - 1] {
        let asked = v1::SearchRequest {
            ledger: LEDGER.to_owned(),
            start,
            limit: 1,
            ..v1::SearchRequest::default()
        };
        let mut answers = client.search(asked).await.expect("a search").into_inner();
        let answer = answers.message().await.expect("an answer").expect("one");
        let entry = deed_evidence::entry::Entry::parse(&answer.entries[0].entry);
        times.push(entry.expect("an entry").received_at.get());
    }
    (times[0], times[1])
}

struct Ms(Duration);

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ms", self.0.as_secs_f64() * 1e3)
    }
}

async fn measure(client: &mut ActionsClient<Channel>, kind: &Kind) {
    let mut took = Vec::new();
    let mut found = 0;
    for round in 0..ROUNDS {
        let request = (kind.request)(round);
        let began = Instant::now();
        let mut answers = client.search(request).await.expect("a search").into_inner();
        while let Some(answer) = answers.message().await.expect("an answer") {
            found += answer.entries.len();
        }
        took.push(began.elapsed());
    }
    took.sort_unstable();
    let at = |percent: usize| Ms(took[(took.len() - 1) * percent / 100]);
    println!(
        "{:32} p50 {:>10}  p99 {:>10}  {:>8.1} entries each",
        kind.name,
        at(50).to_string(),
        at(99).to_string(),
        found as f64 / ROUNDS as f64,
    );
}

fn main() {
    let statements = env::var("DEED_BENCH_STATEMENTS").map_or(150_000, |number| {
        number.parse().expect("DEED_BENCH_STATEMENTS is a number")
    });
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let dir = env::var("DEED_BENCH_DIR").map_or(temporary.path().join("data"), PathBuf::from);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let options = ServerOptions::new(dir);
        let server = Server::start(options, Arc::new(SystemClock))
            .await
            .expect("it starts");
        let endpoint = Channel::from_shared(format!("http://{}", server.address()));
        let channel = endpoint
            .expect("an address")
            .connect()
            .await
            .expect("it listens");
        let began = Instant::now();
        let size = fill(&mut LedgerClient::new(channel.clone()), statements).await;
        println!(
            "{size} entries after {:.1} s",
            began.elapsed().as_secs_f64()
        );
        let mut client = ActionsClient::new(channel.clone());
        let indexed_to = indexed(&mut client, size).await;
        println!(
            "indexed up to {indexed_to} after {:.1} s",
            began.elapsed().as_secs_f64()
        );
        let times = times(&mut client, size).await;
        let asked = v1::GetLedgerRequest {
            name: LEDGER.to_owned(),
        };
        let told = LedgerClient::new(channel).get_ledger(asked).await;
        let ledger_id = ledger_id(told.expect("it is there").get_ref());
        for kind in kinds(size, times, ledger_id) {
            measure(&mut client, &kind).await;
        }
        server.stop().await.expect("it stops");
    });
}
