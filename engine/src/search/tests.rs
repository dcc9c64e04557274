//! Compares searches with an oracle that reads every entry: with the index, without it, and after a
//! rebuild.

use std::{fs, path::Path, sync::Arc};

use bytes::Bytes;
use deed_evidence::Micros;
use deed_proto::v1::{self, CorrelationKey, Finding, FindingKind, statement::Body};
use prost::Message as _;

use super::{
    Indexed, SEGMENT_LEAVES, Wrote, index_segment, indexed_to,
    query::{Bounds, Cursor, PAGE_ENTRIES, Page, Query},
    time::first_at,
};
use crate::{
    ledger::Ledger,
    metrics::Looked,
    offline::{fsck, reindex},
    store::{Batch, Family, Store, StoreOptions, keys},
    testing::{Engine, Producer, briefs},
};

const NAME: &str = "searched";

/// The leaves of a segment, and more than a thousand beyond it.
const LEAVES: usize = 68_000;
const REQUEST: usize = 1_000;

/// Returns the time of receipt of a request. These times do not always go forwards; effective time
/// does.
fn received_at(request: usize) -> i64 {
    let step = i64::try_from(request).unwrap();
    2_000_000 + 250_000 * step - if request % 3 == 1 { 400_000 } else { 0 }
}

fn id(number: usize) -> Bytes {
    let mut id = [0xaa; 16];
    id[8..].copy_from_slice(&(number as u64).to_be_bytes());
    Bytes::copy_from_slice(&id)
}

fn correlation(number: usize) -> CorrelationKey {
    CorrelationKey {
        kind: "order".to_owned(),
        value: number.to_string(),
    }
}

fn effect(resource: String) -> v1::Effect {
    v1::Effect {
        kind: "changed".to_owned(),
        resource,
        ..v1::Effect::default()
    }
}

fn statement(number: usize, statement: &mut v1::Statement) {
    statement.task = id(number / 40);
    if !number.is_multiple_of(3) {
        statement.trace_id = id(number / 8);
    }
    if number.is_multiple_of(5) {
        statement.correlation_keys =
            vec![correlation(number / 100), correlation(number / 100 + 7_000)];
        statement
            .correlation_keys
            .sort_by(|a, b| a.value.cmp(&b.value));
    }
    let resource = format!("orders/{}", number * 7 % 1_000);
    statement.body = Some(match number % 10 {
        7 => Body::Outcome(v1::Outcome {
            intent: Some(v1::StatementRef {
                sequence: 1,
                payload_digest: Bytes::from_static(&[1; 32]),
                ..v1::StatementRef::default()
            }),
            status: v1::OutcomeStatus::Succeeded.into(),
            effects: vec![
                effect(resource.clone()),
                effect(resource),
                effect("ledger".to_owned()),
            ],
            ..v1::Outcome::default()
        }),
        8 => Body::Observation(v1::Observation {
            effects: vec![effect(resource)],
            ..v1::Observation::default()
        }),
        9 => Body::TaskClosed(v1::TaskClosed {
            end: v1::TaskEnd::Completed.into(),
            ..v1::TaskClosed::default()
        }),
        _ => Body::Intent(v1::Intent {
            action: ["pay", "mail", "deploy"][number % 3].to_owned(),
            resource,
            ..v1::Intent::default()
        }),
    });
}

/// Makes a ledger with all kinds of terms; returns its entries, too.
fn fill(data_dir: &Path) -> (Engine, Arc<Ledger>, Vec<Bytes>) {
    let engine = Engine::open(data_dir);
    let ledger = engine.create(NAME).unwrap();
    let mut producers: Vec<_> = (1..=3)
        .map(|session| {
            let mut producer = Producer::new(ledger.id, session);
            producer.producer = format!("spiffe://example.org/agent/{session}");
            producer
        })
        .collect();
    for request in 0..LEAVES / REQUEST {
        engine.clock.set(received_at(request));
        let producer = &mut producers[request % 3];
        let envelopes = (0..REQUEST)
            .map(|n| producer.statement(|it| statement(request * REQUEST + n, it)))
            .collect();
        let answer = engine.append(NAME, envelopes).unwrap();
        let refused = briefs(&answer)
            .into_iter()
            .find(|brief| !brief.starts_with("accepted"));
        assert_eq!(refused, None);
    }
    let entries = engine.store.entries(ledger.number, 0);
    let entries: Vec<_> = entries.map(|item| item.unwrap().1).collect();
    assert_eq!(entries.len() as u64, ledger.readable().size().get());
    (engine, ledger, entries)
}

fn finding(leaf: u64, number: u32, kind: FindingKind) -> Finding {
    Finding {
        leaf_index: leaf,
        number,
        kind: kind.into(),
        ..Finding::default()
    }
}

fn findings() -> Vec<Finding> {
    let gaps = (0..LEAVES as u64).step_by(777);
    let mut all: Vec<_> = gaps
        .map(|leaf| finding(leaf, 1, FindingKind::SequenceGap))
        .collect();
    for leaf in [0, 5, 777, 65_535, 65_536, 67_999] {
        all.push(finding(leaf, 0, FindingKind::SelfApproval));
        all.push(finding(leaf, 2, FindingKind::SelfApproval));
    }
    all
}

/// Returns true if an entry matches, by the oracle's own rules on the decoded statement.
fn holds(query: &Query, entry: &Bytes) -> bool {
    let entry = v1::Entry::decode(entry.clone()).unwrap();
    let statement = v1::Statement::decode(entry.payload).unwrap();
    let (action, resources) = match statement.body.unwrap() {
        Body::Intent(intent) => (intent.action, vec![intent.resource]),
        Body::Outcome(outcome) => (String::new(), resources(outcome.effects)),
        Body::Observation(observation) => (String::new(), resources(observation.effects)),
        _ => (String::new(), Vec::new()),
    };
    (query.task.is_empty() || query.task == statement.task)
        && (query.agent.is_empty() || query.agent == statement.producer)
        && (query.trace_id.is_empty() || query.trace_id == statement.trace_id)
        && (query.action.is_empty() || query.action == action)
        && (query.resource.is_empty() || resources.contains(&query.resource))
        && query
            .correlation_key
            .as_ref()
            .is_none_or(|key| statement.correlation_keys.contains(key))
}

fn resources(effects: Vec<v1::Effect>) -> Vec<String> {
    effects.into_iter().map(|effect| effect.resource).collect()
}

/// Returns the answer by reading all entries.
fn oracle(entries: &[Bytes], findings: &[Finding], query: &Query, bounds: &Bounds) -> Vec<u64> {
    let mut effective_time = Micros::new(0);
    let mut found = Vec::new();
    for (leaf, entry) in (0..).zip(entries) {
        let received_at = v1::Entry::decode(entry.clone()).unwrap().received_at_us;
        effective_time = effective_time.max(Micros::new(received_at));
        let fits = bounds.leaves.contains(&leaf)
            && bounds.from.is_none_or(|from| effective_time >= from)
            && bounds.until.is_none_or(|until| effective_time < until)
            && query.finding.is_none_or(|kind| {
                findings
                    .iter()
                    .any(|finding| finding.leaf_index == leaf && finding.kind() == kind)
            });
        if fits && (found.len() as u64) < bounds.limit && holds(query, entry) {
            found.push(leaf);
        }
    }
    found
}

fn search(store: &Store, ledger: &Ledger, query: &Query, bounds: &Bounds) -> (Vec<u64>, Looked) {
    let size = ledger.readable().size().get();
    let mut cursor =
        Cursor::new(store, ledger.number, size, query.clone(), bounds.clone()).unwrap();
    let (mut found, mut looked) = (Vec::new(), Looked::default());
    while !cursor.is_done() {
        let mut page = Page::default();
        let before = cursor.searched_to();
        while !cursor.is_done() && !page.is_full() {
            let step = cursor.step(store, &mut page).unwrap();
            looked.indexed += step.indexed;
            looked.scanned += step.scanned;
        }
        assert!(page.entries.len() <= PAGE_ENTRIES);
        for entry in page.entries {
            assert!((before..cursor.searched_to()).contains(&entry.leaf));
            assert_eq!(entry.entry, store.entry(ledger.number, entry.leaf).unwrap());
            found.push(entry.leaf);
        }
    }
    if (found.len() as u64) < bounds.limit {
        assert_eq!(cursor.searched_to(), bounds.leaves.end);
    }
    (found, looked)
}

fn queries() -> Vec<Query> {
    let nothing = Query::default;
    let agent = |number| format!("spiffe://example.org/agent/{number}");
    let task = |number| Query {
        task: id(number),
        ..nothing()
    };
    let finding = |kind| Query {
        finding: Some(kind),
        ..nothing()
    };
    vec![
        nothing(),
        task(0),
        task(1638),
        task(1699),
        task(9999),
        Query {
            agent: agent(2),
            action: "deploy".to_owned(),
            ..nothing()
        },
        Query {
            agent: agent(3),
            resource: "ledger".to_owned(),
            ..nothing()
        },
        Query {
            resource: "orders/7".to_owned(),
            ..nothing()
        },
        Query {
            agent: "spiffe://example.org/agent".to_owned(),
            ..nothing()
        },
        Query {
            trace_id: id(8190),
            ..nothing()
        },
        Query {
            correlation_key: Some(correlation(655)),
            ..nothing()
        },
        Query {
            correlation_key: Some(correlation(7_300)),
            action: "pay".to_owned(),
            ..nothing()
        },
        Query {
            task: id(100),
            trace_id: id(501),
            agent: agent(2),
            ..nothing()
        },
        finding(FindingKind::SelfApproval),
        finding(FindingKind::SequenceGap),
        finding(FindingKind::ClockSkew),
        Query {
            agent: agent(1),
            ..finding(FindingKind::SequenceGap)
        },
    ]
}

fn all_bounds(size: u64) -> Vec<Bounds> {
    let whole = Bounds {
        leaves: 0..size,
        from: None,
        until: None,
        limit: u64::MAX,
    };
    let at = |us| Some(Micros::new(us));
    vec![
        whole.clone(),
        Bounds {
            leaves: 65_530..65_541,
            ..whole.clone()
        },
        Bounds {
            leaves: 300..300,
            ..whole.clone()
        },
        Bounds {
            leaves: 100..size - 1,
            limit: 3,
            ..whole.clone()
        },
        Bounds {
            from: at(received_at(60)),
            until: at(received_at(66)),
            ..whole.clone()
        },
        Bounds {
            until: at(received_at(2) + 1),
            ..whole.clone()
        },
        Bounds {
            from: at(i64::MAX),
            ..whole
        },
    ]
}

/// Compares every search with the oracle's answer; returns the number of entries examined.
fn check(store: &Store, ledger: &Ledger, entries: &[Bytes], findings: &[Finding]) -> Looked {
    let mut sum = Looked::default();
    for query in queries() {
        for bounds in all_bounds(entries.len() as u64) {
            let expected = oracle(entries, findings, &query, &bounds);
            let (found, looked) = search(store, ledger, &query, &bounds);
            assert_eq!(found, expected, "{query:?} in {bounds:?}");
            sum.indexed += looked.indexed;
            sum.scanned += looked.scanned;
        }
    }
    sum
}

/// Writes all segments, as the server does in the background.
fn index_all(engine: &Engine, ledger: &Ledger) {
    let mut indexed = Indexed::default();
    while index_segment(&engine.store, ledger, &mut indexed).unwrap() != Wrote::Nothing {}
    assert_eq!((indexed.hashes, indexed.terms), (1, 1));
}

#[test]
fn the_answer_is_the_same_without_an_index_with_it_and_after_it_was_built_again() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, ledger, entries) = fill(dir.path());
    let findings = findings();
    engine.find(&ledger, &findings);
    let (store, number) = (&engine.store, ledger.number);

    assert_eq!(indexed_to(store, number).unwrap(), 0);
    let scanned = check(store, &ledger, &entries, &findings);

    index_all(&engine, &ledger);
    assert_eq!(indexed_to(store, number).unwrap(), SEGMENT_LEAVES);
    let indexed = check(store, &ledger, &entries, &findings);
    assert!(indexed.indexed > scanned.indexed && indexed.scanned < scanned.scanned / 2);

    // The rebuild is interrupted, and the server goes on from there.
    store.drop_index(number).unwrap();
    assert_eq!(indexed_to(store, number).unwrap(), 0);
    drop(ledger);
    engine.close();
    let mut said = Vec::new();
    reindex::rebuild(dir.path(), Some(NAME), &mut |progress| {
        said.push(progress.clone());
    })
    .unwrap();
    let said: Vec<_> = said.iter().map(|progress| progress.indexed).collect();
    assert_eq!(said, [0, SEGMENT_LEAVES]);

    let engine = Engine::open(dir.path());
    let ledger = engine.registry.ledger(NAME).unwrap();
    assert_eq!(indexed_to(&engine.store, number).unwrap(), SEGMENT_LEAVES);
    let rebuilt = check(&engine.store, &ledger, &entries, &findings);
    assert_eq!(rebuilt, indexed);
    // Each ledger has its own index.
    let other = engine.create("other").unwrap();
    assert_eq!(indexed_to(&engine.store, other.number).unwrap(), 0);
    engine.close();
}

#[test]
fn every_time_begins_where_the_entries_say_and_a_damaged_index_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, ledger, entries) = fill(dir.path());
    let (store, number) = (&engine.store, ledger.number);
    let mut effective_time = 0;
    let mut times = Vec::new();
    for entry in &entries {
        let received_at = v1::Entry::decode(entry.clone()).unwrap().received_at_us;
        effective_time = received_at.max(effective_time);
        times.push(effective_time);
    }
    let size = entries.len() as u64;
    for indexed in [false, true] {
        for request in 0..LEAVES / REQUEST {
            for time in (received_at(request) - 1..).take(3) {
                let expected = times.partition_point(|at| *at < time) as u64;
                let found = first_at(store, number, size, Micros::new(time)).unwrap();
                assert_eq!(found, expected, "{time}, indexed: {indexed}");
            }
        }
        assert_eq!(first_at(store, number, size, Micros::new(0)).unwrap(), 0);
        let never = first_at(store, number, size, Micros::new(i64::MAX));
        assert_eq!(never.unwrap(), size);
        index_all(&engine, &ledger);
    }
    drop(ledger);
    engine.close();

    let check = || fsck::check(dir.path(), &mut |_| {}).map_err(|error| error.to_string());
    check().unwrap();
    let change = |key: &[u8], change: &dyn Fn(&mut Vec<u8>)| {
        let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
        let mut value = store.value(Family::Index, key).unwrap().unwrap().to_vec();
        change(&mut value);
        let mut batch = Batch::default();
        store.put(&mut batch, Family::Index, key, &value);
        store.commit(batch).unwrap();
    };
    let bucket = keys::term_bucket(number, 0, 0x40);
    for (key, what) in [
        (&bucket[..], "terms 64"),
        (&keys::times(number, 0), "its times"),
    ] {
        change(key, &|value| *value.last_mut().unwrap() ^= 1);
        let error = check().unwrap_err();
        assert!(error.contains(what), "{error}");
        reindex::rebuild(dir.path(), None, &mut |_| {}).unwrap();
        check().unwrap();
    }
}

#[test]
fn reindexing_what_is_not_there_says_so_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let said = |ledger| {
        reindex::rebuild(dir.path(), ledger, &mut |_| {})
            .unwrap_err()
            .to_string()
    };
    assert!(said(None).contains("holds no deed server"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    Engine::open(dir.path()).close();
    assert_eq!(said(Some("nobody")), "no ledger is named \"nobody\"");
}
