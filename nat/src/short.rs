//! The short way of a packet that is like another that has passed.
//!
//! In: packets of the plain kind ([`wire::Plain`]). Out: the new name of their one end that gets one.
//! Never: a packet that the long way would stop, or one that changes the state of its flow. Whoever
//! took one of the same flow and direction the long way says so ([`Nat::shorten`]), under a number that
//! he changes whenever anything he looked at there may have changed. What each packet changes itself,
//! its flow's time and state, is looked at here as well.

use crate::flow::{Flow, Memory, Origin};
use crate::nat::{Entry, Nat};
use crate::state::{Side, State};
use crate::tcp::Passed;
use crate::{Direction, FlowId, Hash, Sender};
use arrayvec::ArrayVec;
use wire::{Addr, BATCH, Instant, Key, Port, Tcp, Uplink};

/// So many flows are in the processor's cache anyway.
const CACHED: u32 = 1 << 12;

/// A second of those that count for flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Second(u32);

/// The short way that a flow has.
#[derive(Debug)]
pub struct Shortcut<'a> {
    /// The client whose flow it is.
    pub client: Port,
    /// The uplink it leaves by.
    pub uplink: Uplink,
    /// The new name of a packet's source on its way out, of its destination on its way in: the
    /// address, of the flow's family.
    pub addr: Addr,
    /// The port.
    pub port: u16,
    flow: &'a mut Flow,
    direction: Direction,
    now: Second,
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

    /// The second an instant lies in.
    #[must_use]
    pub fn moment(&self, now: Instant) -> Second {
        Second(self.second(now))
    }

    /// To be told the hashes of a batch before [`Nat::seek`] is asked for any: what will be looked at is
    /// brought from memory for all of them at once, instead of for one after the other.
    #[inline]
    pub fn fetch(&self, hashes: impl Iterator<Item = Hash>) {
        if self.flows.len() <= CACHED {
            return;
        }
        let entries: ArrayVec<u32, BATCH> =
            hashes.take(BATCH).map(|hash| self.index.at_home(hash)).collect();
        let flows = entries.iter().filter_map(|entry| self.flows.get(Entry(*entry).index()));
        // Something has to be made of it, or it is not looked at. These two are at a flow's ends.
        let ends = |flow: &Flow| flow.client.words()[0] ^ u64::from(flow.generation);
        core::hint::black_box(flows.fold(0, |all, flow| all ^ ends(flow)));
    }

    /// The flow whose packets of this direction have a key, be its time over or not, and whoever sent
    /// them: that is asked by [`Nat::shortcut`].
    #[inline]
    #[must_use]
    pub fn seek(&self, hash: Hash, direction: Direction, key: &Key) -> Option<FlowId> {
        let (index, flow) = self.look_up(hash, direction, key)?;
        Some(FlowId { index, generation: flow.generation })
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

    /// The short way that a flow has for a packet of `sender`, if it has one in this direction under
    /// `epoch`, and is not over.
    #[inline(always)] // So that each direction has a way of its own.
    #[must_use]
    pub fn shortcut(
        &mut self,
        now: Second,
        id: FlowId,
        sender: Sender,
        epoch: u32,
    ) -> Option<Shortcut<'_>> {
        let direction = sender.direction();
        let flow = self.flows.get_mut(id.index).filter(|flow| flow.generation == id.generation)?;
        let open = flow.epoch == epoch && flow.short & bit(direction) != 0;
        if !open || now.0 >= flow.deadline(&self.lifetimes) {
            return None;
        }
        let client = self.clients.get(flow.owner)?.client;
        let external = self.externals.value(flow.external)?;
        let (uplink, addr, port) = match sender {
            Sender::Client => (external.uplink()?, external.addr, flow.external_port),
            Sender::World(by) if external.is_on(by) => (by, flow.client, flow.client_port),
            Sender::World(_) => return None,
        };
        Some(Shortcut { client, uplink, addr, port, flow, direction, now })
    }
}

impl Shortcut<'_> {
    /// Takes a packet through: a segment that neither begins nor ends anything, or a datagram if there
    /// is none. False, and nothing happened, if it does not fit, or would change the flow's state.
    #[inline]
    #[must_use]
    pub fn take(self, segment: Option<&Tcp>) -> bool {
        let Self { flow, direction, now: Second(now), .. } = self;
        let side = flow.side(direction);
        let counts = match (&mut flow.memory, segment) {
            (Memory::Tcp(track), Some(segment)) if flow.state.is_open() => {
                match track.pass(flow.state, side, segment) {
                    Some(passed) => passed != Passed::Unproven,
                    None => return false,
                }
            }
            (Memory::None, None) if (flow.state, side) != (State::Unanswered, Side::Other) => true,
            _ => return false,
        };
        // Only the inside keeps a mapping alive (RFC 4787 REQ-6).
        if counts && direction == Direction::Out {
            flow.seen = now;
        }
        true
    }
}
