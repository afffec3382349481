//! qrexec, protocol 3: what dom0 wants run here, and what we want run elsewhere
//! (core-qrexec libqrexec/qrexec.h, agent/, daemon/).
//!
//! In: the bytes of a control stream and of one data stream for each call. Out: [`Order`]s, input and
//! output of calls, and the bytes to answer with. Never: a message that makes dom0's daemon give up, or
//! more kept of anybody's bytes than is written here.

mod call;
mod command;
mod control;
mod frame;

pub use call::{Call, CallError};
pub use command::Command;
pub use control::{Control, Ident, Order};
pub use frame::{BODY_MAX, FrameError};

/// What is spoken (QREXEC_PROTOCOL_V3). Newer daemons take it and go by it.
const VERSION: u32 = 3;

/// Kinds of message, by their number.
mod kind {
    pub(super) const STDIN: u32 = 0x190;
    pub(super) const STDOUT: u32 = 0x191;
    pub(super) const STDERR: u32 = 0x192;
    pub(super) const EXIT: u32 = 0x193;
    pub(super) const EXEC_CMDLINE: u32 = 0x200;
    pub(super) const JUST_EXEC: u32 = 0x201;
    pub(super) const SERVICE_CONNECT: u32 = 0x202;
    pub(super) const SERVICE_REFUSED: u32 = 0x203;
    pub(super) const TERMINATED: u32 = 0x211;
    pub(super) const TRIGGER_SERVICE3: u32 = 0x212;
    pub(super) const HELLO: u32 = 0x300;
}
