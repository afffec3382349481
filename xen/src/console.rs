//! The PV console: messages into a ring that the toolstack's console daemon reads.
//!
//! In: text. Out: whole messages in the ring (io/console.h). Never: waits, splits a message, or passes
//! on a control character, as names and values from other domains end up in messages and a terminal
//! would obey them.

use crate::hypervisor::{EvtPort, Hypervisor, Memory};
use core::fmt::{self, Write};

/// Bytes of the output ring (XENCONS_RING, struct xencons_interface).
const SIZE: u32 = 2048;
/// Where the output ring starts in the page.
const OUT: usize = 1024;
/// Where its consumer index, written by the daemon, stands.
const CONS: usize = 3080;
/// Where its producer index, written by us, stands.
const PROD: usize = 3084;

/// The writing end of a console.
#[derive(Debug)]
pub struct Console<M> {
    ring: M,
    port: EvtPort,
    /// What the ring's index says is not trusted after the start: this is.
    prod: u32,
    lost: u64,
    /// Lost and not told yet.
    untold: u64,
}

impl<M: Memory> Console<M> {
    /// A console on the ring page `ring`, signalled by `port`. Goes on where the ring stands.
    #[must_use]
    pub fn new(ring: M, port: EvtPort) -> Self {
        let prod = ring.load(PROD);
        Self { ring, port, prod, lost: 0, untold: 0 }
    }

    /// Messages dropped since the start, as the ring was full.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Writes one message and a line end, or counts it as lost if the ring has no room for all of it.
    /// The first message after a loss is preceded by a line that says how many are missing.
    /// Returns whether it was written.
    pub fn say<H: Hypervisor>(&mut self, h: &mut H, message: fmt::Arguments<'_>) -> bool {
        let written = self.put(message);
        if written {
            // Without a daemon nobody listens, which is no reason to stop.
            let _nobody = h.notify(self.port);
        }
        written
    }

    /// As [`say`](Self::say), without the signal: for who has no [`Hypervisor`] at hand.
    pub fn put(&mut self, message: fmt::Arguments<'_>) -> bool {
        let mut line = Line { ring: &self.ring, at: self.prod, room: self.room() };
        let told =
            self.untold == 0 || writeln!(line, "[{} console messages lost]", self.untold).is_ok();
        if told && writeln!(line, "{message}").is_ok() {
            self.prod = line.at;
            self.ring.store(PROD, self.prod);
            self.untold = 0;
            return true;
        }
        self.lost = self.lost.saturating_add(1);
        self.untold = self.untold.saturating_add(1);
        false
    }

    /// Whether the daemon has read all that was written.
    pub fn is_drained(&self) -> bool {
        self.room() == SIZE
    }

    /// Bytes free. A consumer index out of range, which only a broken daemon writes, is a full ring.
    fn room(&self) -> u32 {
        SIZE.saturating_sub(self.prod.wrapping_sub(self.ring.load(CONS)))
    }
}

/// A message on its way into the ring, not yet visible there.
struct Line<'a, M> {
    ring: &'a M,
    at: u32,
    room: u32,
}

impl<M: Memory> Line<'_, M> {
    fn bytes(&mut self, bytes: &[u8]) -> fmt::Result {
        for byte in bytes {
            self.room = self.room.checked_sub(1).ok_or(fmt::Error)?;
            self.ring.write(OUT + (self.at % SIZE) as usize, &[*byte]);
            self.at = self.at.wrapping_add(1);
        }
        Ok(())
    }
}

impl<M: Memory> Write for Line<'_, M> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                // Terminals at the other end are raw.
                '\n' => self.bytes(b"\r\n")?,
                c if c.is_control() => self.bytes(b"?")?,
                c => self.bytes(c.encode_utf8(&mut [0; 4]).as_bytes())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::PAGE_SIZE;
    use core::cell::RefCell;
    use std::string::String;
    use std::vec::Vec;

    struct Ring(RefCell<Vec<u8>>);

    impl Memory for &Ring {
        fn load(&self, offset: usize) -> u32 {
            u32::from_le_bytes(self.0.borrow()[offset..offset + 4].try_into().unwrap())
        }
        fn store(&self, offset: usize, value: u32) {
            self.write(offset, &value.to_le_bytes());
        }
        fn fetch_and(&self, offset: usize, mask: u32) -> u32 {
            let word = Memory::load(self, offset);
            Memory::store(self, offset, word & mask);
            word
        }
        fn fetch_or(&self, offset: usize, bits: u32) -> u32 {
            let word = Memory::load(self, offset);
            Memory::store(self, offset, word | bits);
            word
        }
        fn read(&self, offset: usize, into: &mut [u8]) {
            into.copy_from_slice(&self.0.borrow()[offset..offset + into.len()]);
        }
        fn write(&self, offset: usize, from: &[u8]) {
            self.0.borrow_mut()[offset..offset + from.len()].copy_from_slice(from);
        }
        fn barrier(&self) {}
    }

    impl Ring {
        /// A ring page whose indices both stand at `start`.
        fn at(start: u32) -> Self {
            let ring = Self(RefCell::new(std::vec![0; PAGE_SIZE]));
            ring.store(CONS, start);
            ring.store(PROD, start);
            ring
        }

        /// What the daemon would read.
        fn drain(&self) -> String {
            let (mut cons, prod) = (self.load(CONS), self.load(PROD));
            let mut text = Vec::new();
            while cons != prod {
                text.push(self.0.borrow()[OUT + (cons % SIZE) as usize]);
                cons = cons.wrapping_add(1);
            }
            self.store(CONS, cons);
            String::from_utf8(text).unwrap()
        }

        fn load(&self, offset: usize) -> u32 {
            Memory::load(&self, offset)
        }

        fn store(&self, offset: usize, value: u32) {
            Memory::store(&self, offset, value);
        }
    }

    fn console(ring: &Ring) -> Console<&Ring> {
        Console::new(ring, EvtPort(1))
    }

    #[test]
    fn messages_arrive_in_order_wherever_the_ring_stands() {
        for start in [0, 2047, u32::MAX - 3] {
            let ring = Ring::at(start);
            let mut console = console(&ring);
            assert!(console.put(format_args!("one {}", 1)));
            assert!(console.put(format_args!("two")));
            assert_eq!(ring.drain(), "one 1\r\ntwo\r\n");
            assert!(console.is_drained());
        }
    }

    #[test]
    fn a_full_ring_loses_whole_messages_and_says_how_many() {
        let ring = Ring::at(u32::MAX - 100);
        let mut console = console(&ring);
        let long = "x".repeat(1000);
        assert!(console.put(format_args!("{long}")));
        assert!(console.put(format_args!("{long}")));
        assert!(!console.put(format_args!("{long}")));
        assert!(!console.put(format_args!("{long}")));
        assert_eq!(console.lost(), 2);
        let text = ring.drain();
        assert_eq!(text, std::format!("{long}\r\n{long}\r\n"));
        assert!(console.put(format_args!("again")));
        assert_eq!(ring.drain(), "[2 console messages lost]\r\nagain\r\n");
        assert!(console.put(format_args!("quiet")));
        assert_eq!(ring.drain(), "quiet\r\n");
    }

    #[test]
    fn a_message_that_fills_the_ring_exactly_fits() {
        let ring = Ring::at(7);
        let mut console = console(&ring);
        let full = "x".repeat(SIZE as usize - 2);
        assert!(!console.put(format_args!("{full}y")));
        assert!(!console.put(format_args!("{full}")), "the notice of the loss takes room");
        let mut fresh = Console::new(&ring, EvtPort(1));
        assert!(fresh.put(format_args!("{full}")));
        assert!(!fresh.put(format_args!("")));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let ring = Ring::at(0);
        console(&ring).put(format_args!("name \x1b[2J\r\u{9b}ü"));
        assert_eq!(ring.drain(), "name ?[2J??ü\r\n");
    }

    #[test]
    fn an_impossible_consumer_index_is_a_full_ring() {
        let ring = Ring::at(0);
        let mut console = console(&ring);
        ring.store(CONS, 1);
        assert!(!console.put(format_args!("hello")));
        ring.store(CONS, 0);
        assert!(console.put(format_args!("hello")));
    }
}
