//! One statement of each body with every field set, and a ledger to say it in. The golden files
//! are made of these: they never change.

use bytes::Bytes;
use deed_evidence::{
    LedgerId, Micros, Nonce, PayloadDigest, SessionId, TaskId, batch, commitment,
    genesis::Genesis,
    signature::{self, Possession},
    statement,
};
use deed_proto::v1::{self, statement::Body};
use deed_tlog::{NoteSigner, Origin, SigningKey};

pub(crate) const TIME_US: i64 = 1_760_000_000_000_000;

pub(crate) fn bytes(byte: u8, length: usize) -> Bytes {
    vec![byte; length].into()
}

pub(crate) fn signer(origin: &str) -> NoteSigner {
    NoteSigner::from_seed(deed_tlog::KeyName::new(origin).unwrap(), &[1; 32])
}

/// The public key of the Ed25519 seed `[seed; 32]`.
pub(crate) fn public_key(seed: u8) -> [u8; 32] {
    let name = deed_tlog::KeyName::new("any").unwrap();
    let signer = NoteSigner::from_seed(name, &[seed; 32]);
    *signer.verifier_key().public_key().as_bytes()
}

pub(crate) fn genesis() -> Genesis {
    let origin = "deed.example/logs/refunds";
    let mut authority_keys = vec![public_key(2), public_key(3)];
    authority_keys.sort_unstable();
    Genesis {
        origin: Origin::new(origin).unwrap(),
        log_key: signer(origin).verifier_key().clone(),
        authority_keys,
        created_at: Micros::new(TIME_US),
        nonce: [4; 32],
        rules_version: 1,
    }
}

/// The commitment in the field `slot` of the fixtures.
pub(crate) fn commitment_of(slot: &str) -> v1::Commitment {
    let session = deed_evidence::SessionId::new([0x55; 16]);
    let sequence = deed_evidence::Sequence::new(7);
    let salt = commitment::Salt::derive(&[0x42; 32], session, sequence, slot);
    commitment::commit(&salt, slot.as_bytes(), "application/json")
}

fn amount() -> Option<v1::Amount> {
    Some(v1::Amount {
        minor_units: -12_900,
        currency: "EUR".into(),
    })
}

fn effect(id: &str) -> v1::Effect {
    v1::Effect {
        kind: "refund.created".into(),
        resource: "https://shop.example/orders/4711/refunds".into(),
        external_id: id.into(),
        amount: amount(),
        before_digest: bytes(0xb0, 32),
        after_digest: bytes(0xb1, 32),
    }
}

/// A header with every field, around a body.
pub(crate) fn statement(body: Body) -> v1::Statement {
    let key = |kind: &str, value: &str| v1::CorrelationKey {
        kind: kind.into(),
        value: value.into(),
    };
    v1::Statement {
        ledger_id: bytes(0x11, 32),
        producer: "spiffe://example.org/agent/refunds".into(),
        session: bytes(0x55, 16),
        sequence: 7,
        previous: bytes(0x22, 32),
        skipped_from: Some(5),
        occurred_at_us: TIME_US,
        task: bytes(0x77, 16),
        trace_id: bytes(0x88, 16),
        span_id: bytes(0x99, 8),
        correlation_keys: vec![
            key("order", "4711"),
            key("order", "4712"),
            key("ticket", "Ä-1"),
        ],
        nonce: Bytes::new(),
        body: Some(body),
    }
}

/// A session's first statement, which opens a task, too: both ids are derived.
pub(crate) fn task_opened_certified() -> v1::Statement {
    let mut made = task_opened();
    let (session, task) = (Nonce::new([0x2a; 16]), Nonce::new([0x2b; 16]));
    made.nonce = bytes(0x2a, 16);
    made.session = SessionId::derive(LEDGER, &made.producer, &session)
        .as_bytes()
        .to_vec()
        .into();
    made.task = TaskId::derive(LEDGER, &made.producer, &task)
        .as_bytes()
        .to_vec()
        .into();
    (made.sequence, made.skipped_from, made.previous) = (0, None, Bytes::new());
    if let Some(Body::TaskOpened(opened)) = &mut made.body {
        opened.nonce = bytes(0x2b, 16);
    }
    made
}

pub(crate) fn task_opened() -> v1::Statement {
    statement(Body::TaskOpened(v1::TaskOpened {
        objective: Some(v1::task_opened::Objective::ObjectiveText(
            "Refund order 4711.\nThen tell the customer.".into(),
        )),
        requested_by: "https://crm.example/agents/12".into(),
        risk_tier: v1::RiskTier::Payment.into(),
        deadline_us: TIME_US + 3_600_000_000,
        nonce: Bytes::new(),
    }))
}

pub(crate) fn task_opened_committed() -> v1::Statement {
    let mut statement = task_opened();
    if let Some(Body::TaskOpened(opened)) = &mut statement.body {
        let slot = "task_opened.objective_commitment";
        opened.objective = Some(v1::task_opened::Objective::ObjectiveCommitment(
            commitment_of(slot),
        ));
    }
    statement
}

/// A grant that is a part of another, as its subject hands it down.
pub(crate) fn grant() -> v1::Statement {
    statement(Body::Grant(v1::Grant {
        subject: "spiffe://example.org/agent/payouts".into(),
        subject_key: bytes(0xd0, 16),
        actions: vec!["payments.refund".into(), "payments/*".into()],
        resources: vec![
            "https://shop.example/orders/4711".into(),
            "https://shop.example/orders/4711/*".into(),
        ],
        not_before_us: TIME_US,
        expires_us: TIME_US + 900_000_000,
        uses: 3,
        amount: Some(v1::Amount {
            minor_units: 12_900,
            currency: "EUR".into(),
        }),
        parent: bytes(0xae, 32),
        outside_token: Some(v1::OutsideToken {
            kind: "txn".into(),
            value: "97053963-771d-49cc-a4e3-20aad399c312".into(),
            key_thumbprint: bytes(0xaf, 32),
        }),
        gateways: vec!["https://example.org/gateway".into()],
    }))
}

/// The least that a grant can say, as an authority gives it.
pub(crate) fn grant_root() -> v1::Statement {
    trust(Body::Grant(v1::Grant {
        subject: "spiffe://example.org/agent/refunds".into(),
        actions: vec!["payments.refund".into()],
        resources: vec!["https://shop.example/*".into()],
        expires_us: TIME_US + 3_600_000_000,
        ..v1::Grant::default()
    }))
}

pub(crate) fn grant_accepted() -> v1::Statement {
    statement(Body::GrantAccepted(v1::GrantAccepted {
        grant: bytes(0xaa, 32),
    }))
}

pub(crate) fn decision() -> v1::Statement {
    statement(Body::Decision(v1::Decision {
        intent: leaf_ref(300),
        verdict: v1::Verdict::Allow.into(),
        engine: "opa 1.8".into(),
        policy_version: "refunds-2026-02".into(),
        policy_digest: bytes(0xb2, 32),
        reason: "Below the limit of the customer's country.".into(),
    }))
}

pub(crate) fn approval() -> v1::Statement {
    statement(Body::Approval(v1::Approval {
        intent: leaf_ref(300),
        verdict: v1::Verdict::Deny.into(),
        shown: Some(commitment_of("approval.shown")),
        shown_at_us: TIME_US,
        opened_at_us: TIME_US + 4_000_000,
        decided_at_us: TIME_US + 61_000_000,
        strength: v1::AuthenticationStrength::PhishingResistant.into(),
        rationale: "The parcel is on its way.\nAsk again on Monday.".into(),
        assertion: Some(v1::Assertion {
            format: "webauthn".into(),
            data: bytes(0xb6, 48),
        }),
    }))
}

pub(crate) fn observation() -> v1::Statement {
    statement(Body::Observation(v1::Observation {
        intent: leaf_ref(300),
        effects: ["R-1", "R-2"].map(effect).into(),
        reference: "evt_4711".into(),
        observed_at_us: TIME_US + 90_000_000,
    }))
}

/// An entry of the ledger.
fn leaf_ref(leaf_index: u64) -> Option<v1::LeafRef> {
    Some(v1::LeafRef {
        leaf_index,
        leaf_hash: bytes(leaf_index as u8, 32),
    })
}

/// A statement of the ledger itself: it has less of a header.
pub(crate) fn by_ledger(task: Bytes, body: Body) -> v1::Statement {
    v1::Statement {
        ledger_id: bytes(0x11, 32),
        producer: statement::LEDGER_PRODUCER.into(),
        occurred_at_us: TIME_US,
        task,
        body: Some(body),
        ..v1::Statement::default()
    }
}

pub(crate) fn tick() -> v1::Statement {
    let due_us = TIME_US - 250_000;
    by_ledger(
        Bytes::new(),
        Body::Tick(v1::Tick {
            due_us,
            clock_us: 0,
        }),
    )
}

pub(crate) fn clearance() -> v1::Statement {
    let evidence = [301, 303, 900].map(leaf_ref);
    by_ledger(
        bytes(0x77, 16),
        Body::Clearance(v1::Clearance {
            intent: leaf_ref(300),
            policy_leaf: 200,
            evidence: evidence.into_iter().flatten().collect(),
        }),
    )
}

pub(crate) fn task_receipt() -> v1::Statement {
    by_ledger(
        bytes(0x77, 16),
        Body::TaskReceipt(v1::TaskReceipt {
            through_leaf: 900,
            count: 12,
            digest: bytes(0xb3, 32),
            trust_head: leaf_ref(200),
            assessment_digest: bytes(0xb4, 32),
            requested: true,
        }),
    )
}

pub(crate) fn task_closed() -> v1::Statement {
    statement(Body::TaskClosed(v1::TaskClosed {
        end: v1::TaskEnd::HandedOver.into(),
        reason: "The order is older than the refund period.".into(),
    }))
}

pub(crate) fn intent() -> v1::Statement {
    statement(Body::Intent(v1::Intent {
        action: "payments.refund".into(),
        resource: "https://shop.example/orders/4711".into(),
        amount: amount(),
        grant: bytes(0xaa, 32),
        deadline_us: TIME_US + 60_000_000,
        arguments: Some(commitment_of("intent.arguments")),
        prompt: Some(commitment_of("intent.prompt")),
        model: "model-large-2026-01".into(),
        system_prompt_digest: bytes(0xab, 32),
        tool_manifest_digest: bytes(0xac, 32),
        tool_call_id: "call_0123456789".into(),
        ..v1::Intent::default()
    }))
}

pub(crate) fn outcome() -> v1::Statement {
    statement(Body::Outcome(v1::Outcome {
        intent: Some(v1::StatementRef {
            session: bytes(0x56, 16),
            sequence: 300,
            payload_digest: bytes(0x23, 32),
        }),
        status: v1::OutcomeStatus::Succeeded.into(),
        effects: ["R-1", "R-2", "R-3", "R-4"].map(effect).into(),
        tool_call: Some(commitment_of("outcome.tool_call")),
        response: Some(commitment_of("outcome.response")),
        result: Some(commitment_of("outcome.result")),
        arguments: None,
    }))
}

/// With the field that came later, too: a copy of the Intent's.
pub(crate) fn outcome_with_arguments() -> v1::Statement {
    let mut statement = outcome();
    if let Some(Body::Outcome(outcome)) = &mut statement.body {
        outcome.arguments = Some(commitment_of("intent.arguments"));
    }
    statement
}

pub(crate) fn heartbeat() -> v1::Statement {
    statement(Body::Heartbeat(v1::Heartbeat {
        last_sequence: 7,
        count: 6,
        next_within_us: 0,
    }))
}

/// With the field that came later, too.
pub(crate) fn heartbeat_with_promise() -> v1::Statement {
    let mut statement = heartbeat();
    if let Some(Body::Heartbeat(heartbeat)) = &mut statement.body {
        heartbeat.next_within_us = 30_000_000;
    }
    statement
}

pub(crate) fn session_closed() -> v1::Statement {
    statement(Body::SessionClosed(v1::SessionClosed {
        last_sequence: 7,
        count: 6,
    }))
}

pub(crate) fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// The ledger that the fixtures' statements are for.
pub(crate) const LEDGER: LedgerId = LedgerId::new(deed_tlog::Hash::new([0x11; 32]));

/// An authority's statement with every field of the header.
pub(crate) fn trust(body: Body) -> v1::Statement {
    v1::Statement {
        producer: statement::AUTHORITY_PRODUCER.into(),
        ..self::statement(body)
    }
}

pub(crate) fn authorities_changed() -> v1::Statement {
    let mut keys = [public_key(3), public_key(6)];
    keys.sort_unstable();
    let key = |key: [u8; 32]| v1::AuthorityKey {
        public_key: key.to_vec().into(),
    };
    trust(Body::AuthoritiesChanged(v1::AuthoritiesChanged {
        authority_keys: keys.map(key).into(),
        reason: "Yearly rotation.".into(),
    }))
}

pub(crate) fn key_registered() -> v1::Statement {
    let key = signing_key(5);
    let possession = Possession {
        ledger_id: LEDGER,
        public_key: key.public_key().as_bytes(),
        role: v1::KeyRole::Agent,
        producer: "spiffe://example.org/agent/refunds",
        controller: "https://example.org/teams/payments",
    };
    trust(Body::KeyRegistered(v1::KeyRegistered {
        public_key: key.public_key().as_bytes().to_vec().into(),
        role: possession.role.into(),
        producer: possession.producer.into(),
        controller: possession.controller.into(),
        valid_from_us: TIME_US + 1_000_000,
        valid_until_us: TIME_US + 31_536_000_000_000,
        possession: possession.sign(&key).to_vec().into(),
        acts_for: vec![
            "spiffe://example.org/agent/mail".into(),
            "spiffe://example.org/agent/payouts".into(),
        ],
        resources: Vec::new(),
    }))
}

pub(crate) fn key_revoked() -> v1::Statement {
    let key_id = signature::key_id(signing_key(5).public_key());
    trust(Body::KeyRevoked(v1::KeyRevoked {
        key_id: key_id.as_bytes().to_vec().into(),
        compromised_since_us: Some(0),
        reason: "The host was taken over.".into(),
    }))
}

pub(crate) fn principal_bound() -> v1::Statement {
    trust(Body::PrincipalBound(v1::PrincipalBound {
        principal: "CN=gateway 1, O=Example Ä".into(),
        producer: "spiffe://example.org/agent/refunds".into(),
        valid_until_us: TIME_US + 86_400_000_000,
    }))
}

/// Not a trust statement, but an authority's.
pub(crate) fn revocation() -> v1::Statement {
    trust(Body::Revocation(v1::Revocation {
        grant: bytes(0xaa, 32),
        reason: "The campaign is over.".into(),
    }))
}

/// Not a trust statement, but an authority's.
pub(crate) fn finding_disposition() -> v1::Statement {
    trust(Body::FindingDisposition(v1::FindingDisposition {
        leaf_index: 900,
        number: 2,
        kind: v1::DispositionKind::Explained.into(),
        reviewed_by: "https://crm.example/agents/12".into(),
        reason: "The clock of the gateway was wrong.".into(),
    }))
}

pub(crate) const POLICIES: &str = "permit(principal, action, resource);\n";

pub(crate) const SCHEMA: &str = "entity Agent;
entity Resource;
action \"any\" appliesTo { principal: Agent, resource: Resource };
";

pub(crate) fn policy_set() -> v1::Statement {
    let length = (POLICIES.len() as u64).to_be_bytes();
    let digest = [&length, POLICIES.as_bytes(), SCHEMA.as_bytes()].concat();
    trust(Body::PolicySet(v1::PolicySet {
        policies: POLICIES.into(),
        schema: SCHEMA.into(),
        digest: PayloadDigest::of(&digest).as_bytes().to_vec().into(),
        cedar_version: "4.5".into(),
        rules_version: 2,
        reason: "To begin with.".into(),
    }))
}

pub(crate) fn retention_set() -> v1::Statement {
    trust(Body::RetentionSet(v1::RetentionSet {
        floor_us: 15_552_000_000_000,
        reason: "EU AI Act, article 26(6).".into(),
    }))
}

pub(crate) fn legal_hold_placed() -> v1::Statement {
    trust(Body::LegalHoldPlaced(v1::LegalHoldPlaced {
        hold: bytes(0x1d, 16),
        scope: Some(v1::legal_hold_placed::Scope::Task(bytes(0x77, 16))),
        reason: "Case 12/2026.".into(),
    }))
}

pub(crate) fn legal_hold_placed_on_content() -> v1::Statement {
    let mut statement = legal_hold_placed();
    if let Some(Body::LegalHoldPlaced(placed)) = &mut statement.body {
        let scope = v1::legal_hold_placed::Scope::Commitment(bytes(0xc0, 32));
        placed.scope = Some(scope);
    }
    statement
}

pub(crate) fn legal_hold_released() -> v1::Statement {
    trust(Body::LegalHoldReleased(v1::LegalHoldReleased {
        hold: bytes(0x1d, 16),
        reason: "Settled.".into(),
    }))
}

/// A log key of the fixtures' ledger, another one for each seed.
pub(crate) fn log_signer(seed: u8) -> deed_tlog::NoteSigner {
    let name: deed_tlog::KeyName = "deed.example/logs/refunds".parse().unwrap();
    deed_tlog::NoteSigner::from_seed(name, &[seed; 32])
}

pub(crate) fn log_key_rotated() -> v1::Statement {
    trust(Body::LogKeyRotated(v1::LogKeyRotated {
        log_key: Some(v1::LogKey {
            vkey: log_signer(9).verifier_key().to_string(),
        }),
        reason: "The server's disk was sold.".into(),
    }))
}

pub(crate) fn erasure() -> v1::Statement {
    trust(Body::Erasure(v1::Erasure {
        commitments: vec![bytes(0xc0, 32), bytes(0xc1, 32), bytes(0xff, 32)],
        requested_by: "https://crm.example/customers/7".into(),
        reason: "The customer asked for it.".into(),
        legal_basis: "GDPR Art. 17(1)(b)".into(),
    }))
}

/// The manifest over three statements.
pub(crate) fn manifest() -> batch::Manifest {
    batch::Manifest::over(&batch_payloads()).unwrap()
}

/// Three statements that lie behind each other in one session.
pub(crate) fn batch_payloads() -> Vec<Bytes> {
    let mut payloads: Vec<Bytes> = Vec::new();
    for (position, mut made) in [intent(), outcome(), task_closed()].into_iter().enumerate() {
        made.sequence = 7 + position as u64;
        if let Some(before) = payloads.last() {
            made.skipped_from = None;
            let digest = PayloadDigest::of(before);
            made.previous = digest.as_bytes().to_vec().into();
        }
        payloads.push(statement::encode(&made).unwrap());
    }
    payloads
}

/// A ledger that assesses its entries from the beginning.
pub(crate) fn genesis_of_rules_2() -> Genesis {
    Genesis {
        rules_version: 2,
        ..genesis()
    }
}

/// The statement in [`genesis`]'s entry.
pub(crate) fn genesis_statement() -> v1::Statement {
    statement_of(&genesis())
}

fn statement_of(genesis: &Genesis) -> v1::Statement {
    let entry = genesis.to_entry().unwrap();
    let entry = deed_evidence::entry::Entry::parse(&entry).unwrap();
    prost::Message::decode(entry.payload).unwrap()
}

/// Every statement with its name.
pub(crate) fn all() -> Vec<(&'static str, v1::Statement)> {
    vec![
        ("genesis", genesis_statement()),
        ("genesis-rules-2", statement_of(&genesis_of_rules_2())),
        ("tick", tick()),
        ("clearance", clearance()),
        ("task_receipt", task_receipt()),
        ("task_opened", task_opened()),
        ("task_opened-commitment", task_opened_committed()),
        ("task_opened-nonce", task_opened_certified()),
        ("task_closed", task_closed()),
        ("grant", grant()),
        ("grant-root", grant_root()),
        ("grant_accepted", grant_accepted()),
        ("intent", intent()),
        ("outcome", outcome()),
        ("outcome-arguments", outcome_with_arguments()),
        ("decision", decision()),
        ("approval", approval()),
        ("observation", observation()),
        ("heartbeat", heartbeat()),
        ("heartbeat-next", heartbeat_with_promise()),
        ("session_closed", session_closed()),
        ("revocation", revocation()),
        ("finding_disposition", finding_disposition()),
        ("authorities_changed", authorities_changed()),
        ("key_registered", key_registered()),
        ("key_revoked", key_revoked()),
        ("principal_bound", principal_bound()),
        ("policy_set", policy_set()),
        ("retention_set", retention_set()),
        ("legal_hold_placed", legal_hold_placed()),
        (
            "legal_hold_placed-commitment",
            legal_hold_placed_on_content(),
        ),
        ("legal_hold_released", legal_hold_released()),
        ("log_key_rotated", log_key_rotated()),
        ("erasure", erasure()),
    ]
}
