//! The report of a task of every kind of statement, as a terminal shows it.

use std::sync::OnceLock;

use bytes::Bytes;
use deed_client::{Header, Session, SignedHead};
use deed_evidence::{
    LedgerId, Nonce, TaskId,
    entry::{Entry, KeyedSignature},
    statement::{AUTHORITY_PRODUCER, LEDGER_PRODUCER},
};
use deed_proto::v1::{
    AuthenticationStrength, Author, EvidencePart, FindingKind, IntentState, OutcomeStatus,
    RiskTier, Severity, TaskEnd, Verdict, statement::Body,
};
use deed_tlog::{Hash, LeafIndex, TreeHead, TreeSize};

use super::super::check::Signatures;
use super::*;
use deed_evidence::replay::task::{Receipted, Unshown};

const TASK: TaskId = TaskId::new([7; 16]);
const AGENT: &str = "spiffe://example.org/shop/agents/refunds";
const HELPER: &str = "spiffe://example.org/shop/agents/helper";
/// 2026-11-24T01:57:00Z.
const BEGIN_US: i64 = 1_795_485_420_000_000;

struct TaskFixture {
    entries: Vec<ProvenStatement>,
}

impl TaskFixture {
    /// Adds a statement at a leaf, one minute a leaf after the beginning.
    fn say(&mut self, leaf: u64, author: Author, producer: &str, body: Body) -> Bytes {
        let ledger_id = LedgerId::new(Hash::new([1; 32]));
        let nonce = Nonce::new([u8::try_from(leaf).unwrap(); 16]);
        let mut session = Session::with_nonce(ledger_id, producer, nonce);
        let at = Micros::new(BEGIN_US + 60_000_000 * i64::try_from(leaf).unwrap());
        let header = Header {
            task: Some(TASK),
            occurred_at: at,
            ..Header::default()
        };
        let (payload, statement) = if author == Author::Ledger {
            // No session makes these.
            let statement = v1::Statement {
                producer: LEDGER_PRODUCER.to_owned(),
                task: Bytes::copy_from_slice(TASK.as_bytes()),
                body: Some(body),
                ..v1::Statement::default()
            };
            (Bytes::from_static(b"ledger"), statement)
        } else {
            let made = session.make(&header, body).unwrap();
            let statement = deed_evidence::statement::decode(&made.payload).unwrap();
            (made.payload, statement)
        };
        let (key_id, signature) = ([0xab; 16], [0; 64]);
        let signature = KeyedSignature {
            key_id: &key_id,
            signature: &signature,
        };
        let entry = match author {
            Author::Signed => Entry::signed(&payload, signature, at),
            _ => Entry::unsigned(&payload, at),
        };
        let bytes = entry.encode();
        let hash = deed_tlog::leaf_hash(&bytes);
        self.entries.push(ProvenStatement {
            index: LeafIndex::new(leaf),
            hash,
            entry: bytes,
            author,
            key_id: entry.signature.map(|signature| signature.key()),
            received_at: at,
            statement,
        });
        Bytes::copy_from_slice(hash.as_bytes())
    }
}

fn amount() -> Option<v1::Amount> {
    Some(v1::Amount {
        minor_units: 1_999,
        currency: "EUR".to_owned(),
    })
}

fn grant(subject: &str, parent: Bytes) -> Body {
    Body::Grant(v1::Grant {
        subject: subject.to_owned(),
        actions: vec!["payments.refund".to_owned()],
        resources: vec!["order/*".to_owned()],
        expires_us: BEGIN_US + 3_600_000_000,
        uses: 3,
        parent,
        ..v1::Grant::default()
    })
}

fn effects() -> Vec<v1::Effect> {
    vec![v1::Effect {
        kind: "payment.refunded".to_owned(),
        resource: "order/7".to_owned(),
        external_id: "re_1".to_owned(),
        amount: amount(),
        ..v1::Effect::default()
    }]
}

fn leaf_ref(leaf: u64, hash: &Bytes) -> Option<v1::LeafRef> {
    Some(v1::LeafRef {
        leaf_index: leaf,
        leaf_hash: hash.clone(),
    })
}

fn opened() -> Body {
    Body::TaskOpened(v1::TaskOpened {
        objective: Some(Objective::ObjectiveText(
            "Refund order 7, which arrived broken, and tell the customer that the money is on \
             its way"
                .to_owned(),
        )),
        requested_by: "ticket:4711".to_owned(),
        risk_tier: RiskTier::Payment.into(),
        ..v1::TaskOpened::default()
    })
}

fn intent(grant: Bytes) -> Body {
    Body::Intent(v1::Intent {
        action: "payments.refund".to_owned(),
        resource: "order/7".to_owned(),
        amount: amount(),
        grant,
        model: "gpt-4o".to_owned(),
        ..v1::Intent::default()
    })
}

fn approval(intent: Option<v1::LeafRef>) -> Body {
    Body::Approval(v1::Approval {
        intent,
        verdict: Verdict::Allow.into(),
        shown: Some(v1::Commitment {
            digest: Bytes::from_static(&[9; 32]),
            media_type: "text/plain".to_owned(),
        }),
        shown_at_us: BEGIN_US,
        opened_at_us: BEGIN_US,
        decided_at_us: BEGIN_US,
        strength: AuthenticationStrength::MultiFactor.into(),
        rationale: String::new(),
        assertion: None,
    })
}

/// The statements of a task with their authors.
fn statements() -> Vec<ProvenStatement> {
    let mut told = TaskFixture {
        entries: Vec::new(),
    };
    told.say(1, Author::Signed, AUTHORITY_PRODUCER, opened());
    let root = told.say(
        2,
        Author::Signed,
        AUTHORITY_PRODUCER,
        grant(AGENT, Bytes::new()),
    );
    let passed_on = told.say(3, Author::Signed, AGENT, grant(HELPER, root));
    let accepted = Body::GrantAccepted(v1::GrantAccepted {
        grant: passed_on.clone(),
    });
    told.say(4, Author::Batched, HELPER, accepted);
    told.say(5, Author::Unsigned, AGENT, intent(Bytes::new()));
    let hash = told.say(6, Author::Batched, HELPER, intent(passed_on));
    let decision = Body::Decision(v1::Decision {
        intent: leaf_ref(6, &hash),
        verdict: Verdict::Allow.into(),
        engine: "opa".to_owned(),
        ..v1::Decision::default()
    });
    told.say(7, Author::Signed, "https://policy.example.org", decision);
    told.say(
        8,
        Author::Signed,
        "https://example.org/approvers/1",
        approval(leaf_ref(6, &hash)),
    );
    let clearance = Body::Clearance(v1::Clearance {
        intent: leaf_ref(6, &hash),
        ..v1::Clearance::default()
    });
    told.say(9, Author::Ledger, LEDGER_PRODUCER, clearance);
    let outcome = Body::Outcome(v1::Outcome {
        intent: Some(v1::StatementRef {
            session: Bytes::from_static(&[6; 16]),
            sequence: 0,
            payload_digest: Bytes::from_static(&[3; 32]),
        }),
        status: OutcomeStatus::Succeeded.into(),
        effects: effects(),
        ..v1::Outcome::default()
    });
    told.say(10, Author::Batched, HELPER, outcome);
    let observation = Body::Observation(v1::Observation {
        intent: leaf_ref(6, &hash),
        effects: effects(),
        ..v1::Observation::default()
    });
    told.say(12, Author::Signed, "https://bank.example.org", observation);
    let closed = Body::TaskClosed(v1::TaskClosed {
        end: TaskEnd::Completed.into(),
        reason: String::new(),
    });
    told.say(13, Author::Signed, AUTHORITY_PRODUCER, closed);
    let receipt = Body::TaskReceipt(v1::TaskReceipt {
        through_leaf: 13,
        count: 12,
        ..v1::TaskReceipt::default()
    });
    told.say(14, Author::Ledger, LEDGER_PRODUCER, receipt);
    told.entries
}

fn layers(word: LayerState, corroboration: LayerState) -> Option<v1::Layers> {
    Some(v1::Layers {
        identity: word.into(),
        authority: word.into(),
        intent: word.into(),
        approval: word.into(),
        result: word.into(),
        corroboration: corroboration.into(),
    })
}

fn grants(entries: &[ProvenStatement]) -> Vec<v1::GrantInfo> {
    let info = |at: usize, accepted_leaf| v1::GrantInfo {
        leaf_index: entries[at].index.get(),
        leaf_hash: Bytes::copy_from_slice(entries[at].hash.as_bytes()),
        state: v1::GrantState::TaskClosed.into(),
        accepted_leaf,
        rooted: LayerState::Proven.into(),
        ..v1::GrantInfo::default()
    };
    vec![info(1, None), info(2, Some(4))]
}

fn told() -> ProvenTask {
    let entries = statements();
    let finding = |number, kind: FindingKind, severity: Severity, detail: &str| v1::Finding {
        leaf_index: 5,
        number,
        kind: kind.into(),
        severity: severity.into(),
        about_leaf: 5,
        detail: detail.to_owned(),
        ..v1::Finding::default()
    };
    ProvenTask {
        info: v1::TaskInfo {
            task: Bytes::copy_from_slice(TASK.as_bytes()),
            state: TaskState::Closed.into(),
            opened_leaf: Some(1),
            closed_leaf: Some(13),
            closed_at_us: BEGIN_US + 780_000_000,
            count: 13,
            digest: Bytes::from_static(&[0xcd; 32]),
            receipt_leaf: Some(14),
            risk_tier: RiskTier::Payment.into(),
            opened: LayerState::Proven.into(),
            last_leaf: 14,
            ..v1::TaskInfo::default()
        },
        grants: grants(&entries),
        acts: vec![
            v1::ActInfo {
                intent_leaf: 5,
                state: IntentState::Denied.into(),
                denied: vec!["no grant".to_owned()],
                layers: layers(LayerState::Missing, LayerState::NotAsked),
                ..v1::ActInfo::default()
            },
            v1::ActInfo {
                intent_leaf: 6,
                state: IntentState::Completed.into(),
                grant_leaf: Some(3),
                clearance_leaf: Some(9),
                evidence_leaves: vec![7, 8],
                outcome_leaf: Some(10),
                outcome: v1::OutcomeState::Corroborated.into(),
                observation_leaves: vec![12],
                layers: layers(LayerState::Proven, LayerState::Contradicted),
                keys: vec![v1::ReliedKey {
                    leaf_index: 12,
                    part: EvidencePart::Observation.into(),
                    doubtful: true,
                    ..v1::ReliedKey::default()
                }],
                ..v1::ActInfo::default()
            },
        ],
        findings: vec![
            finding(
                0,
                FindingKind::UnknownGrant,
                Severity::Serious,
                "the Intent names no grant",
            ),
            v1::Finding {
                about_leaf: 6,
                contradicts_leaf: Some(8),
                disposition_leaf: Some(21),
                disposition: v1::DispositionKind::Explained.into(),
                ..finding(
                    1,
                    FindingKind::HastyApproval,
                    Severity::Notice,
                    "decided\u{1b}[2K in 0 s",
                )
            },
        ],
        entries,
        head: SignedHead {
            head: TreeHead::new(TreeSize::new(22), Hash::new([4; 32])),
            note: Bytes::new(),
        },
    }
}

fn checked(task: ProvenTask) -> Checked {
    Checked {
        task,
        basis: Basis::Checked,
        signatures: Signatures {
            verified: 7,
            batched: 3,
            unsigned: 1,
            ledgers: 2,
            unchecked: 0,
        },
        receipted: Some(Receipted {
            leaf: 14,
            through_leaf: 13,
            count: 12,
            same_assessment: true,
        }),
        alarms: Vec::new(),
        by_word: vec![
            Unshown::Trust { leaf: 0 }.to_string(),
            Unshown::Outside.to_string(),
        ],
    }
}

#[test]
fn the_story_of_a_task() {
    let report = draw(&checked(told_once().clone()));
    let golden = include_str!("../../../tests/data/task_story.txt");
    assert_eq!(format!("{report}\n"), golden, "\n{report}\n");
}

#[test]
fn it_stays_within_80_columns_and_draws_nothing_else() {
    let mut task = told_once().clone();
    for entry in &mut task.entries {
        entry.statement.producer = format!("spiffe://{}\u{1b}[31m", "x".repeat(400));
    }
    let doubtful = Checked {
        basis: Basis::ServersWord,
        receipted: None,
        ..checked(task.clone())
    };
    for report in [
        draw(&checked(told_once().clone())),
        draw(&checked(task)),
        draw(&doubtful),
    ] {
        assert!(
            report.lines().all(|line| line.chars().count() <= 80),
            "{report}"
        );
        assert!(report.lines().all(|line| !line.contains(char::is_control)));
        assert!(
            report.lines().all(|line| line.trim_end() == line),
            "{report}"
        );
    }
}

fn told_once() -> &'static ProvenTask {
    static TOLD: OnceLock<ProvenTask> = OnceLock::new();
    TOLD.get_or_init(told)
}
