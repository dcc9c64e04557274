//! Helpers for the end-to-end tests: real server processes, real clients, and an oracle.
//!
//! The tests themselves are in `tests/`, one file or folder for each theme. They start the programs
//! that `make build` left beside them in the target directory, on free ports of 127.0.0.1, and end
//! only processes that they started.
//!
//! | module | holds |
//! |---|---|
//! | [`process`] | `deed-server` and `deed` as processes, with all waits bounded |
//! | [`proxy`] | a bad network between client and server |
//! | [`rpc`] | plain gRPC clients, and a ledger to write to |
//! | [`statements`] | payloads, made without the client library |
//! | [`keys`] | signatures, batches and authorities' statements |
//! | [`contents`] | contents that statements commit to |
//! | [`wire`] | other encodings of a message |
//! | [`access`] | tokens, roles and certificates of a server |
//! | [`oracle`] | a whole log read back and computed again |
//! | [`forgery`] | other entries under heads that the real key signs |
//! | [`liar`] | servers that lie: about what was recorded, and about the assessment of a ledger |
//! | [`admin`] | the admin port: readiness and metrics |
//! | [`harm`] | the effects of an attack on others |
//! | [`http`] | plain HTTP/1.1 |
//! | [`files`] | data directories: copies, fingerprints, damage |
//! | [`data`] | test data that lies beside the checkout |
//! | [`random`] | seeded random numbers |

#![allow(
    clippy::must_use_candidate,
    reason = "helpers are also called for what they check"
)]

pub mod access;
pub mod admin;
pub mod contents;
pub mod data;
pub mod files;
pub mod forgery;
pub mod harm;
pub mod http;
pub mod keys;
pub mod liar;
pub mod oracle;
pub mod process;
pub mod proxy;
pub mod random;
pub mod rpc;
pub mod statements;
pub mod wire;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

/// Longest wait for something that happens at once, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Longest time of a whole test.
const TEST_MAX: Duration = Duration::from_secs(240);

/// Time between two checks of something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Runs a test, and fails it if it does not end in time.
///
/// # Panics
/// If the test panics, or takes longer than four minutes.
pub fn run(test: impl Future<Output = ()>) {
    run_within(TEST_MAX, test);
}

/// Runs a test with another bound than [`run`].
///
/// # Panics
/// If the test panics, or takes longer than `max`.
pub fn run_within(max: Duration, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("the runtime starts");
    let ended = runtime.block_on(async { tokio::time::timeout(max, test).await });
    // Tasks that are still running must not delay the report.
    runtime.shutdown_background();
    assert!(ended.is_ok(), "the test did not end within {max:?}");
}

/// Runs a function on a thread of its own, so that it does not wait for others of this process. If
/// it panics, there is no result.
///
/// # Panics
/// If there is no runtime.
pub fn apart<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> oneshot::Receiver<T> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the runtime starts");
        let _ = sender.send(runtime.block_on(task));
    });
    receiver
}

/// Waits for a future, and panics with the text `what` if it does not complete.
///
/// # Panics
/// After [`PATIENCE`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// Calls `look` again and again until it returns something; blocks the thread.
///
/// # Panics
/// After [`PATIENCE`].
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_longer_for(what, PATIENCE, look)
}

/// Waits as [`wait_for`], with another bound.
///
/// # Panics
/// After `max`.
pub fn wait_longer_for<T>(what: &str, max: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + max;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "{what} did not happen within {max:?}"
        );
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Waits as [`wait_for`], without blocking the thread.
///
/// # Panics
/// After [`PATIENCE`].
pub async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    within(what, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await
}
