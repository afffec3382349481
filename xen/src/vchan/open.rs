//! Making a channel and taking it down: pages, grants, the event channel.
//!
//! In: the other domain, and as a client what it told. Out: a [`Channel`], or nothing held. Never: a
//! page given back that is still mapped: it is among the [`Remains`].
#![deny(clippy::arithmetic_side_effects)]

use super::channel::{Channel, Peer, Side};
use super::layout::{
    CLIENT_LIVES, GONE, GRANTS, NOT_YET, ON_WRITE, ORDERS, Order, Orders, SERVER_LIVES, THERE,
};
use crate::hypervisor::{
    Access, DomId, Errno, GrantRef, GrantStatus, Hypervisor, Memory, NoMemory, NoRef, StillMapped,
};
use alloc::vec::Vec;

/// A channel that is offered to a client, or used by one.
pub struct Offer<H: Hypervisor> {
    /// The stream.
    pub channel: Channel<H::Page>,
    /// Those of the pages in their order, then the control page's.
    grants: Vec<GrantRef>,
}

/// Pages of a channel that is closed, still mapped by its client.
pub struct Remains<H: Hypervisor>(Vec<(H::Page, GrantRef)>);

/// Why nothing could be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferError {
    /// No page is free.
    NoMemory,
    /// No grant is free.
    NoRef,
    /// No event channel is.
    Event(Errno),
}

/// Why a server could not be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The event channel is not offered to us.
    Event(Errno),
    /// A page is not lent to us.
    Map(GrantStatus),
    /// The sizes of the rings make no sense, or are more than wanted.
    Orders,
    /// The server has gone meanwhile.
    Gone,
}

impl<H: Hypervisor> Offer<H> {
    /// Makes a channel that `client` may connect to.
    ///
    /// # Errors
    /// [`OfferError`]; then nothing is held.
    pub fn new(h: &mut H, client: DomId, orders: Orders) -> Result<Self, OfferError> {
        let port = h.alloc_unbound(client).map_err(OfferError::Event)?;
        let mut pages = Vec::new();
        if let Err(error) = make(h, client, orders, &mut pages) {
            h.close(port);
            let _nobody_has_mapped_them = give_back(h, pages);
            return Err(error);
        }
        let (mut pages, grants): (Vec<_>, Vec<_>) = pages.into_iter().unzip();
        // The last one, so that the others stay in order.
        let Some(control) = pages.pop() else { return Err(OfferError::NoMemory) };
        for (at, gref) in (GRANTS..).step_by(4).zip(&grants).take(pages.len()) {
            control.store(at, gref.number());
        }
        control.store(ORDERS, orders.word());
        control.write(CLIENT_LIVES, &[NOT_YET]);
        control.write(SERVER_LIVES, &[THERE]);
        let channel = Channel::new(Side::Server, control, pages, orders, port);
        channel.wish(ON_WRITE);
        Ok(Self { channel, grants })
    }

    /// The grant of the control page, by which a client finds all.
    #[must_use]
    pub fn ring_ref(&self) -> u32 {
        self.grants.last().map_or(0, GrantRef::number)
    }

    /// Whether the client has come, and is there.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.channel.peer()
    }

    /// Ends it. Pages the client still has mapped remain, so that it can read what was sent last.
    #[must_use = "what remains is to be given back later"]
    pub fn close(self, h: &mut H) -> Remains<H> {
        self.channel.live(h, GONE);
        let (control, pages, port) = self.channel.into_parts();
        h.close(port);
        let pages = pages.into_iter().chain([control]).zip(self.grants).collect();
        Remains(give_back(h, pages))
    }
}

impl<H: Hypervisor> Remains<H> {
    /// Tries again to give them back.
    pub fn retry(&mut self, h: &mut H) {
        self.0 = give_back(h, core::mem::take(&mut self.0));
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn make<H: Hypervisor>(
    h: &mut H,
    client: DomId,
    orders: Orders,
    pages: &mut Vec<(H::Page, GrantRef)>,
) -> Result<(), OfferError> {
    for _ in 0..orders.pages().saturating_add(1) {
        let page = h.page().map_err(|NoMemory| OfferError::NoMemory)?;
        match h.grant(client, &page, Access::ReadWrite) {
            Ok(gref) => pages.push((page, gref)),
            Err(NoRef) => {
                h.free(page);
                return Err(OfferError::NoRef);
            }
        }
    }
    Ok(())
}

/// Gives pages back as far as nobody has them mapped; the others.
fn give_back<H: Hypervisor>(
    h: &mut H,
    pages: Vec<(H::Page, GrantRef)>,
) -> Vec<(H::Page, GrantRef)> {
    let mut rest = Vec::new();
    for (page, gref) in pages {
        match h.end(gref) {
            Ok(()) => h.free(page),
            Err((gref, StillMapped)) => rest.push((page, gref)),
        }
    }
    rest
}

/// Connects to the channel that `server` offers by these numbers, with rings of at most `most`.
///
/// # Errors
/// [`ConnectError`]; then nothing is held.
pub fn connect<H: Hypervisor>(
    h: &mut H,
    server: DomId,
    ring_ref: u32,
    event_channel: u32,
    most: Order,
) -> Result<Channel<H::Mapped>, ConnectError> {
    let port = h.bind_interdomain(server, event_channel).map_err(ConnectError::Event)?;
    let mut pages = Vec::new();
    match map_all(h, server, ring_ref, most, &mut pages) {
        Ok((control, orders)) => {
            let channel = Channel::new(Side::Client, control, pages, orders, port);
            channel.wish(ON_WRITE);
            channel.live(h, THERE);
            Ok(channel)
        }
        Err(error) => {
            unmap_all(h, pages);
            h.close(port);
            Err(error)
        }
    }
}

fn map_all<H: Hypervisor>(
    h: &mut H,
    server: DomId,
    ring_ref: u32,
    most: Order,
    pages: &mut Vec<H::Mapped>,
) -> Result<(H::Mapped, Orders), ConnectError> {
    let control = h.map(server, ring_ref, Access::ReadWrite).map_err(ConnectError::Map)?;
    let mut map_rings = || {
        let mut lives = [0];
        control.read(SERVER_LIVES, &mut lives);
        if lives == [GONE] {
            return Err(ConnectError::Gone);
        }
        let orders = Orders::parse(control.load(ORDERS)).ok_or(ConnectError::Orders)?;
        if orders.left > most || orders.right > most {
            return Err(ConnectError::Orders);
        }
        for (index, at) in (0..orders.pages()).zip((GRANTS..).step_by(4)) {
            let ours = index < orders.left.pages();
            let access = if ours { Access::ReadWrite } else { Access::ReadOnly };
            pages.push(h.map(server, control.load(at), access).map_err(ConnectError::Map)?);
        }
        Ok(orders)
    };
    match map_rings() {
        Ok(orders) => Ok((control, orders)),
        Err(error) => {
            pages.push(control);
            Err(error)
        }
    }
}

fn unmap_all<H: Hypervisor>(h: &mut H, pages: impl IntoIterator<Item = H::Mapped>) {
    for page in pages {
        // What Xen does not unmap is not used again.
        let _lost = h.unmap(page);
    }
}

/// Ends a client's end.
pub fn close<H: Hypervisor>(h: &mut H, channel: Channel<H::Mapped>) {
    channel.live(h, GONE);
    let (control, pages, port) = channel.into_parts();
    unmap_all(h, pages);
    unmap_all(h, [control]);
    h.close(port);
}
