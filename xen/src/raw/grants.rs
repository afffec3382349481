//! The grant table, version 1: which pages of ours which domain may use.
//!
//! In: frames to lend. Out: references. Never: a hypercall after [`Table::new`], or an entry that Xen
//! has marked as in use.

use super::abi::{GrantEntry, gtf};
use crate::hypervisor::{Access, DomId, FrameNo, GrantRef, NoRef, StillMapped};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, Ordering};

/// The first references belong to the toolstack: console and XenStore rings (grant_table.h).
const RESERVED: u32 = 8;
/// End of the free list; a reserved entry, thus never free.
const NONE: u32 = 0;

/// The mapped table. Free entries form a list through their frame field, which Xen does not read as
/// long as the flags are 0.
#[derive(Debug)]
pub(super) struct Table {
    entries: NonNull<GrantEntry>,
    len: u32,
    /// Entries from here on were never used.
    fresh: u32,
    free: u32,
}

impl Table {
    /// # Safety
    /// `len` entries of the domain's grant table are mapped at `entries`, for this value alone.
    pub(super) const unsafe fn new(entries: NonNull<GrantEntry>, len: u32) -> Self {
        Self { entries, len, fresh: RESERVED, free: NONE }
    }

    /// Lends `frame` to `to`.
    pub(super) fn grant(
        &mut self,
        to: DomId,
        frame: FrameNo,
        access: Access,
    ) -> Result<GrantRef, NoRef> {
        let frame = u32::try_from(frame.0).map_err(|_| NoRef)?;
        let number = self.take()?;
        let readonly = if access == Access::ReadOnly { gtf::READONLY } else { 0 };
        let entry = self.entry(number);
        // SAFETY: inside the table, and not in force: Xen reads it only when the flags say so.
        unsafe {
            (&raw mut (*entry).domid).write_volatile(to.0);
            (&raw mut (*entry).frame).write_volatile(frame);
        }
        self.flags(number).store(gtf::PERMIT_ACCESS | readonly, Ordering::Release);
        Ok(GrantRef::in_force(number))
    }

    /// Ends the grant, unless the peer uses the page just now.
    pub(super) fn end(&mut self, gref: GrantRef) -> Result<(), (GrantRef, StillMapped)> {
        let number = gref.number();
        let unused = |flags| (flags & (gtf::READING | gtf::WRITING) == 0).then_some(0);
        if self.flags(number).fetch_update(Ordering::SeqCst, Ordering::Relaxed, unused).is_err() {
            return Err((gref, StillMapped));
        }
        // SAFETY: inside the table, and out of force since the exchange above.
        unsafe { (&raw mut (*self.entry(number)).frame).write_volatile(self.free) };
        self.free = number;
        Ok(())
    }

    fn take(&mut self) -> Result<u32, NoRef> {
        if self.free != NONE {
            let number = self.free;
            // SAFETY: inside the table; a free entry holds the next one's number.
            self.free = unsafe { (&raw const (*self.entry(number)).frame).read_volatile() };
            return Ok(number);
        }
        let number = self.fresh;
        if number >= self.len {
            return Err(NoRef);
        }
        self.fresh += 1;
        Ok(number)
    }

    fn entry(&self, number: u32) -> *mut GrantEntry {
        assert!(number < self.len, "grant reference {number} was never given out");
        // SAFETY: inside the table.
        unsafe { self.entries.as_ptr().add(number as usize) }
    }

    fn flags(&self, number: u32) -> &AtomicU16 {
        // SAFETY: aligned, inside the table; Xen changes it atomically as well.
        unsafe { AtomicU16::from_ptr(&raw mut (*self.entry(number)).flags) }
    }
}
