//! Connections opened and closed as fast as the other end answers: what a scanner or a busy browser
//! does to a firewall's table.
//!
//! In: the server's segments, time. Out: segments to send. The server closes; nothing is sent again:
//! what is not answered in time counts as lost. Never: data.

#![forbid(unsafe_code)]

use crate::frames::Segment;
use alloc::vec::Vec;
use core::time::Duration;
use wire::{Instant, Tcp, TcpFlags};

/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The first port used.
const FIRST_PORT: u16 = 1024;

/// How far a connection is (RFC 9293 section 3.3.2, as far as it goes here).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was sent yet.
    Closed,
    SynSent,
    Established,
    LastAck,
}

#[derive(Clone, Copy)]
struct Connection {
    port: u16,
    state: State,
    since: Instant,
}

/// Some connections at a time.
pub(crate) struct Connector {
    all: Vec<Connection>,
    next_port: u16,
    /// The one to look at next.
    turn: usize,
    pub(crate) opened: u64,
    pub(crate) closed: u64,
    pub(crate) lost: u64,
}

/// The first sequence number of a port's connection: it need not be secret, only grow with reuse.
fn first_seq(now: Instant) -> u32 {
    (now.as_nanos() >> 12) as u32
}

impl Connector {
    pub(crate) fn new(at_once: u16) -> Self {
        let closed = Connection { port: 0, state: State::Closed, since: Instant::ZERO };
        let all = alloc::vec![closed; usize::from(at_once.max(1))];
        Self { all, next_port: FIRST_PORT, turn: 0, opened: 0, closed: 0, lost: 0 }
    }

    /// The SYN of the next connection that can be opened, if one can.
    pub(crate) fn open(&mut self, now: Instant) -> Option<Segment> {
        for _ in 0..self.all.len() {
            self.turn = (self.turn + 1) % self.all.len();
            let connection = self.all.get_mut(self.turn)?;
            if connection.state != State::Closed {
                if now.since(connection.since) < PATIENCE {
                    continue;
                }
                self.lost += 1;
            }
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            *connection = Connection { port, state: State::SynSent, since: now };
            let (seq, flags) = (first_seq(now), TcpFlags::SYN);
            return Some(Segment { from: port, seq, ack: 0, flags });
        }
        None
    }

    /// Takes a segment of the server; returns the answer.
    pub(crate) fn hear(&mut self, now: Instant, tcp: &Tcp) -> Option<Segment> {
        let known = |c: &&mut Connection| c.port == tcp.dport && c.state != State::Closed;
        let connection = self.all.iter_mut().find(known)?;
        let (state, flags) = next(connection.state, tcp.flags);
        match (connection.state, state) {
            (State::SynSent, State::Established) => self.opened += 1,
            (State::LastAck, State::Closed) => self.closed += 1,
            (_, State::Closed) => self.lost += 1,
            _ => {}
        }
        *connection = Connection { state, since: now, ..*connection };
        let ack = tcp.seq.wrapping_add(tcp.seg_len());
        flags.map(|flags| Segment { from: connection.port, seq: tcp.ack, ack, flags })
    }
}

/// Where a segment leads, and the flags of the answer to it.
fn next(state: State, flags: TcpFlags) -> (State, Option<TcpFlags>) {
    let has = |flag| flags.contains(flag);
    match state {
        _ if has(TcpFlags::RST) => (State::Closed, None),
        State::SynSent if has(TcpFlags::SYN) && has(TcpFlags::ACK) => {
            (State::Established, Some(TcpFlags::ACK))
        }
        State::Established if has(TcpFlags::FIN) => {
            (State::LastAck, Some(TcpFlags::FIN.with(TcpFlags::ACK)))
        }
        State::LastAck if has(TcpFlags::ACK) && !has(TcpFlags::FIN) => (State::Closed, None),
        _ => (state, None),
    }
}
