//! Tests of tokens, grants and their file, with and without a running server.

use std::{os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use bytes::BytesMut;
use deed_evidence::Micros;
use deed_proto::v1;
use http::{HeaderMap, HeaderValue, header};
use tonic::Code;

use super::{
    Access, Caller, Reloaded,
    file::{AccessError, AccessFile, TokenRequest},
    role::{EVERY_LEDGER, Role},
    table::{Method, TABLE},
};
use deed_engine::clock::Clock;

use crate::{
    listener::{
        Connection,
        testing::{
            Running, admin, call, call_as, create_ledgers, get, grant, start, start_in, token,
            with_access,
        },
    },
    status::ApiError,
    testing::{TestClock, log_of},
};

const HOUR_US: i64 = 3_600_000_000;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    Unauthenticated,
    Forbidden,
}

impl Verdict {
    pub(super) fn of_code(code: Code) -> Self {
        match code {
            Code::Unauthenticated => Self::Unauthenticated,
            Code::PermissionDenied => Self::Forbidden,
            _ => Self::Allowed,
        }
    }

    pub(super) fn of(required: Result<(), ApiError>) -> Self {
        match required {
            Ok(()) => Self::Allowed,
            Err(ApiError::Unauthenticated(_)) => Self::Unauthenticated,
            Err(ApiError::Forbidden(_)) => Self::Forbidden,
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Access control that runs without a server.
pub(super) struct Alone {
    dir: tempfile::TempDir,
    clock: Arc<TestClock>,
    access: Arc<Access>,
}

impl Alone {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = TestClock::at(0);
        let access = Access::open(dir.path().to_owned(), true, Arc::clone(&clock) as _).unwrap();
        Self { dir, clock, access }
    }

    pub(super) fn token(&self, principal: &str, ledgers: Option<&[&str]>) -> String {
        let request = TokenRequest {
            principal: principal.to_owned(),
            ledgers: ledgers.map(|all| all.iter().map(|one| (*one).to_owned()).collect()),
            now: self.clock.now(),
            expires: Micros::new(self.clock.now().get() + HOUR_US),
        };
        let made = AccessFile::edit(self.dir.path(), |file| file.create_token(request)).unwrap();
        self.access.reload().unwrap();
        made.1.to_string()
    }

    pub(super) fn grant(&self, principal: &str, ledger: &str, role: Role) {
        grant(self.dir.path(), principal, ledger, role);
        self.access.reload().unwrap();
    }

    /// Returns the caller with this token, or with none.
    pub(super) fn caller(&self, token: Option<&str>) -> Result<Caller, ApiError> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            headers.insert(header::AUTHORIZATION, value);
        }
        self.caller_with(&headers, None)
    }

    fn caller_with(
        &self,
        headers: &HeaderMap,
        certificate: Option<&str>,
    ) -> Result<Caller, ApiError> {
        let connection = Connection {
            certificate_principal: certificate.map(Into::into),
            ..Connection::none()
        };
        Ok(Caller {
            who: self.access.authenticate(headers, &connection)?,
            access: Some(Arc::clone(&self.access)),
            connection,
        })
    }
}

#[test]
fn tokens_end_when_they_should() {
    let alone = Alone::new();
    alone.grant("agent", "mine", Role::Read);
    let good = alone.token("agent", None);
    let caller = alone.caller(Some(&good)).unwrap();
    assert_eq!(caller.principal().map(|name| &**name), Some("agent"));
    caller.require(Method::GetEntries, "mine").unwrap();

    // A microsecond before its end the token is good, and at its end it is not, for new and open
    // requests.
    alone.clock.set(HOUR_US - 1);
    assert!(alone.caller(Some(&good)).is_ok());
    alone.clock.set(HOUR_US);
    let refusal = alone.caller(Some(&good)).err().unwrap();
    assert!(matches!(refusal, ApiError::Unauthenticated(why) if why.contains("expired")));
    let found = Verdict::of(caller.require(Method::GetEntries, "mine"));
    assert_eq!(found, Verdict::Unauthenticated);
    assert!(!caller.may("mine", Role::Read));

    alone.clock.set(0);
    caller.require(Method::GetEntries, "mine").unwrap();
    let id = good.split('_').nth(1).unwrap();
    AccessFile::edit(alone.dir.path(), |file| {
        file.revoke_token(id, Micros::new(1)).map(drop)
    })
    .unwrap();
    alone.access.reload().unwrap();
    let refusal = alone.caller(Some(&good)).err().unwrap();
    assert!(matches!(refusal, ApiError::Unauthenticated(why) if why.contains("revoked")));
    let found = Verdict::of(caller.require(Method::GetEntries, "mine"));
    assert_eq!(found, Verdict::Unauthenticated);

    // A role that is taken away is gone for open requests, too.
    let other = alone.caller(Some(&alone.token("agent", None))).unwrap();
    other.require(Method::GetEntries, "mine").unwrap();
    AccessFile::edit(alone.dir.path(), |file| {
        file.revoke("agent", "mine", Role::Read)
    })
    .unwrap();
    alone.access.reload().unwrap();
    let found = Verdict::of(other.require(Method::GetEntries, "mine"));
    assert_eq!(found, Verdict::Forbidden);
}

#[test]
fn a_token_for_one_ledger_is_refused_in_others() {
    let alone = Alone::new();
    for role in Role::ALL {
        alone.grant("agent", EVERY_LEDGER, role);
    }
    let caller = alone
        .caller(Some(&alone.token("agent", Some(&["mine"]))))
        .unwrap();
    for row in &TABLE {
        let mine = Verdict::of(caller.require(row.method, "mine"));
        let other = Verdict::of(caller.require(row.method, "other"));
        // Methods about the server as a whole name no single ledger.
        let wanted = match row.method {
            Method::CreateLedger => (Verdict::Forbidden, Verdict::Forbidden),
            Method::ListLedgers => (Verdict::Allowed, Verdict::Allowed),
            _ => (Verdict::Allowed, Verdict::Forbidden),
        };
        assert_eq!((mine, other), wanted, "{}", row.path);
    }
    assert!(caller.sees("mine") && !caller.sees("other"));
    assert!(!caller.may(EVERY_LEDGER, Role::Admin));
}

#[test]
fn credentials_that_are_no_good_are_refused() {
    let alone = Alone::new();
    let (good, other) = (alone.token("agent", None), alone.token("other", None));
    let secret = |token: &str| token.rsplit_once('_').unwrap().0.len();
    let (id, _) = good.split_at(secret(&good));
    let (_, wrong) = other.split_at(secret(&other));
    let refused = |value: &[u8]| {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(value).unwrap();
        headers.insert(header::AUTHORIZATION, value);
        let found = alone.caller_with(&headers, None);
        matches!(found, Err(ApiError::Unauthenticated(_)))
    };
    assert!(!refused(format!("Bearer {good}").as_bytes()));
    assert!(!refused(format!("bearer {good}").as_bytes()));
    for bad in [
        format!("Bearer {id}{wrong}"),
        format!("Bearer {}", &good[..good.len() - 1]),
        format!("Bearer {good}x"),
        format!("Bearer {}", good.to_uppercase()),
        format!("Basic {good}"),
        format!("Bearer{good}"),
        good.clone(),
        "Bearer ".to_owned(),
        "Bearer deed__".to_owned(),
        String::new(),
    ] {
        assert!(refused(bad.as_bytes()), "{bad:?}");
    }
    assert!(refused(b"Bearer deed_\xff\xfe"));

    let mut twice = HeaderMap::new();
    for token in [&good, &good] {
        let value = format!("Bearer {token}").parse().unwrap();
        twice.append(header::AUTHORIZATION, value);
    }
    assert!(alone.caller_with(&twice, None).is_err());
}

#[test]
fn a_token_and_a_certificate_must_agree() {
    let alone = Alone::new();
    let token = alone.token("agent", None);
    let mut headers = HeaderMap::new();
    let value = format!("Bearer {token}").parse().unwrap();
    headers.insert(header::AUTHORIZATION, value);
    let name = |caller: Caller| caller.principal().map(ToString::to_string);
    let both = alone.caller_with(&headers, Some("agent")).unwrap();
    assert_eq!(name(both).as_deref(), Some("agent"));
    let refusal = alone.caller_with(&headers, Some("other")).err().unwrap();
    assert!(matches!(refusal, ApiError::Unauthenticated(why) if why.contains("different")));
    let certificate = alone.caller_with(&HeaderMap::new(), Some("other")).unwrap();
    assert_eq!(name(certificate).as_deref(), Some("other"));
}

#[test]
fn a_certificate_ends_on_open_connections_too() {
    let alone = Alone::new();
    alone.grant("agent", "mine", Role::Read);
    let connection = Connection {
        certificate_principal: Some("agent".into()),
        certificate_ends: Some(Micros::new(HOUR_US)),
        ..Connection::none()
    };
    let authenticate = || {
        let who = alone.access.authenticate(&HeaderMap::new(), &connection);
        who.map(|who| Caller {
            access: Some(Arc::clone(&alone.access)),
            who,
            connection: connection.clone(),
        })
    };
    alone.clock.set(HOUR_US - 1);
    let caller = authenticate().unwrap();
    caller.require(Method::GetEntries, "mine").unwrap();
    alone.clock.set(HOUR_US);
    let refusal = authenticate().err().unwrap();
    assert!(matches!(refusal, ApiError::Unauthenticated(why) if why.contains("expired")));
    // A request that the connection had open before is refused, too.
    let found = Verdict::of(caller.require(Method::GetEntries, "mine"));
    assert_eq!(found, Verdict::Unauthenticated);
    assert!(!caller.may("mine", Role::Read));
}

#[test]
fn a_broken_file_leaves_the_last_good_one_in_force() {
    let alone = Alone::new();
    alone.grant("agent", "mine", Role::Read);
    let caller = alone.caller(Some(&alone.token("agent", None))).unwrap();
    let path = alone.dir.path().join("access.json");
    let good = std::fs::read(&path).unwrap();
    for broken in [&b"{"[..], b"", &good[..good.len() / 2]] {
        std::fs::write(&path, broken).unwrap();
        alone.access.reload().unwrap_err();
        // The error is reported once, not each second.
        assert_eq!(alone.access.reload().unwrap(), Reloaded::Same);
        caller.require(Method::GetEntries, "mine").unwrap();
        let start = Access::open(
            alone.dir.path().to_owned(),
            true,
            Arc::clone(&alone.clock) as _,
        );
        assert!(start.is_err());
    }
    std::fs::write(&path, &good).unwrap();
    assert_eq!(alone.access.reload().unwrap(), Reloaded::Changed);
    caller.require(Method::GetEntries, "mine").unwrap();
    // A removed file takes all grants away, and the log says so.
    std::fs::remove_file(&path).unwrap();
    let removed = alone.access.reload().unwrap();
    assert_eq!(removed, Reloaded::Removed);
    caller.require(Method::GetEntries, "mine").unwrap_err();
    assert_eq!(alone.access.reload().unwrap(), Reloaded::Same);
    let told = log_of(|| removed.say());
    assert!(told.contains("WARN") && told.contains("gone"), "{told}");
    assert!(!told.contains("in force"), "{told}");
}

/// Whoever can read the hashes can try tokens against them; whoever can write can add a token.
#[test]
fn a_file_that_others_can_read_or_write_is_refused() {
    let alone = Alone::new();
    alone.grant("agent", "mine", Role::Read);
    let caller = alone.caller(Some(&alone.token("agent", None))).unwrap();
    let path = alone.dir.path().join("access.json");
    let open = || {
        let clock = Arc::clone(&alone.clock) as _;
        Access::open(alone.dir.path().to_owned(), true, clock)
    };
    assert!(open().is_ok());
    for mode in [0o640, 0o604, 0o666, 0o622] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let error = open().err().unwrap();
        assert!(matches!(error, AccessError::Exposed { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains("access.json") && error.contains("chmod 600"));
        // A running server keeps what it has read, and commands change nothing.
        alone.access.reload().unwrap_err();
        caller.require(Method::GetEntries, "mine").unwrap();
        assert!(AccessFile::edit(alone.dir.path(), |_| Ok(())).is_err());
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(open().is_ok());
}

/// Repeats a call until it ends with this code. The server looks at the file every second.
async fn until(running: &Running, token: &str, wanted: Code) {
    let channel = running.plain().await;
    let path = "/deed.v1.Ledger/ListLedgers";
    while call(&channel, path, BytesMut::new(), Some(token)).await != wanted {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_notices_what_changes() {
    let running = start(with_access).await;
    let data_dir = running.data_dir();
    let channel = running.plain().await;
    let path = "/deed.v1.Ledger/ListLedgers";
    assert_eq!(
        call(&channel, path, BytesMut::new(), None).await,
        Code::Unauthenticated
    );
    let token = token(&data_dir, "agent", None);
    until(&running, &token, Code::Ok).await;
    let id = token.split('_').nth(1).unwrap();
    AccessFile::edit(&data_dir, |file| {
        file.revoke_token(id, Micros::new(1)).map(drop)
    })
    .unwrap();
    until(&running, &token, Code::Unauthenticated).await;
    running.server.stop().await.unwrap();
}

/// An invalid credential is refused where none is needed, and unknown paths are not open.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_open_by_accident() {
    let running = start(with_access).await;
    let admin = admin(&running.data_dir());
    until(&running, &admin, Code::Ok).await;
    let channel = running.plain().await;
    let check = "/grpc.health.v1.Health/Check";
    assert_eq!(call(&channel, check, BytesMut::new(), None).await, Code::Ok);
    let bad = ["Bearer deed_0000000000000000_x".to_owned()];
    let code = call_as(&channel, check, BytesMut::new(), &bad).await;
    assert_eq!(code, Code::Unauthenticated);

    for path in [
        "/",
        "/metrics",
        "/deed.v1.Ledger/Nothing",
        "/deed.v1.Ledger/Append/",
    ] {
        assert_eq!(get(&channel, path, None).await.0, 401, "{path}");
    }
    let (status, headers) = get(&channel, "/nothing", None).await;
    assert_eq!(
        (status, headers["www-authenticate"].as_str()),
        (401, "Bearer")
    );
    let unknown = "/deed.v1.Ledger/Nothing";
    let code = call(&channel, unknown, BytesMut::new(), Some(&admin)).await;
    assert_eq!(code, Code::Unimplemented);
    running.server.stop().await.unwrap();
}

/// A list shows the ledgers in which the caller has a role.
#[tokio::test(flavor = "multi_thread")]
async fn lists_show_only_what_the_caller_may_see() {
    use v1::ledger_client::LedgerClient;
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let admin = admin(&data_dir);
    grant(&data_dir, "agent", "b", Role::Append);
    let agent = token(&data_dir, "agent", None);
    let running = start_in(dir, with_access).await;
    let channel = running.plain().await;
    create_ledgers(&channel, Some(&admin), &["a", "b", "c"]).await;
    for (token, wanted) in [(admin, vec!["a", "b", "c"]), (agent, vec!["b"])] {
        let mut client = LedgerClient::new(channel.clone());
        let mut names = Vec::new();
        let mut page_token = String::new();
        loop {
            let mut request = tonic::Request::new(v1::ListLedgersRequest {
                page_size: 1,
                page_token,
            });
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
            let page = client.list_ledgers(request).await.unwrap().into_inner();
            names.extend(page.ledgers.into_iter().map(|ledger| ledger.name));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(names, wanted);
    }
    running.server.stop().await.unwrap();
}

#[test]
fn a_data_directory_with_roles_is_still_new() {
    let dir = tempfile::tempdir().unwrap();
    admin(dir.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let options = crate::ServerOptions::new(dir.path() as &Path);
        let server = crate::Server::start(options, Arc::new(crate::SystemClock));
        let server = server.await.unwrap();
        assert!(server.created());
        server.stop().await.unwrap();
    });
}

/// The log names the caller and the refused rpc, and contains nothing of the credential.
#[test]
fn refusals_are_logged_without_tokens() {
    let alone = Alone::new();
    let token = alone.token("agent", None);
    // The secret itself may contain a `_`.
    let secret = token.splitn(3, '_').nth(2).unwrap();
    let log = log_of(|| {
        let caller = alone.caller(Some(&token)).unwrap();
        caller.require(Method::GetEntries, "mi\nne").unwrap_err();
    });
    let first = log.lines().next().unwrap();
    for part in [
        "INFO",
        "principal=\"agent\"",
        "peer=0.0.0.0:0",
        "rpc=\"/deed.v1.Log/GetEntries\"",
        r#"ledger="mi\nne""#,
        "status=\"PERMISSION_DENIED\"",
    ] {
        assert!(first.contains(part), "{part} is not in {first}");
    }
    assert!(!log.contains(secret));
    assert_eq!(log.lines().count(), 1);
}
