//! Trust states of earlier sizes, rebuilt from the store.
//!
//! An answer that is made in parts while the ledger goes on needs the trust state of the size at
//! which it began. Rebuilding that reads the whole trust chain, in time and in memory. So answers
//! of the same size share one, and each ledger has only a few at a time.

use std::sync::{Arc, Weak};

use deed_evidence::trust::TrustState;
use deed_tlog::TreeSize;
use parking_lot::Mutex;

/// Earlier trust states of one ledger that are in memory at once.
pub(crate) const PAST_MAX: usize = 2;

#[derive(Debug)]
pub struct PastTrust<T = TrustState>(Mutex<Vec<(TreeSize, Weak<T>)>>);

impl<T> Default for PastTrust<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> PastTrust<T> {
    /// Returns the trust state of a size, rebuilt with `make` if it is not in memory; `None` if as
    /// many others are in use as there may be. One is rebuilt at a time.
    pub fn at<E>(
        &self,
        size: TreeSize,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Option<Arc<T>>, E> {
        let mut held = self.0.lock();
        held.retain(|(_, trust)| trust.strong_count() > 0);
        let known = held.iter().find(|(of, _)| *of == size);
        if let Some(trust) = known.and_then(|(_, trust)| trust.upgrade()) {
            return Ok(Some(trust));
        }
        if held.len() >= PAST_MAX {
            return Ok(None);
        }
        let made = Arc::new(make()?);
        held.push((size, Arc::downgrade(&made)));
        Ok(Some(made))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn few_are_held_and_those_of_one_size_are_shared() {
        let past = PastTrust::<u64>::default();
        let at = |size: u64| {
            let made = past.at(TreeSize::new(size), || Ok::<_, Infallible>(size));
            made.unwrap()
        };
        let (first, again) = (at(1).unwrap(), at(1).unwrap());
        assert!(Arc::ptr_eq(&first, &again));
        let second = at(2).unwrap();
        assert_eq!(at(3), None);
        assert!(at(2).is_some());
        drop(first);
        assert_eq!(at(3), None, "somebody has it still");
        drop(again);
        assert_eq!(at(3).as_deref(), Some(&3));
        drop(second);
        assert_eq!(at(4).as_deref(), Some(&4));
    }
}
