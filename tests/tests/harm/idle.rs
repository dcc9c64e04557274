//! Streams that are opened and say nothing.

use std::time::Duration;

use deed_proto::v1;
use deed_tests::{
    access::Token,
    rpc::Clients,
    run, within,
};
use tokio_stream::pending;
use tonic::{Code, Status, Streaming};

use crate::{QUIET, Scene, token_without_a_role};

/// Opens a stream on which nothing is sent.
async fn open(
    clients: &Clients,
    token: &Token,
) -> Result<Streaming<v1::AppendResponse>, Status> {
    let nothing = token.on(pending::<v1::AppendRequest>());
    let answers = within(
        "the beginning of a stream",
        clients.ledger.clone().append_stream(nothing),
    );
    Ok(answers.await?.into_inner())
}

#[test]
fn who_has_no_role_opens_no_stream() {
    run(async {
        let scene = Scene::set(|_| Vec::new(), &[]).await;
        let clients = Clients::connect(&scene.server).await;
        let token = token_without_a_role(&scene.data());
        // The file is read again once a second: until then nobody knows the token.
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
        let scene = Scene::set(|_| Vec::new(), &["--set", "limits.append_streams=16"]).await;
        let watch = scene.watch();
        let mut idle = Vec::new();
        let refused = 'full: {
            // However many connections it opens.
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
        assert!(refused.message().contains("limits.append_streams"), "{refused:?}");
        assert_eq!(idle.len(), 4);
        let clients = Clients::connect(&scene.server).await;
        let victims = Token::create(&scene.data(), "another", &["--ledger", QUIET, "--role", "append"]);
        deed_tests::until("a stream of somebody else", || async {
            open(&clients, &victims).await.ok()
        })
        .await;
        // What has ended makes room.
        idle.pop();
        deed_tests::until("another stream", || async {
            open(&clients, &scene.mallory).await.ok()
        })
        .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        watch.expect_unharmed().await;
        drop(idle);
        scene.server.stop();
    });
}
