//! Watches how a domain handles the pages it shares: what a careful one never does, whoever the peer is.
//!
//! In: every access ([`Sim::on_touch`](super::Sim::on_touch)). Out: what was careless, in words. Never:
//! interferes, so that a hook may be a witness and a liar at once.

use super::memory::{Touch, TouchKind};
use crate::hypervisor::{DomId, FrameNo};
use std::collections::BTreeMap;
use std::format;
use std::string::String;
use std::vec::Vec;

/// Where the slots of a ring page start, and the largest of them: what is longer than a slot is the
/// data of a frame.
const SLOTS_AT: usize = 64;
const SLOT_MAX: usize = 12;
const SLOTS: usize = 256;
/// The index that shows answers (rsp_prod, ring.h).
const RSP_PROD: usize = 8;

/// Sees what one domain does to shared pages.
///
/// * A slot of a ring is read once and whole, one after the other: who looks twice may see two things.
/// * A slot of another's ring is answered once, and after it was read. A response in an RX ring, which
///   is told from a TX ring by its slots, may be written anew until it is shown: only the copy of its
///   frame tells whether that came through.
/// * A page that is lent is neither read nor written but through a ring: what a peer can still change
///   is not to be believed, and what it can already read is not to be changed.
#[derive(Clone, Debug)]
pub struct Witness {
    who: DomId,
    rings: BTreeMap<FrameNo, Seen>,
    reads: u64,
    careless: Vec<String>,
}

/// One ring.
#[derive(Clone, Debug)]
struct Seen {
    next: Option<usize>,
    slots: [Slot; SLOTS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    /// Not read, or its answer was shown.
    Closed,
    Read,
    /// Answered, and not shown yet.
    Answered,
}

impl Witness {
    /// Watches `who`.
    #[must_use]
    pub const fn new(who: DomId) -> Self {
        Self { who, rings: BTreeMap::new(), reads: 0, careless: Vec::new() }
    }

    /// What was careless so far.
    #[must_use]
    pub fn careless(&self) -> &[String] {
        &self.careless
    }

    /// Slots that were read: a test that saw none has seen nothing.
    #[must_use]
    pub const fn reads(&self) -> u64 {
        self.reads
    }

    /// Sees an access.
    pub fn see(&mut self, touch: &Touch) {
        if touch.by != self.who {
            return;
        }
        let own = touch.owner == self.who;
        let copied = matches!(touch.kind, TouchKind::CopyFrom | TouchKind::CopyTo);
        if own && (copied || touch.len > SLOT_MAX) {
            self.note(touch, "touches the data of a page it has lent");
        } else if !copied && touch.offset >= SLOTS_AT {
            self.slot(touch, own);
        } else if touch.kind == TouchKind::Write
            && touch.offset == RSP_PROD
            && let Some(ring) = self.rings.get_mut(&touch.frame)
        {
            let answered = ring.slots.iter_mut().filter(|slot| **slot == Slot::Answered);
            answered.for_each(|slot| *slot = Slot::Closed);
        }
    }

    fn slot(&mut self, touch: &Touch, own: bool) {
        let size = touch.len;
        let at = touch.offset - SLOTS_AT;
        if !(size == 8 || size == SLOT_MAX) || !at.is_multiple_of(size) {
            return self.note(touch, "looks at a part of a slot");
        }
        let slot = at / size;
        let fresh = Seen { next: None, slots: [Slot::Closed; SLOTS] };
        let ring = self.rings.entry(touch.frame).or_insert(fresh);
        if touch.kind == TouchKind::Read {
            // A page may become a new ring, whose first slot is 0.
            let wrong = slot != 0 && ring.next.is_some_and(|next| next != slot);
            ring.next = Some((slot + 1) % SLOTS);
            let answered = std::mem::replace(&mut ring.slots[slot], Slot::Read) != Slot::Read;
            self.reads += 1;
            if wrong || !(own || answered) {
                self.note(touch, "reads a slot out of turn");
            }
        } else if !own {
            let before = std::mem::replace(&mut ring.slots[slot], Slot::Answered);
            if before == Slot::Closed || (before == Slot::Answered && size == SLOT_MAX) {
                self.note(touch, "answers a slot that it has not read, or has answered");
            }
        }
    }

    fn note(&mut self, touch: &Touch, what: &str) {
        let Touch { by, owner, offset, len, kind, .. } = touch;
        self.careless.push(format!("{by} {what}: {kind:?}, {len} bytes at {offset} of {owner}"));
    }
}
