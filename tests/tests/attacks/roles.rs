//! Every role at every rpc and HTTP path, over TLS, with real tokens.

use deed_tests::{
    access::{Token, call, connect_tls, get, tls},
    process::{ServerCommand, fsck_clean},
    rpc::{Clients, TestLedger},
    run,
    wire::Schema,
};
use tempfile::TempDir;
use tonic::Code;

/// All rpcs and paths, and the callers that may use them, as an independent statement of the rules.
/// `-` is an anonymous caller, `0` a caller without a role; the others are the roles' letters.
const MATRIX: [(&str, &str); 26] = [
    ("/deed.v1.Ledger/Append", "poa"),
    ("/deed.v1.Ledger/AppendStream", "poa"),
    ("/deed.v1.Ledger/CreateLedger", "a"),
    ("/deed.v1.Ledger/ListLedgers", "0pruoa"),
    ("/deed.v1.Ledger/GetLedger", "-0pruoa"),
    ("/deed.v1.Log/GetTreeHead", "-0pruoa"),
    ("/deed.v1.Log/WatchTreeHeads", "-0pruoa"),
    ("/deed.v1.Log/GetInclusionProof", "-0pruoa"),
    ("/deed.v1.Log/GetConsistencyProof", "-0pruoa"),
    ("/deed.v1.Log/GetEntries", "rua"),
    ("/deed.v1.Log/GetBatchProof", "rua"),
    ("/deed.v1.Log/GetTrustChain", "rua"),
    ("/deed.v1.Log/GetLogKeys", "-0pruoa"),
    ("/deed.v1.Log/GetSession", "rua"),
    ("/deed.v1.Actions/AwaitClearance", "prua"),
    ("/deed.v1.Actions/RequestTaskReceipt", "poa"),
    ("/deed.v1.Actions/GetTask", "rua"),
    ("/deed.v1.Actions/Search", "rua"),
    ("/deed.v1.Actions/ListFindings", "rua"),
    ("/deed.v1.Actions/WatchFindings", "rua"),
    ("/deed.v1.Content/PutContent", "pa"),
    ("/deed.v1.Content/GetContent", "ua"),
    ("/deed.v1.Content/EraseContent", "oa"),
    ("/grpc.health.v1.Health/Check", "-0pruoa"),
    ("/grpc.health.v1.Health/Watch", "-0pruoa"),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "-0pruoa",
    ),
];

const PATHS: [(&str, &str); 4] = [
    ("checkpoint", "-0pruoa"),
    ("tile/0/000.p/1", "-0pruoa"),
    ("tile/entries/000.p/1", "rua"),
    ("tile/%65ntries/000.p/1", "rua"),
];

/// The roles by their letters; the last one has all of them, in every ledger.
const ROLES: [(char, &str, &str); 5] = [
    ('p', "mine", "append"),
    ('r', "mine", "read"),
    ('u', "mine", "audit"),
    ('o', "mine", "authority"),
    ('a', "*", "append,read,audit,authority,admin"),
];

#[test]
fn every_rpc_is_in_the_matrix() {
    let known = MATRIX.map(|(path, _)| path);
    for path in Schema::rpcs() {
        assert!(known.contains(&&path[..]), "{path}");
    }
}

#[test]
fn every_role_at_every_rpc() {
    run(async {
        let dir = TempDir::new().expect("a temporary directory");
        let (data, certificates) = (dir.path().join("data"), dir.path().join("tls"));
        let arguments = tls(&certificates);
        // The directory for tokens exists before the first start.
        let mut callers = vec![
            ('-', None),
            ('0', Some(Token::create(&data, "nobody", &[]))),
        ];
        for (letter, ledger, roles) in ROLES {
            let principal = format!("spiffe://example.org/{letter}");
            let extra = ["--ledger", ledger, "--role", roles];
            callers.push((letter, Some(Token::create(&data, &principal, &extra))));
        }
        let server = ServerCommand::new(&data).arguments(arguments).start();
        let channel = connect_tls(&server, &certificates).await;
        let clients = Clients::over(channel.clone());
        let admin = callers.last().and_then(|(_, token)| token.as_ref());
        let mine = TestLedger::create_by(&clients, "mine", admin).await;
        let other = TestLedger::create_by(&clients, "other", admin).await;
        let before = [mine.head(&clients).await, other.head(&clients).await];

        for (letter, token) in &callers {
            let token = token.as_ref().map(|token| token.0.as_str());
            for ledger in ["mine", "other"] {
                let wanted = |allowed: &str| {
                    // A role in one ledger has no effect in another.
                    let elsewhere = ledger == "other" && !"-0a".contains(*letter);
                    let letter = if elsewhere { '0' } else { *letter };
                    match allowed.contains(letter) {
                        true => None,
                        false if letter == '-' => Some(Code::Unauthenticated),
                        false => Some(Code::PermissionDenied),
                    }
                };
                for (path, allowed) in MATRIX {
                    let status = call(&channel, path, &message(path, ledger), token).await;
                    let refused = [Code::Unauthenticated, Code::PermissionDenied];
                    let found = Some(status.code()).filter(|code| refused.contains(code));
                    let what = format!("{letter}: {path} of {ledger}: {status:?}");
                    assert_eq!(found, wanted(allowed), "{what}");
                    assert_ne!(status.code(), Code::Unimplemented, "{what}");
                }
                for (path, allowed) in PATHS {
                    let path = format!("/logs/{ledger}/{path}");
                    let status = get(&channel, &path, token).await;
                    let wanted = match wanted(allowed) {
                        None => 200,
                        Some(Code::Unauthenticated) => 401,
                        Some(_) => 403,
                    };
                    assert_eq!(status, wanted, "{letter}: {path}");
                }
            }
        }
        let after = [mine.head(&clients).await, other.head(&clients).await];
        assert_eq!(after, before);
        drop((clients, channel));
        server.stop();
        fsck_clean(&data);
    });
}

/// Returns a request with only its first field, the ledger's name; a caller with the role is told
/// that the rest is missing.
fn message(path: &str, ledger: &str) -> Vec<u8> {
    let length = u8::try_from(ledger.len()).expect("a short name");
    let named = [&[0x0a, length], ledger.as_bytes()].concat();
    if !path.ends_with("/PutContent") {
        return named;
    }
    [&[0x0a, length + 2], &named[..]].concat()
}
