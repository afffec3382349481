//! What the appliance says: on the console, and kept for who asks later.
//!
//! In: lines. Out: the same on the console as far as it takes them, and the last of them as text.
//! Never: waits for a console, keeps more than a few pages, or keeps a control character.

use alloc::collections::VecDeque;
use alloc::string::String;
use core::fmt::{self, Write};
use wire::Instant;
use xen::console::Console;
use xen::hypervisor::{Hypervisor, Memory};

/// Bytes of lines that are kept.
const KEPT: usize = 16 << 10;
/// Room for another line beside them, before the oldest goes.
const LINE: usize = 4 << 10;

/// The console and the last lines said.
pub(super) struct Voice<M> {
    console: Console<M>,
    kept: VecDeque<u8>,
}

impl<M: Memory> Voice<M> {
    pub(super) fn new(console: Console<M>) -> Self {
        // All of it at the start: what is said later takes no memory.
        Self { console, kept: VecDeque::with_capacity(KEPT + LINE) }
    }

    /// Says a line. Returns whether the console took it.
    pub(super) fn say<H: Hypervisor>(&mut self, h: &mut H, message: fmt::Arguments<'_>) -> bool {
        let now = h.now();
        self.keep(now, message);
        self.console.say(h, message)
    }

    /// The last lines, each with the seconds since boot at which it was said.
    pub(super) fn kept(&self) -> String {
        let (front, back) = self.kept.as_slices();
        let bytes = [front, back].concat();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn keep(&mut self, now: Instant, message: fmt::Arguments<'_>) {
        let millis = now.as_nanos() / 1_000_000;
        let mut line = Line { kept: &mut self.kept };
        let _endless = write!(line, "{:>6}.{:03} ", millis / 1000, millis % 1000);
        let _endless = line.write_fmt(message);
        self.kept.push_back(b'\n');
        while self.kept.len() > KEPT {
            let first = self.kept.iter().position(|b| *b == b'\n').unwrap_or(KEPT);
            self.kept.drain(..=first.min(self.kept.len() - 1));
        }
    }
}

struct Line<'a> {
    kept: &'a mut VecDeque<u8>,
}

impl Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let c = if c.is_control() { '?' } else { c };
            self.kept.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }
}
