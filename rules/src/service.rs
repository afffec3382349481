//! What a policy says beside its rules: translations that are written down, routes, where the log
//! goes, and how long and how many flows may live.
//!
//! In: plain data. Out: that it can be obeyed, or why not. Never: an address of the firewall itself,
//! which only its command line knows: `None` stands for it.

use crate::{AddrSet, Invalid, PortSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use wire::{Balance, OneToOne, Uplink};

/// Most translations of a kind, and most targets of one.
pub const SERVICES_MAX: usize = 1024;

/// Most routes.
pub const ROUTES_MAX: usize = 64;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// Ports at which the world may open flows to clients (DNAT), if the rules then accept them.
    pub forwards: Vec<Forward>,
    /// External addresses that stand for one client each.
    pub one_to_one: Vec<OneToOne>,
    /// Sockets or whole clients that leave under a given name (SNAT).
    pub sources: Vec<Source>,
    /// Whether clients may reach each other by external addresses (RFC 4787 REQ-9), if the rules
    /// between clients accept it.
    pub hairpin: bool,
    /// Networks behind other next hops than the gateway of the first uplink.
    pub routes: Vec<Route>,
    /// Where the log goes besides the console.
    pub syslog: Option<Syslog>,
    /// How long flows live, where that is not the default. Each kind once, in their order.
    pub timeouts: Vec<(Timeout, u32)>,
    /// Most flows a client may have at once.
    pub flows_per_client: Option<u32>,
}

/// A protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ported {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port at which the world may open flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where its flows come in.
    pub uplink: Uplink,
    /// TCP or UDP.
    pub proto: Ported,
    /// The external address; `None` is the firewall's own on this uplink, of the family of the
    /// targets.
    pub at: Option<IpAddr>,
    /// The external port.
    pub port: u16,
    /// Who may use it.
    pub from: Arc<AddrSet>,
    /// Where its flows go: one of these, all of one family.
    pub to: Vec<(IpAddr, u16)>,
    /// Which one, if there are several.
    pub balance: Balance,
}

/// Flows that leave under a given name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where they leave.
    pub uplink: Uplink,
    /// The client's address.
    pub inside: IpAddr,
    /// Its protocol and port, if only one socket is meant.
    pub socket: Option<(Ported, u16)>,
    /// The address to leave from.
    pub external: IpAddr,
    /// The port to leave from, which needs a socket.
    pub port: Option<u16>,
}

/// A network behind an uplink or a next hop of its own. Of several that lead to an address the one
/// with the longest prefix counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The first address of the network.
    pub net: IpAddr,
    /// How many leading bits count.
    pub prefix: u8,
    /// Where it lies.
    pub uplink: Uplink,
    /// The next hop there; `None` is the gateway of that uplink.
    pub via: Option<IpAddr>,
}

impl Route {
    /// Whether `addr` is in the network.
    #[must_use]
    pub fn leads_to(&self, addr: IpAddr) -> bool {
        let shift = |bits: u32| bits.saturating_sub(u32::from(self.prefix));
        match (self.net, addr) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// The first and the last address of the network.
    #[must_use]
    pub fn ends(&self) -> (IpAddr, IpAddr) {
        let free = |width: u32| width.saturating_sub(u32::from(self.prefix));
        let last = match self.net {
            IpAddr::V4(net) => {
                let hosts = 1u32.checked_shl(free(32)).map_or(u32::MAX, |one| one.wrapping_sub(1));
                core::net::Ipv4Addr::from_bits(net.to_bits() | hosts).into()
            }
            IpAddr::V6(net) => {
                let hosts =
                    1u128.checked_shl(free(128)).map_or(u128::MAX, |one| one.wrapping_sub(1));
                core::net::Ipv6Addr::from_bits(net.to_bits() | hosts).into()
            }
        };
        (self.net, last)
    }

    fn check(&self) -> Result<(), Invalid> {
        self.via.map_or(Ok(()), |via| same_family(self.net, via))?;
        // Written with its first address, so that it has one form.
        let (first, width) = match self.net {
            IpAddr::V4(net) => (u128::from(net.to_bits()), 32),
            IpAddr::V6(net) => (net.to_bits(), 128),
        };
        let fits = u32::from(self.prefix) <= width;
        let free = width.saturating_sub(u32::from(self.prefix));
        let mask = 1u128.checked_shl(free).map_or(u128::MAX, |one| one - 1);
        if fits && first & mask == 0 { Ok(()) } else { Err(Invalid::Route(self.net)) }
    }
}

/// Where the log goes besides the console (RFC 5424 over UDP, RFC 5426).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syslog {
    /// The receiver.
    pub to: IpAddr,
    /// Its port.
    pub port: u16,
    /// Whether every flow that is accepted is told.
    pub accepted: bool,
    /// Whether everything that is refused is told.
    pub refused: bool,
}

/// What a timeout is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Timeout {
    /// UDP.
    Udp,
    /// UDP to port 53.
    Dns,
    /// ICMP queries.
    Icmp,
    /// TCP connections that are established.
    TcpEstablished,
    /// TCP connections being opened, closed or reset.
    TcpTransitory,
    /// TCP connections seen to end.
    TcpClosed,
}

impl Timeout {
    /// All of them, by their number.
    pub const ALL: [Self; 6] = [
        Self::Udp,
        Self::Dns,
        Self::Icmp,
        Self::TcpEstablished,
        Self::TcpTransitory,
        Self::TcpClosed,
    ];

    /// The word for it in a policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Dns => "dns",
            Self::Icmp => "icmp",
            Self::TcpEstablished => "tcp-established",
            Self::TcpTransitory => "tcp-transitory",
            Self::TcpClosed => "tcp-closed",
        }
    }

    /// The least that is allowed, in seconds (RFC 4787 REQ-5, RFC 5508 REQ-2, RFC 5382 REQ-5).
    #[must_use]
    pub const fn least(self) -> u32 {
        match self {
            Self::Udp => 120,
            Self::Dns | Self::TcpClosed => 1,
            Self::Icmp => 60,
            Self::TcpEstablished => 7440,
            Self::TcpTransitory => 240,
        }
    }

    /// The most that is allowed, in seconds: a week.
    pub const MOST: u32 = 7 * 24 * 3600;
}

impl Services {
    /// Checks that each question has one answer.
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        let lens = [self.forwards.len(), self.one_to_one.len(), self.sources.len()];
        if lens.into_iter().any(|len| len > SERVICES_MAX) || self.routes.len() > ROUTES_MAX {
            return Err(Invalid::TooMany);
        }
        self.forwards.iter().try_for_each(Forward::check)?;
        self.one_to_one.iter().try_for_each(|pair| same_family(pair.inside, pair.external))?;
        self.sources.iter().try_for_each(Source::check)?;
        self.routes.iter().try_for_each(Route::check)?;
        self.one_uplink_each()?;
        once(self.forwards.iter().map(|f| (f.uplink, f.at, f.port, Some(f.proto), f.is_v6())))?;
        let pairs = || self.one_to_one.iter();
        once(pairs().map(|pair| (pair.uplink, Some(pair.inside), 0, None, false)))?;
        once(pairs().map(|pair| (pair.uplink, Some(pair.external), 0, None, false)))?;
        once(self.sources.iter().map(|s| {
            let (proto, port) = s.socket.map_or((None, 0), |(proto, port)| (Some(proto), port));
            (s.uplink, Some(s.inside), port, proto, false)
        }))?;
        once(self.sources.iter().filter_map(|s| {
            Some((s.uplink, Some(s.external), s.port?, s.socket.map(|(proto, _)| proto), false))
        }))?;
        self.routes_once()?;
        let sound = |&(kind, secs): &(Timeout, u32)| (kind.least()..=Timeout::MOST).contains(&secs);
        if !self.timeouts.iter().all(sound) || !self.timeouts.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(Invalid::Timeout);
        }
        match self.flows_per_client {
            Some(0) => Err(Invalid::NoFlows),
            _ => Ok(()),
        }
    }

    /// The uplink by which packets to `dst` leave: that of the route with the longest prefix; what no
    /// route leads to leaves by the first.
    #[must_use]
    pub fn uplink_to(&self, dst: IpAddr) -> Uplink {
        let leading = self.routes.iter().filter(|route| route.leads_to(dst));
        leading.max_by_key(|route| route.prefix).map_or(Uplink::FIRST, |route| route.uplink)
    }

    /// The uplink on which the external address `addr` is answered for, if it is written down.
    #[must_use]
    pub fn uplink_of(&self, addr: IpAddr) -> Option<Uplink> {
        self.external().find_map(|(uplink, of)| (of == addr).then_some(uplink))
    }

    /// Whether the flows of `inside` that leave by `uplink` do so under a name that is written down.
    #[must_use]
    pub fn translates(&self, inside: IpAddr, uplink: Uplink) -> bool {
        let whole = self.sources.iter().filter(|s| s.socket.is_none());
        let whole = whole.map(|s| (s.uplink, s.inside));
        let pairs = self.one_to_one.iter().map(|pair| (pair.uplink, pair.inside));
        whole.chain(pairs).any(|named| named == (uplink, inside))
    }

    /// Every external address that is written down, with its uplink.
    fn external(&self) -> impl Iterator<Item = (Uplink, IpAddr)> {
        let forwards = self.forwards.iter().filter_map(|f| Some((f.uplink, f.at?)));
        let pairs = self.one_to_one.iter().map(|pair| (pair.uplink, pair.external));
        forwards.chain(pairs).chain(self.sources.iter().map(|s| (s.uplink, s.external)))
    }

    /// Of two routes to one network neither would be the longer.
    fn routes_once(&self) -> Result<(), Invalid> {
        let mut nets: Vec<_> = self.routes.iter().map(|r| (r.net, r.prefix)).collect();
        nets.sort_unstable();
        let twice = nets.array_windows().find(|[a, b]| a == b);
        twice.map_or(Ok(()), |[(net, _), _]| Err(Invalid::RouteTwice(*net)))
    }

    /// An address that is answered for on two uplinks would have two meanings.
    fn one_uplink_each(&self) -> Result<(), Invalid> {
        let mut external: Vec<_> = self.external().map(|(uplink, addr)| (addr, uplink)).collect();
        external.sort_unstable();
        let twice = external.array_windows().find(|[(a, on), (b, other)]| a == b && on != other);
        twice.map_or(Ok(()), |[(addr, _), _]| Err(Invalid::TwoUplinks(*addr)))
    }
}

impl Forward {
    /// Whether it is about IPv6.
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.to.first().is_some_and(|(addr, _)| addr.is_ipv6())
    }

    /// The addresses its flows go to.
    #[must_use]
    pub fn targets(&self) -> AddrSet {
        AddrSet::from_addrs(self.to.iter().map(|(addr, _)| *addr))
    }

    /// The ports its flows go to.
    #[must_use]
    pub fn target_ports(&self) -> PortSet {
        PortSet::from_ranges(self.to.iter().map(|&(_, port)| (port, port)))
    }

    fn check(&self) -> Result<(), Invalid> {
        let Some(&(first, _)) = self.to.first() else { return Err(Invalid::NoTarget(self.port)) };
        if self.to.len() > SERVICES_MAX {
            return Err(Invalid::TooMany);
        }
        let ports = self.to.iter().map(|(_, port)| *port).chain([self.port]);
        if ports.into_iter().any(|port| port == 0) || self.from.is_empty() {
            return Err(Invalid::NoTarget(self.port));
        }
        let ends = self.to.iter().map(|(addr, _)| *addr).chain(self.at);
        ends.into_iter().try_for_each(|addr| same_family(addr, first))
    }
}

impl Source {
    fn check(&self) -> Result<(), Invalid> {
        same_family(self.inside, self.external)?;
        match (self.socket, self.port) {
            (Some((_, 0)), _) | (_, Some(0)) => Err(Invalid::PortWithoutSocket(0)),
            (None, Some(port)) => Err(Invalid::PortWithoutSocket(port)),
            _ => Ok(()),
        }
    }
}

fn same_family(a: IpAddr, b: IpAddr) -> Result<(), Invalid> {
    if a.is_ipv6() == b.is_ipv6() { Ok(()) } else { Err(Invalid::Families(a, b)) }
}

type Key = (Uplink, Option<IpAddr>, u16, Option<Ported>, bool);

fn once(keys: impl Iterator<Item = Key>) -> Result<(), Invalid> {
    let mut keys: Vec<_> = keys.collect();
    keys.sort_unstable();
    match keys.array_windows().find(|[a, b]| a == b) {
        Some([(_, addr, port, ..), _]) => Err(Invalid::TranslatedTwice(*addr, *port)),
        None => Ok(()),
    }
}
