//! Tests of the tools themselves: a liar without lies changes nothing, and a forged ledger is a log
//! in which every signature and proof is valid.

use std::{collections::BTreeSet, fmt::Debug, future::Future};

use bytes::Bytes;
use deed_proto::v1::{
    self, IntentState, RiskTier, content_client::ContentClient, get_batch_proof_request,
    get_inclusion_proof_request::Leaf, statement::Body,
};
use deed_tests::{
    forgery::log_signer,
    keys::{Authority, batch, key},
    liar::{Cast, ForgedLedger, Liar, cast, clearance},
    oracle::Log,
    process::{Deed, ServerProcess},
    rpc::{Clients, TestLedger},
    run,
    statements::Producer,
    within,
};
use tempfile::TempDir;
use tonic::{Code, Response, Status, Streaming};

use crate::{OK, words};

/// An answer in comparable form: a refusal as its code and message.
type Told<A> = Result<A, (Code, String)>;

fn told<A>(answer: Result<A, Status>) -> Told<A> {
    answer.map_err(|status| (status.code(), status.message().to_owned()))
}

async fn whole<A>(answer: Result<Response<Streaming<A>>, Status>) -> Told<Vec<A>> {
    let mut messages = told(answer)?.into_inner();
    let mut all = Vec::new();
    while let Some(message) = told(messages.message().await)? {
        all.push(message);
    }
    Ok(all)
}

async fn first<A>(answer: Result<Response<Streaming<A>>, Status>) -> Told<Option<A>> {
    told(told(answer)?.into_inner().message().await)
}

fn one<A>(answer: Result<Response<A>, Status>) -> Told<A> {
    told(answer.map(Response::into_inner))
}

/// Calls the server itself and the liar in front of it, and checks that the answers are equal.
async fn same<A: PartialEq + Debug, F: Future<Output = Told<A>>>(
    [server, liar]: &[Clients; 2],
    ask: impl Fn(Clients) -> F,
) -> Told<A> {
    let from_server = within("an answer", ask(server.clone())).await;
    let from_liar = within("an answer through the liar", ask(liar.clone())).await;
    assert_eq!(from_server, from_liar);
    from_server
}

#[test]
fn a_liar_without_lies_changes_nothing() {
    run(async {
        let dir = TempDir::new().unwrap();
        let server = ServerProcess::start(&dir.path().join("data"));
        let liar = Liar::before(&server.url()).await;
        let both = [
            Clients::connect(&server).await,
            Clients::open(&liar.url()).await,
        ];
        // Requests that change the ledger are sent only through the liar.
        let ledger = TestLedger::create(&both[1], "payments").await;
        let mut authority = Authority::new(ledger.id, 900);
        let mut producer = Producer::new(ledger.id, 1);
        let task = deed_tests::statements::task_id(ledger.id, [0x7a; 16]);
        let intents = producer.intents(3);
        let batched = batch(&intents, &key(7));
        let request = |envelopes| v1::AppendRequest {
            envelopes,
            ..ledger.request(&[])
        };
        let registered = authority.registers(&key(7), producer.name());
        let answer = both[1].append(request(vec![registered])).await.unwrap();
        assert_eq!(answer.results.len(), 1);
        let requests = vec![request(batched)];
        let answers = both[1].append_stream(tokio_stream::iter(requests)).await;
        let mut answers = answers.unwrap();
        let answer = within("an answer", answers.message()).await.unwrap();
        assert_eq!(answer.expect("an answer").results.len(), 4);
        drop(answers);

        let name = || ledger.name.clone();
        let list = v1::ListLedgersRequest::default();
        same(&both, |it| {
            let list = list.clone();
            async move { one(it.ledger.clone().list_ledgers(list).await) }
        })
        .await
        .unwrap();
        same(&both, |it| {
            let asked = v1::GetLedgerRequest { name: name() };
            async move { one(it.ledger.clone().get_ledger(asked).await) }
        })
        .await
        .unwrap();
        for size in [None, Some(2), Some(100)] {
            let _ = same(&both, |it| async move {
                told(it.tree_head("payments", size).await)
            })
            .await;
        }
        for leaf in [0, 3, 100] {
            let leaf = Some(Leaf::LeafIndex(leaf));
            let _ = same(&both, |it| {
                let leaf = leaf.clone();
                async move { told(it.inclusion("payments", leaf, 0).await) }
            })
            .await;
        }
        for old in [1, 100] {
            let _ = same(&both, |it| async move {
                told(it.consistency("payments", old, 0).await)
            })
            .await;
        }
        for end in [5, 100] {
            let _ = same(&both, |it| async move {
                told(it.entries("payments", 0, end).await)
            })
            .await;
        }
        for leaf in [0, 4] {
            let _ = same(&both, |it| {
                let asked = v1::GetBatchProofRequest {
                    ledger: name(),
                    leaf: Some(get_batch_proof_request::Leaf::LeafIndex(leaf)),
                    tree_size: 0,
                    min_size: 0,
                };
                async move { one(it.log.clone().get_batch_proof(asked).await) }
            })
            .await;
        }
        let chain = same(&both, |it| {
            let asked = v1::GetTrustChainRequest {
                ledger: name(),
                start: 0,
                min_size: 0,
            };
            async move { whole(it.log.clone().get_trust_chain(asked).await).await }
        });
        assert!(!chain.await.unwrap().is_empty());
        let _ = same(&both, |it| {
            let asked = v1::GetLogKeysRequest {
                ledger: name(),
                min_size: 0,
            };
            async move { whole(it.log.clone().get_log_keys(asked).await).await }
        })
        .await;
        same(&both, |it| {
            let asked = v1::GetSessionRequest {
                ledger: name(),
                session: producer.session(),
                min_size: 0,
            };
            async move { one(it.log.clone().get_session(asked).await) }
        })
        .await
        .unwrap();
        let watched = same(&both, |it| {
            let asked = v1::WatchTreeHeadsRequest {
                ledger: name(),
                consistency_from: Some(1),
                min_size: 0,
            };
            async move { first(it.log.clone().watch_tree_heads(asked).await).await }
        });
        assert!(watched.await.unwrap().is_some());
        acts_are_passed_on(&both, &ledger, task).await;
        contents_are_passed_on(&server.url(), &liar.url(), &ledger).await;

        let asked: BTreeSet<_> = liar.asked().into_iter().collect();
        assert_eq!(asked, Liar::RPCS.iter().copied().collect::<BTreeSet<_>>());
        liar.end();
        server.stop();
    });
}

async fn acts_are_passed_on(both: &[Clients; 2], ledger: &TestLedger, task: [u8; 16]) {
    let name = || ledger.name.clone();
    let task = Bytes::copy_from_slice(&task);
    let none = v1::RequestTaskReceiptRequest {
        ledger: name(),
        task: Bytes::from_static(&[9; 16]),
    };
    let unknown = same(both, |it| {
        let none = none.clone();
        async move { one(it.actions.clone().request_task_receipt(none).await) }
    });
    assert!(unknown.await.is_err(), "a task that nobody has named");
    for intent_leaf in [3, 100] {
        let _ = same(both, |it| {
            let asked = v1::AwaitClearanceRequest {
                ledger: name(),
                intent_leaf,
                min_size: 0,
            };
            async move { first(it.actions.clone().await_clearance(asked).await).await }
        })
        .await;
    }
    let story = same(both, |it| {
        let asked = v1::GetTaskRequest {
            ledger: name(),
            task: task.clone(),
            min_size: 0,
        };
        async move { whole(it.actions.clone().get_task(asked).await).await }
    });
    assert!(!story.await.unwrap().is_empty());
    let found = same(both, |it| {
        let asked = v1::SearchRequest {
            ledger: name(),
            action: "orders.update".to_owned(),
            with_proofs: true,
            ..v1::SearchRequest::default()
        };
        async move { whole(it.actions.clone().search(asked).await).await }
    });
    assert!(!found.await.unwrap().is_empty());
    let findings = same(both, |it| {
        let asked = v1::ListFindingsRequest {
            ledger: name(),
            ..v1::ListFindingsRequest::default()
        };
        async move { one(it.actions.clone().list_findings(asked).await) }
    });
    findings.await.unwrap();
    let watched = same(both, |it| {
        let asked = v1::WatchFindingsRequest {
            ledger: name(),
            ..v1::WatchFindingsRequest::default()
        };
        async move { first(it.actions.clone().watch_findings(asked).await).await }
    });
    watched.await.unwrap();
}

async fn contents_are_passed_on(server: &str, liar: &str, ledger: &TestLedger) {
    let mut answers = Vec::new();
    for url in [server, liar] {
        let mut content = ContentClient::connect(url.to_owned()).await.unwrap();
        let begin = v1::PutContentBegin {
            ledger: ledger.name.clone(),
            ..v1::PutContentBegin::default()
        };
        let part = v1::PutContentRequest {
            part: Some(v1::put_content_request::Part::Begin(begin)),
        };
        let put = one(content.put_content(tokio_stream::iter(vec![part])).await);
        let asked = v1::GetContentRequest {
            ledger: ledger.name.clone(),
            commitment: Bytes::from_static(&[1; 32]),
        };
        let got = whole(content.get_content(asked).await).await;
        let asked = v1::EraseContentRequest {
            ledger: ledger.name.clone(),
            envelope: None,
            ..v1::EraseContentRequest::default()
        };
        let erased = one(content.erase_content(asked).await);
        answers.push((put, got, erased));
    }
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn lies_are_told_and_taken_back() {
    run(async {
        let dir = TempDir::new().unwrap();
        let server = ServerProcess::start(&dir.path().join("data"));
        let liar = Liar::before(&server.url()).await;
        let clients = Clients::open(&liar.url()).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        let payloads = Producer::new(ledger.id, 1).intents(2);
        ledger.append(&clients, &payloads[..1]).await;

        // The lies change one answer, all messages of an answer, and each message of an answer.
        liar.get_ledger(|asked, answer| {
            assert_eq!(asked.name, "payments");
            Ok(v1::LedgerInfo {
                size: 77,
                ..answer?
            })
        });
        liar.get_entries(|_, answer| {
            let mut messages = answer?;
            messages.truncate(0);
            Ok(messages)
        });
        liar.watch_tree_heads(|_, answer| {
            Ok(v1::TreeHeadResponse {
                witnessed_size: 78,
                ..answer?
            })
        });
        assert_eq!(TestLedger::find(&clients, "payments").await.info.size, 77);
        assert!(clients.entries("payments", 0, 2).await.unwrap().is_empty());
        let mut heads = clients.watch("payments", None).await.unwrap();
        for _ in 0..2 {
            let head = within("a head", heads.message()).await.unwrap();
            assert_eq!(head.unwrap().witnessed_size, 78);
            if ledger.head(&clients).await.size.get() == 2 {
                ledger.append(&clients, &payloads[1..]).await;
            }
        }

        // A withheld request never reaches the server, whatever the lie about it is.
        liar.withhold("append");
        let refused = ledger.try_append(&clients, &payloads[1..]).await;
        assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
        liar.append(|asked, answer| {
            assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
            assert_eq!(asked.envelopes.len(), 1);
            Ok(v1::AppendResponse::default())
        });
        let more = Producer::new(ledger.id, 2).intents(1);
        let answer = ledger.try_append(&clients, &more).await.unwrap();
        assert_eq!(answer, v1::AppendResponse::default());
        assert_eq!(ledger.head(&clients).await.size.get(), 3);

        liar.repent();
        ledger.append(&clients, &more).await;
        assert_eq!(TestLedger::find(&clients, "payments").await.info.size, 4);
        server.stop();
    });
}

/// Whatever the entries contain, the client library and the first steps of an audit accept the log.
#[test]
fn a_forged_ledger_verifies_as_a_log() {
    run(async {
        let mut forged = ForgedLedger::new("payments");
        let mut cast = Cast::in_ledger(&mut forged);
        let (task, _) = forged.opens(&mut cast.platform, RiskTier::Payment);
        let some = Some(task);
        let grant = forged.says(
            &mut cast.authority,
            some,
            cast::grant(&cast.agent, i64::MAX),
        );
        let intent = forged.says(&mut cast.agent, some, cast::intent(Some(&grant), 1999));
        let body = cast::intent(Some(&grant), 1);
        forged.says_signed_so(&mut cast.agent, some, body, [0xbb; 64]);
        forged.says_unsigned(&mut cast.agent, some, cast::intent(None, 2));
        forged.says_by_ledger(&mut cast.agent, some, cast::intent(None, 3));
        forged.says_batched_without_manifest(&mut cast.agent, some, cast::intent(None, 4));
        let batch = [cast::intent(None, 5), cast::intent(None, 6)];
        let batched = forged.says_batch(&mut cast.agent, task, batch);
        let decided = cast::decision(&intent, v1::Verdict::Allow);
        let decided = forged.says(&mut cast.engine, some, decided);
        forged.at(forged.now() - 1_000_000_000);
        let cleared = clearance(&intent, 8, &[&decided]);
        let cleared = forged.writes(task, cleared);
        let receipt = forged.receipt(task);
        forged.writes_unsigned(task, Body::TaskReceipt(receipt));
        let size = forged.size();
        let dir = TempDir::new().unwrap();
        let files = forged.write_proof(dir.path(), cleared.leaf);

        let server = forged.serve().await;
        let clients = Clients::open(&server.url()).await;
        let ledger = TestLedger::find(&clients, "payments").await;
        let log = Log::read(&clients, &ledger).await;
        assert_eq!(log.head.size.get(), size);
        for leaf in 0..size {
            let asked = clients.inclusion("payments", Some(Leaf::LeafIndex(leaf)), 0);
            let head = ledger.check_inclusion(&asked.await.unwrap());
            assert_eq!(head, log.head);
        }
        for old in 1..=size {
            let note = clients.consistency("payments", 0, old).await.unwrap();
            let old = ledger.open(&note.checkpoint);
            assert_eq!(ledger.check_grown(&clients, &old).await, log.head);
        }

        // The commands that read only the log accept it.
        let deed = Deed::new(&server.url(), "payments");
        let batched = batched[1].leaf.to_string();
        let out = deed.file("proof");
        let out = out.to_str().unwrap();
        for command in [
            &["head"][..],
            &["ledger", "show"],
            &["consistency", "5", "0"],
            &["key", "list"],
            &["entry", "0"],
            &["prove", "--index", &batched, "--batch", "--out", out],
        ] {
            deed.run(command).expect_code(OK);
        }
        let [proof, entry, policy] =
            [&files.proof, &files.entry, &files.policy].map(|path| path.to_str().unwrap());
        deed.run(["verify", proof, "--entry", entry, "--policy", policy])
            .expect_code(OK);

        // The server records what is sent, and by default gives the best possible assessment.
        let before = server.size();
        let more = Producer::new(ledger.id, 77).intents(2);
        ledger.append(&clients, &more).await;
        assert_eq!(server.size(), before + 2);
        let asked = v1::AwaitClearanceRequest {
            ledger: "payments".to_owned(),
            intent_leaf: intent.leaf,
            min_size: 0,
        };
        let standing = first(clients.actions.clone().await_clearance(asked).await).await;
        let standing = standing.unwrap().expect("where it stands");
        assert_eq!(standing.state(), IntentState::Cleared);
        assert_eq!(standing.clearance_leaf, Some(cleared.leaf));
    });
}

/// An audit of a forged ledger without any fault finds nothing, over the network and from files; so
/// findings in other tests come from the tests' own changes.
#[test]
fn a_forged_ledger_without_a_fault_passes_an_audit() {
    run(async {
        let mut forged = ForgedLedger::new("payments");
        let mut cast = Cast::in_ledger(&mut forged);
        let (task, _) = forged.opens(&mut cast.platform, RiskTier::Low);
        for cents in 1..20 {
            forged.says(&mut cast.agent, Some(task), cast::intent(None, cents));
        }
        let more = [cast::intent(None, 5), cast::intent(None, 6)];
        forged.says_batch(&mut cast.agent, task, more);
        let dir = TempDir::new().unwrap();
        let policy = forged.write_mirror(dir.path());
        let server = forged.serve().await;
        let deed = Deed::new(&server.url(), "payments");
        let (dir, policy) = (dir.path().to_str().unwrap(), policy.to_str().unwrap());
        let audits = [&["audit"][..], &["audit", "--dir", dir, "--policy", policy]];
        for audit in audits {
            let ended = deed.run(audit).expect_code(OK);
            assert!(words(&ended).starts_with("everything holds"), "{ended:#?}");
        }
    });
}

/// The operator of a real ledger continues it by hand: clients that trusted it before follow.
#[test]
fn a_real_ledger_can_be_taken_over() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        let server = ServerProcess::start(&data);
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        let payloads = Producer::new(ledger.id, 1).intents(3);
        ledger.append(&clients, &payloads).await;
        let deed = Deed::new(&server.url(), "payments");
        deed.run(["head"]).expect_code(OK);
        let log = Log::read(&clients, &ledger).await;
        server.stop();
        let signer = log_signer(&data, &ledger.info.origin);
        let origin = ledger.info.origin.parse().unwrap();
        let mut forged = ForgedLedger::over("payments", origin, signer, log.entries);
        let mut cast = Cast::of(forged.id());
        forged.says_unsigned(&mut cast.agent, Some([1; 16]), cast::intent(None, 1));
        let server = forged.serve().await;
        let deed = deed.at(&server.url());
        let head = deed.run(["head", "--json"]).expect_code(OK);
        let head: serde_json::Value = serde_json::from_str(&head.stdout).unwrap();
        assert_eq!(head["size"], 5);
    });
}
