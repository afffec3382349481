//! Where the parts of the loaded image lie, and what may be done with each page of it (W^X).

use core::ops::Range;
use xen::hypervisor::PAGE_SIZE;
use xen::raw::abi::pte;

unsafe extern "C" {
    static image_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static stack_guard: u8;
    static image_end: u8;
}

/// The addresses of the image, whole pages.
pub(super) fn range() -> Range<usize> {
    (&raw const image_start).addr()..(&raw const image_end).addr()
}

/// The rights of the page at `va`, as page-table bits without a frame; 0 is no page at all. `None` if
/// the image does not decide.
pub(super) fn rights(va: usize) -> Option<u64> {
    let guard = (&raw const stack_guard).addr();
    if va < PAGE_SIZE || (guard..guard + PAGE_SIZE).contains(&va) {
        return Some(0);
    }
    range().contains(&va).then(|| {
        if va < (&raw const text_end).addr() {
            pte::PRESENT | pte::ACCESSED
        } else if va < (&raw const rodata_end).addr() {
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
