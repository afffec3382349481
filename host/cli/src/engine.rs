//! The firewall itself, asked what it does with packets.
//!
//! In: a policy, IP packets with the time they came. Out: what became of each, by which rule, and how it
//! left. Never: the network, or a clock: packets come when their time says so.
//!
//! Captures are made at a client, where nothing is translated: an answer goes to the client's own
//! address there. It is put to the firewall as the server sent it, to where the firewall had let the
//! client's packet leave from.

use rules::{HostName, Policy, RuleId};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tidegate::config::{Addresses, Settings};
use tidegate::firewall::{Budget, ConfigError, Firewall, Link};
use wire::{
    Csum, DropReason, Emit, Frame, HEAD_MAX, Instant, Mac, Offload, Outbox, Packet, Parsed, Port,
    REPLY_MAX, Rewrite, Translation, Tuple, Uplink, Verdict, WHOLE_MAX, parse,
};

/// The address that stands for the firewall's own on `uplink` (RFC 5737).
const fn own4(uplink: Uplink) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, uplink.number().saturating_add(2))
}

/// Likewise (RFC 3849).
const fn own6(uplink: Uplink) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, uplink.number().saturating_add(2) as u16)
}

/// The address that stands for the firewall's own on `uplink`, of the family of `other`.
pub(crate) const fn own(uplink: Uplink, other: IpAddr) -> IpAddr {
    match other {
        IpAddr::V4(_) => IpAddr::V4(own4(uplink)),
        IpAddr::V6(_) => IpAddr::V6(own6(uplink)),
    }
}

/// Memory for connections.
const BUDGET: Budget = Budget { bytes: 64 << 20 };
/// The slot of the first client, behind those of the uplinks.
const CLIENTS: u16 = Uplink::COUNT as u16;
const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
/// A firewall that was not asked for longer takes it that its domain was paused.
const STEP: Duration = Duration::from_secs(5);
/// No flow lives longer.
const LONGEST: Duration = Duration::from_secs(8 * 24 * 3600);
/// Sums of captured packets are often not there yet: the sender's device makes them.
const OFFLOAD: Offload = Offload { csum: Csum::Valid, gso: None };

/// What became of a packet.
pub(crate) struct Fate {
    /// What it was; `None` if it belongs to no conversation.
    pub(crate) tuple: Option<Tuple>,
    pub(crate) kind: Kind,
    /// The rule that was asked, if one was.
    pub(crate) rule: Option<RuleId>,
    /// How it left.
    pub(crate) left: Option<Tuple>,
}

/// What kind of fate that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first packet of a flow, let through.
    Opened,
    /// Let through with its flow.
    Passed,
    /// Kept until the rest of it comes.
    Kept,
    /// The firewall answered it itself.
    Answered,
    /// Not let through.
    Refused(DropReason),
    /// Neither from nor to a client that is known.
    Foreign,
    /// Not all of it was captured, and more was needed.
    Cut,
}

/// One that is attached to the firewall.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) addrs: Vec<IpAddr>,
    pub(crate) mac: Mac,
}

impl Client {
    /// With an interface like any other.
    pub(crate) const fn new(addrs: Vec<IpAddr>) -> Self {
        Self { addrs, mac: Mac([2, 0, 0, 0, 0, 1]) }
    }
}

/// A firewall with all its uplinks and some clients.
pub(crate) struct Engine {
    firewall: Firewall,
    now: Instant,
    /// When the packet before came.
    last: Duration,
    /// The addresses of clients, with the ports and interfaces they are on.
    clients: HashMap<IpAddr, (Port, Mac)>,
    /// What the world knows the firewall and clients by.
    names: HashSet<IpAddr>,
    /// For answers as a client sees them: as the server sent them, and the id of the DNS message then.
    back: HashMap<Tuple, (Tuple, Option<u16>)>,
    /// How many flows each rule had decided before.
    counts: Vec<u64>,
}

impl Engine {
    /// A firewall with this policy and these clients.
    pub(crate) fn new(policy: &Policy, clients: &[Client]) -> Result<Self, ConfigError> {
        let uplinks = Settings::default().uplinks.map(|uplink, none| Addresses {
            addr4: Some(own4(uplink)),
            addr6: Some(own6(uplink)),
            ..none
        });
        let config = Settings { uplinks, ..Settings::default() }.firewall(Some(policy.clone()));
        let mut firewall = Firewall::new(config, BUDGET, [7; 32])?;
        let (mtu, now) = (u16::MAX, Instant::ZERO);
        for uplink in Uplink::ALL {
            let link = Link::Uplink { uplink, mac: OUR_MAC, mtu, network: 0 };
            firewall.port_up(now, port_of(uplink), link);
        }
        let mut known = HashMap::new();
        for (Client { addrs, mac }, slot) in clients.iter().cloned().zip(CLIENTS..) {
            let port = Port::new(slot, 0);
            known.extend(addrs.iter().map(|addr| (*addr, (port, mac))));
            firewall.port_up(now, port, Link::Client { mac, addrs, mtu });
        }
        let counts = vec![0; policy.rule_ids().count()];
        let (last, names, back) = (Duration::ZERO, names(policy), HashMap::new());
        Ok(Self { firewall, now, last, clients: known, names, back, counts })
    }

    /// Takes it that `host` stands for `addr` in the eyes of `client`.
    pub(crate) fn suppose(&mut self, client: IpAddr, host: &HostName, addr: IpAddr) {
        self.firewall.suppose(client, host, &[addr]);
    }

    /// Puts an IP packet of `len` bytes, of which these were captured, to the firewall. If it comes from
    /// outside, by that uplink, or by the one where whoever sent it and whom it is for are at home.
    pub(crate) fn offer(
        &mut self,
        policy: &Policy,
        (at, by): (Duration, Option<Uplink>),
        ip: &[u8],
        len: usize,
    ) -> Fate {
        self.wait(at);
        let fate = |tuple, kind| Fate { tuple, kind, rule: None, left: None };
        let Some((src, dst)) = addresses(ip) else { return fate(None, Kind::Foreign) };
        let client = self.clients.get(&src).copied();
        let (mut from, mut frame) = match client {
            Some((port, mac)) => (port, framed(ip, Mac::BACKEND, mac)),
            None if self.clients.contains_key(&dst) || self.names.contains(&dst) => {
                let by = by.unwrap_or_else(|| home(policy, (src, dst)));
                (port_of(by), framed(ip, OUR_MAC, Mac::BACKEND))
            }
            None => return fate(None, Kind::Foreign),
        };
        let len = len.saturating_add(ETHERNET);
        let tuple = look(&frame, len).and_then(|packet| packet.tuple());
        let answer = tuple.and_then(|tuple| self.back.get(&tuple)).filter(|_| client.is_none());
        if let Some((answer, told)) = answer.and_then(|a| Some((a, sent(&frame, len, *a)?))) {
            from = port_of(policy.parts().services.uplink_to(answer.0.src));
            frame = told;
        }
        let (verdict, head) = self.ask(from, &frame, len);
        let rule = self.rule_asked(policy);
        let kind = match verdict {
            Verdict::Emit(_) if rule.is_some() => Kind::Opened,
            Verdict::Emit(_) => Kind::Passed,
            Verdict::Kept => Kind::Kept,
            Verdict::NeedWhole => Kind::Cut,
            Verdict::Drop(DropReason::Answered) => Kind::Answered,
            Verdict::Drop(reason) => Kind::Refused(reason),
        };
        let left = match verdict {
            Verdict::Emit(emit) => left(&frame, len, &head, emit),
            _ => None,
        };
        if let (Some(tuple), Some((left, id))) = (tuple, left)
            && client.is_some()
        {
            self.back.insert(tuple.reversed(), (left.reversed(), id));
        }
        Fate { tuple, kind, rule, left: left.map(|(left, _)| left) }
    }

    /// Lets time go on, in steps. Captures of several interfaces go back in time, which a firewall
    /// does not. What it says by itself, to the uplink and to clients, goes nowhere.
    fn wait(&mut self, at: Duration) {
        let until = self.now + at.saturating_sub(self.last).min(LONGEST);
        self.last = self.last.max(at);
        loop {
            self.now = until.min(self.now + STEP);
            let mut replies = [[0; REPLY_MAX]; 8];
            let _due = self.firewall.tick(self.now, &mut Outbox::new(&mut [], &mut replies));
            if self.now == until {
                return;
            }
        }
    }

    fn ask(&mut self, from: Port, frame: &[u8], len: usize) -> (Verdict, [u8; HEAD_MAX]) {
        let mut heads = [[0; HEAD_MAX]];
        let mut replies = [[0; REPLY_MAX]; 8];
        let mut verdict = Verdict::NeedWhole;
        for most in [HEAD_MAX, WHOLE_MAX] {
            let head = frame.get(..most.min(len)).unwrap_or(frame);
            if verdict != Verdict::NeedWhole || (most == WHOLE_MAX && head.len() < len) {
                break;
            }
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            let mut out = Outbox::new(&mut heads, &mut replies);
            self.firewall.batch(self.now, &[Frame { from, head, len, offload: OFFLOAD }], &mut out);
            verdict = out.verdicts().first().copied().unwrap_or(verdict);
        }
        let [head] = heads;
        (verdict, head)
    }

    /// The rule that was asked since this was called last.
    fn rule_asked(&mut self, policy: &Policy) -> Option<RuleId> {
        let counts = &self.firewall.counters().rules;
        let now: Vec<u64> = policy.rule_ids().map(|id| counts.of(id)).collect();
        let asked = policy.rule_ids().zip(now.iter().zip(&self.counts)).find(|(_, (n, o))| n != o);
        let asked = asked.map(|(id, _)| id);
        self.counts = now;
        asked
    }
}

/// The addresses that the world knows the firewall and clients by.
fn names(policy: &Policy) -> HashSet<IpAddr> {
    let services = &policy.parts().services;
    let forwards = services.forwards.iter().filter_map(|forward| forward.at);
    let sources = services.sources.iter().map(|source| source.external);
    let pairs = services.one_to_one.iter().map(|pair| pair.external);
    let own = Uplink::ALL.into_iter().flat_map(|at| [own4(at).into(), own6(at).into()]);
    forwards.chain(sources).chain(pairs).chain(own).collect()
}

/// The uplink that a packet comes by: that of the name it is sent to, or else that of its sender.
fn home(policy: &Policy, (src, dst): (IpAddr, IpAddr)) -> Uplink {
    let services = &policy.parts().services;
    let ours = Uplink::ALL.into_iter().find(|uplink| own(*uplink, dst) == dst);
    ours.or(services.uplink_of(dst)).unwrap_or_else(|| services.uplink_to(src))
}

const fn port_of(uplink: Uplink) -> Port {
    Port::new(uplink.number() as u16, 0)
}

/// How a frame left that was let through, and the id of the DNS message in it.
fn left(
    frame: &[u8],
    len: usize,
    head: &[u8; HEAD_MAX],
    emit: Emit,
) -> Option<(Tuple, Option<u16>)> {
    let new = head.get(..emit.head.into())?;
    let (skip, end) = (emit.skip as usize, emit.end as usize);
    let rest = frame.get(skip..end.min(frame.len())).unwrap_or_default();
    let left = [new, rest].concat();
    let len = end.min(len).checked_sub(skip)?.checked_add(emit.head.into())?;
    let packet = look(&left, len)?;
    Some((packet.tuple()?, packet.dns().map(|dns| dns.id)))
}

const ETHERNET: usize = 14;

/// An IP packet as it comes over the wire.
fn framed(ip: &[u8], dst: Mac, src: Mac) -> Vec<u8> {
    let kind: [u8; 2] = if is_ipv6(ip) { [0x86, 0xdd] } else { [0x08, 0x00] };
    [&dst.0, &src.0, &kind[..], ip].concat()
}

fn is_ipv6(ip: &[u8]) -> bool {
    ip.first().is_some_and(|first| first >> 4 == 6)
}

/// Source and destination of an IP packet.
fn addresses(ip: &[u8]) -> Option<(IpAddr, IpAddr)> {
    if is_ipv6(ip) {
        let addr = |at: usize| <[u8; 16]>::try_from(ip.get(at..at + 16)?).ok();
        return Some((addr(8)?.into(), addr(24)?.into()));
    }
    let addr = |at: usize| <[u8; 4]>::try_from(ip.get(at..at + 4)?).ok();
    Some((addr(12)?.into(), addr(16)?.into()))
}

/// The packet in a frame of `len` bytes.
fn look(frame: &[u8], len: usize) -> Option<Packet<'_>> {
    let head = frame.get(..len.min(WHOLE_MAX)).unwrap_or(frame);
    let len = u32::try_from(len).ok()?;
    match parse(&Frame { from: Port::new(0, 0), head, len, offload: OFFLOAD }) {
        Ok(Parsed::Ip(packet)) => Some(packet),
        Ok(Parsed::Arp(_)) | Err(_) => None,
    }
}

/// A frame as the server sent it.
fn sent(frame: &[u8], len: usize, (tuple, id): (Tuple, Option<u16>)) -> Option<Vec<u8>> {
    let packet = look(frame, len)?;
    let outer = Translation {
        src: Some((tuple.src, tuple.sport)),
        dst: Some((tuple.dst, tuple.dport)),
        dns_id: id.filter(|_| packet.dns().is_some()),
    };
    let (eth_dst, eth_src, quoted) = (OUR_MAC, Mac::BACKEND, Translation::NONE);
    let change = Rewrite { eth_dst, eth_src, outer, quoted, decrement_ttl: false };
    let mut head = [0; HEAD_MAX];
    let new = packet.rewrite(&change, &mut head).ok()?;
    let rest = frame.get(new.skip as usize..).unwrap_or_default();
    Some([head.get(..new.len.into())?, rest].concat())
}
