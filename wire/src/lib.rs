//! The words everybody shares: what a frame is, what may be decided about it, why one is dropped,
//! how its headers are read, and how new headers are made.
//!
//! In: bytes from outside, already in private memory. Out: parsed packets and freshly written heads.
//! Never: I/O, time, state, or a write into the packet that came in.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod bytes;
pub mod cut;
mod dns;
mod drop;
mod edit;
mod extensions;
mod frame;
mod icmp;
mod key;
mod mac;
mod outbox;
mod packet;
mod parse;
mod plain;
mod port;
pub mod reply;
mod segment;
pub mod sums;
mod time;
mod tuple;
mod uplink;
mod written;

pub use dns::Dns;
pub use drop::{DropReason, PerReason};
pub use edit::{NewHead, Rewrite, Translation};
pub use frame::{Csum, Frame, Gso, GsoKind, HEAD_MAX, Offload, Takes, WHOLE_MAX};
pub use key::{Addr, Key, Kind};
pub use mac::Mac;
pub use outbox::{BATCH, Emit, Outbox, REPLY_MAX, Reply, ReplyFull, Verdict};
pub use packet::{
    Arp, ArpOperation, Fragment, IcmpError, IcmpErrorKind, IcmpQuery, Ndp, Packet, Parsed,
    QueryKind, Quote, Tcp, TcpFlags, Transport, Udp,
};
pub use parse::{Unparsed, parse};
pub use plain::{End, Onward, Plain, has_tcp_headers};
pub use port::{Port, PortSlot};
pub use segment::{Ranges, SEGMENTS_MAX, Segments};
pub use time::Instant;
pub use tuple::{Proto, Tuple};
pub use uplink::Uplink;
pub use written::{Balance, OneToOne};
