//! Why the firewall cannot run here.

use std::{fmt, io};
use tidegate::firewall::ConfigError;
use wire::Uplink;

/// Why the firewall cannot run, or runs no more.
#[derive(Debug)]
pub enum Error {
    /// No interface can have this name.
    Name(String),
    /// Two interfaces are to have this name.
    Twice(String),
    /// There are more uplinks than there can be, or none.
    Uplinks,
    /// There are more clients than this.
    Clients(usize),
    /// What was tried with a TAP failed.
    Tap {
        /// Its name.
        name: String,
        /// What was tried.
        tried: Tried,
        /// What the kernel says.
        why: io::Error,
    },
    /// The kernel's words about this interface make no sense.
    Interface(String),
    /// The firewall cannot be made so.
    Config(ConfigError),
    /// The kernel gives no randomness, or no signal that frames are waiting.
    Kernel(io::Error),
}

/// What was tried with a TAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// Opening /dev/net/tun.
    Open,
    /// Making the device, or taking one that is there.
    Attach,
    /// Asking it for frames to be segmented and with blank checksums.
    Offload,
    /// Reading its address and its MTU.
    Read,
    /// Receiving a frame.
    Receive,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "no interface can be called `{name}`"),
            Self::Twice(name) => write!(f, "{name} is given twice"),
            Self::Uplinks => write!(f, "there can be 1 to {} uplinks", Uplink::COUNT),
            Self::Clients(most) => write!(f, "there can be {most} clients"),
            Self::Tap { name, tried, why } => write!(f, "{name}: {tried}: {why}"),
            Self::Interface(name) => write!(f, "{name} has no usable address or MTU"),
            Self::Config(error) => write!(f, "connection tracking: {error}"),
            Self::Kernel(why) => write!(f, "the kernel: {why}"),
        }
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "cannot open /dev/net/tun",
            Self::Attach => "cannot be made or taken as a TAP",
            Self::Offload => "does not do segmentation and checksums",
            Self::Read => "cannot be read in /sys/class/net",
            Self::Receive => "the TAP is gone",
        })
    }
}

impl std::error::Error for Error {}
