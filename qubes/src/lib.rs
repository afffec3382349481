//! What Qubes tells the firewall: its own network, its clients, and the rules of each.
//!
//! In: the bytes of a stream to dom0's QubesDB daemon, in pieces of any size. Out: the bytes to
//! answer with, a copy of the database, and what changed in it. Never: I/O, time, or a message that
//! makes the daemon at the other end give up.
//!
//! The protocol is that of core-qubesdb, include/qubesdb.h and daemon/db-cmds.c.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod message;
mod path;
mod session;
mod store;

pub use message::{DATA_MAX, HEADER};
pub use path::Path;
pub use session::{Event, ProtocolError, Refused, Session};
pub use store::Store;
