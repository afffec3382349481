//! The question asked once for each new flow.

use crate::Header;
use core::fmt;
use core::net::IpAddr;
use wire::Uplink;

/// One side of the firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Zone {
    /// A network beyond the firewall, reached by this uplink.
    Uplink(Uplink),
    /// All client VMs, served by netback. Which one is told by the source address: the firewall
    /// has made sure before that it belongs to the interface it came from.
    Clients,
}

impl Zone {
    /// All zones.
    pub const ALL: [Self; Uplink::COUNT + 1] = {
        let [a, b, c, d] = Uplink::ALL;
        [Self::Clients, Self::Uplink(a), Self::Uplink(b), Self::Uplink(c), Self::Uplink(d)]
    };

    /// Which uplink it is, unless it is the clients.
    #[must_use]
    pub const fn uplink(self) -> Option<Uplink> {
        match self {
            Self::Uplink(uplink) => Some(uplink),
            Self::Clients => None,
        }
    }
}

/// The version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `addr`.
    #[must_use]
    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// The fields of the transport header that rules may look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
    },
    /// UDP.
    Udp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
    },
    /// ICMP in IPv4, ICMPv6 in IPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// Any other protocol, by its IP protocol number.
    Other(u8),
}

/// The first packet of a flow, as rules see it: after a DNS redirect, before source translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    /// Where it came in.
    pub from: Zone,
    /// Where it would leave.
    pub to: Zone,
    /// Source address, untranslated.
    pub src: IpAddr,
    /// Destination address; of the same family as `src`.
    pub dst: IpAddr,
    /// Its transport header.
    pub transport: Transport,
    /// The rest.
    pub header: Header,
}

impl Query {
    /// The family of the packet.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.dst)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uplink(Uplink::FIRST) => f.write_str("uplink"),
            Self::Uplink(uplink) => write!(f, "uplink {uplink}"),
            Self::Clients => f.write_str("clients"),
        }
    }
}

/// As a drop log prints it: `tcp 10.137.0.10:4711 -> 1.1.1.1:443`.
impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (src, dst) = (self.src, self.dst);
        match self.transport {
            Transport::Tcp { sport, dport } => {
                write!(f, "tcp {} -> {}", At(src, sport), At(dst, dport))
            }
            Transport::Udp { sport, dport } => {
                write!(f, "udp {} -> {}", At(src, sport), At(dst, dport))
            }
            Transport::Icmp { kind, code } => {
                write!(f, "icmp type {kind} code {code} {src} -> {dst}")
            }
            Transport::Other(proto) => write!(f, "protocol {proto} {src} -> {dst}"),
        }
    }
}

struct At(IpAddr, u16);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        core::net::SocketAddr::new(self.0, self.1).fmt(f)
    }
}
