//! The control stream with dom0's qrexec-daemon.
//!
//! | came in | before the greeting | afterwards |
//! |---|---|---|
//! | HELLO | greeted | a mistake of the other side |
//! | EXEC_CMDLINE, JUST_EXEC | a mistake | [`Order::Run`] |
//! | SERVICE_CONNECT, SERVICE_REFUSED | a mistake | an answer to our own request |
//! | anything else | a mistake | a mistake |
#![deny(clippy::arithmetic_side_effects)]

use super::frame::{self, FrameError, Frames};
use super::{Command, kind};
use alloc::collections::VecDeque;

/// Orders that may wait before nothing more is read.
const ORDERS_MAX: usize = 64;

const IDENT: usize = 32;
const TARGET: usize = 64;

/// By which a request of ours is known: up to 31 of `[0-9A-Za-z_. -]`, then NULs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ident([u8; IDENT]);

impl Ident {
    /// The `n`-th request of ours.
    #[must_use]
    pub fn numbered(n: u32) -> Self {
        let mut ident = [0; IDENT];
        let name = alloc::format!("tidegate-{n}");
        ident.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        Self(ident)
    }
}

/// What dom0 wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Run this, and connect its input and output to `port` of `domain`; say
    /// [`Control::terminated`] when that is over.
    Run {
        /// Whose port it is.
        domain: u16,
        /// The channel for data.
        port: u32,
        /// What is to be run.
        command: Command,
    },
    /// Serve `port` for `domain`: there is who serves the request.
    Connect {
        /// Which request.
        ident: Ident,
        /// Who will connect.
        domain: u16,
        /// The channel for data.
        port: u32,
    },
    /// The request was refused.
    Refused(Ident),
}

/// The control stream, without the bytes' way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    frames: Frames,
    greeted: bool,
    orders: VecDeque<Order>,
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

impl Control {
    /// A new connection.
    #[must_use]
    pub fn new() -> Self {
        Self { frames: Frames::new(), greeted: false, orders: VecDeque::new() }
    }

    /// Whether both sides have greeted.
    #[must_use]
    pub const fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// The next order.
    pub fn next_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// Whether more may be read from the stream.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.orders.len() < ORDERS_MAX
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// What the other side did wrong: close the connection.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        self.frames.add(bytes);
        while let Some((kind, body)) = self.frames.next()? {
            if self.greeted {
                let order = order(kind, &body).ok_or(FrameError::Unexpected(kind))?;
                self.orders.push_back(order);
            } else {
                frame::hello(kind, &body)?;
                self.greeted = true;
            }
        }
        Ok(())
    }

    /// Says that a call is over, so that dom0 uses its port again.
    pub fn terminated(&mut self, domain: u16, port: u32) {
        let parts: [&[u8]; 2] = [&u32::from(domain).to_le_bytes(), &port.to_le_bytes()];
        self.frames.put(kind::TERMINATED, &parts);
    }

    /// Asks for `service` (at most 64 bytes) of `target` (at most 63 bytes). Whether that could be
    /// asked: what the daemon would not take is not sent.
    pub fn request(&mut self, target: &str, service: &str, ident: Ident) -> bool {
        let fits = (1..TARGET).contains(&target.len()) && (1..=64).contains(&service.len());
        let clean = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        if !self.greeted || !fits || !clean(target) || !clean(service) || service.starts_with('+') {
            return false;
        }
        let mut field = [0; TARGET];
        field.iter_mut().zip(target.bytes()).for_each(|(to, from)| *to = from);
        let parts: [&[u8]; 4] = [&field, &ident.0, service.as_bytes(), &[0]];
        self.frames.put(kind::TRIGGER_SERVICE3, &parts);
        true
    }

    /// The bytes to be sent next.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        self.frames.outgoing()
    }

    /// Says that the first `count` of them were sent.
    pub fn sent(&mut self, count: usize) {
        self.frames.sent(count);
    }
}

fn order(kind: u32, body: &[u8]) -> Option<Order> {
    let whole = || -> Option<Ident> { Some(Ident(body.try_into().ok()?)) };
    if kind == kind::SERVICE_REFUSED {
        return Some(Order::Refused(whole()?));
    }
    let (domain, rest) = body.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let (domain, port) =
        (u16::try_from(u32::from_le_bytes(*domain)).ok()?, u32::from_le_bytes(*port));
    match kind {
        // Nobody is interested in what comes of it, and still waits for the end.
        kind::EXEC_CMDLINE | kind::JUST_EXEC => {
            Some(Order::Run { domain, port, command: Command::parse(rest) })
        }
        kind::SERVICE_CONNECT => {
            let ident = Ident(rest.try_into().ok()?);
            Some(Order::Connect { ident, domain, port })
        }
        _ => None,
    }
}
