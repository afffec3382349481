//! Memory nobody uses yet, and the heap.
//!
//! In: the ranges PV or PVH boot found free. Out: pages from the upper end of the largest, for good; heap
//! from the lower end of the first, piece by piece as it is needed. So neither has a size of its own to
//! run out of early, but the last pieces are for the heap alone.

use arrayvec::ArrayVec;
use core::alloc::Layout;
use core::cell::RefCell;
use core::ops::Range;
use core::ptr::{NonNull, with_exposed_provenance_mut};
use talc::base::{Talc, binning::Binning};
use talc::cell::TalcSyncCell;
use talc::{DefaultBinning, TalcCell, source::Source};
use xen::hypervisor::PAGE_SIZE;

/// What pages leave to the heap: it must not be found empty by who cannot be refused.
const RESERVE: usize = 512 << 10;

/// What the heap takes at once, if there is so much: few pieces, little lost between them.
const PIECE: usize = 256 << 10;

#[global_allocator]
// SAFETY: one vCPU, no interrupts, and exceptions do not return: nothing runs at the same time.
static HEAP: TalcSyncCell<Free, DefaultBinning> =
    unsafe { TalcSyncCell::new(TalcCell::new(Free { end: None })) };

static RAM: OneCpu<RefCell<ArrayVec<Range<usize>, 32>>> =
    OneCpu(RefCell::new(ArrayVec::new_const()));

/// A value that only one thread of control exists to touch.
struct OneCpu<T>(T);

// SAFETY: one vCPU, no interrupts, and exceptions do not return.
unsafe impl<T> Sync for OneCpu<T> {}

/// Gives a range of whole pages to be used.
///
/// # Safety
/// The range is mapped for reading and writing, and used by nobody else from now on.
pub(super) unsafe fn add(range: Range<usize>) {
    if !range.is_empty() {
        // A range too many is lost, not a reason to stop.
        let _full = RAM.0.borrow_mut().try_push(range);
    }
}

/// Bytes not taken by anybody.
pub(crate) fn left() -> usize {
    RAM.0.borrow().iter().map(Range::len).sum()
}

/// Takes `pages` contiguous pages from the upper end of the largest range. Their contents are whatever was there.
pub(super) fn take_pages(pages: usize) -> Option<NonNull<u8>> {
    let bytes = pages.checked_mul(PAGE_SIZE)?;
    if left() < bytes.checked_add(RESERVE)? {
        return None;
    }
    let mut ram = RAM.0.borrow_mut();
    // The largest is where Xen, too, has large pages, in a PVH guest.
    let range = ram.iter_mut().max_by_key(|r| r.len()).filter(|r| r.len() >= bytes)?;
    range.end -= bytes;
    NonNull::new(with_exposed_provenance_mut(range.end))
}

/// Takes `bytes`, whole pages, from the lower end.
pub(super) fn take_low(bytes: usize) -> Option<Range<usize>> {
    let mut ram = RAM.0.borrow_mut();
    let range = ram.iter_mut().find(|r| r.len() >= bytes)?;
    let start = range.start;
    range.start += bytes;
    Some(start..range.start)
}

/// Where the heap gets its memory from.
#[derive(Debug)]
struct Free {
    /// The end of the piece taken last.
    end: Option<NonNull<u8>>,
}

// SAFETY: the heap's own addresses.
unsafe impl Send for Free {}

// SAFETY: `acquire` allocates nothing.
unsafe impl Source for Free {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // Room for the allocator's own words around a block, and in the first piece for its bins.
        let need = layout.size().checked_add(layout.align() + 2 * PAGE_SIZE).ok_or(())?;
        let need = need.checked_next_multiple_of(PAGE_SIZE).ok_or(())?;
        let piece = take_low(need.max(PIECE)).or_else(|| take_low(need)).ok_or(())?;
        let start = with_exposed_provenance_mut::<u8>(piece.start);
        let end = with_exposed_provenance_mut::<u8>(piece.end);
        talc.source.end = match talc.source.end {
            // SAFETY: the piece is fresh memory right behind the heap's last one.
            Some(last) if last.as_ptr() == start => Some(unsafe { talc.extend(last, end) }),
            // SAFETY: the piece is fresh memory.
            _ => Some(unsafe { talc.claim(start, piece.len()) }.ok_or(())?),
        };
        Ok(())
    }
}
