//! An act's cells: what is kept of an Intent and of what came of it.

use bytes::Bytes;
use deed_proto::v1::{self, FindingKind};
use prost::Message as _;

use super::{CellKey, Effect, System};

/// An Intent and what came of it. Its lists of effects are kept in cells of their own: whoever needs
/// them puts them in.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Act {
    /// Leaf of the Intent.
    #[prost(uint64, tag = "1")]
    pub leaf: u64,
    /// 32 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub leaf_hash: Bytes,
    /// SHA-256 of the payload; 32 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub payload_digest: Bytes,
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "4")]
    pub task: Bytes,
    /// Key that signed it; 16 bytes, or empty.
    #[prost(bytes = "bytes", tag = "5")]
    pub key: Bytes,
    /// Effective time at the Intent.
    #[prost(int64, tag = "6")]
    pub at_us: i64,
    /// 0 for none.
    #[prost(int64, tag = "7")]
    pub deadline_us: i64,
    /// Digest of the arguments' commitment; 32 bytes, or empty.
    #[prost(bytes = "bytes", tag = "8")]
    pub arguments: Bytes,
    /// True if the prompt is committed to.
    #[prost(bool, tag = "9")]
    pub prompt: bool,
    /// Leaf of the grant that it names, if that is there.
    #[prost(uint64, optional, tag = "10")]
    pub grant_leaf: Option<u64>,
    /// State of the authority layer by its grant.
    #[prost(enumeration = "v1::LayerState", tag = "11")]
    pub authority: i32,
    /// `v1::IntentState`.
    #[prost(enumeration = "v1::IntentState", tag = "12")]
    pub state: i32,
    /// Kinds of the findings about it: bit n for kind n.
    #[prost(uint64, tag = "13")]
    pub findings: u64,
    /// Evidence that it waits for.
    #[prost(string, repeated, tag = "14")]
    pub missing: Vec<String>,
    /// Reasons for which it is denied.
    #[prost(string, repeated, tag = "15")]
    pub denied: Vec<String>,
    /// The facts by which it is judged again, while it waits.
    #[prost(message, optional, tag = "16")]
    pub waiting: Option<Waiting>,
    /// Decisions and Approvals that count, in order.
    #[prost(message, repeated, tag = "17")]
    pub evidence: Vec<Evidence>,
    /// Leaf of the PolicySet that it was judged by.
    #[prost(uint64, optional, tag = "18")]
    pub policy_leaf: Option<u64>,
    /// Leaf of the Clearance, if one had to be written.
    #[prost(uint64, optional, tag = "19")]
    pub clearance_leaf: Option<u64>,
    /// Records and observations that the policy wants of it.
    #[prost(message, optional, tag = "20")]
    pub duties: Option<Duties>,
    /// The Outcome that counts, if there is one.
    #[prost(message, optional, tag = "21")]
    pub outcome: Option<Outcome>,
    /// Observations of it: at most 64; one that proves something displaces one that does not.
    #[prost(message, repeated, tag = "22")]
    pub observations: Vec<Observed>,
    /// True if the policy asked for an approval.
    #[prost(bool, tag = "23")]
    pub approval_asked: bool,
    /// True if the policy asked for a decision.
    #[prost(bool, tag = "24")]
    pub decision_asked: bool,
    /// True if somebody claimed an approval that counts for nothing.
    #[prost(bool, tag = "25")]
    pub approval_claimed: bool,
    /// True if an approver refused before it was cleared.
    #[prost(bool, tag = "26")]
    pub refused: bool,
    /// True if a policy engine denied before it was cleared.
    #[prost(bool, tag = "27")]
    pub decision_denied: bool,
    /// True while a Clearance is on its way into the log.
    #[prost(bool, tag = "28")]
    pub clearing: bool,
    /// True if somebody claimed an Outcome that counts for nothing.
    #[prost(bool, tag = "29")]
    pub outcome_claimed: bool,
    /// The amount that it names.
    #[prost(int64, optional, tag = "30")]
    pub minor_units: Option<i64>,
    /// Its currency; empty without an amount.
    #[prost(string, tag = "31")]
    pub currency: String,
    /// Its session; 16 bytes.
    #[prost(bytes = "bytes", tag = "32")]
    pub session: Bytes,
    /// The resource that it acts on.
    #[prost(string, tag = "33")]
    pub resource: String,
    /// The changes that it said it would make; not in its own cell.
    #[prost(message, repeated, tag = "34")]
    pub expected_effects: Vec<Effect>,
    /// Keys that it relied on when it was judged, of its task's opening and its grants; of those who
    /// refused it; and of those who gave a further Outcome of it.
    #[prost(message, repeated, tag = "35")]
    pub relied: Vec<Relied>,
    /// Producers that its grant lets carry it out, if that is well founded.
    #[prost(string, repeated, tag = "36")]
    pub gateways: Vec<String>,
    /// Changes that independent systems saw on resources of their own; at most 64 for each. Not in its
    /// own cell.
    #[prost(message, repeated, tag = "37")]
    pub changes: Vec<Change>,
    /// Effective time at its Clearance; 0 if it was cleared at once, or is not.
    #[prost(int64, tag = "38")]
    pub cleared_at_us: i64,
    /// True if only a strength that its approvers claim let it be cleared.
    #[prost(bool, tag = "39")]
    pub strength_claimed: bool,
    /// Number of changes that it announced.
    #[prost(uint32, tag = "40")]
    pub expected: u32,
    /// Bytes of these in their cell.
    #[prost(uint32, tag = "41")]
    pub expected_bytes: u32,
    /// The systems that saw changes of it; at most 8, shared between controllers.
    #[prost(message, repeated, tag = "42")]
    pub systems: Vec<SystemSaw>,
    /// For each declared effect the first 8 bytes of the hash of the external id that it was confirmed
    /// under first; 0 for none.
    #[prost(fixed64, repeated, tag = "43")]
    pub named: Vec<u64>,
}

/// A system's view of an act, in short.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SystemSaw {
    /// The system: 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub system: Bytes,
    /// The declared effects that its changes confirm: bit n for effect n.
    #[prost(fixed64, tag = "2")]
    pub confirmed: u64,
    /// Number of its changes that are kept.
    #[prost(uint32, tag = "3")]
    pub count: u32,
    /// Leaf of its first Observation that is kept.
    #[prost(uint64, tag = "4")]
    pub first_leaf: u64,
    /// Key that signed that one; 16 bytes.
    #[prost(bytes = "bytes", tag = "5")]
    pub key: Bytes,
}

/// The effects that an Intent expects.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Expected {
    /// In their order.
    #[prost(message, repeated, tag = "1")]
    pub effects: Vec<Effect>,
}

/// The effects that an Outcome declares.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Declared {
    /// In their order.
    #[prost(message, repeated, tag = "1")]
    pub effects: Vec<Print>,
}

/// The changes that a system saw of an act.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Changes {
    /// In order of their leaves.
    #[prost(message, repeated, tag = "1")]
    pub changes: Vec<Change>,
}

/// An effect as it is compared with another one. Names are hashed: two effects are of one kind on one
/// resource if these are equal, and however long the names are, what is kept is not. So the work of
/// comparing does not depend on what somebody else has written.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Print {
    /// 16 bytes of SHA-256 over its kind.
    #[prost(bytes = "bytes", tag = "1")]
    pub kind: Bytes,
    /// The same of what was changed.
    #[prost(bytes = "bytes", tag = "2")]
    pub resource: Bytes,
    /// The same of the downstream system's id of the change; empty for none.
    #[prost(bytes = "bytes", tag = "3")]
    pub external_id: Bytes,
    /// The amount, in minor units.
    #[prost(int64, optional, tag = "4")]
    pub minor_units: Option<i64>,
    /// Of which currency; empty without an amount.
    #[prost(string, tag = "5")]
    pub currency: String,
    /// SHA-256 of the state before; 32 bytes or empty.
    #[prost(bytes = "bytes", tag = "6")]
    pub before: Bytes,
    /// SHA-256 of the state after; 32 bytes or empty.
    #[prost(bytes = "bytes", tag = "7")]
    pub after: Bytes,
}

/// A signed statement that an act's layers rest on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Relied {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Its leaf.
    #[prost(uint64, tag = "2")]
    pub leaf: u64,
    /// Effective time there.
    #[prost(int64, tag = "3")]
    pub at_us: i64,
    /// The statement's part in the act's evidence.
    #[prost(enumeration = "v1::EvidencePart", tag = "4")]
    pub part: i32,
}

/// The facts of a waiting Intent, by which it is judged again.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Waiting {
    /// The agent.
    #[prost(string, tag = "1")]
    pub agent: String,
    /// The action.
    #[prost(string, tag = "2")]
    pub action: String,
    /// The resource.
    #[prost(string, tag = "3")]
    pub resource: String,
    /// The amount.
    #[prost(int64, optional, tag = "4")]
    pub minor_units: Option<i64>,
    /// Its currency.
    #[prost(string, tag = "5")]
    pub currency: String,
    /// Leaf hash of the grant; empty for none.
    #[prost(bytes = "bytes", tag = "6")]
    pub grant: Bytes,
    /// True if the model is named.
    #[prost(bool, tag = "7")]
    pub model: bool,
}

/// A Decision or an Approval that counts.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Evidence {
    /// Its leaf.
    #[prost(uint64, tag = "1")]
    pub leaf: u64,
    /// 32 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub leaf_hash: Bytes,
    /// Key that signed it; 16 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub key: Bytes,
    /// An approval's; unspecified for a decision.
    #[prost(enumeration = "v1::AuthenticationStrength", tag = "4")]
    pub strength: i32,
    /// Effective time then.
    #[prost(int64, tag = "5")]
    pub at_us: i64,
}

/// Duties that the policy lays on an act besides its clearance.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Duties {
    /// The tool call is committed to.
    #[prost(bool, tag = "1")]
    pub tool_call: bool,
    /// The response is.
    #[prost(bool, tag = "2")]
    pub response: bool,
    /// The result is.
    #[prost(bool, tag = "3")]
    pub result: bool,
    /// Somebody independent sees the effects within so many microseconds of the Outcome.
    #[prost(int64, optional, tag = "4")]
    pub corroborate_within_us: Option<i64>,
}

/// An Outcome.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Outcome {
    /// Its leaf.
    #[prost(uint64, tag = "1")]
    pub leaf: u64,
    /// `v1::OutcomeState`.
    #[prost(enumeration = "v1::OutcomeState", tag = "2")]
    pub state: i32,
    /// `v1::OutcomeStatus`.
    #[prost(enumeration = "v1::OutcomeStatus", tag = "3")]
    pub status: i32,
    /// True if somebody signed it who stands in a relation to the act.
    #[prost(bool, tag = "4")]
    pub signed: bool,
    /// True if its result is committed to: a result, a response or effects.
    #[prost(bool, tag = "5")]
    pub committed: bool,
    /// The effects that it declares; not in the act's own cell.
    #[prost(message, repeated, tag = "6")]
    pub effects: Vec<Print>,
    /// Time by which it must be corroborated; 0 for never.
    #[prost(int64, tag = "7")]
    pub corroborate_by_us: i64,
    /// Key that signed it; 16 bytes, or empty.
    #[prost(bytes = "bytes", tag = "8")]
    pub key: Bytes,
    /// Effective time at its leaf.
    #[prost(int64, tag = "9")]
    pub at_us: i64,
    /// Number of effects that it declares.
    #[prost(uint32, tag = "10")]
    pub declared: u32,
}

/// A change that an independent system saw on a resource of its own.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Change {
    /// Leaf of the Observation.
    #[prost(uint64, tag = "1")]
    pub leaf: u64,
    /// Effective time there.
    #[prost(int64, tag = "2")]
    pub at_us: i64,
    /// Key that signed it; 16 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub key: Bytes,
    /// The system: 16 bytes of SHA-256 over its producer.
    #[prost(bytes = "bytes", tag = "4")]
    pub system: Bytes,
    /// The effect that the system saw.
    #[prost(message, required, tag = "5")]
    pub effect: Print,
    /// Position of the declared effect that it confirms.
    #[prost(uint32, optional, tag = "6")]
    pub declared: Option<u32>,
    /// Position of the expected effect that it is.
    #[prost(uint32, optional, tag = "7")]
    pub expected: Option<u32>,
}

/// An Observation that was matched to an act.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Observed {
    /// Its leaf.
    #[prost(uint64, tag = "1")]
    pub leaf: u64,
    /// True if an independent system saw resources of its own change.
    #[prost(bool, tag = "2")]
    pub proves: bool,
}

impl Print {
    /// The print of an effect.
    #[must_use]
    pub fn of(effect: &Effect) -> Self {
        let hashed = |name: &str| Bytes::copy_from_slice(&hash_of(name));
        Self {
            kind: hashed(&effect.kind),
            resource: hashed(&effect.resource),
            external_id: match &effect.external_id[..] {
                "" => Bytes::new(),
                id => hashed(id),
            },
            minor_units: effect.minor_units,
            currency: effect.currency.clone(),
            before: effect.before.clone(),
            after: effect.after.clone(),
        }
    }
}

/// The first 8 bytes of a hash.
pub(in crate::assess) fn short(hash: &[u8]) -> u64 {
    let first = hash.first_chunk::<8>();
    first.map_or(0, |first| u64::from_be_bytes(*first))
}

/// The short form of a resource's name.
pub(in crate::assess) fn short_of(resource: &str) -> u64 {
    short(&hash_of(resource))
}

fn hash_of(name: &str) -> [u8; 16] {
    use sha2::Digest as _;
    let digest: [u8; 32] = sha2::Sha256::digest(name).into();
    std::array::from_fn(|at| digest[at])
}

impl Act {
    /// Reads the act of the Intent at `leaf` from its cells, whole; `None` if none is kept of it. The inner
    /// error says which cell is damaged.
    ///
    /// # Errors
    /// As `cell`, which gives a cell's bytes.
    pub fn read<E>(
        leaf: u64,
        mut cell: impl FnMut(&CellKey) -> Result<Option<Bytes>, E>,
    ) -> Result<Option<Result<Self, CellKey>>, E> {
        let Some(bytes) = cell(&CellKey::Act(leaf))? else {
            return Ok(None);
        };
        let Ok(mut act) = Self::decode(bytes) else {
            return Ok(Some(Err(CellKey::Act(leaf))));
        };
        if act.expected > 0 {
            let key = CellKey::Expected(leaf);
            let expected = cell(&key)?.and_then(|bytes| Expected::decode(bytes).ok());
            let Some(expected) = expected else {
                return Ok(Some(Err(key)));
            };
            act.expected_effects = expected.effects;
        }
        if let Some(outcome) = act.outcome.as_mut().filter(|outcome| outcome.declared > 0) {
            let key = CellKey::Declared(leaf);
            let declared = cell(&key)?.and_then(|bytes| Declared::decode(bytes).ok());
            let Some(declared) = declared else {
                return Ok(Some(Err(key)));
            };
            outcome.effects = declared.effects;
        }
        for at in 0..act.systems.len() {
            let key = CellKey::Changes(leaf, act.systems[at].name());
            if act.systems[at].count > 0 {
                let changes = cell(&key)?.and_then(|bytes| Changes::decode(bytes).ok());
                let Some(changes) = changes else {
                    return Ok(Some(Err(key)));
                };
                act.join(changes.changes);
            }
        }
        Ok(Some(Ok(act)))
    }

    /// Puts in what a system saw, in order of the leaves.
    pub(in crate::assess) fn join(&mut self, changes: Vec<Change>) {
        self.changes.extend(changes);
        self.changes.sort_by_key(|change| change.leaf);
    }

    /// Sums up what is at hand of what systems saw: in short for each of them, and the external ids that
    /// declared effects were confirmed under first.
    pub(in crate::assess) fn tally(&mut self) {
        let mut of: Option<usize> = None;
        for one in &mut self.systems {
            if self
                .changes
                .iter()
                .any(|change| change.system == one.system)
            {
                (one.confirmed, one.count) = (0, 0);
            }
        }
        for change in &self.changes {
            let known = of.filter(|at| self.systems[*at].system == change.system);
            let known = known.or_else(|| {
                let mut all = self.systems.iter();
                all.position(|one| one.system == change.system)
            });
            let at = known.unwrap_or_else(|| {
                self.systems.push(SystemSaw {
                    system: change.system.clone(),
                    first_leaf: change.leaf,
                    key: change.key.clone(),
                    ..SystemSaw::default()
                });
                self.systems.len() - 1
            });
            of = Some(at);
            let one = &mut self.systems[at];
            one.count += 1;
            let Some(n) = change.declared else { continue };
            one.confirmed |= 1_u64.checked_shl(n).unwrap_or(0);
            let (n, id) = (n as usize, short(&change.effect.external_id));
            if id != 0 && n < 64 {
                if self.named.len() <= n {
                    self.named.resize(n + 1, 0);
                }
                if self.named[n] == 0 {
                    self.named[n] = id;
                }
            }
        }
    }

    /// Leaf of the first Observation that is kept of those by which an independent system saw something.
    pub(in crate::assess) fn first_seen(&self) -> Option<u64> {
        self.systems.iter().map(|one| one.first_leaf).min()
    }

    /// True if there is a finding of this kind about it.
    #[must_use]
    pub const fn has(&self, kind: FindingKind) -> bool {
        self.findings & (1 << kind as u64) != 0
    }

    pub(in crate::assess) const fn note(&mut self, kind: FindingKind) {
        self.findings |= 1 << kind as u64;
    }
}

impl SystemSaw {
    pub(in crate::assess) fn name(&self) -> System {
        self.system[..].try_into().unwrap_or_default()
    }
}
