//! The interfaces there are, and who owns which address.
//!
//! In: interfaces that come and go. Out: what is known of the one a frame came in by or leaves by.
//! Never: an answer about an interface whose slot has been given away since.

use super::Alias;
use super::PerUplink;
use super::limit::Bucket;
use alloc::vec::Vec;
use core::net::IpAddr;
use wire::{Instant, Mac, Port, Uplink};

/// An interface that came up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// A way to the world.
    Uplink {
        /// Which one it is.
        uplink: Uplink,
        /// Our address on it.
        mac: Mac,
        /// Longest IP packet in bytes.
        mtu: u16,
        /// Tells one network from another, such as the number of the domain behind the uplink.
        network: u16,
    },
    /// A client's vif.
    Client {
        /// The client's address on it.
        mac: Mac,
        /// The client's IP addresses. It may use no other.
        addrs: Vec<IpAddr>,
        /// Longest IP packet in bytes.
        mtu: u16,
    },
}

impl Link {
    /// The addresses of a client.
    pub(super) fn addrs(&self) -> &[IpAddr] {
        match self {
            Self::Client { addrs, .. } => addrs,
            Self::Uplink { .. } => &[],
        }
    }
}

/// What is needed to send a frame to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) port: Port,
    /// The client's address; on the uplink our own.
    pub(super) mac: Mac,
    pub(super) mtu: u16,
}

/// Which side an interface is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Uplink(Uplink, Reach),
    Client(Reach),
}

impl Side {
    const fn reach(&self) -> &Reach {
        match self {
            Self::Uplink(_, reach) | Self::Client(reach) => reach,
        }
    }
}

/// All interfaces.
#[derive(Debug, Default)]
pub(super) struct Links {
    slots: Vec<Option<Place>>,
    /// What all frames need of them, by itself.
    sides: Vec<Option<Side>>,
    /// Sorted by address. One address may have several owners: an HVM client and its stub domain.
    owners: Vec<(IpAddr, Port)>,
    uplinks: PerUplink<Option<Port>>,
    /// Addresses that belong to clients which may not be there, sorted.
    reserved: Vec<IpAddr>,
    /// Clients that go by other names, there or not, sorted.
    aliases: Vec<Alias>,
}

#[derive(Debug)]
struct Place {
    port: Port,
    link: Link,
    answers: Bucket,
    logs: Bucket,
}

impl Links {
    /// Takes an interface into the table. An uplink replaces the one that was there.
    pub(super) fn up(&mut self, now: Instant, port: Port, link: Link) {
        self.forget(port.index());
        match &link {
            Link::Uplink { uplink, .. } => {
                if let Some(old) = self.uplinks[*uplink].replace(port) {
                    self.forget(old.index());
                    self.uplinks[*uplink] = Some(port);
                }
            }
            Link::Client { addrs, .. } => {
                self.owners.extend(addrs.iter().map(|addr| (*addr, port)));
                self.owners.sort_unstable();
                self.owners.dedup();
            }
        }
        let side = match link {
            Link::Uplink { uplink, mac, mtu, .. } => Side::Uplink(uplink, Reach { port, mac, mtu }),
            Link::Client { mac, mtu, .. } => Side::Client(Reach { port, mac, mtu }),
        };
        let place = Place { port, link, answers: Bucket::answers(now), logs: Bucket::logs(now) };
        if self.slots.len() <= port.index() {
            self.slots.resize_with(port.index().saturating_add(1), || None);
            self.sides.resize(port.index().saturating_add(1), None);
        }
        if let Some(place) = self.sides.get_mut(port.index()) {
            *place = Some(side);
        }
        if let Some(slot) = self.slots.get_mut(port.index()) {
            *slot = Some(place);
        }
    }

    /// Takes an interface out of the table and says what it was; `None` if it was not in it.
    pub(super) fn down(&mut self, port: Port) -> Option<Link> {
        self.place(port)?;
        self.forget(port.index())
    }

    /// What is known of `port`; `None` if it is not up.
    pub(super) fn side(&self, port: Port) -> Option<Side> {
        self.sides.get(port.index()).copied().flatten().filter(|side| side.reach().port == port)
    }

    /// How to send to the world by `uplink`.
    pub(super) fn uplink(&self, uplink: Uplink) -> Option<Reach> {
        match self.side(self.uplinks[uplink]?)? {
            Side::Uplink(_, reach) => Some(reach),
            Side::Client(_) => None,
        }
    }

    /// How to send to the client at `port`.
    pub(super) fn client(&self, port: Port) -> Option<Reach> {
        match self.side(port)? {
            Side::Client(reach) => Some(reach),
            Side::Uplink(..) => None,
        }
    }

    /// The least MTU of all clients; what it is if there are none does not matter.
    pub(super) fn narrowest_client(&self) -> u16 {
        let mtus = self.sides.iter().flatten().filter_map(|side| match side {
            Side::Client(reach) => Some(reach.mtu),
            Side::Uplink(..) => None,
        });
        mtus.min().unwrap_or(u16::MAX)
    }

    /// Whether the client at `port` may use the source address `addr`.
    pub(super) fn owns(&self, port: Port, addr: IpAddr) -> bool {
        self.owners.binary_search(&(addr, port)).is_ok()
    }

    /// Whether the client at `port` has an IPv6 address.
    pub(super) fn speaks_ipv6(&self, port: Port) -> bool {
        self.addrs_of(port).iter().any(IpAddr::is_ipv6)
    }

    /// The addresses of the client at `port`.
    pub(super) fn addrs_of(&self, port: Port) -> &[IpAddr] {
        self.place(port).map(|place| place.link.addrs()).unwrap_or_default()
    }

    /// The addresses of all clients that are there, sorted; one that several have counts once.
    pub(super) fn all_addrs(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.owners
            .chunk_by(|(a, _), (b, _)| a == b)
            .filter_map(<[_]>::first)
            .map(|(addr, _)| *addr)
    }

    /// Takes these addresses for those of clients, whether any is there or not.
    pub(super) fn reserve(&mut self, mut addrs: Vec<IpAddr>) {
        addrs.sort_unstable();
        self.reserved = addrs;
    }

    /// Takes these names for those of clients, whether any is there or not.
    pub(super) fn rename(&mut self, mut aliases: Vec<Alias>) {
        aliases.sort_unstable();
        aliases.dedup_by_key(|alias| alias.addr);
        self.aliases = aliases;
    }

    /// All of them.
    pub(super) fn aliases(&self) -> &[Alias] {
        &self.aliases
    }

    /// The names that the client at `port` goes by, if they are not its own.
    #[inline]
    pub(super) fn alias(&self, port: Port) -> Option<Alias> {
        if self.aliases.is_empty() { None } else { self.find_alias(port) }
    }

    fn find_alias(&self, port: Port) -> Option<Alias> {
        self.addrs_of(port).iter().find_map(|addr| {
            let IpAddr::V4(addr) = addr else { return None };
            let at = self.aliases.binary_search_by_key(addr, |alias| alias.addr).ok()?;
            self.aliases.get(at).copied()
        })
    }

    /// Whether `addr` belongs to a client, be it there or not.
    pub(super) fn is_a_clients(&self, addr: IpAddr) -> bool {
        self.is_a_client(addr) || self.reserved.binary_search(&addr).is_ok()
    }

    /// Whether any client has the address `addr`.
    pub(super) fn is_a_client(&self, addr: IpAddr) -> bool {
        self.owner(addr).is_some()
    }

    /// The client that has the address `addr`: the first, if there are several.
    pub(super) fn owner(&self, addr: IpAddr) -> Option<Port> {
        let first = self.owners.partition_point(|(owned, _)| *owned < addr);
        let (owned, port) = self.owners.get(first)?;
        (*owned == addr).then_some(*port)
    }

    /// All clients that have the address `addr`.
    pub(super) fn owners(&self, addr: IpAddr) -> impl Iterator<Item = Port> + '_ {
        let first = self.owners.partition_point(|(owned, _)| *owned < addr);
        let owners = self.owners.iter().skip(first);
        owners.take_while(move |(owned, _)| *owned == addr).map(|(_, port)| *port)
    }

    /// Whether another frame of our own may be sent to `port` now.
    pub(super) fn may_answer(&mut self, now: Instant, port: Port) -> bool {
        self.place_mut(port).is_some_and(|place| place.answers.take(now))
    }

    /// Whether another line may be logged about `port` now.
    pub(super) fn may_log(&mut self, now: Instant, port: Port) -> bool {
        self.place_mut(port).is_some_and(|place| place.logs.take(now))
    }

    fn place(&self, port: Port) -> Option<&Place> {
        self.slots.get(port.index())?.as_ref().filter(|place| place.port == port)
    }

    fn place_mut(&mut self, port: Port) -> Option<&mut Place> {
        self.slots.get_mut(port.index())?.as_mut().filter(|place| place.port == port)
    }

    fn forget(&mut self, slot: usize) -> Option<Link> {
        let place = self.slots.get_mut(slot)?.take()?;
        *self.sides.get_mut(slot)? = None;
        self.owners.retain(|(_, owner)| *owner != place.port);
        if let Link::Uplink { uplink, .. } = place.link {
            self.uplinks[uplink].take_if(|port| *port == place.port);
        }
        Some(place.link)
    }
}
