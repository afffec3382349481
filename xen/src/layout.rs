//! How an outgoing frame is laid into pages: a new head, then what was behind the old one.
//!
//! In: the length of a new head and the pieces behind it. Out: pieces of which each is one copy, and
//! where in which page each goes. Never: crosses a page, or leaves out a byte.
#![deny(clippy::arithmetic_side_effects)]

use crate::hypervisor::PAGE_SIZE;
use crate::io::Piece;
use arrayvec::ArrayVec;

const PAGE: u16 = PAGE_SIZE as u16;

/// Most pieces of a frame: more than it has slots, but for a head or two.
const PIECES_MAX: usize = 20;

/// Pieces that were cut where pages end: each of a frame's once at most.
pub type Cuts = ArrayVec<Piece, { 2 * PIECES_MAX }>;

/// How pieces and pages relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Each piece keeps a page of its own, so that it is one copy; the first one shares the head's
    /// page if it fits.
    Kept,
    /// Every page is filled, so that the pages are as few as can be.
    Dense,
}

/// The pieces of `rest`, cut so that each goes to one page behind a `head` of that many bytes (at most a
/// page). Those that had to be cut stand in `cuts`. They are not too many, as [`packing`] has seen.
#[must_use]
pub fn cut<'p>(head: u16, rest: &'p [Piece], packing: Packing, cuts: &'p mut Cuts) -> &'p [Piece] {
    if packing == Packing::Kept {
        return rest;
    }
    let mut at = head.min(PAGE);
    for piece in rest {
        let mut piece = *piece;
        while piece.len != 0 {
            at = if at == PAGE { 0 } else { at };
            let len = piece.len.min(PAGE.saturating_sub(at));
            let _within_bounds = cuts.try_push(Piece { len, ..piece });
            at = at.saturating_add(len);
            piece.offset = piece.offset.saturating_add(len);
            piece.len = piece.len.saturating_sub(len);
        }
    }
    cuts
}

/// How many of the `pieces` that [`cut`] gave go to the page that begins with `head` bytes, or with
/// them if that is 0.
#[must_use]
#[inline(always)] // As all that is done for each slot.
pub fn on_page(head: u16, pieces: &[Piece], packing: Packing) -> usize {
    match packing {
        Packing::Kept if head == 0 => 1,
        Packing::Kept => shares(head, pieces).into(),
        Packing::Dense => {
            let mut at = head;
            let fits = |piece: &&Piece| {
                let fits = at != PAGE;
                at = at.saturating_add(piece.len);
                fits
            };
            pieces.iter().take_while(fits).count()
        }
    }
}

/// Whether the first piece, if there is one, stands in the page that begins with the head.
fn shares(head: u16, rest: &[Piece]) -> bool {
    head == 0 || rest.first().is_some_and(|first| first.len <= PAGE.saturating_sub(head))
}

/// Bytes of a frame of a new head and what is behind it.
#[must_use]
pub fn frame_len(head: u16, rest: &[Piece]) -> usize {
    // Far fewer pieces than an overflow would take.
    rest.iter().fold(usize::from(head), |len, piece| len.wrapping_add(piece.len.into()))
}

/// How to lay out a frame of `len` bytes that may have `most` pages, and how many it gets: one if that is
/// enough, as it came if that fits, else as few pages as can be. `None` if it cannot be laid out so.
#[must_use]
pub fn packing(head: u16, rest: &[Piece], len: usize, most: usize) -> Option<(Packing, usize)> {
    (rest.len() <= PIECES_MAX).then_some(())?;
    let dense = len.div_ceil(PAGE_SIZE);
    let kept = rest.len().saturating_add((!shares(head, rest)).into());
    if dense > 1 && (1..=most).contains(&kept) {
        return Some((Packing::Kept, kept));
    }
    (1..=most).contains(&dense).then_some((Packing::Dense, dense))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows has failed")]
mod tests {
    use super::*;
    use crate::hypervisor::CopyEnd;
    use std::vec::Vec;

    /// Each in the page of its number.
    fn pieces(lens: &[u16]) -> Vec<Piece> {
        let piece = |(n, len): (usize, &u16)| Piece {
            at: CopyEnd::Private(n as u16),
            offset: 0,
            len: *len,
        };
        lens.iter().enumerate().map(piece).collect()
    }

    /// The copies of a frame: which piece (none is the head), from where in it, slot, where in its
    /// page, and how many bytes.
    fn parts(
        head: u16,
        rest: &[Piece],
        packing: Packing,
    ) -> Vec<(Option<u16>, u16, usize, u16, u16)> {
        let own = (head != 0).then_some((None, 0, 0, 0, head));
        let mut parts: Vec<_> = own.into_iter().collect();
        let mut cuts = Cuts::new();
        let (mut left, mut slot, mut at) = (cut(head, rest, packing, &mut cuts), 0, head);
        while !left.is_empty() {
            let (here, others) = left.split_at(on_page(at, left, packing));
            for piece in here {
                let CopyEnd::Private(n) = piece.at else { panic!("no page of these") };
                parts.push((Some(n), piece.offset, slot, at, piece.len));
                at += piece.len;
            }
            (left, slot, at) = (others, slot + 1, 0);
        }
        parts
    }

    fn packing_of(head: u16, rest: &[Piece], most: usize) -> Option<(Packing, usize)> {
        packing(head, rest, frame_len(head, rest), most)
    }

    fn check(head: u16, rest: &[Piece], packing: Packing) -> usize {
        let mut next = (None, 0);
        let mut page = (0, 0);
        let parts = parts(head, rest, packing);
        for (piece, from, slot, at, len) in &parts {
            while *piece != next.0 {
                let whole = next.0.map_or(head, |n: u16| rest[usize::from(n)].len);
                assert_eq!(next.1, whole, "bytes left out");
                next = (Some(next.0.map_or(0, |n| n + 1)), 0);
            }
            assert_eq!(*from, next.1, "bytes skipped or repeated");
            next.1 += len;
            if *slot != page.0 {
                assert_eq!(*slot, page.0 + 1, "an empty slot");
                page = (*slot, 0);
            }
            assert_eq!(*at, page.1, "a hole in a page");
            page.1 += len;
            assert!(*len != 0 && usize::from(page.1) <= PAGE_SIZE, "{parts:?}");
        }
        let all = usize::from(head) + rest.iter().map(|p| usize::from(p.len)).sum::<usize>();
        assert_eq!(parts.iter().map(|(.., len)| usize::from(*len)).sum::<usize>(), all);
        let slots = parts.last().map_or(0, |(_, _, slot, ..)| slot + 1);
        match packing {
            Packing::Kept => assert_eq!(rest.len() + usize::from(!shares(head, rest)), slots),
            Packing::Dense => assert_eq!(all.div_ceil(PAGE_SIZE), slots),
        }
        slots
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

    fn slots_of(head: u16, rest: &[Piece]) -> Vec<(usize, u16, u16)> {
        let parts = parts(head, rest, Packing::Kept).into_iter();
        parts.map(|(_, _, slot, at, len)| (slot, at, len)).collect()
    }

    #[test]
    fn a_frame_as_it_came_keeps_its_slots() {
        // What a Linux client sends: headers and payload in one page, then full pages.
        let rest = pieces(&[4042, 4096, 4096, 100]);
        let all = slots_of(54, &rest);
        assert_eq!(all, [(0, 0, 54), (0, 54, 4042), (1, 0, 4096), (2, 0, 4096), (3, 0, 100)]);
    }

    #[test]
    fn a_first_piece_too_long_for_the_heads_page_gets_its_own() {
        let rest = pieces(&[4096, 10]);
        let all = slots_of(54, &rest);
        assert_eq!(all, [(0, 0, 54), (1, 0, 4096), (2, 0, 10)]);
    }

    #[test]
    fn the_longest_frame_fits_when_packed() {
        let mut lens = [3640; 18];
        lens[17] = 65535 - 54 - 17 * 3640;
        assert_eq!(check(54, &pieces(&lens), Packing::Kept), 18);
        assert_eq!(check(54, &pieces(&lens), Packing::Dense), 16);
    }

    #[test]
    fn as_it_came_only_if_that_is_more_than_one_page_and_no_more_than_may_be() {
        for (rest, most, expected) in [
            (&[202, 1000][..], 18, Some((Packing::Dense, 1))),
            (&[4000, 42], 18, Some((Packing::Dense, 1))),
            (&[4000, 43], 18, Some((Packing::Kept, 2))),
            (&[4000, 43], 1, None),
            (&[3000; 17], 17, Some((Packing::Kept, 17))),
            (&[3000; 18], 17, Some((Packing::Dense, 14))),
            (&[4096; 18], 17, None),
        ] {
            assert_eq!(packing_of(54, &pieces(rest), most), expected, "{rest:?} in {most}");
        }
        assert_eq!(packing_of(0, &[], 18), None);
        assert_eq!(packing_of(54, &pieces(&[1; PIECES_MAX]), 18), Some((Packing::Dense, 1)));
        assert_eq!(packing_of(54, &pieces(&[1; PIECES_MAX + 1]), 18), None);
    }

    #[test]
    fn a_frame_that_is_all_head_is_one_slot() {
        assert_eq!(check(60, &[], Packing::Kept), 1);
        assert_eq!(check(0, &[], Packing::Kept), 0);
    }
}
