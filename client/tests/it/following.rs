//! Following the tree head: forwards only, and each head once.

use std::time::Duration;

use deed_client::{Error, ErrorKind, HeadWatch, Ledger, StateDir, TrustError};
use deed_testkit::fake::{Fake, Lie, options};

use crate::proxy::Proxy;

/// An honest server with five leaves, and a client that trusts its head.
async fn scene() -> (Fake, Ledger, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    (1..5).for_each(|seed| fake.add_leaf(seed));
    let ledger = fake.connect(&StateDir::new(directory.path())).await;
    (fake, ledger, directory)
}

async fn next_size(watch: &mut HeadWatch) -> u64 {
    watch.next().await.unwrap().signed.head.size.get()
}

fn assert_stale(error: &Error, sizes: (u64, u64)) {
    let stale = match error {
        Error::Trust(error) => match **error {
            TrustError::Stale { found, trusted } => Some((found, trusted)),
            _ => None,
        },
        _ => None,
    };
    assert_eq!(stale, Some(sizes), "{error}");
    assert_eq!(error.kind(), ErrorKind::DoesNotVerify);
}

#[tokio::test]
async fn an_older_head_is_not_the_newest() {
    let (fake, ledger, _directory) = scene().await;
    fake.lock().script.lie = Lie::OldHead;
    assert_stale(&ledger.head().await.unwrap_err(), (4, 5));
    let mut watch = ledger.watch_heads().unwrap();
    assert_stale(&watch.next().await.unwrap_err(), (4, 5));
    // A stale head is no fork: once the server shows newer heads again, following goes on.
    fake.lock().script.lie = Lie::None;
    assert_eq!(next_size(&mut watch).await, 5);
    assert_eq!(ledger.head().await.unwrap().signed.head.size.get(), 5);
    ledger.flush().await.unwrap();
}

#[tokio::test]
async fn a_head_that_gets_older_while_it_is_followed() {
    let (fake, ledger, _directory) = scene().await;
    let mut watch = ledger.watch_heads().unwrap();
    assert_eq!(next_size(&mut watch).await, 5);
    fake.add_leaf(9);
    assert_eq!(next_size(&mut watch).await, 6);
    fake.lock().script.lie = Lie::OldHead;
    fake.tell_watches();
    assert_stale(&watch.next().await.unwrap_err(), (5, 6));
}

#[tokio::test]
async fn no_head_is_reported_twice_after_a_lost_connection() {
    let (fake, _ledger, directory) = scene().await;
    let proxy = Proxy::to(fake.address).await;
    let options = options(&proxy.url()).state(StateDir::new(directory.path()));
    let ledger = Ledger::connect(options).await.unwrap();
    let mut watch = ledger.watch_heads().unwrap();
    assert_eq!(next_size(&mut watch).await, 5);
    for round in 1..4 {
        assert!(proxy.cut() > 0);
        let grow = async {
            while fake.lock().script.watches != round + 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // The head that is known already is on its way.
            tokio::time::sleep(Duration::from_millis(10)).await;
            fake.add_leaf(10 + round as u8);
        };
        let (size, ()) = tokio::join!(next_size(&mut watch), grow);
        assert_eq!(size, 5 + u64::from(round));
    }
}

#[tokio::test]
async fn reconnecting_without_news_comes_to_an_end() {
    let (fake, ledger, _directory) = scene().await;
    fake.lock().script.lie = Lie::ShortWatch;
    let mut watch = ledger.watch_heads().unwrap();
    assert_eq!(next_size(&mut watch).await, 5);
    let error = watch.next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    // The first one, and as many attempts as the policy allows.
    assert_eq!(fake.lock().script.watches, 9);
}

#[tokio::test]
async fn a_watch_that_denies_the_newest_head_comes_to_an_end() {
    let (fake, ledger, _directory) = scene().await;
    fake.lock().script.lie = Lie::WatchOutOfRange;
    let mut watch = ledger.watch_heads().unwrap();
    assert_eq!(next_size(&mut watch).await, 5);
    fake.add_leaf(9);
    assert_eq!(next_size(&mut watch).await, 6);
    let error = watch.next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    // One call for each head, then one call and as many retries as the policy allows.
    assert_eq!(fake.lock().script.watches, 11);
}
