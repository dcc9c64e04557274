//! Places of connections: how many there are, and how many of them one address may have.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places that one address may have however few there are in all.
const PER_ADDRESS_MIN: usize = 8;

/// Places for connections. No address has more than a quarter of them, but for loopback: whoever
/// is there is somebody else each time, a proxy among them.
pub(super) struct Places {
    all: Arc<Semaphore>,
    per_address_max: usize,
    /// Those of each address; none that has none.
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// A place, given back when it is dropped.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    counted: Option<(Arc<Places>, IpAddr)>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// All are taken.
    Full,
    /// The address has as many as it may.
    AddressFull,
}

impl Places {
    pub(super) fn new(connections: usize) -> Arc<Self> {
        let connections = connections.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            all: Arc::new(Semaphore::new(connections)),
            per_address_max: (connections / 4).max(PER_ADDRESS_MIN),
            taken: Mutex::default(),
        })
    }

    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Result<Place, NoPlace> {
        let permit = Arc::clone(&self.all).try_acquire_owned();
        let permit = permit.map_err(|_| NoPlace::Full)?;
        let peer = network(peer);
        if peer.is_loopback() {
            return Ok(Place {
                _permit: permit,
                counted: None,
            });
        }
        let mut taken = self.taken.lock();
        let count = taken.entry(peer).or_insert(0);
        if *count >= self.per_address_max {
            return Err(NoPlace::AddressFull);
        }
        *count += 1;
        drop(taken);
        Ok(Place {
            _permit: permit,
            counted: Some((Arc::clone(self), peer)),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((places, peer)) = &self.counted else {
            return;
        };
        let mut taken = places.taken.lock();
        if let Some(count) = taken.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                taken.remove(peer);
            }
        }
    }
}

/// What one host has for itself: an address of IPv4, or the first 64 bits of one of IPv6, behind
/// which it may choose any.
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

    fn take(places: &Arc<Places>, peer: &str) -> Result<Place, NoPlace> {
        places.take(peer.parse().unwrap())
    }

    #[test]
    fn an_address_has_a_quarter_and_loopback_has_all() {
        let places = Places::new(40);
        let mut held: Vec<_> = (0..10)
            .map(|_| take(&places, "192.0.2.1").ok().unwrap())
            .collect();
        let refused = |peer| take(&places, peer).err();
        assert_eq!(refused("192.0.2.1"), Some(NoPlace::AddressFull));
        assert_eq!(refused("::ffff:192.0.2.1"), Some(NoPlace::AddressFull));
        assert_eq!(refused("192.0.2.2"), None);
        // One network of IPv6 counts as one.
        for host in 0..10 {
            held.push(take(&places, &format!("2001:db8::{host}")).ok().unwrap());
        }
        assert_eq!(refused("2001:db8::ffff:1"), Some(NoPlace::AddressFull));
        assert_eq!(refused("2001:db8:0:1::1"), None);
        for peer in ["127.0.0.1", "::1"].iter().cycle().take(20) {
            held.push(take(&places, peer).ok().unwrap());
        }
        assert_eq!(refused("127.0.0.1"), Some(NoPlace::Full));
        assert_eq!(refused("192.0.2.2"), Some(NoPlace::Full));
        drop(held);
        assert!(places.taken.lock().is_empty());
        assert_eq!(refused("192.0.2.1"), None);
    }

    #[test]
    fn few_places_are_not_divided_further() {
        let places = Places::new(16);
        let held: Vec<_> = (0..8).map(|_| take(&places, "192.0.2.1").ok()).collect();
        assert!(held.iter().all(Option::is_some));
        assert_eq!(take(&places, "192.0.2.1").err(), Some(NoPlace::AddressFull));
    }
}
