//! Tests of conflicting statements that come in batches, and of receive times that go back: in the
//! step, in a replay, and in the server's records.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
    mpsc,
};

use bytes::Bytes;
use deed_evidence::{
    assess::SKEW_US,
    entry::Entry,
    replay::{Fault, Replay},
};
use deed_proto::v1::{self, FindingKind, statement::Body};
use deed_tlog::{LeafIndex, SigningKey, TreeSize};
use proptest::prelude::*;

use super::step_tests::{ByHand, admit_with, brief};
use crate::{
    append::AppendError,
    offline::fsck,
    shard::Disk,
    store::LedgerNumber,
    testing::{Authority, Engine, Producer, batched, briefs, signed},
};

const NAME: &str = "evidence";

fn key() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

/// Returns another Intent of the producer at `sequence`.
fn otherwise(producer: &Producer, sequence: u64, resource: &str) -> v1::Envelope {
    let mut producer = producer.clone();
    producer.next = sequence;
    producer.intent(resource)
}

fn opened(authority: &mut Authority) -> v1::Envelope {
    let opened = v1::TaskOpened {
        requested_by: "ticket:4711".to_owned(),
        risk_tier: v1::RiskTier::Low.into(),
        ..v1::TaskOpened::default()
    };
    authority.opens(9, opened)
}

fn entries(engine: &Engine) -> Vec<Bytes> {
    let entries = engine.store.entries(LedgerNumber(0), 0);
    entries.map(|entry| entry.unwrap().1).collect()
}

/// Returns the leaves that are evidence of equivocation, and the leaves that they contradict.
fn equivocations(replay: &Replay) -> Vec<(u64, Option<u64>)> {
    let found = replay.findings();
    let found = found.filter(|finding| finding.kind() == FindingKind::Equivocation);
    found
        .map(|finding| (finding.leaf_index, finding.contradicts_leaf))
        .collect()
}

#[test]
fn a_second_batch_for_the_same_places_is_kept_whole_as_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path());
    let ledger = engine.create(NAME).unwrap();
    let append = |envelopes| briefs(&engine.append(NAME, envelopes).unwrap());
    let mut authority = Authority::new(ledger.id);
    let mut agent = Producer::new(ledger.id, 1);
    append(vec![
        authority.registers(&key(), &agent.producer),
        opened(&mut authority),
    ]);
    let (zero, one) = (agent.intent("orders/0"), agent.intent("orders/1"));
    let first = batched(vec![zero, one], &key());
    assert_eq!(append(first), ["accepted 3", "accepted 4", "accepted 5"]);
    // These are a statement with its own signature, and one behind a gap.
    let two = signed(agent.intent("orders/2"), &key());
    assert_eq!(append(vec![two.clone()]), ["accepted 6"]);
    let after_gap = signed(agent.intent_after_gap(1), &key());
    assert_eq!(append(vec![after_gap]), ["accepted 7"]);

    // With the same key, this batch differs at sequences 1 and 4, repeats 2, fills 3, which was
    // given up, and goes on to 5.
    let second = vec![
        otherwise(&agent, 1, "orders/else"),
        v1::Envelope {
            key_id: Bytes::new(),
            signature: Bytes::new(),
            ..two
        },
        otherwise(&agent, 3, "orders/3"),
        otherwise(&agent, 4, "orders/else"),
        otherwise(&agent, 5, "orders/5"),
    ];
    let second = batched(second, &key());
    let refused = [
        "REASON_BATCH_REFUSED",
        "REASON_SEQUENCE_REUSED",
        "REASON_BATCH_REFUSED",
        "REASON_BATCH_REFUSED",
        "REASON_SEQUENCE_REUSED",
        "REASON_BATCH_REFUSED",
    ];
    let answer = engine.append(NAME, second.clone()).unwrap();
    assert_eq!(briefs(&answer), refused);
    let Some(v1::append_result::Result::Rejected(kept)) = &answer.results[4].result else {
        panic!("{answer:?}");
    };
    assert!(
        kept.message.contains("evidence of that at leaf 12"),
        "{kept:?}"
    );
    assert_eq!(ledger.readable().size().get(), 14);

    // The evidence is recorded once: sent again, alone or in another batch, it changes nothing.
    let again = append(second.clone());
    assert_eq!(again[0], "REASON_BATCH_REFUSED");
    assert_eq!(again[1], "REASON_SEQUENCE_REUSED");
    let third = signed(otherwise(&agent, 4, "orders/third"), &key());
    assert_eq!(append(vec![third]), ["REASON_SEQUENCE_REUSED"]);
    assert_eq!(ledger.readable().size().get(), 14);
    // The batch consumed no sequence.
    let five = signed(agent.intent("orders/five"), &key());
    assert_eq!(append(vec![five]), ["accepted 14"]);

    let replay = Replay::over(&entries(&engine)).unwrap();
    assert_eq!(equivocations(&replay), [(9, Some(5)), (12, Some(7))]);
    let (number, store) = (ledger.number, &engine.store);
    for leaf in 9..14 {
        assert_eq!(store.act(number, leaf).unwrap(), None, "leaf {leaf}");
    }
    assert!(store.act(number, 4).unwrap().is_some());
    // The proof leads from the evidence to its signature.
    let readable = ledger.readable();
    let size = TreeSize::new(readable.size().get());
    let proof = ledger.batched_statement(&readable, LeafIndex::new(12), size);
    let proof = proof.unwrap().unwrap();
    assert_eq!((proof.manifest_index.get(), proof.position.get()), (8, 3));

    // This is an approval of a leaf that is no act.
    let bytes = entries(&engine);
    let mut mallory = Producer::new(ledger.id, 2);
    mallory.producer = "spiffe://example.org/approver".to_owned();
    let of_evidence = mallory.statement(|statement| {
        statement.body = Some(Body::Approval(v1::Approval {
            intent: Some(v1::LeafRef {
                leaf_index: 10,
                leaf_hash: Bytes::copy_from_slice(deed_tlog::leaf_hash(&bytes[10]).as_bytes()),
            }),
            verdict: v1::Verdict::Allow.into(),
            strength: v1::AuthenticationStrength::SingleFactor.into(),
            decided_at_us: 1,
            shown: Some(v1::Commitment {
                digest: vec![1; 32].into(),
                media_type: "text/plain".to_owned(),
            }),
            ..v1::Approval::default()
        }));
    });
    append(vec![of_evidence]);
    // The check below shows that a replay judges it in the same way.
    drop(ledger);
    engine.close();
    fsck::check(dir.path(), &mut |_| {}).unwrap();

    // Evidence that shows nothing new must not be recorded. (Once sequence 5 is used, it would show
    // something new.)
    let before_five = &bytes[..14];
    let twice: Vec<_> = before_five
        .iter()
        .chain(&before_five[8..])
        .cloned()
        .collect();
    let error = Replay::over(&twice).unwrap_err();
    assert!(matches!(*error.fault, Fault::Again { .. }), "{error}");
}

#[test]
fn what_is_received_long_before_what_stands_in_front_of_it_is_not_recorded() {
    let mut ledger = ByHand::new();
    let now = 10_000_000_000;
    let mut agent = Producer::new(ledger.id, 1);
    let mut authority = Authority::new(ledger.id);
    let said = |ledger: &mut ByHand, at: i64, envelopes: &[v1::Envelope]| {
        let batch = admit_with(&ledger.trust, ledger.id, at, envelopes);
        brief(&ledger.turn(&[batch]))
    };
    let zero = agent.intent("r");
    assert_eq!(
        said(&mut ledger, now, std::slice::from_ref(&zero)),
        ["recorded 1"]
    );
    let (one, key_of) = (agent.intent("r"), Producer::new(ledger.id, 3));
    let registered = authority.registers(&key(), "spiffe://example.org/batches");
    let too_early = now - SKEW_US - 1;
    assert_eq!(
        said(&mut ledger, too_early, std::slice::from_ref(&one)),
        ["late"]
    );
    assert_eq!(
        said(&mut ledger, too_early, std::slice::from_ref(&registered)),
        ["late"]
    );
    // The refusal consumed no sequence, and a duplicate is accepted at any time.
    assert_eq!(said(&mut ledger, too_early, &[zero]), ["duplicate 1"]);
    assert_eq!(said(&mut ledger, now - SKEW_US, &[one]), ["recorded 2"]);
    assert_eq!(said(&mut ledger, now, &[registered]), ["linked 3"]);
    let mut batches = key_of;
    batches.producer = "spiffe://example.org/batches".to_owned();
    let batch = batched(vec![batches.intent("r"), batches.intent("r")], &key());
    assert_eq!(
        said(&mut ledger, too_early, &batch),
        ["late", "late", "late"]
    );
    let recorded = ["recorded 4", "recorded 5", "recorded 6"];
    assert_eq!(said(&mut ledger, now, &batch), recorded);
    let other = batched(vec![otherwise(&batches, 0, "else")], &key());
    assert_eq!(said(&mut ledger, too_early, &other), ["late", "late"]);

    // A replay refuses a ledger with such a receive time.
    let entries = ledger.entries();
    Replay::over(&entries).unwrap();
    for leaf in 2..entries.len() {
        let mut changed = entries.clone();
        changed[leaf] = Entry {
            received_at: deed_evidence::Micros::new(too_early),
            ..Entry::parse(&entries[leaf]).unwrap()
        }
        .encode();
        let error = Replay::over(&changed).unwrap_err();
        assert_eq!(error.leaf, leaf as u64);
        assert!(matches!(*error.fault, Fault::Late { .. }), "{error}");
    }
}

#[test]
fn a_request_that_came_too_late_is_to_be_sent_again() {
    for rules in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let (open_gate, gate) = mpsc::channel::<()>();
        let commits = Arc::new(AtomicU32::new(0));
        let begun = Arc::clone(&commits);
        let engine = Engine::open_on(dir.path(), |mut disk: Disk| Disk {
            commit: Box::new(move |batch| {
                begun.fetch_add(1, Relaxed);
                // Each commit needs one token; when the sender is gone, all may pass.
                let _ = gate.recv();
                (disk.commit)(batch)
            }),
            guard: disk.guard,
        });
        open_gate.send(()).unwrap();
        let ledger = engine.create_under(rules, NAME).unwrap();
        let now = 10_000_000_000;
        let (mut first, mut second) = (Producer::new(ledger.id, 1), Producer::new(ledger.id, 2));
        let (first, second) = (first.intent("r"), second.intent("r"));
        let engine = &engine;
        std::thread::scope(|scope| {
            let held = || engine.appends.shards.waiting_bytes(&ledger);
            engine.clock.set(now);
            let one = scope.spawn(|| engine.append(NAME, vec![first]));
            while commits.load(Relaxed) < 2 {
                std::thread::yield_now();
            }
            // The machine's clock is set back before the first statement is published.
            engine.clock.set(now - SKEW_US - 1);
            let before = held();
            let two = scope.spawn(|| engine.append(NAME, vec![second.clone()]));
            while held() == before {
                std::thread::yield_now();
            }
            drop(open_gate);
            assert_eq!(briefs(&one.join().unwrap().unwrap()), ["accepted 1"]);
            let two = two.join().unwrap();
            if rules == 1 {
                // These rules are released, and ledgers have such entries.
                assert_eq!(briefs(&two.unwrap()), ["accepted 2"]);
            } else {
                let refused =
                    matches!(&two, Err(AppendError::Unavailable(what)) if what.contains("again"));
                assert!(refused, "{two:?}");
            }
        });
        engine.clock.set(now);
        let again = engine.append(NAME, vec![second]).unwrap();
        assert_eq!(
            briefs(&again),
            [["duplicate 2", "accepted 2"][rules as usize - 1]]
        );
        Replay::over(&entries(engine)).unwrap();
    }
}

/// One act of an agent with a key: a list of statements, and the sequence of the first.
#[derive(Debug, Clone)]
struct Say {
    from: u64,
    words: Vec<u8>,
    alone: bool,
}

fn says() -> impl Strategy<Value = Vec<Say>> {
    let words = prop::collection::vec(0..3_u8, 1..5);
    let one = (0..12_u64, words, any::<bool>());
    let one = one.prop_map(|(from, words, alone)| Say { from, words, alone });
    prop::collection::vec(one, 1..40)
}

fn requests(producer: &Producer, says: &[Say]) -> Vec<Vec<v1::Envelope>> {
    let words = ["orders/0", "orders/1", "orders/2"];
    let said = says.iter().map(|say| {
        let all = (say.from..).zip(&say.words);
        let all = all.map(|(at, word)| otherwise(producer, at, words[usize::from(*word)]));
        match say.alone {
            true => all.map(|one| signed(one, &key())).take(1).collect(),
            false => batched(all.collect(), &key()),
        }
    });
    said.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However turns are cut, and whether or not memory was lost in between, the same statements
    /// are kept as evidence, a replay accepts them, and each sequence is reported against its
    /// author at most once.
    #[test]
    fn evidence_does_not_depend_on_cuts(
        says in says(),
        cuts in prop::collection::vec((1_usize..6, any::<bool>()), 1..12),
    ) {
        let begin = || {
            let mut ledger = ByHand::new();
            let mut authority = Authority::new(ledger.id);
            let agent = Producer::new(ledger.id, 1);
            let first = [authority.registers(&key(), &agent.producer), opened(&mut authority)];
            let batch = admit_with(&ledger.trust, ledger.id, 5, &first);
            ledger.turn(&[batch]);
            (ledger, agent)
        };
        let admit = |ledger: &ByHand, requests: &[Vec<v1::Envelope>]| -> Vec<_> {
            let requests = requests.iter();
            requests.map(|one| admit_with(&ledger.trust, ledger.id, 6, one)).collect()
        };
        let (mut whole, agent) = begin();
        let all = requests(&agent, &says);
        let batches = admit(&whole, &all);
        let expected = whole.turn(&batches);

        let (mut cut, _) = begin();
        let mut placements = Vec::new();
        let mut rest = &all[..];
        for (length, forget) in cuts.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*length));
            let batches = admit(&cut, now);
            placements.extend(cut.turn(&batches));
            rest = later;
            if *forget {
                cut.forget_sessions();
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(placements, expected);
        prop_assert_eq!(cut.entries(), whole.entries());
        prop_assert_eq!(cut.records(), whole.records());

        let replay = Replay::over(&whole.entries()).unwrap();
        let mut contradicted: Vec<_> = equivocations(&replay).into_iter().map(|(_, at)| at).collect();
        let all = contradicted.len();
        contradicted.sort_unstable();
        contradicted.dedup();
        prop_assert_eq!(contradicted.len(), all);
    }
}
