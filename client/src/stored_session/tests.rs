use std::path::PathBuf;

use bytes::Bytes;
use deed_evidence::{LedgerId, Sequence, TaskId};
use deed_proto::v1::{self, statement::Body};
use deed_tlog::Hash;

use super::*;
use crate::session::Header;

const NAME: &str = "nightly run";

fn ledger_id() -> LedgerId {
    LedgerId::new(Hash::new([7; 32]))
}

fn open(state: &StateDir) -> Result<StoredSession, SessionError> {
    StoredSession::open(
        state,
        ledger_id(),
        NAME,
        "test:agent",
        &Signing::None,
        Sync::Each,
    )
}

/// The next `count` statements of a stored session.
fn statements(stored: &StoredSession, count: usize) -> Vec<Statement> {
    let mut session = stored.maker();
    let header = Header {
        task: Some(TaskId::new([2; 16])),
        ..Header::default()
    };
    let body = Body::TaskClosed(v1::TaskClosed {
        end: v1::TaskEnd::Failed.into(),
        reason: String::new(),
    });
    (0..count)
        .map(|_| session.make(&header, body.clone()).unwrap().into())
        .collect()
}

fn payloads(stored: &StoredSession) -> Vec<Bytes> {
    stored.unacknowledged().map(|s| s.payload.clone()).collect()
}

#[test]
fn what_was_taken_is_there_after_a_crash_and_what_was_acknowledged_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    let mut stored = open(&state).unwrap();
    let (id, made) = (stored.id(), statements(&stored, 5));
    stored.append(&made).unwrap();
    stored.acknowledge(Sequence::new(2)).unwrap();
    drop(stored);
    let mut stored = open(&state).unwrap();
    assert_eq!(stored.id(), id);
    let left: Vec<_> = made[2..].iter().map(|s| s.payload.clone()).collect();
    assert_eq!(payloads(&stored), left);
    assert_eq!(stored.acknowledged(), Sequence::new(2));
    assert_eq!(stored.next().0, Sequence::new(5));
    stored.acknowledge(Sequence::new(5)).unwrap();
    drop(stored);
    let stored = open(&state).unwrap();
    assert_eq!(stored.unacknowledged().len(), 0);
    // The chain goes on over the gap of the process.
    let digest = PayloadDigest::of(&made[4].payload);
    assert_eq!(stored.next(), (Sequence::new(5), Some(digest)));
}

#[test]
fn one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    let stored = open(&state).unwrap();
    assert!(matches!(open(&state), Err(SessionError::InUse { .. })));
    let find = || StoredSession::find(&state, ledger_id(), NAME);
    assert!(matches!(find(), Err(SessionError::InUse { .. })));
    drop(stored);
    assert!(find().unwrap().is_some());
    let other = StoredSession::find(&state, ledger_id(), "other").unwrap();
    assert!(other.is_none());
}

#[test]
fn it_belongs_to_one_producer_and_one_key() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    drop(open(&state).unwrap());
    let key = std::sync::Arc::new(crate::key::generate().unwrap());
    for (producer, signing, wanted) in [
        ("test:other", Signing::None, "producer"),
        ("test:agent", Signing::Batch(key), "way of signing"),
    ] {
        let opened = StoredSession::open(&state, ledger_id(), NAME, producer, &signing, Sync::Each);
        assert!(matches!(opened, Err(SessionError::Other { what, .. }) if what == wanted));
    }
}

#[test]
fn only_the_next_statement_is_taken_and_one_that_was_never_sent_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    let mut stored = open(&state).unwrap();
    let made = statements(&stored, 4);
    for wrong in [&made[1..], &[made[0].clone(), made[0].clone()][..]] {
        let error = stored.append(wrong).unwrap_err();
        assert!(matches!(error, SessionError::NotNext { .. }), "{error}");
        assert_eq!(stored.unacknowledged().len(), 0);
    }
    stored.append(&made).unwrap();
    stored.acknowledge(Sequence::new(1)).unwrap();
    // The third could not be sent: it and the fourth are made anew.
    stored.go_back(Sequence::new(2)).unwrap();
    drop(stored);
    let mut stored = open(&state).unwrap();
    assert_eq!(payloads(&stored), [made[1].payload.clone()]);
    let next = statements(&stored, 1);
    assert_eq!(next[0].payload, made[2].payload);
    stored.append(&next).unwrap();
}

#[test]
fn a_refused_statement_has_used_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    let mut stored = open(&state).unwrap();
    let made = statements(&stored, 4);
    stored.append(&made).unwrap();
    stored.acknowledge(Sequence::new(1)).unwrap();
    // The ledger says that it does not take the third.
    stored.refused(Sequence::new(2), None).unwrap();
    // No other statement may take the places of the third and the fourth, even after the session is
    // opened again.
    for _ in 0..2 {
        drop(stored);
        stored = open(&state).unwrap();
        assert_eq!(payloads(&stored), [made[1].payload.clone()]);
        assert_eq!(stored.next().0, Sequence::new(4));
        assert_eq!(stored.skipped_from(), Some(Sequence::new(2)));
        for wrong in &made[2..] {
            let error = stored.append(std::slice::from_ref(wrong)).unwrap_err();
            assert!(matches!(error, SessionError::NotNext { .. }), "{error}");
        }
    }
    let next = statements(&stored, 2);
    let header = statement::parse(&next[0].payload).unwrap();
    assert_eq!(header.sequence, Sequence::new(4));
    assert_eq!(header.skipped_from, Some(Sequence::new(2)));
    assert_eq!(header.previous, Some(PayloadDigest::of(&made[1].payload)));
    stored.append(&next).unwrap();
    drop(stored);
    let mut stored = open(&state).unwrap();
    assert_eq!(stored.unacknowledged().len(), 3);
    stored.acknowledge(Sequence::new(2)).unwrap();
    // Then the ledger says that it has the third after all; even so no place is used again.
    let expected = Some(Sequence::new(3));
    stored.refused(Sequence::new(4), expected).unwrap();
    drop(stored);
    let stored = open(&state).unwrap();
    assert_eq!(stored.next(), (Sequence::new(6), None));
    assert_eq!(stored.skipped_from(), expected);
    // Nor for any other sequence that it may name.
    for lie in [0, 1, 9, u64::MAX] {
        let directory = tempfile::tempdir().unwrap();
        let mut stored = open(&StateDir::new(directory.path())).unwrap();
        stored.append(&statements(&stored, 3)).unwrap();
        stored.acknowledge(Sequence::new(2)).unwrap();
        let lie = Some(Sequence::new(lie));
        stored.refused(Sequence::new(2), lie).unwrap();
        assert_eq!(stored.next().0, Sequence::new(3));
    }
}

#[test]
fn nothing_follows_the_end_of_a_session() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    let mut stored = open(&state).unwrap();
    let closed = stored.maker().close(deed_evidence::Micros::new(1)).unwrap();
    stored.append(&[closed.into()]).unwrap();
    let next = statements(&stored, 1);
    assert!(matches!(
        stored.append(&next),
        Err(SessionError::Closed { .. })
    ));
    stored.acknowledge(Sequence::new(1)).unwrap();
    drop(stored);
    assert!(open(&state).unwrap().is_closed());
}

/// The first statement certifies whose session it is; the ones behind it need not.
#[test]
fn a_session_is_derived_from_a_nonce_that_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    let mut stored = open(&state).unwrap();
    let nonce = stored.nonce().unwrap();
    let id = SessionId::derive(ledger_id(), "test:agent", &nonce);
    assert_eq!(stored.id(), id);
    let made = statements(&stored, 2);
    for (made, first) in made.iter().zip([true, false]) {
        let made = statement::decode(&made.payload).unwrap();
        assert_eq!(made.nonce.is_empty(), !first);
    }
    stored.append(&made).unwrap();
    drop(stored);
    assert_eq!(open(&state).unwrap().nonce(), Some(nonce));
}

/// Version 0.1 kept no nonce: such a session goes on.
#[test]
fn a_session_without_a_nonce_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    drop(open(&state).unwrap());
    let path = super::directory(&state, ledger_id(), NAME).join("session.json");
    let mut about = read_about(&path, &fs::read(&path).unwrap()).unwrap();
    about.nonce = None;
    about.session = "07".repeat(16);
    fs::write(&path, serde_json::to_vec(&about).unwrap()).unwrap();
    let mut stored = open(&state).unwrap();
    assert_eq!(
        (stored.id(), stored.nonce()),
        (SessionId::new([7; 16]), None)
    );
    let made = statements(&stored, 1);
    stored.append(&made).unwrap();
    let next = statement::decode(&statements(&stored, 1)[0].payload).unwrap();
    assert_eq!((next.sequence, &next.session[..]), (1, &[7; 16][..]));
}

/// A child that is being started has copies of all open files for a moment.
#[test]
fn a_session_is_given_back_whoever_holds_a_copy_of_its_lock() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    let stored = open(&state).unwrap();
    let _copy = stored._lock.0.try_clone().unwrap();
    assert!(matches!(open(&state), Err(SessionError::InUse { .. })));
    drop(stored);
    open(&state).unwrap();
}

/// A content that must not stay.
const MARKER: &[u8] = b"the-customers-iban-is-DE89370400440532013000";

/// The next statements, each with a content.
fn with_contents(stored: &StoredSession, count: usize) -> Vec<Statement> {
    let mut made = statements(stored, count);
    for (number, statement) in made.iter_mut().enumerate() {
        statement.attachments.push(v1::Attachment {
            salt: Bytes::from(vec![7; 32]),
            content: [MARKER, format!("-{number}").as_bytes()].concat().into(),
        });
    }
    made
}

/// Counts the copies of the content in the files of a state directory.
fn kept(state: &StateDir) -> usize {
    fn count(directory: &Path) -> usize {
        let entries = fs::read_dir(directory).unwrap();
        entries
            .map(|entry| {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    return count(&path);
                }
                let bytes = fs::read(&path).unwrap();
                bytes
                    .windows(MARKER.len())
                    .filter(|found| *found == MARKER)
                    .count()
            })
            .sum()
    }
    count(state.path())
}

fn journal_path(state: &StateDir) -> PathBuf {
    super::directory(state, ledger_id(), NAME).join("journal")
}

#[test]
fn contents_leave_with_their_receipts() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    let mut stored = open(&state).unwrap();
    let made = with_contents(&stored, 4);
    stored.append(&made).unwrap();
    assert_eq!(kept(&state), 4);
    // Acknowledged contents may stay as long as they are no more bytes than the waiting ones.
    stored.acknowledge(Sequence::new(1)).unwrap();
    assert!((3..=4).contains(&kept(&state)));
    stored.acknowledge(Sequence::new(2)).unwrap();
    assert_eq!(kept(&state), 2);
    stored.acknowledge(Sequence::new(4)).unwrap();
    assert_eq!(kept(&state), 0);
    // The session continues as before.
    let digest = PayloadDigest::of(&made[3].payload);
    assert_eq!(stored.next(), (Sequence::new(4), Some(digest)));
    stored.append(&statements(&stored, 1)).unwrap();
    drop(stored);
    let stored = open(&state).unwrap();
    assert_eq!(stored.unacknowledged().len(), 1);
    assert_eq!(stored.next().0, Sequence::new(5));
}

#[test]
fn contents_of_what_was_refused_or_closed_leave_too() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    let mut stored = open(&state).unwrap();
    stored.append(&with_contents(&stored, 3)).unwrap();
    stored.acknowledge(Sequence::new(1)).unwrap();
    stored.refused(Sequence::new(1), None).unwrap();
    assert_eq!(kept(&state), 0);
    assert_eq!(stored.next().0, Sequence::new(3));
    stored.append(&with_contents(&stored, 1)).unwrap();
    let closed = stored.maker().close(deed_evidence::Micros::new(1)).unwrap();
    stored.append(&[closed.clone().into()]).unwrap();
    stored.acknowledge(Sequence::new(5)).unwrap();
    assert_eq!(kept(&state), 0);
    for _ in 0..2 {
        drop(stored);
        stored = open(&state).unwrap();
        assert!(stored.is_closed());
        assert_eq!(stored.acknowledged(), Sequence::new(5));
        assert_eq!(stored.next(), (Sequence::new(5), Some(closed.digest)));
        // Written anew once more, as by a crash in between.
        stored.held = 1;
        stored.write_anew().unwrap();
    }
}

/// A kill between a receipt and the end of what it was for: the next process ends it. Whatever the
/// new file holds at that moment, nothing that waits is lost.
#[test]
fn a_crash_at_any_point_loses_nothing_and_leaves_nothing() {
    for written in [None, Some(0), Some(8), Some(40), Some(usize::MAX)] {
        for renamed in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let state = StateDir::new(directory.path());
            let mut stored = open(&state).unwrap();
            let made = with_contents(&stored, 3);
            stored.append(&made).unwrap();
            // The record that says so, and nothing behind it.
            let acknowledged = Record::Acknowledged(Sequence::new(2));
            stored.journal.add(&[acknowledged]).unwrap();
            let before = fs::read(journal_path(&state)).unwrap();
            drop(stored);
            // A process that was killed while it rewrote the journal leaves this file.
            let new = {
                let other = tempfile::tempdir().unwrap();
                let path = other.path().join("journal");
                let (mut journal, _) = Journal::open(&path).unwrap();
                let digest = Some(PayloadDigest::of(&made[1].payload));
                let records = [
                    Record::Position(Sequence::new(2), digest),
                    Record::Statement(made[2].clone()),
                    Record::Used(Sequence::FIRST),
                ];
                journal.replace(&records).unwrap();
                fs::read(&path).unwrap()
            };
            let new = written.map(|length| &new[..length.min(new.len())]);
            match new {
                Some(whole) if renamed && written == Some(usize::MAX) => {
                    fs::write(journal_path(&state), whole).unwrap();
                }
                Some(part) => {
                    fs::write(journal_path(&state).with_extension("new"), part).unwrap();
                    assert_eq!(fs::read(journal_path(&state)).unwrap(), before);
                }
                None => {}
            }
            let mut stored = open(&state).unwrap();
            assert_eq!(payloads(&stored), [made[2].payload.clone()]);
            let left = stored.unacknowledged().next().unwrap();
            assert_eq!(left.attachments, made[2].attachments);
            assert_eq!(kept(&state), 1, "{written:?} {renamed}");
            stored.acknowledge(Sequence::new(3)).unwrap();
            assert_eq!(kept(&state), 0);
        }
    }
}

#[test]
fn what_was_erased_leaves_every_session_and_the_statement_still_waits() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    let mut stored = open(&state).unwrap();
    let made = with_contents(&stored, 3);
    stored.append(&made).unwrap();
    let erased = |statement: &Statement| {
        let attachment = &statement.attachments[0];
        let salt = Salt::from_bytes(attachment.salt.as_ref().try_into().unwrap());
        BTreeSet::from([digest_of(&salt, &attachment.content)])
    };
    // A session that another process uses is named, and left alone.
    let left = StoredSession::erase(&state, &erased(&made[0]), None).unwrap();
    assert!(matches!(&left[..], [(name, SessionError::InUse { .. })] if name == NAME));
    assert_eq!(kept(&state), 3);
    // The caller's own session is searched though it is open.
    let own = Some(&mut stored);
    let left = StoredSession::erase(&state, &erased(&made[0]), own).unwrap();
    assert_eq!((left, kept(&state)), (vec![], 2));
    drop(stored);
    let left = StoredSession::erase(&state, &erased(&made[1]), None).unwrap();
    assert_eq!((left, kept(&state)), (vec![], 1));
    let stored = open(&state).unwrap();
    let payloads: Vec<Bytes> = made.iter().map(|made| made.payload.clone()).collect();
    assert_eq!(self::payloads(&stored), payloads);
    let attachments: Vec<usize> = stored
        .unacknowledged()
        .map(|s| s.attachments.len())
        .collect();
    assert_eq!(attachments, [0, 0, 1]);
}

/// Only their owner can read the files, even if they existed with other permissions.
#[test]
fn the_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path());
    let mut stored = open(&state).unwrap();
    let path = journal_path(&state);
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    drop(stored);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    stored = open(&state).unwrap();
    assert_eq!(mode(), 0o600);
    stored.append(&with_contents(&stored, 1)).unwrap();
    stored.acknowledge(Sequence::new(1)).unwrap();
    assert_eq!(mode(), 0o600);
}
