//! Where the parts of the loaded image lie, the policy behind them among them, and what may be done with
//! each page of it (W^X).

use core::ops::Range;
use xen::hypervisor::PAGE_SIZE;
use xen::raw::abi::pte;

unsafe extern "C" {
    static image_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static stack_guard: u8;
    static image_end: u8;
    /// Address and length of the policy, 8 bytes each; in a note, so aligned to 4.
    static policy_place: [u32; 4];
}

/// The addresses of the image, whole pages.
pub(super) fn range() -> Range<usize> {
    let end = (&raw const image_end).addr();
    (&raw const image_start).addr()..(end + policy_len()).next_multiple_of(PAGE_SIZE)
}

/// The bytes that were put behind the image, if there are any. They may be anything.
pub(super) fn policy() -> Option<&'static [u8]> {
    let (at, len) = (&raw const image_end, policy_len());
    // SAFETY: the loader has put as many bytes there as the note says; nobody else is given these
    // pages (`range`).
    (len > 0).then(|| unsafe { core::slice::from_raw_parts(at, len) })
}

fn policy_len() -> usize {
    // SAFETY: the note's two numbers. They were not known when this was compiled, hence volatile.
    let [_, _, low, high] = unsafe { (&raw const policy_place).read_volatile() };
    (u64::from(low) | u64::from(high) << 32) as usize
}

/// The rights of the page at `va`, as page-table bits without a frame; 0 is no page at all. `None` if
/// the image does not decide.
pub(super) fn rights(va: usize) -> Option<u64> {
    let guard = (&raw const stack_guard).addr();
    if va < PAGE_SIZE || (guard..guard + PAGE_SIZE).contains(&va) {
        return Some(0);
    }
    range().contains(&va).then(|| {
        let constant = (&raw const text_end).addr()..(&raw const rodata_end).addr();
        if va < constant.start {
            pte::PRESENT | pte::ACCESSED
        } else if constant.contains(&va) || va >= (&raw const image_end).addr() {
            pte::PRESENT | pte::ACCESSED | pte::NO_EXECUTE
        } else {
            pte::DATA
        }
    })
}

/// Whether `va` is in the guard page below the stack.
pub(super) fn is_stack_guard(va: usize) -> bool {
    let guard = (&raw const stack_guard).addr();
    (guard..guard + PAGE_SIZE).contains(&va)
}
