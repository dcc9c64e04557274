//! Tests of what is collected, and of what is not.

use super::{
    Begun, ContentError, ContentStatus,
    content_keys::KeyBatch,
    seal::PIECE_BYTES,
    testing::{Fixture, NUMBER, ORPHAN_MS, content, ledger, noise, waits},
};

/// A time at which a content that was stored at second 1 is old enough.
const OLD: i64 = 1_000_000 + ORPHAN_MS.cast_signed() * 1000;

#[test]
fn contents_that_no_leaf_names_are_collected_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let [named, orphan, young] = [1, 2, 3].map(|n| content(noise(n, 2000)));
    fixture.hold(vec![named.clone(), orphan.clone()]).unwrap();
    fixture.refer(named.digest, &[4]);
    fixture.clock.set(OLD - 1);
    fixture.hold(vec![young.clone()]).unwrap();
    assert_eq!(fixture.collect().unwrap().contents, 0);
    fixture.clock.set(OLD);
    let collected = fixture.collect().unwrap();
    assert_eq!((collected.contents, collected.complete), (1, true));

    let state = |digest| fixture.contents.held(NUMBER, &digest).unwrap();
    assert_eq!(state(named.digest), ContentStatus::Held);
    assert_eq!(state(orphan.digest), ContentStatus::Unknown);
    assert_eq!(state(young.digest), ContentStatus::Held);
    let quota = &fixture.contents.shared.quota;
    assert_eq!(quota.stored("somebody"), 2 * (2000 + 256));
    assert!(
        fixture
            .contents
            .shared
            .keys
            .get(NUMBER, &orphan.digest)
            .unwrap()
            .is_none()
    );
    // Unlike an erased content, a collected one may come back.
    assert_eq!(fixture.hold(vec![orphan]).unwrap(), 1);
    fixture.close();
}

#[test]
fn with_little_space_contents_are_refused_and_orphans_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open_with(dir.path(), |options| options.orphan_ms = 24 * 3_600_000);
    let disk = fixture.store.disk();
    disk.pretend(100 << 30);
    let [named, orphan, young] = [1, 2, 3].map(|n| content(noise(n, 2000)));
    fixture.hold(vec![named.clone(), orphan.clone()]).unwrap();
    fixture.refer(named.digest, &[4]);
    // A minute has passed, much less than the usual time.
    fixture.clock.set(61_000_000);
    fixture.hold(vec![young.clone()]).unwrap();
    assert_eq!(fixture.collect().unwrap().contents, 0);
    let begun = |size| {
        let salt = &orphan.salt;
        let (contents, digest) = (&fixture.contents, content("new").digest);
        contents.begin_upload(ledger(), digest, salt, size, &"somebody".into())
    };
    let Ok(Begun::Upload(mut upload)) = begun(6 * PIECE_BYTES as u64) else {
        panic!("it begins");
    };
    let pieces = noise(4, 3 * PIECE_BYTES).into();
    upload.write(&pieces).unwrap();
    // 5 % of the disk's size are kept free.
    disk.pretend(5 << 30);
    assert!(matches!(begun(1), Err(ContentError::NoSpace(_))));
    let refused = fixture.hold(vec![content("attached")]);
    assert!(matches!(refused, Err(ContentError::NoSpace(_))));
    // Uploads that began earlier store nothing more either.
    let refused = upload.write(&pieces);
    assert!(matches!(refused, Err(ContentError::NoSpace(_))));
    disk.pretend((5 << 30) - 1);
    drop(upload);
    let collected = fixture.collect().unwrap();
    assert_eq!((collected.contents, collected.uploads), (1, 1));
    let state = |digest| fixture.contents.held(NUMBER, &digest).unwrap();
    assert_eq!(state(named.digest), ContentStatus::Held);
    assert_eq!(state(orphan.digest), ContentStatus::Unknown);
    assert_eq!(state(young.digest), ContentStatus::Held);
    assert_eq!(fixture.read(named.digest).unwrap(), named.bytes);
    disk.pretend(100 << 30);
    fixture.hold(vec![orphan]).unwrap();
    fixture.close();
}

#[test]
fn what_is_stored_again_is_kept_as_long_as_if_it_were_new() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let [attached, put, lost] = [1, 2, 3].map(|n| content(noise(n, 100)));
    let all = [attached.clone(), put.clone(), lost.clone()];
    fixture.hold(all.to_vec()).unwrap();
    fixture.clock.set(OLD - 1);
    assert_eq!(fixture.hold(vec![attached.clone()]).unwrap(), 0);
    let keep = |digest| {
        fixture.block_on(async {
            let gate = fixture.contents.enter(NUMBER).await;
            fixture.contents.keep_held(&gate, digest).await.unwrap()
        })
    };
    assert!(keep(put.digest));
    fixture.clock.set(OLD);
    assert_eq!(fixture.collect().unwrap().contents, 1);
    assert!(!keep(lost.digest));
    let state = |digest| fixture.contents.held(NUMBER, &digest).unwrap();
    assert_eq!(state(attached.digest), ContentStatus::Held);
    assert_eq!(state(put.digest), ContentStatus::Held);
    fixture.clock.set(2 * OLD);
    assert_eq!(fixture.collect().unwrap().contents, 2);
    fixture.close();
}

#[test]
fn a_content_that_is_being_named_is_not_collected() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let held = content("about to be named");
    fixture.hold(vec![held.clone()]).unwrap();
    fixture.clock.set(OLD);
    fixture.block_on(async {
        let naming = fixture.contents.enter(NUMBER).await;
        let state = fixture.contents.held(NUMBER, &held.digest).unwrap();
        assert_eq!(state, ContentStatus::Held);
        let collecting = std::sync::Arc::clone(&fixture.contents);
        let collecting = tokio::spawn(async move { collecting.collect().await });
        // The collection has found the content once it waits at the gate: from then on it lets no
        // other in.
        loop {
            let next = fixture.contents.enter(NUMBER);
            tokio::pin!(next);
            if waits(&mut next).await {
                break;
            }
            tokio::task::yield_now().await;
        }
        fixture.refer(held.digest, &[5]);
        drop(naming);
        assert_eq!(collecting.await.unwrap().unwrap().contents, 0);
    });
    assert_eq!(fixture.read(held.digest).unwrap(), b"about to be named");
    fixture.close();
}

#[test]
fn what_a_crash_left_is_collected() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let [whole, keyless] = [1, 2].map(|n| content(noise(n, 100)));
    fixture.hold(vec![whole.clone(), keyless.clone()]).unwrap();
    let keys = &fixture.contents.shared.keys;
    // A key without a content.
    let lost = content("lost").digest;
    let mut batch = KeyBatch::default();
    batch.put(
        NUMBER,
        &lost,
        &keys.get(NUMBER, &whole.digest).unwrap().unwrap(),
    );
    // A content without a key.
    batch.delete(NUMBER, &keyless.digest);
    keys.write(batch).unwrap();
    // An upload that ended in the middle.
    let large = content(noise(3, 3 * PIECE_BYTES));
    let size = large.bytes.len() as u64;
    let begun =
        fixture
            .contents
            .begin_upload(ledger(), large.digest, &large.salt, size, &large.principal);
    let Ok(Begun::Upload(mut upload)) = begun else {
        panic!("it is not held");
    };
    upload.write(&large.bytes).unwrap();
    let id = fixture.store.uploads(NUMBER).next().unwrap().unwrap().0;
    drop(upload);
    fixture.close();

    let fixture = Fixture::open(dir.path());
    let state = |digest| fixture.contents.held(NUMBER, &digest).unwrap();
    assert_eq!(state(keyless.digest), ContentStatus::Unknown);
    // Keys of contents that an older copy of the store lacks must not be destroyed at once.
    let collected = fixture.collect().unwrap();
    assert_eq!((collected.uploads, collected.keys), (1, 0));
    assert!(
        fixture
            .contents
            .shared
            .keys
            .get(NUMBER, &lost)
            .unwrap()
            .is_some()
    );
    let first_piece = fixture.store.chunk(NUMBER, &large.digest, &id, 0).unwrap();
    assert!(first_piece.is_none());

    // A content that a leaf names and that has no key is damage, and never collected.
    fixture.refer(keyless.digest, &[6]);
    fixture.refer(whole.digest, &[6]);
    fixture.clock.set(OLD);
    let collected = fixture.collect().unwrap();
    assert_eq!((collected.contents, collected.keys), (0, 1));
    assert!(
        fixture
            .contents
            .shared
            .keys
            .get(NUMBER, &lost)
            .unwrap()
            .is_none()
    );
    let read = fixture.read(keyless.digest);
    assert!(
        matches!(read, Err(ContentError::Damaged { .. })),
        "{read:?}"
    );
    // Storing the right bytes again repairs it.
    assert_eq!(fixture.hold(vec![keyless.clone()]).unwrap(), 1);
    assert_eq!(fixture.read(keyless.digest).unwrap(), keyless.bytes);
    assert_eq!(fixture.read(whole.digest).unwrap(), whole.bytes);
    fixture.close();
}

#[test]
fn rounds_are_bounded_and_go_on_where_they_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let count = 4096 + 10;
    let all: Vec<_> = (0..count).map(|n| content(noise(n, 10))).collect();
    for some in all.chunks(1000) {
        fixture.hold(some.to_vec()).unwrap();
    }
    fixture.clock.set(OLD);
    let first = fixture.collect().unwrap();
    assert_eq!((first.contents, first.complete), (4096, false));
    let second = fixture.collect().unwrap();
    assert_eq!((second.contents, second.complete), (10, true));
    assert!(fixture.contents.shared.keys.is_empty().unwrap());
    fixture.close();
}
