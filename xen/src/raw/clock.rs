//! Xen's clocks, read from the shared info page.
//!
//! In: the page. Out: system time and wall time. Never: a hypercall.

use super::abi::{shared_info, vcpu_time_info};
use core::arch::x86_64::{_mm_lfence, _rdtsc};
use core::ptr::{NonNull, read_volatile};
use core::sync::atomic::{Ordering, fence};
use core::time::Duration;

/// Nanoseconds since Xen started, now.
///
/// # Safety
/// `info` is the mapped shared info page.
pub(super) unsafe fn system_time(info: NonNull<shared_info>) -> u64 {
    // SAFETY: the first vCPU's time is inside that page.
    let time = unsafe { &raw const (*info.as_ptr()).vcpu_info[0].time };
    // SAFETY: as above.
    let (version, now) = unsafe { (&raw const (*time).version, || read_volatile(time)) };
    // SAFETY: as above; the processor has a time stamp counter.
    unsafe {
        consistent(version, || {
            let sample = now();
            _mm_lfence();
            scale(&sample, _rdtsc())
        })
    }
}

/// Time since 1970, if Xen knows it.
///
/// # Safety
/// `info` is the mapped shared info page.
pub(super) unsafe fn wall_clock(info: NonNull<shared_info>) -> Option<Duration> {
    let info = info.as_ptr();
    // SAFETY: the fields are inside that page.
    let boot = unsafe {
        consistent(&raw const (*info).wc_version, || {
            let low = read_volatile(&raw const (*info).wc_sec);
            let high = read_volatile(&raw const (*info).wc_sec_hi);
            let nanos = read_volatile(&raw const (*info).wc_nsec);
            Duration::new(u64::from(high) << 32 | u64::from(low), nanos)
        })
    };
    // SAFETY: the caller's promise.
    let up = unsafe { system_time(NonNull::new(info)?) };
    (!boot.is_zero()).then(|| boot + Duration::from_nanos(up))
}

/// Calls `read` until no change by Xen fell into it: the version is odd during a change, and
/// different after it (xen.h).
///
/// # Safety
/// `version` can be read.
unsafe fn consistent<T>(version: *const u32, read: impl Fn() -> T) -> T {
    loop {
        // SAFETY: the caller's promise.
        let before = unsafe { read_volatile(version) };
        fence(Ordering::Acquire);
        let value = read();
        fence(Ordering::Acquire);
        // SAFETY: the caller's promise.
        if before & 1 == 0 && before == unsafe { read_volatile(version) } {
            return value;
        }
    }
}

/// System time at `tsc` (vcpu_time_info, xen.h).
fn scale(sample: &vcpu_time_info, tsc: u64) -> u64 {
    let ticks = tsc.wrapping_sub(sample.tsc_timestamp);
    let shift = u32::from(sample.tsc_shift.unsigned_abs());
    let ticks = if sample.tsc_shift < 0 { ticks >> shift } else { ticks << shift };
    let nanos = (u128::from(ticks) * u128::from(sample.tsc_to_system_mul)) >> 32;
    sample.system_time.wrapping_add(nanos as u64)
}
