//! Compilation of evidence policies: each text once, after its signature was verified, one at a
//! time.
//!
//! Compiling takes up to a fifth of a second of one processor, a thousand times as long as other
//! statements take. So it is done on threads that may take their time, after the signature has been
//! verified and its key is known to be an authority's. The whole server compiles one text at a
//! time, and callers take turns, text by text. One request of each ledger waits at a time, so a
//! ledger has no more than one place in the queue, whatever its callers send. Compiled policies are
//! kept, within a budget of bytes, for other requests and ledgers with the same text.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use deed_evidence::{
    WireError,
    policy::{EvidencePolicy, StoredPolicy},
    trust::TrustStatement,
};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::step::SharedTrust;
use crate::{
    admission::PolicySets,
    pressure::{Budget, SourceKey},
    store::LedgerNumber,
};

/// Most bytes of compiled policies that are kept in addition to those in force.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// Bytes that a compiled policy takes for each byte of its texts: syntax trees, with the positions
/// of their parts.
const BYTES_PER_TEXT_BYTE: usize = 64;

/// Returns the bytes that a ledger's policy in force takes. Returns 0 while its trust state is
/// being changed: the ledger is in use then, and is examined again later.
pub(crate) fn bytes_in_force(trust: &SharedTrust) -> usize {
    let trust = trust.try_read();
    let in_force = trust.as_ref().and_then(|trust| trust.policy());
    in_force.map_or(0, |one| one.policy.byte_len() * BYTES_PER_TEXT_BYTE)
}

/// Compiles policies, and keeps the compiled ones.
#[derive(Default)]
pub struct Policies {
    kept: Mutex<Kept>,
    queue: Queue,
    compiled: AtomicU64,
}

/// The ledgers that wait for a compilation, and the turn of the one that compiles.
struct Queue {
    one_at_a_time: Budget,
    /// Ledgers with a request that waits, or with policies that are being compiled.
    ledgers: Arc<Mutex<HashSet<LedgerNumber>>>,
}

/// A ledger's place in the queue, until it is dropped.
struct Place {
    ledger: LedgerNumber,
    ledgers: Arc<Mutex<HashSet<LedgerNumber>>>,
}

/// The ledger has policies in the queue already, or its turn did not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

#[derive(Default)]
struct Kept {
    by_digest: HashMap<[u8; 32], EvidencePolicy>,
    /// Digests of the kept policies, the oldest first.
    order: VecDeque<[u8; 32]>,
    bytes: usize,
}

impl Policies {
    /// Returns the number of texts that were compiled so far.
    pub fn compiled(&self) -> u64 {
        self.compiled.load(Relaxed)
    }

    /// Checks the PolicySets of one request, all of which are signed by authorities. Returns those
    /// that must not be recorded, with the reasons.
    pub async fn check(
        self: &Arc<Self>,
        ledger: LedgerNumber,
        caller: &SourceKey,
        sets: PolicySets,
        wait_max: Duration,
    ) -> Result<Vec<(usize, WireError)>, Busy> {
        let place = Arc::new(self.queue.place(ledger).ok_or(Busy)?);
        let until = Instant::now() + wait_max;
        let mut refused = Vec::new();
        for (envelope, set) in sets {
            // Each text takes a turn: a caller with one text waits for only one text of a caller
            // with many.
            let turn = self.queue.one_at_a_time.take(caller, 1);
            let turn = timeout_at(until, turn).await.map_err(|_| Busy)?;
            let (policies, place) = (Arc::clone(self), Arc::clone(&place));
            // The work goes on if the caller has gone, so the ledger's place and the turn move
            // along.
            let checking = tokio::task::spawn_blocking(move || {
                let _held = (place, turn);
                policies.check_here(&set)
            });
            match checking.await {
                Ok(checked) => refused.extend(checked.err().map(|why| (envelope, why))),
                // Resuming the panic keeps an unchecked policy from passing.
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
        Ok(refused)
    }

    fn check_here(&self, set: &TrustStatement) -> Result<(), WireError> {
        match set {
            TrustStatement::PolicySet { policy, .. } => self.counted(policy, || set.check_policy()),
            _ => Ok(()),
        }
    }

    /// Compiles the policy of a ledger that is being loaded. If that fails,
    /// [`trust::TrustState::can_judge`](deed_evidence::trust::TrustState::can_judge) reports it.
    pub fn load(&self, policy: &StoredPolicy) {
        self.counted(policy, || {
            // The result is asked for when the policy has to judge something.
            let _ = policy.compiled();
        });
    }

    /// Takes a ledger's place in the queue, as a request does.
    #[cfg(test)]
    pub fn hold(&self, ledger: LedgerNumber) -> impl Drop + use<> {
        let place = self.queue.place(ledger);
        place.expect("nobody has it")
    }

    /// Runs `compile`, unless the compiled policy of the same text is kept; counts and keeps a new
    /// one.
    fn counted<T>(&self, policy: &StoredPolicy, compile: impl FnOnce() -> T) -> T {
        if let Some(known) = self.kept.lock().by_digest.get(&policy.digest()) {
            policy.adopt(known);
        }
        let known = policy.is_compiled();
        let checked = compile();
        if !known && policy.is_compiled() {
            self.compiled.fetch_add(1, Relaxed);
            if let Ok(compiled) = policy.compiled() {
                self.kept.lock().keep(compiled.clone(), KEPT_BYTES_MAX);
            }
        }
        checked
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            one_at_a_time: Budget::of_places(1, 1),
            ledgers: Arc::default(),
        }
    }
}

impl Queue {
    fn place(&self, ledger: LedgerNumber) -> Option<Place> {
        let is_new = self.ledgers.lock().insert(ledger);
        let ledgers = Arc::clone(&self.ledgers);
        is_new.then(|| Place { ledger, ledgers })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.ledgers.lock().remove(&self.ledger);
    }
}

impl Kept {
    fn keep(&mut self, policy: EvidencePolicy, bytes_max: usize) {
        let digest = policy.digest();
        self.bytes += bytes_of(&policy);
        if let Some(same) = self.by_digest.insert(digest, policy) {
            self.bytes -= bytes_of(&same);
        } else {
            self.order.push_back(digest);
        }
        while self.bytes > bytes_max
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some(gone) = self.by_digest.remove(&oldest) {
                self.bytes -= bytes_of(&gone);
            }
        }
    }
}

fn bytes_of(policy: &EvidencePolicy) -> usize {
    (policy.policies().len() + policy.schema().len()) * BYTES_PER_TEXT_BYTE
}

#[cfg(test)]
mod tests {
    use deed_evidence::policy::{CEDAR_VERSION, DEFAULT_SCHEMA};

    use super::*;

    fn stored(number: usize) -> StoredPolicy {
        let text = format!("permit (principal, action, resource); // {number:04}");
        StoredPolicy::new(&text, DEFAULT_SCHEMA, CEDAR_VERSION)
    }

    fn sets(policies: &[StoredPolicy]) -> PolicySets {
        let set = |policy: &StoredPolicy| TrustStatement::PolicySet {
            policy: policy.clone(),
            rules_version: 2,
        };
        policies.iter().map(set).enumerate().collect()
    }

    async fn check(
        policies: &Arc<Policies>,
        ledger: LedgerNumber,
        caller: u64,
        sets: PolicySets,
    ) -> Result<Vec<(usize, WireError)>, Busy> {
        let caller = SourceKey::Connection(caller);
        let wait = Duration::from_secs(60);
        policies.check(ledger, &caller, sets, wait).await
    }

    #[tokio::test]
    async fn a_text_is_compiled_once() {
        let policies = Arc::new(Policies::default());
        let ledger = LedgerNumber(1);
        for wanted in [1, 1] {
            let refused = check(&policies, ledger, 1, sets(&[stored(1)])).await;
            assert_eq!(refused, Ok(Vec::new()));
            assert_eq!(policies.compiled(), wanted);
        }
        // Another ledger that loads the text does not compile it again.
        let loaded = stored(1);
        policies.load(&loaded);
        assert!(loaded.is_compiled());
        assert_eq!(policies.compiled(), 1);
        let refused = check(&policies, ledger, 1, sets(&[stored(1), stored(2)])).await;
        assert_eq!((refused, policies.compiled()), (Ok(Vec::new()), 2));
    }

    #[tokio::test]
    async fn a_ledger_has_one_place_and_gets_it_back() {
        let policies = Arc::new(Policies::default());
        let (one, other) = (LedgerNumber(1), LedgerNumber(2));
        let place = policies.queue.place(one);
        assert!(place.is_some());
        // A refused request does not give up the place of the one that has it, however often it
        // asks.
        for _ in 0..2 {
            let refused = check(&policies, one, 2, sets(&[stored(1)])).await;
            assert_eq!((refused, policies.compiled()), (Err(Busy), 0));
        }
        let taken = check(&policies, other, 2, sets(&[stored(1)])).await;
        assert_eq!(taken, Ok(Vec::new()));
        drop(place);
        let taken = check(&policies, one, 2, sets(&[stored(1)])).await;
        assert_eq!(taken, Ok(Vec::new()));
        assert!(policies.queue.ledgers.lock().is_empty());
    }

    #[tokio::test]
    async fn who_sends_one_text_waits_for_one_of_whoever_sends_many() {
        let policies = Arc::new(Policies::default());
        let queue = &policies.queue.one_at_a_time;
        let turn = queue.take(&SourceKey::Server, 1).await;
        // One caller has four texts in each of three ledgers, and another has a single text behind
        // them.
        let many = (1..4_usize).map(|ledger| {
            let texts: Vec<_> = (0..4).map(|text| stored(10 * ledger + text)).collect();
            let ledger = LedgerNumber(u32::try_from(ledger).unwrap());
            let policies = Arc::clone(&policies);
            tokio::spawn(async move { check(&policies, ledger, 1, sets(&texts)).await })
        });
        let many: Vec<_> = many.collect();
        tokio::task::yield_now().await;
        let one = {
            let policies = Arc::clone(&policies);
            tokio::spawn(async move {
                let refused = check(&policies, LedgerNumber(9), 2, sets(&[stored(0)])).await;
                (refused, policies.compiled())
            })
        };
        tokio::task::yield_now().await;
        drop(turn);
        let (refused, compiled) = one.await.unwrap();
        assert_eq!(refused, Ok(Vec::new()));
        // The count includes its own text, those before it, and those compiled while it was being
        // woken.
        assert!(compiled <= 4, "{compiled}");
        for many in many {
            assert_eq!(many.await.unwrap(), Ok(Vec::new()));
        }
        assert_eq!(policies.compiled(), 13);
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let mut kept = Kept::default();
        let one = bytes_of(stored(0).compiled().unwrap());
        for number in 0..10 {
            kept.keep(stored(number).compiled().unwrap().clone(), 3 * one);
            // The same text takes no more room.
            kept.keep(stored(number).compiled().unwrap().clone(), 3 * one);
            assert!(kept.bytes <= 3 * one);
        }
        assert_eq!((kept.by_digest.len(), kept.order.len()), (3, 3));
        assert!(kept.by_digest.contains_key(&stored(9).digest()));
    }
}
