//! Tests that erased contents are in no file.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use deed_evidence::{
    CommitmentDigest,
    commitment::{Salt, digest_of},
};

use super::{
    Begun, ContentError, ContentStatus, NewContent, seal,
    testing::{self, Fixture, NUMBER, content, ledger, noise, read_all, waits},
};

/// Byte strings that must not be found in any file, with their names.
struct Secrets(Vec<(&'static str, Vec<u8>)>);

impl Secrets {
    fn of(fixture: &Fixture, content: &NewContent) -> Self {
        let shared = &fixture.contents.shared;
        let key = shared.keys.get(NUMBER, &content.digest).unwrap().unwrap();
        let binding = seal::Binding {
            ledger_id: ledger().id,
            digest: content.digest,
        };
        let data_key = seal::unwrap(&shared.wrapping, &binding, &key.wrapped).unwrap();
        Self(vec![
            ("tag", key.tag.as_bytes().to_vec()),
            ("wrapped key", key.wrapped.to_vec()),
            ("sealed part of the wrapped key", key.wrapped[24..].to_vec()),
            ("data key", data_key.to_vec()),
            ("salt", content.salt.as_bytes().to_vec()),
            ("beginning of the plaintext", content.bytes[..64].to_vec()),
            (
                "end of the plaintext",
                content.bytes[content.bytes.len() - 64..].to_vec(),
            ),
        ])
    }

    /// Returns the names of those that are in a file below the directory.
    fn found_in(&self, data_dir: &Path) -> Vec<&'static str> {
        let mut files = Vec::new();
        list(data_dir, &mut files);
        assert!(files.len() > 10, "a store has many files");
        let mut found = Vec::new();
        for file in files {
            // RocksDB may remove a file of the other database during the search.
            let Ok(bytes) = fs::read(&file) else {
                continue;
            };
            for (name, secret) in &self.0 {
                if contains(&bytes, secret) && !found.contains(name) {
                    found.push(*name);
                }
            }
        }
        found.sort_unstable();
        found
    }
}

pub(super) fn contains(bytes: &[u8], secret: &[u8]) -> bool {
    // Half of a secret is enough: a log may cut a record at a block's border.
    let half = secret.len() / 2;
    [&secret[..half], &secret[half..]]
        .iter()
        .any(|part| bytes.windows(part.len()).any(|window| window == *part))
}

pub(super) fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, files);
        } else {
            files.push(path);
        }
    }
}

#[test]
fn an_erased_content_is_in_no_file() {
    // The key is in the log, in a fresh file, or at the bottom of many files.
    for moved in [0, 1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = testing::data_dir(dir.path());
        let fixture = Fixture::open(dir.path());
        let others: Vec<_> = (0..50).map(|n| content(noise(n, 500))).collect();
        fixture.hold(others[..25].to_vec()).unwrap();
        let gone = content(noise(99, 20_000));
        fixture.hold(vec![gone.clone()]).unwrap();
        fixture.hold(others[25..].to_vec()).unwrap();
        for _ in 0..moved {
            fixture.contents.shared.keys.settle();
        }
        let secrets = Secrets::of(&fixture, &gone);
        // The search must find these, or it proves nothing; the plaintexts must never be found,
        // even before.
        let before = ["sealed part of the wrapped key", "tag", "wrapped key"];
        assert_eq!(secrets.found_in(&data_dir), before, "{moved}");

        assert_eq!(fixture.erase(&[gone.digest], 7).unwrap(), 1);
        assert_eq!(secrets.found_in(&data_dir), [""; 0], "{moved}");
        let read = fixture.read(gone.digest);
        assert!(matches!(read, Err(ContentError::Erased { leaf: 7, .. })));
        let state = fixture.contents.held(NUMBER, &gone.digest).unwrap();
        assert_eq!(state, ContentStatus::Erased(7));

        fixture.contents.shared.keys.settle();
        assert_eq!(secrets.found_in(&data_dir), [""; 0], "{moved}");
        fixture.close();
        let fixture = Fixture::open(dir.path());
        assert_eq!(secrets.found_in(&data_dir), [""; 0], "{moved}");
        for other in &others {
            assert_eq!(fixture.read(other.digest).unwrap(), other.bytes);
        }
        // An erased content is not accepted again.
        let refused = fixture.hold(vec![gone]);
        assert!(matches!(refused, Err(ContentError::Erased { leaf: 7, .. })));
        fixture.close();
    }
}

#[test]
fn an_erasure_that_a_crash_interrupted_is_finished_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = testing::data_dir(dir.path());
    let fixture = Fixture::open(dir.path());
    let gone = content(noise(1, 3000));
    fixture.hold(vec![gone.clone()]).unwrap();
    let secrets = Secrets::of(&fixture, &gone);
    // The erasure is committed, and then the server ends.
    fixture.record_erasure(&[gone.digest], 4);
    let read = fixture.read(gone.digest);
    assert!(matches!(read, Err(ContentError::Erased { leaf: 4, .. })));
    fixture.close();
    assert!(!secrets.found_in(&data_dir).is_empty());

    let fixture = Fixture::open(dir.path());
    assert_eq!(secrets.found_in(&data_dir), [""; 0]);
    assert_eq!(fixture.store.erasing(NUMBER).count(), 0);
    let state = fixture.contents.held(NUMBER, &gone.digest).unwrap();
    assert_eq!(state, ContentStatus::Erased(4));
    fixture.close();
}

#[test]
fn an_erasure_whose_caller_gave_up_is_finished_by_a_collection() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let gone = content(noise(1, 3000));
    fixture.hold(vec![gone.clone()]).unwrap();
    let secrets = Secrets::of(&fixture, &gone);
    fixture.block_on(async {
        let digests = [gone.digest];
        let guard = fixture
            .contents
            .begin_erasure(NUMBER, &digests)
            .await
            .unwrap();
        fixture.record_erasure(&digests, 4);
        drop(guard);
    });
    assert_eq!(fixture.collect().unwrap().erasures, 1);
    assert_eq!(secrets.found_in(&testing::data_dir(dir.path())), [""; 0]);
    assert_eq!(fixture.collect().unwrap().erasures, 0);
    fixture.close();
}

#[test]
fn a_guard_tells_what_is_known_and_who_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let [held, gone] = [1, 2].map(|n| content(noise(n, 100)));
    let unknown = CommitmentDigest::new([3; 32]);
    fixture.hold(vec![held.clone(), gone.clone()]).unwrap();
    fixture.refer(held.digest, &[3, 4, 5, 8, 9]);
    fixture.erase(&[gone.digest], 11).unwrap();

    let guard = fixture
        .block_on(
            fixture
                .contents
                .begin_erasure(NUMBER, &[held.digest, gone.digest, unknown]),
        )
        .unwrap();
    let states: Vec<_> = guard.contents().iter().map(|(_, state)| *state).collect();
    assert_eq!(
        states,
        [
            ContentStatus::Held,
            ContentStatus::Erased(11),
            ContentStatus::Unknown
        ]
    );
    // Even leaves belong to one task, odd ones to none: the newest of each is returned.
    let mut leaves: Vec<_> = guard
        .references(&held.digest)
        .unwrap()
        .iter()
        .map(|reference| (reference.leaf, reference.task.is_some()))
        .collect();
    leaves.sort_unstable();
    assert_eq!(leaves, [(8, true), (9, false)]);
    assert_eq!(guard.references(&gone.digest).unwrap(), []);

    // The turn takes contents that are held; those of an earlier Erasure stay with that one.
    fixture.record_erasure(&[held.digest], 20);
    let erased = fixture
        .block_on(fixture.contents.complete_erasure(guard, 20))
        .unwrap();
    assert_eq!(erased, 1);
    let state = |digest| fixture.contents.held(NUMBER, &digest).unwrap();
    assert_eq!(state(held.digest), ContentStatus::Erased(20));
    assert_eq!(state(gone.digest), ContentStatus::Erased(11));
    assert_eq!(state(unknown), ContentStatus::Unknown);
    assert_eq!(fixture.store.references(NUMBER, &held.digest, 0).count(), 0);
    fixture.close();
}

#[test]
fn an_erasure_waits_for_those_who_name_contents_and_they_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let held = content("named");
    fixture.hold(vec![held.clone()]).unwrap();
    fixture.block_on(async {
        let naming = fixture.contents.enter(NUMBER).await;
        let digests = [held.digest];
        let erasing = fixture.contents.begin_erasure(NUMBER, &digests);
        tokio::pin!(erasing);
        assert!(waits(&mut erasing).await);
        // A later caller enters after the erasure, not before it.
        let later = fixture.contents.enter(NUMBER);
        tokio::pin!(later);
        assert!(waits(&mut later).await);
        // Another ledger is not affected.
        drop(fixture.contents.enter(crate::store::LedgerNumber(4)).await);

        fixture.refer(held.digest, &[5]);
        drop(naming);
        let guard = erasing.await.unwrap();
        assert_eq!(guard.references(&held.digest).unwrap().len(), 1);
        assert!(waits(&mut later).await);
        drop(guard);
        drop(later.await);
    });
    fixture.close();
}

#[test]
fn a_reader_gets_nothing_more_once_it_is_erased() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let large = content(noise(1, 3 << 20));
    fixture.hold(vec![large.clone()]).unwrap();
    let mut reader = fixture
        .contents
        .open_content(ledger(), large.digest)
        .unwrap();
    assert!(reader.next_piece().unwrap().is_some());
    fixture.erase(&[large.digest], 2).unwrap();
    let read = read_all(reader);
    assert!(matches!(read, Err(ContentError::Erased { leaf: 2, .. })));
    assert_eq!(Arc::strong_count(&fixture.contents), 1);
    fixture.close();
}

#[test]
fn keys_that_come_back_with_an_old_copy_are_destroyed_again() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = testing::data_dir(dir.path());
    let fixture = Fixture::open(dir.path());
    let [gone, kept] = [1, 2].map(|n| content(noise(n, 3000)));
    fixture.hold(vec![gone.clone(), kept.clone()]).unwrap();
    let secrets = Secrets::of(&fixture, &gone);
    fixture.close();
    let keys = super::KeyStore::path_in(&data_dir);
    let copy = dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(&keys).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let fixture = Fixture::open(dir.path());
    fixture.erase(&[gone.digest], 7).unwrap();
    fixture.close();
    assert_eq!(secrets.found_in(&data_dir), [""; 0]);

    fs::remove_dir_all(&keys).unwrap();
    fs::rename(&copy, &keys).unwrap();
    assert!(!secrets.found_in(&data_dir).is_empty());
    let fixture = Fixture::open(dir.path());
    let read = fixture.read(gone.digest);
    assert!(matches!(read, Err(ContentError::Erased { leaf: 7, .. })));
    assert_eq!(fixture.collect().unwrap().keys, 1);
    assert_eq!(secrets.found_in(&data_dir), [""; 0]);
    assert_eq!(fixture.read(kept.digest).unwrap(), kept.bytes);
    fixture.close();
}

#[test]
fn what_is_collected_is_in_no_file_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = testing::data_dir(dir.path());
    let fixture = Fixture::open(dir.path());
    let [orphan, kept] = [1, 2].map(|n| content(noise(n, 3000)));
    fixture.hold(vec![orphan.clone(), kept.clone()]).unwrap();
    fixture.refer(kept.digest, &[1]);
    let secrets = Secrets::of(&fixture, &orphan);
    fixture.contents.shared.keys.settle();
    assert!(!secrets.found_in(&data_dir).is_empty());
    fixture
        .clock
        .set(1_000_000 + testing::ORPHAN_MS.cast_signed() * 1000);
    assert_eq!(fixture.collect().unwrap().contents, 1);
    assert_eq!(secrets.found_in(&data_dir), [""; 0]);
    assert_eq!(fixture.read(kept.digest).unwrap(), kept.bytes);
    fixture.close();
}

#[test]
fn references_go_with_a_content_however_many_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let [few, many, other] = [1, 2, 3].map(|n| content(noise(n, 100)));
    let all = [few.clone(), many.clone(), other.clone()];
    fixture.hold(all.to_vec()).unwrap();
    let leaves: Vec<u64> = (0..1000).collect();
    fixture.refer(few.digest, &leaves[..64]);
    fixture.refer(many.digest, &leaves);
    fixture.refer(other.digest, &leaves);
    fixture.erase(&[few.digest, many.digest], 2000).unwrap();
    let count = |digest| fixture.store.references(NUMBER, &digest, 0).count();
    assert_eq!(
        [few.digest, many.digest, other.digest].map(count),
        [0, 0, 1000]
    );
    fixture.close();
}

#[test]
fn files_that_are_not_the_databases_own_stop_no_purge() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let gone = content(noise(1, 100));
    fixture.hold(vec![gone.clone()]).unwrap();
    let keys = super::KeyStore::path_in(&testing::data_dir(dir.path()));
    fs::write(keys.join("copy of 000009.sst"), "").unwrap();
    fs::write(keys.join("old.log"), "").unwrap();
    assert_eq!(fixture.erase(&[gone.digest], 1).unwrap(), 1);
    assert!(keys.join("old.log").exists());
    fixture.close();
}

/// Returns the same bytes as a content with another salt.
fn salted(bytes: &[u8], salt: u8) -> NewContent {
    let salt = Salt::from_bytes([salt; 32]);
    NewContent {
        digest: digest_of(&salt, bytes),
        salt,
        bytes: bytes.to_vec().into(),
        principal: Arc::from("somebody"),
    }
}

#[test]
fn the_same_bytes_under_other_commitments_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let twins_of = |digests: &[CommitmentDigest]| {
        fixture.block_on(async {
            let guard = fixture.contents.begin_erasure(NUMBER, digests).await;
            guard.unwrap().twins().unwrap()
        })
    };
    let same: Vec<_> = (0..3).map(|salt| salted(b"a plaintext", salt)).collect();
    let other = salted(b"another plaintext", 1);
    let empty = [salted(b"", 1), salted(b"", 2)];
    let all = same.iter().chain([&other]).chain(&empty);
    fixture.hold(all.cloned().collect()).unwrap();
    // A content that comes in pieces has the same tag.
    let long = noise(5, (3 << 20) / 2);
    let (whole, upload) = (salted(&long, 1), salted(&long, 2));
    fixture.hold(vec![whole.clone()]).unwrap();
    fixture.block_on(async {
        let principal = Arc::from("somebody");
        let size = upload.bytes.len() as u64;
        let (salt, digest) = (&upload.salt, upload.digest);
        let begun = fixture
            .contents
            .begin_upload(ledger(), digest, salt, size, &principal);
        let Begun::Upload(mut begun) = begun.unwrap() else {
            panic!("it is new");
        };
        for piece in upload.bytes.chunks(1 << 18) {
            let piece = bytes::Bytes::copy_from_slice(piece);
            begun = fixture.contents.write_upload(begun, piece).await.unwrap();
        }
        let gate = fixture.contents.enter(NUMBER).await;
        fixture.contents.finish_upload(&gate, *begun).await.unwrap();
    });
    assert_eq!(twins_of(&[whole.digest]), [upload.digest]);

    let mut left = vec![same[1].digest, same[2].digest];
    left.sort_unstable();
    assert_eq!(twins_of(&[same[0].digest]), left);
    assert_eq!(
        twins_of(&[same[0].digest, same[1].digest]),
        [same[2].digest]
    );
    assert_eq!(twins_of(&[other.digest]), []);
    // Empty contents have no twins.
    assert_eq!(twins_of(&[empty[0].digest]), []);
    // An erased content is no twin and has none: its tag is gone.
    let erased = [same[0].digest, same[1].digest];
    fixture.refer(same[0].digest, &[2]);
    assert_eq!(fixture.erase(&erased, 7).unwrap(), 2);
    assert_eq!(twins_of(&[same[2].digest]), []);
    assert_eq!(twins_of(&erased), []);
    let unknown = CommitmentDigest::new([9; 32]);
    assert_eq!(twins_of(&[unknown]), []);
    fixture.close();
}
