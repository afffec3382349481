//! How an outgoing frame lies in slots: one page each, the new head in front of what was in the first.
//!
//! In: the length of the head, the pieces behind it. Out: the length of each slot, and where each
//! stretch of a piece goes. Never: allocates, or looks into a frame.
#![deny(clippy::arithmetic_side_effects)]

use arrayvec::ArrayVec;
use xen::hypervisor::PAGE_SIZE;
use xen::io::{Piece, SLOTS_MAX};

const PAGE: u16 = PAGE_SIZE as u16;

/// Whether the pieces keep their slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Each piece after the first has a slot for itself, as it came in.
    Keep,
    /// Slots are filled up: fewest slots, at the cost of more copies.
    Pack,
}

/// Bytes in each slot of a frame.
pub(crate) type Lens = ArrayVec<u16, SLOTS_MAX>;

/// Lays out a frame of `head` bytes and `pieces`, calling `each` with every stretch of a piece and
/// the slot and offset it goes to, in order. `None` if [`SLOTS_MAX`] slots are too few.
pub(crate) fn lay(
    head: u16,
    pieces: &[Piece],
    layout: Layout,
    mut each: impl FnMut(usize, u16, Piece),
) -> Option<Lens> {
    let mut lens = Lens::new();
    lens.push(head.min(PAGE));
    for (n, piece) in pieces.iter().filter(|piece| piece.len != 0).enumerate() {
        if n != 0 && layout == Layout::Keep {
            lens.try_push(0).ok()?;
        }
        let mut left = *piece;
        while left.len != 0 {
            if lens.last().is_none_or(|len| *len == PAGE) {
                lens.try_push(0).ok()?;
            }
            let slot = lens.len().checked_sub(1)?;
            let fill = lens.last_mut()?;
            let now = left.len.min(PAGE.checked_sub(*fill)?);
            each(slot, *fill, Piece { len: now, ..left });
            *fill = fill.checked_add(now)?;
            left.offset = left.offset.checked_add(now)?;
            left.len = left.len.checked_sub(now)?;
        }
    }
    Some(lens)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;
    use std::vec::Vec;
    use xen::hypervisor::{CopyEnd, FrameNo};

    fn pieces(lens: &[u16]) -> Vec<Piece> {
        let at = |n| CopyEnd::Page(FrameNo(n));
        (0..).zip(lens).map(|(n, len)| Piece { at: at(n), offset: 0, len: *len }).collect()
    }

    fn lens(head: u16, of: &[u16], layout: Layout) -> Option<Vec<u16>> {
        Some(lay(head, &pieces(of), layout, |_, _, _| {})?.to_vec())
    }

    #[test]
    fn slots_are_kept_and_the_head_stands_before_the_first() {
        assert_eq!(lens(54, &[], Layout::Keep), Some(vec![54]));
        assert_eq!(lens(54, &[100], Layout::Keep), Some(vec![154]));
        assert_eq!(lens(54, &[10, 4096, 1], Layout::Keep), Some(vec![64, 4096, 1]));
    }

    #[test]
    fn what_the_head_pushes_over_the_page_has_a_slot_for_itself() {
        assert_eq!(lens(54, &[4096, 7], Layout::Keep), Some(vec![4096, 54, 7]));
        assert_eq!(lens(4096, &[5], Layout::Keep), Some(vec![4096, 5]));
        assert_eq!(lens(54, &[4096, 7], Layout::Pack), Some(vec![4096, 61]));
    }

    #[test]
    fn more_than_the_limit_is_refused_and_the_longest_frame_always_packs() {
        assert_eq!(lens(54, &[1; SLOTS_MAX], Layout::Keep).unwrap().len(), SLOTS_MAX);
        assert_eq!(lens(54, &[1; SLOTS_MAX + 1], Layout::Keep), None);
        assert_eq!(lens(54, &[1; SLOTS_MAX + 1], Layout::Pack), Some(vec![73]));
        let longest: Vec<u16> = [3640; 17].into_iter().chain([65535 - 54 - 17 * 3640]).collect();
        assert_eq!(lens(54, &longest, Layout::Pack).unwrap().len(), 16);
    }

    #[test]
    fn the_stretches_of_every_layout_are_the_bytes_in_order() {
        for layout in [Layout::Keep, Layout::Pack] {
            for (head, of) in
                [(54, &[4096u16, 4096, 100][..]), (0, &[1, 2, 3]), (4000, &[96, 1]), (256, &[3841])]
            {
                let from = pieces(of);
                let mut seen: Vec<(CopyEnd, u16)> = vec![];
                let mut at = (0, head);
                let lens = lay(head, &from, layout, |slot, offset, stretch| {
                    if slot != at.0 {
                        at = (slot, 0);
                    }
                    assert_eq!((slot, offset), at);
                    at.1 += stretch.len;
                    assert!(at.1 <= 4096 && stretch.len != 0);
                    seen.extend((0..stretch.len).map(|n| (stretch.at, stretch.offset + n)));
                })
                .unwrap();
                let all: Vec<_> = from.iter().flat_map(|p| (0..p.len).map(|n| (p.at, n))).collect();
                assert_eq!(seen, all);
                let sum: u32 = lens.iter().map(|l| u32::from(*l)).sum();
                assert_eq!(sum as usize, usize::from(head) + all.len());
            }
        }
    }
}
