//! The words between the translator and whoever drives it.

use core::net::IpAddr;
use wire::{Port, Transport, Tuple, Uplink};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From a client to the world.
    Out,
    /// From the world to a client.
    In,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::Out => Self::In,
            Self::In => Self::Out,
        }
    }
}

/// Who sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A client.
    Client,
    /// Somebody behind this uplink. Flows that leave by another do not exist for it.
    World(Uplink),
}

impl Sender {
    /// Which way its packets go.
    #[must_use]
    pub const fn direction(self) -> Direction {
        match self {
            Self::Client => Direction::Out,
            Self::World(_) => Direction::In,
        }
    }
}

/// Keyed hash of a tuple: only comparable within one translator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hash(pub(crate) u64);

/// A flow. Places are used again; the generation tells the old flow from the new one, and a stale
/// id is answered like an unknown flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId {
    pub(crate) index: u32,
    pub(crate) generation: u16,
}

/// A flow to be opened by the first packet of a client, which the rules have accepted.
#[derive(Clone, Copy, Debug)]
pub struct NewFlow<'a> {
    /// The client.
    pub client: Port,
    /// The packet's tuple as the client sent it.
    pub tuple: Tuple,
    /// What the packet carries.
    pub transport: &'a Transport,
    /// The uplink it leaves by.
    pub uplink: Uplink,
    /// The external address to send from, of the tuple's family, unless another is written down.
    pub external: IpAddr,
    /// The real destination, if it is another than the one asked. For ICMP queries the port is 0.
    /// A redirected flow has an external port of its own; all others of one client socket share one.
    pub redirected: Option<(IpAddr, u16)>,
    /// Epoch of the rules that accepted it.
    pub epoch: u32,
}

/// A flow to be opened by the first packet of a remote, which a forward or the rules let in.
#[derive(Clone, Copy, Debug)]
pub struct NewInflow<'a> {
    /// The client it goes to.
    pub client: Port,
    /// The uplink it came by.
    pub uplink: Uplink,
    /// The packet's tuple as it came: from the remote to an external address.
    pub tuple: Tuple,
    /// What the packet carries.
    pub transport: &'a Transport,
    /// The client's address and port.
    pub to: (IpAddr, u16),
    /// Epoch of the rules that accepted it.
    pub epoch: u32,
}

/// A packet taken through its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The client whose flow it is: where a packet goes that comes in, and the only port that one
    /// going out may have come from.
    pub client: Port,
    /// The uplink that the flow leaves by.
    pub uplink: Uplink,
    /// The packet's tuple from here on.
    pub tuple: Tuple,
    /// What has to be changed to make it so.
    pub change: wire::Translation,
}

/// An ICMP error taken to whoever sent the packet that it quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorPassage {
    /// The client whose flow the quoted packet belongs to.
    pub client: Port,
    /// The uplink that the flow leaves by.
    pub uplink: Uplink,
    /// Where the error goes: the sender of the quoted packet.
    pub to: IpAddr,
    /// What has to be changed in the error's own IP header.
    pub outer: wire::Translation,
    /// What has to be changed in the packet it quotes (RFC 5508 REQ-4 and REQ-5).
    pub quoted: wire::Translation,
}

/// What is known of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The client.
    pub client: Port,
    /// The tuple as the client sends it: from its own address to the one it asked for.
    pub asked: Tuple,
    /// The tuple as it is sent into the world: from the external address to the real remote.
    pub sent: Tuple,
    /// The uplink it leaves by.
    pub uplink: Uplink,
    /// Which way its first packet went.
    pub opened: Direction,
    /// Epoch of the rules that last accepted it.
    pub epoch: u32,
}
