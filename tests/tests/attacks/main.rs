//! Attacks against a real server over the network, one row each. Every attack is refused for
//! exactly its reason, and leaves nothing in the log.

mod batches;
mod contents;
mod encodings;
mod ledgers;
mod names;
mod roles;
mod speakers;
mod tokens;

use bytes::Bytes;
use deed_proto::v1::{self, append_result, rejection::Reason};
use deed_tests::{
    files,
    keys::{Authority, key},
    process::{ServerCommand, ServerProcess, fsck_clean},
    rpc::{Clients, TestLedger, accepted, rejected},
    statements::Producer,
    within,
};
use deed_tlog::{SigningKey, TreeHead};
use tempfile::TempDir;

/// The agent that has a key.
pub(crate) const AGENT: &str = "spiffe://example.org/agent/known";

/// A text in everything that must not get into the log. (It is a URI, so that every field may hold
/// it.)
pub(crate) const MARK: &str = "urn:of-an-attack";

/// A server with one ledger, in which [`agent`] speaks for [`AGENT`].
pub(crate) struct Scene {
    pub(crate) server: ServerProcess,
    pub(crate) clients: Clients,
    pub(crate) ledger: TestLedger,
    pub(crate) authority: Authority,
    /// The signed head before the attack.
    before: TreeHead,
    dir: TempDir,
}

/// The agent's key.
pub(crate) fn agent() -> SigningKey {
    key(10)
}

impl Scene {
    pub(crate) async fn set() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let server = ServerCommand::new(&dir.path().join("data")).start();
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        let mut scene = Self {
            before: ledger.head(&clients).await,
            authority: Authority::new(ledger.id, 900),
            server,
            clients,
            ledger,
            dir,
        };
        let registered = scene.authority.registers(&agent(), AGENT);
        scene.records(vec![registered]).await;
        scene
    }

    /// Begins a session of [`AGENT`].
    pub(crate) fn session(&self, number: u64) -> Producer {
        Producer::new(self.ledger.id, number)
            .named(AGENT)
            .unchained()
    }

    /// Sends envelopes that must be recorded.
    pub(crate) async fn records(&mut self, envelopes: Vec<v1::Envelope>) -> Vec<v1::Receipt> {
        let answer = self.send(envelopes).await;
        self.takes_for_granted(&answer);
        answer.results.iter().map(accepted).collect()
    }

    /// Notes the head of this answer as the one before the attack.
    pub(crate) fn takes_for_granted(&mut self, answer: &v1::AppendResponse) {
        self.before = self.ledger.open(&answer.checkpoint);
    }

    /// Sends envelopes of one request.
    pub(crate) async fn send(&self, envelopes: Vec<v1::Envelope>) -> v1::AppendResponse {
        let answer = self.clients.append(self.request(envelopes));
        within("an answer", answer).await.expect("an answer")
    }

    pub(crate) fn request(&self, envelopes: Vec<v1::Envelope>) -> v1::AppendRequest {
        v1::AppendRequest {
            envelopes,
            ..self.ledger.request(&[])
        }
    }

    /// Sends one envelope, which must be refused for this reason and at this field.
    pub(crate) async fn refuses(
        &self,
        what: &str,
        envelope: v1::Envelope,
        reason: Reason,
        field: &str,
    ) {
        let answer = self.send(vec![envelope]).await;
        assert_eq!(answer.results.len(), 1, "{what}");
        expect_rejected(what, &answer.results[0], reason, field);
    }

    /// Sends a request that must be refused as a whole, for these reasons.
    pub(crate) async fn refuses_all(
        &self,
        what: &str,
        envelopes: Vec<v1::Envelope>,
        reasons: &[Reason],
    ) {
        let answer = self.send(envelopes).await;
        assert_eq!(reasons_of(&answer), reasons, "{what}: {answer:?}");
    }

    /// Checks that the log is as it was before the attack, on disk as well.
    pub(crate) async fn nothing_was_recorded(self) {
        let head = self.ledger.head(&self.clients).await;
        assert_eq!(head, self.before, "the log has grown");
        drop(self.clients);
        self.server.stop();
        let data = self.dir.path().join("data");
        fsck_clean(&data);
        assert!(
            !files::contains(&data, MARK.as_bytes()),
            "a file holds something of the attack"
        );
    }
}

/// Checks that a result is a rejection for this reason and at this field, with a message that does
/// not repeat what was sent.
#[track_caller]
pub(crate) fn expect_rejected(
    what: &str,
    result: &v1::AppendResult,
    reason: Reason,
    field: &str,
) -> v1::Rejection {
    let rejection = rejected(result);
    assert_eq!(rejection.reason(), reason, "{what}: {rejection:?}");
    assert_eq!(rejection.field, field, "{what}: {rejection:?}");
    assert!(!rejection.message.is_empty(), "{what}");
    assert!(!rejection.message.contains(MARK), "{what}: {rejection:?}");
    rejection
}

/// Returns the reasons for which all envelopes of a request were refused.
#[track_caller]
pub(crate) fn reasons_of(answer: &v1::AppendResponse) -> Vec<Reason> {
    let results = answer.results.iter();
    results.map(|result| rejected(result).reason()).collect()
}

/// Returns true if the envelope was recorded.
pub(crate) fn is_accepted(result: &v1::AppendResult) -> bool {
    matches!(result.result, Some(append_result::Result::Accepted(_)))
}

/// Returns payloads of Intents with the mark.
pub(crate) fn marked(producer: &mut Producer, count: usize) -> Vec<Bytes> {
    (0..count)
        .map(|n| producer.intent(&format!("{MARK}/{n}")))
        .collect()
}
