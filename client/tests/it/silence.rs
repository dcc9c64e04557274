//! A server that keeps the connection and says nothing.

use std::{future::Future, time::Duration};

use deed_client::{Error, ErrorKind, Leaf, Ledger, Options, RetryPolicy, StateDir};
use deed_testkit::fake::{Fake, Lie};
use deed_tlog::{LeafIndex, TreeSize};

use crate::appending::requests;

/// Short patience, and one more attempt. Long enough for a busy machine to answer the calls that
/// are to be answered.
const PATIENCE_MS: u64 = 400;

fn impatient(fake: &Fake) -> Options {
    let retry = RetryPolicy {
        initial_ms: 1,
        pause_ms_max: 1,
        attempts_max: 1,
        total_ms_max: 1_000,
    };
    fake.options().timeout_ms(PATIENCE_MS).retry(retry)
}

/// Far more than all attempts take, far less than for ever.
async fn gives_up<T>(what: &str, call: impl Future<Output = Result<T, Error>>) {
    let outcome = tokio::time::timeout(Duration::from_secs(30), call).await;
    let outcome = outcome.unwrap_or_else(|_| panic!("{what} hangs"));
    let Err(error) = outcome else {
        panic!("{what} has an answer");
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}");
    assert!(
        error.to_string().contains("no answer came in time"),
        "{what}: {error}"
    );
}

#[tokio::test]
async fn every_call_gives_up() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.add_leaf(1);
    let options = impatient(&fake).state(StateDir::new(directory.path()));
    let ledger = Ledger::connect(options.clone()).await.unwrap();
    fake.lock().script.lie = Lie::Silence;
    let index = LeafIndex::new(0);
    gives_up("connecting", Ledger::connect(options)).await;
    gives_up("head", ledger.head()).await;
    gives_up("proving", ledger.prove_leaf(Leaf::Index(index), None)).await;
    gives_up("an entry", ledger.entry(index, None)).await;
    let consistency = ledger.prove_consistency(TreeSize::new(1), None);
    gives_up("consistency", consistency).await;
    let request = requests(&ledger, 1, 1, 1).remove(0);
    gives_up("appending", ledger.append(&request)).await;
    let mut watch = ledger.watch_heads().unwrap();
    gives_up("following", watch.next()).await;
}

#[tokio::test]
async fn a_call_is_tried_again() {
    let fake = Fake::start().await;
    let ledger = Ledger::connect(fake.options().timeout_ms(100))
        .await
        .unwrap();
    fake.lock().script.lie = Lie::Silence;
    let speak = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        fake.lock().script.lie = Lie::None;
    };
    let (head, ()) = tokio::join!(ledger.head(), speak);
    assert_eq!(head.unwrap().signed.head.size.get(), 1);
}

/// Only the first head is due at once.
#[tokio::test]
async fn a_tree_that_does_not_grow_is_no_silence() {
    let fake = Fake::start().await;
    let ledger = Ledger::connect(impatient(&fake)).await.unwrap();
    let mut watch = ledger.watch_heads().unwrap();
    watch.next().await.unwrap();
    let grow = async {
        tokio::time::sleep(Duration::from_millis(2 * PATIENCE_MS)).await;
        fake.add_leaf(1);
    };
    let (head, ()) = tokio::join!(watch.next(), grow);
    assert_eq!(head.unwrap().signed.head.size.get(), 2);
    assert_eq!(fake.lock().script.watches, 1);
}
