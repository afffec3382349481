//! The private memory of the packet path: what stands where.
//!
//! In: nothing but its own constants. Out: the areas as slices, and the byte offset of each place.
//! Never: lent to another domain. Payload is looked at here and nowhere else.

use arrayvec::ArrayVec;
use wire::{BATCH, HEAD_MAX, REPLY_MAX, SEGMENTS_MAX, WHOLE_MAX};
use xen::hypervisor::{CopyEnd, PAGE_SIZE};
use xen::io::{Piece, SLOTS_MAX};

/// Frames of one batch that may be fetched whole at a time.
pub(super) const WHOLES: usize = 16;

/// Bytes of frames that are brought at a time to be summed, enough for the longest frame.
pub(super) const BODIES: usize = 1 << 16;

const HEADS_AT: usize = 0;
const WHOLES_AT: usize = HEADS_AT + BATCH * HEAD_MAX;
const NEW_HEADS_AT: usize = WHOLES_AT + WHOLES * WHOLE_MAX;
const WHOLE_HEADS_AT: usize = NEW_HEADS_AT + BATCH * HEAD_MAX;
const REPLIES_AT: usize = WHOLE_HEADS_AT + WHOLES * HEAD_MAX;
const BODIES_AT: usize = REPLIES_AT + BATCH * REPLY_MAX;
const SEGMENTS_AT: usize = BODIES_AT + BODIES;
const END: usize = SEGMENTS_AT + SEGMENTS_MAX * HEAD_MAX;

/// Pages of private memory the packet path needs.
pub(super) const PAGES: u16 = (END / PAGE_SIZE) as u16;

// No place crosses a page: a grant copy may not.
const _: () = {
    assert!(END.is_multiple_of(PAGE_SIZE) && END / PAGE_SIZE <= u16::MAX as usize);
    assert!(PAGE_SIZE.is_multiple_of(HEAD_MAX) && PAGE_SIZE.is_multiple_of(WHOLE_MAX));
    assert!(PAGE_SIZE.is_multiple_of(REPLY_MAX));
    assert!(BODIES_AT.is_multiple_of(PAGE_SIZE) && SEGMENTS_AT.is_multiple_of(HEAD_MAX));
    assert!(WHOLES_AT.is_multiple_of(WHOLE_MAX) && REPLIES_AT.is_multiple_of(REPLY_MAX));
};

/// Byte offset of the place where the head of the `n`-th frame is read.
pub(super) const fn head_at(n: usize) -> u32 {
    (HEADS_AT + n * HEAD_MAX) as u32
}

/// Byte offset of the place where the `n`-th frame that is needed whole is read.
pub(super) const fn whole_at(n: usize) -> u32 {
    (WHOLES_AT + n * WHOLE_MAX) as u32
}

/// Byte offset of the new head of the `n`-th frame.
pub(super) const fn new_head_at(n: usize) -> u32 {
    (NEW_HEADS_AT + n * HEAD_MAX) as u32
}

/// Byte offset of the new head of the `n`-th frame that was needed whole.
pub(super) const fn whole_head_at(n: usize) -> u32 {
    (WHOLE_HEADS_AT + n * HEAD_MAX) as u32
}

/// Byte offset of the `n`-th reply.
pub(super) const fn reply_at(n: usize) -> u32 {
    (REPLIES_AT + n * REPLY_MAX) as u32
}

/// Byte offset of the `n`-th byte of those that are brought to be summed.
pub(super) const fn body_at(n: usize) -> u32 {
    (BODIES_AT + n) as u32
}

/// Byte offset of the head of the `n`-th segment.
pub(super) const fn segment_at(n: usize) -> u32 {
    (SEGMENTS_AT + n * HEAD_MAX) as u32
}

/// Private memory while segments are made: all there is to be read, by its offset, and the places of
/// their heads.
pub(super) fn segments(private: &mut [u8]) -> (&[u8], &mut [[u8; HEAD_MAX]]) {
    let (known, heads) = cut(private, SEGMENTS_AT);
    (known, heads.as_chunks_mut().0)
}

/// `len` bytes of private memory from byte `at` on, as a device wants them.
pub(super) fn pieces(at: u32, len: u32) -> ArrayVec<Piece, SLOTS_MAX> {
    const PAGE: u32 = PAGE_SIZE as u32;
    let mut pieces = ArrayVec::new();
    let mut at = at;
    let end = at.saturating_add(len);
    while at < end && !pieces.is_full() {
        let offset = at % PAGE;
        let part = (end - at).min(PAGE - offset);
        let page = CopyEnd::Private((at / PAGE) as u16);
        pieces.push(Piece { at: page, offset: offset as u16, len: part as u16 });
        at += part;
    }
    pieces
}

/// The areas of private memory that the firewall reads and writes, each an array of places.
pub(super) struct Areas<'m> {
    pub(super) heads: &'m mut [[u8; HEAD_MAX]],
    pub(super) wholes: &'m mut [[u8; WHOLE_MAX]],
    pub(super) new_heads: &'m mut [[u8; HEAD_MAX]],
    pub(super) whole_heads: &'m mut [[u8; HEAD_MAX]],
    pub(super) replies: &'m mut [[u8; REPLY_MAX]],
}

/// Cuts private memory into its areas; each is empty if the memory is too short for it.
pub(super) fn areas(private: &mut [u8]) -> Areas<'_> {
    let (heads, rest) = cut(private, WHOLES_AT - HEADS_AT);
    let (wholes, rest) = cut(rest, NEW_HEADS_AT - WHOLES_AT);
    let (new_heads, rest) = cut(rest, WHOLE_HEADS_AT - NEW_HEADS_AT);
    let (whole_heads, rest) = cut(rest, REPLIES_AT - WHOLE_HEADS_AT);
    let (replies, _) = cut(rest, BODIES_AT - REPLIES_AT);
    Areas {
        heads: heads.as_chunks_mut().0,
        wholes: wholes.as_chunks_mut().0,
        new_heads: new_heads.as_chunks_mut().0,
        whole_heads: whole_heads.as_chunks_mut().0,
        replies: replies.as_chunks_mut().0,
    }
}

fn cut(memory: &mut [u8], at: usize) -> (&mut [u8], &mut [u8]) {
    let at = at.min(memory.len());
    memory.split_at_mut(at)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;

    #[test]
    fn every_place_is_where_its_offset_says_and_places_do_not_overlap() {
        let mut memory = vec![0u8; usize::from(PAGES) * PAGE_SIZE];
        let areas = areas(&mut memory);
        assert_eq!((areas.heads.len(), areas.new_heads.len()), (BATCH, BATCH));
        assert_eq!((areas.wholes.len(), areas.whole_heads.len()), (WHOLES, WHOLES));
        assert_eq!(areas.replies.len(), BATCH);
        areas.heads[3].fill(1);
        areas.wholes[5].fill(2);
        areas.new_heads[63].fill(3);
        areas.whole_heads[0].fill(4);
        areas.replies[7].fill(5);
        let expected = [
            (head_at(3), HEAD_MAX, 1),
            (whole_at(5), WHOLE_MAX, 2),
            (new_head_at(63), HEAD_MAX, 3),
            (whole_head_at(0), HEAD_MAX, 4),
            (reply_at(7), REPLY_MAX, 5),
        ];
        for (at, len, value) in expected {
            let place = &memory[at as usize..][..len];
            assert!(place.iter().all(|b| *b == value), "place of {value}");
        }
        let (known, segments) = segments(&mut memory);
        assert_eq!((known.len(), segments.len()), (SEGMENTS_AT, SEGMENTS_MAX));
        assert_eq!(known[replies_of_7()], [5; REPLY_MAX]);
        segments[127].fill(6);
        memory[body_at(0) as usize..body_at(BODIES) as usize].fill(7);
        assert_eq!(memory[segment_at(127) as usize..][..HEAD_MAX], [6; HEAD_MAX]);
        assert_eq!(memory.iter().filter(|b| **b == 7).count(), BODIES);
        let written: usize = expected.iter().map(|(_, len, _)| len).sum();
        let all = memory.iter().filter(|b| **b != 0).count();
        assert_eq!(all, written + BODIES + HEAD_MAX);
    }

    fn replies_of_7() -> core::ops::Range<usize> {
        let at = reply_at(7) as usize;
        at..at + REPLY_MAX
    }

    #[test]
    fn pieces_of_private_memory_cross_no_page() {
        let all = pieces(body_at(4000), 5000);
        let page = (body_at(0) as usize / PAGE_SIZE) as u16;
        let told: vec::Vec<_> = all.iter().map(|p| (p.at, p.offset, p.len)).collect();
        let expected = [(page, 4000, 96), (page + 1, 0, 4096), (page + 2, 0, 808)];
        assert_eq!(told, expected.map(|(page, at, len)| (CopyEnd::Private(page), at, len)));
        assert_eq!(pieces(body_at(0), 65535).len(), 16);
        assert!(pieces(body_at(1), 0).is_empty());
    }
}
