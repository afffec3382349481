//! One flow: who talks to whom, under which names, and how far it got.
//!
//! In: what is known when it is opened. Out: tuples on both sides of the translator, deadlines.
//! Never: more than its share of memory, which is asserted below.

use crate::Direction;
use crate::index;
use crate::lists::{Linked, Links};
use crate::numbers::Number;
use crate::queries::Queries;
use crate::slab::{Place, Slab, Stamped};
use crate::state::{Lifetimes, Side, State, Use};
use crate::tcp::Track;
use wire::{Addr, Key, Kind, Proto};

/// How a flow came to be, and whose its external port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client opened it, to the remote it asked for. Its port was drawn, and is that of all such
    /// flows of its socket.
    Client,
    /// A client opened it, but its remote is another than the one asked for. Its port was drawn, and
    /// is its own.
    Redirected,
    /// A client opened it, and its external name is written down.
    Named,
    /// The remote opened it, by a translation that is written down.
    World,
}

/// What a flow remembers of its packets, by kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Memory {
    /// Where a TCP connection stands.
    Tcp(Track),
    /// What was asked of a redirected resolver and is not answered yet.
    Dns(Queries),
    /// Nothing: other UDP, ICMP.
    None,
}

/// A flow. Fields are public to the crate: what holds between them is kept by `Nat`.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) client: Addr,
    /// The remote as its client knows it.
    pub(crate) asked: Addr,
    pub(crate) client_port: u16,
    pub(crate) asked_port: u16,
    pub(crate) external_port: u16,
    /// Slot of the client that owns it.
    pub(crate) owner: u16,
    pub(crate) kind: Kind,
    pub(crate) external: Number,
    /// The real remote of a redirected flow.
    pub(crate) real: Number,
    pub(crate) origin: Origin,
    pub(crate) state: State,
    /// In which directions plain packets take the short way, a bit for each.
    pub(crate) short: u8,
    pub(crate) memory: Memory,
    /// Second of the last packet that counts.
    pub(crate) seen: u32,
    pub(crate) epoch: u32,
    pub(crate) wheel: Links,
    pub(crate) siblings: Links,
    /// The other flows with its external port, if that was drawn.
    pub(crate) peers: Links,
    pub(crate) generation: u16,
}

/// Bytes of a flow's place, of its two entries in the index of flows, and of its socket's entry.
pub const FLOW_BYTES: usize = size_of::<Place<Flow>>() + index::bytes(3 * 3000) / 3000;
const _: () = assert!(FLOW_BYTES <= 128, "a flow takes more than 128 bytes");

impl Flow {
    /// Which end sends packets of this direction.
    pub(crate) const fn side(&self, direction: Direction) -> Side {
        match (self.origin, direction) {
            (Origin::Client | Origin::Redirected | Origin::Named, Direction::Out)
            | (Origin::World, Direction::In) => Side::Opener,
            (Origin::Client | Origin::Redirected | Origin::Named, Direction::In)
            | (Origin::World, Direction::Out) => Side::Other,
        }
    }

    /// First second at which its time is over.
    #[inline]
    pub(crate) fn deadline(&self, lifetimes: &Lifetimes) -> u32 {
        let use_ = match self.kind {
            Kind::Icmp | Kind::Icmpv6 => Use::Icmp,
            Kind::Udp4 | Kind::Udp6 if self.is_to_port_53() => Use::Dns,
            Kind::Udp4 | Kind::Udp6 | Kind::Tcp4 | Kind::Tcp6 => Use::Plain,
        };
        // `seen` was rounded down: one second more, so that none is ended early.
        self.seen.saturating_add(lifetimes.of(use_, self.state)).saturating_add(1)
    }

    const fn is_to_port_53(&self) -> bool {
        match self.origin {
            Origin::Client | Origin::Named => self.asked_port == 53,
            Origin::Redirected => matches!(self.memory, Memory::Dns(_)),
            Origin::World => false,
        }
    }

    pub(crate) const fn proto(&self) -> Proto {
        self.kind.proto()
    }

    /// Key of what the client sends.
    pub(crate) const fn inside(&self) -> Key {
        Key {
            src: self.client,
            dst: self.asked,
            sport: self.client_port,
            dport: self.asked_port,
            kind: self.kind,
        }
    }

    /// Key of what is sent into the world from `external` to the real remote.
    pub(crate) const fn outside(&self, external: Addr, (dst, dport): (Addr, u16)) -> Key {
        Key { src: external, dst, sport: self.external_port, dport, kind: self.kind }
    }
}

impl Stamped for Flow {
    fn generation(&self) -> u16 {
        self.generation
    }
}

/// The flows as seen by the wheel.
pub(crate) struct ByDeadline<'a>(pub(crate) &'a mut Slab<Flow>);

impl Linked for ByDeadline<'_> {
    fn links(&mut self, index: u32) -> Option<&mut Links> {
        self.0.get_mut(index).map(|flow| &mut flow.wheel)
    }
}

/// The flows as seen by the lists of their clients.
pub(crate) struct ByOwner<'a>(pub(crate) &'a mut Slab<Flow>);

impl Linked for ByOwner<'_> {
    fn links(&mut self, index: u32) -> Option<&mut Links> {
        self.0.get_mut(index).map(|flow| &mut flow.siblings)
    }
}

/// The flows as seen by those that share an external port.
pub(crate) struct ByPeer<'a>(pub(crate) &'a mut Slab<Flow>);

impl Linked for ByPeer<'_> {
    fn links(&mut self, index: u32) -> Option<&mut Links> {
        self.0.get_mut(index).map(|flow| &mut flow.peers)
    }
}
