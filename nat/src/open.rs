//! The first packet of a flow.
//!
//! In: a packet that the rules accept. Out: a flow with an external port, or the reason why not.
//! Never: a flow at the cost of a client that is within its share, while another is not.

use crate::flow::{Flow, Memory, Origin};
use crate::hash::Endpoint;
use crate::lists::Links;
use crate::nat::{Entry, External, Nat};
use crate::numbers::Number;
use crate::queries::Queries;
use crate::state::State;
use crate::tcp::Track;
use crate::{Direction, FlowId, NewFlow, Passage, Sender};
use wire::{DropReason, Instant, Key, Kind, Port, Proto, Transport, Tuple};

/// What a flow starts from.
pub(crate) struct Seed {
    pub(crate) origin: Origin,
    pub(crate) owner: Port,
    pub(crate) kind: Kind,
    pub(crate) client: Endpoint,
    pub(crate) asked: Endpoint,
    pub(crate) remote: Endpoint,
    pub(crate) external: Number,
    /// The remote's number, if it is another than the one asked.
    pub(crate) real: Number,
    /// The external port, if it is written down and not drawn.
    pub(crate) fixed: Option<u16>,
    pub(crate) state: State,
    pub(crate) memory: Memory,
    pub(crate) epoch: u32,
}

impl Nat {
    /// Opens a flow for a packet of a client that belongs to none, and takes it through.
    ///
    /// # Errors
    /// [`DropReason::InvalidTcp`] for a segment that opens no connection;
    /// [`DropReason::Untranslatable`] for what is neither TCP, UDP nor an ICMP request, or mixes
    /// address families; [`DropReason::SpoofedSource`] if another client has a flow of this tuple;
    /// [`DropReason::QuotaExceeded`] if the client's share is in use, or it has no slot;
    /// [`DropReason::PortsExhausted`] and [`DropReason::FlowTableFull`] if there is no room at all.
    pub fn open(
        &mut self,
        now: Instant,
        new: &NewFlow<'_>,
    ) -> Result<(FlowId, Passage), DropReason> {
        let seed = self.seed(new)?;
        if let Some(index) = self.find(self.hash(&new.tuple), Sender::Client, &new.tuple) {
            if let Some(id) = self.live(now, index) {
                let owner = self.get(id).map(|flow| flow.owner);
                if owner != Some(new.client.slot().0) {
                    return Err(DropReason::SpoofedSource);
                }
                return Ok((id, self.pass(now, id, Direction::Out, new.transport)?));
            }
            self.end(now, index);
            self.stats.expired += 1;
        }
        if let Some(port) = seed.fixed {
            let src = self.externals.value(seed.external).ok_or(DropReason::FlowTableFull)?;
            let Endpoint { addr: dst, port: dport } = seed.remote;
            let src = src.addr.ip(seed.kind.is_ipv6());
            let sent = Tuple { proto: seed.kind.proto(), src, sport: port, dst, dport };
            self.make_way(now, &seed, &sent.reversed())?;
        }
        let id = self.settle_in(now, &seed)?;
        let passage = self.passage(id.index, Direction::Out).ok_or(DropReason::FlowTableFull)?;
        Ok((id, passage))
    }

    /// Sees to it that no other flow has the names of one whose external port is written down: those
    /// that are drawn are unlike all others, but these can meet. `answer` is what its remote sends.
    ///
    /// # Errors
    /// [`DropReason::PortsExhausted`] if a live flow has them.
    pub(crate) fn make_way(
        &mut self,
        now: Instant,
        seed: &Seed,
        answer: &Tuple,
    ) -> Result<(), DropReason> {
        let Endpoint { addr: src, port: sport } = seed.client;
        let Endpoint { addr: dst, port: dport } = seed.asked;
        let inside = Tuple { proto: seed.kind.proto(), src, sport, dst, dport };
        for (direction, tuple) in [(Direction::Out, &inside), (Direction::In, answer)] {
            // One that is over has them no more, on whichever uplink it was.
            let Some(key) = Key::new(tuple) else { continue };
            let found = self.look_up(self.hash_key(&key), direction, &key);
            let Some(index) = found.map(|(index, _)| index) else { continue };
            if self.live(now, index).is_some() {
                return Err(DropReason::PortsExhausted);
            }
            self.end(now, index);
            self.stats.expired += 1;
        }
        Ok(())
    }

    /// Makes room for a flow and puts it there.
    pub(crate) fn settle_in(&mut self, now: Instant, seed: &Seed) -> Result<FlowId, DropReason> {
        if !self.clients.admit(seed.owner) {
            return Err(DropReason::QuotaExceeded);
        }
        let drawn = seed.fixed.is_none() && self.shared(seed).is_none();
        self.make_room(now, seed.owner.slot().0, drawn.then_some(seed.kind.proto()))?;
        // All flows may have been ended to make that room.
        if !self.clients.admit(seed.owner) {
            return Err(DropReason::FlowTableFull);
        }
        let shared = self.shared(seed);
        let port = match (seed.fixed, shared.and_then(|index| self.flows.get(index))) {
            (Some(port), _) => port,
            (None, Some(flow)) => flow.external_port,
            (None, None) => self.draw_port(now, seed)?,
        };
        let id = self.insert(now, seed, port, shared).ok_or(DropReason::FlowTableFull)?;
        self.stats.opened += 1;
        Ok(id)
    }

    fn seed(&mut self, new: &NewFlow<'_>) -> Result<Seed, DropReason> {
        let tuple = &new.tuple;
        let (state, memory) = Self::start(tuple.proto, new.transport)?;
        let client = Endpoint { addr: tuple.src, port: tuple.sport };
        let asked = Endpoint { addr: tuple.dst, port: tuple.dport };
        let (remote, origin, memory) = match (new.redirected, memory) {
            (None, memory) => (asked, Origin::Client, memory),
            (Some((addr, port)), Memory::None) if tuple.proto == Proto::Udp && port == 53 => {
                let memory = Memory::Dns(Queries::default());
                (Endpoint { addr, port }, Origin::Redirected, memory)
            }
            (Some((addr, port)), memory) => (Endpoint { addr, port }, Origin::Redirected, memory),
        };
        let written = match origin {
            Origin::Client => self.book.source(new.uplink, tuple.proto, client),
            Origin::Redirected | Origin::Named | Origin::World => None,
        };
        let (external, fixed) = written.unwrap_or((new.external, None));
        let origin = if fixed.is_some() { Origin::Named } else { origin };
        let kind = Key::new(tuple).ok_or(DropReason::Untranslatable)?.kind;
        let family = |addr: core::net::IpAddr| addr.is_ipv6() == kind.is_ipv6();
        if !(family(remote.addr) && family(external)) {
            return Err(DropReason::Untranslatable);
        }
        let real = match origin {
            Origin::Redirected => self.reals.number(remote.packed()),
            Origin::Client | Origin::Named | Origin::World => Some(Number::NONE),
        };
        let uplink = new.uplink;
        let leaves = External::new(external.into(), uplink);
        Ok(Seed {
            origin,
            owner: new.client,
            kind,
            client,
            asked,
            remote,
            external: self.externals.number(leaves).ok_or(DropReason::FlowTableFull)?,
            real: real.ok_or(DropReason::FlowTableFull)?,
            fixed,
            state,
            memory,
            epoch: new.epoch,
        })
    }

    /// What a flow is and remembers after its first packet.
    pub(crate) fn start(
        proto: Proto,
        transport: &Transport,
    ) -> Result<(State, Memory), DropReason> {
        match (proto, transport) {
            (Proto::Tcp, Transport::Tcp(segment)) => {
                let track = Track::open(segment).ok_or(DropReason::InvalidTcp)?;
                Ok((State::SynSent, Memory::Tcp(track)))
            }
            (Proto::Udp, Transport::Udp(_)) => Ok((State::Unanswered, Memory::None)),
            (Proto::Icmp | Proto::Icmpv6, Transport::IcmpQuery(query)) if !query.is_reply => {
                Ok((State::Unanswered, Memory::None))
            }
            _ => Err(DropReason::Untranslatable),
        }
    }

    /// Puts a flow into all tables at once. There is room: it was made before. But the indexes have
    /// that only on average: if they do not near the places of this one, nothing is left of it.
    fn insert(
        &mut self,
        now: Instant,
        seed: &Seed,
        external_port: u16,
        shared: Option<u32>,
    ) -> Option<FlowId> {
        let owner = seed.owner.slot().0;
        let seen = self.second(now);
        let (client, client_port) = seed.client.packed();
        let (asked, asked_port) = seed.asked.packed();
        let make = |generation| Flow {
            client,
            asked,
            client_port,
            asked_port,
            external_port,
            owner,
            kind: seed.kind,
            external: seed.external,
            real: seed.real,
            origin: seed.origin,
            state: seed.state,
            short: 0,
            memory: seed.memory,
            seen,
            epoch: seed.epoch,
            wheel: Links::NONE,
            siblings: Links::NONE,
            peers: Links::NONE,
            generation,
        };
        let index = self.flows.insert(make)?;
        self.externals.hold(seed.external);
        if seed.origin == Origin::Redirected {
            self.reals.hold(seed.real);
        }
        if let Some(client) = self.clients.get_mut(owner) {
            client.flows += 1;
        }
        self.clients.enlist(&mut self.flows, owner, seed.state.class(), index);
        let flow = self.flows.get(index)?;
        let (deadline, generation) = (flow.deadline(&self.lifetimes), flow.generation);
        self.wheel.queue(&mut self.flows, index, deadline);
        let mut fits = self.enter_socket(index, shared);
        for direction in [Direction::Out, Direction::In] {
            let hash = self.hash_of(index, direction)?;
            fits &= self.index.insert(hash, Entry::new(index, direction).0);
        }
        if !fits {
            self.end(now, index);
            return None;
        }
        Some(FlowId { index, generation })
    }
}
