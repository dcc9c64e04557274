//! Tests of search and findings over the service.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use deed_proto::v1::{
    self, Finding, FindingKind, Severity, actions_server::Actions as _, statement::Body,
};
use deed_tlog::{
    Checkpoint, Hash, InclusionProof, LeafIndex, SigningKey, TreeHead, VerifierKey, leaf_hash,
    verify_inclusion,
};
use futures::{FutureExt as _, StreamExt as _};
use tempfile::TempDir;
use tokio::sync::watch;
use tonic::{Code, Request, Status};

use super::{Answers, actions::ActionsService};
use deed_engine::ledger::Ledger;

use crate::{
    access::Caller,
    testing::{AGENT, Authority, Engine, Producer, TASK, briefs, context, signed, task_of},
};

const NAME: &str = "acts";

/// A ledger whose service is called without a network.
struct Served {
    engine: Engine,
    ledger: Arc<Ledger>,
    service: ActionsService,
    producer: Producer,
    stop: watch::Sender<bool>,
    _dir: TempDir,
}

impl Served {
    /// Appends `statements` statements, every tenth about the resource `ten`.
    fn with(statements: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (engine, ledger) = apart(|| {
            let engine = Engine::open(dir.path());
            let ledger = engine.create(NAME).unwrap();
            (engine, ledger)
        });
        let (context, stop) = context(&engine);
        let mut served = Self {
            producer: Producer::new(ledger.id, 1),
            service: ActionsService(context),
            engine,
            ledger,
            stop,
            _dir: dir,
        };
        if statements > 0 {
            served.append(statements);
        }
        served
    }

    fn append(&mut self, statements: usize) {
        let resource = |n: usize| if n.is_multiple_of(10) { "ten" } else { "other" };
        let envelopes: Vec<_> = (0..statements)
            .map(|n| self.producer.intent(resource(n)))
            .collect();
        let answer = apart(|| self.engine.append(NAME, envelopes));
        assert_eq!(briefs(&answer.unwrap()).len(), statements);
    }

    async fn search(&self, request: v1::SearchRequest) -> Result<Vec<v1::SearchResponse>, Status> {
        let answers = self.service.search(ask(request)).await?.into_inner();
        answers.collect::<Vec<_>>().await.into_iter().collect()
    }

    async fn list(&self, request: v1::ListFindingsRequest) -> v1::ListFindingsResponse {
        let answer = self.service.list_findings(ask(request)).await;
        answer.unwrap().into_inner()
    }

    async fn watch(&self, request: v1::WatchFindingsRequest) -> Answers<v1::WatchFindingsResponse> {
        let answers = self.service.watch_findings(ask(request)).await;
        answers.unwrap().into_inner()
    }

    fn head(&self, checkpoint: &[u8]) -> TreeHead {
        let key: VerifierKey = self.ledger.log_key(self.ledger.readable().size());
        Checkpoint::open(checkpoint, &key).unwrap().0.head
    }
}

/// Runs a function on another thread: the engine blocks while it waits for answers, which a thread
/// of the runtime must not.
fn apart<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

fn ask<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller::unrestricted());
    request
}

fn request() -> v1::SearchRequest {
    v1::SearchRequest {
        ledger: NAME.to_owned(),
        ..v1::SearchRequest::default()
    }
}

fn leaves(answers: &[v1::SearchResponse]) -> Vec<u64> {
    let entries = answers.iter().flat_map(|answer| &answer.entries);
    entries.map(|entry| entry.leaf_index).collect()
}

fn finding(leaf_index: u64, number: u32, kind: FindingKind, severity: Severity) -> Finding {
    Finding {
        leaf_index,
        number,
        kind: kind.into(),
        severity: severity.into(),
        task: Bytes::copy_from_slice(&[u8::try_from(leaf_index % 2).unwrap(); 16]),
        ..Finding::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_is_proven_under_one_head() {
    let served = Served::with(3_000);
    let asked = v1::SearchRequest {
        resource: "ten".to_owned(),
        with_proofs: true,
        ..request()
    };
    let answers = served.search(asked).await.unwrap();
    let sizes: Vec<_> = answers.iter().map(|answer| answer.entries.len()).collect();
    assert_eq!(sizes, [64, 64, 64, 64, 44]);
    let head = served.head(&answers[0].checkpoint);
    assert_eq!(head.size.get(), 3_001);
    assert!(answers[1].checkpoint.is_empty());
    assert_eq!(answers[4].searched_to, 3_001);
    assert_eq!(answers[4].indexed_to, 0);
    for entry in answers.iter().flat_map(|answer| &answer.entries) {
        let hashes = entry.inclusion_proof.iter();
        let hashes = hashes.map(|hash| Hash::try_from(&hash[..]).unwrap());
        let proof = InclusionProof::from_hashes(hashes.collect()).unwrap();
        let index = LeafIndex::new(entry.leaf_index);
        verify_inclusion(&proof, &leaf_hash(&entry.entry), index, &head).unwrap();
    }
    let expected: Vec<_> = (0..300).map(|n| 1 + 10 * n).collect();
    assert_eq!(leaves(&answers), expected);
    served.engine.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_is_resumed_where_it_ended_and_says_how_far_it_came() {
    let served = Served::with(100);
    let ten = v1::SearchRequest {
        resource: "ten".to_owned(),
        limit: 3,
        ..request()
    };
    let answers = served.search(ten.clone()).await.unwrap();
    assert_eq!((leaves(&answers), answers.len()), (vec![1, 11, 21], 1));
    assert_eq!(answers[0].searched_to, 22);
    assert!(answers[0].entries[0].inclusion_proof.is_empty());
    let rest = v1::SearchRequest {
        start: 22,
        end: 60,
        limit: 0,
        ..ten
    };
    let answers = served.search(rest).await.unwrap();
    assert_eq!(leaves(&answers), [31, 41, 51]);
    assert_eq!(answers[0].searched_to, 60);
    // There is one message, if nothing is found and if nothing is there to be searched.
    for (agent, start) in [("spiffe://example.org/nobody", 0), ("", 101)] {
        let nothing = v1::SearchRequest {
            agent: agent.to_owned(),
            start,
            ..request()
        };
        let answers = served.search(nothing).await.unwrap();
        assert_eq!((answers.len(), leaves(&answers).len()), (1, 0));
        assert_eq!(answers[0].searched_to, 101);
        assert_eq!(served.head(&answers[0].checkpoint).size.get(), 101);
    }
    served.engine.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_searched_for_is_refused_by_name() {
    let served = Served::with(1);
    let with = |change: fn(&mut v1::SearchRequest)| {
        let mut asked = request();
        change(&mut asked);
        asked
    };
    for (asked, code, says) in [
        (
            with(|it| it.task = Bytes::from_static(&[1; 15])),
            Code::InvalidArgument,
            "task",
        ),
        (
            with(|it| it.trace_id = Bytes::from_static(b"x")),
            Code::InvalidArgument,
            "trace_id",
        ),
        (
            with(|it| it.finding = 9_999),
            Code::InvalidArgument,
            "finding",
        ),
        (
            with(|it| it.limit = 1_000_001),
            Code::InvalidArgument,
            "limit",
        ),
        (with(|it| it.from_us = -1), Code::InvalidArgument, "from_us"),
        (
            with(|it| (it.from_us, it.until_us) = (5, 4)),
            Code::InvalidArgument,
            "until_us",
        ),
        (
            with(|it| (it.start, it.end) = (2, 1)),
            Code::InvalidArgument,
            "start",
        ),
        (with(|it| it.end = 3), Code::OutOfRange, "end 3"),
        (with(|it| it.start = 3), Code::OutOfRange, "start 3"),
        (
            with(|it| it.ledger = "nobody".to_owned()),
            Code::NotFound,
            "nobody",
        ),
    ] {
        let status = served.search(asked).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(says), "{status}");
    }
    served.stop.send_replace(true);
    let status = served.search(request()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    served.engine.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_come_in_pages_by_kind_severity_and_task() {
    use FindingKind::{ClockSkew, SelfApproval};
    let served = Served::with(20);
    let mut findings = Vec::new();
    for leaf in 1..=20 {
        findings.push(finding(leaf, 0, ClockSkew, Severity::Notice));
        findings.push(finding(leaf, 1, SelfApproval, Severity::Serious));
    }
    served.engine.find(&served.ledger, &findings);
    // This turn is on disk and not readable yet.
    let early = finding(21, 0, ClockSkew, Severity::Serious);
    served.engine.find(&served.ledger, &[early]);

    let all = v1::ListFindingsRequest {
        ledger: NAME.to_owned(),
        page_size: 7,
        ..v1::ListFindingsRequest::default()
    };
    let (mut found, mut next, mut pages) = (Vec::new(), Some(0), 0);
    let mut number = 0;
    while let Some(start_leaf) = next {
        let page = v1::ListFindingsRequest {
            start_leaf,
            start_number: number,
            ..all.clone()
        };
        let page = served.list(page).await;
        assert_eq!(served.head(&page.checkpoint).size.get(), 21);
        found.extend(page.findings);
        (next, number) = (page.next_leaf, page.next_number);
        pages += 1;
    }
    assert_eq!((found, pages), (findings.clone(), 6));

    let some = v1::ListFindingsRequest {
        kinds: vec![SelfApproval.into()],
        severity_min: Severity::Warning.into(),
        task: Bytes::from_static(&[1; 16]),
        start_leaf: 5,
        start_number: 2,
        page_size: 0,
        ..all.clone()
    };
    let some = served.list(some).await;
    let places: Vec<_> = some.findings.iter().map(|it| it.leaf_index).collect();
    assert_eq!(places, [7, 9, 11, 13, 15, 17, 19]);
    assert_eq!(some.next_leaf, None);

    for (bad, says) in [
        (
            v1::ListFindingsRequest {
                page_size: 1_001,
                ..all.clone()
            },
            "page_size",
        ),
        (
            v1::ListFindingsRequest {
                kinds: vec![-1],
                ..all.clone()
            },
            "kinds",
        ),
        (
            v1::ListFindingsRequest {
                severity_min: 4,
                ..all.clone()
            },
            "severity_min",
        ),
        (
            v1::ListFindingsRequest {
                task: Bytes::from_static(b"t"),
                ..all
            },
            "task",
        ),
    ] {
        let status = served.service.list_findings(ask(bad)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(says), "{status}");
    }
    served.engine.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_are_followed_as_they_arise() {
    use FindingKind::{ClockSkew, SelfApproval};
    let mut served = Served::with(10);
    let first = finding(3, 0, ClockSkew, Severity::Notice);
    let second = finding(3, 1, SelfApproval, Severity::Serious);
    served.engine.find(&served.ledger, &[first, second.clone()]);
    let asked = v1::WatchFindingsRequest {
        ledger: NAME.to_owned(),
        start_leaf: 3,
        start_number: 1,
        ..v1::WatchFindingsRequest::default()
    };
    let mut answers = served.watch(asked.clone()).await;
    let mut next = async || answers.next().await.unwrap();
    let answer = next().await.unwrap();
    assert_eq!((answer.findings, answer.searched_to), (vec![second], 11));

    // The finding is written, and visible only when its leaf is.
    let third = finding(11, 0, ClockSkew, Severity::Notice);
    served
        .engine
        .find(&served.ledger, std::slice::from_ref(&third));
    assert!(next().now_or_never().is_none());
    served.append(1);
    let answer = next().await.unwrap();
    assert_eq!((answer.findings, answer.searched_to), (vec![third], 12));

    // The tree grows without a finding: that is reported a second after the last message.
    served.append(1);
    let before = tokio::time::Instant::now();
    let answer = next().await.unwrap();
    assert!(before.elapsed() > Duration::from_millis(500));
    assert_eq!((answer.findings.len(), answer.searched_to), (0, 13));
    assert_eq!(served.head(&answer.checkpoint).size.get(), 13);

    // The stream begins beyond the tree, and ends when the server stops.
    let later = v1::WatchFindingsRequest {
        start_leaf: 14,
        start_number: 0,
        kinds: vec![SelfApproval.into()],
        ..asked
    };
    let mut later = served.watch(later).await;
    assert_eq!(later.next().await.unwrap().unwrap().searched_to, 13);
    let wanted = finding(14, 0, SelfApproval, Severity::Notice);
    let others = [
        finding(13, 0, SelfApproval, Severity::Notice),
        wanted.clone(),
        finding(14, 1, ClockSkew, Severity::Notice),
    ];
    served.engine.find(&served.ledger, &others);
    served.append(2);
    assert_eq!(later.next().await.unwrap().unwrap().findings, [wanted]);
    served.stop.send_replace(true);
    assert_eq!(
        later.next().await.unwrap().unwrap_err().code(),
        Code::Unavailable
    );
    assert!(later.next().await.is_none());
    served.engine.close();
}

/// A task stream is read from the moment at which it was begun, however long it takes: later turns
/// change none of it, and it is proven under the head of that moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_story_is_told_from_one_moment() {
    let mut served = Served::with(0);
    let mut authority = Authority::new(served.ledger.id);
    let key = SigningKey::from_seed(&[7; 32]);
    let say = |served: &Served, envelope: v1::Envelope| {
        let answer = apart(|| served.engine.append(NAME, vec![envelope])).unwrap();
        assert!(briefs(&answer)[0].starts_with("accepted"), "{answer:?}");
    };
    say(&served, authority.registers(&key, AGENT));
    let opened = v1::TaskOpened {
        requested_by: "https://example.org/somebody".to_owned(),
        risk_tier: v1::RiskTier::Low.into(),
        ..v1::TaskOpened::default()
    };
    say(&served, authority.opens(TASK, opened));
    served.producer.task = task_of(served.ledger.id, "deed:authority", TASK);
    let sequence = served.producer.next;
    let intent = signed(served.producer.intent("orders/7"), &key);
    let digest = deed_evidence::PayloadDigest::of(&intent.payload);
    say(&served, intent);
    let task = Bytes::copy_from_slice(served.producer.task.as_bytes());
    let asked = async |served: &Served| {
        let request = v1::GetTaskRequest {
            ledger: NAME.to_owned(),
            task: task.clone(),
            min_size: 0,
        };
        served
            .service
            .get_task(ask(request))
            .await
            .unwrap()
            .into_inner()
    };
    let quiet = asked(&served).await.map(Result::unwrap);
    let quiet = quiet.collect::<Vec<_>>().await;

    let mut story = asked(&served).await;
    let mut told = vec![story.next().await.unwrap().unwrap()];
    // Between the first message and the next one the Intent gets its Outcome and a finding at an
    // earlier leaf, and the agent's key turns out to have been stolen.
    let outcome = Body::Outcome(v1::Outcome {
        intent: Some(v1::StatementRef {
            session: Bytes::new(),
            sequence,
            payload_digest: Bytes::copy_from_slice(digest.as_bytes()),
        }),
        status: v1::OutcomeStatus::Succeeded.into(),
        ..v1::Outcome::default()
    });
    let outcome = served.producer.statement(|made| made.body = Some(outcome));
    say(&served, signed(outcome, &key));
    let late = Finding {
        task: task.clone(),
        ..finding(3, 5, FindingKind::ClockSkew, Severity::Notice)
    };
    served.engine.find(&served.ledger, &[late]);
    let stolen = Body::KeyRevoked(v1::KeyRevoked {
        key_id: Bytes::copy_from_slice(
            deed_evidence::signature::key_id(key.public_key()).as_bytes(),
        ),
        compromised_since_us: Some(1),
        ..v1::KeyRevoked::default()
    });
    say(&served, authority.says(stolen));
    told.extend(story.map(Result::unwrap).collect::<Vec<_>>().await);
    assert_eq!(told, quiet);
    let head = served.head(&told[0].checkpoint);
    assert_eq!(head.size.get(), 4);
    let entries: Vec<_> = told.iter().flat_map(|answer| &answer.entries).collect();
    assert_eq!(entries.len(), 2);
    for entry in entries {
        let hashes = entry.inclusion_proof.iter();
        let hashes = hashes.map(|hash| Hash::try_from(&hash[..]).unwrap());
        let proof = InclusionProof::from_hashes(hashes.collect()).unwrap();
        let index = LeafIndex::new(entry.leaf_index);
        verify_inclusion(&proof, &leaf_hash(&entry.entry), index, &head).unwrap();
    }
    let act = |answers: &[v1::GetTaskResponse]| {
        let acts: Vec<_> = answers.iter().flat_map(|answer| &answer.acts).collect();
        assert_eq!(acts.len(), 1);
        acts[0].clone()
    };
    let before = act(&told);
    assert_eq!((before.outcome_leaf, before.outcome), (None, 0));
    assert!(before.keys.iter().all(|key| !key.doubtful));

    // A later call shows the changes.
    let again = asked(&served).await.map(Result::unwrap);
    let again = again.collect::<Vec<_>>().await;
    let now = act(&again);
    assert_eq!(now.outcome_leaf, Some(4));
    assert_eq!(now.state(), v1::IntentState::Completed);
    assert!(now.keys.iter().all(|key| key.doubtful));
    let findings: Vec<_> = again.iter().flat_map(|answer| &answer.findings).collect();
    assert_eq!(findings.len(), 2, "{findings:?}");
    served.engine.close();
}
