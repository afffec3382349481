//! Translations that are written down: port forwards, addresses that belong to one client, fixed
//! sources.
//!
//! In: lists, checked once. Out: where a packet from the world is to go, and under which name a
//! client's socket leaves. Never: two answers to one question, or a search that grows with the flows.

use crate::hash::{Endpoint, Hasher};
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use wire::{Proto, Tuple};

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

/// How a forward chooses among its targets. A flow stays where it was sent first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// Always the same for one remote address, as long as that target is there; one that comes or
    /// goes moves no remote but its own (rendezvous hashing).
    Hash,
}

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// An address in it.
    pub addr: IpAddr,
    /// How many leading bits count.
    pub len: u8,
}

/// An external address that stands for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneToOne {
    /// The client's address.
    pub inside: IpAddr,
    /// What the world knows it by. Nobody else leaves from it.
    pub external: IpAddr,
}

/// Flows that leave under a given name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
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
    fn key(&self) -> (Proto, IpAddr, u16) {
        (self.proto, self.external, self.port)
    }

    fn lets_in(&self, remote: IpAddr) -> bool {
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
        unique(self.forwards.iter().map(|f| (f.external, f.port, f.proto.number())))?;
        unique(self.one_to_one.iter().map(|pair| (pair.inside, 0, 0)))?;
        unique(self.one_to_one.iter().map(|pair| (pair.external, 0, 0)))?;
        unique(self.sources.iter().map(|s| {
            let (proto, port) = s.socket.map_or((0, 0), |(proto, port)| (proto.number(), port));
            (s.inside, port, proto)
        }))?;
        unique(self.claims().map(|(proto, addr, port)| (addr, port, proto.number())))
    }

    /// Ports that are spoken for.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (Proto, IpAddr, u16)> {
        let fixed = |s: &Source| Some((s.socket?.0, s.external, s.port?));
        self.forwards.iter().map(Forward::key).chain(self.sources.iter().filter_map(fixed))
    }

    /// All external addresses, each once and in order, with the client that it stands for if it does.
    fn externals(&self) -> Vec<(IpAddr, Option<IpAddr>)> {
        let pairs = self.one_to_one.iter().map(|pair| (pair.external, Some(pair.inside)));
        let forwards = self.forwards.iter().map(|forward| (forward.external, None));
        let sources = self.sources.iter().map(|source| (source.external, None));
        let mut all: Vec<_> = pairs.chain(forwards).chain(sources).collect();
        // A client comes before none, so that it is the one that stays.
        all.sort_unstable_by_key(|(external, inside)| (*external, inside.is_none()));
        all.dedup_by_key(|(external, _)| *external);
        all
    }
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

fn unique(keys: impl Iterator<Item = (IpAddr, u16, u8)>) -> Result<(), StaticError> {
    let mut keys: Vec<_> = keys.collect();
    keys.sort_unstable();
    match keys.array_windows().find(|[a, b]| a == b) {
        Some([(addr, port, _), _]) => Err(StaticError::Twice(*addr, *port)),
        None => Ok(()),
    }
}

/// The lists as they are asked.
#[derive(Debug, Default)]
pub(crate) struct Book {
    statics: Statics,
    /// See [`Statics::externals`].
    externals: Vec<(IpAddr, Option<IpAddr>)>,
    /// How many flows each forward has opened.
    turns: Vec<usize>,
    /// Ports that are spoken for at some address, in order.
    claimed: Vec<(Proto, u16)>,
    /// Those of them that were taken out of the ports to be given away.
    kept: Vec<(Proto, u16)>,
}

impl Book {
    /// Takes checked lists.
    pub(crate) fn new(mut statics: Statics) -> Self {
        statics.forwards.sort_unstable_by_key(Forward::key);
        statics.one_to_one.sort_unstable_by_key(|pair| pair.inside);
        let key = |s: &Source| (s.inside, s.socket.map(|(proto, port)| (proto.number(), port)));
        statics.sources.sort_unstable_by_key(key);
        let turns = alloc::vec![0; statics.forwards.len()];
        let mut claimed: Vec<_> = statics.claims().map(|(proto, _, port)| (proto, port)).collect();
        claimed.sort_unstable();
        claimed.dedup();
        let kept = Vec::with_capacity(claimed.len());
        let externals = statics.externals();
        Self { statics, externals, turns, claimed, kept }
    }

    pub(crate) const fn statics(&self) -> &Statics {
        &self.statics
    }

    /// All ports that are spoken for, each once.
    pub(crate) fn claimed(&self) -> impl Iterator<Item = (Proto, u16)> + use<> {
        self.claimed.clone().into_iter()
    }

    /// Notes that a port that is spoken for was taken out of those to be given away.
    pub(crate) fn keep(&mut self, proto: Proto, port: u16) {
        if self.kept.len() < self.kept.capacity() {
            self.kept.push((proto, port));
        }
    }

    /// The ports that can be given away again when this is no longer written.
    pub(crate) fn into_kept(self) -> Vec<(Proto, u16)> {
        self.kept
    }

    /// Whether a port is spoken for at any address. Ports are given away for all addresses at once.
    pub(crate) fn claims(&self, proto: Proto, port: u16) -> bool {
        self.claimed.binary_search(&(proto, port)).is_ok()
    }

    /// Under which name a client's socket leaves, if that is written; with a port if that is, too.
    pub(crate) fn source(&self, proto: Proto, inside: Endpoint) -> Option<(IpAddr, Option<u16>)> {
        let Statics { one_to_one, sources, .. } = &self.statics;
        let of = |socket: Option<(Proto, u16)>| {
            let key = (inside.addr, socket.map(|(proto, port)| (proto.number(), port)));
            let found = sources.binary_search_by_key(&key, |s| {
                (s.inside, s.socket.map(|(proto, port)| (proto.number(), port)))
            });
            found.ok().and_then(|at| sources.get(at))
        };
        if let Some(source) = of(Some((proto, inside.port))).or_else(|| of(None)) {
            return Some((source.external, source.port));
        }
        let at = one_to_one.binary_search_by_key(&inside.addr, |pair| pair.inside).ok()?;
        Some((one_to_one.get(at)?.external, Some(inside.port)))
    }

    /// Where a packet from the world goes that belongs to no flow. `is_there` says which clients are.
    pub(crate) fn inbound(
        &self,
        hasher: &Hasher,
        tuple: &Tuple,
        is_there: impl Fn(IpAddr) -> bool,
    ) -> Option<Inbound> {
        let Some((at, forward)) = self.forward(tuple) else {
            let inside = self.external(tuple.dst)?.1?;
            let to = (inside, tuple.dport);
            return is_there(inside).then_some(Inbound { to, forwarded: false });
        };
        if !forward.lets_in(tuple.src) {
            return None;
        }
        let there = || forward.to.iter().filter(|(addr, _)| is_there(*addr));
        let to = match forward.balance {
            Balance::RoundRobin => {
                let turn = self.turns.get(at)?.checked_rem(there().count())?;
                there().nth(turn).copied()
            }
            Balance::Hash => {
                let weight = |(addr, port): &&(IpAddr, u16)| {
                    let target = Endpoint { addr: *addr, port: *port };
                    hasher.pair(tuple.src, target)
                };
                there().max_by_key(weight).copied()
            }
        }?;
        Some(Inbound { to, forwarded: true })
    }

    /// A flow was opened that way: it is the next target's turn.
    pub(crate) fn turn(&mut self, tuple: &Tuple) {
        let Some((at, _)) = self.forward(tuple) else { return };
        if let Some(turn) = self.turns.get_mut(at) {
            *turn = turn.wrapping_add(1);
        }
    }

    /// Whether a flow that the world opened with `tuple` to this client would be let in now by a
    /// forward (`Some(true)`), or is for the rules to decide (`Some(false)`).
    pub(crate) fn still(&self, tuple: &Tuple, to: Endpoint) -> Option<bool> {
        if let Some((_, forward)) = self.forward(tuple) {
            let leads = forward.to.contains(&(to.addr, to.port));
            return (leads && forward.lets_in(tuple.src)).then_some(true);
        }
        let inside = self.external(tuple.dst)?.1;
        (inside == Some(to.addr)).then_some(false)
    }

    /// An external address, and the client that it stands for.
    pub(crate) fn external(&self, addr: IpAddr) -> Option<(IpAddr, Option<IpAddr>)> {
        let at = self.externals.binary_search_by_key(&addr, |(external, _)| *external).ok()?;
        self.externals.get(at).copied()
    }

    fn forward(&self, tuple: &Tuple) -> Option<(usize, &Forward)> {
        let key = (tuple.proto, tuple.dst, tuple.dport);
        let forwards = &self.statics.forwards;
        let at = forwards.binary_search_by_key(&key, Forward::key).ok()?;
        forwards.get(at).map(|forward| (at, forward))
    }
}
