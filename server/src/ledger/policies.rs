//! Evidence policies, compiled: each text once, after it is known who signed it, one at a time.
//!
//! Compiling takes up to a fifth of a second of one processor, a thousand times what other statements
//! take. So it is done on threads that may take their time, when the signature has been verified and
//! its key is an authority's; one text at a time in the whole server, and one request of a ledger at a
//! time: a ledger has no more than one place in the queue, whatever its callers send. What was
//! compiled is kept, within a budget of bytes, for whoever sends or loads the same text.

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
use tokio::sync::Semaphore;

use crate::store::LedgerNumber;

/// Most bytes of compiled policies that are kept besides those in force.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// Bytes of a compiled policy for each byte of its texts: syntax trees, with the places of their
/// parts.
const BYTES_PER_TEXT_BYTE: usize = 64;

/// Compiles policies, and keeps what it has compiled.
#[derive(Default)]
pub(crate) struct Policies {
    kept: Mutex<Kept>,
    queue: Queue,
    compiled: AtomicU64,
}

/// Whose turn it is.
struct Queue {
    one_at_a_time: Arc<Semaphore>,
    /// Ledgers with a request that waits, or whose policies are being compiled.
    ledgers: Arc<Mutex<HashSet<LedgerNumber>>>,
}

/// A ledger's place in the queue, until it is dropped.
struct Place {
    ledger: LedgerNumber,
    ledgers: Arc<Mutex<HashSet<LedgerNumber>>>,
}

/// The ledger has policies in the queue already, or its turn did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

#[derive(Default)]
struct Kept {
    by_digest: HashMap<[u8; 32], EvidencePolicy>,
    /// The oldest first.
    order: VecDeque<[u8; 32]>,
    bytes: usize,
}

/// PolicySets of a request, by their envelopes.
pub(crate) type Sets = Vec<(usize, TrustStatement)>;

impl Policies {
    /// Texts that were compiled so far.
    pub(crate) fn compiled(&self) -> u64 {
        self.compiled.load(Relaxed)
    }

    /// Checks PolicySets of one request that authorities signed. Returns those that must not be
    /// recorded.
    pub(crate) async fn check(
        self: &Arc<Self>,
        ledger: LedgerNumber,
        sets: Sets,
        wait_max: Duration,
    ) -> Result<Vec<(usize, WireError)>, Busy> {
        let place = self.queue.place(ledger).ok_or(Busy)?;
        let turn = Arc::clone(&self.queue.one_at_a_time).acquire_owned();
        let turn = tokio::time::timeout(wait_max, turn).await;
        let turn = turn.map_err(|_| Busy)?.map_err(|_| Busy)?;
        let policies = Arc::clone(self);
        // It goes on to its end when the caller has gone: so its place and its turn go with it.
        let checking = tokio::task::spawn_blocking(move || {
            let _held = (place, turn);
            policies.check_here(&sets)
        });
        match checking.await {
            Ok(refused) => Ok(refused),
            // What was not checked must not pass.
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    fn check_here(&self, sets: &Sets) -> Vec<(usize, WireError)> {
        let checked = sets.iter().filter_map(|(envelope, set)| {
            let checked = match set {
                TrustStatement::PolicySet { policy, .. } => {
                    self.counted(policy, || set.check_policy())
                }
                _ => Ok(()),
            };
            Some((*envelope, checked.err()?))
        });
        checked.collect()
    }

    /// Compiles a policy of a ledger that is being loaded. One that cannot be is told by
    /// [`trust::Registry::can_judge`](deed_evidence::trust::Registry::can_judge).
    pub(crate) fn load(&self, policy: &StoredPolicy) {
        self.counted(policy, || {
            // Whether it can be is asked where something is to be judged by it.
            let _ = policy.compiled();
        });
    }

    /// Takes a ledger's place in the queue, as a request does.
    #[cfg(test)]
    pub(crate) fn hold(&self, ledger: LedgerNumber) -> impl Drop + use<> {
        let place = self.queue.place(ledger);
        place.expect("nobody has it")
    }

    /// Runs what compiles a policy, unless the same text is kept.
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
            one_at_a_time: Arc::new(Semaphore::new(1)),
            ledgers: Arc::default(),
        }
    }
}

impl Queue {
    fn place(&self, ledger: LedgerNumber) -> Option<Place> {
        let is_new = self.ledgers.lock().insert(ledger);
        let ledgers = Arc::clone(&self.ledgers);
        is_new.then_some(Place { ledger, ledgers })
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

    fn sets(policies: &[StoredPolicy]) -> Sets {
        let set = |policy: &StoredPolicy| TrustStatement::PolicySet {
            policy: policy.clone(),
            rules_version: 2,
        };
        policies.iter().map(set).enumerate().collect()
    }

    #[tokio::test]
    async fn a_text_is_compiled_once() {
        let policies = Arc::new(Policies::default());
        let wait = Duration::from_secs(60);
        let ledger = LedgerNumber(1);
        for wanted in [1, 1] {
            let refused = policies.check(ledger, sets(&[stored(1)]), wait).await;
            assert_eq!(refused, Ok(Vec::new()));
            assert_eq!(policies.compiled(), wanted);
        }
        // Also where another ledger loads it.
        let loaded = stored(1);
        policies.load(&loaded);
        assert!(loaded.is_compiled());
        assert_eq!(policies.compiled(), 1);
        let refused = policies
            .check(ledger, sets(&[stored(1), stored(2)]), wait)
            .await;
        assert_eq!((refused, policies.compiled()), (Ok(Vec::new()), 2));
    }

    #[tokio::test]
    async fn a_ledger_has_one_place_and_gets_it_back() {
        let policies = Arc::new(Policies::default());
        let wait = Duration::from_secs(60);
        let (one, other) = (LedgerNumber(1), LedgerNumber(2));
        let place = policies.queue.place(one);
        assert!(place.is_some());
        let refused = policies.check(one, sets(&[stored(1)]), wait).await;
        assert_eq!((refused, policies.compiled()), (Err(Busy), 0));
        let taken = policies.check(other, sets(&[stored(1)]), wait).await;
        assert_eq!(taken, Ok(Vec::new()));
        drop(place);
        let taken = policies.check(one, sets(&[stored(1)]), wait).await;
        assert_eq!(taken, Ok(Vec::new()));
        assert!(policies.queue.ledgers.lock().is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let mut kept = Kept::default();
        let one = bytes_of(stored(0).compiled().unwrap());
        for number in 0..10 {
            kept.keep(stored(number).compiled().unwrap().clone(), 3 * one);
            // The same again takes no more.
            kept.keep(stored(number).compiled().unwrap().clone(), 3 * one);
            assert!(kept.bytes <= 3 * one);
        }
        assert_eq!((kept.by_digest.len(), kept.order.len()), (3, 3));
        assert!(kept.by_digest.contains_key(&stored(9).digest()));
    }
}
