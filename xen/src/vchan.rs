//! vchan: a stream of bytes each way between two domains, over pages that one of them lends
//! (libxenvchan.h, tools/libs/vchan).
//!
//! In: pages, indices and XenStore nodes of a peer that may lie. Out: bytes in order, and whether the
//! peer is there. Never: waits, trusts an index it did not check, signals a peer that did not ask for
//! it, or takes back a page that the peer still has mapped.
//!
//! The server makes the pages and tells in XenStore how to find them; the client maps them. [`Channel`]
//! is the stream; [`Server`] and [`Client`] are the lives of its two ends, by the tables in `life`.

mod channel;
mod client;
mod layout;
mod life;
mod open;
mod server;

pub use channel::{Broken, Channel, Peer};
pub use client::Client;
pub use layout::{Order, Orders};
pub use open::{ConnectError, Offer, OfferError, Remains, close, connect};
pub use server::Server;

use crate::hypervisor::{EvtPort, Hypervisor};

/// What both ends of a channel are to who moves bytes.
pub trait Stream<H: Hypervisor> {
    /// Takes bytes that have come; how many. None, as long as there is no peer.
    fn read(&mut self, h: &mut H, into: &mut [u8]) -> usize;

    /// Sends as many of the bytes as there is room for; how many.
    fn write(&mut self, h: &mut H, from: &[u8]) -> usize;

    /// Whether a peer is there, or has left bytes that nobody has read.
    fn is_up(&self) -> bool;

    /// The event channel that tells there is something to be done.
    fn event(&self) -> Option<EvtPort>;
}

/// Where in XenStore a server tells its client how to find it, below the server's home.
fn place(client: crate::hypervisor::DomId, port: u32) -> alloc::string::String {
    alloc::format!("data/vchan/{}/{port}", client.0)
}
