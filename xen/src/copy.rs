//! One operation of a batch of grant copies, laid out as Xen takes it.
//!
//! In: two ends and a length. Out: a gnttab_copy (grant_table.h), so that a list of them is handed to
//! Xen as it stands, after the pages of private memory got their frames. Never: names a frame that did
//! not come from [`Page::frame`](crate::hypervisor::Page::frame) or from the private memory of the call.

use crate::hypervisor::{DomId, FrameNo, GrantStatus};
use core::fmt;

/// One end of a grant copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyEnd {
    /// A page another domain has granted to us.
    Grant {
        /// Who granted it.
        dom: DomId,
        /// Its reference, from the peer and not trusted: Xen checks it.
        gref: u32,
    },
    /// A page of ours.
    Page(FrameNo),
    /// A page of the private memory given to the call, by its index.
    Private(u16),
}

/// One operation of a batch of grant copies (gnttab_copy, grant_table.h).
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct CopyOp {
    source: Place,
    dest: Place,
    len: u16,
    flags: u16,
    /// Set by the hypervisor, for each operation by itself; an error before that.
    pub status: GrantStatus,
}

/// gnttab_copy_ptr.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Place {
    /// A frame, or in its low half a reference.
    frame_or_gref: u64,
    dom: DomId,
    offset: u16,
    /// Where Xen has padding: the page of private memory, counted from 1, if it is one.
    private: u32,
}

/// GNTCOPY_source_gref.
const SOURCE_GREF: u16 = 1;
/// GNTCOPY_dest_gref.
const DEST_GREF: u16 = 1 << 1;

const _: () = {
    assert!(size_of::<CopyOp>() == 40 && size_of::<Place>() == 16);
    assert!(core::mem::offset_of!(CopyOp, dest) == 16 && core::mem::offset_of!(CopyOp, len) == 32);
    assert!(core::mem::offset_of!(CopyOp, status) == 36);
    assert!(core::mem::offset_of!(Place, dom) == 8 && core::mem::offset_of!(Place, offset) == 10);
};

impl Place {
    const fn new(end: CopyEnd, offset: u16) -> Self {
        match end {
            CopyEnd::Grant { dom, gref } => {
                Self { frame_or_gref: gref as u64, dom, offset, private: 0 }
            }
            CopyEnd::Page(FrameNo(frame)) => {
                Self { frame_or_gref: frame, dom: DomId::SELF, offset, private: 0 }
            }
            CopyEnd::Private(page) => {
                Self { frame_or_gref: u64::MAX, dom: DomId::SELF, offset, private: page as u32 + 1 }
            }
        }
    }

    const fn end(self, is_gref: bool) -> CopyEnd {
        match self.private.checked_sub(1) {
            Some(page) => CopyEnd::Private(page as u16),
            None if is_gref => CopyEnd::Grant { dom: self.dom, gref: self.frame_or_gref as u32 },
            None => CopyEnd::Page(FrameNo(self.frame_or_gref)),
        }
    }
}

impl CopyOp {
    /// `len` bytes from byte `src_offset` of `src` to byte `dst_offset` of `dst`. Neither side may cross
    /// its page.
    #[must_use]
    #[inline]
    pub const fn new(
        src: CopyEnd,
        src_offset: u16,
        dst: CopyEnd,
        dst_offset: u16,
        len: u16,
    ) -> Self {
        let from_gref = if matches!(src, CopyEnd::Grant { .. }) { SOURCE_GREF } else { 0 };
        let to_gref = if matches!(dst, CopyEnd::Grant { .. }) { DEST_GREF } else { 0 };
        Self {
            source: Place::new(src, src_offset),
            dest: Place::new(dst, dst_offset),
            len,
            flags: from_gref | to_gref,
            status: GrantStatus::GENERAL_ERROR,
        }
    }

    /// From where.
    #[must_use]
    pub const fn src(&self) -> CopyEnd {
        self.source.end(self.flags & SOURCE_GREF != 0)
    }

    /// Byte offset in the source page.
    #[must_use]
    pub const fn src_offset(&self) -> u16 {
        self.source.offset
    }

    /// To where.
    #[must_use]
    pub const fn dst(&self) -> CopyEnd {
        self.dest.end(self.flags & DEST_GREF != 0)
    }

    /// Byte offset in the destination page.
    #[must_use]
    pub const fn dst_offset(&self) -> u16 {
        self.dest.offset
    }

    /// Bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a number of bytes, not a collection")]
    pub const fn len(&self) -> u16 {
        self.len
    }

    /// Writes down which frames the ends in private memory are. Those of an earlier call do not count:
    /// each call brings its own private memory.
    #[cfg(feature = "raw")]
    #[inline]
    pub(crate) fn resolve(&mut self, frame_of: impl Fn(u16) -> FrameNo) {
        for place in [&mut self.source, &mut self.dest] {
            if let Some(page) = place.private.checked_sub(1) {
                place.frame_or_gref = frame_of(page as u16).0;
            }
        }
    }
}

impl fmt::Debug for CopyOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOp")
            .field("src", &self.src())
            .field("src_offset", &self.src_offset())
            .field("dst", &self.dst())
            .field("dst_offset", &self.dst_offset())
            .field("len", &self.len)
            .field("status", &self.status)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_names_the_ends_it_was_made_of() {
        let ends = [
            CopyEnd::Grant { dom: DomId(7), gref: u32::MAX },
            CopyEnd::Page(FrameNo(1 << 40)),
            CopyEnd::Private(0),
            CopyEnd::Private(u16::MAX),
        ];
        for src in ends {
            for dst in ends {
                let op = CopyOp::new(src, 1, dst, 2, 3);
                assert_eq!((op.src(), op.src_offset()), (src, 1));
                assert_eq!((op.dst(), op.dst_offset()), (dst, 2));
                assert_eq!((op.len(), op.status.is_okay()), (3, false));
            }
        }
    }
}
