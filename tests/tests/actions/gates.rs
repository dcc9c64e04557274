//! The ledger gates acts: the assessment of an Intent, its clearance, and its deadlines.

mod deadlines;

use std::sync::Arc;

use bytes::Bytes;
use deed_client::{ActError, Ledger, Options, Session, Signing, StateDir, Task};
use deed_evidence::{Nonce, TaskId, assess::digest, entry::Entry, replay::Replay, statement};
use deed_proto::v1::{
    self, Author, FindingKind, IntentState, OutcomeState, Verdict, rejection::Reason,
    statement::Body,
};
use deed_tests::{
    oracle::Log,
    rpc::{hash, inclusion_proof},
    run, until, within,
};
use deed_tlog::{LeafIndex, leaf_hash, verify_inclusion};
use tempfile::TempDir;
use tonic::{Code, Streaming};

use crate::{AGENT, Announced, LOW, Scene, TASK, agent_key, committed, payment};

/// Opens the stream of an Intent's states.
async fn follow(scene: &Scene, of: &Announced) -> Streaming<v1::ClearanceResponse> {
    let request = v1::AwaitClearanceRequest {
        ledger: scene.ledger.name.clone(),
        intent_leaf: of.leaf.leaf_index,
        min_size: 0,
    };
    let mut actions = scene.clients.actions.clone();
    let answer = within("a clearance's stream", actions.await_clearance(request)).await;
    answer.expect("a stream").into_inner()
}

/// Returns the next change.
async fn change(
    scene: &Scene,
    stream: &mut Streaming<v1::ClearanceResponse>,
) -> Option<v1::ClearanceResponse> {
    let message = within("a change", stream.message()).await;
    let message = message.expect("no failure")?;
    let head = scene.ledger.open(&message.checkpoint);
    assert_eq!(head.size.get(), message.tree_size);
    Some(message)
}

/// Returns author and statement of an entry of the log.
fn statement_at(log: &Log, leaf: u64) -> (Author, v1::Statement) {
    let index = usize::try_from(leaf).expect("a leaf");
    let entry = Entry::parse(&log.entries[index]).expect("an entry");
    let payload = log.entries[index].slice_ref(entry.payload);
    (
        entry.author,
        statement::decode(&payload).expect("a statement"),
    )
}

/// Returns the leaves of entries with such a body.
fn leaves_with(log: &Log, is: impl Fn(&Body) -> bool) -> Vec<u64> {
    let all = 0..log.entries.len() as u64;
    let has = |leaf: &u64| {
        let body = statement_at(log, *leaf).1.body;
        body.is_some_and(|body| is(&body))
    };
    all.filter(has).collect()
}

#[test]
fn a_receipt_says_where_its_intent_stands() {
    run(async {
        let mut scene = Scene::set().await;
        let grant = scene.grant(TASK, 5, Some(10_000)).await;
        scene
            .intends(&grant)
            .await
            .expect(IntentState::Waiting, &["approval", "decision"]);
        let low = v1::Intent {
            action: "orders.look".to_owned(),
            resource: "order/7".to_owned(),
            ..v1::Intent::default()
        };
        scene
            .announce(LOW, low.clone())
            .await
            .expect(IntentState::Cleared, &[]);

        // Each reason for a denial has its text, and a finding at that leaf.
        let with = |change: fn(&mut v1::Intent)| {
            let mut intent = payment(&grant, 1999);
            change(&mut intent);
            intent
        };
        for (what, task, intent, finding) in [
            (
                "another resource",
                TASK,
                with(|it| it.resource = "account/7".to_owned()),
                Some(FindingKind::ScopeExceeded),
            ),
            (
                "another action",
                TASK,
                with(|it| it.action = "payments.send".to_owned()),
                Some(FindingKind::ScopeExceeded),
            ),
            (
                "too much",
                TASK,
                with(|it| it.amount = Some(crate::euros(10_001))),
                Some(FindingKind::LimitExceeded),
            ),
            (
                "a grant that is not there",
                TASK,
                with(|it| it.grant = Bytes::from_static(&[9; 32])),
                Some(FindingKind::UnknownGrant),
            ),
            (
                "another task's grant",
                LOW,
                payment(&grant, 1),
                Some(FindingKind::UnknownGrant),
            ),
            ("no grant", TASK, with(|it| it.grant = Bytes::new()), None),
            ("no prompt", TASK, with(|it| it.prompt = None), None),
        ] {
            let said = scene.announce(task, intent).await;
            let assessed = &said.assessed;
            assert_eq!(
                assessed.intent(),
                IntentState::Denied,
                "{what}: {assessed:?}"
            );
            assert!(!assessed.denied.is_empty(), "{what}: {assessed:?}");
            assert!(assessed.missing.is_empty(), "{what}: {assessed:?}");
            let kinds: Vec<_> = assessed.findings.iter().map(v1::Finding::kind).collect();
            assert_eq!(kinds, Vec::from_iter(finding), "{what}: {assessed:?}");
            for finding in &assessed.findings {
                assert_eq!(finding.leaf_index, said.leaf.leaf_index, "{what}");
            }
        }
        let unopened = scene.announce([0x99; 16], low).await;
        assert_eq!(unopened.assessed.intent(), IntentState::Denied);
        let kinds = unopened.assessed.findings.iter().map(v1::Finding::kind);
        assert_eq!(Vec::from_iter(kinds), [FindingKind::UnknownTask]);
        // The listed findings are those in the receipts.
        assert_eq!(scene.findings().await.len(), 6);
        replays(&scene).await;
        scene.ends_clean();
    });
}

/// Checks that all answers of the server follow from the entries; returns the replay.
pub(crate) async fn replays(scene: &Scene) -> Replay {
    let log = Log::read(&scene.clients, &scene.ledger).await;
    let replay = Replay::over(&log.entries).expect("a ledger in which everything holds");
    let told = scene.findings().await;
    let found: Vec<_> = replay.findings().cloned().collect();
    assert_eq!(told, found, "the findings are those that follow");
    replay
}

#[test]
fn a_clearance_is_streamed_and_names_its_evidence() {
    run(async {
        let mut scene = Scene::set().await;
        let grant = scene.grant(TASK, 5, Some(10_000)).await;
        let intent = scene.intends(&grant).await;
        let mut stream = follow(&scene, &intent).await;
        let first = change(&scene, &mut stream).await.unwrap();
        assert_eq!(first.state(), IntentState::Waiting);
        assert_eq!(first.missing, ["approval", "decision"]);
        let decided = scene.decides(&intent, Verdict::Allow).await;
        let second = change(&scene, &mut stream).await.unwrap();
        assert_eq!(
            (second.state(), &second.missing[..]),
            (IntentState::Waiting, &["approval".to_owned()][..])
        );
        let approved = scene.approves(&intent, Verdict::Allow).await;
        let last = change(&scene, &mut stream).await.unwrap();
        assert_eq!(last.state(), IntentState::Cleared);
        assert_eq!(
            change(&scene, &mut stream).await,
            None,
            "that was the last change"
        );
        // A later caller gets the same at once.
        let mut again = follow(&scene, &intent).await;
        let told = change(&scene, &mut again).await.unwrap();
        assert_eq!(
            (told.state(), told.clearance_leaf),
            (last.state(), last.clearance_leaf)
        );

        let leaf = last.clearance_leaf.expect("the Clearance's leaf");
        assert_eq!(leaf, approved.leaf_index + 1);
        let log = Log::read(&scene.clients, &scene.ledger).await;
        let (author, said) = statement_at(&log, leaf);
        assert_eq!(author, Author::Ledger);
        assert_eq!(said.task, scene.task_id(TASK)[..]);
        let Some(Body::Clearance(clearance)) = said.body else {
            panic!("no Clearance: {said:?}");
        };
        assert_eq!(clearance.intent, Some(intent.leaf.clone()));
        let evidence: Vec<_> = clearance.evidence.iter().map(|it| it.leaf_index).collect();
        assert_eq!(evidence, [decided.leaf_index, approved.leaf_index]);
        let set = leaves_with(&log, |body| matches!(body, Body::PolicySet(_)));
        assert_eq!(set, [clearance.policy_leaf]);

        // There is no Intent at these leaves: beyond the tree, or another entry.
        for leaf in [leaf, log.entries.len() as u64, 0] {
            let request = v1::AwaitClearanceRequest {
                ledger: scene.ledger.name.clone(),
                intent_leaf: leaf,
                min_size: 0,
            };
            let mut actions = scene.clients.actions.clone();
            let refused = within("a refusal", actions.await_clearance(request)).await;
            assert_eq!(refused.unwrap_err().code(), Code::NotFound, "leaf {leaf}");
        }
        assert_eq!(scene.kinds().await, []);
        replays(&scene).await;
        scene.ends_clean();
    });
}

#[test]
fn a_no_ends_the_stream_and_stays_a_no() {
    run(async {
        let mut scene = Scene::set().await;
        let grant = scene.grant(TASK, 5, Some(10_000)).await;
        for by_engine in [true, false] {
            let intent = scene.intends(&grant).await;
            let mut stream = follow(&scene, &intent).await;
            change(&scene, &mut stream).await.unwrap();
            if by_engine {
                scene.decides(&intent, Verdict::Deny).await;
            } else {
                scene.approves(&intent, Verdict::Deny).await;
            }
            let denied = change(&scene, &mut stream).await.unwrap();
            assert_eq!(denied.state(), IntentState::Denied, "{denied:?}");
            assert_eq!(denied.denied.len(), 1, "{denied:?}");
            assert_eq!(change(&scene, &mut stream).await, None);
            // An approval afterwards changes nothing.
            scene.decides(&intent, Verdict::Allow).await;
            scene.approves(&intent, Verdict::Allow).await;
            let mut again = follow(&scene, &intent).await;
            let told = change(&scene, &mut again).await.unwrap();
            assert_eq!(
                (told.state(), told.clearance_leaf),
                (IntentState::Denied, None)
            );
        }
        let log = Log::read(&scene.clients, &scene.ledger).await;
        let clearances = leaves_with(&log, |body| matches!(body, Body::Clearance(_)));
        assert!(clearances.is_empty(), "{clearances:?}");
        replays(&scene).await;
        scene.ends_clean();
    });
}

/// Opens the scene's ledger with the client library.
async fn client(scene: &Scene, url: &str, state: &TempDir) -> Ledger {
    let options = Options::new(url, &scene.ledger.name).state(StateDir::new(state.path()));
    let connected = within("the library's connection", Ledger::connect(options)).await;
    connected.expect("a connection")
}

#[test]
fn a_clearance_is_awaited_through_a_kill() {
    run(async {
        let mut scene = Scene::set().await;
        let grant = scene.grant(TASK, 5, Some(10_000)).await;
        let intent = scene.intends(&grant).await;
        let state = TempDir::new().unwrap();
        let ledger = client(&scene, &scene.server().url(), &state).await;
        let leaf = LeafIndex::new(intent.leaf.leaf_index);
        let mut watch = ledger.await_clearance(leaf);
        let first = within("the first answer", watch.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(first.state, IntentState::Waiting);
        let address = scene.kill();
        let watching = tokio::spawn(async move {
            let mut told = Vec::new();
            while let Some(standing) = watch.next().await.expect("the watch goes on") {
                told.push(standing);
            }
            told
        });
        scene.restart(address).await;
        scene.decides(&intent, Verdict::Allow).await;
        scene.approves(&intent, Verdict::Allow).await;
        let told = within("the clearance", watching).await.unwrap();
        let last = told.last().expect("a last word");
        assert_eq!(last.state, IntentState::Cleared, "{told:?}");
        let clearance = last.clearance.as_ref().expect("the Clearance, proven");
        assert_eq!(clearance.author, Author::Ledger);
        // The first state was sent before the kill, and is not sent again.
        assert!(told.len() <= 2, "{told:?}");
        replays(&scene).await;
        scene.ends_clean();
    });
}

#[test]
fn the_task_helper_acts_on_a_clearance_alone() {
    run(async {
        let mut scene = Scene::set().await;
        let grant = scene.grant(TASK, 5, Some(10_000)).await;
        let state = TempDir::new().unwrap();
        let ledger = client(&scene, &scene.server().url(), &state).await;
        let signing = Signing::Each(Arc::new(agent_key()));
        let session = Session::with_nonce(ledger.ledger_id(), AGENT, Nonce::new([0x77; 16]));
        let mut task = Task::of(&ledger, session, signing, TaskId::new(scene.task_id(TASK)));

        // This Intent is denied at once.
        let outside = v1::Intent {
            resource: "account/7".to_owned(),
            ..payment(&grant, 1999)
        };
        let denied = within("a denial", task.intend(outside)).await.unwrap_err();
        assert!(matches!(denied, ActError::Denied { .. }), "{denied}");

        // The call waits for as long as evidence is missing. The recorded Intent is visible to
        // others.
        let wanted = payment(&grant, 1999);
        let mut acting = tokio::spawn(async move {
            let cleared = task.intend(wanted).await;
            (task, cleared)
        });
        let leaf = until("the Intent's leaf", || async {
            let acts = scene.acts(TASK).await;
            let waiting = |act: &&v1::ActInfo| act.state() == IntentState::Waiting;
            acts.iter().find(waiting).map(|act| act.intent_leaf)
        })
        .await;
        let log = Log::read(&scene.clients, &scene.ledger).await;
        let intent = Announced {
            leaf: v1::LeafRef {
                leaf_index: leaf,
                leaf_hash: Bytes::copy_from_slice(
                    log.leaf_hashes[usize::try_from(leaf).unwrap()].as_bytes(),
                ),
            },
            assessed: v1::Assessed::default(),
            reference: v1::StatementRef::default(),
            arguments: None,
        };
        scene.decides(&intent, Verdict::Allow).await;
        // Half of the evidence is not enough. (Nothing may happen in this time.)
        let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut acting);
        assert!(
            early.await.is_err(),
            "it was let through without the approval"
        );
        let approved = scene.approves(&intent, Verdict::Allow).await;
        let (mut task, cleared) = within("the clearance", acting).await.unwrap();
        let cleared = cleared.expect("cleared");
        assert_eq!(cleared.leaf().get(), leaf);
        assert_eq!(
            cleared.clearance().map(LeafIndex::get),
            Some(approved.leaf_index + 1)
        );
        let outcome = v1::Outcome {
            status: v1::OutcomeStatus::Succeeded.into(),
            effects: vec![crate::refunded()],
            tool_call: Some(committed(3)),
            response: Some(committed(4)),
            ..v1::Outcome::default()
        };
        within("the outcome", task.complete(cleared, outcome))
            .await
            .expect("recorded");
        let acts = scene.acts(TASK).await;
        assert_eq!(acts[1].state(), IntentState::Completed, "{acts:?}");
        assert_eq!(acts[1].outcome(), OutcomeState::Unobserved);
        // Only the denied Intent has a finding.
        assert_eq!(scene.kinds().await, [FindingKind::ScopeExceeded]);
        replays(&scene).await;
        scene.ends_clean();
    });
}

#[test]
fn receipts_of_tasks_hold_what_is_there() {
    run(async {
        let mut scene = Scene::set().await;
        let ask = async |scene: &Scene, task: Bytes| {
            let request = v1::RequestTaskReceiptRequest {
                ledger: scene.ledger.name.clone(),
                task,
            };
            let mut actions = scene.clients.actions.clone();
            within("a receipt", actions.request_task_receipt(request)).await
        };
        let grant = scene.grant(TASK, 5, Some(10_000)).await;
        scene.intends(&grant).await;
        let task = Bytes::copy_from_slice(&scene.task_id(TASK));
        let answer = ask(&scene, task.clone()).await.unwrap().into_inner();
        let head = scene.ledger.open(&answer.checkpoint);
        let index = LeafIndex::new(answer.leaf_index);
        let proof = inclusion_proof(&answer.inclusion_proof);
        verify_inclusion(&proof, &leaf_hash(&answer.entry), index, &head).expect("a proof");
        // A receipt is written at the end of the task, whether it was asked for or not.
        let closed = scene.close(TASK).await;
        ask(&scene, task.clone()).await.unwrap();

        let log = Log::read(&scene.clients, &scene.ledger).await;
        let receipts = leaves_with(&log, |body| matches!(body, Body::TaskReceipt(_)));
        let last = closed.leaf_index + 1;
        assert_eq!(receipts, [answer.leaf_index, last, last + 1]);
        let mut h = digest::START;
        let (mut count, mut through) = (0, 0);
        let mut requested = Vec::new();
        for (leaf, leaf_hash) in (0..).zip(&log.leaf_hashes) {
            let (author, said) = statement_at(&log, leaf);
            if said.task != task {
                continue;
            }
            if let Some(Body::TaskReceipt(receipt)) = &said.body {
                assert_eq!(author, Author::Ledger);
                assert_eq!((receipt.count, receipt.through_leaf), (count, through));
                assert_eq!(hash(&receipt.digest), h, "leaf {leaf}");
                requested.push(receipt.requested);
            }
            (h, count, through) = (digest::entries(&h, leaf_hash), count + 1, leaf);
        }
        assert_eq!(requested, [true, false, true]);

        // This task does not exist.
        let unknown = ask(&scene, Bytes::from_static(&[9; 16])).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
        let short = ask(&scene, Bytes::from_static(&[9; 15])).await.unwrap_err();
        assert_eq!(short.code(), Code::InvalidArgument, "{short}");
        replays(&scene).await;
        scene.ends_clean();
    });
}

#[test]
fn a_second_statement_for_a_place_is_kept_once_as_evidence() {
    run(async {
        let mut scene = Scene::set().await;
        let mut session = scene.agent_session();
        let look = |resource: &str| {
            Body::Intent(v1::Intent {
                action: "orders.look".to_owned(),
                resource: resource.to_owned(),
                ..v1::Intent::default()
            })
        };
        let before = session.clone();
        let first = scene.record(session.says_in(LOW, look("order/1"))).await;
        scene.record(session.says_in(LOW, look("order/2"))).await;
        let size = scene.ledger.head(&scene.clients).await.size.get();

        let second = before.clone().says_in(LOW, look("order/3"));
        let rejection = scene.refused(second.clone()).await;
        assert_eq!(rejection.reason(), Reason::SequenceReused, "{rejection:?}");
        assert_eq!(rejection.expected_sequence, Some(2));
        let log = Log::read(&scene.clients, &scene.ledger).await;
        assert_eq!(log.head.size.get(), size + 1, "it is kept");
        let kept = Entry::parse(log.entries.last().unwrap()).unwrap();
        assert_eq!(kept.payload, second.payload);
        let findings = scene.findings().await;
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].kind(), FindingKind::Equivocation);
        assert_eq!(findings[0].leaf_index, size);
        assert_eq!(findings[0].contradicts_leaf, Some(first.leaf_index));

        // It is recorded once: not again, not in a third form, and not after a restart.
        for round in 0..2 {
            for resource in ["order/3", "order/4"] {
                let again = before.clone().says_in(LOW, look(resource));
                let rejection = scene.refused(again).await;
                assert_eq!(
                    rejection.reason(),
                    Reason::SequenceReused,
                    "{round} {resource}"
                );
            }
            assert_eq!(scene.ledger.head(&scene.clients).await.size.get(), size + 1);
            if round == 0 {
                let address = scene.kill();
                scene.restart(address).await;
            }
        }
        // It is not an act, and the session goes on.
        let acts = scene.acts(LOW).await;
        assert_eq!(acts.len(), 2, "{acts:?}");
        scene.record(session.says_in(LOW, look("order/5"))).await;
        replays(&scene).await;
        scene.ends_clean();
    });
}
