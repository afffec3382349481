//! One packet out of many: the one a person would have thought of.

use super::space::{Region, Side, Sort};
use rules::{Family, Header, HostName, Policy, Query, State, Transport, Uplink, Zone};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ports, types and addresses that say something to a reader, most telling first.
const PORTS: [u128; 6] = [443, 80, 53, 22, 25, 1024];
const SOURCE_PORT: u128 = 49152;
/// RFC 5737, RFC 3849.
const OUTSIDE_V4: u128 = 0xc000_0201;
const OUTSIDE_V6: u128 = 0x2001_0db8 << 96 | 1;
/// An address Qubes gives to VMs that nobody is likely to have named.
const CLIENT_V4: u128 = 0x0a89_00fe;
const CLIENT_V6: u128 = 0xfd09_24ef_4179 << 80 | 0xa89_00fe;
/// GRE, for any protocol that has no name in rules.
const OTHER: u8 = 47;

/// A packet, and what has to be so for it to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The packet.
    pub packet: Query,
    /// Host names that stand for its destination; other names do not.
    pub hosts: Vec<HostName>,
}

impl fmt::Display for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.packet.fmt(f)?;
        if_at(f, &self.hosts, self.packet.dst)?;
        self.packet.header.fmt(f)
    }
}

/// What names are taken to stand for, with a comma before it.
pub(crate) fn if_at(f: &mut fmt::Formatter<'_>, hosts: &[HostName], addr: IpAddr) -> fmt::Result {
    match hosts {
        [] => Ok(()),
        [host] => write!(f, ", if {host} is at {addr}"),
        [first, rest @ ..] => {
            write!(f, ", if {first}")?;
            rest.iter().try_for_each(|host| write!(f, " and {host}"))?;
            write!(f, " are at {addr}")
        }
    }
}

/// A packet of `region`, in this direction.
pub(crate) fn packet(policy: &Policy, (from, to): (Zone, Zone), region: &Region) -> Example {
    let [src, dst, a, b, state, ttl, dscp, length, flags] = &region.sides;
    let family = region.pane.family;
    let (src, dst) = (host(policy, from, family, src), host(policy, to, family, dst));
    let port = |side: &Side, wanted: &[u128]| u16::try_from(pick(side, wanted)).unwrap_or(0);
    let byte = |side: &Side, wanted: &[u128]| u8::try_from(pick(side, wanted)).unwrap_or(0);
    let transport = match region.pane.sort {
        Sort::Tcp => Transport::Tcp { sport: port(a, &[SOURCE_PORT]), dport: port(b, &PORTS) },
        Sort::Udp => Transport::Udp { sport: port(a, &[SOURCE_PORT]), dport: port(b, &PORTS) },
        Sort::Icmp => {
            let echo = if family == Family::V4 { 8 } else { 128 };
            Transport::Icmp { kind: byte(a, &[echo]), code: byte(b, &[0]) }
        }
        Sort::Other => Transport::Other(OTHER),
    };
    let plain = Header::PLAIN;
    let like = |side: &Side, usual: u8| byte(side, &[usual.into()]);
    let header = Header {
        state: if state.contains(0) { State::New } else { State::Established },
        ttl: like(ttl, plain.ttl),
        dscp: like(dscp, plain.dscp),
        length: port(length, &[plain.length.into()]),
        // What opens a connection, with more flags if need be.
        flags: byte(flags, &[0x02, 0x42, 0x82, 0xc2, 0x0a, 0x22, 0x12]),
    };
    let packet = Query { from, to, src, dst, transport, header };
    Example { packet, hosts: region.named.example() }
}

fn host(policy: &Policy, zone: Zone, family: Family, side: &Side) -> IpAddr {
    let vms = policy.parts().vms.iter().flat_map(|vm| &vm.addrs);
    let named = vms.filter(|addr| Family::of(**addr) == family && zone == Zone::Clients);
    let mut wanted: Vec<u128> = named.map(|addr| bits(*addr)).collect();
    let routes = policy.parts().services.routes.iter();
    let there = routes.filter(|r| Zone::Uplink(r.uplink) == zone && r.uplink != Uplink::FIRST);
    let there = there.filter(|route| Family::of(route.net) == family);
    wanted.extend(there.map(|route| (bits(route.net) | 1).min(bits(route.ends().1))));
    wanted.extend(match (zone, family) {
        (Zone::Clients, Family::V4) => [CLIENT_V4, OUTSIDE_V4],
        (Zone::Clients, Family::V6) => [CLIENT_V6, OUTSIDE_V6],
        (Zone::Uplink(_), Family::V4) => [OUTSIDE_V4, OUTSIDE_V4],
        (Zone::Uplink(_), Family::V6) => [OUTSIDE_V6, OUTSIDE_V6],
    });
    let picked = pick(side, &wanted);
    match family {
        Family::V4 => Ipv4Addr::from_bits(u32::try_from(picked).unwrap_or(0)).into(),
        Family::V6 => Ipv6Addr::from_bits(picked).into(),
    }
}

const fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits() as u128,
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

/// The first wanted number there is, or else the first at all; not the number of a whole network if
/// that can be.
fn pick(side: &Side, wanted: &[u128]) -> u128 {
    let found = wanted.iter().copied().find(|&number| side.contains(number));
    let first = |&(lo, hi): &(u128, u128)| if lo & 0xff == 0 && lo < hi { lo | 1 } else { lo };
    found.or_else(|| side.ranges().iter().map(first).find(|&number| number != 0)).unwrap_or(0)
}
