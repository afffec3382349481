//! Translations that are written down: port forwards, addresses that belong to one client, fixed
//! sources.
//!
//! In: lists, as plain data. Out: that they can be obeyed, or why not. Never: two answers to one
//! question; `crate::book` asks them.

use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use wire::{Balance, OneToOne, Proto, Tuple, Uplink};

/// Most entries of each list.
pub const STATICS_MAX: usize = 1024;

/// Translations that are written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statics {
    /// Ports at which the world may open flows to clients (DNAT).
    pub forwards: Vec<Forward>,
    /// External addresses that stand for one client each, all ports kept (basic NAT of RFC 3022).
    pub one_to_one: Vec<OneToOne>,
    /// Sockets, or whole clients, that leave under a given name (SNAT).
    pub sources: Vec<Source>,
    /// Whether clients may reach each other by external addresses (RFC 4787 REQ-9). What passes is
    /// still for the rules between clients to say.
    pub hairpin: bool,
}

/// One port at which the world may open flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where its flows come in.
    pub uplink: Uplink,
    /// TCP or UDP.
    pub proto: Proto,
    /// The external address.
    pub external: IpAddr,
    /// The external port. No client's flow is ever given it.
    pub port: u16,
    /// Who may use it; everybody if empty.
    pub from: Vec<Prefix>,
    /// Where its flows go: one of these.
    pub to: Vec<(IpAddr, u16)>,
    /// Which one, if there are several.
    pub balance: Balance,
}

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// An address in it.
    pub addr: IpAddr,
    /// How many leading bits count.
    pub len: u8,
}

/// Flows that leave under a given name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Of the flows that leave by this uplink.
    pub uplink: Uplink,
    /// The client's address.
    pub inside: IpAddr,
    /// Its protocol and port, if only one socket is meant.
    pub socket: Option<(Proto, u16)>,
    /// The address to leave from.
    pub external: IpAddr,
    /// The port to leave from, which needs a socket: two could not share it. Otherwise the port is
    /// drawn as always.
    pub port: Option<u16>,
}

/// Why a list is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaticError {
    /// A list has more than [`STATICS_MAX`] entries, or a forward more targets.
    TooMany,
    /// Two entries claim the same external port or address, or speak of the same inside.
    Twice(IpAddr, u16),
    /// An external address can be known on one uplink only.
    TwoUplinks(IpAddr),
    /// A forward without a target.
    NoTarget(u16),
    /// Both ends of a translation must be of one family, and a prefix no longer than an address.
    Family(IpAddr),
    /// Only TCP and UDP have ports to forward or to fix, and 0 is none.
    Port(Proto, u16),
    /// A port fixed for a whole client.
    PortWithoutSocket(u16),
}

impl fmt::Display for StaticError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "more than {STATICS_MAX} static translations of a kind"),
            Self::Twice(addr, 0) => write!(f, "{addr} is translated twice"),
            Self::Twice(addr, port) => write!(f, "port {port} of {addr} is translated twice"),
            Self::TwoUplinks(addr) => write!(f, "{addr} belongs to two uplinks"),
            Self::NoTarget(port) => write!(f, "the forward of port {port} leads nowhere"),
            Self::Family(addr) => write!(f, "{addr} is translated to another family"),
            Self::Port(proto, port) => write!(f, "{proto} has no port {port} to translate"),
            Self::PortWithoutSocket(port) => write!(f, "port {port} cannot serve a whole client"),
        }
    }
}

impl core::error::Error for StaticError {}

/// Where the first packet of a flow from the world goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// The client's address and port.
    pub to: (IpAddr, u16),
    /// Whether a forward says so, which is permission enough. Otherwise the address belongs to that
    /// client, and the rules must be asked.
    pub forwarded: bool,
}

impl Inbound {
    /// The tuple of a packet that came with `tuple`, as the client gets it.
    #[must_use]
    pub const fn tuple(&self, tuple: &Tuple) -> Tuple {
        Tuple { dst: self.to.0, dport: self.to.1, ..*tuple }
    }
}

impl Prefix {
    /// Whether `addr` is in it.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        let shift = |bits: u8| u32::from(bits.saturating_sub(self.len));
        match (self.addr, addr) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    fn is_sound(&self) -> bool {
        self.len <= if self.addr.is_ipv6() { 128 } else { 32 }
    }
}

impl Forward {
    pub(crate) const fn key(&self) -> (Proto, IpAddr, u16) {
        (self.proto, self.external, self.port)
    }

    pub(crate) fn lets_in(&self, remote: IpAddr) -> bool {
        self.from.is_empty() || self.from.iter().any(|prefix| prefix.contains(remote))
    }
}

impl Statics {
    /// Checks that each question has one answer.
    pub(crate) fn check(&self) -> Result<(), StaticError> {
        let lens = [self.forwards.len(), self.one_to_one.len(), self.sources.len()];
        if lens.into_iter().any(|len| len > STATICS_MAX) {
            return Err(StaticError::TooMany);
        }
        self.forwards.iter().try_for_each(check_forward)?;
        for pair in &self.one_to_one {
            same_family(pair.inside, pair.external)?;
        }
        self.sources.iter().try_for_each(check_source)?;
        let anywhere = Uplink::FIRST;
        unique(self.forwards.iter().map(|f| (f.external, f.port, f.proto.number(), anywhere)))?;
        unique(self.one_to_one.iter().map(|pair| (pair.inside, 0, 0, pair.uplink)))?;
        unique(self.one_to_one.iter().map(|pair| (pair.external, 0, 0, anywhere)))?;
        unique(self.sources.iter().map(|s| {
            let (proto, port) = s.socket.map_or((0, 0), |(proto, port)| (proto.number(), port));
            (s.inside, port, proto, s.uplink)
        }))?;
        unique(self.claims().map(|(proto, addr, port)| (addr, port, proto.number(), anywhere)))?;
        match self.externals().array_windows().find(|[a, b]| a.addr == b.addr) {
            Some([twice, _]) => Err(StaticError::TwoUplinks(twice.addr)),
            None => Ok(()),
        }
    }

    /// Ports that are spoken for.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (Proto, IpAddr, u16)> {
        let fixed = |s: &Source| Some((s.socket?.0, s.external, s.port?));
        self.forwards.iter().map(Forward::key).chain(self.sources.iter().filter_map(fixed))
    }

    /// All external addresses in order, each once if it is on one uplink.
    pub(crate) fn externals(&self) -> Vec<External> {
        let external = |(addr, uplink, inside)| External { addr, uplink, inside };
        let pairs = self.one_to_one.iter().map(|p| (p.external, p.uplink, Some(p.inside)));
        let forwards = self.forwards.iter().map(|f| (f.external, f.uplink, None));
        let sources = self.sources.iter().map(|s| (s.external, s.uplink, None));
        let mut all: Vec<_> = pairs.chain(forwards).chain(sources).map(external).collect();
        // A client comes before none, so that it is the one that stays.
        all.sort_unstable_by_key(|e| (e.addr, e.uplink, e.inside.is_none()));
        all.dedup_by_key(|e| (e.addr, e.uplink));
        all
    }
}

/// An external address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct External {
    pub(crate) addr: IpAddr,
    /// Where it is known.
    pub(crate) uplink: Uplink,
    /// The client that it stands for, if it does for one.
    pub(crate) inside: Option<IpAddr>,
}

fn same_family(a: IpAddr, b: IpAddr) -> Result<(), StaticError> {
    if a.is_ipv6() == b.is_ipv6() { Ok(()) } else { Err(StaticError::Family(a)) }
}

fn check_port(proto: Proto, port: u16) -> Result<(), StaticError> {
    let fine = matches!(proto, Proto::Tcp | Proto::Udp) && port != 0;
    if fine { Ok(()) } else { Err(StaticError::Port(proto, port)) }
}

fn check_forward(forward: &Forward) -> Result<(), StaticError> {
    check_port(forward.proto, forward.port)?;
    if forward.to.is_empty() {
        return Err(StaticError::NoTarget(forward.port));
    }
    if forward.to.len() > STATICS_MAX || forward.from.len() > STATICS_MAX {
        return Err(StaticError::TooMany);
    }
    for (addr, port) in &forward.to {
        same_family(*addr, forward.external)?;
        check_port(forward.proto, *port)?;
    }
    for prefix in &forward.from {
        same_family(prefix.addr, forward.external)?;
        if !prefix.is_sound() {
            return Err(StaticError::Family(prefix.addr));
        }
    }
    Ok(())
}

fn check_source(source: &Source) -> Result<(), StaticError> {
    same_family(source.inside, source.external)?;
    if let Some((proto, port)) = source.socket {
        check_port(proto, port)?;
    }
    match (source.socket, source.port) {
        (None, Some(port)) => Err(StaticError::PortWithoutSocket(port)),
        (Some((proto, _)), Some(port)) => check_port(proto, port),
        (_, None) => Ok(()),
    }
}

fn unique(keys: impl Iterator<Item = (IpAddr, u16, u8, Uplink)>) -> Result<(), StaticError> {
    let mut keys: Vec<_> = keys.collect();
    keys.sort_unstable();
    match keys.array_windows().find(|[a, b]| a == b) {
        Some([(addr, port, ..), _]) => Err(StaticError::Twice(*addr, *port)),
        None => Ok(()),
    }
}
