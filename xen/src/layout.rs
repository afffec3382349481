//! How an outgoing frame is laid into pages: a new head, then what was behind the old one.
//!
//! In: the length of a new head and the pieces behind it. Out: the copies that bring them to pages, in
//! order. Never: crosses a page, or leaves out a byte.
#![deny(clippy::arithmetic_side_effects)]

use crate::hypervisor::PAGE_SIZE;
use crate::io::{Piece, SLOTS_MAX};
use arrayvec::ArrayVec;

const PAGE: u16 = PAGE_SIZE as u16;

/// One copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// From which piece; `None` is the head.
    pub piece: Option<usize>,
    /// Byte in the head or piece.
    pub from: u16,
    /// To which slot of the frame.
    pub slot: usize,
    /// Byte in the slot's page.
    pub at: u16,
    /// Bytes; never 0.
    pub len: u16,
}

/// How pieces and pages relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Each piece keeps a page of its own, so that it is one copy; the first one shares the head's
    /// page if it fits.
    Kept,
    /// Every page is filled, so that the pages are as few as can be.
    Dense,
}

/// The copies for a frame of a `head` of that many bytes (at most a page) and `rest`.
#[must_use]
pub fn parts(head: u16, rest: &[Piece], packing: Packing) -> Parts<'_> {
    Parts { packing, rest, source: None, left: head.min(PAGE), slot: 0, fill: 0 }
}

/// How to lay out a frame that may have `most` pages: in one if that is enough, as it came if that
/// fits, else as few pages as can be. `None` if it cannot be laid out so.
#[must_use]
pub fn packing(head: u16, rest: &[Piece], most: usize) -> Option<Packing> {
    let fits = |packing, most| (1..=most).contains(&slots(head, rest, packing));
    let len = rest.iter().fold(usize::from(head), |len, p| len.saturating_add(p.len.into()));
    if len <= PAGE_SIZE {
        return Some(Packing::Dense).filter(|dense| fits(*dense, most));
    }
    [Packing::Kept, Packing::Dense].into_iter().find(|packing| fits(*packing, most))
}

/// How many pages a frame needs.
#[must_use]
pub fn slots(head: u16, rest: &[Piece], packing: Packing) -> usize {
    parts(head, rest, packing).last().map_or(0, |part| part.slot.saturating_add(1))
}

/// Bytes in each page of a frame; `None` if it needs more than [`SLOTS_MAX`] of them.
#[must_use]
pub fn lens(head: u16, rest: &[Piece], packing: Packing) -> Option<ArrayVec<u16, SLOTS_MAX>> {
    let mut lens = ArrayVec::new();
    for part in parts(head, rest, packing) {
        if lens.len() <= part.slot {
            lens.try_push(0).ok()?;
        }
        let len = lens.last_mut()?;
        *len = part.len.saturating_add(*len);
    }
    Some(lens)
}

/// See [`parts`].
pub struct Parts<'a> {
    packing: Packing,
    rest: &'a [Piece],
    /// What is being copied, with its bytes not yet copied.
    source: Option<usize>,
    left: u16,
    /// The page being filled, and how far.
    slot: usize,
    fill: u16,
}

impl Parts<'_> {
    fn len_of(&self, source: Option<usize>) -> u16 {
        source.and_then(|n| self.rest.get(n)).map_or(0, |piece| piece.len.min(PAGE))
    }

    fn next_page(&mut self) {
        self.slot = self.slot.saturating_add(1);
        self.fill = 0;
    }
}

impl Iterator for Parts<'_> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        while self.left == 0 {
            let next = self.source.map_or(0, |n| n.saturating_add(1));
            self.rest.get(next)?;
            self.source = Some(next);
            self.left = self.len_of(self.source);
            let room = PAGE.saturating_sub(self.fill);
            let own_page = self.packing == Packing::Kept && (next != 0 || self.left > room);
            if own_page && self.fill != 0 {
                self.next_page();
            }
        }
        if self.fill == PAGE {
            self.next_page();
        }
        let whole = match self.source {
            None => self.left.saturating_add(self.fill),
            some => self.len_of(some),
        };
        let from = whole.saturating_sub(self.left);
        let len = self.left.min(PAGE.saturating_sub(self.fill));
        let part = Part { piece: self.source, from, slot: self.slot, at: self.fill, len };
        self.left = self.left.saturating_sub(len);
        self.fill = self.fill.saturating_add(len);
        Some(part)
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows has failed")]
mod tests {
    use super::*;
    use crate::hypervisor::CopyEnd;
    use std::vec::Vec;

    fn pieces(lens: &[u16]) -> Vec<Piece> {
        lens.iter().map(|len| Piece { at: CopyEnd::Private(0), offset: 0, len: *len }).collect()
    }

    fn check(head: u16, rest: &[Piece], packing: Packing) -> usize {
        let mut next = (None, 0);
        let mut page = (0, 0);
        for part in parts(head, rest, packing) {
            while part.piece != next.0 {
                let whole = next.0.map_or(head, |n: usize| rest[n].len);
                assert_eq!(next.1, whole, "bytes left out");
                next = (Some(next.0.map_or(0, |n| n + 1)), 0);
            }
            assert_eq!(part.from, next.1, "bytes skipped or repeated");
            next.1 += part.len;
            if part.slot != page.0 {
                assert_eq!(part.slot, page.0 + 1, "an empty slot");
                page = (part.slot, 0);
            }
            assert_eq!(part.at, page.1, "a hole in a page");
            page.1 += part.len;
            assert!(part.len != 0 && usize::from(page.1) <= PAGE_SIZE, "{part:?}");
        }
        let all = usize::from(head) + rest.iter().map(|p| usize::from(p.len)).sum::<usize>();
        let done = parts(head, rest, packing).map(|p| usize::from(p.len)).sum::<usize>();
        assert_eq!(done, all);
        slots(head, rest, packing)
    }

    #[test]
    fn every_byte_goes_to_a_page_once_and_in_order() {
        let edge = [1, 2, 53, 54, 256, 2048, 4041, 4042, 4095, 4096];
        for head in [0, 1, 54, 256, 4096] {
            for a in edge {
                for b in edge {
                    for c in edge {
                        let rest = pieces(&[a, b, c]);
                        let kept = check(head, &rest, Packing::Kept);
                        let dense = check(head, &rest, Packing::Dense);
                        let all =
                            usize::from(head) + usize::from(a) + usize::from(b) + usize::from(c);
                        assert_eq!(dense, all.div_ceil(PAGE_SIZE));
                        assert!((dense..=4).contains(&kept));
                    }
                }
            }
        }
    }

    #[test]
    fn a_frame_as_it_came_keeps_its_slots() {
        // What a Linux client sends: headers and payload in one page, then full pages.
        let rest = pieces(&[4042, 4096, 4096, 100]);
        let all: Vec<_> = parts(54, &rest, Packing::Kept).map(|p| (p.slot, p.at, p.len)).collect();
        assert_eq!(all, [(0, 0, 54), (0, 54, 4042), (1, 0, 4096), (2, 0, 4096), (3, 0, 100)]);
    }

    #[test]
    fn a_first_piece_too_long_for_the_heads_page_gets_its_own() {
        let rest = pieces(&[4096, 10]);
        let all: Vec<_> = parts(54, &rest, Packing::Kept).map(|p| (p.slot, p.at, p.len)).collect();
        assert_eq!(all, [(0, 0, 54), (1, 0, 4096), (2, 0, 10)]);
    }

    #[test]
    fn the_longest_frame_fits_when_packed() {
        let mut lens = [3640; 18];
        lens[17] = 65535 - 54 - 17 * 3640;
        assert_eq!(slots(54, &pieces(&lens), Packing::Kept), 18);
        assert_eq!(slots(54, &pieces(&lens), Packing::Dense), 16);
    }

    #[test]
    fn as_it_came_only_if_that_is_more_than_one_page_and_no_more_than_may_be() {
        for (rest, most, expected) in [
            (&[202, 1000][..], 18, Some(Packing::Dense)),
            (&[4000, 42], 18, Some(Packing::Dense)),
            (&[4000, 43], 18, Some(Packing::Kept)),
            (&[4000, 43], 1, None),
            (&[3000; 17], 17, Some(Packing::Kept)),
            (&[3000; 18], 17, Some(Packing::Dense)),
            (&[4096; 18], 17, None),
        ] {
            assert_eq!(packing(54, &pieces(rest), most), expected, "{rest:?} in {most}");
        }
        assert_eq!(packing(0, &[], 18), None);
    }

    #[test]
    fn a_frame_that_is_all_head_is_one_slot() {
        assert_eq!(slots(60, &[], Packing::Kept), 1);
        assert_eq!(slots(0, &[], Packing::Kept), 0);
    }
}
