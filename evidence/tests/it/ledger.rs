//! A small ledger to tell stories in: it judges, assesses and records what its cast says, as the
//! server's step does, and keeps every entry for a replay.
//!
//! ```ignore
//! let mut ledger = Ledger::new();               // rules 2, the cast's keys are registered
//! ledger.set_default_policy();                  // optional; without one everything is cleared
//! let task = ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Payment, 0));
//! ledger.at(10);                                // ten seconds later
//! let grant = ledger.say(AUTHORITY, Some(1), grant_to(AGENT));
//! let intent = ledger.say(AGENT, Some(1), intent("refund", "orders/7", Some(grant.hash)));
//! assert_eq!(intent.state(), Some(IntentState::Waiting));
//! ledger.say(ENGINE, Some(1), decision(&intent, Verdict::Allow));
//! ledger.say(APPROVER, Some(1), approval(&intent, Verdict::Allow, ledger.now()));
//! assert_eq!(ledger.act(intent.leaf).state(), IntentState::Cleared);
//! assert!(ledger.has(FindingKind::HastyApproval));
//! ```
//!
//! - [`Ledger::say`] records a statement and panics if it is refused; [`Ledger::try_say`] tells why,
//!   and takes a closure that changes the statement (header or body) before it is signed.
//! - [`Ledger::say_batch`] records a signed batch, [`Ledger::equivocate`] a second statement for a
//!   place, [`Ledger::tick`] and [`Ledger::request_receipt`] what the ledger writes when nothing
//!   else happens.
//! - A task is named by one byte, which its id is derived from ([`Ledger::task_id`]). [`Ledger::at`] sets the seconds after [`TIME_US`] at which the next
//!   entries are received; time never goes back.
//! - [`Ledger::entries`] are the bytes of all leaves; [`Ledger::findings`] what was found;
//!   [`Ledger::task`], [`Ledger::act`], [`Ledger::grant`] what the cells say.
//! - [`Ledger::forgetting`] makes the same ledger with an [`Assessor`] that is thrown away and restored
//!   from the kept cells after every unit.

#![allow(dead_code, reason = "a fixture: not every test file needs all of it")]

#[path = "ledger/bodies.rs"]
mod bodies;
#[path = "ledger/cast.rs"]
mod cast;
#[path = "ledger/kept.rs"]
mod kept;
#[path = "ledger/units.rs"]
mod units;
pub(crate) use bodies::*;
pub(crate) use cast::*;
pub(crate) use kept::Kept;

use bytes::Bytes;
use deed_evidence::{
    KeyId, LedgerId, Micros, Nonce, PayloadDigest, Sequence, SessionId, TaskId,
    assess::{
        Assessed, Assessor, Changes, ImplicitIntent, Owner, RecordedStatement, Timer, View,
        body::ParsedBody,
        cells::{self, CellKey},
    },
    batch::Manifest,
    commitment,
    entry::{Entry, EntryError, KeyedSignature},
    genesis::Genesis,
    policy,
    session::{self, SequencePosition, Session},
    signature::{self, Possession, key_id},
    statement,
    trust::{Speaker, TrustState, TrustStatement},
};
use deed_proto::v1::{
    self, AuthenticationStrength, FindingKind, IntentState, KeyRole, OutcomeStatus, PayloadType,
    RiskTier, TaskEnd, Verdict, statement::Body,
};
use deed_tlog::{Hash, KeyName, LeafIndex, NoteSigner, Origin, SigningKey, leaf_hash};
use prost::Message as _;
use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::LazyLock,
};
/// Receive time of the genesis entry.
pub(crate) const TIME_US: i64 = 1_760_000_000_000_000;
/// The key of one of the cast.
pub(crate) fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}
/// The genesis of every ledger here: authority [`AUTHORITY`], rules 2.
pub(crate) fn genesis() -> Genesis {
    let origin = Origin::new("deed.example/logs/stories").unwrap();
    let log = NoteSigner::from_seed(KeyName::new("deed.example/logs/stories").unwrap(), &[1; 32]);
    Genesis {
        origin,
        log_key: log.verifier_key().clone(),
        authority_keys: vec![*signing_key(2).public_key().as_bytes()],
        created_at: Micros::new(TIME_US),
        nonce: [4; 32],
        rules_version: 2,
    }
}
/// The id of every ledger here.
pub(crate) fn ledger_id() -> LedgerId {
    static ID: LazyLock<LedgerId> = LazyLock::new(|| {
        let entry = genesis().to_entry().unwrap();
        LedgerId::new(leaf_hash(&entry))
    });
    *ID
}
/// Moves a statement to the session that its producer derives from this byte.
pub(crate) fn move_to_session(made: &mut v1::Statement, session: u8) {
    let ledger = LedgerId::new(Hash::try_from(&made.ledger_id[..]).unwrap());
    let nonce = Nonce::new([session; 16]);
    let id = SessionId::derive(ledger, &made.producer, &nonce);
    made.session = Bytes::copy_from_slice(id.as_bytes());
    made.nonce = match made.sequence {
        0 => Bytes::copy_from_slice(nonce.as_bytes()),
        _ => Bytes::new(),
    };
}
/// One of the cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Who {
    /// Of its key; none signs nothing.
    pub(crate) seed: Option<u8>,
    pub(crate) role: KeyRole,
    pub(crate) producer: &'static str,
    pub(crate) controller: &'static str,
}
/// Where a statement was recorded, and what was said of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    pub(crate) leaf: u64,
    pub(crate) hash: Hash,
    pub(crate) payload: Bytes,
    pub(crate) session: SessionId,
    pub(crate) sequence: Sequence,
    pub(crate) assessed: Assessed,
}
impl Place {
    pub(crate) fn leaf_ref(&self) -> v1::LeafRef {
        v1::LeafRef {
            leaf_index: self.leaf,
            leaf_hash: Bytes::copy_from_slice(self.hash.as_bytes()),
        }
    }

    pub(crate) fn statement_ref(&self) -> v1::StatementRef {
        let digest = PayloadDigest::of(&self.payload);
        v1::StatementRef {
            session: Bytes::copy_from_slice(self.session.as_bytes()),
            sequence: self.sequence.get(),
            payload_digest: Bytes::copy_from_slice(digest.as_bytes()),
        }
    }

    /// Where the Intent stood when it was recorded.
    pub(crate) fn state(&self) -> Option<IntentState> {
        self.assessed.intent.as_ref().map(|verdict| verdict.state)
    }

    /// Findings at its leaf.
    pub(crate) fn kinds(&self) -> Vec<FindingKind> {
        let kinds = self.assessed.findings.iter().map(v1::Finding::kind);
        kinds.collect()
    }
}
/// The ledger.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) id: LedgerId,
    pub(crate) trust: TrustState,
    pub(crate) assessor: Assessor,
    pub(crate) kept: Kept,
    entries: Vec<Bytes>,
    sessions: HashMap<SessionId, Session>,
    /// Ids of the tasks that were opened, by whoever did it first.
    tasks: HashMap<u8, TaskId>,
    time: Micros,
    effective: Micros,
    forgets: bool,
}
/// What is refused, with why.
pub(crate) type Refused = String;
impl Ledger {
    /// A ledger with rules 2 in which the cast's keys are registered and no policy is set.
    pub(crate) fn new() -> Self {
        let mut ledger = Self::with_genesis_only();
        ledger.register_cast();
        ledger
    }

    /// The same with an assessor that is restored from what is kept after every unit.
    pub(crate) fn forgetting() -> Self {
        let mut ledger = Self::with_genesis_only();
        ledger.forgets = true;
        ledger.register_cast();
        ledger
    }

    pub(crate) fn with_genesis_only() -> Self {
        let entry = genesis().to_entry().unwrap();
        let (genesis, id) = Genesis::from_entry(&entry).unwrap();
        Self {
            id,
            trust: TrustState::genesis(id, &genesis),
            assessor: Assessor::new(id),
            kept: Kept::default(),
            entries: vec![entry],
            sessions: HashMap::new(),
            tasks: HashMap::new(),
            time: genesis.created_at,
            effective: genesis.created_at,
            forgets: false,
        }
    }

    /// The same ledger once more, with an assessor that is restored from what is kept.
    pub(crate) fn copied(&self, forgets: bool) -> Self {
        Self {
            id: self.id,
            trust: self.trust.clone(),
            assessor: Assessor::restore(self.id),
            kept: self.kept.clone(),
            entries: self.entries.clone(),
            sessions: self.sessions.clone(),
            tasks: self.tasks.clone(),
            time: self.time,
            effective: self.effective,
            forgets,
        }
    }

    fn register_cast(&mut self) {
        for who in CAST {
            self.register(who);
        }
    }

    /// What follows is received so many seconds after [`TIME_US`].
    pub(crate) fn at(&mut self, seconds: i64) {
        self.time = self.time.max(Micros::new(TIME_US + seconds * 1_000_000));
    }

    /// When what follows is received.
    pub(crate) fn now(&self) -> Micros {
        self.time
    }

    pub(crate) fn entries(&self) -> &[Bytes] {
        &self.entries
    }

    pub(crate) fn next_leaf(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn findings(&self) -> impl Iterator<Item = &v1::Finding> {
        self.kept.findings.values()
    }

    /// Whether there is a finding of this kind.
    pub(crate) fn has(&self, kind: FindingKind) -> bool {
        self.findings().any(|finding| finding.kind() == kind)
    }

    pub(crate) fn task(&self, task: u8) -> cells::Task {
        let key = CellKey::Task(self.task_id(task));
        cells::Task::decode(self.kept.cells[&key].clone()).unwrap()
    }

    /// The id of a task: the platform's, unless somebody else opened one of this number.
    pub(crate) fn task_id(&self, task: u8) -> TaskId {
        let opened = self.tasks.get(&task).copied();
        opened.unwrap_or_else(|| PLATFORM.task_id(task))
    }

    pub(crate) fn grant(&self, hash: Hash) -> cells::Grant {
        let bytes = self.kept.cells[&CellKey::Grant(hash)].clone();
        cells::Grant::decode(bytes).unwrap()
    }

    /// What somebody speaks in.
    pub(crate) fn session(&self, who: Who) -> Option<&Session> {
        self.sessions.get(&who.session())
    }

    /// The act of the Intent at this leaf.
    pub(crate) fn act(&self, leaf: u64) -> cells::Act {
        self.kept.act(leaf).unwrap()
    }

    /// Registers a key for one of the cast (or somebody new).
    pub(crate) fn register(&mut self, who: Who) -> Place {
        let body = self.registration(who);
        self.say(AUTHORITY, None, body)
    }

    /// Registers a key, with a registration that is changed by `change`.
    pub(crate) fn register_as(
        &mut self,
        who: Who,
        change: impl FnOnce(&mut v1::KeyRegistered),
    ) -> Place {
        let mut body = self.registration(who);
        if let Body::KeyRegistered(registered) = &mut body {
            change(registered);
        }
        self.say(AUTHORITY, None, body)
    }

    pub(crate) fn registration(&self, who: Who) -> Body {
        let key = signing_key(who.seed.unwrap());
        let possession = Possession {
            ledger_id: self.id,
            public_key: key.public_key().as_bytes(),
            role: who.role,
            producer: who.producer,
            controller: who.controller,
        };
        Body::KeyRegistered(v1::KeyRegistered {
            public_key: key.public_key().as_bytes().to_vec().into(),
            role: who.role.into(),
            producer: who.producer.into(),
            controller: who.controller.into(),
            possession: possession.sign(&key).to_vec().into(),
            resources: who.resources(),
            ..v1::KeyRegistered::default()
        })
    }

    pub(crate) fn set_default_policy(&mut self) -> Place {
        self.set_policy(policy::DEFAULT_POLICIES)
    }

    /// Sets policies under the schema that Deed ships.
    pub(crate) fn set_policy(&mut self, policies: &str) -> Place {
        self.say(AUTHORITY, None, policy_set(policies))
    }

    /// Records a statement that cannot be refused.
    pub(crate) fn say(&mut self, who: Who, task: Option<u8>, body: Body) -> Place {
        self.try_say(who, task, body, |_| {}).unwrap()
    }

    /// Records a statement, changed by `change` before it is signed; or says why it is refused.
    pub(crate) fn try_say(
        &mut self,
        who: Who,
        task: Option<u8>,
        body: Body,
        change: impl FnOnce(&mut v1::Statement),
    ) -> Result<Place, Refused> {
        let mut made = self.statement(who, task, body);
        change(&mut made);
        let payload = statement::encode(&made).map_err(|error| error.to_string())?;
        self.take(who, &payload)
    }

    /// The next statement of somebody's session.
    pub(crate) fn statement(&self, who: Who, task: Option<u8>, mut body: Body) -> v1::Statement {
        // As a chain can be rebuilt from the trust statements alone, they have a session alone.
        let is_trust = matches!(
            body,
            Body::AuthoritiesChanged(_)
                | Body::KeyRegistered(_)
                | Body::KeyRevoked(_)
                | Body::PrincipalBound(_)
                | Body::PolicySet(_)
                | Body::RetentionSet(_)
                | Body::LegalHoldPlaced(_)
                | Body::LegalHoldReleased(_)
                | Body::LogKeyRotated(_)
                | Body::Erasure(_)
        );
        let nonce = if is_trust { 0xaa } else { who.number() };
        let task = match (&mut body, task) {
            (Body::TaskOpened(opened), Some(task)) => {
                opened.nonce = vec![task; 16].into();
                Some(who.task_id(task))
            }
            (_, task) => task.map(|task| self.task_id(task)),
        };
        let mut made = v1::Statement {
            ledger_id: Bytes::copy_from_slice(self.id.as_bytes()),
            producer: who.producer.into(),
            occurred_at_us: self.time.get(),
            task: task.map_or_else(Bytes::new, |task| Bytes::copy_from_slice(task.as_bytes())),
            body: Some(body),
            ..v1::Statement::default()
        };
        move_to_session(&mut made, nonce);
        let session = SessionId::from_slice(&made.session).unwrap();
        made.sequence = self.sessions.get(&session).map_or(0, |s| s.next.get());
        if made.sequence > 0 {
            made.nonce = Bytes::new();
        }
        made
    }

    /// Notes the id of a task that is opened, by its number.
    fn note_task(&mut self, payload: &Bytes) {
        let made = statement::decode(payload).unwrap();
        if let Some(Body::TaskOpened(opened)) = made.body
            && let (Some(&number), Some(id)) =
                (opened.nonce.first(), TaskId::from_slice(&made.task))
        {
            self.tasks.entry(number).or_insert(id);
        }
    }

    /// Judges a payload that one of the cast signs and records it.
    pub(crate) fn take(&mut self, who: Who, payload: &Bytes) -> Result<Place, Refused> {
        let header = statement::parse(payload).map_err(|error| error.to_string())?;
        if header.ledger_id != Some(self.id) {
            return Err("it is for another ledger".to_owned());
        }
        let at = self.effective.max(self.time);
        let speaker = Speaker {
            key: who.key(),
            principal_leaf: None,
        };
        let trust = TrustStatement::parse(payload).map_err(|error| error.to_string())?;
        match (&trust, who.key()) {
            (Some(said), Some(signer)) => self
                .trust
                .judge(said, signer, at)
                .map_err(|refusal| refusal.to_string())?,
            _ => self
                .trust
                .may_speak(&speaker, header.producer, at)
                .map_err(|refusal| refusal.to_string())?,
        }
        let binding = self.trust.session_binding(&speaker);
        let known = self.sessions.get(&header.session);
        let judged = session::judge(known, &header, binding).map_err(|error| error.to_string())?;
        let first = self.kept.places.get(&(header.session, header.sequence));
        let first = match (judged, first) {
            (SequencePosition::Next, _) => {
                if let Some(breach) = header.breach {
                    return Err(breach.to_string());
                }
                None
            }
            (SequencePosition::Behind, Some(&first)) => {
                let entry = Entry::parse(&self.entries[first as usize]).unwrap();
                let place = (header.session, header.sequence);
                let third = self
                    .assessor
                    .equivocated(&mut self.kept, place.0, place.1)?;
                if entry.payload == payload || trust.is_some() || third.is_some() {
                    return Err(format!("sequence {} again", header.sequence));
                }
                if who.seed.is_none() {
                    return Err("an equivocation that nobody signed".to_owned());
                }
                Some(first)
            }
            (SequencePosition::Behind, None) => return Err("lies in a gap".to_owned()),
        };

        self.due(at)?;
        let leaf = self.next_leaf();
        let signature = who.seed.map(|seed| {
            let key = signing_key(seed);
            (
                *key_id(key.public_key()).as_bytes(),
                signature::sign(&key, PayloadType::Statement, payload),
            )
        });
        let keyed = signature
            .as_ref()
            .map(|(key_id, signature)| KeyedSignature { key_id, signature });
        let entry = match (keyed, &trust) {
            (None, _) => Entry::unsigned(payload, self.time),
            (Some(keyed), None) => Entry::signed(payload, keyed, self.time),
            (Some(keyed), Some(_)) => Entry::trust(payload, keyed, self.time, self.trust.head()),
        };
        let entry = entry.encode();
        let hash = leaf_hash(&entry);
        self.kept.entries.insert(leaf, (entry.clone(), who.key()));
        self.entries.push(entry);
        self.effective = at;
        if let Some(said) = &trust {
            self.trust.apply(said, at, LeafIndex::new(leaf), hash);
        }
        let said = ParsedBody::read(payload).map_err(|error| error.to_string())?;
        let spoken = RecordedStatement {
            leaf,
            leaf_hash: hash,
            at,
            received_at: self.time,
            header: &header,
            payload,
            payload_digest: None,
            parsed: &said,
            key: who.key(),
        };
        let assessed = match first {
            Some(first) => {
                self.assessor
                    .equivocation(&mut self.kept, &self.trust, &spoken, first)?
            }
            None => {
                self.kept
                    .places
                    .insert((header.session, header.sequence), leaf);
                let producer = header.producer.to_owned();
                self.kept.producers.insert(header.session, producer);
                let digest = PayloadDigest::of(payload);
                self.sessions
                    .entry(header.session)
                    .and_modify(|session| session.advance(&header, digest))
                    .or_insert_with(|| Session::opened(&header, digest, binding));
                self.assessor.record(&mut self.kept, &self.trust, &spoken)?
            }
        };
        let place = Place {
            leaf,
            hash,
            payload: payload.clone(),
            session: header.session,
            sequence: header.sequence,
            assessed,
        };
        self.note_task(payload);
        self.owed(at)?;
        self.settle();
        Ok(place)
    }
}
/// So many seconds after [`TIME_US`] in microseconds; 0 stays 0.
pub(crate) fn seconds(after: i64) -> i64 {
    if after == 0 {
        0
    } else {
        TIME_US + after * 1_000_000
    }
}
