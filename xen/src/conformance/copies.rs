//! GNTTABOP_copy: what moves, and the status of each operation.

use super::{Mismatch, Outcome, Row, expect, must, row};
use crate::hypervisor::{
    Access, CopyEnd, CopyOp, DomId, FrameNo, GrantRef, GrantStatus, Hypervisor, Memory, PAGE_SIZE,
    Page,
};
use alloc::vec;
use alloc::vec::Vec;

/// A number no domain has here.
pub(super) const NOBODY: DomId = DomId(0x7123);
/// Beyond every grant table.
pub(super) const BAD_REF: u32 = 0x00ff_ffff;
/// A frame no machine here has.
const BAD_FRAME: FrameNo = FrameNo(0x00ff_ffff_ffff);

pub(super) fn rows<H: Hypervisor>() -> Vec<Row<H>> {
    vec![
        row("bytes go from a grant to a page, and nothing beside them changes", grant_to_page),
        row("bytes go from a page to a grant that may be written", page_to_grant),
        row("bytes go from a grant to private memory", grant_to_private),
        row("bytes go from private memory to a grant", private_to_grant),
        row("bytes go from one grant to another", grant_to_grant),
        row("a whole page can be copied", whole_page),
        row("the last byte of a page can be copied", last_byte),
        row("nothing can be copied", length_zero),
        row("a source and a destination in the same page", same_page),
        row("source and destination that overlap are okay", overlapping),
        row("later operations see what earlier ones did", in_order),
        row("a reference beyond the table is bad_gntref", bad_ref),
        row("a reference never granted is general_error", free_ref),
        row("a grant that has ended is general_error", ended_ref),
        row("a grant to another domain is general_error", not_for_us),
        row("writing to a grant that may only be read is general_error", read_only),
        row("a domain that is not there is bad_domain", no_domain),
        row("a page that is not there is bad_page", no_page),
        row("a source across the end of a page is bad_copy_arg", source_crosses),
        row("a destination across the end of a page is bad_copy_arg", destination_crosses),
        row("an operation that fails has no effect and does not stop the next", independent),
    ]
}

/// Two pages of ours, the first lent to ourselves, and private memory, with known contents.
struct Bench<H: Hypervisor> {
    own: DomId,
    a: H::Page,
    b: H::Page,
    gref: GrantRef,
    private: H::Private,
}

const A: u8 = 0xa1;
const B: u8 = 0xb2;
const P: u8 = 0xc3;

impl<H: Hypervisor> Bench<H> {
    fn new(h: &mut H, own: DomId, access: Access) -> Result<Self, Mismatch> {
        let a = must("page", h.page())?;
        let b = must("page", h.page())?;
        let mut private = must("private", h.private(1))?;
        a.write(0, &[A; PAGE_SIZE]);
        b.write(0, &[B; PAGE_SIZE]);
        private.as_mut().fill(P);
        let gref = must("grant", h.grant(own, &a, access))?;
        Ok(Self { own, a, b, gref, private })
    }

    fn grant(&self) -> CopyEnd {
        CopyEnd::Grant { dom: self.own, gref: self.gref.number() }
    }

    fn page(&self) -> CopyEnd {
        CopyEnd::Page(self.b.frame())
    }

    fn copy(&mut self, h: &mut H, ops: &mut [CopyOp]) -> Outcome {
        must("copy", h.copy(&mut self.private, ops))
    }

    /// Does one operation and compares its status.
    fn status(&mut self, h: &mut H, op: CopyOp, expected: GrantStatus) -> Outcome {
        let mut ops = [op];
        self.copy(h, &mut ops)?;
        let [op] = ops;
        expect("status", op.status, expected)
    }

    fn done(self, h: &mut H) -> Outcome {
        must("end", h.end(self.gref))?;
        h.free(self.a);
        h.free(self.b);
        Ok(())
    }
}

fn op(src: CopyEnd, src_offset: u16, dst: CopyEnd, dst_offset: u16, len: u16) -> CopyOp {
    // A status Xen never gives: it must be written.
    let mut op = CopyOp::new(src, src_offset, dst, dst_offset, len);
    op.status = GrantStatus(77);
    op
}

fn bytes(page: &impl Memory) -> Vec<u8> {
    let mut bytes = vec![0; PAGE_SIZE];
    page.read(0, &mut bytes);
    bytes
}

/// A page of `ground` with `len` bytes of `patch` at `at`.
fn patched(ground: u8, at: usize, len: usize, patch: u8) -> Vec<u8> {
    (0..PAGE_SIZE).map(|i| if (at..at + len).contains(&i) { patch } else { ground }).collect()
}

fn grant_to_page<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadOnly)?;
    let op = op(t.grant(), 10, t.page(), 333, 100);
    t.status(h, op, GrantStatus::OKAY)?;
    expect("destination", bytes(&t.b) == patched(B, 333, 100, A), true)?;
    expect("source", bytes(&t.a) == patched(A, 0, 0, A), true)?;
    t.done(h)
}

fn page_to_grant<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadWrite)?;
    let op = op(t.page(), 0, t.grant(), 7, 1);
    t.status(h, op, GrantStatus::OKAY)?;
    expect("destination", bytes(&t.a) == patched(A, 7, 1, B), true)?;
    t.done(h)
}

fn grant_to_private<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadOnly)?;
    let op = op(t.grant(), 0, CopyEnd::Private(0), 64, 256);
    t.status(h, op, GrantStatus::OKAY)?;
    expect("destination", t.private.as_ref() == patched(P, 64, 256, A), true)?;
    t.done(h)
}

fn private_to_grant<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadWrite)?;
    let op = op(CopyEnd::Private(0), 4000, t.grant(), 0, 96);
    t.status(h, op, GrantStatus::OKAY)?;
    expect("destination", bytes(&t.a) == patched(A, 0, 96, P), true)?;
    t.done(h)
}

fn grant_to_grant<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadOnly)?;
    let to = must("grant", h.grant(own, &t.b, Access::ReadWrite))?;
    let op = op(t.grant(), 0, CopyEnd::Grant { dom: own, gref: to.number() }, 5, 60);
    t.status(h, op, GrantStatus::OKAY)?;
    expect("destination", bytes(&t.b) == patched(B, 5, 60, A), true)?;
    must("end", h.end(to))?;
    t.done(h)
}

fn whole_page<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadOnly)?;
    let op = op(t.grant(), 0, t.page(), 0, 4096);
    t.status(h, op, GrantStatus::OKAY)?;
    expect("destination", bytes(&t.b) == patched(A, 0, 0, A), true)?;
    t.done(h)
}

fn last_byte<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadOnly)?;
    let op = op(t.grant(), 4095, t.page(), 4095, 1);
    t.status(h, op, GrantStatus::OKAY)?;
    expect("destination", bytes(&t.b) == patched(B, 4095, 1, A), true)?;
    t.done(h)
}

fn length_zero<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadOnly)?;
    let op = op(t.grant(), 0, t.page(), 0, 0);
    t.status(h, op, GrantStatus::OKAY)?;
    expect("destination", bytes(&t.b) == patched(B, 0, 0, B), true)?;
    t.done(h)
}

fn same_page<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadWrite)?;
    t.a.write(100, &[1; 10]);
    let op = op(t.grant(), 100, t.grant(), 200, 10);
    t.status(h, op, GrantStatus::OKAY)?;
    let mut found = [0; 10];
    t.a.read(200, &mut found);
    expect("destination", found, [1; 10])?;
    t.done(h)
}

fn overlapping<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadWrite)?;
    let op = op(t.grant(), 0, t.grant(), 1, 100);
    t.status(h, op, GrantStatus::OKAY)?;
    t.done(h)
}

fn in_order<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadOnly)?;
    let mut ops = [op(t.grant(), 0, t.page(), 0, 8), op(t.page(), 0, CopyEnd::Private(0), 0, 16)];
    t.copy(h, &mut ops)?;
    expect("statuses", ops.map(|op| op.status), [GrantStatus::OKAY; 2])?;
    let expected: Vec<u8> = [[A; 8], [B; 8]].concat();
    expect("destination", t.private.as_ref().get(..16), Some(&expected[..]))?;
    t.done(h)
}

fn bad_ref<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadOnly)?;
    let op = op(CopyEnd::Grant { dom: own, gref: BAD_REF }, 0, t.page(), 0, 1);
    t.status(h, op, GrantStatus::BAD_GNTREF)?;
    t.done(h)
}

fn free_ref<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadOnly)?;
    // The domain builder uses the first of the eight reserved ones at most.
    let op = op(CopyEnd::Grant { dom: own, gref: 7 }, 0, t.page(), 0, 1);
    t.status(h, op, GrantStatus::GENERAL_ERROR)?;
    t.done(h)
}

fn ended_ref<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadOnly)?;
    let ended = must("grant", h.grant(own, &t.a, Access::ReadOnly))?;
    let gref = ended.number();
    must("end", h.end(ended))?;
    let op = op(CopyEnd::Grant { dom: own, gref }, 0, t.page(), 0, 1);
    t.status(h, op, GrantStatus::GENERAL_ERROR)?;
    t.done(h)
}

fn not_for_us<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadOnly)?;
    let other = must("grant", h.grant(NOBODY, &t.a, Access::ReadOnly))?;
    let op = op(CopyEnd::Grant { dom: own, gref: other.number() }, 0, t.page(), 0, 1);
    t.status(h, op, GrantStatus::GENERAL_ERROR)?;
    must("end", h.end(other))?;
    t.done(h)
}

fn read_only<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadOnly)?;
    let op = op(t.page(), 0, t.grant(), 0, 1);
    t.status(h, op, GrantStatus::GENERAL_ERROR)?;
    expect("destination", bytes(&t.a) == patched(A, 0, 0, A), true)?;
    t.done(h)
}

fn no_domain<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadOnly)?;
    let src = CopyEnd::Grant { dom: NOBODY, gref: t.gref.number() };
    let op = op(src, 0, t.page(), 0, 1);
    t.status(h, op, GrantStatus::BAD_DOMAIN)?;
    t.done(h)
}

fn no_page<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadOnly)?;
    let op = op(t.grant(), 0, CopyEnd::Page(BAD_FRAME), 0, 1);
    t.status(h, op, GrantStatus::BAD_PAGE)?;
    t.done(h)
}

fn source_crosses<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadOnly)?;
    let op = op(t.grant(), 4090, t.page(), 0, 7);
    t.status(h, op, GrantStatus::BAD_COPY_ARG)?;
    expect("destination", bytes(&t.b) == patched(B, 0, 0, B), true)?;
    t.done(h)
}

fn destination_crosses<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadOnly)?;
    let op = op(t.grant(), 0, t.page(), 4000, 97);
    t.status(h, op, GrantStatus::BAD_COPY_ARG)?;
    expect("destination", bytes(&t.b) == patched(B, 0, 0, B), true)?;
    t.done(h)
}

fn independent<H: Hypervisor>(h: &mut H, own: DomId) -> Outcome {
    let mut t = Bench::new(h, own, Access::ReadOnly)?;
    let mut ops = [
        op(CopyEnd::Grant { dom: own, gref: BAD_REF }, 0, t.page(), 0, 50),
        op(t.grant(), 0, t.page(), 100, 50),
        op(t.page(), 0, t.grant(), 0, 50),
        op(t.grant(), 0, t.page(), 200, 50),
    ];
    t.copy(h, &mut ops)?;
    let expected =
        [GrantStatus::BAD_GNTREF, GrantStatus::OKAY, GrantStatus::GENERAL_ERROR, GrantStatus::OKAY];
    expect("statuses", ops.map(|op| op.status), expected)?;
    let both: Vec<u8> =
        (0..PAGE_SIZE).map(|i| if matches!(i, 100..150 | 200..250) { A } else { B }).collect();
    expect("destination", bytes(&t.b) == both, true)?;
    t.done(h)
}
