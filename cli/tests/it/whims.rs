//! The commands before a server that refuses, loses and lies as it likes: whatever it says, nothing else
//! is said in a place of a session.

use deed_client::key;
use deed_testkit::fake::{Whim, any_whims};
use deed_tlog::SigningKey;
use proptest::prelude::*;
use tonic::Code;

use crate::scene::scene;

const AGENT: &str = "spiffe://example.org/agent";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// The commands that speak in a session which is kept: append, and those of one statement.
    #[test]
    fn the_commands_say_one_thing_in_one_place((whims, length) in any_whims()) {
        let otherwise = runtime().block_on(async {
            let scene = scene().await;
            let path = scene.path("agent.pem");
            std::fs::write(&path, &*key::private_to_pem(&SigningKey::from_seed(&[31; 32]))).unwrap();
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&path, private).unwrap();
            {
                let script = &mut scene.fake.lock().script;
                // Each of these is waited out, longer and longer.
                let mut lost = 0;
                script.whims = whims.into();
                script.whims.retain(|whim| match whim {
                    Whim::Lose { code, .. } if *code == Code::Unavailable => {
                        lost += 1;
                        lost <= 3
                    }
                    _ => true,
                });
                script.session_length = length;
            }
            let task = "07".repeat(16);
            for n in 0..4 {
                let line = |m: usize| format!(
                    "{{\"producer\": \"{AGENT}\", \"task\": \"{task}\", \"task_closed\": \
                     {{\"end\": \"failed\", \"reason\": \"line {n} {m}\"}}}}\n"
                );
                let lines = line(0) + &line(1);
                let append = ["--session", "whims", "--key", "agent.pem"];
                scene.append(&append, &lines).await;
                let reason = format!("command {n}");
                let close = [
                    "task", "close", &task, "--reason", &reason, "--end", "failed", "--producer",
                    AGENT, "--key", "agent.pem", "--session", "other",
                ];
                scene.run(&close).await;
            }
            let script = &scene.fake.lock().script;
            (script.said_otherwise.clone(), script.said.len())
        });
        prop_assert_eq!(otherwise.0, Vec::<u64>::new());
        prop_assert!(otherwise.1 > 0);
    }
}
