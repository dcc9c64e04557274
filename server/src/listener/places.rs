//! Places of connections: their number, the share of one address, and the choice of the connection
//! that gives way when all are taken.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::activity::Activity;

/// Places that one address may have, however few there are in all.
const PER_ADDRESS_MIN: usize = 8;

/// Most strangers that are examined to choose the one that gives way.
const LOOKED_MAX: usize = 64;

/// Time that a connection may take to give way, which it does as soon as its task runs.
const GIVE_WAY_WITHIN: Duration = Duration::from_millis(500);

/// Places for connections. No address has more than a quarter of them, except loopback: connections
/// from there are of many different clients, behind a proxy for example.
///
/// Connections on which no caller is known (*strangers*) keep their places as long as no other
/// connection needs them. When all are taken, the oldest stranger without an open request gives
/// way, or else the oldest one. So silent connections, however many, keep no caller out.
pub(crate) struct Places {
    all: Arc<Semaphore>,
    per_address_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    /// Number of places of each address that has any.
    by_address: HashMap<IpAddr, usize>,
    /// The strangers by age. Those whose caller has become known are removed when they are
    /// examined.
    strangers: BTreeMap<u64, Arc<Activity>>,
    next: u64,
}

/// A place; dropping it gives it back.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    places: Arc<Places>,
    number: u64,
    counted: Option<IpAddr>,
}

/// The way in which a place was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    /// Another connection was ended to make room.
    Made,
}

/// The reason for which there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// All places are taken by connections that do not give way.
    Full,
    /// The address has as many places as it may.
    AddressFull,
}

impl Places {
    /// Returns places for a port where no address may have them all.
    pub(crate) fn new(connections: usize) -> Arc<Self> {
        Self::shared(connections, (connections / 4).max(PER_ADDRESS_MIN))
    }

    /// Returns places of which one address may have all.
    pub(crate) fn for_anybody(connections: usize) -> Arc<Self> {
        Self::shared(connections, usize::MAX)
    }

    fn shared(connections: usize, per_address_max: usize) -> Arc<Self> {
        let connections = connections.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            all: Arc::new(Semaphore::new(connections)),
            per_address_max,
            taken: Mutex::default(),
        })
    }

    /// Takes a place for the connection of this activity; if there is none, a stranger is ended to
    /// make room.
    pub(crate) async fn take(
        self: &Arc<Self>,
        peer: IpAddr,
        activity: &Arc<Activity>,
    ) -> Result<(Place, Room), NoPlace> {
        let counted = self.count(peer)?;
        // From here on, dropping this gives the address's count back.
        let counted = Counted {
            places: self,
            peer: counted,
        };
        let (permit, room) = match Arc::clone(&self.all).try_acquire_owned() {
            Ok(permit) => (permit, Room::Free),
            Err(_) => (self.make_room().await.ok_or(NoPlace::Full)?, Room::Made),
        };
        let mut taken = self.taken.lock();
        let number = taken.next;
        taken.next += 1;
        taken.strangers.insert(number, Arc::clone(activity));
        drop(taken);
        let place = Place {
            _permit: permit,
            places: Arc::clone(self),
            number,
            counted: counted.keep(),
        };
        Ok((place, room))
    }

    /// Counts a place for an address, unless it is a loopback address.
    fn count(&self, peer: IpAddr) -> Result<Option<IpAddr>, NoPlace> {
        let peer = network(peer);
        if peer.is_loopback() {
            return Ok(None);
        }
        let mut taken = self.taken.lock();
        let count = taken.by_address.entry(peer).or_insert(0);
        if *count >= self.per_address_max {
            return Err(NoPlace::AddressFull);
        }
        *count += 1;
        Ok(Some(peer))
    }

    fn uncount(&self, peer: IpAddr) {
        let mut taken = self.taken.lock();
        if let Some(count) = taken.by_address.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&peer);
            }
        }
    }

    /// Ends a stranger and returns its permit.
    async fn make_room(&self) -> Option<OwnedSemaphorePermit> {
        self.stranger()?.tell_to_leave();
        let freed = Arc::clone(&self.all).acquire_owned();
        let freed = tokio::time::timeout(GIVE_WAY_WITHIN, freed).await;
        freed.ok()?.ok()
    }

    /// Chooses the stranger that gives way, and removes it from the strangers.
    fn stranger(&self) -> Option<Arc<Activity>> {
        let mut taken = self.taken.lock();
        let mut known = Vec::new();
        let (mut oldest, mut looked) = (None, 0);
        for (&number, stranger) in &taken.strangers {
            if stranger.is_known() {
                known.push(number);
                continue;
            }
            let idle = !stranger.has_open_requests();
            if idle || oldest.is_none() {
                oldest = Some(number);
            }
            looked += 1;
            if idle || looked == LOOKED_MAX {
                break;
            }
        }
        for number in known {
            taken.strangers.remove(&number);
        }
        taken.strangers.remove(&oldest?)
    }
}

/// The count of an address; dropping it gives it back, unless it is kept.
struct Counted<'p> {
    places: &'p Places,
    peer: Option<IpAddr>,
}

impl Counted<'_> {
    fn keep(mut self) -> Option<IpAddr> {
        self.peer.take()
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(peer) = self.peer {
            self.places.uncount(peer);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.lock().strangers.remove(&self.number);
        if let Some(peer) = self.counted {
            self.places.uncount(peer);
        }
    }
}

/// Returns the network of one host: an IPv4 address, or the first 64 bits of an IPv6 address,
/// within which a host may choose any address.
///
/// Source: RFC 4291 section 2.5.1.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let prefix = u128::from(address) & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activity() -> Arc<Activity> {
        let hour = Duration::from_secs(3600);
        Activity::new(hour, hour)
    }

    /// Takes a place for a connection with a known caller, which does not give way.
    async fn take(places: &Arc<Places>, peer: &str) -> Result<Place, NoPlace> {
        let known = activity();
        known.set_known();
        let taken = places.take(peer.parse().unwrap(), &known).await;
        taken.map(|(place, _)| place)
    }

    #[tokio::test]
    async fn an_address_has_a_quarter_and_loopback_has_all() {
        let places = Places::new(40);
        let mut held = Vec::new();
        for _ in 0..10 {
            held.push(take(&places, "192.0.2.1").await.ok().unwrap());
        }
        let refused = async |peer| take(&places, peer).await.err();
        assert_eq!(refused("192.0.2.1").await, Some(NoPlace::AddressFull));
        assert_eq!(
            refused("::ffff:192.0.2.1").await,
            Some(NoPlace::AddressFull)
        );
        assert_eq!(refused("192.0.2.2").await, None);
        // A network of IPv6 counts as one address.
        for host in 0..10 {
            let peer = format!("2001:db8::{host}");
            held.push(take(&places, &peer).await.ok().unwrap());
        }
        assert_eq!(
            refused("2001:db8::ffff:1").await,
            Some(NoPlace::AddressFull)
        );
        assert_eq!(refused("2001:db8:0:1::1").await, None);
        for peer in ["127.0.0.1", "::1"].iter().cycle().take(20) {
            held.push(take(&places, peer).await.ok().unwrap());
        }
        assert_eq!(refused("127.0.0.1").await, Some(NoPlace::Full));
        assert_eq!(refused("192.0.2.2").await, Some(NoPlace::Full));
        drop(held);
        assert!(places.taken.lock().by_address.is_empty());
        assert!(places.taken.lock().strangers.is_empty());
        assert_eq!(refused("192.0.2.1").await, None);
    }

    #[tokio::test]
    async fn few_places_are_not_divided_further() {
        let places = Places::new(16);
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(take(&places, "192.0.2.1").await.ok().unwrap());
        }
        let refused = take(&places, "192.0.2.1").await.err();
        assert_eq!(refused, Some(NoPlace::AddressFull));
    }

    /// Makes a connection that ends when it is told to.
    async fn stranger(places: &Arc<Places>) -> (Arc<Activity>, Room) {
        let stranger = activity();
        let peer = IpAddr::from([127, 0, 0, 1]);
        let (place, room) = places.take(peer, &stranger).await.ok().unwrap();
        let leaving = Arc::clone(&stranger);
        tokio::spawn(async move {
            leaving.leaving().await;
            drop(place);
        });
        (stranger, room)
    }

    #[tokio::test]
    async fn the_oldest_stranger_gives_way_and_nobody_else() {
        let places = Places::new(4);
        let (asking, _) = stranger(&places).await;
        let _request = asking.begin_request();
        let (first, _) = stranger(&places).await;
        let (known, _) = stranger(&places).await;
        known.set_known();
        let (second, room) = stranger(&places).await;
        assert_eq!(room, Room::Free);
        // Idle connections give way first, in their order.
        let (third, room) = stranger(&places).await;
        assert_eq!(room, Room::Made);
        let gone = || [&asking, &first, &known, &second, &third].map(|one| one.is_leaving());
        assert_eq!(gone(), [false, true, false, false, false]);
        let (fourth, _) = stranger(&places).await;
        assert_eq!(gone(), [false, true, false, true, false]);
        let _requests = [third.begin_request(), fourth.begin_request()];
        let (fifth, _) = stranger(&places).await;
        assert_eq!(gone(), [true, true, false, true, false]);
        // If all callers are known, there is no place.
        for one in [&third, &fourth, &fifth] {
            one.set_known();
        }
        let late = take(&places, "127.0.0.1").await.err();
        assert_eq!(late, Some(NoPlace::Full));
    }

    #[tokio::test]
    async fn an_address_that_found_no_place_is_not_counted() {
        let places = Places::new(1);
        let _held = take(&places, "127.0.0.1").await.ok().unwrap();
        for _ in 0..20 {
            let refused = take(&places, "192.0.2.1").await.err();
            assert_eq!(refused, Some(NoPlace::Full));
        }
        assert!(places.taken.lock().by_address.is_empty());
    }
}
