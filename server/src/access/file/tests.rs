//! Tests of the contents of access.json, and of how it is edited.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;

const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;

fn request(principal: &str) -> TokenRequest {
    TokenRequest {
        principal: principal.to_owned(),
        ledgers: None,
        now: Micros::new(0),
        expires: Micros::new(DAY_US),
    }
}

#[test]
fn edits_survive_and_nobody_else_can_read_them() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("new");
    assert_eq!(AccessFile::load(&data_dir).unwrap(), AccessFile::default());
    let (record, text) =
        AccessFile::edit(&data_dir, |file| file.create_token(request("agent"))).unwrap();
    let new = AccessFile::edit(&data_dir, |file| file.grant("agent", "runs", Role::Read));
    assert!(new.unwrap());
    let again = AccessFile::edit(&data_dir, |file| file.grant("agent", "runs", Role::Read));
    assert!(!again.unwrap());
    AccessFile::edit(&data_dir, |file| file.grant("agent", "runs", Role::Append)).unwrap();

    let loaded = AccessFile::load(&data_dir).unwrap();
    assert_eq!(loaded.tokens(), [record]);
    assert_eq!(loaded.grants()[0].roles, [Role::Append, Role::Read]);
    let path = data_dir.join(FILE);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let secret = text.rsplit_once('_').unwrap().1;
    assert!(!fs::read_to_string(&path).unwrap().contains(secret));
}

#[test]
fn roles_are_taken_away_one_by_one() {
    let mut file = AccessFile::default();
    for role in [Role::Read, Role::Append] {
        file.grant("agent", "runs", role).unwrap();
    }
    file.revoke("agent", "runs", Role::Read).unwrap();
    assert_eq!(file.grants()[0].roles, [Role::Append]);
    file.revoke("agent", "runs", Role::Append).unwrap();
    assert!(file.grants().is_empty());
    assert!(matches!(
        file.revoke("agent", "runs", Role::Append),
        Err(AccessError::NoSuchGrant { .. })
    ));
}

#[test]
fn what_makes_no_sense_is_refused_and_leaves_the_file_alone() {
    let dir = tempfile::tempdir().unwrap();
    let edit = |change: &dyn Fn(&mut AccessFile) -> Result<bool, AccessError>| {
        AccessFile::edit(dir.path(), |file| change(file)).unwrap_err()
    };
    edit(&|file| file.grant("", "runs", Role::Read));
    edit(&|file| file.grant("agent", "Runs", Role::Read));
    let error = edit(&|file| file.grant("agent", "runs", Role::Admin));
    assert!(matches!(error, AccessError::AdminOfOne { .. }));
    let expired = TokenRequest {
        expires: Micros::new(0),
        ..request("agent")
    };
    let error = edit(&|file| file.create_token(expired.clone()).map(|_| true));
    assert!(matches!(error, AccessError::Expiry));
    let elsewhere = TokenRequest {
        ledgers: Some(vec!["*".to_owned()]),
        ..request("agent")
    };
    edit(&|file| file.create_token(elsewhere.clone()).map(|_| true));
    let error = edit(&|file| file.revoke_token("x", Micros::new(1)).map(|_| true));
    assert!(matches!(error, AccessError::NoSuchToken { .. }));
    assert!(!dir.path().join(FILE).exists());
}

#[test]
fn a_malformed_file_is_an_error() {
    let mut file = AccessFile::default();
    file.create_token(request("agent")).unwrap();
    file.grant("agent", "runs", Role::Read).unwrap();
    let good = serde_json::to_string(&file).unwrap();
    let parse = |text: &str| AccessFile::parse(Path::new(FILE), text.as_bytes());
    assert_eq!(parse(&good).unwrap(), file);
    let token = serde_json::to_string(&file.tokens()[0]).unwrap();
    for (from, to) in [
        ("\"version\":1", "\"version\":2"),
        ("\"version\":1", "\"version\":1,\"more\":1"),
        ("\"read\"", "\"write\""),
        ("\"runs\"", "\"RUNS\""),
        ("\"sha256\":\"", "\"sha256\":\"0"),
        ("\"id\":\"", "\"id\":\"X"),
        (token.as_str(), &format!("{token},{token}")),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        assert!(parse(&bad).is_err(), "{bad}");
    }
    for length in 0..good.len() {
        assert!(parse(&good[..length]).is_err());
    }
}

/// Without the lock, one of two concurrent edits would overwrite the other.
#[test]
fn concurrent_edits_are_all_kept() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for editor in 0..4 {
            let dir = dir.path();
            scope.spawn(move || {
                for ledger in 0..5 {
                    let ledger = format!("l-{editor}-{ledger}");
                    let edit = |file: &mut AccessFile| file.grant("a", &ledger, Role::Read);
                    AccessFile::edit(dir, edit).unwrap();
                }
            });
        }
    });
    assert_eq!(AccessFile::load(dir.path()).unwrap().grants().len(), 20);
}
