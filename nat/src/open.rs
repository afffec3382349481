//! The first packet of a flow.
//!
//! In: a packet that the rules accept. Out: a flow with an external port, or the reason why not.
//! Never: a flow at the cost of a client that is within its share, while another is not.

use crate::flow::{Flow, Origin};
use crate::hash::Endpoint;
use crate::lists::Links;
use crate::mappings::{Mapping, Socket, Use};
use crate::nat::{Entry, Nat, second};
use crate::ports::Walk;
use crate::state::State;
use crate::tcp::Track;
use crate::{Direction, FlowId, NewFlow, Passage};
use wire::{DropReason, Instant, Proto, Transport};

/// What a flow starts from.
struct Seed {
    state: State,
    track: Track,
    socket: Socket,
    asked: Endpoint,
    remote: Endpoint,
    usage: Use,
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
        if let Some(index) = self.find(self.hash(&new.tuple), Direction::Out, &new.tuple) {
            let flow = self.flows.get(index).ok_or(DropReason::FlowTableFull)?;
            if second(now) < flow.deadline(&self.timeouts) {
                if flow.owner != new.client.slot.0 {
                    return Err(DropReason::SpoofedSource);
                }
                let id = FlowId { index, generation: flow.generation };
                return Ok((id, self.pass(now, id, Direction::Out, new.transport)?));
            }
            self.end(now, index);
            self.stats.expired += 1;
        }
        if !self.clients.admit(new.client) {
            return Err(DropReason::QuotaExceeded);
        }
        let shared = self.mapping_of(&seed);
        self.make_room(now, new.client.slot.0, shared.is_none().then_some(new.tuple.proto))?;
        let mapping = self.mapping(now, &seed)?;
        let id = self.insert(now, new, &seed, mapping).ok_or(DropReason::FlowTableFull)?;
        let passage = self.passage(id.index, Direction::Out).ok_or(DropReason::FlowTableFull)?;
        self.stats.opened += 1;
        Ok((id, passage))
    }

    fn seed(&mut self, new: &NewFlow<'_>) -> Result<Seed, DropReason> {
        let tuple = &new.tuple;
        let (state, track) = match (tuple.proto, new.transport) {
            (Proto::Tcp, Transport::Tcp(segment)) => {
                (State::SynSent, Track::open(segment).ok_or(DropReason::InvalidTcp)?)
            }
            (Proto::Udp, Transport::Udp(_)) => (State::Unanswered, Track::NONE),
            (Proto::Icmp | Proto::Icmpv6, Transport::IcmpQuery(query)) if !query.is_reply => {
                (State::Unanswered, Track::NONE)
            }
            _ => return Err(DropReason::Untranslatable),
        };
        let asked = Endpoint { addr: tuple.dst, port: tuple.dport };
        let (remote, usage) = match new.redirected {
            Some((addr, port)) => (Endpoint { addr, port }, Use::Redirected),
            None => (asked, Use::Socket),
        };
        let family = |addr: core::net::IpAddr| addr.is_ipv6() == tuple.src.is_ipv6();
        if !(family(asked.addr) && family(remote.addr) && family(new.external)) {
            return Err(DropReason::Untranslatable);
        }
        let external = self.externals.number(new.external).ok_or(DropReason::FlowTableFull)?;
        let end = Endpoint { addr: tuple.src, port: tuple.sport };
        let socket = Socket { proto: tuple.proto, end, owner: new.client.slot.0, external };
        Ok(Seed { state, track, socket, asked, remote, usage })
    }

    fn mapping_of(&self, seed: &Seed) -> Option<u32> {
        match seed.usage {
            Use::Socket => self.mappings.find(&self.hasher, &seed.socket),
            Use::Redirected => None,
        }
    }

    /// The mapping for a flow: the one its socket has, or a new one with a free port.
    fn mapping(&mut self, now: Instant, seed: &Seed) -> Result<u32, DropReason> {
        if let Some(shared) = self.mapping_of(seed) {
            return Ok(shared);
        }
        if self.mappings.len() >= self.mappings.capacity() {
            return Err(DropReason::FlowTableFull);
        }
        let Socket { proto, end, owner, external } = seed.socket;
        let walk = Walk::fresh(&mut self.keyed);
        let remote = self.hasher.endpoint(proto, seed.remote);
        let avoid = |port| proto == Proto::Tcp && self.quarantine.holds(port, remote, second(now));
        let port = self.ports.of_mut(proto).take(walk, avoid).ok_or(DropReason::PortsExhausted)?;
        let endpoint = match seed.usage {
            Use::Socket => end,
            Use::Redirected => seed.asked,
        };
        let make = |generation| Mapping {
            endpoint,
            port,
            owner,
            generation,
            proto,
            external,
            usage: seed.usage,
            flows: 0,
        };
        let Some(index) = self.mappings.insert(&self.hasher, make) else {
            self.ports.of_mut(proto).release(port);
            return Err(DropReason::FlowTableFull);
        };
        self.externals.hold(external);
        if let Some(client) = self.clients.get_mut(owner) {
            *client.ports.of_mut(proto) += 1;
        }
        Ok(index)
    }

    /// Puts a flow into all tables at once. There is room: it was made before.
    fn insert(
        &mut self,
        now: Instant,
        new: &NewFlow<'_>,
        seed: &Seed,
        mapping: u32,
    ) -> Option<FlowId> {
        let external_port = self.mappings.get(mapping)?.port;
        let owner = new.client.slot.0;
        let make = |generation| Flow {
            client: new.tuple.src,
            remote: seed.remote.addr,
            client_port: new.tuple.sport,
            remote_port: seed.remote.port,
            external_port,
            owner,
            mapping,
            proto: new.tuple.proto,
            external: seed.socket.external,
            origin: match seed.usage {
                Use::Socket => Origin::Client,
                Use::Redirected => Origin::Redirected,
            },
            state: seed.state,
            track: seed.track,
            seen: second(now),
            epoch: new.epoch,
            wheel: Links::NONE,
            siblings: Links::NONE,
            generation,
        };
        let index = self.flows.insert(make)?;
        self.mappings.hold(mapping);
        if let Some(client) = self.clients.get_mut(owner) {
            client.flows += 1;
        }
        self.clients.enlist(&mut self.flows, owner, seed.state.class(), index);
        for direction in [Direction::Out, Direction::In] {
            let hash = self.hash_of(index, direction)?;
            let mut table = core::mem::take(&mut self.index);
            // Never called: the table has room for twice as many.
            let rehash = |entry: &Entry| {
                self.hash_of(entry.index(), entry.direction()).map_or(0, |hash| hash.0)
            };
            table.insert_unique(hash.0, Entry::new(index, direction), rehash);
            self.index = table;
        }
        let flow = self.flows.get(index)?;
        let (deadline, generation) = (flow.deadline(&self.timeouts), flow.generation);
        self.wheel.queue(&mut self.flows, index, deadline);
        Some(FlowId { index, generation })
    }
}
