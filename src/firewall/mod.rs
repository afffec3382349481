//! The firewall: a batch of frames in, verdicts and frames of its own out.
//!
//! In: interfaces that come and go, batches of frames with the time they are decided at. Out: a
//! verdict for each, replies (ARP, echo, ICMP errors, resets), lines for the log, counters. Never:
//! I/O, a clock, an allocation for a frame, or a write into a frame.
//!
//! A frame of a client goes through `outbound`, one of the uplink through `inbound`. What has a
//! flow passes by it; what has none is asked of the policy once (`policy`).

mod answer;
mod counters;
mod hop;
mod inbound;
mod limit;
mod links;
mod log;
mod outbound;
mod policy;

pub use counters::Counters;
pub use hop::NextHop;
pub use links::Link;
pub use log::{Author, Event, Line, Log, LogLevel};
pub use nat::{Budget, ConfigError};
pub use rules::DnsRedirect;

use arrayvec::ArrayVec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use hop::Hop;
use links::{Links, Reach, Side};
use log::Journal;
use nat::{FlowId, Hash, Nat};
use rules::Policy;
use rules::qubes::Trees;
use wire::{
    BATCH, DropReason, Emit, Frame, Instant, Mac, Outbox, Packet, Parsed, Port, Rewrite,
    Translation, Tuple, Unparsed, Verdict, parse,
};

/// Most flows whose end is seen to in one [`Firewall::tick`].
const ENDED_AT_ONCE: usize = 1024;

/// What a firewall is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our IPv4 address: all flows leave from it, and clients may ping it. Without it, no IPv4.
    pub addr4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub addr6: Option<Ipv6Addr>,
    /// Where IPv4 leaves to.
    pub next_hop4: NextHop,
    /// Where IPv6 leaves to.
    pub next_hop6: NextHop,
    /// What may flow; without it nothing does.
    pub policy: Option<Policy>,
    /// Resolvers that are really somewhere else. If given, that of the policy does not count.
    pub dns: Option<DnsRedirect>,
    /// Which packets are worth a line.
    pub log: LogLevel,
    /// Timeouts and number of port slots.
    pub nat: nat::Config,
}

impl Default for Config {
    /// No address, no policy: nothing flows.
    fn default() -> Self {
        Self {
            addr4: None,
            addr6: None,
            next_hop4: NextHop::Static(Mac::BACKEND),
            next_hop6: NextHop::Static(Mac::BACKEND),
            policy: None,
            dns: None,
            log: LogLevel::default(),
            nat: nat::Config::default(),
        }
    }
}

/// The firewall.
#[derive(Debug)]
pub struct Firewall {
    addr4: Option<Ipv4Addr>,
    addr6: Option<Ipv6Addr>,
    hop4: Hop,
    hop6: Hop,
    dns: Option<DnsRedirect>,
    policy: Option<Policy>,
    /// The VMs' own rules.
    own: Trees,
    /// Counts up with every change of the rules; flows accepted before are asked again.
    epoch: u32,
    level: LogLevel,
    nat: Nat,
    links: Links,
    /// Where the uplink led when it was last up.
    network: Option<u16>,
    journal: Journal,
    counters: Counters,
}

/// What becomes of a frame: the way it leaves, or a verdict that it does not.
type Outcome = Result<Emit, Verdict>;

/// A frame on its way through the three loops.
struct Seen<'a> {
    side: Option<Side>,
    parsed: Result<Parsed<'a>, Unparsed>,
    key: Option<(Hash, Tuple)>,
    flow: Option<FlowId>,
}

impl Firewall {
    /// A firewall without interfaces. `secret` must be fresh: ports and hashes are drawn from it.
    ///
    /// # Errors
    /// [`ConfigError`] if the budget or a timeout is too small.
    pub fn new(config: Config, budget: Budget, secret: [u8; 32]) -> Result<Self, ConfigError> {
        Ok(Self {
            addr4: config.addr4,
            addr6: config.addr6,
            hop4: Hop::new(config.next_hop4),
            hop6: Hop::new(config.next_hop6),
            dns: config.dns,
            counters: Counters::new(config.policy.as_ref()),
            policy: config.policy,
            own: Trees::default(),
            epoch: 0,
            level: config.log,
            nat: Nat::new(config.nat, budget, secret)?,
            links: Links::default(),
            network: None,
            journal: Journal::new(),
        })
    }

    /// An interface can be used from now on. Flows of another client that had its name are over, and
    /// so are all flows if the uplink leads to another network than the last one did: whoever is
    /// there now is not to see them.
    pub fn port_up(&mut self, now: Instant, port: Port, link: Link) {
        self.port_down(now, port);
        if let Link::Uplink { network, .. } = link {
            if let Some(old) = self.links.uplink() {
                self.port_down(now, old.port);
            }
            if self.network.replace(network).is_some_and(|before| before != network) {
                self.nat.flush(now);
            }
            self.hop4.start(now);
            self.hop6.start(now);
        }
        self.links.up(now, port, link);
    }

    /// An interface is gone. A client's flows go with it; those through an uplink wait for its return.
    pub fn port_down(&mut self, now: Instant, port: Port) {
        match self.links.down(port) {
            Some(Link::Client { .. }) => self.nat.client_gone(now, port),
            Some(Link::Uplink { .. }) => {
                self.hop4.stop();
                self.hop6.stop();
            }
            None => {}
        }
    }

    /// Decides up to [`BATCH`] frames, in order. `out` must be new.
    pub fn batch(&mut self, now: Instant, frames: &[Frame<'_>], out: &mut Outbox<'_>) {
        // Three loops, so that the memory that one step waits for is already on its way for all.
        let mut batch: ArrayVec<Seen<'_>, BATCH> =
            frames.iter().take(BATCH).map(|frame| self.see(frame)).collect();
        for seen in &mut batch {
            seen.flow = self.find(now, seen);
        }
        for (seen, frame) in batch.iter().zip(frames) {
            let verdict = match self.decide(now, frame.from, seen, out) {
                Ok(emit) => Verdict::Emit(emit),
                Err(verdict) => verdict,
            };
            self.counters.count(&verdict, frame.len);
            out.decide(verdict);
        }
    }

    /// Does what time demands, a bounded part of it; says when to be called again.
    pub fn tick(&mut self, now: Instant, out: &mut Outbox<'_>) -> Option<Instant> {
        self.ask_for_next_hop(now, out);
        let nat = self.nat.tick(now, ENDED_AT_ONCE);
        [nat, self.hop4.deadline(), self.hop6.deadline()].into_iter().flatten().min()
    }

    /// How many flows there is memory for.
    #[must_use]
    pub fn flows_max(&self) -> u32 {
        self.nat.stats().capacity
    }

    /// What has been counted so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The next line for the log. Lines wait here, so many and no more.
    pub fn next_log(&mut self) -> Option<Line<'_>> {
        let log = self.journal.next()?;
        Some(Line { log, policy: self.policy.as_ref().map_or("", Policy::name) })
    }

    fn see<'a>(&self, frame: &Frame<'a>) -> Seen<'a> {
        let parsed = parse(frame);
        let tuple = match &parsed {
            Ok(Parsed::Ip(packet)) => packet.tuple(),
            Ok(Parsed::Arp(_)) | Err(_) => None,
        };
        let key = tuple.map(|tuple| (self.nat.hash(&tuple), tuple));
        Seen { side: self.links.side(frame.from), parsed, key, flow: None }
    }

    fn find(&self, now: Instant, seen: &Seen<'_>) -> Option<FlowId> {
        let (hash, tuple) = seen.key?;
        match seen.side? {
            Side::Client(_) => self.nat.find_out(now, hash, &tuple),
            Side::Uplink(_) => self.nat.find_in(now, hash, &tuple),
        }
    }

    fn decide(
        &mut self,
        now: Instant,
        from: Port,
        seen: &Seen<'_>,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        // An earlier frame of the batch may have opened or ended the flow.
        let flow = seen.flow.or_else(|| self.find(now, seen));
        match (seen.side, seen.parsed?) {
            // Nobody said that this interface is up: no address is its own.
            (None, _) => Err(DropReason::SpoofedSource.into()),
            (Some(Side::Client(from)), Parsed::Arp(arp)) => self.client_arp(now, from, &arp, out),
            (Some(Side::Client(from)), Parsed::Ip(packet)) => {
                self.client_packet(now, from, &packet, flow, out)
            }
            (Some(Side::Uplink(uplink)), Parsed::Arp(arp)) => {
                self.uplink_arp(now, uplink, &arp, out)
            }
            (Some(Side::Uplink(uplink)), Parsed::Ip(packet)) => {
                debug_assert_eq!(uplink.port, from);
                self.uplink_packet(now, uplink, &packet, flow, out)
            }
        }
    }

    /// Our address of the family of `other`.
    fn own_addr(&self, other: IpAddr) -> Option<IpAddr> {
        match other {
            IpAddr::V4(_) => self.addr4.map(IpAddr::V4),
            IpAddr::V6(_) => self.addr6.map(IpAddr::V6),
        }
    }

    /// Writes the new head of a packet that leaves by the uplink.
    fn emit_to_world(
        &self,
        packet: &Packet<'_>,
        uplink: Reach,
        outer: Translation,
        quoted: Translation,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        let hop = if packet.is_ipv6() { &self.hop6 } else { &self.hop4 };
        let macs = (hop.mac(), uplink.mac);
        emit(packet, uplink, macs, outer, quoted, out)
    }
}

/// Writes the new head of a packet that goes to a client.
fn emit_to_client(
    packet: &Packet<'_>,
    client: Reach,
    outer: Translation,
    quoted: Translation,
    out: &mut Outbox<'_>,
) -> Outcome {
    emit(packet, client, (client.mac, Mac::BACKEND), outer, quoted, out)
}

fn emit(
    packet: &Packet<'_>,
    to: Reach,
    (eth_dst, eth_src): (Mac, Mac),
    outer: Translation,
    quoted: Translation,
    out: &mut Outbox<'_>,
) -> Outcome {
    let change = Rewrite { eth_dst, eth_src, outer, quoted, decrement_ttl: true };
    let place = out.head().ok_or(DropReason::EgressFull)?;
    let head = packet.rewrite(&change, place)?;
    Ok(Emit { to: to.port, head: head.len, skip: head.skip, offload: packet.offload })
}

/// Whether a packet with this source or destination can never be routed (RFC 6890).
fn is_martian(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => {
            let [first, ..] = addr.octets();
            first == 0 || first >= 224 || addr.is_loopback() || addr.is_link_local()
        }
        IpAddr::V6(addr) => {
            addr.is_unspecified()
                || addr.is_loopback()
                || addr.is_multicast()
                || addr.is_unicast_link_local()
                || addr.to_ipv4_mapped().is_some()
        }
    }
}
