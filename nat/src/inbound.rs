//! Flows that the world opens, by translations that are written down.
//!
//! In: a packet that belongs to no flow. Out: the client it goes to, and a flow that takes it there.
//! Never: a flow that nothing written allows, or a port out of those that are drawn.

use crate::book::Book;
use crate::flow::Origin;
use crate::hash::Endpoint;
use crate::nat::{External, Nat};
use crate::numbers::Number;
use crate::open::Seed;
use crate::statics::{Inbound, StaticError, Statics};
use crate::{Direction, Facts, FlowId, NewInflow, Passage};
use core::net::IpAddr;
use wire::{DropReason, Instant, Key, Tuple, Uplink};

impl Nat {
    /// Puts new lists in place of the old. Ports named there are never given to a client again; who
    /// has one now keeps it to the end. Flows that were let in before are to be asked about with
    /// [`Nat::still_lets_in`].
    ///
    /// # Errors
    /// [`StaticError`] if they contradict themselves; then everything stays as it was.
    pub fn set_statics(&mut self, statics: Statics) -> Result<(), StaticError> {
        statics.check()?;
        let old = core::mem::replace(&mut self.book, Book::new(statics));
        for (proto, port) in old.into_kept() {
            self.ports.of_mut(proto).release(port);
            self.clients.restore(proto);
        }
        for (proto, port) in self.book.claimed() {
            if self.reserve(proto, port) {
                self.book.keep(proto, port);
            }
        }
        Ok(())
    }

    /// The lists as they are.
    #[must_use]
    pub const fn statics(&self) -> &Statics {
        self.book.statics()
    }

    /// The uplink by which packets to `addr` are ours to take, because it is written down as an
    /// external address.
    #[must_use]
    pub fn external_on(&self, addr: IpAddr) -> Option<Uplink> {
        self.book.external(addr).map(|external| external.uplink)
    }

    /// Where a packet from the world that belongs to no flow is to go, if anywhere. `is_there` says
    /// which clients are, by their addresses.
    #[must_use]
    pub fn inbound(&self, tuple: &Tuple, is_there: impl Fn(IpAddr) -> bool) -> Option<Inbound> {
        self.book.inbound(&self.hasher, tuple, is_there)
    }

    /// Whether what is written now would let in a flow that the world opened: `Some(true)` if a
    /// forward does, `Some(false)` if the rules are to decide, `None` if nothing does.
    #[must_use]
    pub fn still_lets_in(&self, facts: &Facts) -> Option<bool> {
        let to = Endpoint { addr: facts.asked.src, port: facts.asked.sport };
        self.book.still(facts.uplink, &facts.sent.reversed(), to)
    }

    /// Opens a flow for a packet of the world that belongs to none, and takes it through.
    ///
    /// # Errors
    /// As [`Nat::open`]; [`DropReason::Unsolicited`] if the client talks to that remote from that
    /// port already, under another name.
    pub fn open_inbound(
        &mut self,
        now: Instant,
        new: &NewInflow<'_>,
    ) -> Result<(FlowId, Passage), DropReason> {
        let (state, memory) = Self::start(new.tuple.proto, new.transport)?;
        let remote = Endpoint { addr: new.tuple.src, port: new.tuple.sport };
        let client = Endpoint { addr: new.to.0, port: new.to.1 };
        let kind = Key::new(&new.tuple).ok_or(DropReason::Untranslatable)?.kind;
        if client.addr.is_ipv6() != kind.is_ipv6() {
            return Err(DropReason::Untranslatable);
        }
        let uplink = new.uplink;
        let reached = External::new(new.tuple.dst.into(), uplink);
        let seed = Seed {
            origin: Origin::World,
            owner: new.client,
            kind,
            client,
            asked: remote,
            remote,
            external: self.externals.number(reached).ok_or(DropReason::FlowTableFull)?,
            real: Number::NONE,
            fixed: Some(new.tuple.dport),
            state,
            memory,
            epoch: new.epoch,
        };
        self.make_way(now, &seed, &new.tuple).map_err(|_| DropReason::Unsolicited)?;
        let id = self.settle_in(now, &seed)?;
        self.book.turn(&new.tuple);
        let passage = self.passage(id.index, Direction::In).ok_or(DropReason::FlowTableFull)?;
        Ok((id, passage))
    }
}
