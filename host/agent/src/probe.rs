//! What the agents' clients report, as the rig reads it.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// What came of trying to open a TCP connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Connect {
    /// It opened.
    Open,
    /// A RST came back.
    Refused,
    /// An ICMP "unreachable" of some kind came back: what a firewall's reject looks like.
    Unreachable(String),
    /// Nothing came back.
    Silent,
}

/// What came of sending datagrams to an echo server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echoes {
    /// Datagrams sent.
    pub sent: u32,
    /// Those that came back as they were sent, from the address they were sent to.
    pub right: u32,
    /// Those that came back otherwise.
    pub wrong: u32,
    /// Sends that failed because an ICMP error had come back for an earlier one.
    pub errors: u32,
}

/// One DNS response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsAnswer {
    /// Who it came from.
    pub from: SocketAddr,
    /// The addresses in it: IPv4 from an A question, IPv6 from AAAA.
    pub addresses: Vec<IpAddr>,
}

/// A fetched document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// HTTP status code.
    pub status: u16,
    /// Bytes of the body.
    pub bytes: u64,
    /// Whether each byte was the one the server sends at its place.
    pub intact: bool,
    /// Milliseconds from connect to the last byte.
    pub millis: u64,
}
