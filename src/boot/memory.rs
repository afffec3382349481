//! The memory functions under the names by which the compiler calls them.
//!
//! In: what CPUID says. Out: memcpy, memmove, memset, memcmp and bcmp. The functions themselves are in
//! `mem.s`, under names of their own, so that tests and measurements can have them beside libc's.

use core::arch::global_asm;
use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::{AtomicU64, Ordering};

global_asm!(include_str!("mem.s"));
global_asm!(
    ".global memcpy, memmove, memset, memcmp, bcmp",
    ".set memcpy, tidegate_memmove",
    ".set memmove, tidegate_memmove",
    ".set memset, tidegate_memset",
    ".set memcmp, tidegate_memcmp",
    ".set bcmp, tidegate_memcmp",
);

unsafe extern "C" {
    static tidegate_rep_from: AtomicU64;
    static tidegate_rep_where_fast: u64;
}

/// Lets long copies use `rep` on processors with Enhanced REP MOVSB (CPUID leaf 7, EBX bit 9).
pub(super) fn use_rep_where_fast() {
    if __cpuid_count(7, 0).ebx >> 9 & 1 == 1 {
        // SAFETY: words in the data sections; one is only ever used as an atomic, the other never written.
        let (from, fast) = unsafe { (&tidegate_rep_from, tidegate_rep_where_fast) };
        from.store(fast, Ordering::Relaxed);
    }
}
