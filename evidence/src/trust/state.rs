//! The trust state: what the trust statements so far say together.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use deed_tlog::{Hash, LeafIndex, PublicKey, TreeSize, VerifierKey};

use super::{
    ErasureRefusal, Hold, HoldScope, KeyRecord, KeyRefusal, KeyRegistration, LOG_KEYS_MAX, LogKeys,
    PolicyInForce, Reference, TrustLink, TrustRefusal, TrustStatement,
};
use crate::{
    CommitmentDigest, HoldId, KeyId, LedgerId, Micros, genesis::Genesis, policy::UnreadablePolicy,
    signature::key_id, statement::BodyKind,
};

/// The trust state of a ledger after some of its trust statements: who speaks for whom, and the rules in
/// force. A function of these statements and their leaves, so two that were fed the same are equal.
///
/// A clone shares the records of keys, and copies the tables that lead to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustState {
    ledger_id: LedgerId,
    head: TrustLink,
    version: u64,
    authorities: BTreeMap<KeyId, PublicKey>,
    /// Also those that are none any more: their keys are nobody else's.
    authorities_ever: HashMap<KeyId, PublicKey>,
    keys: HashMap<KeyId, Arc<KeyRecord>>,
    /// Producers that a key was ever registered for.
    keyed_producers: HashSet<String>,
    /// By principal, then by producer.
    bindings: HashMap<String, HashMap<String, Bound>>,
    /// Principal and producer of each binding there ever was, by its leaf.
    bound_at: HashMap<LeafIndex, (String, String)>,
    /// Moments at which a key or a binding comes into force or ends.
    boundaries: BTreeSet<Micros>,
    retention_floor_us: i64,
    holds: BTreeMap<HoldId, Hold>,
    holds_ever: HashSet<HoldId>,
    policy: Option<PolicyInForce>,
    rules_version: u32,
    log_keys: LogKeys,
    /// Leaves of what shows that a log key took over by an authority's will: AuthoritiesChanged and
    /// LogKeyRotated.
    log_key_leaves: Vec<LeafIndex>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bound {
    leaf: LeafIndex,
    valid_until: Micros,
}

impl TrustState {
    /// The trust state of a ledger that has its genesis entry alone. (A `Genesis` that was read from
    /// an entry has good keys only. One that is not is nobody's, and is left out.)
    #[must_use]
    pub fn genesis(ledger_id: LedgerId, genesis: &Genesis) -> Self {
        let keys = genesis.authority_keys.iter();
        let keys = keys.filter_map(|key| PublicKey::from_bytes(key).ok());
        let authorities: BTreeMap<_, _> = keys.map(|key| (key_id(&key), key)).collect();
        Self {
            ledger_id,
            head: TrustLink {
                leaf_index: LeafIndex::new(0),
                leaf_hash: *ledger_id.hash(),
            },
            version: 0,
            authorities_ever: authorities.clone().into_iter().collect(),
            authorities,
            keys: HashMap::new(),
            keyed_producers: HashSet::new(),
            bindings: HashMap::new(),
            bound_at: HashMap::new(),
            boundaries: BTreeSet::new(),
            retention_floor_us: 0,
            holds: BTreeMap::new(),
            holds_ever: HashSet::new(),
            policy: None,
            rules_version: genesis.rules_version,
            log_keys: LogKeys::new(genesis.log_key.clone()),
            log_key_leaves: Vec::new(),
        }
    }

    /// Judges a trust statement that `signer`'s key verified, at effective time `at`.
    ///
    /// Its proof of possession is not checked here ([`TrustStatement::verify_possession`]), and of
    /// an erasure only what the state knows: for the rest there is [`TrustState::erasable`].
    ///
    /// # Errors
    /// [`TrustRefusal`] if it must not be recorded.
    pub fn judge(
        &self,
        statement: &TrustStatement,
        signer: KeyId,
        at: Micros,
    ) -> Result<(), TrustRefusal> {
        if !self.authorities.contains_key(&signer) {
            return Err(if self.keys.contains_key(&signer) {
                TrustRefusal::SignerNotAuthority { signer }
            } else {
                TrustRefusal::SignerUnknown { signer }
            });
        }
        match statement {
            TrustStatement::AuthoritiesChanged(keys) => self.judge_authorities(keys),
            TrustStatement::KeyRegistered(key) => self.judge_registration(key, at),
            TrustStatement::KeyRevoked {
                key_id,
                compromised_since,
                ..
            } => self.judge_revocation(*key_id, *compromised_since),
            TrustStatement::PrincipalBound { .. }
            | TrustStatement::PolicySet { .. }
            | TrustStatement::RetentionSet { .. } => Ok(()),
            TrustStatement::LegalHoldPlaced { hold, .. } => {
                if self.holds_ever.contains(hold) {
                    return Err(TrustRefusal::HoldUsed { hold: *hold });
                }
                Ok(())
            }
            TrustStatement::LegalHoldReleased { hold } => {
                if !self.holds.contains_key(hold) {
                    return Err(TrustRefusal::HoldNotInForce { hold: *hold });
                }
                Ok(())
            }
            TrustStatement::LogKeyRotated { log_key } => self.judge_log_key(log_key),
            TrustStatement::Erasure(commitments) => {
                for commitment in commitments {
                    self.not_held(commitment, &[])?;
                }
                Ok(())
            }
        }
    }

    fn judge_authorities(&self, keys: &[PublicKey]) -> Result<(), TrustRefusal> {
        let registered = keys
            .iter()
            .map(key_id)
            .find(|key_id| self.keys.contains_key(key_id));
        match registered {
            Some(key_id) => Err(TrustRefusal::AuthorityRegistered { key_id }),
            None => Ok(()),
        }
    }

    fn judge_registration(&self, key: &KeyRegistration, at: Micros) -> Result<(), TrustRefusal> {
        let key_id = key.key_id();
        if self.keys.contains_key(&key_id) {
            return Err(TrustRefusal::KeyRegisteredBefore { key_id });
        }
        if self.authorities_ever.contains_key(&key_id) {
            return Err(TrustRefusal::KeyOfAuthority { key_id });
        }
        let valid_until = key.valid_until;
        if valid_until <= at {
            return Err(TrustRefusal::KeyEnded {
                key_id,
                valid_until,
                at,
            });
        }
        Ok(())
    }

    /// A key is revoked once. That somebody else had it may show later, and longer ago than was known.
    fn judge_revocation(
        &self,
        key_id: KeyId,
        compromised_since: Option<Micros>,
    ) -> Result<(), TrustRefusal> {
        let earlier = |key: &KeyRecord| {
            compromised_since
                .is_some_and(|since| key.compromised_since.is_none_or(|known| since < known))
        };
        match self.keys.get(&key_id) {
            None => Err(TrustRefusal::KeyNotRegistered { key_id }),
            Some(key) if earlier(key) => Ok(()),
            Some(key) => match key.revoked_at {
                Some(revoked_at) => Err(TrustRefusal::KeyRevokedBefore { key_id, revoked_at }),
                None => Ok(()),
            },
        }
    }

    /// It is for the server to know that it has the key.
    fn judge_log_key(&self, log_key: &VerifierKey) -> Result<(), TrustRefusal> {
        if log_key.name() != self.log_keys.first().key.name() {
            return Err(TrustRefusal::LogKeyName);
        }
        if let Some(first_size) = self.log_keys.namesake(log_key) {
            return Err(TrustRefusal::LogKeyUsed { first_size });
        }
        if self.log_keys.all().len() >= LOG_KEYS_MAX {
            return Err(TrustRefusal::LogKeysMany);
        }
        Ok(())
    }

    /// Takes a trust statement that [`TrustState::judge`] let pass and that is leaf `leaf_index`
    /// now. `at` is the effective time of that leaf.
    pub fn apply(
        &mut self,
        statement: &TrustStatement,
        at: Micros,
        leaf_index: LeafIndex,
        leaf_hash: Hash,
    ) {
        match statement {
            TrustStatement::AuthoritiesChanged(keys) => {
                self.authorities = keys.iter().map(|key| (key_id(key), key.clone())).collect();
                self.authorities_ever.extend(self.authorities.clone());
                self.log_key_leaves.push(leaf_index);
            }
            TrustStatement::KeyRegistered(key) => self.register(key, leaf_index),
            TrustStatement::KeyRevoked {
                key_id,
                compromised_since,
            } => self.revoke(*key_id, *compromised_since, at, leaf_index),
            TrustStatement::PrincipalBound {
                principal,
                producer,
                valid_until,
            } => {
                let bound = Bound {
                    leaf: leaf_index,
                    valid_until: *valid_until,
                };
                self.boundaries.insert(*valid_until);
                self.bound_at
                    .insert(leaf_index, (principal.clone(), producer.clone()));
                let producers = self.bindings.entry(principal.clone()).or_default();
                producers.insert(producer.clone(), bound);
            }
            TrustStatement::PolicySet {
                policy,
                rules_version,
            } => {
                let policy = policy.clone();
                self.policy = Some(PolicyInForce {
                    policy,
                    leaf: leaf_index,
                });
                self.rules_version = *rules_version;
            }
            TrustStatement::RetentionSet { floor_us } => self.retention_floor_us = *floor_us,
            TrustStatement::LegalHoldPlaced { hold, scope } => {
                self.holds_ever.insert(*hold);
                let placed = Hold {
                    hold: *hold,
                    scope: *scope,
                    placed_leaf: leaf_index,
                };
                self.holds.insert(*hold, placed);
            }
            TrustStatement::LegalHoldReleased { hold } => {
                self.holds.remove(hold);
            }
            TrustStatement::LogKeyRotated { log_key } => {
                let first_size = TreeSize::new(leaf_index.get().saturating_add(1));
                // Judged, so it fits; what was not judged changes nothing.
                if self.log_keys.push(log_key.clone(), first_size) {
                    self.log_key_leaves.push(leaf_index);
                }
            }
            // Which contents are gone is for whoever keeps contents.
            TrustStatement::Erasure(_) => {}
        }
        self.head = TrustLink {
            leaf_index,
            leaf_hash,
        };
        self.version += 1;
    }

    fn register(&mut self, key: &KeyRegistration, leaf: LeafIndex) {
        let key_id = key.key_id();
        let record = KeyRecord {
            key_id,
            public_key: key.public_key.clone(),
            role: key.role,
            producer: key.producer.clone(),
            controller: key.controller.clone(),
            valid_from: key.valid_from,
            valid_until: key.valid_until,
            revoked_at: None,
            compromised_since: None,
            acts_for: key.acts_for.clone(),
            resources: key.resources.clone(),
            registered_leaf: leaf,
            revoked_leaf: None,
        };
        self.boundaries.extend([key.valid_from, key.valid_until]);
        self.keyed_producers.insert(key.producer.clone());
        self.keys.insert(key_id, Arc::new(record));
    }

    fn revoke(
        &mut self,
        key_id: KeyId,
        compromised_since: Option<Micros>,
        at: Micros,
        leaf: LeafIndex,
    ) {
        let Some(record) = self.keys.get_mut(&key_id) else {
            return;
        };
        let record = Arc::make_mut(record);
        record.compromised_since = compromised_since.or(record.compromised_since);
        if record.revoked_at.is_none() {
            record.revoked_at = Some(at);
            record.revoked_leaf = Some(leaf);
        }
    }
}

/// Questions of others.
impl TrustState {
    /// The ledger.
    #[must_use]
    pub const fn ledger_id(&self) -> LedgerId {
        self.ledger_id
    }

    /// The newest trust statement; the genesis entry at first. What the next one links to.
    #[must_use]
    pub const fn head(&self) -> TrustLink {
        self.head
    }

    /// Trust statements so far. Another number means that other answers are possible.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Until when all answers about keys and bindings stay what they are at `at`, that moment
    /// excluded, as long as the version does; [`Micros::MAX`] if nothing is going to change.
    #[must_use]
    pub fn stable_until(&self, at: Micros) -> Micros {
        use std::ops::Bound::{Excluded, Unbounded};
        let later = (Excluded(at), Unbounded);
        let next = self.boundaries.range(later).next();
        next.copied().unwrap_or(Micros::MAX)
    }

    /// A registered key, whether it is in force or not.
    #[must_use]
    pub fn key(&self, key_id: KeyId) -> Option<&KeyRecord> {
        self.keys.get(&key_id).map(AsRef::as_ref)
    }

    /// All registered keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &KeyRecord> {
        self.keys.values().map(AsRef::as_ref)
    }

    /// The key that speaks for `producer` at effective time `at`, if it does.
    ///
    /// # Errors
    /// [`KeyRefusal`] if the key is unknown, another's, or not in force.
    pub fn speaks(
        &self,
        key_id: KeyId,
        producer: &str,
        at: Micros,
    ) -> Result<&KeyRecord, KeyRefusal> {
        let Some(key) = self.key(key_id) else {
            return Err(if self.authorities.contains_key(&key_id) {
                KeyRefusal::Authority { key_id }
            } else {
                KeyRefusal::Unknown { key_id }
            });
        };
        let (valid_from, valid_until) = (key.valid_from, key.valid_until);
        if key.producer != producer {
            Err(KeyRefusal::OtherProducer { key_id })
        } else if let Some(revoked_at) = key.revoked_at {
            Err(KeyRefusal::Revoked { key_id, revoked_at })
        } else if at < valid_from {
            Err(KeyRefusal::NotYet {
                key_id,
                valid_from,
                at,
            })
        } else if at >= valid_until {
            Err(KeyRefusal::Ended {
                key_id,
                valid_until,
                at,
            })
        } else {
            Ok(key)
        }
    }

    /// The key of an authority of now.
    #[must_use]
    pub fn is_authority(&self, key_id: KeyId) -> Option<&PublicKey> {
        self.authorities.get(&key_id)
    }

    /// The key of an authority of now or of earlier: what it signed then still verifies.
    #[must_use]
    pub fn was_authority(&self, key_id: KeyId) -> Option<&PublicKey> {
        self.authorities_ever.get(&key_id)
    }

    /// The authorities of now, by key id.
    pub fn authorities(&self) -> impl Iterator<Item = (KeyId, &PublicKey)> {
        self.authorities.iter().map(|(key_id, key)| (*key_id, key))
    }

    /// Returns true if `producer` was ever given a key: from then on it is taken at its signature
    /// only, also when its keys have ended. A key that was revoked must not open the door to anybody.
    #[must_use]
    pub fn has_had_key(&self, producer: &str) -> bool {
        self.keyed_producers.contains(producer)
    }

    /// The leaf that lets `principal` deliver statements of `producer` at `at`.
    #[must_use]
    pub fn binding(&self, principal: &str, producer: &str, at: Micros) -> Option<LeafIndex> {
        let bound = self.bindings.get(principal)?.get(producer)?;
        (at < bound.valid_until).then_some(bound.leaf)
    }

    /// The newest binding of the two, in force or not.
    #[must_use]
    pub fn last_binding(&self, principal: &str, producer: &str) -> Option<LeafIndex> {
        Some(self.bindings.get(principal)?.get(producer)?.leaf)
    }

    /// The principal and the producer that the statement at a leaf has bound.
    #[must_use]
    pub fn bound_at(&self, leaf: LeafIndex) -> Option<(&str, &str)> {
        let (principal, producer) = self.bound_at.get(&leaf)?;
        Some((principal, producer))
    }

    /// The time that contents are kept at least, in microseconds; 0 for no floor.
    #[must_use]
    pub const fn retention_floor_us(&self) -> i64 {
        self.retention_floor_us
    }

    /// The evidence policy in force; none before the first PolicySet.
    #[must_use]
    pub const fn policy(&self) -> Option<&PolicyInForce> {
        self.policy.as_ref()
    }

    /// Returns whether statements of a kind can be judged here. Those that the policy in force
    /// decides of (Intents, and evidence for them) cannot if this build does not read it. They are
    /// refused then, and a replay ends there: denying them would be a verdict, and other builds, which
    /// read the policy, would come to another one.
    ///
    /// # Errors
    /// [`UnreadablePolicy`], which says how a ledger gets out of that.
    pub fn can_judge(&self, body: BodyKind) -> Result<(), UnreadablePolicy> {
        match &self.policy {
            Some(PolicyInForce { policy, leaf }) if body.needs_policy() => {
                match policy.compiled() {
                    Ok(_) => Ok(()),
                    Err(error) => Err(UnreadablePolicy::new(leaf.get(), policy, error)),
                }
            }
            _ => Ok(()),
        }
    }

    /// The rules in force: those of the genesis entry, or of the newest PolicySet.
    #[must_use]
    pub const fn rules_version(&self) -> u32 {
        self.rules_version
    }

    /// The keys that sign the tree heads, and from which size on.
    #[must_use]
    pub const fn log_keys(&self) -> &LogKeys {
        &self.log_keys
    }

    /// Leaves of every AuthoritiesChanged and LogKeyRotated, ascending: what a [`LogKeyChain`] takes.
    ///
    /// [`LogKeyChain`]: super::LogKeyChain
    #[must_use]
    pub fn log_key_leaves(&self) -> &[LeafIndex] {
        &self.log_key_leaves
    }

    /// The legal holds in force, by id.
    pub fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.values()
    }

    /// Checks that a content that these statements commit to may be erased at effective time `at`.
    ///
    /// # Errors
    /// [`ErasureRefusal`] naming a hold that covers it, or the time at which it may be erased.
    pub fn erasable(
        &self,
        commitment: &CommitmentDigest,
        references: &[Reference],
        at: Micros,
    ) -> Result<(), ErasureRefusal> {
        self.not_held(commitment, references)?;
        let recorded = references.iter().map(|reference| reference.recorded_at);
        let floor = self.retention_floor_us;
        let until = recorded.max().map(|last| last.get().saturating_add(floor));
        match until.map(Micros::new) {
            Some(until) if floor > 0 && at < until => Err(ErasureRefusal::Retention {
                commitment: *commitment,
                until,
                at,
            }),
            _ => Ok(()),
        }
    }

    fn not_held(
        &self,
        commitment: &CommitmentDigest,
        references: &[Reference],
    ) -> Result<(), ErasureRefusal> {
        let covers = |hold: &&Hold| match hold.scope {
            HoldScope::Ledger => true,
            HoldScope::Commitment(held) => held == *commitment,
            HoldScope::Task(task) => references
                .iter()
                .any(|reference| reference.task == Some(task)),
        };
        match self.holds().find(covers) {
            Some(hold) => Err(ErasureRefusal::LegalHold {
                commitment: *commitment,
                hold: hold.hold,
            }),
            None => Ok(()),
        }
    }
}
