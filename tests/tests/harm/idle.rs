//! An attack with streams that are opened and send nothing.

use std::time::Instant;

use deed_proto::v1;
use deed_tests::{access::Token, harm::hold, rpc::Clients, run, within};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::{BOUND_MIB, Scene, token_without_a_role};

/// A stream on which nothing is sent. It ends when it is dropped.
struct Idle {
    _sender: mpsc::Sender<v1::AppendRequest>,
    _answers: Streaming<v1::AppendResponse>,
}

async fn open(clients: &Clients, token: &Token) -> Result<Idle, Status> {
    let (sender, nothing) = mpsc::channel(1);
    let nothing = token.on(ReceiverStream::new(nothing));
    let mut ledger = clients.ledger.clone();
    let answers = within("the beginning of a stream", ledger.append_stream(nothing));
    Ok(Idle {
        _answers: answers.await?.into_inner(),
        _sender: sender,
    })
}

#[test]
fn who_has_no_role_opens_no_stream() {
    run(async {
        let scene = Scene::new().await;
        let clients = Clients::connect(&scene.server).await;
        let token = token_without_a_role(&scene.data());
        // The server reads the file again once a second: until then the token is unknown.
        let refused = deed_tests::until("a token that is known", || async {
            let refused = open(&clients, &token).await.err()?;
            (refused.code() != Code::Unauthenticated).then_some(refused)
        });
        let refused = refused.await;
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
        assert!(refused.message().contains("role append"), "{refused:?}");
        scene.server.stop();
    });
}

#[test]
fn the_streams_of_one_principal_leave_room_for_another() {
    run(async {
        let scene = Scene::set(|_| Vec::new(), &[("limits.append_streams", "16")]).await;
        let (watch, began) = (scene.watch(), Instant::now());
        let mut idle = Vec::new();
        let refused = 'full: {
            // The number of its connections does not matter.
            for _ in 0..3 {
                let clients = Clients::connect(&scene.server).await;
                for _ in 0..4 {
                    match open(&clients, &scene.mallory).await {
                        Ok(stream) => idle.push((clients.clone(), stream)),
                        Err(refused) => break 'full refused,
                    }
                }
            }
            panic!("{} streams are open", idle.len());
        };
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        assert!(
            refused.message().contains("limits.append_streams"),
            "{refused:?}"
        );
        assert_eq!(idle.len(), 4);
        let clients = Clients::connect(&scene.server).await;
        let victims = Token::create(
            &scene.data(),
            "another",
            &["--ledger", &scene.victim.ledger().name, "--role", "append"],
        );
        deed_tests::until("a stream of somebody else", || async {
            open(&clients, &victims).await.ok()
        })
        .await;
        // A stream that has ended makes room.
        idle.pop();
        deed_tests::until("another stream", || async {
            open(&clients, &scene.mallory).await.ok()
        })
        .await;
        hold(began).await;
        watch.expect_unharmed(BOUND_MIB).await;
        drop(idle);
        scene.server.stop();
    });
}
