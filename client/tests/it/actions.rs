//! Clearance, tasks, findings and search: from an honest server, and from lying ones.

use bytes::Bytes;
use deed_client::{
    ActError, Error, ErrorKind, FindingFilter, InputError, Ledger, SearchTerms, Session, Signing,
    Task, TrustError,
};
use deed_evidence::{Nonce, TaskId};
use deed_proto::v1::{self, FindingKind, IntentState, Severity, statement::Body};
use deed_testkit::fake::Lie;
use deed_tlog::LeafIndex;

use crate::scene::{Scene, scene};

const AGENT: &str = "spiffe://example.org/agent";

impl Scene {
    fn stands(&self, states: &[IntentState]) {
        let standing = |state: &IntentState| v1::ClearanceResponse {
            state: (*state).into(),
            missing: match state {
                IntentState::Waiting => vec!["approval".to_owned()],
                _ => Vec::new(),
            },
            denied: match state {
                IntentState::Denied => vec!["refused".to_owned()],
                _ => Vec::new(),
            },
            ..v1::ClearanceResponse::default()
        };
        self.fake.lock().script.standings = states.iter().map(standing).collect();
    }

    /// Says of Intents how they stand when they are recorded.
    fn assesses(&self, state: IntentState, denied: &[&str]) {
        self.fake.lock().script.assessed = Some(v1::Assessed {
            intent: state.into(),
            denied: denied.iter().map(|one| (*one).to_owned()).collect(),
            ..v1::Assessed::default()
        });
    }

    /// A task with an id of its own, opened at the next leaf.
    async fn task(&self, id: u8) -> Task {
        let session = Session::with_nonce(self.ledger.ledger_id(), AGENT, Nonce::new([id; 16]));
        let opened = v1::TaskOpened {
            requested_by: "somebody".to_owned(),
            risk_tier: v1::RiskTier::Payment.into(),
            ..v1::TaskOpened::default()
        };
        Task::open(&self.ledger, session, Signing::None, opened)
            .await
            .unwrap()
    }
}

fn intent(action: &str) -> v1::Intent {
    v1::Intent {
        action: action.to_owned(),
        resource: "order/7".to_owned(),
        arguments: Some(v1::Commitment {
            digest: Bytes::from_static(&[8; 32]),
            media_type: "application/json".to_owned(),
        }),
        ..v1::Intent::default()
    }
}

fn succeeded() -> v1::Outcome {
    v1::Outcome {
        status: v1::OutcomeStatus::Succeeded.into(),
        ..v1::Outcome::default()
    }
}

#[tokio::test]
async fn a_clearance_is_awaited_across_lost_connections() {
    let scene = scene().await;
    let mut task = scene.task(1).await;
    scene.stands(&[IntentState::Waiting, IntentState::Cleared]);
    scene.fake.lock().script.cuts = 3;
    // Leaf 1 is no Intent: nothing but the waiting is looked at.
    let watch = scene.ledger.await_clearance(LeafIndex::new(1));
    let mut watch = watch.by_servers_word();
    let first = watch.next().await.unwrap().unwrap();
    assert_eq!(first.state, IntentState::Waiting);
    assert_eq!(first.missing, ["approval"]);
    // A state that was reported before the connection broke is not reported again.
    let second = watch.next().await.unwrap().unwrap();
    assert_eq!(second.state, IntentState::Cleared);
    assert_eq!(watch.next().await.unwrap(), None);
    assert_eq!(scene.fake.lock().script.clearances, 4);
    task.settle().await.unwrap();
}

#[tokio::test]
async fn a_clearance_must_be_there_and_be_the_intents() {
    let scene = scene().await;
    let mut task = scene.task(1).await;
    scene.assesses(IntentState::Waiting, &[]);
    let named = |leaf: u64| {
        scene.stands(&[IntentState::Cleared]);
        scene.fake.lock().script.standings[0].clearance_leaf = Some(leaf);
    };
    // The Intent will be leaf 2: this one clears leaf 1.
    let other = scene.fake.leaf_ref(1);
    for wrong in [0, 1] {
        named(wrong);
        let error = task.intend(intent("a")).await.unwrap_err();
        let ActError::Client(error) = error else {
            panic!("{error}");
        };
        assert_eq!(error.kind(), ErrorKind::DoesNotVerify, "{error}");
    }
    let wrong = scene.fake.clear(task.id(), other);
    named(wrong);
    let error = task.intend(intent("a")).await.unwrap_err();
    assert!(error.to_string().contains("should clear"), "{error}");
    // The last Intent is leaf 5.
    let right = scene.fake.clear(task.id(), scene.fake.leaf_ref(5));
    named(right);
    let watch = scene.ledger.await_clearance(LeafIndex::new(5));
    let standing = watch.by_servers_word().settled().await.unwrap();
    assert_eq!(standing.clearance.unwrap().index.get(), right);
    // This clearance names evidence that does not exist.
    let watch = scene.ledger.await_clearance(LeafIndex::new(5));
    let error = watch.settled().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DoesNotVerify, "{error}");
}

#[tokio::test]
async fn only_what_is_cleared_can_be_completed() {
    let scene = scene().await;
    let mut task = scene.task(1).await;
    // At once.
    scene.assesses(IntentState::Cleared, &[]);
    let cleared = task.intend(intent("a")).await.unwrap();
    assert_eq!(cleared.clearance(), None);
    let receipt = task.complete(cleared, succeeded()).await.unwrap();
    let outcome = scene.ledger.statement(receipt.leaf_index).await.unwrap();
    let Some(Body::Outcome(outcome)) = outcome.body() else {
        panic!("{outcome:?}");
    };
    // The Outcome names the Intent, and copies its commitment.
    let reference = outcome.intent.as_ref().unwrap();
    let session = task.session().id();
    assert_eq!(reference.session, session.as_bytes()[..]);
    assert_eq!(reference.sequence, 1);
    assert_eq!(outcome.arguments, intent("a").arguments);
    // After waiting.
    scene.assesses(IntentState::Waiting, &[]);
    scene.stands(&[IntentState::Waiting, IntentState::Cleared]);
    let cleared = task.intend(intent("b")).await.unwrap();
    task.complete(cleared, succeeded()).await.unwrap();
    // No token comes of anything else.
    scene.assesses(IntentState::Denied, &["scope_exceeded"]);
    let error = task.intend(intent("c")).await.unwrap_err();
    assert!(
        matches!(&error, ActError::Denied { reasons, .. } if reasons == &["scope_exceeded"]),
        "{error}"
    );
    scene.assesses(IntentState::Waiting, &[]);
    scene.stands(&[IntentState::Denied]);
    let error = task.intend(intent("d")).await.unwrap_err();
    assert!(matches!(error, ActError::Denied { .. }), "{error}");
    for state in [
        IntentState::Lapsed,
        IntentState::Overdue,
        IntentState::Completed,
    ] {
        scene.stands(&[state]);
        let error = task.intend(intent("e")).await.unwrap_err();
        assert!(
            matches!(&error, ActError::Lapsed { state: found, .. } if *found == state),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_rejected_intent_uses_no_sequence() {
    let scene = scene().await;
    let mut task = scene.task(1).await;
    scene.assesses(IntentState::Cleared, &[]);
    scene.fake.lock().script.unwanted = vec![1];
    let error = task.intend(intent("a")).await.unwrap_err();
    assert!(matches!(error, ActError::Rejected(_)), "{error}");
    scene.fake.lock().script.unwanted.clear();
    let _ = task.intend(intent("a")).await.unwrap();
    let sequences = scene.fake.lock().script.sequences.clone();
    // No other statement is sent for its place.
    assert_eq!(sequences, [0, 1, 2]);
}

#[tokio::test]
async fn what_nobody_waited_for_goes_out_again_first() {
    let scene = scene().await;
    let mut task = scene.task(1).await;
    scene.assesses(IntentState::Cleared, &[]);
    // Recorded, but the answer is not believed.
    scene.lie(Lie::Signature);
    let error = task.intend(intent("a")).await.unwrap_err();
    assert!(matches!(error, ActError::Client(_)), "{error}");
    scene.lie(Lie::None);
    let _ = task.intend(intent("b")).await.unwrap();
    // Another statement in its place would be an equivocation.
    let sequences = scene.fake.lock().script.sequences.clone();
    assert_eq!(sequences, [0, 1, 1, 2]);
    assert_eq!(scene.fake.size(), 4);
}

#[tokio::test]
async fn a_tasks_story_is_what_its_digest_says() {
    let scene = scene().await;
    let mut other = scene.task(9).await;
    let mut task = scene.task(1).await;
    scene.assesses(IntentState::Cleared, &[]);
    let cleared = task.intend(intent("a")).await.unwrap();
    let _ = other.intend(intent("b")).await.unwrap();
    task.complete(cleared, succeeded()).await.unwrap();
    let receipt = scene.ledger.request_task_receipt(task.id()).await.unwrap();
    let Some(Body::TaskReceipt(said)) = receipt.body() else {
        panic!("{receipt:?}");
    };
    assert_eq!(said.count, 3);
    task.close(v1::TaskEnd::Completed, "").await.unwrap();
    let told = scene.ledger.task(task.id()).await.unwrap();
    assert_eq!(told.info.count, 5);
    let leaves: Vec<_> = told.entries.iter().map(|one| one.index.get()).collect();
    assert_eq!(leaves, [2, 3, 5, 6, 7]);
    assert_eq!(told.info.receipt_leaf, Some(6));
    assert_eq!(told.acts.len(), 1);
    let nobodys = TaskId::new([0xee; 16]);
    let error = scene.ledger.task(nobodys).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    scene.ledger.flush().await.unwrap();
}

/// Anybody who may append can make a task very long; a reader must not have to load it.
#[tokio::test]
async fn a_task_that_is_too_long_is_refused_before_it_is_read() {
    let scene = scene().await;
    let mut task = scene.task(1).await;
    scene.assesses(IntentState::Cleared, &[]);
    let _ = task.intend(intent("a")).await.unwrap();
    scene.lie(Lie::TaskLong);
    let error = scene.ledger.task(task.id()).await.unwrap_err();
    let is_too_long = matches!(
        error,
        Error::Input(InputError::TaskTooLong {
            found: 530_000..,
            max: 131_072
        })
    );
    assert!(is_too_long, "{error}");
    assert!(error.to_string().contains("deed audit"), "{error}");
}

fn trust_error(error: &Error) -> &TrustError {
    match error {
        Error::Trust(error) => error,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn lies_about_a_task_are_noticed() {
    let scene = scene().await;
    let mut task = scene.task(1).await;
    scene.assesses(IntentState::Cleared, &[]);
    let cleared = task.intend(intent("a")).await.unwrap();
    task.complete(cleared, succeeded()).await.unwrap();
    for (lie, says) in [
        (Lie::TaskDigest, "left out, or others are put in"),
        (Lie::TaskOmitted, "left out, or others are put in"),
        (Lie::TaskPointer, "is no Intent of it"),
    ] {
        scene.lie(lie);
        let error = scene.ledger.task(task.id()).await.unwrap_err();
        assert!(
            matches!(trust_error(&error), TrustError::Task { .. }),
            "{error}"
        );
        assert!(error.to_string().contains(says), "{lie:?}: {error}");
    }
    scene.lie(Lie::Inclusion);
    let error = scene.ledger.task(task.id()).await.unwrap_err();
    assert!(
        matches!(trust_error(&error), TrustError::Proof { .. }),
        "{error}"
    );
    scene.lie(Lie::OtherReceipt);
    let error = scene
        .ledger
        .request_task_receipt(task.id())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("is no receipt of task"),
        "{error}"
    );
    // If the server rewrites number and digest too, only an earlier receipt shows the lie.
    scene.lie(Lie::None);
    assert!(scene.ledger.task(task.id()).await.is_ok());
    scene.lie(Lie::TaskRewritten);
    let error = scene.ledger.task(task.id()).await.unwrap_err();
    assert!(error.to_string().contains("the receipt at leaf"), "{error}");
    assert_eq!(error.kind(), ErrorKind::DoesNotVerify);
}

async fn found(ledger: &Ledger, terms: SearchTerms) -> Result<Vec<u64>, Error> {
    let (mut search, mut leaves) = (ledger.search(terms), Vec::new());
    while let Some(found) = search.next().await? {
        leaves.extend(found.iter().map(|one| one.index.get()));
    }
    Ok(leaves)
}

#[tokio::test]
async fn what_is_found_has_the_terms() {
    let scene = scene().await;
    let mut task = scene.task(1).await;
    scene.assesses(IntentState::Cleared, &[]);
    for action in ["a", "b", "a", "a"] {
        let _ = task.intend(intent(action)).await.unwrap();
    }
    let terms = || SearchTerms {
        action: Some("a".to_owned()),
        agent: Some(AGENT.to_owned()),
        resource: Some("order/7".to_owned()),
        task: Some(task.id()),
        ..SearchTerms::default()
    };
    assert_eq!(found(&scene.ledger, terms()).await.unwrap(), [2, 4, 5]);
    // Streams that break are gone on with behind the last entry.
    scene.fake.lock().script.cuts = 3;
    assert_eq!(found(&scene.ledger, terms()).await.unwrap(), [2, 4, 5]);
    let limited = SearchTerms {
        limit: Some(2),
        ..terms()
    };
    scene.fake.lock().script.cuts = 1;
    assert_eq!(found(&scene.ledger, limited).await.unwrap(), [2, 4]);
    let later = SearchTerms {
        start: 3,
        ..terms()
    };
    assert_eq!(found(&scene.ledger, later.clone()).await.unwrap(), [4, 5]);
    scene.lie(Lie::SearchBeyond);
    let error = found(&scene.ledger, later.clone()).await.unwrap_err();
    assert!(error.to_string().contains("a search below leaf"), "{error}");
    scene.lie(Lie::SearchOther);
    for (terms, says) in [
        (later, "names another action"),
        (
            SearchTerms {
                correlation_key: Some(("order".to_owned(), "7".to_owned())),
                ..SearchTerms::default()
            },
            "lacks the correlation key",
        ),
        (
            SearchTerms {
                trace_id: Some([1; 16]),
                ..SearchTerms::default()
            },
            "is of another trace",
        ),
        (
            SearchTerms {
                agent: Some("somebody:else".to_owned()),
                ..SearchTerms::default()
            },
            "is another producer's",
        ),
    ] {
        let error = found(&scene.ledger, terms).await.unwrap_err();
        assert!(
            matches!(trust_error(&error), TrustError::Found { .. }),
            "{error}"
        );
        assert!(error.to_string().contains(says), "{error}");
    }
    scene.lie(Lie::Inclusion);
    let error = found(&scene.ledger, SearchTerms::default())
        .await
        .unwrap_err();
    assert!(
        matches!(trust_error(&error), TrustError::Proof { .. }),
        "{error}"
    );
}

fn finding(leaf_index: u64, number: u32, kind: FindingKind) -> v1::Finding {
    v1::Finding {
        leaf_index,
        number,
        kind: kind.into(),
        severity: Severity::Warning.into(),
        about_leaf: leaf_index,
        ..v1::Finding::default()
    }
}

#[tokio::test]
async fn findings_come_in_pages_and_as_they_arise() {
    let scene = scene().await;
    scene.fake.add_leaf(1);
    scene.fake.add_leaf(2);
    let all = vec![
        finding(1, 0, FindingKind::SelfApproval),
        finding(1, 1, FindingKind::HastyApproval),
        finding(2, 0, FindingKind::SelfApproval),
    ];
    scene.fake.lock().findings = all.clone();
    let mut filter = FindingFilter::default();
    let (mut pages, mut listed) = (0, Vec::new());
    loop {
        let page = scene.ledger.findings(&filter, 2).await.unwrap();
        pages += 1;
        listed.extend(page.findings);
        match page.next {
            Some(next) => filter.start = next,
            None => break,
        }
    }
    assert_eq!((pages, &listed), (2, &all));
    // Each stream breaks after its first message.
    scene.fake.lock().script.cuts = 3;
    let mut watch = scene.ledger.watch_findings(FindingFilter::default());
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(watch.next().await.unwrap().findings);
    }
    assert_eq!(seen, all);
    let approvals = FindingFilter {
        kinds: vec![FindingKind::SelfApproval],
        ..FindingFilter::default()
    };
    let page = scene.ledger.findings(&approvals, 10).await.unwrap();
    assert_eq!(page.findings.len(), 2);
    scene.lie(Lie::FindingsOther);
    let error = scene.ledger.findings(&approvals, 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DoesNotVerify, "{error}");
    let mut watch = scene.ledger.watch_findings(approvals);
    let error = loop {
        if let Err(error) = watch.next().await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::DoesNotVerify, "{error}");
}
