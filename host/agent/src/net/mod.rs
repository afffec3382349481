//! Small servers and clients for the scenarios. Servers print one line for each peer they serve.

pub(crate) mod dns;
pub(crate) mod dns_wire;
pub(crate) mod echo;
pub(crate) mod http;

use agent::probe::Connect;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Tries to open a TCP connection; every way it can end is an answer.
pub(crate) fn connect(to: SocketAddr, deadline: Duration) -> Connect {
    match TcpStream::connect_timeout(&to, deadline) {
        Ok(_) => Connect::Open,
        Err(e) => match e.kind() {
            ErrorKind::ConnectionRefused => Connect::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Connect::Silent,
            _ => Connect::Unreachable(e.to_string()),
        },
    }
}

/// Names the address in an error about it.
pub(crate) fn at(address: SocketAddr) -> impl FnOnce(io::Error) -> io::Error {
    move |e| io::Error::new(e.kind(), format!("{address}: {e}"))
}

/// The byte at a place of every body and datagram: a lost, doubled or moved piece shows.
pub(crate) fn pattern(place: u64) -> u8 {
    let [low, mid, high, ..] = place.to_le_bytes();
    low ^ mid.rotate_left(3) ^ high.rotate_left(5)
}
