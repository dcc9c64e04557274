//! The conformance tests of the places where pieces and keys are kept. Another implementation is given to
//! the same two functions.

use std::{collections::HashSet, path::Path, sync::Arc};

use deed_evidence::CommitmentDigest;

use super::{
    PIECE_BYTES,
    content_keys::{ContentKeys, KeyBatch, KeyId, WrappedKey},
    erase_tests::{contains, list},
    key_store::KeyStore,
    pieces::{Pieces, UploadOf},
    seal::Tag,
    testing::{data_dir, noise},
};
use crate::store::{Batch, DirectoryLock, LedgerNumber, Store, StoreOptions, keys::UploadId};

const ONE: LedgerNumber = LedgerNumber(1);
const OTHER: LedgerNumber = LedgerNumber(2);

fn digest(number: u8) -> CommitmentDigest {
    CommitmentDigest::new([number; 32])
}

/// Pieces, and the store to whose commits their writes belong.
struct OpenPieces {
    pieces: Arc<dyn Pieces>,
    store: Arc<Store>,
    _lock: DirectoryLock,
}

impl OpenPieces {
    fn commit(&self, write: impl FnOnce(&dyn Pieces, &mut Batch)) {
        let mut batch = Batch::default();
        write(&*self.pieces, &mut batch);
        self.store.commit(batch).unwrap();
    }

    fn get(&self, upload: &UploadOf, number: u32) -> Option<Vec<u8>> {
        let piece = self.pieces.get(upload, number).unwrap();
        piece.map(|piece| piece.to_vec())
    }

    fn listed(&self, ledger: LedgerNumber) -> Vec<UploadOf> {
        self.pieces.list(ledger).map(Result::unwrap).collect()
    }
}

#[test]
fn the_store_keeps_pieces_as_every_implementation_must() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = data_dir(dir.path());
    pieces_conform(|| {
        let lock = DirectoryLock::acquire(&data_dir).unwrap();
        let store = Arc::new(Store::create(&data_dir, &StoreOptions::default()).unwrap());
        OpenPieces {
            pieces: Arc::clone(&store) as _,
            store,
            _lock: lock,
        }
    });
}

/// `open` opens the same place again and again; the one before is dropped by then.
fn pieces_conform(open: impl Fn() -> OpenPieces) {
    let upload = |ledger, content, id| UploadOf {
        ledger,
        digest: digest(content),
        id: UploadId::new([id; 16]),
    };
    let whole = upload(ONE, 1, 1);
    // The same content again, its neighbours, and the same ids in another ledger.
    let others = [
        upload(ONE, 1, 0),
        upload(ONE, 1, 2),
        upload(ONE, 0, 1),
        upload(ONE, 2, 1),
        upload(OTHER, 1, 1),
    ];
    let piece = |number: u32| noise(u64::from(number), PIECE_BYTES + 16);
    let open_with_all = || {
        let opened = open();
        for number in 0..3 {
            assert_eq!(opened.get(&whole, number), Some(piece(number)));
        }
        opened
    };

    let opened = open();
    assert_eq!(opened.get(&whole, 0), None);
    opened.commit(|pieces, batch| {
        for number in [0, 1, 2] {
            pieces.put(batch, &whole, number, &piece(number)).unwrap();
        }
        for other in &others {
            pieces.put(batch, other, 0, b"another's").unwrap();
        }
        pieces.put(batch, &others[0], 1, b"").unwrap();
    });
    assert_eq!(opened.get(&whole, 3), None);
    assert_eq!(opened.get(&others[0], 1), Some(Vec::new()));
    // An upload that was begun is listed until it is finished or given up, after a restart too.
    let unfinished = [
        upload(ONE, 9, 7),
        upload(ONE, 8, 8),
        upload(ONE, 9, 9),
        upload(OTHER, 9, 7),
    ];
    assert!(opened.listed(ONE).is_empty());
    opened.commit(|pieces, batch| {
        for one in unfinished.iter().rev() {
            pieces.begin(batch, one).unwrap();
            pieces.put(batch, one, 0, b"first").unwrap();
            pieces.put(batch, one, 1000, b"a later one").unwrap();
        }
    });
    drop(opened);

    let opened = open_with_all();
    assert_eq!(opened.listed(ONE), unfinished[..3]);
    assert_eq!(opened.listed(OTHER), unfinished[3..]);
    for one in &unfinished {
        assert!(opened.pieces.is_unfinished(one).unwrap());
    }
    assert!(!opened.pieces.is_unfinished(&whole).unwrap());
    opened.commit(|pieces, batch| {
        pieces.finish(batch, &unfinished[0]).unwrap();
        pieces.give_up(batch, &unfinished[2]).unwrap();
    });
    drop(opened);

    let opened = open_with_all();
    assert_eq!(opened.listed(ONE), unfinished[1..2]);
    assert_eq!(opened.get(&unfinished[0], 1000).unwrap(), b"a later one");
    for number in [0, 1000] {
        assert_eq!(opened.get(&unfinished[2], number), None);
    }
    assert_eq!(opened.get(&unfinished[3], 0).unwrap(), b"first");
    // Nothing is deleted before the commit.
    let mut batch = Batch::default();
    opened.pieces.delete(&mut batch, &whole, 3).unwrap();
    opened.pieces.give_up(&mut batch, &unfinished[1]).unwrap();
    drop(batch);
    drop(opened);

    let opened = open_with_all();
    assert_eq!(opened.listed(ONE), unfinished[1..2]);
    opened.commit(|pieces, batch| pieces.delete(batch, &whole, 3).unwrap());
    // To repeat it does no harm.
    opened.commit(|pieces, batch| pieces.delete(batch, &whole, 3).unwrap());
    drop(opened);

    let opened = open();
    for number in 0..3 {
        assert_eq!(opened.get(&whole, number), None);
    }
    for other in &others {
        assert_eq!(opened.get(other, 0).unwrap(), b"another's");
    }
}

#[test]
fn the_second_database_keeps_keys_as_every_implementation_must() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = data_dir(dir.path());
    keys_conform(&data_dir, || Box::new(KeyStore::open(&data_dir).unwrap()));
}

/// Returns a key whose bytes are found nowhere else.
fn key(number: u64) -> WrappedKey {
    let bytes = noise(number, 16 + 32 + 72);
    let (upload, rest) = bytes.split_first_chunk().unwrap();
    let (tag, rest) = rest.split_first_chunk().unwrap();
    WrappedKey {
        upload: UploadId::new(*upload),
        tag: Tag::new(*tag),
        wrapped: rest.try_into().unwrap(),
    }
}

/// Returns true if the key's bytes are in a file below `dir`.
fn is_in_a_file(dir: &Path, key: &WrappedKey) -> bool {
    let mut files = Vec::new();
    list(dir, &mut files);
    let mut files = files.iter().filter_map(|file| std::fs::read(file).ok());
    files.any(|bytes| contains(&bytes, &key.wrapped) || contains(&bytes, key.tag.as_bytes()))
}

/// `open` opens the same place again and again; the one before is dropped by then. All that it keeps lies
/// below `dir`.
fn keys_conform(dir: &Path, open: impl Fn() -> Box<dyn ContentKeys>) {
    // In order of ledger and digest.
    let all: Vec<(KeyId, WrappedKey)> = (0..60_u8)
        .map(|n| {
            let ledger = if n < 40 { ONE } else { OTHER };
            ((ledger, digest(n)), key(u64::from(n)))
        })
        .collect();
    let put = |keys: &dyn ContentKeys, some: &[(KeyId, WrappedKey)]| {
        let mut batch = KeyBatch::default();
        assert!(batch.is_empty());
        for ((ledger, digest), key) in some {
            batch.put(*ledger, digest, key);
        }
        keys.write(batch).unwrap();
    };
    let delete = |keys: &dyn ContentKeys, some: &[KeyId]| {
        let mut batch = KeyBatch::default();
        for (ledger, digest) in some {
            batch.delete(*ledger, digest);
        }
        keys.write(batch).unwrap();
    };
    let is_there = |keys: &dyn ContentKeys, (id, key): &(KeyId, WrappedKey)| {
        keys.get(id.0, &id.1).unwrap().as_ref() == Some(key)
    };

    let keys = open();
    assert!(keys.is_empty().unwrap());
    put(&*keys, &all[..30]);
    put(&*keys, &all[30..]);
    drop(keys);

    // Keys that were written are there after a restart, each under its own ledger and content.
    let keys = open();
    assert!(!keys.is_empty().unwrap());
    assert!(all.iter().all(|one| is_there(&*keys, one)));
    assert!(keys.get(OTHER, &all[0].0.1).unwrap().is_none());
    assert!(keys.get(ONE, &digest(200)).unwrap().is_none());
    let listed = |after, limit| {
        let listed = keys.after(after, limit).unwrap();
        let listed = listed.into_iter();
        listed
            .map(|(ledger, digest, upload)| ((ledger, digest), upload))
            .collect::<Vec<_>>()
    };
    let expected = |some: &[(KeyId, WrappedKey)]| {
        some.iter()
            .map(|(id, key)| (*id, Some(key.upload)))
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(None, 100), expected(&all));
    assert_eq!(listed(Some(all[37].0), 5), expected(&all[38..43]));
    assert_eq!(listed(Some(all[59].0), 5), []);
    let tags: HashSet<Tag> = [3, 7, 50].map(|n: usize| all[n].1.tag).into();
    let tagged = |ledger, limit| keys.tagged(ledger, &tags, limit).unwrap();
    assert_eq!(tagged(ONE, 9), [digest(3), digest(7)]);
    assert_eq!(tagged(ONE, 1), [digest(3)]);
    assert_eq!(tagged(OTHER, 9), [digest(50)]);

    // A batch is written in its order, and a put replaces.
    let (replaced, gone) = (&all[0], &all[1]);
    let newer = (replaced.0, key(1000));
    let mut batch = KeyBatch::default();
    batch.delete(replaced.0.0, &replaced.0.1);
    batch.put(newer.0.0, &newer.0.1, &newer.1);
    batch.put(gone.0.0, &gone.0.1, &key(1001));
    batch.delete(gone.0.0, &gone.0.1);
    keys.write(batch).unwrap();
    drop(keys);
    let keys = open();
    assert!(is_there(&*keys, &newer) && !is_there(&*keys, replaced));
    assert!(keys.get(gone.0.0, &gone.0.1).unwrap().is_none());

    // Few keys, and many; fresh, and where they stay.
    for (from, to) in [(2, 4), (4, 30)] {
        let some = &all[from..to];
        let ids: Vec<KeyId> = some.iter().map(|(id, _)| *id).collect();
        keys.settle();
        assert!(some.iter().all(|(_, key)| is_in_a_file(dir, key)));
        delete(&*keys, &ids);
        assert!(!some.iter().any(|one| is_there(&*keys, one)));
        keys.destroy(&ids).unwrap();
        assert!(!some.iter().any(|(_, key)| is_in_a_file(dir, key)));
        // After a crash in between both are done again.
        delete(&*keys, &ids);
        keys.destroy(&ids).unwrap();
    }
    // A deletion that is not followed by the destruction holds after a restart.
    delete(&*keys, &[all[30].0]);
    drop(keys);
    let keys = open();
    assert!(!is_there(&*keys, &all[30]));
    delete(&*keys, &[all[30].0]);
    keys.destroy(&[all[30].0]).unwrap();
    assert!(!is_in_a_file(dir, &all[30].1));
    drop(keys);
    let keys = open();
    assert!(!is_in_a_file(dir, &all[30].1));
    assert!(all[31..].iter().all(|one| is_there(&*keys, one)));
}
