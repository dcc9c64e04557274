//! One tenant floods its own ledger: with policies that are slow to evaluate and acts that have them
//! evaluated, with large requests, with batches, over many connections, and gone before the answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use deed_proto::v1::{self, statement::Body};
use deed_tests::{
    access::Token,
    apart,
    keys::batch,
    process::fsck_clean,
    rpc::{Clients, TestLedger},
    run_within,
    statements::{Producer, policy_set},
};
use tokio::time::timeout;

use crate::{AGENT, SIGNER, Scene, Sessions, attack_time, signer};

/// Connections of the flood, and requests that each has under way.
const CONNECTIONS: usize = 3;
const UNDER_WAY: usize = 6;

/// Bound on stopping that is set, and what stopping takes at most: that, one statement, and a busy
/// machine. It took 19 s when the whole queue was worked off first, and more with a longer one.
const DRAIN_MS: &str = "2000";
const STOPPED_WITHIN: Duration = Duration::from_secs(15);

/// Policies that compare a long name with long patterns, again and again, and want so much before
/// the act that it has to be found out what could still come.
fn hostile_policies() -> Body {
    let mut policies = String::new();
    for number in 0..60 {
        let pattern = format!("*{}b{number}", "a".repeat(420));
        policies += &format!(
            "forbid (principal, action, resource) when {{ resource.name like \"{pattern}\" }};\n"
        );
    }
    policies += "permit (principal, action, resource) when { context.evidence.approvals >= 16 && \
                 context.evidence.approvals_multi_factor >= 16 && \
                 context.evidence.approvals_phishing_resistant >= 16 };\n";
    Body::PolicySet(policy_set(&policies))
}

/// Acts on a resource whose name is as long as it may be.
fn acts(producer: &mut Producer, count: usize) -> Vec<Bytes> {
    let name = "a".repeat(1024);
    (0..count).map(|_| producer.intent(&name)).collect()
}

/// One request after the other; some are given up.
async fn flood(
    number: usize,
    clients: Clients,
    ledger: TestLedger,
    token: Token,
    sessions: Arc<Sessions>,
    stop: Arc<AtomicBool>,
) {
    let mut round = number;
    while !stop.load(Relaxed) {
        round += 1;
        let (envelopes, is_batch) = match round % 4 {
            0 => {
                let payloads = acts(&mut sessions.next(ledger.id, AGENT), 1000);
                (ledger.request(&payloads).envelopes, false)
            }
            1 => {
                let payloads = acts(&mut sessions.next(ledger.id, SIGNER), 64);
                (batch(&payloads, &signer()), true)
            }
            _ => {
                let payloads = acts(&mut sessions.next(ledger.id, AGENT), 40);
                (ledger.request(&payloads).envelopes, false)
            }
        };
        let request = v1::AppendRequest {
            envelopes,
            ..ledger.request(&[])
        };
        let mut ledger = clients.ledger.clone();
        let sending = ledger.append(token.on(request));
        // Refused, answered or given up: the next one follows.
        let patience = if is_batch { 5000 } else { 500 };
        let _ = timeout(Duration::from_millis(patience), sending).await;
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_tenant_that_floods_its_ledger_harms_no_other() {
    run_within(Duration::from_secs(600), async {
        let prepare =
            |authority: &mut deed_tests::keys::Authority| vec![authority.says(hostile_policies())];
        let scene = Scene::set(prepare, &["--set", &format!("drain_ms={DRAIN_MS}")]).await;
        let watch = scene.watch();
        let stop = Arc::new(AtomicBool::new(false));
        let sessions = Arc::new(Sessions::default());
        let floods: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                let (url, ledger) = (scene.server.url(), scene.noisy.clone());
                let (token, stop) = (scene.mallory.clone(), Arc::clone(&stop));
                let sessions = Arc::clone(&sessions);
                apart(async move {
                    let clients = Clients::open(&url).await;
                    let all = (0..UNDER_WAY).map(|number| {
                        let number = connection * UNDER_WAY + number;
                        let (ledger, sessions) = (ledger.clone(), Arc::clone(&sessions));
                        let (clients, stop) = (clients.clone(), Arc::clone(&stop));
                        tokio::spawn(flood(
                            number,
                            clients,
                            ledger,
                            token.clone(),
                            sessions,
                            stop,
                        ))
                    });
                    for one in all.collect::<Vec<_>>() {
                        let _ = one.await;
                    }
                })
            })
            .collect();
        tokio::time::sleep(attack_time().0).await;
        let (data, held) = (scene.data(), scene.server.resident_kib());
        eprintln!("resident: {} MiB", held / 1024);
        watch.expect_unharmed().await;
        // It still has as much to do as it would take.
        let began = Instant::now();
        scene.server.stop();
        let took = began.elapsed();
        eprintln!("stopped in {took:?}");
        assert!(took < STOPPED_WITHIN, "{took:?}");
        stop.store(true, Relaxed);
        for flood in floods {
            flood.await.expect("no panic");
        }
        fsck_clean(&data);
        drop(scene.dir);
    });
}
