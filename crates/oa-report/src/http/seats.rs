//! Who has how many connections: one address never has all of them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::app::guard::network;

/// An address has so many; a browser needs six, a monitor one.
pub(super) const MOST_OF_ONE: usize = 128;

#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection's, for as long as it lasts.
#[derive(Debug)]
pub(super) struct Seat {
    of: Seats,
    address: IpAddr,
}

impl Seats {
    /// A seat for a connection of this address; `None`: it has too many. A reverse proxy, behind which anybody may be, has as many as there are.
    pub(super) fn take(&self, peer: SocketAddr, proxies: &[IpAddr]) -> Option<Seat> {
        let address = network(peer.ip());
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(address).or_default();
        if *count >= MOST_OF_ONE && !proxies.contains(&peer.ip()) {
            return None;
        }
        *count += 1;
        Some(Seat {
            of: self.clone(),
            address,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}
