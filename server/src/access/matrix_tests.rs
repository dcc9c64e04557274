//! Compares the table with what is served and with the rules, role by role.

use std::collections::BTreeSet;

use bytes::{BufMut as _, BytesMut};
use deed_proto::v1;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::Code;

use super::{
    Caller,
    role::{EVERY_LEDGER, Role},
    table::{Method, Need, TABLE},
    tests::{Alone, Verdict},
};
use crate::{
    http::ROUTES,
    listener::testing::{
        admin, call, create_ledgers, get, grant, named, start, start_in, token, with_access,
    },
};

/// Returns all rpcs of the descriptors: path, and whether the request is a stream.
fn rpcs() -> Vec<(String, bool)> {
    let sets = [
        v1::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    ];
    let mut rpcs = Vec::new();
    for set in sets {
        for file in FileDescriptorSet::decode(set).unwrap().file {
            for service in &file.service {
                for rpc in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), rpc.name());
                    rpcs.push((path, rpc.client_streaming()));
                }
            }
        }
    }
    rpcs
}

#[test]
fn every_rpc_and_every_http_route_is_in_the_table_and_nothing_else() {
    let rpcs = rpcs();
    assert!(rpcs.len() >= 19);
    let listed = TABLE.iter().filter(|row| !row.method.is_http());
    let listed = listed
        .map(|row| {
            let path = row.path.split('?').next().unwrap_or_default();
            (path.to_owned(), row.streams_in)
        })
        .collect::<BTreeSet<_>>();
    assert_eq!(rpcs.into_iter().collect::<BTreeSet<_>>(), listed);

    let served = ROUTES.iter().flat_map(|(_, methods)| *methods);
    let served = served
        .map(|method| method.row().path)
        .collect::<BTreeSet<_>>();
    let listed = TABLE.iter().filter(|row| row.method.is_http());
    assert_eq!(served, listed.map(|row| row.path).collect::<BTreeSet<_>>());
}

/// An independent statement of the access rules: the verdict for a caller with the roles `held` in
/// the ledger that a request is about.
fn expected(path: &str, held: &Held) -> Verdict {
    use Role::{Admin, Append, Audit, Authority, Read};
    let name = path.rsplit_once('.').map_or(path, |(_, name)| name);
    let roles: &[Role] = match name {
        "Ledger/GetLedger" | "Log/GetTreeHead" | "Log/WatchTreeHeads" => return Verdict::Allowed,
        "Log/GetInclusionProof" | "Log/GetConsistencyProof" => return Verdict::Allowed,
        "Log/GetLogKeys" => return Verdict::Allowed,
        "Health/Check" | "Health/Watch" => return Verdict::Allowed,
        "ServerReflection/ServerReflectionInfo" => return Verdict::Allowed,
        "/logs/{ledger}/checkpoint" => return Verdict::Allowed,
        "/logs/{ledger}/tile/{level}/{*index}" => return Verdict::Allowed,
        "Ledger/ListLedgers" => &Role::ALL,
        "Ledger/CreateLedger" => &[Admin],
        "Ledger/Append" | "Ledger/AppendStream" => &[Append, Authority],
        "Content/PutContent" => &[Append],
        "Log/GetEntries" | "Log/GetBatchProof" | "Log/GetTrustChain" => &[Read, Audit],
        "Log/GetInclusionProof?statement" => &[Read, Audit],
        "Log/GetSession" | "/logs/{ledger}/tile/entries/{*index}" => &[Read, Audit],
        "Content/GetContent" => &[Audit],
        "Actions/AwaitClearance" => &[Append, Read, Audit],
        "Actions/RequestTaskReceipt" => &[Append, Authority],
        "Actions/GetTask" | "Actions/Search" => &[Read, Audit],
        "Actions/ListFindings" | "Actions/WatchFindings" => &[Read, Audit],
        "Content/EraseContent" => &[Authority],
        _ => panic!("no rule says anything about {path}"),
    };
    match held {
        Held::Anonymous => Verdict::Unauthenticated,
        // The list is open to every known caller.
        _ if name == "Ledger/ListLedgers" => Verdict::Allowed,
        Held::Role(role) if roles.contains(role) => Verdict::Allowed,
        Held::Role(_) | Held::Nothing => Verdict::Forbidden,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Anonymous,
    Nothing,
    Role(Role),
}

#[test]
fn the_whole_role_matrix() {
    let alone = Alone::new();
    let mut callers = vec![(Held::Anonymous, alone.caller(None).unwrap(), None)];
    let nobody = alone.token("nobody", None);
    callers.push((Held::Nothing, alone.caller(Some(&nobody)).unwrap(), None));
    for role in Role::ALL {
        for ledger in ["mine", EVERY_LEDGER] {
            if role == Role::Admin && ledger != EVERY_LEDGER {
                continue;
            }
            let principal = format!("{role} in {ledger}");
            alone.grant(&principal, ledger, role);
            let token = alone.token(&principal, None);
            let caller = alone.caller(Some(&token)).unwrap();
            callers.push((Held::Role(role), caller, Some(ledger)));
        }
    }
    for (held, caller, place) in &callers {
        for row in &TABLE {
            for ledger in ["mine", "other"] {
                let held = match place {
                    Some("mine") if ledger == "other" => Held::Nothing,
                    _ => *held,
                };
                let found = Verdict::of(caller.require(row.method, ledger));
                let wanted = expected(row.path, &held);
                assert_eq!(
                    found, wanted,
                    "{held:?} at {place:?}: {} of {ledger}",
                    row.path
                );
            }
        }
        for (ledger, shown) in [("mine", place.is_some()), ("other", *place == Some("*"))] {
            assert_eq!(
                caller.sees(ledger),
                shown,
                "{held:?} at {place:?}: {ledger}"
            );
        }
    }
    // Every caller may do everything if access control is off; without the layer no caller may.
    for row in &TABLE {
        assert!(Caller::unrestricted().require(row.method, "mine").is_ok());
        let outside = Caller::of(&http::Extensions::new());
        let found = Verdict::of(outside.require(row.method, "mine"));
        assert_eq!(found, expected(row.path, &Held::Anonymous));
    }
}

/// Returns the first message of a request about this ledger.
fn message(path: &str, ledger: &str) -> BytesMut {
    let mut message = named(ledger);
    if path.ends_with("?statement") {
        // The statement's place: a session of 16 bytes.
        message.put_slice(&[0x22, 18, 0x0a, 16]);
        message.put_bytes(7, 16);
        return message;
    }
    if !path.ends_with("/PutContent") {
        return message;
    }
    let mut begin = BytesMut::new();
    begin.put_slice(&[0x0a, u8::try_from(message.len()).unwrap()]);
    begin.extend(message);
    begin
}

/// Shows over the network that each handler asks the table, and for its own row.
#[tokio::test(flavor = "multi_thread")]
async fn the_role_matrix_holds_for_what_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let admin = admin(&data_dir);
    let mut callers = vec![(Held::Anonymous, None)];
    callers.push((Held::Nothing, Some(token(&data_dir, "nobody", None))));
    for role in Role::ALL {
        let ledger = match role {
            Role::Admin => EVERY_LEDGER,
            _ => "mine",
        };
        let principal = format!("only {role}");
        grant(&data_dir, &principal, ledger, role);
        callers.push((Held::Role(role), Some(token(&data_dir, &principal, None))));
    }
    let running = start_in(dir, with_access).await;
    let channel = running.plain().await;
    create_ledgers(&channel, Some(&admin), &["mine", "other"]).await;

    let mut unserved = BTreeSet::new();
    for row in TABLE.iter().filter(|row| !row.method.is_http()) {
        let all = call(&channel, row.path, message(row.path, "mine"), Some(&admin)).await;
        let served = all != Code::Unimplemented;
        if !served {
            unserved.insert(row.path);
        }
        for (held, token) in &callers {
            for ledger in ["mine", "other"] {
                let held = match held {
                    Held::Role(role) if *role != Role::Admin && ledger == "other" => Held::Nothing,
                    held => *held,
                };
                let message = message(row.path, ledger);
                let code = call(&channel, row.path, message, token.as_deref()).await;
                let wanted = expected(row.path, &held);
                if served || wanted != Verdict::Forbidden {
                    let found = Verdict::of_code(code);
                    assert_eq!(found, wanted, "{held:?}: {} of {ledger}: {code}", row.path);
                }
            }
        }
    }
    // Once one of these is served, the rows above must hold for it too.
    for path in unserved {
        let known = [
            Method::GetBatchProof,
            Method::GetTrustChain,
            Method::GetSession,
            Method::PutContent,
            Method::GetContent,
            Method::EraseContent,
        ];
        assert!(
            known.iter().any(|method| method.row().path == path),
            "{path}"
        );
    }

    let mut paths = vec![
        (Method::Checkpoint, "checkpoint", 200),
        (Method::HashTile, "tile/0/000.p/1", 200),
    ];
    // The rule holds however the path is written.
    for written in [
        "tile/entries/000.p/1",
        "tile/%65ntries/000.p/1",
        "tile/entries%2F000.p/1",
    ] {
        paths.push((Method::EntryBundle, written, 200));
    }
    for (method, path, good) in paths {
        for (held, token) in &callers {
            for ledger in ["mine", "other"] {
                let held = match held {
                    Held::Role(role) if *role != Role::Admin && ledger == "other" => Held::Nothing,
                    held => *held,
                };
                let path = format!("/logs/{ledger}/{path}");
                let (status, headers) = get(&channel, &path, token.as_deref()).await;
                let wanted = match expected(method.row().path, &held) {
                    Verdict::Allowed => good,
                    Verdict::Unauthenticated => 401,
                    Verdict::Forbidden => 403,
                };
                assert_eq!(status, wanted, "{held:?}: {path}");
                // No cache may give others what needs a role; nor may it keep a refusal.
                let cached = headers["cache-control"].starts_with("public");
                let open = method.row().need == Need::Open;
                assert_eq!(cached, open && status == 200, "{held:?}: {path}");
                assert!(cached || headers["cache-control"] == "no-store", "{path}");
                let challenged = headers.contains_key("www-authenticate");
                assert_eq!(challenged, wanted == 401, "{path}");
            }
        }
    }
    running.server.stop().await.unwrap();
}

/// Without access control every caller may read, and caches may keep the answers.
#[tokio::test(flavor = "multi_thread")]
async fn caches_may_keep_what_everybody_may_read() {
    let running = start(|_, _| ()).await;
    let channel = running.plain().await;
    create_ledgers(&channel, None, &["mine"]).await;
    for (path, cached) in [
        ("checkpoint", "public, max-age=1"),
        ("tile/0/000.p/1", "public, max-age=31536000, immutable"),
        (
            "tile/entries/000.p/1",
            "public, max-age=31536000, immutable",
        ),
        ("tile/entries/000.p/2", "no-store"),
        ("tile/0/001", "no-store"),
    ] {
        let (status, headers) = get(&channel, &format!("/logs/mine/{path}"), None).await;
        assert_eq!(status == 200, cached != "no-store", "{path}");
        assert_eq!(headers["cache-control"], cached, "{path}");
    }
    running.server.stop().await.unwrap();
}
