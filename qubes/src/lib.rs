//! What Qubes tells the firewall and asks of it: QubesDB and qrexec.
//!
//! In: the bytes of a stream to one of dom0's daemons, in pieces of any size. Out: the bytes to
//! answer with; a copy of the database and what changed in it; calls to serve. Never: I/O, time, or a
//! message that makes the daemon at the other end give up.
//!
//! The protocols are those of core-qubesdb, include/qubesdb.h and daemon/db-cmds.c, and of core-qrexec,
//! libqrexec/qrexec.h ([`qrexec`]).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod message;
mod path;
pub mod qrexec;
mod seed;
mod session;
mod store;

pub use message::{DATA_MAX, HEADER};
pub use path::Path;
pub use seed::seed;
pub use session::{Event, ProtocolError, Refused, Session};
pub use store::Store;
