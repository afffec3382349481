//! The translator: its tables, and the way of a packet that has a flow.
//!
//! In: packets with their flow. Out: their new tuple. Never: an allocation, or a search.

use crate::book::Book;
use crate::clients::{Clients, PerProto};
use crate::flow::{Flow, Memory, Origin};
use crate::hash::Hasher;
use crate::index::Index;
use crate::numbers::Numbers;
use crate::plan::Plan;
use crate::ports::Ports;
use crate::quarantine::Quarantine;
use crate::slab::Slab;
use crate::state::{Event, Lifetimes, Side};
use crate::tcp::Passed;
use crate::wheel::Wheel;
use crate::{
    Budget, Config, ConfigError, Direction, Facts, FlowId, Hash, Holding, Passage, Sender, Share,
    Stats,
};
use chacha20::ChaCha20Rng;
use core::net::IpAddr;
use rand_pcg::rand_core::SeedableRng;
use wire::{Addr, DropReason, Instant, Key, Port, Proto, Translation, Transport, Tuple, Uplink};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The translator.
///
/// One index serves both directions: each flow stands in it under the tuple that its client sends and
/// under the tuple that its remote answers with.
#[derive(Debug)]
pub struct Nat {
    pub(crate) lifetimes: Lifetimes,
    pub(crate) hasher: Hasher,
    pub(crate) keyed: ChaCha20Rng,
    pub(crate) flows: Slab<Flow>,
    /// Flows by both their keys; see [`Entry`].
    pub(crate) index: Index,
    /// One flow of each socket that has a port for all its remotes.
    pub(crate) sockets: Index,
    pub(crate) ports: PerProto<Ports>,
    /// Ports that flows have, drawn.
    pub(crate) drawn: u32,
    pub(crate) quarantine: Quarantine,
    /// Addresses that flows leave from.
    pub(crate) externals: Numbers<External>,
    /// The next flow to be looked at whether it leaves from one that is retired.
    pub(crate) retired: Option<u32>,
    /// Where redirected flows really go.
    pub(crate) reals: Numbers<(Addr, u16)>,
    pub(crate) clients: Clients,
    pub(crate) wheel: Wheel,
    pub(crate) book: Book,
    pub(crate) stats: Stats,
    /// Time in which nothing ran, in nanoseconds.
    pub(crate) skipped: u64,
}

/// An address that flows leave from, and the uplink it is known on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct External {
    pub(crate) addr: Addr,
    /// Its number, or [`OVER`]: one byte, as it is compared for each packet.
    number: u8,
}

/// No uplink has this number: whoever leaves from such an address is over.
const OVER: u8 = u8::MAX;

impl External {
    pub(crate) const fn new(addr: Addr, uplink: Uplink) -> Self {
        Self { addr, number: uplink.number() }
    }

    #[inline]
    pub(crate) const fn is_on(self, uplink: Uplink) -> bool {
        self.number == uplink.number()
    }

    /// `None` if whoever leaves from it is over.
    pub(crate) const fn uplink(self) -> Option<Uplink> {
        Uplink::new(self.number)
    }

    /// From now on whoever leaves from it is over.
    pub(crate) const fn retire(&mut self) {
        self.number = OVER;
    }
}

/// A flow, and which of its two keys it stands under: the lowest bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(pub(crate) u32);

impl Entry {
    pub(crate) const fn new(index: u32, direction: Direction) -> Self {
        Self(index << 1 | matches!(direction, Direction::In) as u32)
    }

    pub(crate) const fn index(self) -> u32 {
        self.0 >> 1
    }

    pub(crate) const fn direction(self) -> Direction {
        if self.0 & 1 == 0 { Direction::Out } else { Direction::In }
    }
}

impl Nat {
    /// A translator with no flows. All memory is taken here, within `budget`; all unpredictability
    /// comes from `secret`, which must never be used twice.
    ///
    /// # Errors
    /// [`ConfigError`] if a timeout is too short or the budget too small.
    pub fn new(config: Config, budget: Budget, secret: [u8; 32]) -> Result<Self, ConfigError> {
        config.timeouts.check()?;
        let plan = Plan::new(&config, budget)?;
        let mut keyed = ChaCha20Rng::from_seed(secret);
        let [tcp, udp, icmp, icmpv6] = [(); 4].map(|()| Ports::new());
        Ok(Self {
            lifetimes: Lifetimes::new(&config.timeouts),
            hasher: Hasher::fresh(&mut keyed),
            keyed,
            flows: Slab::new(plan.flows),
            index: Index::new(plan.index_entries(), 2 * plan.flows),
            sockets: Index::new(plan.socket_entries(), plan.flows),
            ports: PerProto { tcp, udp, icmp, icmpv6 },
            drawn: 0,
            quarantine: Quarantine::new(),
            externals: Numbers::new(),
            retired: None,
            reals: Numbers::new(),
            clients: Clients::new(config.slots, plan.flows),
            wheel: Wheel::new(),
            book: Book::default(),
            stats: Stats { capacity: plan.flows, ..Stats::default() },
            skipped: 0,
        })
    }

    /// Hash of a packet's tuple, whichever way it goes. To be made for a whole batch before the
    /// first is looked up.
    #[must_use]
    pub fn hash(&self, tuple: &Tuple) -> Hash {
        // Nobody stands under what is no key, whatever its hash.
        Key::new(tuple).map_or(Hash(0), |key| self.hasher.key(&key))
    }

    /// The live flow of a packet that came from a client.
    #[must_use]
    pub fn find_out(&self, now: Instant, hash: Hash, tuple: &Tuple) -> Option<FlowId> {
        self.live(now, self.find(hash, Sender::Client, tuple)?)
    }

    /// The live flow of a packet that came from the world by `uplink` to an external address. This is
    /// the whole filter: it matches address, port and protocol of the remote (RFC 4787 REQ-8), and the
    /// uplink that the flow leaves by.
    #[must_use]
    pub fn find_in(
        &self,
        now: Instant,
        hash: Hash,
        uplink: Uplink,
        tuple: &Tuple,
    ) -> Option<FlowId> {
        self.live(now, self.find(hash, Sender::World(uplink), tuple)?)
    }

    /// The uplink that a flow leaves by, unless it is over.
    #[must_use]
    pub fn uplink(&self, id: FlowId) -> Option<Uplink> {
        self.externals.value(self.get(id)?.external)?.uplink()
    }

    /// The same of a flow that the world opened: its packets leave where those of the world came in.
    #[must_use]
    pub fn came_by(&self, id: FlowId) -> Option<Uplink> {
        self.get(id).filter(|flow| flow.origin == Origin::World)?;
        self.uplink(id)
    }

    /// Takes a packet through its flow.
    ///
    /// The caller has verified the checksum of every TCP segment that carries SYN, FIN or RST.
    ///
    /// # Errors
    /// [`DropReason::InvalidTcp`] if it fits no state of its connection; [`DropReason::Unsolicited`]
    /// if the flow is gone, or an ICMP query answers or asks the wrong way round.
    pub fn pass(
        &mut self,
        now: Instant,
        id: FlowId,
        direction: Direction,
        transport: &Transport,
    ) -> Result<Passage, DropReason> {
        let second = self.second(now);
        let flow = self.flows.get_mut(id.index).filter(|flow| flow.generation == id.generation);
        let flow = flow.ok_or(DropReason::Unsolicited)?;
        if second >= flow.deadline(&self.lifetimes) || self.clients.get(flow.owner).is_none() {
            return Err(DropReason::Unsolicited);
        }
        let side = flow.side(direction);
        let passed = match (flow.proto(), transport) {
            (Proto::Tcp, Transport::Tcp(segment)) => {
                let Memory::Tcp(track) = &mut flow.memory else {
                    return Err(DropReason::Unsolicited);
                };
                track.pass(flow.state, side, segment).ok_or(DropReason::InvalidTcp)?
            }
            (Proto::Udp, Transport::Udp(_)) => {
                let next = flow.state.next(side, Event::Datagram);
                next.map(Passed::Counts).ok_or(DropReason::Unsolicited)?
            }
            (Proto::Icmp | Proto::Icmpv6, Transport::IcmpQuery(query))
                if query.is_reply == (side == Side::Other) =>
            {
                let next = flow.state.next(side, Event::Datagram);
                next.map(Passed::Counts).ok_or(DropReason::Unsolicited)?
            }
            _ => return Err(DropReason::Unsolicited),
        };
        if let Passed::Counts(next) = passed {
            let moved = next != flow.state;
            // Only the inside keeps a mapping alive (RFC 4787 REQ-6, RFC 7857 section 7). A TCP
            // state starts its own time, whoever brought it about.
            if direction == Direction::Out || moved && flow.proto() == Proto::Tcp {
                flow.seen = second;
            }
            if moved {
                let class = (flow.state.class(), next.class());
                flow.state = next;
                self.requeue(id.index, class.0 != class.1);
            }
        }
        self.passage(id.index, direction).ok_or(DropReason::Unsolicited)
    }

    /// Takes a later fragment of a packet through the flow that its first fragment passed. Changes
    /// nothing, but for data of a TCP segment that reaches up to the sequence number `end`.
    ///
    /// # Errors
    /// [`DropReason::Unsolicited`] if the flow is over.
    pub fn follow(
        &mut self,
        now: Instant,
        id: FlowId,
        direction: Direction,
        end: Option<u32>,
    ) -> Result<Passage, DropReason> {
        if self.get(id).is_none() || self.live(now, id.index).is_none() {
            return Err(DropReason::Unsolicited);
        }
        let flow = self.get_mut(id).ok_or(DropReason::Unsolicited)?;
        let side = flow.side(direction);
        if let (Memory::Tcp(track), Some(end)) = (&mut flow.memory, end) {
            track.stretch(side, end);
        }
        self.passage(id.index, direction).ok_or(DropReason::Unsolicited)
    }

    /// What is known of a flow.
    #[must_use]
    pub fn facts(&self, id: FlowId) -> Option<Facts> {
        let flow = self.get(id)?;
        Some(Facts {
            client: self.clients.get(flow.owner)?.client,
            uplink: self.externals.value(flow.external)?.uplink()?,
            asked: flow.inside().tuple(),
            sent: self.outside(flow)?.tuple(),
            opened: match flow.origin {
                Origin::Client | Origin::Redirected | Origin::Named => Direction::Out,
                Origin::World => Direction::In,
            },
            epoch: flow.epoch,
        })
    }

    /// Epoch of the rules that last accepted a flow.
    #[must_use]
    pub fn epoch(&self, id: FlowId) -> Option<u32> {
        self.get(id).map(|flow| flow.epoch)
    }

    /// Notes that the rules of `epoch` accept a flow. Its packets take the long way again.
    pub fn approve(&mut self, id: FlowId, epoch: u32) {
        if let Some(flow) = self.get_mut(id) {
            flow.epoch = epoch;
            flow.short = 0;
        }
    }

    /// Keeps an external port for the firewall itself: no flow will ever have it. False if one has
    /// it already, or it is below 1024.
    #[must_use]
    pub fn reserve(&mut self, proto: Proto, port: u16) -> bool {
        let reserved = self.ports.of_mut(proto).reserve(port);
        if reserved {
            self.clients.withhold(proto);
        }
        reserved
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let free = |proto| self.ports.of(proto).free();
        let ports_free = PerProto {
            tcp: free(Proto::Tcp),
            udp: free(Proto::Udp),
            icmp: free(Proto::Icmp),
            icmpv6: free(Proto::Icmpv6),
        };
        Stats { flows: self.flows.len(), mappings: self.drawn, ports_free, ..self.stats }
    }

    /// What a client holds; `None` if it never opened a flow.
    #[must_use]
    pub fn holding(&self, client: Port) -> Option<Holding> {
        self.clients.get(client.slot().0).filter(|holding| holding.client == client).copied()
    }

    /// What each client may hold now.
    #[must_use]
    pub fn share(&self) -> Share {
        self.clients.share()
    }

    /// The flow of a packet of `sender`.
    pub(crate) fn find(&self, hash: Hash, sender: Sender, tuple: &Tuple) -> Option<u32> {
        let (index, flow) = self.look_up(hash, sender.direction(), &Key::new(tuple)?)?;
        self.is_of(flow, sender).then_some(index)
    }

    /// Whether a flow with the key of a packet is there for its sender. No two flows have one key, as an
    /// address is that of one uplink.
    #[inline]
    pub(crate) fn is_of(&self, flow: &Flow, sender: Sender) -> bool {
        match sender {
            Sender::Client => true,
            Sender::World(uplink) => {
                self.externals.value(flow.external).is_some_and(|external| external.is_on(uplink))
            }
        }
    }

    /// The flow that has a key, whichever uplink it leaves by, be it over or not.
    #[inline]
    pub(crate) fn look_up(
        &self,
        hash: Hash,
        direction: Direction,
        key: &Key,
    ) -> Option<(u32, &Flow)> {
        self.index.find(hash, |entry| {
            let entry = Entry(entry);
            let flow = self.flows.get(entry.index()).filter(|_| entry.direction() == direction)?;
            let same = match direction {
                Direction::Out => flow.inside() == *key,
                Direction::In => self.is_answer(flow, key),
            };
            same.then_some((entry.index(), flow))
        })
    }

    #[inline]
    fn is_answer(&self, flow: &Flow, key: &Key) -> bool {
        (flow.external_port, flow.kind) == (key.dport, key.kind)
            && self.remote(flow) == Some((key.src, key.sport))
            && self.externals.value(flow.external).is_some_and(|external| external.addr == key.dst)
    }

    /// The remote that a flow really goes to.
    #[inline]
    pub(crate) fn remote(&self, flow: &Flow) -> Option<(Addr, u16)> {
        match flow.origin {
            Origin::Client | Origin::Named | Origin::World => Some((flow.asked, flow.asked_port)),
            Origin::Redirected => self.reals.value(flow.real),
        }
    }

    /// Key of what is sent into the world.
    #[inline]
    pub(crate) fn outside(&self, flow: &Flow) -> Option<Key> {
        Some(flow.outside(self.externals.value(flow.external)?.addr, self.remote(flow)?))
    }

    /// The new tuple of a packet of a flow.
    pub(crate) fn passage(&self, index: u32, direction: Direction) -> Option<Passage> {
        let flow = self.flows.get(index)?;
        let client = self.clients.get(flow.owner)?.client;
        let external = self.externals.value(flow.external)?;
        let uplink = external.uplink()?;
        let tuple = match direction {
            Direction::Out => flow.outside(external.addr, self.remote(flow)?).tuple(),
            Direction::In => flow.inside().tuple().reversed(),
        };
        let (src, dst) = (Some((tuple.src, tuple.sport)), Some((tuple.dst, tuple.dport)));
        // The far end has another name only if the flow was redirected.
        let far = |end: Option<(IpAddr, u16)>| end.filter(|_| flow.origin == Origin::Redirected);
        let change = match direction {
            Direction::Out => Translation { src, dst: far(dst), dns_id: None },
            Direction::In => Translation { src: far(src), dst, dns_id: None },
        };
        Some(Passage { client, uplink, tuple, change })
    }

    pub(crate) fn live(&self, now: Instant, index: u32) -> Option<FlowId> {
        let flow = self.flows.get(index)?;
        let live = self.second(now) < flow.deadline(&self.lifetimes)
            && self.clients.get(flow.owner).is_some()
            && self.is_on_an_uplink(flow);
        live.then_some(FlowId { index, generation: flow.generation })
    }

    /// Whether the address a flow leaves from is still one.
    #[inline]
    pub(crate) fn is_on_an_uplink(&self, flow: &Flow) -> bool {
        self.externals.value(flow.external).is_some_and(|external| external.number != OVER)
    }

    pub(crate) fn get(&self, id: FlowId) -> Option<&Flow> {
        self.flows.get(id.index).filter(|flow| flow.generation == id.generation)
    }

    pub(crate) fn get_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        self.flows.get_mut(id.index).filter(|flow| flow.generation == id.generation)
    }

    /// The second an instant lies in, of those that count.
    pub(crate) fn second(&self, now: Instant) -> u32 {
        let nanos = now.as_nanos().saturating_sub(self.skipped);
        u32::try_from(nanos / NANOS_PER_SECOND).unwrap_or(u32::MAX)
    }
}
