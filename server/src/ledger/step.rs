//! The step: the only place that assigns leaf indexes and changes a tree.
//!
//! A deterministic function of a ledger's state and the admitted entries in their order. It reads
//! no clock, draws no random number and does not depend on where turns are cut: two machines
//! that are fed the same entries have the same root and the same records. (Which heads are signed
//! and how entries are packed does depend on the cuts; neither is part of the ledger's meaning.)

mod assessing;
mod evidence;
mod held;
mod touched;

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use deed_evidence::{
    CommitmentDigest, LedgerId, Micros, RULES_ASSESSED, Sequence, SessionId, WireError,
    assess::{AHEAD_MAX_US, Assessed, Book, Changes, Due, Owner, cells, cells::CellKey},
    entry::{Entry, EntryError, TrustLink, is_late},
    policy::UnreadablePolicy,
    session::{self, BatchStep, Judgement, Session},
    statement::{AUTHORITY_PRODUCER, Breach, Header},
    trust::{self, Reference, Speaker, SpeakerRefusal, TrustRefusal, TrustStatement},
};
use deed_tlog::{FullTile, Hash, LeafIndex, RightEdge, leaf_hash};
use parking_lot::RwLock;
use thiserror::Error;

use assessing::unread;
pub(crate) use held::forget_most;
use touched::{Standing, Touched, TouchedSessions};

use crate::{
    admission::{Admitted, AdmittedBatch, Kind},
    content::State,
    metrics::Assessments,
    store::{StoreError, pack::Pack, pack::Packer, read::Run},
};

/// A ledger's trust state: changed by the step, read by admission. Admission may see what is not
/// on disk yet: what depends on it is written behind it, or not at all.
pub(crate) type SharedTrust = Arc<RwLock<trust::Registry>>;

/// What the step may ask about the past: the store, which may be a turn or two behind.
pub(crate) trait Past {
    /// Waits until every finished turn is in the store.
    fn settle(&mut self) -> Result<(), StoreError>;
    /// Called only for sessions that no unsettled turn has touched.
    fn session(&mut self, id: &SessionId) -> Result<Option<(Session, Run)>, StoreError>;
    /// The run that holds `sequence`, or else the last one before it. Settles first, if need be.
    fn run_before(&mut self, id: &SessionId, sequence: Sequence)
    -> Result<Option<Run>, StoreError>;
    /// Of a leaf before this turn. Settles first, if need be.
    fn entry(&mut self, leaf: u64) -> Result<Bytes, StoreError>;
    /// Called only for cells that no unsettled turn has changed.
    fn cell(&mut self, key: &CellKey) -> Result<Option<Bytes>, StoreError>;
    /// The owner of a timer, if it is set. Called only for those that no unsettled turn has moved.
    fn due(&mut self, due: &Due) -> Result<Option<Owner>, StoreError>;
    /// The first timers behind `after`; what unsettled turns have moved may be missing.
    fn dues_after(
        &mut self,
        after: Option<&Due>,
        limit: usize,
    ) -> Result<Vec<(Due, Owner)>, StoreError>;
    /// Returns true if the turn is to be given up: the server ends, and does not wait for a batch.
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// What an operator has confirmed: the clock said `clock`, and says `now`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Confirmed {
    pub(crate) clock: Micros,
    pub(crate) now: Micros,
}

/// What became of one admitted payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Placement {
    Recorded {
        leaf: u64,
    },
    /// A trust statement, whose entry was completed here.
    Linked(Placed),
    Duplicate(Placed),
    /// Another statement was signed for this place before: recorded as evidence of that, at `leaf`,
    /// and not as the session's statement.
    Equivocation {
        leaf: u64,
        expected: Sequence,
    },
    Refused(Refusal),
    /// It was received long before what was recorded last: to be sent again, and then received anew.
    Late,
}

/// A leaf whose entry is not the one that admission wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) leaf: u64,
    pub(crate) leaf_hash: Hash,
    pub(crate) received_at: Micros,
    pub(crate) principal_leaf: Option<u64>,
    pub(crate) previous_trust: Option<TrustLink>,
}

/// Why a payload is not recorded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Session(#[from] session::Refusal),
    #[error(transparent)]
    Speaker(#[from] SpeakerRefusal),
    #[error(transparent)]
    Trust(#[from] TrustRefusal),
    /// A body that means nothing yet in this ledger.
    #[error(
        "the ledger follows rules version {found}, and this body needs {wanted}; an authority \
         brings it there with `deed policy set`"
    )]
    RulesVersion { found: u32, wanted: u32 },
    /// A deadline that is too far away.
    #[error(
        "a deadline may lie {} days ahead at most: {latest} (microseconds, UTC), and this is {found}; \
         name an earlier one, or none",
        AHEAD_MAX_US / 86_400_000_000
    )]
    DeadlineFar { found: Micros, latest: Micros },
    /// A deadline where its speaker's timers are used up.
    #[error(
        "{held} deadlines are pending of what this {speaker} has said, and it may hold {share} now; \
         send Outcomes of Intents and TaskClosed of tasks that have ended, or name no deadline"
    )]
    DeadlinesMany {
        speaker: &'static str,
        held: u64,
        share: u64,
    },
    /// A statement that was admitted where nothing is assessed, and that cannot be read here.
    #[error("what the statement says cannot be read: {0}")]
    Unread(WireError),
    /// An Intent, Decision or Approval under a policy that this build cannot read.
    #[error(transparent)]
    Policy(#[from] UnreadablePolicy),
    /// A form that the rules in force refuse.
    #[error("{}", .0.rule())]
    Form(Breach),
    /// An Erasure that came where nobody looks up what it would erase.
    #[error("an Erasure is sent with EraseContent, which also erases")]
    ErasureElsewhere,
    /// An Erasure of what is gone already.
    #[error("content {content} was erased by the entry at leaf {leaf}")]
    ContentErased {
        content: CommitmentDigest,
        leaf: u64,
    },
    /// A statement that brings back what was erased.
    #[error(
        "content {content} was erased by the entry at leaf {leaf}; send the statement without it"
    )]
    AttachmentErased {
        content: CommitmentDigest,
        leaf: u64,
    },
    /// An Erasure of what is not here.
    #[error("no content is held under the commitment {content}")]
    ContentUnknown { content: CommitmentDigest },
    /// Of a batch that cannot be recorded whole; `culprit` is the envelope that says why.
    #[error("the batch is recorded whole or not at all; see envelope {culprit}")]
    Batch { culprit: usize },
}

/// The past contradicts itself; the ledger must not go on.
#[derive(Debug, Error)]
pub(crate) enum StepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("leaf {leaf} is not an entry: {reason}")]
    Entry { leaf: u64, reason: String },
    #[error("the entry of an Intent: {0}")]
    Intent(#[from] EntryError),
    #[error("cell {key:?} of the assessment is damaged")]
    Cell { key: CellKey },
    /// Nothing is wrong: the turn was given up in the middle of a batch, and so is this state.
    #[error("the turn was given up, for the server stops")]
    Interrupted,
}

impl StepError {
    fn malformed(leaf: u64, error: &EntryError) -> Self {
        let reason = error.to_string();
        Self::Entry { leaf, reason }
    }
}

/// A ledger between two turns.
#[derive(Debug)]
pub(crate) struct LedgerState {
    id: LedgerId,
    edge: RightEdge,
    effective_time: Micros,
    trust: SharedTrust,
    /// Sessions seen lately: a cache of what the store has, bounded in bytes.
    sessions: HashMap<SessionId, (Session, Run)>,
    /// Bytes of the producers' names in them.
    producer_bytes: usize,
    /// What the entries so far amount to; stays as it is under rules that assess nothing.
    book: Book,
    /// Timers that the ledger holds.
    due: u64,
    /// The last confirmation of its clock by an operator.
    clock: Option<cells::Clock>,
}

/// The changes of one turn to one ledger.
#[derive(Debug)]
pub(crate) struct Turn {
    packer: Packer,
    leaf_hashes: Vec<Hash>,
    first_leaf: u64,
    touched: TouchedSessions,
    /// Leaves of trust statements, each with the effective time at it.
    trust_leaves: Vec<(u64, Micros)>,
    references: Vec<(CommitmentDigest, Reference)>,
    erased: Vec<(CommitmentDigest, u64)>,
    /// What is said of the payloads placed since this was taken last, by position in their request.
    assessed: Vec<(usize, Assessed)>,
    assessments: Assessments,
}

/// What a turn leaves to be written.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) packs: Vec<Pack>,
    pub(crate) tiles: Vec<FullTile>,
    /// In order of their ids.
    pub(crate) sessions: Vec<(SessionId, Session, Vec<Run>)>,
    /// Leaves of trust statements, in order, each with the effective time at it.
    pub(crate) trust_leaves: Vec<(u64, Micros)>,
    /// Contents that are held, and the leaves that commit to them.
    pub(crate) references: Vec<(CommitmentDigest, Reference)>,
    /// Contents to be erased, and the leaf that says so.
    pub(crate) erased: Vec<(CommitmentDigest, u64)>,
    /// What changed in the assessment.
    pub(crate) assessment: Changes,
    /// The same in numbers.
    pub(crate) assessments: Assessments,
}

impl LedgerState {
    pub(crate) fn new(
        id: LedgerId,
        edge: RightEdge,
        effective_time: Micros,
        trust: SharedTrust,
    ) -> Self {
        let mut book = Book::restore(id);
        book.begins_at(edge.size().get());
        Self {
            id,
            edge,
            effective_time,
            trust,
            sessions: HashMap::new(),
            producer_bytes: 0,
            book,
            due: 0,
            clock: None,
        }
    }

    pub(crate) fn edge(&self) -> &RightEdge {
        &self.edge
    }

    /// The largest receive time of all leaves; every rule about time uses it.
    pub(crate) fn effective_time(&self) -> Micros {
        self.effective_time
    }

    /// When something happens in it although nobody says anything; `None` if nothing is due.
    pub(crate) fn next_due(&self) -> Option<Micros> {
        self.book.next_due()
    }

    /// How much is due in it.
    pub(crate) fn due(&self) -> u64 {
        self.due
    }

    /// The last confirmation of its clock by an operator.
    pub(crate) fn clock(&self) -> Option<cells::Clock> {
        self.clock
    }

    /// Timers of it in memory.
    #[cfg(test)]
    pub(crate) fn timers_at_hand(&self) -> usize {
        self.book.timers_at_hand()
    }

    /// Begins a turn.
    pub(crate) fn begin(&mut self, past: &mut impl Past) -> Result<Turn, StepError> {
        self.keep_bounds(past)?;
        let turn = self.begin_cached();
        self.look_at_timers(&turn, past)?;
        Ok(turn)
    }

    fn begin_cached(&self) -> Turn {
        let first_leaf = self.edge.size().get();
        Turn {
            packer: Packer::new(first_leaf),
            leaf_hashes: Vec::new(),
            first_leaf,
            touched: TouchedSessions::default(),
            trust_leaves: Vec::new(),
            references: Vec::new(),
            erased: Vec::new(),
            assessed: Vec::new(),
            assessments: Assessments::default(),
        }
    }

    /// A new ledger: the genesis entry in a tree of its own.
    pub(crate) fn create(
        genesis: &[u8],
        created_at: Micros,
        trust: SharedTrust,
    ) -> Result<(Self, Records), StepError> {
        let id = LedgerId::new(leaf_hash(genesis));
        let mut state = Self::new(id, RightEdge::new(), created_at, trust);
        state.book = Book::new(id);
        let mut turn = state.begin_cached();
        turn.packer.push(genesis);
        turn.leaf_hashes.push(*id.hash());
        let records = state.finish(turn)?;
        Ok((state, records))
    }

    /// Places every payload of a request, in order.
    pub(crate) fn apply(
        &mut self,
        turn: &mut Turn,
        batch: &AdmittedBatch,
        past: &mut impl Past,
    ) -> Result<Vec<Placement>, StepError> {
        let mut placements = Vec::new();
        self.apply_some(turn, batch, &mut placements, past, &mut |_| false)?;
        Ok(placements)
    }

    /// Places payloads of a request, in order, from where `placements` ends, which grows. `is_enough`
    /// is asked after each piece, with how many were placed: a request is cut between two of its
    /// statements, for it promises nothing as a whole, and never within a batch. Nothing that is
    /// recorded depends on where, but for what others have recorded in between.
    pub(crate) fn apply_some(
        &mut self,
        turn: &mut Turn,
        batch: &AdmittedBatch,
        placements: &mut Vec<Placement>,
        past: &mut impl Past,
        is_enough: &mut impl FnMut(usize) -> bool,
    ) -> Result<(), StepError> {
        let all = batch.statements();
        placements.reserve_exact(all.len() - placements.len());
        while let Some(statement) = all.get(placements.len()) {
            match &statement.kind {
                Kind::Statement => {
                    placements.push(self.place(turn, batch, statement, past)?);
                }
                Kind::Trust(trust) => {
                    placements.push(self.place_trust(turn, batch, statement, trust, past)?);
                }
                Kind::Manifest(step) => {
                    let begin = placements.len() + 1;
                    let members = &all[begin..begin + step.count.get() as usize];
                    let group = Group {
                        batch,
                        manifest: statement,
                        members,
                        step,
                    };
                    placements.extend(self.place_batch(turn, &group, past)?);
                }
            }
            if is_enough(placements.len()) {
                break;
            }
        }
        Ok(())
    }

    /// Judges a statement by its session and its speaker: the session, if it is the next one
    /// there.
    fn judge<'t>(
        &mut self,
        turn: &'t mut Turn,
        batch: &AdmittedBatch,
        statement: &Admitted,
        past: &mut impl Past,
    ) -> Result<Result<&'t mut Touched, Judged>, StepError> {
        let header = batch.header(statement, self.id);
        let touched = turn.touched.get_or_insert(header.session, || {
            let known = match self.take_session(&header.session) {
                Some(known) => Some(known),
                None => past.session(&header.session)?,
            };
            Ok::<_, StepError>(known.map(Touched::stored).unwrap_or_default())
        })?;
        if header.previous.is_some() {
            touched.digest(&turn.packer)?;
        }
        let binding = batch.binding(statement);
        match session::judge(touched.session.as_ref(), &header, binding) {
            Ok(Judgement::Next) => {}
            Ok(Judgement::Behind) => {
                let next = touched.session.as_ref().map(|session| session.next);
                let at = touched
                    .runs
                    .iter()
                    .find_map(|run| run.leaf_of(header.sequence));
                let expected = next.unwrap_or(Sequence::FIRST);
                return Ok(Err(Judged::Behind { at, expected }));
            }
            Err(refusal) => return Ok(Err(Judged::Refused(refusal.into()))),
        }
        if header.body.is_trust() {
            // What an authority may say is judged with the trust statement itself.
            return Ok(Ok(touched));
        }
        let at = self.effective_time.max(batch.received_at());
        let speaker = Speaker {
            key: statement.authorship.key(),
            principal_leaf: statement.principal_leaf.map(LeafIndex::new),
        };
        let trust = self.trust.read();
        let stands = touched.standing.is_some_and(|standing| {
            standing.speaker == speaker
                && standing.trust_version == trust.version()
                && at < standing.until
        });
        if !stands {
            if let Err(refusal) = trust.may_speak(&speaker, header.producer, at) {
                return Ok(Err(Judged::Refused(refusal.into())));
            }
            touched.standing = Some(Standing {
                speaker,
                trust_version: trust.version(),
                until: trust.stable_until(at),
            });
        }
        Ok(Ok(touched))
    }

    fn place(
        &mut self,
        turn: &mut Turn,
        batch: &AdmittedBatch,
        statement: &Admitted,
        past: &mut impl Past,
    ) -> Result<Placement, StepError> {
        let beyond_timers = self.beyond_timers(turn, batch, statement, 1, past)?;
        match self.judge(turn, batch, statement, past)? {
            Ok(_) if self.is_late(batch) => Ok(Placement::Late),
            Ok(_) if let Some(refusal) = brings_erased(batch, statement) => {
                Ok(Placement::Refused(refusal))
            }
            Ok(_) if let Some(refusal) = self.beyond_rules(batch, statement) => {
                Ok(Placement::Refused(refusal))
            }
            Ok(_) if let Some(refusal) = &beyond_timers => Ok(Placement::Refused(refusal.clone())),
            Ok(_) => {
                let at = self.come_to(turn, batch.received_at(), past)?;
                let leaf = turn.next_leaf();
                let session = turn.touched.of(statement.session());
                session.record(batch, statement, self.id, leaf);
                turn.push(batch.entry(statement), statement.leaf_hash);
                turn.refer(batch, statement, leaf, at);
                let placed = (leaf, statement.leaf_hash);
                self.assess(turn, batch, statement, placed, past)?;
                self.write_owed(turn, past)?;
                Ok(Placement::Recorded { leaf })
            }
            Err(Judged::Refused(refusal)) => Ok(Placement::Refused(refusal)),
            Err(Judged::Behind { at, expected }) => {
                let header = batch.header(statement, self.id);
                let recorded = recorded_at(turn, &header, at, past)?;
                match recorded {
                    Some((placed, payload)) if payload == batch.payload(statement) => {
                        turn.refer_again(batch, statement, &placed);
                        Ok(Placement::Duplicate(placed))
                    }
                    Some((first, _)) => {
                        self.equivocation(turn, batch, statement, first.leaf, expected, past)
                    }
                    None => Ok(Placement::Refused(
                        session::Refusal::SequenceReused { expected }.into(),
                    )),
                }
            }
        }
    }

    /// Returns true if a request was received so long before what was recorded last that its
    /// receive time would say something false. A receive time is made where a request is admitted,
    /// so this takes a clock that was set, or a queue that stood still.
    fn is_late(&self, batch: &AdmittedBatch) -> bool {
        is_late(batch.received_at(), self.effective_time) && self.assesses()
    }

    /// Returns the reason why a body, or its form, is not taken under the rules in force.
    fn beyond_rules(&self, batch: &AdmittedBatch, statement: &Admitted) -> Option<Refusal> {
        let header = batch.header(statement, self.id);
        let trust = self.trust.read();
        if header.body.needs_policy()
            && let Err(unreadable) = trust.can_judge(header.body)
        {
            return Some(unreadable.into());
        }
        let found = trust.rules_version();
        drop(trust);
        if found >= RULES_ASSESSED {
            let breach = header.breach.map(Refusal::Form);
            return breach.or_else(|| unread(batch, statement));
        }
        let owners = header.producer == AUTHORITY_PRODUCER && !header.body.is_trust();
        let needs_assessment = owners || header.body.needs_assessment();
        needs_assessment.then_some(Refusal::RulesVersion {
            found,
            wanted: RULES_ASSESSED,
        })
    }

    /// A trust statement: judged by the trust state at its leaf, which it then changes. Its entry
    /// names the trust statement before it, so it is completed here.
    fn place_trust(
        &mut self,
        turn: &mut Turn,
        batch: &AdmittedBatch,
        statement: &Admitted,
        said: &TrustStatement,
        past: &mut impl Past,
    ) -> Result<Placement, StepError> {
        if let Err(judged) = self.judge(turn, batch, statement, past)? {
            return match judged {
                Judged::Refused(refusal) => Ok(Placement::Refused(refusal)),
                Judged::Behind { .. } => self.place(turn, batch, statement, past),
            };
        }
        if let Some(refusal) = self.beyond_rules(batch, statement) {
            return Ok(Placement::Refused(refusal));
        }
        if self.is_late(batch) {
            return Ok(Placement::Late);
        }
        let at = self.effective_time.max(batch.received_at());
        let Some(signer) = statement.authorship.key() else {
            let refusal = SpeakerRefusal::SignatureRequired;
            return Ok(Placement::Refused(refusal.into()));
        };
        let trust = Arc::clone(&self.trust);
        let trust = trust.read();
        if let Err(refusal) = trust.judge(said, signer, at) {
            return Ok(Placement::Refused(refusal.into()));
        }
        if let TrustStatement::PolicySet { policy, .. } = said
            && !policy.is_compiled()
        {
            // Its signer was no authority yet when it was admitted. It is not compiled here.
            return Ok(Placement::Late);
        }
        if matches!(said, TrustStatement::Erasure(_)) {
            let Some(known) = batch.erasable() else {
                return Ok(Placement::Refused(Refusal::ErasureElsewhere));
            };
            for one in known {
                let content = one.content;
                let refusal = match one.state {
                    State::Held => trust
                        .erasable(&content, &one.references, at)
                        .err()
                        .map(|refusal| TrustRefusal::Erasure(refusal).into()),
                    State::Erased(leaf) => Some(Refusal::ContentErased { content, leaf }),
                    State::Unknown => Some(Refusal::ContentUnknown { content }),
                };
                if let Some(refusal) = refusal {
                    return Ok(Placement::Refused(refusal));
                }
            }
        }
        drop(trust);
        self.come_to(turn, batch.received_at(), past)?;
        if let TrustStatement::Erasure(contents) = said {
            let leaf = turn.next_leaf();
            turn.erased
                .extend(contents.iter().map(|content| (*content, leaf)));
        }
        let assesses = self.assesses();
        let mut trust = self.trust.write();
        let link = trust.head();
        let unlinked = batch.entry(statement);
        let leaf = turn.next_leaf();
        let malformed = |error| StepError::malformed(leaf, &error);
        let entry = Entry {
            previous_trust: Some(link),
            ..Entry::parse(unlinked).map_err(malformed)?
        }
        .encode();
        let hash = leaf_hash(&entry);
        trust.apply(said, at, LeafIndex::new(leaf), hash);
        drop(trust);
        turn.touched
            .of(statement.session())
            .record(batch, statement, self.id, leaf);
        turn.push(&entry, hash);
        turn.trust_leaves.push((leaf, at));
        if assesses {
            self.assess(turn, batch, statement, (leaf, hash), past)?;
            self.write_owed(turn, past)?;
        }
        Ok(Placement::Linked(Placed {
            leaf,
            leaf_hash: hash,
            received_at: batch.received_at(),
            principal_leaf: None,
            previous_trust: Some(link),
        }))
    }

    /// A batch: its first statement is judged, the others follow it without a hole (admission saw
    /// to that), so all of them can be recorded or none.
    fn place_batch(
        &mut self,
        turn: &mut Turn,
        group: &Group<'_>,
        past: &mut impl Past,
    ) -> Result<Vec<Placement>, StepError> {
        let Group { batch, .. } = *group;
        let Some(first) = group.members.first() else {
            // Admission takes no empty batch.
            let culprit = group.manifest.envelope;
            return Ok(vec![Placement::Refused(Refusal::Batch { culprit })]);
        };
        let erased = group.members.iter().find_map(|member| {
            let refusal = brings_erased(batch, member)?;
            Some((member, refusal))
        });
        let beyond_timers = self.batch_beyond_timers(turn, group, past)?;
        match self.judge(turn, batch, first, past)? {
            Ok(_) if self.is_late(batch) => Ok(group.late()),
            Ok(_) if let Some((member, refusal)) = erased => Ok(group.refused(member, refusal)),
            Ok(_) if let Some((member, refusal)) = self.batch_beyond_rules(group) => {
                Ok(group.refused(member, refusal))
            }
            Ok(_) if let Some((member, refusal)) = &beyond_timers => {
                Ok(group.refused(member, refusal.clone()))
            }
            Ok(_) => {
                self.come_to(turn, batch.received_at(), past)?;
                let manifest_leaf = turn.next_leaf();
                let producer = batch.header(first, self.id).producer;
                let session = turn.touched.of(first.session());
                session.record_batch(
                    producer,
                    batch.binding(first),
                    group.step,
                    manifest_leaf + 1,
                );
                turn.push(batch.entry(group.manifest), group.manifest.leaf_hash);
                for member in group.members {
                    if past.is_interrupted() {
                        return Err(StepError::Interrupted);
                    }
                    let leaf = turn.next_leaf();
                    turn.push(batch.entry(member), member.leaf_hash);
                    turn.refer(batch, member, leaf, self.effective_time);
                    let placed = (leaf, member.leaf_hash);
                    self.assess(turn, batch, member, placed, past)?;
                }
                let leaves = manifest_leaf..turn.next_leaf();
                // Behind the batch, which lies in one piece.
                self.write_owed(turn, past)?;
                Ok(leaves.map(|leaf| Placement::Recorded { leaf }).collect())
            }
            Err(Judged::Refused(refusal)) => Ok(group.refused(first, refusal)),
            Err(Judged::Behind { at, expected }) => {
                let header = batch.header(first, self.id);
                let recorded = recorded_at(turn, &header, at, past)?;
                let duplicates = match recorded {
                    Some(recorded) => recorded_batch(turn, group, recorded, past)?,
                    None => None,
                };
                match duplicates {
                    Some(duplicates) => Ok(duplicates),
                    None => self.equivocating_batch(turn, group, expected, past),
                }
            }
        }
    }

    fn batch_beyond_rules<'b>(&self, group: &Group<'b>) -> Option<(&'b Admitted, Refusal)> {
        group.members.iter().find_map(|member| {
            let refusal = self.beyond_rules(group.batch, member)?;
            Some((member, refusal))
        })
    }

    /// Ends a turn: the tree grows, and what is to be written comes out.
    pub(crate) fn finish(&mut self, turn: Turn) -> Result<Records, StepError> {
        let mut tiles = Vec::new();
        self.edge
            .append(&turn.leaf_hashes, &mut |tile| tiles.push(tile));
        let mut sessions = Vec::new();
        for (id, mut touched) in turn.touched.into_all() {
            touched.digest(&turn.packer)?;
            let (Some(session), Some(&last)) = (touched.session, touched.runs.last()) else {
                // Nothing was ever recorded in it.
                continue;
            };
            self.keep_session(id, session.clone(), last);
            if touched.changed {
                touched.runs.drain(..touched.unchanged_runs);
                sessions.push((id, session, touched.runs));
            }
        }
        // In an order that does not depend on where turns are cut.
        sessions.sort_unstable_by_key(|(id, ..)| *id);
        let assessment = self.book.take_changes();
        let mut assessments = turn.assessments;
        assessments.changed(&assessment, turn.first_leaf);
        Ok(Records {
            packs: turn.packer.finish(),
            tiles,
            sessions,
            trust_leaves: turn.trust_leaves,
            references: turn.references,
            erased: turn.erased,
            assessment,
            assessments,
        })
    }

    /// Sessions in memory.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }
}

impl Turn {
    /// What is said of the payloads that were placed since this was asked last.
    pub(crate) fn take_assessed(&mut self) -> Vec<(usize, Assessed)> {
        std::mem::take(&mut self.assessed)
    }

    /// Leaves that it has recorded.
    pub(crate) fn len(&self) -> usize {
        self.leaf_hashes.len()
    }

    fn next_leaf(&self) -> u64 {
        self.first_leaf + self.leaf_hashes.len() as u64
    }

    /// The same for a statement that was recorded before, perhaps without its contents.
    fn refer_again(&mut self, batch: &AdmittedBatch, statement: &Admitted, placed: &Placed) {
        self.refer(batch, statement, placed.leaf, placed.received_at);
    }

    /// Notes the contents that are held and that a leaf commits to.
    fn refer(&mut self, batch: &AdmittedBatch, statement: &Admitted, leaf: u64, at: Micros) {
        let references = batch.references(statement);
        self.references.extend(references.iter().map(|content| {
            let reference = Reference {
                leaf: LeafIndex::new(leaf),
                recorded_at: at,
                task: statement.task(),
            };
            (*content, reference)
        }));
    }

    fn push(&mut self, entry: &[u8], leaf_hash: Hash) {
        self.packer.push(entry);
        self.leaf_hashes.push(leaf_hash);
    }
}

/// A manifest and its statements.
struct Group<'b> {
    batch: &'b AdmittedBatch,
    manifest: &'b Admitted,
    members: &'b [Admitted],
    step: &'b BatchStep,
}

impl Group<'_> {
    /// All of it is to be sent again.
    fn late(&self) -> Vec<Placement> {
        vec![Placement::Late; 1 + self.members.len()]
    }

    /// Refuses all of it: one says why, the others name it.
    fn refused(&self, why: &Admitted, refusal: Refusal) -> Vec<Placement> {
        let culprit = why.envelope;
        let all = std::iter::once(self.manifest).chain(self.members);
        all.map(|one| {
            Placement::Refused(if one.envelope == culprit {
                refusal.clone()
            } else {
                Refusal::Batch { culprit }
            })
        })
        .collect()
    }
}

/// Why a statement is not recorded anew that brings back what was erased. (Sent again it is a
/// duplicate: what was recorded before the erasure stays recorded.)
fn brings_erased(batch: &AdmittedBatch, statement: &Admitted) -> Option<Refusal> {
    let (content, leaf) = batch.erased_attachment(statement)?;
    Some(Refusal::AttachmentErased { content, leaf })
}

/// Why a statement is not simply the next one of its session.
enum Judged {
    Refused(Refusal),
    /// Its sequence has passed. `at` is its leaf, where the turn knows it.
    Behind {
        at: Option<u64>,
        expected: Sequence,
    },
}

/// The leaf and payload that were recorded at a statement's session and sequence; `None` if it
/// lies in a gap. `at` is the leaf, where the turn knows it.
fn recorded_at(
    turn: &Turn,
    header: &Header<'_>,
    at: Option<u64>,
    past: &mut impl Past,
) -> Result<Option<(Placed, Bytes)>, StepError> {
    let leaf = match at {
        Some(leaf) => leaf,
        None => {
            let run = past.run_before(&header.session, header.sequence)?;
            match run.and_then(|run| run.leaf_of(header.sequence)) {
                Some(leaf) => leaf,
                None => return Ok(None),
            }
        }
    };
    entry_at(turn, leaf, past).map(Some)
}

/// The leaves of a batch that was recorded before: this very manifest, and so these statements
/// behind it, for its root covers them. `first` is what is recorded at the first one's sequence.
fn recorded_batch(
    turn: &mut Turn,
    group: &Group<'_>,
    (first, _): (Placed, Bytes),
    past: &mut impl Past,
) -> Result<Option<Vec<Placement>>, StepError> {
    let Some(manifest_leaf) = first.leaf.checked_sub(1) else {
        return Ok(None);
    };
    let (manifest, payload) = entry_at(turn, manifest_leaf, past)?;
    if payload != group.batch.payload(group.manifest) {
        return Ok(None);
    }
    let mut all = vec![Placement::Duplicate(manifest)];
    for (leaf, member) in (first.leaf..).zip(group.members) {
        let placed = entry_at(turn, leaf, past)?.0;
        turn.refer_again(group.batch, member, &placed);
        all.push(Placement::Duplicate(placed));
    }
    Ok(Some(all))
}

/// A leaf that was recorded, with its payload.
fn entry_at(turn: &Turn, leaf: u64, past: &mut impl Past) -> Result<(Placed, Bytes), StepError> {
    let bytes = match turn.packer.entry(leaf) {
        Some(bytes) => bytes,
        None => past.entry(leaf)?,
    };
    let entry = Entry::parse(&bytes).map_err(|error| StepError::Entry {
        leaf,
        reason: error.to_string(),
    })?;
    let placed = Placed {
        leaf,
        leaf_hash: leaf_hash(&bytes),
        received_at: entry.received_at,
        principal_leaf: entry.principal_leaf,
        previous_trust: entry.previous_trust,
    };
    let payload = bytes.slice_ref(entry.payload);
    Ok((placed, payload))
}
