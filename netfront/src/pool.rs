//! Pages between two uses: free ones, and in quarantine those a backend still has mapped.
//!
//! In: pages of a link that was taken down, with the grants that may still be in force. Out: pages
//! that hold nothing another backend wrote or was meant to read. Never: gives out, frees or writes a
//! page while a grant of it is in force.

use alloc::vec::Vec;
use xen::hypervisor::{DomId, GrantRef, Hypervisor, Memory, NoMemory};

/// Grants tried again in one go.
const RETRIES: usize = 64;

/// Pages between two uses.
pub(crate) struct Pool<H: Hypervisor> {
    free: Vec<H::Page>,
    held: Vec<(GrantRef, H::Page)>,
    /// Whose bytes may stand in the free pages.
    peer: Option<DomId>,
    /// Pages that are in use.
    out: usize,
    /// Pages kept, those in use included; what is above goes back to the hypervisor.
    most: usize,
}

impl<H: Hypervisor> Pool<H> {
    /// An empty pool that keeps at most `most` pages, those in use included.
    pub(crate) fn new(most: usize) -> Self {
        Self { free: Vec::new(), held: Vec::new(), peer: None, out: 0, most }
    }

    /// Pages are for `peer` from now on: whatever another backend left in them is wiped.
    pub(crate) fn serve(&mut self, peer: DomId) {
        if self.peer.replace(peer).is_some_and(|old| old != peer) {
            for page in &self.free {
                page.zero();
            }
        }
    }

    /// A page that is not lent.
    ///
    /// # Errors
    /// [`NoMemory`] if there is none.
    pub(crate) fn take(&mut self, h: &mut H) -> Result<H::Page, NoMemory> {
        let page = self.free.pop().map_or_else(|| h.page(), Ok)?;
        self.out = self.out.saturating_add(1);
        Ok(page)
    }

    /// Takes a page back, with its grant if it is lent.
    pub(crate) fn give(&mut self, h: &mut H, page: H::Page, grant: Option<GrantRef>) {
        self.out = self.out.saturating_sub(1);
        match grant.map_or(Ok(()), |gref| h.end(gref)) {
            Ok(()) => self.keep(h, page),
            Err((gref, _)) => self.held.push((gref, page)),
        }
    }

    /// Tries some of the pages in quarantine again.
    pub(crate) fn retry(&mut self, h: &mut H) {
        let some = self.held.len().min(RETRIES);
        // From the front, and what is still in use goes to the back: all have their turn.
        let again: Vec<_> = self.held.drain(..some).collect();
        for (gref, page) in again {
            match h.end(gref) {
                Ok(()) => {
                    // It may be of an earlier backend than the other pages.
                    page.zero();
                    self.keep(h, page);
                }
                Err((gref, _)) => self.held.push((gref, page)),
            }
        }
    }

    /// Pages a backend still has mapped.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    fn keep(&mut self, h: &mut H, page: H::Page) {
        if self.free.len().saturating_add(self.out) < self.most {
            self.free.push(page);
        } else {
            h.free(page);
        }
    }
}
