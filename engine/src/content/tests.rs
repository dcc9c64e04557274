//! Tests of holding, uploading and reading contents.

use std::{fs, sync::Arc};

use bytes::Bytes;
use deed_evidence::CommitmentDigest;

use super::{
    Begun, ContentError, ContentStartError, ContentStatus, KeyFileError, LedgerRef, NewContent,
    seal::{self, PIECE_BYTES},
    testing::{self, Fixture, NUMBER, content, ledger, noise},
    upload::Upload,
};
use crate::store::{Batch, Family, keys};

/// Sizes around every border of a piece. The first piece also holds the salt.
const SIZES: [usize; 9] = [
    0,
    1,
    100,
    64 << 10,
    PIECE_BYTES - 33,
    PIECE_BYTES - 32,
    PIECE_BYTES - 31,
    2 * PIECE_BYTES - 32,
    2 * PIECE_BYTES + 5,
];

fn begin(fixture: &Fixture, content: &NewContent, size: u64) -> Result<Begun, ContentError> {
    fixture.contents.begin_upload(
        ledger(),
        content.digest,
        &content.salt,
        size,
        &content.principal,
    )
}

fn upload(fixture: &Fixture, content: &NewContent, cut: usize) -> Result<bool, ContentError> {
    let size = content.bytes.len() as u64;
    let Begun::Upload(mut upload) = begin(fixture, content, size)? else {
        return Ok(false);
    };
    for chunk in content.bytes.chunks(cut) {
        upload.write(&Bytes::copy_from_slice(chunk))?;
    }
    finish(fixture, *upload)
}

fn finish(fixture: &Fixture, upload: Upload) -> Result<bool, ContentError> {
    fixture.block_on(async {
        let gate = fixture.contents.enter(NUMBER).await;
        fixture.contents.finish_upload(&gate, upload).await
    })
}

/// Returns true if the store holds nothing of any content.
fn is_empty(fixture: &Fixture) -> bool {
    fixture.store.content_ledgers().unwrap().is_empty()
        && fixture.contents.shared.keys.is_empty().unwrap()
}

#[test]
fn contents_of_every_size_come_back_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let held: Vec<_> = (0..)
        .zip(SIZES)
        .map(|(n, len)| content(noise(n, len)))
        .collect();
    assert_eq!(fixture.hold(held.clone()).unwrap(), SIZES.len());
    let uploaded: Vec<_> = (100..)
        .zip(SIZES)
        .map(|(n, len)| content(noise(n, len)))
        .collect();
    for content in uploaded.iter().filter(|content| !content.bytes.is_empty()) {
        assert!(upload(&fixture, content, 300_007).unwrap());
        // The content is sent again: it is held already.
        assert!(!upload(&fixture, content, 300_007).unwrap());
    }
    assert_eq!(fixture.hold(held.clone()).unwrap(), 0);
    fixture.close();

    let fixture = Fixture::open(dir.path());
    for content in held.iter().chain(&uploaded) {
        assert_eq!(fixture.read(content.digest).unwrap(), content.bytes);
        assert_eq!(
            fixture.contents.held(NUMBER, &content.digest).unwrap(),
            ContentStatus::Held
        );
    }
    let unknown = CommitmentDigest::new([1; 32]);
    assert_eq!(
        fixture.contents.held(NUMBER, &unknown).unwrap(),
        ContentStatus::Unknown
    );
    assert!(matches!(
        fixture.read(unknown),
        Err(ContentError::Unknown { .. })
    ));
    fixture.close();
}

#[test]
fn a_request_is_held_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let good = content("good");
    let bad = NewContent {
        bytes: Bytes::from_static(b"other bytes"),
        ..content("bad")
    };
    let refused = fixture.hold(vec![good.clone(), bad]);
    assert!(matches!(refused, Err(ContentError::Mismatch { .. })));
    assert!(is_empty(&fixture));

    let erased = content("erased");
    fixture.hold(vec![erased.clone()]).unwrap();
    fixture.erase(&[erased.digest], 9).unwrap();
    let refused = fixture.hold(vec![good.clone(), erased]);
    assert!(matches!(refused, Err(ContentError::Erased { leaf: 9, .. })));
    let state = fixture.contents.held(NUMBER, &good.digest).unwrap();
    assert_eq!(state, ContentStatus::Unknown);

    // A content that comes twice in one request is stored once.
    assert_eq!(fixture.hold(vec![good.clone(), good]).unwrap(), 1);
    fixture.close();
}

#[test]
fn many_holders_at_once_are_all_answered() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let all: Vec<_> = (0..200).map(|n| content(noise(n, 9000))).collect();
    let news = fixture.block_on(async {
        let mut tasks = Vec::new();
        // Each content is sent twice: one of the two is new.
        for content in all.iter().chain(&all).cloned() {
            let contents = Arc::clone(&fixture.contents);
            tasks.push(tokio::spawn(async move {
                let gate = contents.enter(NUMBER).await;
                contents.hold(&gate, vec![content], ledger()).await.unwrap()
            }));
        }
        let mut news = 0;
        for task in tasks {
            news += task.await.unwrap();
        }
        news
    });
    assert_eq!(news, all.len());
    for content in &all {
        assert_eq!(fixture.read(content.digest).unwrap(), content.bytes);
    }
    fixture.close();
}

#[test]
fn wrong_uploads_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let large = content(noise(1, 3 * PIECE_BYTES));
    let size = large.bytes.len() as u64;
    let begun = |size| match begin(&fixture, &large, size) {
        Ok(Begun::Upload(upload)) => upload,
        _ => panic!("it is not held"),
    };

    let mut short = begun(size);
    short.write(&large.bytes.slice(..2 * PIECE_BYTES)).unwrap();
    assert!(fixture.store.uploads(NUMBER).next().is_some());
    let came = 2 * PIECE_BYTES as u64;
    let refused = finish(&fixture, *short);
    assert!(
        matches!(refused, Err(ContentError::Size { said, came: c }) if said == size && c == came)
    );

    let mut long = begun(size - 1);
    let refused = long.write(&large.bytes);
    assert!(matches!(refused, Err(ContentError::Size { .. })));
    drop(long);

    let mut other = begun(size);
    let mut bytes = large.bytes.to_vec();
    bytes[5] ^= 1;
    other.write(&bytes.into()).unwrap();
    let refused = finish(&fixture, *other);
    assert!(matches!(refused, Err(ContentError::Mismatch { .. })));

    let refused = begin(&fixture, &large, (64 << 20) + 1);
    assert!(matches!(refused, Err(ContentError::TooLarge { max, .. }) if max == 64 << 20));

    // This upload is under way and must stay.
    let mut under_way = begun(size);
    under_way
        .write(&large.bytes.slice(..2 * PIECE_BYTES))
        .unwrap();
    assert_eq!(fixture.collect().unwrap().uploads, 2);
    under_way
        .write(&large.bytes.slice(2 * PIECE_BYTES..))
        .unwrap();
    assert!(finish(&fixture, *under_way).unwrap());
    assert_eq!(fixture.read(large.digest).unwrap(), large.bytes);
    assert_eq!(fixture.collect().unwrap().uploads, 0);

    fixture.clock.set(10_000_000);
    assert_eq!(fixture.collect().unwrap().contents, 1);
    assert!(is_empty(&fixture));
    fixture.close();
}

/// Admission looks contents up only in ledgers that may hold some.
#[test]
fn a_ledger_may_hold_contents_from_the_first_one_on() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    assert!(!fixture.contents.may_hold(NUMBER));
    let uploaded = content("uploaded, not attached");
    assert!(upload(&fixture, &uploaded, 10).unwrap());
    assert!(fixture.contents.may_hold(NUMBER));
    fixture.close();
    let fixture = Fixture::open(dir.path());
    assert!(fixture.contents.may_hold(NUMBER));
    fixture.close();
}

#[test]
fn two_uploads_of_one_content_give_one() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let large = content(noise(1, 2 * PIECE_BYTES));
    let size = large.bytes.len() as u64;
    let [first, second] = [(); 2].map(|()| {
        let Ok(Begun::Upload(mut upload)) = begin(&fixture, &large, size) else {
            panic!("it is not held");
        };
        upload.write(&large.bytes).unwrap();
        upload
    });
    assert!(finish(&fixture, *first).unwrap());
    assert!(!finish(&fixture, *second).unwrap());
    assert_eq!(fixture.store.uploads(NUMBER).count(), 0);
    assert_eq!(fixture.read(large.digest).unwrap(), large.bytes);
    let stored = fixture.contents.shared.quota.stored("somebody");
    assert_eq!(stored, size + 256);
    fixture.close();
}

#[test]
fn quotas_bound_what_each_principal_stores() {
    let dir = tempfile::tempdir().unwrap();
    // There is room for two contents of 1000 bytes, with their records.
    let max = 2 * (1000 + 256);
    let fixture = Fixture::open_on(dir.path(), max, |disk| disk).unwrap();
    let [a, b, c] = [1, 2, 3].map(|n| content(noise(n, 1000)));
    fixture.hold(vec![a.clone()]).unwrap();
    fixture.hold(vec![b.clone()]).unwrap();
    // A content that is held costs nothing, but finding that out needs room.
    let refused = fixture.hold(vec![c.clone()]);
    let Err(refused @ ContentError::Quota { .. }) = refused else {
        panic!("{refused:?}");
    };
    let said = refused.to_string();
    assert!(said.contains("have some erased"), "{said}");
    let other = NewContent {
        principal: Arc::from("somebody else"),
        ..c.clone()
    };
    fixture.hold(vec![other]).unwrap();
    fixture.close();

    // The bytes are counted again at the start, and given back by an erasure.
    let fixture = Fixture::open_on(dir.path(), max, |disk| disk).unwrap();
    let d = content(noise(4, 1000));
    assert!(matches!(
        fixture.hold(vec![d.clone()]),
        Err(ContentError::Quota { .. })
    ));
    fixture.erase(&[a.digest], 5).unwrap();
    assert_eq!(fixture.hold(vec![d]).unwrap(), 1);
    fixture.close();
}

/// No flipped bit, in any region of the stored data, ever gives other bytes.
#[test]
fn damage_is_noticed_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let large = content(noise(1, 2 * PIECE_BYTES));
    fixture.hold(vec![large.clone()]).unwrap();
    let record = fixture
        .store
        .content(NUMBER, &large.digest)
        .unwrap()
        .unwrap();
    let id = record.upload_id().unwrap();
    let overwrite = |family_key: &[u8], value: &[u8]| {
        let mut batch = Batch::default();
        fixture
            .store
            .put(&mut batch, Family::Content, family_key, value);
        fixture.store.commit(batch).unwrap();
    };
    let damaged = |what: &str| {
        let read = fixture.read(large.digest);
        assert!(
            matches!(read, Err(ContentError::Damaged { .. })),
            "{what}: {read:?}"
        );
    };
    for number in 0..record.chunks {
        let key = keys::chunk(NUMBER, &large.digest, &id, number);
        let piece = fixture
            .store
            .chunk(NUMBER, &large.digest, &id, number)
            .unwrap()
            .unwrap();
        // The flipped byte is in the salt, the first bytes, the middle, or the tag.
        for at in [0, 31, piece.len() / 2, piece.len() - 17, piece.len() - 1] {
            let mut flipped = piece.to_vec();
            flipped[at] ^= 1;
            overwrite(&key, &flipped);
            damaged(&format!("piece {number}, byte {at}"));
        }
        overwrite(&key, &piece[..piece.len() - 1]);
        damaged("a piece that was cut");
        overwrite(&key, b"");
        damaged("an empty piece");
        // Another piece is put in its place.
        let other = (number + 1) % record.chunks;
        let other = fixture
            .store
            .chunk(NUMBER, &large.digest, &id, other)
            .unwrap()
            .unwrap();
        overwrite(&key, &other);
        damaged("another piece");
        overwrite(&key, &piece);
    }
    assert_eq!(fixture.read(large.digest).unwrap(), large.bytes);

    let key = fixture
        .contents
        .shared
        .keys
        .get(NUMBER, &large.digest)
        .unwrap()
        .unwrap();
    for at in [0, 23, 24, 55, 56, 71] {
        let mut flipped = key;
        flipped.wrapped[at] ^= 1;
        let mut batch = super::content_keys::KeyBatch::default();
        batch.put(NUMBER, &large.digest, &flipped);
        fixture.contents.shared.keys.write(batch).unwrap();
        damaged(&format!("wrapped key, byte {at}"));
    }
    let mut batch = super::content_keys::KeyBatch::default();
    batch.put(NUMBER, &large.digest, &key);
    fixture.contents.shared.keys.write(batch).unwrap();
    assert_eq!(fixture.read(large.digest).unwrap(), large.bytes);

    // The last piece is dropped, and the record changed to fit.
    let mut shorter = record.clone();
    shorter.chunks -= 1;
    shorter.size = u64::from(shorter.chunks) * PIECE_BYTES as u64 - 32;
    assert_eq!(seal::pieces(shorter.size), Some(shorter.chunks));
    let record_key = keys::content(NUMBER, &large.digest);
    overwrite(&record_key, &prost::Message::encode_to_vec(&shorter));
    damaged("a piece dropped");
    fixture.close();
}

#[test]
fn contents_of_one_ledger_mean_nothing_in_another() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let content = content("of one ledger");
    fixture.hold(vec![content.clone()]).unwrap();
    let mut other = ledger();
    other.id = deed_evidence::LedgerId::new(deed_tlog::leaf_hash(b"another"));
    let read = fixture.contents.open_content(other, content.digest);
    assert!(matches!(read, Err(ContentError::Damaged { .. })));
    fixture.close();
}

#[test]
fn the_right_key_file_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = testing::options(dir.path()).key_file;
    // As long as no content is held, a lost key file does no harm.
    Fixture::open(dir.path()).close();
    fs::remove_file(&path).unwrap();
    let fixture = Fixture::open(dir.path());
    let content = content("held");
    fixture.hold(vec![content.clone()]).unwrap();
    fixture.close();
    let reopen = || Fixture::open_on(dir.path(), 0, |disk| disk).err();

    let kept = dir.path().join("kept");
    fs::rename(&path, &kept).unwrap();
    let error = reopen();
    let missing = matches!(
        error,
        Some(ContentStartError::Key(KeyFileError::Missing { .. }))
    );
    assert!(missing, "{error:?}");
    assert!(!path.exists(), "none is made in its place");

    super::key_file::create(&path).unwrap();
    let error = reopen();
    let other = matches!(
        error,
        Some(ContentStartError::Key(KeyFileError::Other { .. }))
    );
    assert!(other, "{error:?}");

    fs::rename(&kept, &path).unwrap();
    let keys = super::KeyStore::path_in(&testing::data_dir(dir.path()));
    let kept_keys = dir.path().join("kept-keys");
    fs::rename(&keys, &kept_keys).unwrap();
    let error = reopen();
    assert!(
        matches!(error, Some(ContentStartError::KeysMissing { .. })),
        "{error:?}"
    );
    assert!(!keys.exists(), "none is made in its place");

    fs::rename(&kept_keys, &keys).unwrap();
    let fixture = Fixture::open(dir.path());
    assert_eq!(fixture.read(content.digest).unwrap(), b"held");
    fixture.close();
}

#[test]
fn key_files_are_made_once_and_only_for_the_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("content-key");
    let made = super::key_file::create(&path).unwrap();
    assert_eq!(super::key_file::load(&path).unwrap().unwrap(), made);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(
        super::key_file::create(&path).is_err(),
        "never written over"
    );
    assert_eq!(super::key_file::load(&path).unwrap().unwrap(), made);

    let text = fs::read_to_string(&path).unwrap();
    for (changed, wrong) in [
        (text.replace("-v1", "-v2"), 1),
        (text.replace("key ", "key x"), 2),
        ("deed-content-key-v1\n".to_owned(), 2),
        (format!("{text}more\n"), 3),
    ] {
        fs::write(&path, changed).unwrap();
        let error = super::key_file::load(&path).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Malformed { line, .. } if line == wrong),
            "{error}"
        );
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = super::key_file::load(&path).unwrap_err();
    assert!(
        matches!(error, KeyFileError::Exposed { exposed, .. } if exposed.mode() == 0o640),
        "{error}"
    );
}

/// Golden: the format on disk never changes. Computed with another implementation, written from the
/// drafts and checked with the vector of draft-irtf-cfrg-xchacha, A.3.1.
#[test]
fn pieces_and_wrapped_keys_are_as_documented() {
    let ledger_id = deed_tlog::Hash::try_from(&[2; 32][..]).unwrap();
    let binding = seal::Binding {
        ledger_id: deed_evidence::LedgerId::new(ledger_id),
        digest: CommitmentDigest::new([3; 32]),
    };
    let data_key = zeroize::Zeroizing::new([5; 32]);
    let salt = deed_evidence::commitment::Salt::from_bytes([1; 32]);
    let mut sealer = seal::Sealer::new(&data_key, binding, &salt, 3);
    sealer.update(b"abc", &mut |_, _| panic!("one piece"));
    let (number, piece, _) = sealer.finish();
    assert_eq!(number, 0);
    assert_eq!(
        hex::encode(piece),
        "13076d0b643ca638b62f4244441d806b2a34385357dc88a763be868e712632f014be6fb5e1bd92e3cafc07e28\
         058a6987b697c"
    );

    let wrapping = zeroize::Zeroizing::new([6; 32]);
    let golden = "090909090909090909090909090909090909090909090909853e87474f7ba4d7bfeadf2c8a7812b6ef\
                  3412263cf7ef42fb84353cc9ec2c4b35ff7d3ac100ab4f2751500af0658b4f";
    let golden: [u8; seal::WRAPPED_BYTES] = hex::decode(golden).unwrap().try_into().unwrap();
    assert_eq!(
        *seal::unwrap(&wrapping, &binding, &golden).unwrap(),
        *data_key
    );
    let wrapped = seal::wrap(&wrapping, &binding, &data_key).unwrap();
    assert_eq!(
        *seal::unwrap(&wrapping, &binding, &wrapped).unwrap(),
        *data_key
    );
    assert_ne!(wrapped, golden, "each wrapping draws a nonce");
    let other = zeroize::Zeroizing::new([7; 32]);
    assert!(seal::unwrap(&other, &binding, &wrapped).is_err());
}

#[test]
fn fsck_opens_every_content_and_tells_damage_apart_from_the_log() {
    use crate::store::content::{write_references, write_tombstone};

    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path();
    let engine = crate::testing::Engine::open(data_dir);
    let ledger = engine.create("contents").unwrap();
    let reference = LedgerRef::from(&*ledger);
    let [sound, broken, keyless, missing, erased] =
        [1, 2, 3, 4, 5].map(|n| content(noise(n, 90_000)));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let gate = engine.appends.contents.enter(ledger.number).await;
        let all = vec![sound, broken.clone(), keyless.clone(), erased.clone()];
        engine
            .appends
            .contents
            .hold(&gate, all, reference)
            .await
            .unwrap();
    });
    let check = || {
        let key_file = data_dir.join("content.key");
        crate::offline::fsck::check_with(data_dir, &key_file, &mut |_| {}).unwrap()
    };
    let record = engine
        .store
        .content(ledger.number, &broken.digest)
        .unwrap()
        .unwrap();
    let upload = record.upload_id().unwrap();
    let number = ledger.number;
    drop(ledger);
    engine.close();
    let report = check();
    assert_eq!((report.contents.opened, report.contents.damaged), (4, 0));
    // Without the key file, the report has only what can be known without it.
    let report =
        crate::offline::fsck::check_with(data_dir, &data_dir.join("none"), &mut |_| {}).unwrap();
    assert_eq!((report.contents.opened, report.contents.unopened), (0, 4));
    assert_eq!(report.contents.damaged, 0);

    let store = crate::store::Store::open(data_dir, &Default::default()).unwrap();
    let mut batch = Batch::default();
    let key = keys::chunk(number, &broken.digest, &upload, 0);
    let mut piece = store
        .chunk(number, &broken.digest, &upload, 0)
        .unwrap()
        .unwrap()
        .to_vec();
    piece[70_000] ^= 1;
    store.put(&mut batch, Family::Content, &key, &piece);
    let leaf = super::Reference {
        leaf: 1,
        task: None,
        received_at: deed_evidence::Micros::new(1),
    };
    let named = [(&missing.digest, leaf), (&erased.digest, leaf)];
    write_references(&store, &mut batch, number, named);
    write_tombstone(&store, &mut batch, number, &erased.digest, 2);
    store.commit(batch).unwrap();
    drop(store);
    let key_store: Box<dyn super::ContentKeys> = Box::new(super::KeyStore::open(data_dir).unwrap());
    let mut batch = super::content_keys::KeyBatch::default();
    batch.delete(number, &keyless.digest);
    key_store.write(batch).unwrap();
    drop(key_store);

    let report = check().contents;
    assert_eq!(
        (report.opened, report.references, report.damaged),
        (1, 2, 3),
        "{report}"
    );
    for (digest, what) in [
        (broken.digest, "piece 0 does not decrypt"),
        (keyless.digest, "its key is missing"),
        (missing.digest, "which leaf 1 names, is missing"),
    ] {
        let told = report
            .damage
            .iter()
            .any(|damage| damage.contains(&digest.to_string()) && damage.contains(what));
        assert!(told, "{what}: {report}");
    }
}
