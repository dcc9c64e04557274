//! Attacks that hold places without using them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use deed_proto::v1::{
    self, content_client::ContentClient, log_client::LogClient, put_content_request::Part,
};
use deed_tests::{
    access::Token,
    contents::{Content, Contents, part},
    harm::{Victim, Watch, attack_time, goes_on, hold},
    process::deed_server,
    rpc::{Clients, TestLedger},
    run_within, until, within,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::Scene;

const LEDGER: &str = "shared";

/// Most memory of the server beyond that at rest, in MiB: RocksDB's memtables as shipped fill
/// slowly, and stalled uploads and watches take a few kilobytes each.
const HELD_MIB: u64 = 160;

/// Starts a server with access control, with a ledger in which some principals have roles, and
/// another one for a victim.
async fn with_access(
    settings: &[(&str, &str)],
    who: &[(&str, &str)],
) -> (Scene, Vec<Token>, Victim) {
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let data = dir.path().join("data");
    let path = data.to_str().expect("a path of text").to_owned();
    let operator = crate::command(&data, &[]).start();
    let clients = Clients::connect(&operator).await;
    TestLedger::create(&clients, LEDGER).await;
    let victim = Victim::with_token(&clients, &data).await;
    drop(clients);
    operator.stop();
    let tokens = who.iter().map(|(name, role)| {
        let principal = format!("spiffe://example.org/{name}");
        if !role.is_empty() {
            let mut arguments = vec!["role", "grant", "--principal", &principal];
            arguments.extend(["--role", role, "--ledger", LEDGER, "--data-dir", &path]);
            deed_server(arguments);
        }
        Token::create(&data, &principal, &[])
    });
    let tokens = tokens.collect();
    let mut all = settings.to_vec();
    all.push(("access.required", "true"));
    (Scene::set_in(dir, &all), tokens, victim)
}

/// An upload that has begun and does not go on, until it is dropped.
struct Stalled {
    _parts: mpsc::Sender<v1::PutContentRequest>,
    answer: tokio::task::JoinHandle<Result<(), Status>>,
}

impl Stalled {
    async fn begin(channel: &Channel, token: &Token, number: u64) -> Self {
        let content = Content::new(number, vec![7; 1 << 20]);
        let (parts, sent) = mpsc::channel(4);
        let mut messages = content.parts(LEDGER, 1 << 10).into_iter();
        for message in messages.by_ref().take(2) {
            parts.send(message).await.expect("room");
        }
        let request = token.on(ReceiverStream::new(sent));
        let mut client = ContentClient::new(channel.clone());
        let answer = tokio::spawn(async move { client.put_content(request).await.map(|_| ()) });
        Self {
            _parts: parts,
            answer,
        }
    }
}

/// Begins 16 stalled uploads, each over a connection of its own.
async fn stall(scene: &Scene, token: &Token) -> Vec<Stalled> {
    let mut stalled = Vec::new();
    for number in 0..16 {
        let channel = scene.clients().await.channel;
        stalled.push(Stalled::begin(&channel, token, number).await);
    }
    stalled
}

#[test]
fn one_principals_stalled_uploads_leave_places_and_end() {
    run_within(Duration::from_secs(60) + attack_time(), async {
        let settings = [("content.uploads", "16"), ("content.stall_ms", "3000")];
        let who = [("one", "append"), ("two", "append"), ("nobody", "read")];
        let (scene, tokens, victim) = with_access(&settings, &who).await;
        let (watch, began) = (Watch::begin(&scene.server, &victim), Instant::now());
        let [one, two, nobody] = &tokens[..] else {
            panic!("three tokens");
        };
        let stalled = stall(&scene, one).await;
        let admin = scene.admin();
        until("its share of places", || async {
            let taken = admin.figure("deed_places_taken{what=\"uploads\"}").await;
            let refused = admin
                .figure("deed_places_refused_total{what=\"uploads\"}")
                .await;
            (taken == 4 && refused == 12).then_some(())
        })
        .await;
        // Another principal's upload succeeds meanwhile.
        let clients = scene.clients().await;
        let contents = Contents::over(clients.channel.clone());
        let content = Content::new(100, vec![9; 3 << 20]);
        let parts = || content.parts(LEDGER, 1 << 20);
        let held = contents.as_bearer(two).put(parts()).await;
        assert!(!held.expect("it is stored"));
        // A caller without the role is refused, and takes no place.
        let refused = contents.as_bearer(nobody).put(parts()).await;
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
        // Stalled uploads are ended: their places come back by themselves.
        let mut codes = Vec::new();
        for upload in stalled {
            let ended = within("the end of an upload", upload.answer).await;
            codes.push(ended.expect("no panic").expect_err("it stood still").code());
        }
        let count = |code| codes.iter().filter(|found| **found == code).count();
        assert_eq!(count(Code::ResourceExhausted), 12, "{codes:?}");
        assert_eq!(count(Code::Unavailable), 4, "{codes:?}");
        assert_eq!(admin.figure("deed_places_taken{what=\"uploads\"}").await, 0);
        assert!(contents.as_bearer(one).put(parts()).await.is_ok());
        while goes_on(began) {
            for upload in stall(&scene, one).await {
                let _ = within("the end of an upload", upload.answer).await;
            }
        }
        watch.expect_unharmed(HELD_MIB).await;
        scene.server.stop();
    });
}

#[test]
fn uploads_without_a_first_message_take_no_place() {
    run_within(Duration::from_secs(60), async {
        let settings = [("content.uploads", "4")];
        let (scene, tokens, _) = with_access(&settings, &[("one", "append")]).await;
        let clients = scene.clients().await;
        let mut idle = Vec::new();
        for _ in 0..8 {
            let (parts, sent) = mpsc::channel::<v1::PutContentRequest>(1);
            let request = tokens[0].on(ReceiverStream::new(sent));
            let mut client = ContentClient::new(clients.channel.clone());
            let answer = tokio::spawn(async move { client.put_content(request).await });
            idle.push((parts, answer));
        }
        let content = Content::new(1, Bytes::from_static(b"soon there"));
        let contents = Contents::over(clients.channel.clone()).as_bearer(&tokens[0]);
        assert!(
            !contents
                .put(content.parts(LEDGER, 1))
                .await
                .expect("it is stored")
        );
        let not_begun = contents.put(vec![part(Part::Chunk(Bytes::from_static(b"x")))]);
        assert_eq!(not_begun.await.unwrap_err().code(), Code::InvalidArgument);
        drop(idle);
        scene.server.stop();
    });
}

#[test]
fn strangers_watches_leave_places_to_known_callers() {
    run_within(Duration::from_secs(60) + attack_time(), async {
        let settings = [("limits.read_streams", "64")];
        let (scene, tokens, victim) = with_access(&settings, &[("reader", "read")]).await;
        let (watch, began) = (Watch::begin(&scene.server, &victim), Instant::now());
        let request = || v1::WatchTreeHeadsRequest {
            ledger: LEDGER.to_owned(),
            consistency_from: None,
            min_size: 0,
        };
        let (mut held, mut refused) = (Vec::new(), 0);
        for _ in 0..8 {
            let mut log = LogClient::new(scene.clients().await.channel);
            for _ in 0..8 {
                match log.watch_tree_heads(request()).await {
                    Ok(heads) => held.push(heads.into_inner()),
                    Err(status) => {
                        assert_eq!(status.code(), Code::ResourceExhausted);
                        assert!(status.message().contains("do not say who they are"));
                        assert!(status.get_details_retry_info().is_some());
                        refused += 1;
                    }
                }
            }
        }
        // One address of strangers has a sixteenth.
        assert_eq!((held.len(), refused), (4, 60));
        let mut log = LogClient::new(scene.clients().await.channel);
        let mut known = Vec::new();
        for _ in 0..8 {
            let heads = log.watch_tree_heads(tokens[0].on(request())).await;
            let mut heads = heads.expect("a place").into_inner();
            assert!(
                within("a head", heads.message())
                    .await
                    .expect("a head")
                    .is_some()
            );
            known.push(heads);
        }
        hold(began).await;
        watch.expect_unharmed(HELD_MIB).await;
        drop((held, known));
        let admin = scene.admin();
        until("the places to come back", || async {
            let taken = admin
                .figure("deed_places_taken{what=\"read_streams\"}")
                .await;
            (taken == 0).then_some(())
        })
        .await;
        scene.server.stop();
    });
}
