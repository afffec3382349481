//! The firewall: a batch of frames in, verdicts and frames of its own out.
//!
//! In: interfaces that come and go, batches of frames with the time they are decided at. Out: a
//! verdict for each, replies (ARP, echo, ICMP errors, resets), lines for the log, counters. Never:
//! I/O, a clock, an allocation for a frame, or a write into a frame.
//!
//! A frame of a client goes through `outbound`, one of the uplink through `inbound`. What has a
//! flow passes by it; what has none is asked of the policy once (`policy`).

mod admit;
mod alias;
mod answer;
mod counters;
mod emit;
mod epochs;
mod fragments;
mod hairpin;
mod hop;
mod hosts;
mod inbound;
mod limit;
mod links;
mod log;
mod look;
mod names;
mod outbound;
mod policy;
mod routes;
mod services;
mod short;
mod site;
mod syslog;
mod told;
mod ways;

pub use alias::Alias;
pub use counters::Counters;
pub use hop::NextHop;
pub use links::Link;
pub use log::{Author, Event, Line, Log, LogLevel};
pub use nat::{Budget, ConfigError};
pub use rules::DnsRedirect;
pub use site::{PerUplink, Site};
pub use told::Network;

use ::names::Names;
use arrayvec::ArrayVec;
use core::net::IpAddr;
use core::time::Duration;
use emit::fits;
use epochs::Epochs;
use hosts::Hosts;
use limit::Rates;
use links::{Links, Reach, Side};
use log::Journal;
use nat::{Direction, Early, FlowId, Fragments, Hash, Nat, StaticError, Statics};
use rules::Policy;
use rules::qubes::Trees;
use syslog::Syslog;
use ways::Ways;
use wire::{
    BATCH, DropReason, Emit, Frame, Instant, Outbox, Parsed, Plain, Port, Uplink, Verdict, parse,
};

/// Most flows whose end is seen to in one [`Firewall::tick`].
const ENDED_AT_ONCE: usize = 1024;

/// How often to be called at least while there are flows or names, so that a pause can be told from
/// having nothing to do.
const HEARTBEAT: Duration = Duration::from_secs(4);

/// Who was not called for so long was not running, and so was nobody else here.
const PAUSE: Duration = Duration::from_secs(10);

/// What a firewall is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// What we are on each uplink.
    pub sites: PerUplink<Site>,
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
            sites: PerUplink::default(),
            policy: None,
            dns: None,
            log: LogLevel::default(),
            nat: nat::Config::default(),
        }
    }
}

impl Config {
    /// The uplinks there are: the first, and each on which we have an address.
    pub fn uplinks(&self) -> impl Iterator<Item = Uplink> + use<> {
        let sites = self.sites;
        let is_there = move |uplink: &Uplink| *uplink == Uplink::FIRST || sites[*uplink].is_there();
        Uplink::ALL.into_iter().filter(is_there)
    }
}

/// The firewall.
#[derive(Debug)]
pub struct Firewall {
    ways: Ways,
    dns: Option<DnsRedirect>,
    policy: Option<Policy>,
    /// The VMs' own rules.
    own: Trees,
    /// Which addresses the names in them stand for.
    names: Names,
    /// The same for names in the policy.
    hosts: Hosts,
    /// Count up with every change of the rules; flows accepted before are asked again.
    epochs: Epochs,
    /// What rules that keep to a rate have spent.
    rates: Rates,
    /// Whether what is forwarded is for the rules to decide.
    asks_about_forwards: bool,
    syslog: Syslog,
    /// How long flows live where the policy does not say.
    timeouts: nat::Timeouts,
    level: LogLevel,
    nat: Nat,
    fragments: Fragments,
    /// Fragments before their first: of clients, and of the world.
    early_out: Early,
    early_in: Early,
    links: Links,
    /// When we were called last.
    last: Instant,
    journal: Journal,
    counters: Counters,
}

/// What becomes of a frame: the way it leaves, or a verdict that it does not.
type Outcome = Result<Emit, Verdict>;

/// A frame on its way through the three loops.
struct Seen {
    side: Option<Side>,
    /// What it is, and the hash of its key, if it is of the plain kind.
    plain: Option<Plain>,
    hash: Hash,
    flow: Option<FlowId>,
}

impl Firewall {
    /// A firewall without interfaces. `secret` must be fresh: ports and hashes are drawn from it.
    ///
    /// # Errors
    /// [`ConfigError`] if the budget or a timeout is too small.
    pub fn new(config: Config, budget: Budget, secret: [u8; 32]) -> Result<Self, ConfigError> {
        // What fragments take is not there for flows.
        let own = Fragments::bytes(config.nat.slots).saturating_add(2 * Early::BYTES);
        let flows = Budget { bytes: budget.bytes.saturating_sub(own) };
        let mut nat = Nat::new(config.nat, flows, secret).map_err(|error| match error {
            ConfigError::Budget { least } => {
                ConfigError::Budget { least: least.saturating_add(own) }
            }
            other => other,
        })?;
        let mut firewall = Self {
            ways: Ways::new(config.sites),
            dns: config.dns,
            counters: Counters::new(config.policy.as_ref()),
            rates: Rates::new(config.policy.as_ref()),
            asks_about_forwards: false,
            syslog: Syslog::new(Instant::ZERO, None),
            timeouts: config.nat.timeouts,
            policy: config.policy,
            own: Trees::default(),
            names: Names::new(nat.draw_key()),
            hosts: Hosts::new(usize::MAX),
            epochs: Epochs::new(config.nat.slots),
            level: config.log,
            fragments: Fragments::new(config.nat.slots, nat.draw_key()),
            early_out: Early::default(),
            early_in: Early::default(),
            nat,
            links: Links::default(),
            last: Instant::ZERO,
            journal: Journal::new(),
        };
        firewall.take_resolvers(Instant::ZERO);
        firewall.take_services(Instant::ZERO);
        Ok(firewall)
    }

    /// An interface can be used from now on. Flows of another client that had its name are over, and
    /// so are all flows of an uplink if it leads to another network than the last time: whoever is
    /// there now is not to see them.
    pub fn port_up(&mut self, now: Instant, port: Port, link: Link) {
        self.port_down(now, port);
        if let Link::Uplink { uplink, network, .. } = link {
            if let Some(old) = self.links.uplink(uplink) {
                self.port_down(now, old.port);
            }
            if self.ways.start(now, uplink, network) {
                self.nat.flush_uplink(now, uplink);
            }
            self.ask_for_names_anew(now);
        }
        let addrs = link.addrs().to_vec();
        self.links.up(now, port, link);
        for addr in addrs {
            self.take_names(now, addr);
        }
    }

    /// An interface is gone. A client's flows go with it; those through an uplink wait for its return.
    pub fn port_down(&mut self, now: Instant, port: Port) {
        self.epochs.change_ways();
        match self.links.down(port) {
            Some(Link::Client { addrs, .. }) => {
                self.nat.client_gone(now, port);
                self.fragments.client_gone(port);
                self.early_out.forget(port);
                self.names.client_gone(port);
                for addr in addrs {
                    self.take_names(now, addr);
                }
            }
            Some(Link::Uplink { uplink, .. }) => self.ways.stop(uplink),
            None => {}
        }
    }

    /// Puts new static translations in place of the old. Each flow they let in is asked about again
    /// when its next packet comes.
    ///
    /// # Errors
    /// [`StaticError`] if they contradict themselves; then everything stays as it was.
    pub fn set_statics(&mut self, statics: Statics) -> Result<(), StaticError> {
        self.nat.set_statics(statics)?;
        self.asks_about_forwards = false;
        self.epochs.change_all();
        Ok(())
    }

    /// Decides up to [`BATCH`] frames, in order. `out` must be new.
    pub fn batch(&mut self, now: Instant, frames: &[Frame<'_>], out: &mut Outbox<'_>) {
        self.awake(now);
        // Three loops, so that the memory that one step waits for is already on its way for all.
        // Filled in place: collected, all of it would be moved once more.
        let mut batch = ArrayVec::<Seen, BATCH>::new();
        batch.extend(frames.iter().take(BATCH).map(|frame| self.see(frame)));
        self.nat.fetch(batch.iter().map(|seen| seen.hash));
        for seen in &mut batch {
            seen.flow = self.find(seen);
        }
        let mut here = self.circumstances(now);
        for (seen, frame) in batch.iter().zip(frames) {
            if let Some(emit) = self.short_way(&here, frame, seen, out) {
                self.counters.emitted(frame.len);
                out.decide(Verdict::Emit(emit));
                continue;
            }
            let verdict = match self.long_way(now, frame, seen, out) {
                Ok(emit) => Verdict::Emit(emit),
                Err(verdict) => verdict,
            };
            self.counters.count(&verdict, frame.len);
            out.decide(verdict);
            here = self.circumstances(now);
        }
        self.send_syslog(now, out);
    }

    /// Does what time demands, a bounded part of it; says when to be called again.
    pub fn tick(&mut self, now: Instant, out: &mut Outbox<'_>) -> Option<Instant> {
        self.awake(now);
        let mut hops = self.ways.deadline();
        if hops.is_some_and(|due| due <= now) {
            self.ask_for_next_hops(now, out);
            hops = self.ways.deadline();
        }
        let names = self.ask_for_names(now, out).map(|due| due.min(now + HEARTBEAT));
        let nat = self.nat.tick(now, ENDED_AT_ONCE).map(|due| due.min(now + HEARTBEAT));
        let rules = self.settle(now);
        let nobody = self.say_who_is_missing(now);
        let log = self.send_syslog(now, out).then_some(now);
        [nat, rules, names, nobody, log, hops].into_iter().flatten().min()
    }

    /// A domain that was paused, or whose machine slept, finds its flows as old as it left them.
    fn awake(&mut self, now: Instant) {
        let silence = now.since(core::mem::replace(&mut self.last, now));
        if silence > PAUSE {
            self.nat.paused(silence);
            self.names_paused(now, silence);
        }
    }

    /// How many flows there are.
    #[must_use]
    pub fn flows(&self) -> u32 {
        self.nat.stats().flows
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

    #[inline(always)]
    fn see(&self, frame: &Frame<'_>) -> Seen {
        let plain = Plain::read(frame);
        let hash = plain.as_ref().map_or(Hash::default(), |plain| self.nat.hash_key(&plain.key));
        Seen { side: self.links.side(frame.from), plain, hash, flow: None }
    }

    #[inline(always)]
    fn find(&self, seen: &Seen) -> Option<FlowId> {
        let direction = match seen.side? {
            Side::Client(_) => Direction::Out,
            Side::Uplink(..) => Direction::In,
        };
        self.nat.seek(seen.hash, direction, &seen.plain.as_ref()?.key)
    }

    /// Decides any frame.
    #[inline(never)] // Else its many variables would stand on the stack of the short way.
    fn long_way(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        seen: &Seen,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        let parsed = parse(frame)?;
        match (&parsed, self.door(frame.from)) {
            (Parsed::Ip(packet), Some(door)) => {
                self.through_door(now, door, frame, packet, seen, out)
            }
            _ => self.decide(now, frame, &parsed, seen, out),
        }
    }

    /// Decides a frame by what it says.
    fn decide(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        parsed: &Parsed<'_>,
        seen: &Seen,
        out: &mut Outbox<'_>,
    ) -> Outcome {
        let from = frame.from;
        let flow = match parsed {
            Parsed::Ip(packet) => packet.tuple().and_then(|tuple| {
                let hash = seen.plain.map_or_else(|| self.nat.hash(&tuple), |_| seen.hash);
                match seen.side? {
                    Side::Client(_) => self.nat.find_out(now, hash, &tuple),
                    Side::Uplink(uplink, _) => self.nat.find_in(now, hash, uplink, &tuple),
                }
            }),
            Parsed::Arp(_) => None,
        };
        match (seen.side, parsed) {
            // Nobody said that this interface is up: no address is its own.
            (None, _) => Err(DropReason::SpoofedSource.into()),
            (Some(Side::Client(from)), Parsed::Arp(arp)) => self.client_arp(now, from, arp, out),
            (Some(Side::Client(from)), Parsed::Ip(packet)) => {
                self.client_packet(now, from, packet, flow, out)
            }
            (Some(Side::Uplink(uplink, reach)), Parsed::Arp(arp)) => {
                self.uplink_arp(now, (uplink, reach), arp, out)
            }
            (Some(Side::Uplink(uplink, reach)), Parsed::Ip(packet)) => {
                debug_assert_eq!(reach.port, from);
                self.uplink_packet(now, (uplink, reach), packet, flow, out)
            }
        }
    }

    /// Whether packets to `addr` are for us to take.
    fn is_ours(&self, addr: IpAddr) -> bool {
        self.ours_on(addr).is_some()
    }

    /// The uplink by which packets to `addr` are for us to take: the one that it is our own address on,
    /// or that it is written down for.
    fn ours_on(&self, addr: IpAddr) -> Option<Uplink> {
        self.ways.owner(addr).or_else(|| self.nat.external_on(addr))
    }
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
