//! One flow: who talks to whom, under which names, and how far it got.
//!
//! In: what is known when it is opened. Out: tuples on both sides of the translator, deadlines.
//! Never: more than its share of memory, which is asserted below.

use crate::hash::Endpoint;
use crate::lists::{Linked, Links};
use crate::mappings::MappingId;
use crate::queries::Queries;
use crate::slab::{Place, Slab, Stamped};
use crate::state::{Kind, Side, State};
use crate::tcp::Track;
use crate::{Direction, Timeouts};
use core::net::IpAddr;
use wire::{Proto, Tuple};

/// Number of an external address in [`crate::externals::Externals`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExternalId(pub(crate) u8);

/// How a flow came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client opened it, to the remote it asked for.
    Client,
    /// A client opened it, but its remote is another than the one asked for. Its mapping is its
    /// own, and remembers what was asked.
    Redirected,
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
    pub(crate) client: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) client_port: u16,
    pub(crate) remote_port: u16,
    pub(crate) external_port: u16,
    /// Slot of the client that owns it.
    pub(crate) owner: u16,
    /// Whose external port it uses; `None` if its external name is written down.
    pub(crate) mapping: Option<MappingId>,
    pub(crate) proto: Proto,
    pub(crate) external: ExternalId,
    pub(crate) origin: Origin,
    pub(crate) state: State,
    pub(crate) memory: Memory,
    /// Second of the last packet that counts.
    pub(crate) seen: u32,
    pub(crate) epoch: u32,
    pub(crate) wheel: Links,
    pub(crate) siblings: Links,
    pub(crate) generation: u16,
}

/// Bytes of a flow's place, and of its two entries in an index that is at most 7/16 full.
pub const FLOW_BYTES: usize = size_of::<Place<Flow>>() + 2 * 5 * 16 / 7 + 1;
const _: () = assert!(FLOW_BYTES <= 128, "a flow takes more than 128 bytes");

impl Flow {
    /// Which end sends packets of this direction.
    pub(crate) const fn side(&self, direction: Direction) -> Side {
        match (self.origin, direction) {
            (Origin::Client | Origin::Redirected, Direction::Out)
            | (Origin::World, Direction::In) => Side::Opener,
            (Origin::Client | Origin::Redirected, Direction::In)
            | (Origin::World, Direction::Out) => Side::Other,
        }
    }

    /// First second at which its time is over.
    pub(crate) fn deadline(&self, timeouts: &Timeouts) -> u32 {
        let kind = match self.proto {
            Proto::Icmp | Proto::Icmpv6 => Kind::Icmp,
            Proto::Udp if self.remote_port == 53 && self.origin != Origin::World => Kind::Dns,
            Proto::Udp | Proto::Tcp => Kind::Plain,
        };
        let timeout = u32::try_from(self.state.timeout(timeouts, kind).as_secs());
        // `seen` was rounded down: one second more, so that none is ended early.
        self.seen.saturating_add(timeout.unwrap_or(u32::MAX)).saturating_add(1)
    }

    /// Tuple of what the client sends to `asked`.
    pub(crate) const fn inside(&self, asked: Endpoint) -> Tuple {
        Tuple {
            proto: self.proto,
            src: self.client,
            dst: asked.addr,
            sport: self.client_port,
            dport: asked.port,
        }
    }

    /// Tuple of what is sent into the world from `external`.
    pub(crate) const fn outside(&self, external: IpAddr) -> Tuple {
        Tuple {
            proto: self.proto,
            src: external,
            dst: self.remote,
            sport: self.external_port,
            dport: self.remote_port,
        }
    }

    /// The remote end.
    pub(crate) const fn remote(&self) -> Endpoint {
        Endpoint { addr: self.remote, port: self.remote_port }
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
