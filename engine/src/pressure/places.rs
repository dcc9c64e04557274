//! Places: bounds on what callers may have open at once for a long time, such as streams of reads
//! and uploads.
//!
//! A place is counted for the server, its source, its ledger and its connection, and each of these
//! has a bound. So a caller that opens as many as it may leaves places to others; anonymous callers
//! together leave some to known ones; and an eighth of the server's places, and of a ledger's, is
//! kept for known callers that have none yet. Nothing waits for a place: a taken place is given
//! back when its holder ends, or is ended because it is too slow.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{LimitReached, Source, SourceKey};
use crate::store::LedgerNumber;

/// Time after which a caller may try again that found no place: only the end of another one makes
/// room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The bounds on places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub server: usize,
    /// Most places of one ledger.
    pub ledger: usize,
    /// Most places of one source.
    pub source: usize,
    /// Most places of all anonymous callers together.
    pub strangers: usize,
    /// Most places of one address of anonymous callers.
    pub stranger: usize,
    /// Most places of one connection.
    pub connection: usize,
}

impl Bounds {
    /// Returns the usual shares of `server` places: half for a ledger, a quarter for a principal, a
    /// quarter for all anonymous callers, and a sixteenth for one of their addresses.
    pub fn shared(server: usize, connection: usize) -> Self {
        let part = |divisor: usize| (server / divisor).max(1);
        Self {
            server,
            ledger: part(2),
            source: part(4),
            strangers: part(4),
            stranger: part(16),
            connection,
        }
    }
}

/// Places of one kind.
#[derive(Debug)]
pub struct Places {
    /// Name of what the places are for, in the plural.
    what: &'static str,
    bounds: Bounds,
    taken: Mutex<Taken>,
    refused: AtomicU64,
}

/// Numbers of taken places; holders that have none are not in it.
#[derive(Debug, Default)]
struct Taken {
    server: usize,
    strangers: usize,
    sources: HashMap<SourceKey, usize>,
    ledgers: HashMap<LedgerNumber, usize>,
    connections: HashMap<u64, usize>,
}

/// A place; dropping it gives it back.
#[derive(Debug)]
#[must_use]
pub struct Place {
    places: Arc<Places>,
    source: SourceKey,
    ledger: Option<LedgerNumber>,
    /// Number of the connection; 0 if it is unknown: such places are not counted by connection,
    /// because they would be counted together.
    connection: u64,
}

impl Places {
    pub fn new(what: &'static str, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            what,
            bounds,
            taken: Mutex::default(),
            refused: AtomicU64::default(),
        })
    }

    /// Takes a place. What the caller may do must be known by then.
    ///
    /// # Errors
    /// [`LimitReached`], which says whose bound it is.
    pub fn take(
        self: &Arc<Self>,
        source: &Source,
        ledger: Option<LedgerNumber>,
    ) -> Result<Place, LimitReached> {
        let key = source.key();
        let mut taken = self.taken.lock();
        if let Some((who, max)) = self.full(&taken, source.id, &key, ledger) {
            drop(taken);
            self.refused.fetch_add(1, Relaxed);
            let what = self.what;
            return Err(LimitReached {
                what: format!(
                    "no more than {max} {what} at once are allowed to {who}; end one of yours, or come back later"
                ),
                retry_after: RETRY_AFTER,
            });
        }
        taken.server += 1;
        taken.strangers += usize::from(key.is_stranger());
        *taken.sources.entry(key.clone()).or_insert(0) += 1;
        if let Some(ledger) = ledger {
            *taken.ledgers.entry(ledger).or_insert(0) += 1;
        }
        if source.id != 0 {
            *taken.connections.entry(source.id).or_insert(0) += 1;
        }
        Ok(Place {
            places: Arc::clone(self),
            source: key,
            ledger,
            connection: source.id,
        })
    }

    /// Returns the holder whose bound is reached, and the bound; the caller's own comes first.
    fn full(
        &self,
        taken: &Taken,
        connection: u64,
        source: &SourceKey,
        ledger: Option<LedgerNumber>,
    ) -> Option<(&'static str, usize)> {
        let bounds = &self.bounds;
        let of_source = count(&taken.sources, source);
        let of_ledger = ledger.map_or(0, |ledger| count(&taken.ledgers, &ledger));
        // Without access control a connection is its own source.
        let of_connection = count(&taken.connections, &connection);
        let stranger = source.is_stranger();
        let newcomer = of_source == 0 && !stranger;
        let unreserved = |max: usize| if newcomer { max } else { max - max / 8 };
        [
            ("a connection", of_connection, bounds.connection),
            (
                "an address whose callers do not say who they are",
                if stranger { of_source } else { 0 },
                bounds.stranger,
            ),
            ("a caller", of_source, bounds.source),
            (
                "all callers that do not say who they are",
                if stranger { taken.strangers } else { 0 },
                bounds.strangers,
            ),
            ("a ledger", of_ledger, unreserved(bounds.ledger)),
            ("this server", taken.server, unreserved(bounds.server)),
        ]
        .into_iter()
        .find(|(_, taken, max)| taken >= max)
        .map(|(who, _, max)| (who, max))
    }

    /// Returns the number of taken places.
    pub fn open(&self) -> usize {
        self.taken.lock().server
    }

    /// Returns the number of times that there was no place.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

fn count<K: Eq + Hash>(counts: &HashMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or(0)
}

fn give_back<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.server -= 1;
        taken.strangers -= usize::from(self.source.is_stranger());
        give_back(&mut taken.sources, &self.source);
        if let Some(ledger) = &self.ledger {
            give_back(&mut taken.ledgers, ledger);
        }
        give_back(&mut taken.connections, &self.connection);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    const LEDGER: Option<LedgerNumber> = Some(LedgerNumber(1));

    fn source(id: u64, principal: Option<&str>, host: Option<u8>) -> Source {
        Source {
            id,
            budget: Arc::new(Semaphore::new(0)),
            principal: principal.map(Arc::from),
            anonymous: host.is_some(),
            network: [192, 0, 2, host.unwrap_or_default()].into(),
        }
    }

    fn places() -> Arc<Places> {
        let bounds = Bounds {
            server: 16,
            ledger: 12,
            source: 4,
            strangers: 4,
            stranger: 2,
            connection: 3,
        };
        Places::new("streams", bounds)
    }

    fn says(refused: Result<Place, LimitReached>, who: &str) {
        let Err(LimitReached { what, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert!(what.contains(who), "{what}");
    }

    #[test]
    fn one_principal_leaves_places_to_others_over_however_many_connections() {
        let places = places();
        let one = |id| places.take(&source(id, Some("one"), None), LEDGER);
        let mut held: Vec<_> = [1, 1, 1].map(one).into_iter().map(Result::unwrap).collect();
        says(one(1), "a connection");
        held.push(one(2).unwrap());
        says(one(3), "a caller");
        held.push(places.take(&source(4, Some("two"), None), LEDGER).unwrap());
        assert_eq!((places.open(), places.refused()), (5, 2));
        drop(held);
        assert_eq!(places.open(), 0);
        assert!(one(3).is_ok());
    }

    #[test]
    fn strangers_leave_places_to_those_who_say_who_they_are() {
        let places = places();
        let stranger = |host| places.take(&source(u64::from(host), None, Some(host)), LEDGER);
        let mut held = Vec::new();
        for host in [1, 1, 2, 2] {
            held.push(stranger(host).unwrap());
        }
        says(stranger(1), "an address");
        says(stranger(3), "all callers that do not say");
        for (id, name) in (10..).zip(["a", "b", "c", "d"]) {
            held.push(places.take(&source(id, Some(name), None), LEDGER).unwrap());
        }
        drop(held);
        let taken = places.taken.lock();
        assert_eq!((taken.server, taken.strangers), (0, 0));
        assert!(taken.sources.is_empty() && taken.ledgers.is_empty());
        assert!(taken.connections.is_empty());
    }

    #[test]
    fn many_callers_leave_places_to_those_who_have_none() {
        let places = Places::new("streams", Bounds::shared(32, 32));
        let take = |id: u64, name: &str, ledger| {
            places.take(&source(id, Some(name), None), Some(LedgerNumber(ledger)))
        };
        // Four of these callers, in two ledgers, take all places that they get.
        let mut held = Vec::new();
        for (id, name, ledger) in [(1, "a", 1), (2, "b", 1), (3, "c", 2), (4, "d", 2)] {
            while let Ok(place) = take(id, name, ledger) {
                held.push(place);
            }
        }
        assert_eq!(places.open(), 28);
        held.push(take(5, "e", 1).unwrap());
        held.push(take(6, "f", 2).unwrap());
        says(take(5, "e", 1), "a ledger");
        drop(held);
        assert_eq!(places.open(), 0);
    }

    #[test]
    fn one_ledger_leaves_places_to_others() {
        let places = places();
        let mut held = Vec::new();
        let mut take = |id: u64, ledger| {
            let name = (id / 3).to_string();
            let taken = places.take(&source(id, Some(&name), None), Some(LedgerNumber(ledger)));
            taken.map(|place| held.push(place))
        };
        for id in 0..11 {
            take(id, 1).unwrap();
        }
        let of_ledger = |refused: Result<(), LimitReached>| matches!(refused, Err(LimitReached { what, .. }) if what.contains("a ledger"));
        assert!(of_ledger(take(11, 1)));
        // The last place is for a caller that has none.
        take(20, 1).unwrap();
        assert!(of_ledger(take(24, 1)));
        take(27, 2).unwrap();
    }
}
