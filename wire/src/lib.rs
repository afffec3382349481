//! The words everybody shares: what a frame is, what may be decided about it, why one is dropped,
//! how its headers are read, and how new headers are made.
//!
//! In: bytes from outside, already in private memory. Out: parsed packets and freshly written heads.
//! Never: I/O, time, state, or a write into the packet that came in.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod drop;
mod frame;
mod mac;
mod outbox;
mod port;
mod time;

pub use drop::{DropReason, PerReason};
pub use frame::{Csum, Frame, Gso, GsoKind, HEAD_MAX, Offload, WHOLE_MAX};
pub use mac::Mac;
pub use outbox::{BATCH, Emit, Outbox, REPLY_MAX, Reply, ReplyFull, Verdict};
pub use port::{Port, PortSlot};
pub use time::Instant;
