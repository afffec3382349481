//! The end of flows, and the room it makes.
//!
//! In: the time, and who needs room. Out: flows ended, in this order: those whose time is over; of
//! the client that is over its share, the half-open ones, then the idle ones; and only if all are
//! within their shares and there still is no room, every one. Never: unbounded work. Where many flows
//! end at once they are over at once, and leave the tables in slices.

use crate::clients::Fate;
use crate::flow::Origin;
use crate::nat::{Entry, External, Nat};
use crate::state::Class;
use crate::{Direction, FlowId, Hash};
use core::time::Duration;
use wire::{DropReason, Instant, Port, Proto, Uplink};

/// A client at its share may lose flows of its own that it has not used for so many seconds.
const IDLE: u32 = 60;

/// Flows that are compared to find the one to lose.
const SAMPLE: usize = 16;

/// Flows that may be lost to make room for one: a port can be shared by several.
const LOSSES: usize = 32;

/// Flows ended because their time is over, before any other is.
const DUE: usize = 64;

/// Flows taken out of the tables at once when all of a client's are over.
const SLICE: usize = 1024;

impl Nat {
    /// Looks at up to `most` flows whose time may be over. Returns when to call again, at the
    /// latest: `now` if there is more to do. Flows that are over are treated as gone even before.
    pub fn tick(&mut self, now: Instant, most: usize) -> Option<Instant> {
        let second = self.second(now);
        let swept = self.sweep(now, most);
        for _ in swept..most {
            let Some(index) = self.wheel.pop(&mut self.flows, second) else { break };
            let Some(flow) = self.flows.get(index) else { continue };
            let deadline = flow.deadline(&self.lifetimes);
            if deadline <= second {
                self.end(now, index);
                self.stats.expired += 1;
            } else {
                self.wheel.queue(&mut self.flows, index, deadline);
            }
        }
        if self.clients.ending().is_some() || self.retired.is_some() {
            return Some(now);
        }
        let next = self.wheel.next_occupied()?;
        let skipped = Duration::from_nanos(self.skipped);
        Some((Instant::from_secs(next.into()) + skipped).max(now))
    }

    /// Nothing ran for so long: the domain was paused, or its machine slept. That time ages no flow.
    pub fn paused(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.skipped = self.skipped.saturating_add(nanos);
    }

    /// Ends a flow.
    pub fn close(&mut self, now: Instant, id: FlowId) {
        if self.get(id).is_some() {
            self.end(now, id.index);
        }
    }

    /// Ends all flows of a client that left. They are over at once; [`Nat::tick`] takes them out of
    /// the tables, and the client's slot can be used again when the last is gone.
    pub fn client_gone(&mut self, now: Instant, client: Port) {
        if self.clients.get_mut(client.slot().0).is_some_and(|holding| holding.client == client) {
            self.clients.end_flows(client.slot().0, Fate::Leaves);
            self.sweep(now, SLICE);
        }
    }

    /// Ends all flows of all clients, in the same way. Reserved ports and counters stay.
    pub fn flush(&mut self, now: Instant) {
        for slot in 0..self.clients.slots() {
            self.clients.end_flows(slot, Fate::Clears);
        }
        self.sweep(now, SLICE);
    }

    /// Ends all flows that leave by `uplink`, in the same way. Others are not touched.
    pub fn flush_uplink(&mut self, now: Instant, uplink: Uplink) {
        let of_uplink = self.externals.values_mut().filter(|e| e.uplink() == Some(uplink));
        of_uplink.for_each(External::retire);
        self.retired = Some(0);
        self.sweep(now, SLICE);
    }

    /// Takes flows that are over out of the tables, looking at up to `most`; says at how many it did.
    fn sweep(&mut self, now: Instant, most: usize) -> usize {
        let mut swept = 0;
        while swept < most {
            let Some(slot) = self.clients.ending() else { break };
            let first = |class| self.clients.first(slot, class);
            match first(Class::Loose).or_else(|| first(Class::Settled)) {
                Some(index) => self.end(now, index),
                None => break,
            }
            swept += 1;
        }
        while swept < most
            && let Some(index) = self.retired
        {
            if self.flows.get(index).is_some_and(|flow| !self.is_on_an_uplink(flow)) {
                self.end(now, index);
            }
            self.retired = Some(index + 1).filter(|next| *next < self.flows.places());
            swept += 1;
        }
        swept
    }

    /// Sees to it that this client can have one more flow, and one more port if `port` names a
    /// protocol.
    pub(crate) fn make_room(
        &mut self,
        now: Instant,
        owner: u16,
        port: Option<Proto>,
    ) -> Result<(), DropReason> {
        // What can be short: ports, if one is needed, and flows.
        let needs = || port.map(Some).into_iter().chain([None]);
        if needs().all(|need| self.is_within_share(owner, need) && self.has_room(need)) {
            return Ok(());
        }
        self.tick(now, DUE);
        for need in needs() {
            if !self.lose_until(now, owner, IDLE, need, |nat| nat.is_within_share(owner, need)) {
                return Err(DropReason::QuotaExceeded);
            }
        }
        for need in needs() {
            if self.has_room(need) {
                continue;
            }
            let Some(greedy) = self.clients.greediest(need) else {
                self.flush(now);
                self.stats.flushes += 1;
                break;
            };
            self.lose_until(now, greedy, 0, need, |nat| nat.has_room(need));
        }
        match port {
            Some(_) if !self.has_room(port) => Err(DropReason::PortsExhausted),
            _ if !self.has_room(None) => Err(DropReason::FlowTableFull),
            _ => Ok(()),
        }
    }

    /// Whether the client may have one more port of a protocol, or one more flow.
    fn is_within_share(&self, owner: u16, need: Option<Proto>) -> bool {
        let share = self.clients.share();
        self.clients.get(owner).is_some_and(|holding| match need {
            Some(proto) => holding.ports.of(proto) < share.ports.of(proto),
            None => holding.flows < share.flows,
        })
    }

    /// Whether there is one more port of a protocol, or one more flow.
    fn has_room(&self, need: Option<Proto>) -> bool {
        match need {
            Some(proto) => self.ports.of(proto).free() > 0,
            None => self.flows.len() < self.flows.capacity(),
        }
    }

    /// Ends flows of one client until there is enough: half-open ones first, then those not used
    /// for `idle` seconds. Only a flow of the protocol `port` can free a port.
    fn lose_until(
        &mut self,
        now: Instant,
        owner: u16,
        idle: u32,
        port: Option<Proto>,
        enough: impl Fn(&Self) -> bool,
    ) -> bool {
        for _ in 0..LOSSES {
            if enough(self) {
                return true;
            }
            if self.lose(now, owner, Class::Loose, 0, port) {
                self.stats.lost_half_open += 1;
            } else if self.lose(now, owner, Class::Settled, idle, port) {
                self.stats.lost_idle += 1;
            } else {
                return false;
            }
        }
        enough(self)
    }

    /// Ends the flow that was not used for longest, out of a sample of one client's. The sample goes
    /// to the end of the list, so that the next one is another.
    fn lose(
        &mut self,
        now: Instant,
        owner: u16,
        class: Class,
        idle: u32,
        port: Option<Proto>,
    ) -> bool {
        let oldest = self.second(now).saturating_sub(idle);
        let mut victim = None;
        let mut start = None;
        for _ in 0..SAMPLE {
            let Some(index) = self.clients.first(owner, class) else { break };
            if *start.get_or_insert(index) == index && victim.is_some() {
                break;
            }
            self.clients.unlist(&mut self.flows, index);
            self.clients.enlist(&mut self.flows, owner, class, index);
            let Some(flow) = self.flows.get(index) else { break };
            let fits = flow.seen <= oldest && port.is_none_or(|proto| proto == flow.proto());
            if fits && victim.is_none_or(|(seen, _)| flow.seen < seen) {
                victim = Some((flow.seen, index));
            }
        }
        if let Some((_, index)) = victim {
            self.end(now, index);
        }
        victim.is_some()
    }

    /// Queues a flow anew after its state changed, in its owner's lists too if its class did.
    pub(crate) fn requeue(&mut self, index: u32, class_changed: bool) {
        let Some(flow) = self.flows.get(index) else { return };
        let (deadline, owner) = (flow.deadline(&self.lifetimes), flow.owner);
        let class = flow.state.class();
        self.wheel.unlink(&mut self.flows, index);
        self.wheel.queue(&mut self.flows, index, deadline);
        if class_changed {
            self.clients.unlist(&mut self.flows, index);
            self.clients.enlist(&mut self.flows, owner, class, index);
        }
    }

    /// Takes a flow out of all tables at once, and its mapping if it was the last to use it.
    pub(crate) fn end(&mut self, now: Instant, index: u32) {
        if self.flows.get(index).is_none() {
            return;
        }
        for direction in [Direction::Out, Direction::In] {
            if let Some(hash) = self.hash_of(index, direction) {
                self.index.remove(hash, Entry::new(index, direction).0);
            }
        }
        let last = self.leave_socket(index);
        self.wheel.unlink(&mut self.flows, index);
        self.clients.unlist(&mut self.flows, index);
        let Some(flow) = self.flows.remove(index) else { return };
        if let Some(client) = self.clients.get_mut(flow.owner) {
            client.flows = client.flows.saturating_sub(1);
        }
        if last {
            self.give_back(now, &flow);
        }
        self.externals.release(flow.external);
        if flow.origin == Origin::Redirected {
            self.reals.release(flow.real);
        }
        self.clients.settle(flow.owner);
    }

    /// Hash of the key that packets of this direction arrive with.
    pub(crate) fn hash_of(&self, index: u32, direction: Direction) -> Option<Hash> {
        let flow = self.flows.get(index)?;
        Some(self.hasher.key(&match direction {
            Direction::Out => flow.inside(),
            Direction::In => self.outside(flow)?.reversed(),
        }))
    }
}
