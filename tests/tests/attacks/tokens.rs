//! Attacks with invalid credentials, and with principals that speak for others' producers.

use std::path::PathBuf;

use deed_proto::v1::{self, rejection::Reason, statement::Body};
use deed_tests::{
    access::Token,
    files,
    keys::{Authority, key, signed},
    process::{ServerCommand, ServerProcess, fsck_clean},
    rpc::{Clients, TestLedger, accepted},
    run,
    statements::{Producer, envelope},
    until, within,
};
use deed_tlog::TreeHead;
use tempfile::TempDir;
use tonic::{Code, Request, Status};

use crate::{AGENT, MARK, agent, expect_rejected, is_accepted, marked};

/// A server with access control and two ledgers.
struct Guarded {
    server: ServerProcess,
    clients: Clients,
    mine: TestLedger,
    other: TestLedger,
    admin: Token,
    data: PathBuf,
    _dir: TempDir,
}

impl Guarded {
    async fn set() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let data = dir.path().join("data");
        let server = ServerCommand::new(&data)
            .arguments(["--set", "access.required=true"])
            .start();
        let everything = "append,read,audit,authority,admin";
        let admin = Token::create(&data, "admin", &["--ledger", "*", "--role", everything]);
        let clients = Clients::connect(&server).await;
        let known = || async {
            let request = admin.on(v1::ListLedgersRequest::default());
            clients.ledger.clone().list_ledgers(request).await.ok()
        };
        until("a token that is known", known).await;
        let mine = TestLedger::create_by(&clients, "mine", Some(&admin)).await;
        let other = TestLedger::create_by(&clients, "other", Some(&admin)).await;
        Self {
            server,
            clients,
            mine,
            other,
            admin,
            data,
            _dir: dir,
        }
    }

    /// Makes a token, and waits until the server knows it.
    async fn token(&self, principal: &str, extra: &[&str]) -> Token {
        let token = Token::create(&self.data, principal, extra);
        let known = || async {
            let request = token.on(v1::ListLedgersRequest::default());
            let answer = self.clients.ledger.clone().list_ledgers(request).await;
            // A token of one second may have ended by now.
            match answer {
                Ok(_) => Some(()),
                Err(status) => status.message().contains("expired").then_some(()),
            }
        };
        until("a token that is known", known).await;
        token
    }

    /// Appends trust statements, delivered by the admin.
    async fn says(&self, envelopes: Vec<v1::Envelope>) {
        let answer = self
            .append(&self.mine, Some(&self.admin), envelopes)
            .await
            .expect("an answer");
        assert!(answer.results.iter().all(is_accepted), "{answer:?}");
    }

    async fn append(
        &self,
        ledger: &TestLedger,
        token: Option<&Token>,
        envelopes: Vec<v1::Envelope>,
    ) -> Result<v1::AppendResponse, Status> {
        let request = v1::AppendRequest {
            envelopes,
            ..ledger.request(&[])
        };
        let request = match token {
            Some(token) => token.on(request),
            None => Request::new(request),
        };
        let answer = self.clients.ledger.clone().append(request).await;
        answer.map(tonic::Response::into_inner)
    }

    async fn heads(&self) -> [TreeHead; 2] {
        [
            self.mine.head(&self.clients).await,
            self.other.head(&self.clients).await,
        ]
    }

    async fn nothing_was_recorded(self, before: [TreeHead; 2]) {
        assert_eq!(self.heads().await, before, "a log has grown");
        drop(self.clients);
        let ended = self.server.stop();
        assert!(!ended.stderr.contains("Bearer"), "{}", ended.stderr);
        fsck_clean(&self.data);
        assert!(!files::contains(&self.data, MARK.as_bytes()));
    }
}

#[test]
fn a_token_that_is_no_good() {
    run(async {
        let set = Guarded::set().await;
        let before = set.heads().await;
        let append = ["--ledger", "mine", "--role", "append,read"];
        let good = set.token("gateway", &append).await;
        let mut expires = append.to_vec();
        expires.extend(["--expires", "1s"]);
        let expired = set.token("gateway", &expires).await;
        let revoked = set.token("gateway", &append).await;
        revoked.revoke(&set.data);
        // The token is another server's: well-formed, and never made here.
        let elsewhere = TempDir::new().expect("a temporary directory");
        let foreign = Token::create(elsewhere.path(), "gateway", &append);
        let spliced = format!(
            "deed_{}_{}",
            good.id(),
            foreign.0.rsplit_once('_').expect("a secret").1
        );
        let mut flipped = good.0.clone().into_bytes();
        let at = flipped.len() - 10;
        flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
        let flipped = String::from_utf8(flipped).expect("text");

        let payload = Producer::new(set.mine.id, 1).named(AGENT).intent(MARK);
        let attempt = async |value: Option<&str>, twice: bool| {
            let mut request = Request::new(set.mine.request(std::slice::from_ref(&payload)));
            if let Some(value) = value {
                let value: tonic::metadata::MetadataValue<_> = value.parse().expect("a header");
                if twice {
                    request
                        .metadata_mut()
                        .append("authorization", value.clone());
                }
                request.metadata_mut().append("authorization", value);
            }
            let answer = within("an answer", set.clients.ledger.clone().append(request)).await;
            answer.expect_err("refused")
        };
        // A token's end and a revocation take effect after a moment.
        for (token, wanted) in [(&expired, "expired"), (&revoked, "revoked")] {
            let ended = || async {
                let request = token.on(v1::ListLedgersRequest::default());
                let answer = set.clients.ledger.clone().list_ledgers(request).await;
                answer.err().filter(|s| s.message().contains(wanted))
            };
            until(wanted, ended).await;
        }
        let bearer = |token: &str| format!("Bearer {token}");
        for (what, value, twice) in [
            ("none", None, false),
            ("expired", Some(bearer(&expired.0)), false),
            ("revoked", Some(bearer(&revoked.0)), false),
            ("of another server", Some(bearer(&foreign.0)), false),
            ("another's secret", Some(bearer(&spliced)), false),
            ("a flipped character", Some(bearer(&flipped)), false),
            ("cut off", Some(bearer(&good.0[..good.0.len() - 1])), false),
            ("one more", Some(bearer(&format!("{}A", good.0))), false),
            ("its id alone", Some(bearer(good.id())), false),
            ("nothing", Some("Bearer ".to_owned()), false),
            ("without a scheme", Some(good.0.clone()), false),
            ("another scheme", Some(format!("Basic {}", good.0)), false),
            ("twice", Some(bearer(&good.0)), true),
        ] {
            let status = attempt(value.as_deref(), twice).await;
            assert_eq!(status.code(), Code::Unauthenticated, "{what}: {status:?}");
            let secret = good.0.rsplit_once('_').expect("a secret").1;
            assert!(!status.message().contains(secret), "{what}: {status:?}");
        }
        set.nothing_was_recorded(before).await;
    });
}

#[test]
fn a_token_of_another_ledger() {
    run(async {
        let set = Guarded::set().await;
        let before = set.heads().await;
        // One token's principal has no role here, and one token is itself for another ledger.
        let elsewhere = ["--ledger", "other", "--role", "append,read,authority"];
        let no_role = set
            .token("spiffe://example.org/elsewhere", &elsewhere)
            .await;
        let mut both = vec!["--ledger", "*", "--role", "append,read,authority"];
        both.extend(["--only-ledger", "other"]);
        let bounded = set.token("spiffe://example.org/everywhere", &both).await;
        let payload = Producer::new(set.mine.id, 1).named(AGENT).intent(MARK);
        let mut authority = Authority::new(set.mine.id, 900);
        for token in [&no_role, &bounded] {
            for sent in [
                envelope(&payload),
                authority.clone().registers(&agent(), MARK),
            ] {
                let answer = set.append(&set.mine, Some(token), vec![sent]).await;
                let status = answer.expect_err("refused");
                assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
            }
            let request = token.on(v1::GetEntriesRequest {
                ledger: "mine".to_owned(),
                ..v1::GetEntriesRequest::default()
            });
            let answer = set.clients.log.clone().get_entries(request).await;
            let status = answer.map(drop).expect_err("refused");
            assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        }
        // In the ledger that they are for, the check of the ledger's id refuses them.
        let sent = vec![authority.registers(&agent(), MARK)];
        let answer = set.append(&set.other, Some(&bounded), sent).await;
        let answer = answer.expect("an answer");
        let result = &answer.results[0];
        expect_rejected("the other one", result, Reason::WrongLedger, "ledger_id");
        set.nothing_was_recorded(before).await;
    });
}

#[test]
fn a_principal_speaks_for_a_foreign_producer() {
    run(async {
        let set = Guarded::set().await;
        let append = ["--ledger", "mine", "--role", "append"];
        let gateway = set.token("spiffe://example.org/gateway", &append).await;
        let second = set.token("spiffe://example.org/second", &append).await;
        let owner = ["--ledger", "mine", "--role", "authority"];
        let owner = set.token("spiffe://example.org/owner", &owner).await;
        let reader = ["--ledger", "mine", "--role", "read"];
        let reader = set.token("spiffe://example.org/reader", &reader).await;

        let foreign = "spiffe://example.org/agent/foreign";
        let shared = "spiffe://example.org/agent/shared";
        let ended = "spiffe://example.org/agent/ended";
        let mut authority = Authority::new(set.mine.id, 900);
        let mut trust = vec![
            authority.registers(&agent(), AGENT),
            authority.registers(&key(12), foreign),
            authority.binds("spiffe://example.org/gateway", AGENT),
            authority.binds("spiffe://example.org/gateway", shared),
            authority.binds("spiffe://example.org/second", shared),
            authority.binds("spiffe://example.org/gateway", ended),
        ];
        trust.push(authority.says(Body::PrincipalBound(v1::PrincipalBound {
            principal: "spiffe://example.org/gateway".to_owned(),
            producer: ended.to_owned(),
            valid_until_us: 1,
        })));
        set.says(trust).await;
        let mut mine = Producer::new(set.mine.id, 1).named(AGENT).unchained();
        let mut of_shared = Producer::new(set.mine.id, 2).named(shared).unchained();
        let begun = vec![
            signed(&mine.intent("orders/1"), &agent()),
            envelope(&of_shared.intent("orders/2")),
        ];
        let answer = set.append(&set.mine, Some(&gateway), begun).await;
        let receipts = answer.expect("an answer");
        // Each entry names the leaf that allows its principal to deliver it.
        let leaves = receipts.results.iter().map(|r| accepted(r).principal_leaf);
        assert_eq!(leaves.collect::<Vec<_>>(), [Some(3), Some(4)]);

        let before = set.heads().await;
        let by_foreign = Producer::new(set.mine.id, 3).named(foreign).intent(MARK);
        let by_ended = Producer::new(set.mine.id, 4).named(ended).intent(MARK);
        let trust = authority.clone().registers(&key(50), MARK);
        let not_bound = Reason::PrincipalNotBound;
        for (what, token, sent, reason, field) in [
            // The signature is valid, but its bearer may not deliver it.
            (
                "a foreign producer, signed by its key",
                &gateway,
                signed(&by_foreign, &key(12)),
                not_bound,
                "producer",
            ),
            (
                "a producer that nobody knows",
                &gateway,
                envelope(&Producer::new(set.mine.id, 5).intent(MARK)),
                not_bound,
                "producer",
            ),
            (
                "a binding that has ended",
                &gateway,
                envelope(&by_ended),
                not_bound,
                "producer",
            ),
            (
                "another principal's producer",
                &second,
                signed(&mine.clone().intent(MARK), &agent()),
                not_bound,
                "producer",
            ),
            (
                "another principal's session",
                &second,
                envelope(&of_shared.clone().intent(MARK)),
                Reason::SessionTaken,
                "session",
            ),
            (
                "an authority's words without its role",
                &gateway,
                trust,
                not_bound,
                "",
            ),
            (
                "a producer's words with an authority's role",
                &owner,
                signed(&mine.clone().intent(MARK), &agent()),
                not_bound,
                "",
            ),
        ] {
            let answer = set.append(&set.mine, Some(token), vec![sent]).await;
            let answer = answer.unwrap_or_else(|status| panic!("{what}: {status:?}"));
            let rejection = expect_rejected_for(what, &answer, reason);
            assert_eq!(rejection.field, field, "{what}: {rejection:?}");
        }
        let mut producer = Producer::new(set.mine.id, 6).named(foreign);
        let batch = deed_tests::keys::batch(&marked(&mut producer, 2), &key(12));
        let answer = set.append(&set.mine, Some(&gateway), batch).await;
        let refused = Reason::BatchRefused;
        let reasons = crate::reasons_of(&answer.expect("an answer"));
        assert_eq!(reasons, [not_bound, refused, refused]);
        // A caller without a role for it does not get that far.
        let sent = vec![signed(&mine.clone().intent(MARK), &agent())];
        let answer = set.append(&set.mine, Some(&reader), sent).await;
        let status = answer.expect_err("refused");
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        set.nothing_was_recorded(before).await;
    });
}

#[track_caller]
fn expect_rejected_for(what: &str, answer: &v1::AppendResponse, reason: Reason) -> v1::Rejection {
    let rejection = deed_tests::rpc::rejected(&answer.results[0]);
    assert_eq!(rejection.reason(), reason, "{what}: {rejection:?}");
    rejection
}
