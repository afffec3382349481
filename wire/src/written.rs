//! Words for translations that are written down, shared by who writes them and who obeys them.
//!
//! In: nothing. Out: plain data. Never: whether it can be obeyed.

use crate::Uplink;
use core::net::IpAddr;

/// An external address that stands for one client (basic NAT of RFC 3022).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneToOne {
    /// Where it is known by that address.
    pub uplink: Uplink,
    /// The client's address.
    pub inside: IpAddr,
    /// What the world knows it by. Nobody else leaves from it.
    pub external: IpAddr,
}

/// How a port forward chooses among its targets. A flow stays where it was sent first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// Always the same for one remote address, as long as that target is there; one that comes or
    /// goes moves no remote but its own (rendezvous hashing).
    Hash,
}
