//! Entries that are given of a task.

use super::*;

impl Given {
    /// The trust chain, and what names task 1.
    pub(super) fn of(ledger: &Ledger) -> Self {
        Self::over(ledger.entries(), PLATFORM.task_id(1))
    }

    /// The trust chain, and what names a task.
    pub(crate) fn over(entries: &[Bytes], task: TaskId) -> Self {
        let mut given = Self {
            task,
            entries: BTreeMap::new(),
            manifests: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            size: entries.len() as u64,
        };
        for (leaf, bytes) in (0..).zip(entries) {
            let entry = Entry::parse(bytes).unwrap();
            if entry.payload_type == PayloadType::BatchManifest {
                given.manifests.insert(leaf, bytes.clone());
                continue;
            }
            let header = entry.statement().unwrap();
            if leaf == 0 || header.body.is_trust() || header.task == Some(task) {
                given.entries.insert(leaf, bytes.clone());
            }
        }
        given
    }

    pub(super) fn with(mut self, ledger: &Ledger, leaf: u64) -> Self {
        let entry = ledger.entries()[leaf as usize].clone();
        self.entries.insert(leaf, entry);
        self
    }

    pub(super) fn without(mut self, leaf: u64) -> Self {
        assert!(self.entries.remove(&leaf).is_some());
        self
    }

    /// Puts an entry behind all others.
    pub(super) fn then(mut self, entry: Bytes) -> Self {
        self.entries.insert(self.size, entry);
        self.size += 1;
        self
    }

    pub(super) fn covered(&self, leaf: u64, entry: &Bytes) -> Option<Covered> {
        if Entry::parse(entry).unwrap().author != Author::Batched {
            return None;
        }
        let (manifest_leaf, bytes) = self.manifests.range(..leaf).next_back()?;
        let signed = Entry::parse(bytes).unwrap();
        let path = VerifiedPath {
            manifest: Manifest::parse(signed.payload).unwrap(),
            key_id: signed.signature.unwrap().key(),
            manifest_index: LeafIndex::new(*manifest_leaf),
            statement_index: LeafIndex::new(leaf),
            statement_hash: leaf_hash(entry),
            position: BatchPosition::new((leaf - manifest_leaf - 1) as u32),
        };
        let proof = v1::GetBatchProofResponse {
            manifest_entry: bytes.clone(),
            ..v1::GetBatchProofResponse::default()
        };
        let covered = Covered::of(&proof, path).unwrap();
        Some(match self.doubtful.contains(manifest_leaf) {
            true => covered.in_doubt(),
            false => covered,
        })
    }

    pub(super) fn replay(&self) -> Result<TaskReplay, ReplayError> {
        let mut replay = TaskReplay::begin(&self.entries[&0], self.task)?;
        for (leaf, entry) in self.entries.iter().skip(1) {
            replay.leaf(*leaf, entry, self.covered(*leaf, entry).as_ref())?;
        }
        Ok(replay)
    }

    pub(crate) fn judge(&self) -> Result<TaskVerdict, ReplayError> {
        self.replay()?.end(self.size)
    }

    #[track_caller]
    pub(super) fn refused(&self) -> Fault {
        match self.judge() {
            Ok(verdict) => panic!("{verdict:?}"),
            Err(error) => *error.fault,
        }
    }
}

/// A statement of task 1 that the ledger itself is said to have written.
pub(super) fn by_ledger(ledger: &Ledger, body: Body) -> Bytes {
    let at = ledger.now();
    let statement = v1::Statement {
        ledger_id: Bytes::copy_from_slice(ledger.id.as_bytes()),
        producer: statement::LEDGER_PRODUCER.to_owned(),
        occurred_at_us: at.get(),
        task: PLATFORM.task_id(1).as_bytes().to_vec().into(),
        body: Some(body),
        ..v1::Statement::default()
    };
    let payload = statement::encode(&statement).unwrap();
    Entry {
        author: Author::Ledger,
        ..Entry::unsigned(&payload, at)
    }
    .encode()
}

pub(super) fn clearance(intent: &Place, evidence: &[&Place]) -> Body {
    Body::Clearance(v1::Clearance {
        intent: Some(intent.leaf_ref()),
        policy_leaf: 10,
        evidence: evidence.iter().map(|one| one.leaf_ref()).collect(),
    })
}

/// A statement that is signed as it stands, whoever may speak.
pub(super) fn signed(ledger: &Ledger, who: Who, body: Body, at: Micros) -> Bytes {
    let made = ledger.statement(who, Some(1), body);
    let payload = statement::encode(&made).unwrap();
    let key = signing_key(who.seed.unwrap());
    let (key_id, signature) = (
        *who.key().unwrap().as_bytes(),
        signature::sign(&key, PayloadType::Statement, &payload),
    );
    let keyed = KeyedSignature {
        key_id: &key_id,
        signature: &signature,
    };
    Entry::signed(&payload, keyed, at).encode()
}

impl Story {
    /// A payment that waits for a decision and an approval, and another task beside it.
    pub(super) fn waiting() -> Self {
        let mut ledger = Ledger::new();
        ledger.set_default_policy();
        ledger.at(100);
        let opened = task_opened(RiskTier::Payment, 0);
        ledger.say(PLATFORM, Some(1), opened.clone());
        ledger.say(PLATFORM, Some(2), opened);
        let grant = ledger.say(AUTHORITY, Some(1), grant_to(AGENT));
        ledger.at(200);
        let said = intent("orders/7", 500, Some(grant.hash));
        let intent = ledger.say(AGENT, Some(1), Body::Intent(said));
        assert_eq!(intent.state(), Some(IntentState::Waiting));
        Self { ledger, intent }
    }

    pub(super) fn decide(&mut self) -> Place {
        let said = decision(&self.intent, Verdict::Allow);
        self.ledger.say(ENGINE, Some(1), said)
    }

    pub(super) fn approve(&mut self, who: Who, verdict: Verdict) -> Place {
        let said = approval(&self.intent, verdict, self.ledger.now());
        self.ledger.say(who, Some(1), said)
    }

    pub(super) fn cleared() -> Self {
        let mut story = Self::waiting();
        story.decide();
        story.approve(APPROVER, Verdict::Allow);
        story
    }

    pub(super) fn done(&mut self) {
        let effects = vec![effect("orders/7", 500)];
        let said = outcome(&self.intent, OutcomeStatus::Succeeded, effects.clone());
        self.ledger.say(AGENT, Some(1), said);
        let said = observation(Some(&self.intent), effects);
        self.ledger.say(DOWNSTREAM, Some(1), said);
    }

    pub(super) fn close(&mut self) {
        self.ledger.say(PLATFORM, Some(1), task_closed());
    }

    pub(super) fn state(&self, given: &Given) -> IntentState {
        let verdict = given.judge().unwrap();
        verdict.act(self.intent.leaf).unwrap().state()
    }

    /// Asserts that the verdict is what the whole ledger comes to.
    #[track_caller]
    pub(super) fn is_the_same(&self, verdict: &TaskVerdict) {
        let ledger = &self.ledger;
        let task = ledger.task(1);
        assert_eq!(verdict.info.state, task.state);
        assert_eq!(verdict.info.count, task.count);
        assert_eq!(verdict.info.digest, task.digest);
        assert_eq!(verdict.info.assessment_digest, task.assessment);
        assert_eq!(verdict.info.receipt_leaf, task.receipt_leaf);
        let act = ledger.act(self.intent.leaf);
        let own = verdict.act(self.intent.leaf).unwrap();
        assert_eq!(own.state(), layers::standing(&act, Some(&task)));
        assert_eq!(own.layers, Some(layers::of(&act, &ledger.trust)));
        assert_eq!(own.clearance_leaf, act.clearance_leaf);
        let ours = |one: &&v1::Finding| one.task[..] == PLATFORM.task_id(1).as_bytes()[..];
        let findings: Vec<_> = ledger.findings().filter(ours).cloned().collect();
        assert_eq!(verdict.findings, findings);
    }
}
