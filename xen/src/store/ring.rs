//! The two byte rings on XenStore's page (xen/io/xs_wire.h, struct xenstore_domain_interface).
//!
//! In and out: bytes. The indices are free-running, need not start at 0, and are not trusted: a
//! distance above the ring's size is an error.

use crate::hypervisor::Memory;

/// Bytes in each direction.
pub(crate) const RING: u32 = 1024;

/// One direction: where its bytes and its indices are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    data: usize,
    cons: usize,
    prod: usize,
}

/// From us to XenStore.
pub(crate) const REQUESTS: Ring = Ring { data: 0, cons: 2048, prod: 2052 };
/// From XenStore to us.
pub(crate) const REPLIES: Ring = Ring { data: 1024, cons: 2056, prod: 2060 };

/// Producer and consumer stand further apart than the ring is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadIndex;

impl Ring {
    fn used(&self, page: &impl Memory) -> Result<(u32, u32, u32), BadIndex> {
        let (cons, prod) = (page.load(self.cons), page.load(self.prod));
        let used = prod.wrapping_sub(cons);
        if used <= RING { Ok((cons, prod, used)) } else { Err(BadIndex) }
    }

    /// Puts as many of `bytes` as fit and returns how many.
    pub(crate) fn put(&self, page: &impl Memory, bytes: &[u8]) -> Result<usize, BadIndex> {
        let (_, prod, used) = self.used(page)?;
        let room = RING.saturating_sub(used) as usize;
        let bytes = bytes.get(..room).unwrap_or(bytes);
        let (at, till_end) = position(prod);
        let (first, second) = bytes.split_at_checked(till_end).unwrap_or((bytes, &[]));
        page.write(self.data.saturating_add(at), first);
        page.write(self.data, second);
        if !bytes.is_empty() {
            page.store(self.prod, prod.wrapping_add(count(bytes)));
        }
        Ok(bytes.len())
    }

    /// Takes as many bytes as there are and fit, and returns how many.
    pub(crate) fn take(&self, page: &impl Memory, into: &mut [u8]) -> Result<usize, BadIndex> {
        let (cons, _, used) = self.used(page)?;
        let len = into.len().min(used as usize);
        let into = into.get_mut(..len).unwrap_or_default();
        let (at, till_end) = position(cons);
        let (first, second) = into.split_at_mut(till_end.min(len));
        page.read(self.data.saturating_add(at), first);
        page.read(self.data, second);
        if len != 0 {
            page.barrier();
            page.store(self.cons, cons.wrapping_add(count(into)));
        }
        Ok(len)
    }
}

/// Where in the ring an index stands, and how many bytes there are from there to its end.
fn position(index: u32) -> (usize, usize) {
    let at = index % RING;
    (at as usize, RING.saturating_sub(at) as usize)
}

fn count(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(RING)
}
