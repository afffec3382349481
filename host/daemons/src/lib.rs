//! Qubes' daemons in dom0 as their virtual machines meet them: `qubesdb-daemon`, `qrexec-daemon`, and
//! who makes a qrexec call (core-qubesdb daemon/db-cmds.c, core-qrexec daemon/ and libqrexec/).
//!
//! In: orders of a test, and the bytes a virtual machine sends. Out: the bytes for it, and what it asked
//! for; or a [`Death`], where the real one would log an error and exit. Never: I/O, time, or a mercy the
//! real ones have not. One logic for the simulation and for real channels.
#![forbid(unsafe_code)]

mod call;
mod pipe;
mod qrexec;
mod qubesdb;
mod served;

pub use call::{Call, Outcome};
pub use qrexec::{Asked, Qrexec};
pub use qubesdb::QubesDb;
pub use served::{Channel, Other, Served};

/// What the real daemon would have said before it exits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death(pub String);

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Death {}

/// One end of a byte stream, without the stream.
pub trait Daemon {
    /// A peer has connected.
    fn connected(&mut self) {}

    /// It has gone.
    fn disconnected(&mut self);

    /// It sent this.
    ///
    /// # Errors
    /// [`Death`].
    fn receive(&mut self, bytes: &[u8]) -> Result<(), Death>;

    /// The bytes to send next.
    fn outgoing(&self) -> &[u8];

    /// The first `count` of them were sent.
    fn sent(&mut self, count: usize);
}

fn die<T>(what: impl Into<String>) -> Result<T, Death> {
    Err(Death(what.into()))
}
