//! Statements as producers and authorities make them, and results in short.

use std::sync::Arc;

use bytes::Bytes;
use deed_evidence::{
    LedgerId, Micros, Nonce, PayloadDigest, SessionId, TaskId,
    genesis::Genesis,
    policy::{self, CEDAR_VERSION, DEFAULT_SCHEMA},
    signature, statement,
    trust::TrustState as Trust,
};
use deed_proto::v1::{self, append_result::Result as Outcome, statement::Body};
use deed_tlog::SigningKey;
use parking_lot::{Mutex, RwLock};
use tracing::Dispatch;

pub use crate::signed::registration;
use crate::signed::{manifest, signed_as};

/// The public key of RFC 8032 section 7.1, test 1.
pub const AUTHORITY_KEY: [u8; 32] = [
    0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a,
    0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
];

/// Returns the private key of that test.
pub fn authority() -> SigningKey {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let mut bytes = [0; 32];
    hex::decode_to_slice(seed, &mut bytes).expect("64 hex digits");
    SigningKey::from_seed(&bytes)
}

/// Returns evidence policies under the default schema.
pub fn policy_set(policies: &str) -> v1::PolicySet {
    v1::PolicySet {
        policies: policies.to_owned(),
        schema: DEFAULT_SCHEMA.to_owned(),
        digest: policy::digest(policies, DEFAULT_SCHEMA).to_vec().into(),
        cedar_version: CEDAR_VERSION.to_owned(),
        rules_version: 2,
        reason: String::new(),
    }
}

/// A genesis entry with that authority, its ledger's id, and the trust state after it.
pub fn genesis() -> (Bytes, LedgerId, Arc<RwLock<Trust>>) {
    let origin = "example.org/logs/by-hand";
    let name = deed_tlog::KeyName::new(origin).expect("a key name");
    let genesis = Genesis {
        origin: origin.parse().expect("an origin"),
        log_key: deed_tlog::NoteSigner::from_seed(name, &[7; 32])
            .verifier_key()
            .clone(),
        authority_keys: vec![AUTHORITY_KEY],
        created_at: Micros::new(1),
        nonce: [5; 32],
        rules_version: deed_evidence::RULES_VERSION,
    };
    let entry = genesis.to_entry().expect("a valid genesis");
    let id = LedgerId::new(deed_tlog::leaf_hash(&entry));
    let trust = Trust::genesis(id, &genesis);
    (entry, id, Arc::new(RwLock::new(trust)))
}

/// The producer of the tests, unless they choose another.
pub const AGENT: &str = "spiffe://example.org/agent";

/// Returns the session that a producer derives from this number.
pub fn session_of(ledger_id: LedgerId, producer: &str, session: u8) -> SessionId {
    SessionId::derive(ledger_id, producer, &Nonce::new([session; 16]))
}

/// Returns the task that a producer opens under this number.
pub fn task_of(ledger_id: LedgerId, producer: &str, task: u8) -> TaskId {
    TaskId::derive(ledger_id, producer, &Nonce::new([task; 16]))
}

/// Number of the task that a [`Producer`]'s statements belong to.
pub const TASK: u8 = 9;

/// A session of statements, as its producer makes them.
#[derive(Clone)]
pub struct Producer {
    /// The ledger that its statements are for.
    pub ledger_id: LedgerId,
    /// The producer's name.
    pub producer: String,
    /// Task of the statements; an authority's belong to none.
    pub task: TaskId,
    /// The session of another producer, to use in place of its own.
    pub intrudes: Option<SessionId>,
    session: u8,
    /// The next sequence.
    pub next: u64,
    /// The digest of the statement before.
    pub previous: Option<PayloadDigest>,
}

impl Producer {
    /// A producer that begins the session of this number.
    pub fn new(ledger_id: LedgerId, session: u8) -> Self {
        Self {
            ledger_id,
            producer: AGENT.to_owned(),
            task: task_of(ledger_id, AGENT, TASK),
            intrudes: None,
            session,
            next: 0,
            previous: None,
        }
    }

    /// The session that its statements are of.
    pub fn session(&self) -> SessionId {
        let own = || session_of(self.ledger_id, &self.producer, self.session);
        self.intrudes.unwrap_or_else(own)
    }

    fn envelope(&mut self, skipped_from: Option<u64>, chained: bool, body: Body) -> v1::Envelope {
        let previous = self.previous.filter(|_| chained);
        self.statement(|statement| {
            if let Some(digest) = previous {
                statement.previous = Bytes::copy_from_slice(digest.as_bytes());
            }
            statement.skipped_from = skipped_from;
            statement.body = Some(body);
        })
    }

    /// Makes the next statement. `fill` sets everything but its place in the session.
    pub fn statement(&mut self, fill: impl FnOnce(&mut v1::Statement)) -> v1::Envelope {
        let mut statement = v1::Statement {
            ledger_id: Bytes::copy_from_slice(self.ledger_id.as_bytes()),
            producer: self.producer.clone(),
            session: Bytes::copy_from_slice(self.session().as_bytes()),
            sequence: self.next,
            task: if self.producer.starts_with("deed:") {
                Bytes::new()
            } else {
                Bytes::copy_from_slice(self.task.as_bytes())
            },
            ..v1::Statement::default()
        };
        fill(&mut statement);
        let is_first = statement.sequence == 0 || statement.skipped_from == Some(0);
        if is_first && self.intrudes.is_none() {
            statement.nonce = vec![self.session; 16].into();
        }
        let payload = statement::encode(&statement).expect("a valid statement");
        self.next += 1;
        self.previous = Some(PayloadDigest::of(&payload));
        v1::Envelope {
            payload_type: v1::PayloadType::Statement.into(),
            payload,
            ..v1::Envelope::default()
        }
    }

    /// Makes a statement that opens the task of this number.
    pub fn opens(&mut self, task: u8, opened: v1::TaskOpened) -> v1::Envelope {
        let id = task_of(self.ledger_id, &self.producer, task);
        self.statement(|statement| {
            statement.task = Bytes::copy_from_slice(id.as_bytes());
            statement.body = Some(Body::TaskOpened(v1::TaskOpened {
                nonce: vec![task; 16].into(),
                ..opened
            }));
        })
    }

    /// An Intent to act on a resource.
    pub fn intent(&mut self, resource: &str) -> v1::Envelope {
        self.envelope(None, false, intent(resource))
    }

    /// The same, which names the digest of the statement before it.
    pub fn chained_intent(&mut self, resource: &str) -> v1::Envelope {
        self.envelope(None, true, intent(resource))
    }

    /// Makes an Intent after `lost` statements that were lost, and declares the gap.
    pub fn intent_after_gap(&mut self, lost: u64) -> v1::Envelope {
        let from = self.next;
        self.next += lost;
        self.envelope(Some(from), false, intent("after a gap"))
    }

    /// Closes the session.
    pub fn closed(&mut self) -> v1::Envelope {
        let body = v1::SessionClosed {
            last_sequence: self.next,
            count: self.next + 1,
        };
        self.envelope(None, false, Body::SessionClosed(body))
    }
}

/// Signs an envelope's payload.
pub fn signed(envelope: v1::Envelope, key: &SigningKey) -> v1::Envelope {
    v1::Envelope {
        attachments: envelope.attachments.clone(),
        ..signed_as(envelope.payload_type(), &envelope.payload, key)
    }
}

/// Returns a signed batch manifest over some envelopes, followed by them.
pub fn batched(envelopes: Vec<v1::Envelope>, key: &SigningKey) -> Vec<v1::Envelope> {
    let payloads: Vec<_> = envelopes.iter().map(|e| e.payload.clone()).collect();
    let manifest = signed_as(v1::PayloadType::BatchManifest, &manifest(&payloads), key);
    std::iter::once(manifest).chain(envelopes).collect()
}

/// The authority's session.
#[derive(Clone)]
pub struct Authority {
    producer: Producer,
    key: SigningKey,
}

impl Authority {
    /// The authority of [`AUTHORITY_KEY`], at the beginning of its session.
    pub fn new(ledger_id: LedgerId) -> Self {
        let mut producer = Producer::new(ledger_id, 0xa0);
        producer.producer = "deed:authority".to_owned();
        Self {
            producer,
            key: authority(),
        }
    }

    /// The next statement, signed.
    pub fn says(&mut self, body: Body) -> v1::Envelope {
        signed(self.producer.envelope(None, false, body), &self.key)
    }

    /// Makes a statement that opens the task of this number.
    pub fn opens(&mut self, task: u8, opened: v1::TaskOpened) -> v1::Envelope {
        signed(self.producer.opens(task, opened), &self.key)
    }

    /// Makes a statement that registers a key for a producer.
    pub fn registers(&mut self, key: &SigningKey, producer: &str) -> v1::Envelope {
        let body = registration(self.producer.ledger_id, key, producer);
        self.says(Body::KeyRegistered(body))
    }

    /// Revokes a key.
    pub fn revokes(&mut self, key: &SigningKey) -> v1::Envelope {
        let id = signature::key_id(key.public_key());
        self.says(Body::KeyRevoked(v1::KeyRevoked {
            key_id: Bytes::copy_from_slice(id.as_bytes()),
            ..v1::KeyRevoked::default()
        }))
    }
}

fn intent(resource: &str) -> Body {
    Body::Intent(v1::Intent {
        action: "test.act".to_owned(),
        resource: resource.to_owned(),
        ..v1::Intent::default()
    })
}

/// Describes a result in short: `accepted 3`, `duplicate 3`, or the reason of the rejection.
pub fn brief(result: &v1::AppendResult) -> String {
    match &result.result {
        Some(Outcome::Accepted(receipt)) => format!("accepted {}", receipt.leaf_index),
        Some(Outcome::Duplicate(receipt)) => format!("duplicate {}", receipt.leaf_index),
        Some(Outcome::Rejected(rejection)) => rejection.reason().as_str_name().to_owned(),
        None => "nothing".to_owned(),
    }
}

/// Describes all results of an answer in short.
pub fn briefs(response: &v1::AppendResponse) -> Vec<String> {
    response.results.iter().map(brief).collect()
}

/// Runs `act`, and returns the lines that are logged on this thread meanwhile.
pub fn log_of(act: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let observing = observe(subscriber);
    act();
    drop(observing);
    String::from_utf8(log.0.lock().clone()).unwrap()
}

/// Makes `subscriber` the one of this thread until the result is dropped.
///
/// A test uses it in place of `tracing::subscriber::set_default`. While a process has exactly one
/// dispatcher, tracing asks the thread that comes first to a callsite whether anybody wants it, and
/// remembers the answer for all threads; a thread of another test, which has no subscriber, then
/// switches the callsite off. With a second dispatcher alive tracing asks all of them.
pub fn observe(subscriber: impl Into<Dispatch>) -> Observing {
    let second = Dispatch::new(tracing_subscriber::registry());
    Observing {
        _default: tracing::dispatcher::set_default(&subscriber.into()),
        _second: second,
    }
}

/// A thread's subscriber; see [`observe`].
#[must_use = "the subscriber is the thread's until this is dropped"]
pub struct Observing {
    _default: tracing::dispatcher::DefaultGuard,
    _second: Dispatch,
}
