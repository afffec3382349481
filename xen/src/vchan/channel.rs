//! The stream: bytes into one ring and out of the other.
//!
//! In: bytes to send, and what the peer wrote. Out: bytes that came. Never: reads a byte twice, or
//! goes on with a peer whose index cannot be true.
#![deny(clippy::arithmetic_side_effects)]

use super::layout::{
    CLIENT_LIVES, CLIENT_LOOKS, CONS, GONE, LEFT, NOT_YET, ON_READ, ON_WRITE, Order, Orders, PROD,
    RIGHT, SERVER_LIVES, SERVER_LOOKS, STATE,
};
use crate::hypervisor::{EvtPort, Hypervisor, Memory, PAGE_SIZE};
use alloc::vec::Vec;

/// The peer's index of a ring is one it cannot have: the channel is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// Which end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// One end of a channel.
#[derive(Debug)]
pub struct Channel<M> {
    side: Side,
    control: M,
    /// The left ring's, then the right ring's.
    pages: Vec<M>,
    port: EvtPort,
    out: Ring,
    into: Ring,
}

/// A ring, from the end that moves one of its indices.
#[derive(Debug)]
struct Ring {
    order: Order,
    bytes: Bytes,
    /// Where the two indices stand.
    indices: usize,
    /// The one that is ours: what stands in the page is not read again.
    ours: u32,
}

/// Where a ring's bytes stand.
#[derive(Clone, Copy, Debug)]
enum Bytes {
    /// In the control page, from here on.
    Control(usize),
    /// In pages, from this one on.
    Pages(usize),
}

impl<M: Memory> Channel<M> {
    /// An end over pages that are mapped. The indices start where they stand.
    pub(super) fn new(
        side: Side,
        control: M,
        pages: Vec<M>,
        orders: Orders,
        port: EvtPort,
    ) -> Self {
        let ring = |order: Order, at, first, index: usize| Ring {
            order,
            bytes: match order {
                Order::SMALL | Order::LARGE => Bytes::Control(order.bytes() as usize),
                _ => Bytes::Pages(first),
            },
            indices: at,
            ours: control.load(at.saturating_add(index)),
        };
        let left = |index| ring(orders.left, LEFT, 0, index);
        let right = |index| ring(orders.right, RIGHT, orders.left.pages(), index);
        let (out, into) = match side {
            Side::Client => (left(PROD), right(CONS)),
            Side::Server => (right(PROD), left(CONS)),
        };
        Self { side, control, pages, port, out, into }
    }

    /// The event channel.
    pub const fn port(&self) -> EvtPort {
        self.port
    }

    /// Takes bytes that have come; how many. If there are fewer than wanted, the peer is asked to
    /// signal the next.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn read<H: Hypervisor>(&mut self, h: &mut H, into: &mut [u8]) -> Result<usize, Broken> {
        let mut ready = self.ready()?;
        if (ready as usize) < into.len() {
            self.wish(ON_WRITE);
            ready = self.ready()?;
        }
        let len = into.len().min(ready as usize);
        for (at, part) in self.into.stretches(len) {
            let (page, offset) = self.place(&self.into, at);
            if let (Some(page), Some(to)) = (page, into.get_mut(part)) {
                page.read(offset, to);
            }
        }
        if len > 0 {
            self.into.ours = self.into.ours.wrapping_add(narrow(len));
            self.control.barrier();
            self.control.store(self.into.indices.saturating_add(CONS), self.into.ours);
            self.signal(h, ON_READ);
        }
        Ok(len)
    }

    /// Sends as many of the bytes as there is room for; how many. If that is not all, the peer is
    /// asked to signal when it has read.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn write<H: Hypervisor>(&mut self, h: &mut H, from: &[u8]) -> Result<usize, Broken> {
        let mut room = self.room()?;
        if (room as usize) < from.len() {
            self.wish(ON_READ);
            room = self.room()?;
        }
        let len = from.len().min(room as usize);
        for (at, part) in self.out.stretches(len) {
            let (page, offset) = self.place(&self.out, at);
            if let (Some(page), Some(from)) = (page, from.get(part)) {
                page.write(offset, from);
            }
        }
        if len > 0 {
            self.out.ours = self.out.ours.wrapping_add(narrow(len));
            self.control.store(self.out.indices.saturating_add(PROD), self.out.ours);
            self.signal(h, ON_WRITE);
        }
        Ok(len)
    }

    /// Bytes that have come and are not read.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn ready(&self) -> Result<u32, Broken> {
        let theirs = self.control.load(self.into.indices.saturating_add(PROD));
        self.into.within(theirs.wrapping_sub(self.into.ours))
    }

    /// Bytes that may be sent now.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn room(&self) -> Result<u32, Broken> {
        let theirs = self.control.load(self.out.indices.saturating_add(CONS));
        let used = self.out.within(self.out.ours.wrapping_sub(theirs))?;
        Ok(self.out.order.bytes().saturating_sub(used))
    }

    /// Whether the peer says it is there.
    pub fn peer(&self) -> Peer {
        let at = match self.side {
            Side::Client => SERVER_LIVES,
            Side::Server => CLIENT_LIVES,
        };
        let mut lives = [0];
        self.control.read(at, &mut lives);
        match (lives, self.side) {
            ([GONE], _) => Peer::Gone,
            ([NOT_YET], Side::Server) => Peer::NotYet,
            _ => Peer::There,
        }
    }

    /// Says that we are there, or are not any more, and signals it.
    pub(super) fn live<H: Hypervisor>(&self, h: &mut H, lives: u8) {
        let at = match self.side {
            Side::Client => CLIENT_LIVES,
            Side::Server => SERVER_LIVES,
        };
        self.control.write(at, &[lives]);
        self.control.barrier();
        // A peer that is gone is not to be told.
        let _gone = h.notify(self.port);
    }

    /// Asks to be signalled. Look again after this: it may have happened meanwhile.
    pub(super) fn wish(&self, what: u32) {
        let ours = match self.side {
            Side::Client => SERVER_LOOKS,
            Side::Server => CLIENT_LOOKS,
        };
        self.control.fetch_or(STATE, what.wrapping_shl(ours));
        self.control.barrier();
    }

    /// The pages and the port, to be given back.
    pub(super) fn into_parts(self) -> (M, Vec<M>, EvtPort) {
        (self.control, self.pages, self.port)
    }

    /// Signals the peer if it has asked for that, and takes the wish as fulfilled.
    fn signal<H: Hypervisor>(&self, h: &mut H, what: u32) {
        let theirs = match self.side {
            Side::Client => CLIENT_LOOKS,
            Side::Server => SERVER_LOOKS,
        };
        self.control.barrier();
        let bit = what.wrapping_shl(theirs);
        if self.control.fetch_and(STATE, !bit) & bit != 0 {
            let _gone = h.notify(self.port);
        }
    }

    /// The page and the offset of byte `at` of a ring.
    fn place(&self, ring: &Ring, at: usize) -> (Option<&M>, usize) {
        match ring.bytes {
            Bytes::Control(start) => (Some(&self.control), start.saturating_add(at)),
            Bytes::Pages(first) => {
                let page = first.saturating_add(at / PAGE_SIZE);
                (self.pages.get(page), at % PAGE_SIZE)
            }
        }
    }
}

/// What the other end says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It has not come yet.
    NotYet,
    /// It is there.
    There,
    /// It has gone.
    Gone,
}

impl Ring {
    fn within(&self, difference: u32) -> Result<u32, Broken> {
        if difference <= self.order.bytes() { Ok(difference) } else { Err(Broken) }
    }

    /// The next `len` bytes from our index on, at most a ring of them, cut where the ring or a page
    /// ends: where each stretch stands in the ring, and which of the bytes it is.
    fn stretches(
        &self,
        len: usize,
    ) -> impl Iterator<Item = (usize, core::ops::Range<usize>)> + use<> {
        let mask = self.order.bytes().saturating_sub(1);
        let (first, mut done) = (self.ours, 0_usize);
        core::iter::from_fn(move || {
            let at = (first.wrapping_add(narrow(done)) & mask) as usize;
            // A ring ends where a page does, or in the control page where the next kibibyte does.
            let unit = PAGE_SIZE.min((mask as usize).saturating_add(1));
            let until_cut = unit.saturating_sub(at & unit.saturating_sub(1));
            let count = len.saturating_sub(done).min(until_cut);
            let start = done;
            done = done.saturating_add(count);
            (count > 0).then_some((at, start..done))
        })
    }
}

/// Lengths are at most those of a ring.
fn narrow(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
