//! One statement of each body with every field set, and a ledger to say it in. The golden files
//! are made of these: they never change.

use bytes::Bytes;
use deed_evidence::{
    LedgerId, Micros, PayloadDigest, batch, commitment,
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
        body: Some(body),
    }
}

pub(crate) fn task_opened() -> v1::Statement {
    statement(Body::TaskOpened(v1::TaskOpened {
        objective: Some(v1::task_opened::Objective::ObjectiveText(
            "Refund order 4711.\nThen tell the customer.".into(),
        )),
        requested_by: "https://crm.example/agents/12".into(),
        risk_tier: v1::RiskTier::Payment.into(),
        deadline_us: TIME_US + 3_600_000_000,
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
    }))
}

pub(crate) fn heartbeat() -> v1::Statement {
    statement(Body::Heartbeat(v1::Heartbeat {
        last_sequence: 7,
        count: 6,
    }))
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

/// A trust statement with every field of the header.
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

/// The statement in [`genesis`]'s entry.
pub(crate) fn genesis_statement() -> v1::Statement {
    let entry = genesis().to_entry().unwrap();
    let entry = deed_evidence::entry::Entry::parse(&entry).unwrap();
    prost::Message::decode(entry.payload).unwrap()
}

/// Every statement with its name.
pub(crate) fn all() -> Vec<(&'static str, v1::Statement)> {
    vec![
        ("genesis", genesis_statement()),
        ("task_opened", task_opened()),
        ("task_opened-commitment", task_opened_committed()),
        ("task_closed", task_closed()),
        ("intent", intent()),
        ("outcome", outcome()),
        ("heartbeat", heartbeat()),
        ("session_closed", session_closed()),
        ("authorities_changed", authorities_changed()),
        ("key_registered", key_registered()),
        ("key_revoked", key_revoked()),
        ("principal_bound", principal_bound()),
        ("retention_set", retention_set()),
        ("legal_hold_placed", legal_hold_placed()),
        (
            "legal_hold_placed-commitment",
            legal_hold_placed_on_content(),
        ),
        ("legal_hold_released", legal_hold_released()),
        ("erasure", erasure()),
    ]
}
