//! The short way of a packet that is like another that has passed.
//!
//! In: packets of the plain kind ([`wire::Plain`]). Out: the new name of their one end that gets one.
//! Never: a packet that the long way would stop. Whoever took one of the same flow and direction the
//! long way says so ([`Nat::shorten`]), under a number that he changes whenever anything he looked at
//! there may have changed. What each packet changes itself, its flow's time and state, is looked at
//! here as well.

use crate::flow::Origin;
use crate::nat::{Nat, Said};
use crate::{Direction, FlowId, Hash};
use wire::{Addr, Instant, Key, Port, Tcp};

/// The new name of a packet's source on its way out, of its destination on its way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// The client whose flow it is.
    pub client: Port,
    /// The address, of the flow's family.
    pub addr: Addr,
    /// The port.
    pub port: u16,
}

const fn bit(direction: Direction) -> u8 {
    match direction {
        Direction::Out => 1,
        Direction::In => 2,
    }
}

impl Nat {
    /// As [`Nat::hash`], of a key.
    #[inline]
    #[must_use]
    pub fn hash_key(&self, key: &Key) -> Hash {
        self.hasher.key(key)
    }

    /// The flow of a packet that travels in `direction`, be its time over or not.
    #[inline]
    #[must_use]
    pub fn seek(&self, hash: Hash, direction: Direction, key: &Key) -> Option<FlowId> {
        let index = self.find_key(hash, direction, key)?;
        Some(FlowId { index, generation: self.flows.get(index)?.generation })
    }

    /// A packet of a flow passed the long way, under `epoch`: those after it need not, but for
    /// redirected flows, which rename both ends.
    pub fn shorten(&mut self, id: FlowId, direction: Direction, epoch: u32) {
        let Some(flow) = self.get_mut(id) else { return };
        if flow.origin == Origin::Redirected {
            return;
        }
        if flow.epoch != epoch {
            flow.short = 0;
        }
        flow.epoch = epoch;
        flow.short |= bit(direction);
    }

    /// How a packet goes on, if its flow has the short way under `epoch`. Changes nothing.
    #[inline]
    #[must_use]
    pub fn renamed(&self, id: FlowId, direction: Direction, epoch: u32) -> Option<Renamed> {
        let flow = self.get(id).filter(|flow| flow.epoch == epoch)?;
        if flow.short & bit(direction) == 0 {
            return None;
        }
        let client = self.clients.get(flow.owner)?.client;
        let (addr, port) = match direction {
            Direction::Out => (self.externals.value(flow.external)?, flow.external_port),
            Direction::In => (flow.client, flow.client_port),
        };
        Some(Renamed { client, addr, port })
    }

    /// Takes it through: a segment, or a datagram if there is none. False, and nothing happened, if its
    /// flow is over, or it fits no state of its connection.
    #[inline]
    #[must_use]
    pub fn follow_on(
        &mut self,
        now: Instant,
        id: FlowId,
        direction: Direction,
        segment: Option<&Tcp>,
    ) -> bool {
        let said = segment.map_or(Said::Datagram, Said::Segment);
        self.advance(now, id, direction, said).is_ok()
    }
}
