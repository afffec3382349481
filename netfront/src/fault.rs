//! How a backend can break the ring protocol beyond what costs a frame.

use core::fmt;
use xen::ring::RingBroken;

/// The backend did what no backend may do: the link is taken down and made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The TX ring's response index is out of range.
    TxRing(RingBroken),
    /// The RX ring's response index is out of range.
    RxRing(RingBroken),
    /// A TX response for an id that is not in flight.
    TxId(u16),
    /// More TX responses to extra-info slots than were sent.
    TxNull,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ring, broken) = match self {
            Self::TxRing(broken) => ("TX", broken),
            Self::RxRing(broken) => ("RX", broken),
            Self::TxId(id) => return write!(f, "TX response for id {id}, which is not in flight"),
            Self::TxNull => return f.write_str("TX response for an extra slot that was not sent"),
        };
        let (from, claimed) = (broken.from.0, broken.claimed.0);
        write!(f, "{ring} ring claims responses up to {claimed}, consumed are {from}")
    }
}
