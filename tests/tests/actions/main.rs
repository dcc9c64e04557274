//! Acts from the grant to the receipt, against a real server: the README's commands, the gates over
//! gRPC, attacks that need a network, and audits of the results.

mod asked;
mod attacks;
mod audit;
mod busy;
mod chains;
mod damage;
mod gates;
mod quotas;
mod raised;
mod readme;
mod story;

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use deed_evidence::{
    PayloadDigest,
    commitment::{Salt, commit},
    policy::DEFAULT_POLICIES,
};
use deed_proto::v1::{
    self, AuthenticationStrength, FindingKind, IntentState, KeyRole, RiskTier, Verdict,
    statement::Body,
};
use deed_tests::{
    keys::{Authority, key, registration_as, signed},
    process::{ServerCommand, ServerProcess, fsck_clean},
    rpc::{Clients, TestLedger, accepted, rejected},
    statements::{Producer, policy_set, task_id},
    wait_for, within,
};
use deed_tlog::SigningKey;
use tempfile::TempDir;

pub(crate) const AGENT: &str = "spiffe://shop.example/agent";
const APPROVER: &str = "spiffe://shop.example/approver";
const ENGINE: &str = "spiffe://shop.example/engine";
const BANK: &str = "spiffe://bank.example/payments";

/// Name of the task that is open in every scene, with tier payment.
pub(crate) const TASK: [u8; 16] = [0x7a; 16];

/// Name of a task with tier low, in which a signature suffices.
pub(crate) const LOW: [u8; 16] = [0x10; 16];

/// One hour, in microseconds.
const HOUR_US: i64 = 3_600_000_000;

/// Returns the present time, in microseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.expect("a clock").as_micros()).expect("a time")
}

/// A party with a key and a session.
#[derive(Debug, Clone)]
pub(crate) struct Voice {
    pub(crate) producer: Producer,
    pub(crate) key: SigningKey,
}

impl Voice {
    /// Makes a signed statement of a task.
    #[track_caller]
    pub(crate) fn says_in(&mut self, task: [u8; 16], body: Body) -> v1::Envelope {
        signed(&self.producer.make_in(task, body), &self.key)
    }

    /// Makes a signed statement of [`TASK`].
    #[track_caller]
    pub(crate) fn says(&mut self, body: Body) -> v1::Envelope {
        self.says_in(TASK, body)
    }
}

/// A server with a ledger in which all parties have keys, the shipped policies are in force, and
/// [`TASK`] and [`LOW`] are open.
pub(crate) struct Scene {
    /// The server; `None` while it is down.
    server: Option<ServerProcess>,
    pub(crate) clients: Clients,
    pub(crate) ledger: TestLedger,
    pub(crate) authority: Authority,
    pub(crate) agent: Voice,
    pub(crate) approver: Voice,
    pub(crate) engine: Voice,
    pub(crate) bank: Voice,
    sessions: u64,
    dir: TempDir,
}

/// Returns the agent's key.
pub(crate) fn agent_key() -> SigningKey {
    key(10)
}

impl Scene {
    pub(crate) async fn set() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let server = ServerCommand::new(&dir.path().join("data")).start();
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        Self::over(Some(server), clients, ledger, dir).await
    }

    async fn over(
        server: Option<ServerProcess>,
        clients: Clients,
        ledger: TestLedger,
        dir: TempDir,
    ) -> Self {
        let voice = |number: u8, name: &str| Voice {
            producer: Producer::new(ledger.id, number.into()).named(name),
            key: key(number),
        };
        let mut scene = Self {
            authority: Authority::new(ledger.id, 900),
            agent: voice(10, AGENT),
            approver: voice(11, APPROVER),
            engine: voice(12, ENGINE),
            bank: voice(13, BANK),
            sessions: 1000,
            server,
            clients,
            ledger,
            dir,
        };
        for (number, role, name, controller) in [
            (10, KeyRole::Agent, AGENT, "https://shop.example/support"),
            (
                11,
                KeyRole::Approver,
                APPROVER,
                "https://shop.example/finance",
            ),
            (
                12,
                KeyRole::PolicyEngine,
                ENGINE,
                "https://shop.example/security",
            ),
            (13, KeyRole::DownstreamSystem, BANK, "https://bank.example"),
        ] {
            let id = scene.ledger.id;
            let registered = registration_as(id, &key(number), role, name, controller);
            let said = scene.authority.says(Body::KeyRegistered(registered));
            scene.record(said).await;
        }
        let set = scene.authority.says(Body::PolicySet(shipped_policies()));
        scene.record(set).await;
        scene.open(TASK, RiskTier::Payment, 0).await;
        scene.open(LOW, RiskTier::Low, 0).await;
        scene
    }

    pub(crate) fn server(&self) -> &ServerProcess {
        self.server.as_ref().expect("the server runs")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Ends the server by SIGKILL.
    pub(crate) fn kill(&mut self) -> std::net::SocketAddr {
        let server = self.server.take().expect("the server runs");
        let address = server.address();
        server.kill9();
        address
    }

    /// Starts the server again on the same address.
    pub(crate) async fn restart(&mut self, address: std::net::SocketAddr) {
        let command = ServerCommand::new(&self.data()).listen(address);
        let server = wait_for("the port", || match command.try_start() {
            Ok(server) => Some(server),
            Err(ended) if ended.stderr.contains("cannot listen") => None,
            Err(ended) => panic!("the server does not start again: {ended:#?}"),
        });
        self.clients = Clients::connect(&server).await;
        self.server = Some(server);
    }

    /// Opens a task, as the authority.
    pub(crate) async fn open(&mut self, task: [u8; 16], tier: RiskTier, deadline_us: i64) -> u64 {
        let opened = Body::TaskOpened(v1::TaskOpened {
            requested_by: "ticket:4711".to_owned(),
            risk_tier: tier.into(),
            deadline_us,
            ..v1::TaskOpened::default()
        });
        let said = self.authority.says_in(task, opened);
        self.record(said).await.leaf_index
    }

    /// Closes a task, as the authority.
    pub(crate) async fn close(&mut self, task: [u8; 16]) -> v1::Receipt {
        let closed = Body::TaskClosed(v1::TaskClosed {
            end: v1::TaskEnd::Completed.into(),
            reason: String::new(),
        });
        let said = self.authority.says_in(task, closed);
        self.record(said).await
    }

    /// Grants the agent `orders.refund` on all orders; returns the grant's leaf hash.
    pub(crate) async fn grant(&mut self, task: [u8; 16], uses: u64, euros: Option<i64>) -> Bytes {
        let said = self.authority.says_in(task, grant(uses, euros));
        self.record(said).await.leaf_hash
    }

    /// Begins a new session of the agent.
    pub(crate) fn agent_session(&mut self) -> Voice {
        self.sessions += 1;
        Voice {
            producer: Producer::new(self.ledger.id, self.sessions).named(AGENT),
            key: agent_key(),
        }
    }

    /// Sends envelopes in one request.
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

    /// Sends an envelope that must be recorded.
    pub(crate) async fn record(&self, envelope: v1::Envelope) -> v1::Receipt {
        accepted(&self.send(vec![envelope]).await.results[0])
    }

    /// Sends an envelope that must be refused.
    pub(crate) async fn refused(&self, envelope: v1::Envelope) -> v1::Rejection {
        rejected(&self.send(vec![envelope]).await.results[0])
    }

    /// Announces a payment with all commitments that the policy requires; the Intent waits.
    pub(crate) async fn intends(&mut self, grant: &Bytes) -> Announced {
        let intent = payment(grant, 1999);
        self.announce(TASK, intent).await
    }

    /// Announces an act of the agent.
    pub(crate) async fn announce(&mut self, task: [u8; 16], intent: v1::Intent) -> Announced {
        let session = self.agent.producer.session();
        let sequence = self.agent.producer.next_sequence();
        let arguments = intent.arguments.clone();
        let said = self.agent.says_in(task, Body::Intent(intent));
        let reference = v1::StatementRef {
            session,
            sequence,
            payload_digest: Bytes::copy_from_slice(PayloadDigest::of(&said.payload).as_bytes()),
        };
        let receipt = self.record(said).await;
        Announced {
            leaf: v1::LeafRef {
                leaf_index: receipt.leaf_index,
                leaf_hash: receipt.leaf_hash.clone(),
            },
            assessed: receipt.assessed.clone().expect("what is said of an Intent"),
            reference,
            arguments,
        }
    }

    /// Records a decision of the policy engine.
    pub(crate) async fn decides(&mut self, of: &Announced, verdict: Verdict) -> v1::Receipt {
        let said = self.engine.says(decision(of, verdict));
        self.record(said).await
    }

    /// Records a decision of the approver.
    pub(crate) async fn approves(&mut self, of: &Announced, verdict: Verdict) -> v1::Receipt {
        let said = self.approver.says(approval(of, verdict));
        self.record(said).await
    }

    /// Returns all findings, in order, page by page.
    pub(crate) async fn findings(&self) -> Vec<v1::Finding> {
        let mut request = v1::ListFindingsRequest {
            ledger: self.ledger.name.clone(),
            page_size: 1000,
            ..v1::ListFindingsRequest::default()
        };
        let mut findings = Vec::new();
        loop {
            let mut actions = self.clients.actions.clone();
            let answer = within("findings", actions.list_findings(request.clone())).await;
            let answer = answer.expect("findings").into_inner();
            findings.extend(answer.findings);
            match answer.next_leaf {
                Some(leaf) => {
                    request.start_leaf = leaf;
                    request.start_number = answer.next_number;
                }
                None => return findings,
            }
        }
    }

    /// Returns the kinds of all findings.
    pub(crate) async fn kinds(&self) -> Vec<FindingKind> {
        let findings = self.findings().await;
        findings.iter().map(v1::Finding::kind).collect()
    }

    /// Returns the id of the task of this name.
    pub(crate) fn task_id(&self, name: [u8; 16]) -> [u8; 16] {
        task_id(self.ledger.id, name)
    }

    /// Returns the acts of the task of this name.
    pub(crate) async fn acts(&self, name: [u8; 16]) -> Vec<v1::ActInfo> {
        self.acts_of(self.task_id(name)).await
    }

    /// Returns the acts of the task with this id.
    pub(crate) async fn acts_of(&self, task: [u8; 16]) -> Vec<v1::ActInfo> {
        let request = v1::GetTaskRequest {
            ledger: self.ledger.name.clone(),
            task: Bytes::copy_from_slice(&task),
            min_size: 0,
        };
        let mut actions = self.clients.actions.clone();
        let told = async {
            let mut pieces = actions.get_task(request).await?.into_inner();
            let mut acts = Vec::new();
            while let Some(piece) = pieces.message().await? {
                acts.extend(piece.acts);
            }
            Ok::<_, tonic::Status>(acts)
        };
        within("a task's story", told).await.expect("a story")
    }

    /// Stops the server, and checks that the data directory has no defect.
    pub(crate) fn ends_clean(mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
        fsck_clean(&self.data());
    }
}

/// An Intent that was recorded.
#[derive(Debug, Clone)]
pub(crate) struct Announced {
    pub(crate) leaf: v1::LeafRef,
    pub(crate) assessed: v1::Assessed,
    reference: v1::StatementRef,
    arguments: Option<v1::Commitment>,
}

impl Announced {
    #[track_caller]
    pub(crate) fn expect(&self, state: IntentState, missing: &[&str]) {
        assert_eq!(self.assessed.intent(), state, "{:?}", self.assessed);
        assert_eq!(self.assessed.missing, missing, "{:?}", self.assessed);
    }

    /// Returns an Outcome of this Intent.
    pub(crate) fn outcome(&self) -> Body {
        Body::Outcome(v1::Outcome {
            intent: Some(self.reference.clone()),
            status: v1::OutcomeStatus::Succeeded.into(),
            effects: vec![refunded()],
            tool_call: Some(committed(3)),
            response: Some(committed(4)),
            arguments: self.arguments.clone(),
            ..v1::Outcome::default()
        })
    }
}

pub(crate) fn shipped_policies() -> v1::PolicySet {
    policy_set(DEFAULT_POLICIES)
}

/// Returns a commitment to bytes that are not stored.
pub(crate) fn committed(number: u8) -> v1::Commitment {
    commit(&Salt::from_bytes([number; 32]), &[number], "text/plain")
}

pub(crate) fn euros(minor_units: i64) -> v1::Amount {
    v1::Amount {
        minor_units,
        currency: "EUR".to_owned(),
    }
}

pub(crate) fn refunded() -> v1::Effect {
    v1::Effect {
        kind: "payment.refunded".to_owned(),
        resource: "order/7".to_owned(),
        amount: Some(euros(1999)),
        ..v1::Effect::default()
    }
}

/// Returns the authority's grant to the agent.
pub(crate) fn grant(uses: u64, amount: Option<i64>) -> Body {
    Body::Grant(v1::Grant {
        subject: AGENT.to_owned(),
        actions: vec!["payments.refund".to_owned()],
        resources: vec!["order/*".to_owned()],
        expires_us: now() + HOUR_US,
        uses,
        amount: amount.map(euros),
        ..v1::Grant::default()
    })
}

/// Returns an Intent under a grant, with all commitments that the shipped policies require.
pub(crate) fn payment(grant: &Bytes, cents: i64) -> v1::Intent {
    v1::Intent {
        action: "payments.refund".to_owned(),
        resource: "order/7".to_owned(),
        amount: Some(euros(cents)),
        grant: grant.clone(),
        arguments: Some(committed(1)),
        prompt: Some(committed(2)),
        ..v1::Intent::default()
    }
}

pub(crate) fn decision(of: &Announced, verdict: Verdict) -> Body {
    Body::Decision(v1::Decision {
        intent: Some(of.leaf.clone()),
        verdict: verdict.into(),
        engine: "opa".to_owned(),
        ..v1::Decision::default()
    })
}

pub(crate) fn approval(of: &Announced, verdict: Verdict) -> Body {
    Body::Approval(v1::Approval {
        intent: Some(of.leaf.clone()),
        verdict: verdict.into(),
        shown: Some(committed(5)),
        decided_at_us: now(),
        strength: AuthenticationStrength::MultiFactor.into(),
        ..v1::Approval::default()
    })
}
