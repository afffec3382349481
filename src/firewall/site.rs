//! What the firewall is on each of its uplinks.
//!
//! In: addresses and next hops, as they are given. Out: the same by uplink. Never: more uplinks than
//! there can be.

use super::NextHop;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::{Index, IndexMut};
use wire::{Mac, Uplink};

/// Where the firewall stands on one uplink. A further one is there if it has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Our IPv4 address: flows that leave by this uplink leave from it, and clients may ping it.
    /// Without it, no IPv4.
    pub addr4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub addr6: Option<Ipv6Addr>,
    /// Where IPv4 leaves to.
    pub next_hop4: NextHop,
    /// Where IPv6 leaves to.
    pub next_hop6: NextHop,
}

impl Site {
    /// Whether we have an address here.
    pub(super) const fn is_there(&self) -> bool {
        self.addr4.is_some() || self.addr6.is_some()
    }
}

impl Default for Site {
    /// No address.
    fn default() -> Self {
        let backend = NextHop::Static(Mac::BACKEND);
        Self { addr4: None, addr6: None, next_hop4: backend, next_hop6: backend }
    }
}

/// One value for each uplink there can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerUplink<T>([T; Uplink::COUNT]);

impl<T> PerUplink<T> {
    /// The value for each, made of what this has for it.
    #[must_use]
    pub fn map<U>(self, mut make: impl FnMut(Uplink, T) -> U) -> PerUplink<U> {
        let mut uplinks = Uplink::ALL.into_iter();
        PerUplink(self.0.map(|value| make(uplinks.next().unwrap_or_default(), value)))
    }

    /// Each uplink with its value.
    pub fn iter(&self) -> impl Iterator<Item = (Uplink, &T)> {
        Uplink::ALL.into_iter().zip(&self.0)
    }

    /// All values.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = (Uplink, &mut T)> {
        Uplink::ALL.into_iter().zip(&mut self.0)
    }
}

impl<T: Default> From<T> for PerUplink<T> {
    /// That of the first uplink.
    fn from(first: T) -> Self {
        let mut all = Self(Default::default());
        all[Uplink::FIRST] = first;
        all
    }
}

impl<T> Index<Uplink> for PerUplink<T> {
    type Output = T;

    #[allow(clippy::indexing_slicing, reason = "every index is below COUNT")]
    fn index(&self, uplink: Uplink) -> &T {
        &self.0[uplink.index()]
    }
}

impl<T> IndexMut<Uplink> for PerUplink<T> {
    #[allow(clippy::indexing_slicing, reason = "every index is below COUNT")]
    fn index_mut(&mut self, uplink: Uplink) -> &mut T {
        &mut self.0[uplink.index()]
    }
}
