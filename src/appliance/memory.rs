//! The private memory of the packet path: what stands where.
//!
//! In: nothing but its own constants. Out: the areas as slices, and the byte offset of each place.
//! Never: lent to another domain. Payload is looked at here and nowhere else.

use arrayvec::ArrayVec;
use wire::{BATCH, HEAD_MAX, REPLY_MAX, SEGMENTS_MAX, WHOLE_MAX};
use xen::hypervisor::{CopyEnd, PAGE_SIZE};
use xen::io::{Incoming, Piece, SLOTS_MAX};

/// Bytes of a frame that is brought whole before its verdict. It leaves with one copy, while one that
/// stays in its sender's pages takes another for its new head; and a grant copy takes Xen longer than it
/// takes us to move a page.
pub(super) const FRAME: usize = PAGE_SIZE;

/// Bytes of headers that a TCP segment has at least.
const HEADERS_MIN: usize = 54;

/// Bytes of frames that are brought at a time to be summed, enough for the longest frame.
pub(super) const BODIES: usize = 1 << 16;

const FRAMES_AT: usize = 0;
const NEW_HEADS_AT: usize = FRAMES_AT + BATCH * PAGE_SIZE;
const REPLIES_AT: usize = NEW_HEADS_AT + BATCH * HEAD_MAX;
const BODIES_AT: usize = REPLIES_AT + BATCH * REPLY_MAX;
const SEGMENTS_AT: usize = BODIES_AT + BODIES;
const END: usize = SEGMENTS_AT + SEGMENTS_MAX * HEAD_MAX;

/// Pages of private memory the packet path needs.
pub(super) const PAGES: u16 = (END / PAGE_SIZE) as u16;

// No place crosses a page: a grant copy may not.
const _: () = {
    assert!(END.is_multiple_of(PAGE_SIZE) && END / PAGE_SIZE <= u16::MAX as usize);
    assert!(PAGE_SIZE.is_multiple_of(HEAD_MAX) && PAGE_SIZE.is_multiple_of(REPLY_MAX));
    assert!(FRAME <= PAGE_SIZE && HEAD_MAX <= FRAME && WHOLE_MAX <= FRAME);
    assert!(BODIES_AT.is_multiple_of(PAGE_SIZE) && SEGMENTS_AT.is_multiple_of(HEAD_MAX));
    assert!(NEW_HEADS_AT.is_multiple_of(HEAD_MAX) && REPLIES_AT.is_multiple_of(REPLY_MAX));
};

/// How much of a frame is brought before its verdict, and how much there may be: all of a short one. Of a
/// longer one the first slot, if that may have the headers and little else, as Linux sends them: one copy.
pub(super) fn head(frame: &Incoming, pieces: &[Piece]) -> (usize, usize) {
    let len = frame.len as usize;
    if len <= FRAME {
        return (len, len);
    }
    let first = frame.of(pieces).first().map_or(0, |piece| usize::from(piece.len));
    (if first < HEADERS_MIN { HEAD_MAX } else { first.min(HEAD_MAX) }, HEAD_MAX)
}

/// Gives out the places where frames are read, or their heads: one behind the other, so that consecutive
/// copies go to the same page as often as can be, which Xen then looks up once.
pub(super) struct Places(usize);

impl Places {
    /// All of them free.
    pub(super) const fn new() -> Self {
        Self(FRAMES_AT)
    }

    /// The byte offset of a place for `len` bytes, at most [`FRAME`], inside a page. There is one for each
    /// frame of a batch: none takes more than a page.
    pub(super) fn take(&mut self, len: usize) -> u32 {
        let left = PAGE_SIZE - self.0 % PAGE_SIZE;
        let at = if len <= left { self.0 } else { self.0 + left };
        self.0 = (at + len).next_multiple_of(CACHE_LINE);
        at as u32
    }
}

const CACHE_LINE: usize = 64;

/// Byte offset of the new head of the `n`-th frame.
pub(super) const fn new_head_at(n: usize) -> u32 {
    (NEW_HEADS_AT + n * HEAD_MAX) as u32
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

/// The areas of private memory that the firewall reads and writes: frames, each where [`Places`] said, and
/// arrays of places for what it writes.
pub(super) struct Areas<'m> {
    pub(super) frames: &'m mut [u8],
    pub(super) new_heads: &'m mut [[u8; HEAD_MAX]],
    pub(super) replies: &'m mut [[u8; REPLY_MAX]],
}

/// Cuts private memory into its areas; each is empty if the memory is too short for it.
pub(super) fn areas(private: &mut [u8]) -> Areas<'_> {
    let (frames, rest) = cut(private, NEW_HEADS_AT - FRAMES_AT);
    let (new_heads, rest) = cut(rest, REPLIES_AT - NEW_HEADS_AT);
    let (replies, _) = cut(rest, BODIES_AT - REPLIES_AT);
    Areas { frames, new_heads: new_heads.as_chunks_mut().0, replies: replies.as_chunks_mut().0 }
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
        assert_eq!((areas.frames.len(), areas.new_heads.len()), (BATCH * PAGE_SIZE, BATCH));
        assert_eq!(areas.replies.len(), BATCH);
        areas.frames[3 * PAGE_SIZE..][..FRAME].fill(1);
        areas.new_heads[63].fill(3);
        areas.replies[7].fill(5);
        let expected = [
            (3 * PAGE_SIZE as u32, FRAME, 1),
            (new_head_at(63), HEAD_MAX, 3),
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

    #[test]
    fn places_of_a_batch_cross_no_page_do_not_overlap_and_are_as_close_as_can_be() {
        for lens in [[FRAME; 3], [1; 3], [64, 4032, 1], [66, 1514, 2962], [2049, 2048, 2047]] {
            let mut places = Places::new();
            let all: vec::Vec<_> = lens.into_iter().cycle().take(BATCH).collect();
            let mut free = 0;
            for len in all {
                let at = places.take(len) as usize;
                assert!(at >= free && at - free < PAGE_SIZE, "{lens:?}: {at} after {free}");
                assert_eq!(at / PAGE_SIZE, (at + len - 1) / PAGE_SIZE, "{lens:?}");
                free = at + len;
            }
            assert!(free <= NEW_HEADS_AT, "{lens:?}");
        }
        let mut places = Places::new();
        assert_eq!([66, 64, 1, 3900, 1].map(|len| places.take(len)), [0, 128, 192, 4096, 8000]);
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
