//! When to look at which flow again.
//!
//! In: flows with the second their time is over. Out: those to look at, not later than that. Never:
//! a move because of a packet: a flow that lived on is queued again when it comes up.

use crate::flow::{ByDeadline, Flow};
use crate::lists::Lists;
use crate::slab::Slab;

/// Slots of one second. Deadlines further away wait here as long as there is, and are queued again.
const SLOTS: u32 = 512;

/// Bytes of the wheel.
pub(crate) const BYTES: usize = SLOTS as usize * Lists::BYTES + SLOTS as usize / 8;

/// The wheel.
#[derive(Debug)]
pub(crate) struct Wheel {
    slots: Lists,
    /// Slots in which there may be something.
    occupied: [u64; SLOTS as usize / 64],
    /// The first second that is not over yet.
    cursor: u32,
}

impl Wheel {
    pub(crate) fn new() -> Self {
        Self { slots: Lists::new(SLOTS), occupied: [0; SLOTS as usize / 64], cursor: 0 }
    }

    /// Queues a flow that is not in the wheel.
    pub(crate) fn queue(&mut self, flows: &mut Slab<Flow>, index: u32, deadline: u32) {
        let last = self.cursor.saturating_add(SLOTS - 1);
        let slot = deadline.clamp(self.cursor, last) % SLOTS;
        self.slots.push(&mut ByDeadline(flows), slot, index);
        if let Some(word) = self.occupied.get_mut((slot / 64) as usize) {
            *word |= 1 << (slot % 64);
        }
    }

    /// Takes a flow out.
    pub(crate) fn unlink(&mut self, flows: &mut Slab<Flow>, index: u32) {
        self.slots.unlink(&mut ByDeadline(flows), index);
    }

    /// Takes out the next flow to look at, none later than `now`.
    pub(crate) fn pop(&mut self, flows: &mut Slab<Flow>, now: u32) -> Option<u32> {
        while self.cursor <= now {
            let next = self.next_occupied().filter(|second| *second <= now);
            let Some(second) = next else {
                self.cursor = now.saturating_add(1);
                break;
            };
            self.cursor = second;
            let slot = second % SLOTS;
            if let Some(index) = self.slots.first(slot) {
                self.unlink(flows, index);
                return Some(index);
            }
            if let Some(word) = self.occupied.get_mut((slot / 64) as usize) {
                *word &= !(1 << (slot % 64));
            }
        }
        None
    }

    /// The next second at which there may be something to look at.
    pub(crate) fn next_occupied(&self) -> Option<u32> {
        let start = self.cursor % SLOTS;
        let words = SLOTS / 64;
        // The first word is looked at twice: from the cursor on, and in the end before it.
        (0..=words).find_map(|nth| {
            let at = (start / 64 + nth) % words;
            let from_cursor = u64::MAX << (start % 64);
            let mask = match nth {
                0 => from_cursor,
                n if n == words => !from_cursor,
                _ => u64::MAX,
            };
            let word = self.occupied.get(at as usize)? & mask;
            let slot = at * 64 + word.trailing_zeros();
            (word != 0).then(|| self.cursor.saturating_add((slot + SLOTS - start) % SLOTS))
        })
    }
}
