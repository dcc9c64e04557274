//! Reading from an honest server.

use deed_client::{Error, Leaf, StateDir};
use deed_testkit::fake::Fake;
use deed_tlog::{LeafIndex, TreeSize};

use crate::appending::requests;

#[tokio::test]
async fn every_leaf_is_proven_in_every_tree() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    let ledger = fake.connect(&StateDir::new(directory.path())).await;
    (0..11).for_each(|seed| fake.add_leaf(seed));
    for size in 1..=12 {
        for index in 0..size {
            let (index, size) = (LeafIndex::new(index), TreeSize::new(size));
            let proven = ledger.entry(index, Some(size)).await.unwrap();
            assert_eq!(proven.leaf.head.head.size, size);
            let by_hash = ledger
                .prove_leaf(Leaf::Hash(proven.leaf.hash), Some(size))
                .await;
            assert_eq!(by_hash.unwrap(), proven.leaf);
        }
    }
    ledger.flush().await.unwrap();
}

#[tokio::test]
async fn all_pairs_of_sizes_are_consistent() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    let ledger = fake.connect(&StateDir::new(directory.path())).await;
    (0..8).for_each(|seed| fake.add_leaf(seed));
    for new in 1..=9 {
        for old in 0..=new {
            let proven = ledger
                .prove_consistency(old.into(), Some(new.into()))
                .await
                .unwrap();
            assert_eq!(proven.old.is_none(), old == 0);
            assert_eq!(proven.new.head.size.get(), new);
        }
    }
    assert!(matches!(
        ledger.prove_consistency(1.into(), Some(10.into())).await,
        Err(Error::Refused { .. })
    ));
}

#[tokio::test]
async fn heads_are_followed_and_stored() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    let fake = Fake::start().await;
    let ledger = fake.connect(&state).await;
    let mut watch = ledger.watch_heads().unwrap();
    assert_eq!(watch.next().await.unwrap().signed.head.size.get(), 1);
    let mut last = 1;
    for request in requests(&ledger, 1, 3, 2) {
        ledger.append(&request).await.unwrap();
        let head = watch.next().await.unwrap();
        assert_eq!(head.consistent_with.unwrap().size.get(), last);
        last = head.signed.head.size.get();
        assert_eq!(last, fake.size());
    }
    ledger.flush().await.unwrap();
    let stored = state
        .store(&ledger.pin().origin)
        .head(ledger.pin())
        .unwrap();
    assert_eq!(stored.unwrap().head.size.get(), 7);
}

#[tokio::test]
async fn two_processes_share_what_they_trust() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    let fake = Fake::start().await;
    let (one, other) = (fake.connect(&state).await, fake.connect(&state).await);
    let stored = || {
        let pin = one.pin();
        state
            .store(&pin.origin)
            .head(pin)
            .unwrap()
            .unwrap()
            .head
            .size
            .get()
    };
    fake.add_leaf(1);
    one.head().await.unwrap();
    fake.add_leaf(2);
    other.head().await.unwrap();
    other.flush().await.unwrap();
    assert_eq!(stored(), 3);
    // Knows of size 2 only: must not take the other's head away, but learn it.
    one.flush().await.unwrap();
    assert_eq!(stored(), 3);
    fake.add_leaf(3);
    assert_eq!(
        one.head()
            .await
            .unwrap()
            .consistent_with
            .unwrap()
            .size
            .get(),
        3
    );
    one.flush().await.unwrap();
    assert_eq!(stored(), 4);
    fake.add_leaf(4);
    other.head().await.unwrap();
    other.flush().await.unwrap();
    assert_eq!(stored(), 5);
}

#[tokio::test]
async fn nobody_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = deed_client::Ledger::connect(deed_testkit::fake::options(&url))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    for url in ["127.0.0.1:7733", "", "ftp://x"] {
        let error = deed_client::Ledger::connect(deed_testkit::fake::options(url))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Input(_)), "{url}: {error}");
    }
}

#[tokio::test]
async fn a_ledger_that_is_not_there() {
    let fake = Fake::start().await;
    let options = deed_client::Options::new(fake.url(), "other");
    let error = deed_client::Ledger::connect(options).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Refused {
                code: tonic::Code::NotFound,
                ..
            }
        ),
        "{error}"
    );
}
