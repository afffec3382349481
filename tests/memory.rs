//! The kernel's memory functions, run on the host under their own names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::arch::global_asm;
use std::sync::atomic::{AtomicU64, Ordering};

global_asm!(include_str!("../src/boot/mem.s"));

unsafe extern "C" {
    static tidegate_rep_from: AtomicU64;
    fn tidegate_memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8;
    fn tidegate_memset(to: *mut u8, byte: i32, len: usize) -> *mut u8;
    fn tidegate_memcmp(one: *const u8, other: *const u8, len: usize) -> i32;
}

/// Never, from the first byte that counts, and where the kernel begins.
const REP_FROM: [u64; 3] = [u64::MAX, 32, 512];
/// All short ones, and some long ones on both sides of the limits.
fn lengths() -> impl Iterator<Item = usize> {
    (0..300).chain([511, 512, 1023, 1024, 1025, 2048, 4095, 4096])
}

fn numbered(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 256) as u8).collect()
}

#[test]
fn moves_are_right_at_every_length_and_distance_also_onto_themselves() {
    for rep in REP_FROM {
        // SAFETY: a word of the data section.
        unsafe { &tidegate_rep_from }.store(rep, Ordering::Relaxed);
        for len in lengths() {
            for (from, to) in
                [(64, 8192), (64, 64), (64, 65), (65, 64), (64, 80), (96, 67), (67, 96)]
            {
                let mut ours = numbered(16384);
                let mut expected = ours.clone();
                expected.copy_within(from..from + len, to);
                let at = ours.as_mut_ptr();
                // SAFETY: both ranges are inside `ours`.
                let back = unsafe { tidegate_memmove(at.add(to), at.add(from), len) };
                assert_eq!(back, at.wrapping_add(to));
                assert!(ours == expected, "{len} bytes from {from} to {to}, rep from {rep}");
            }
        }
    }
}

#[test]
fn fills_are_right_at_every_length_and_touch_nothing_else() {
    for rep in REP_FROM {
        // SAFETY: a word of the data section.
        unsafe { &tidegate_rep_from }.store(rep, Ordering::Relaxed);
        for len in lengths() {
            let mut ours = numbered(8192);
            let mut expected = ours.clone();
            expected[33..33 + len].fill(0xa5);
            let at = ours.as_mut_ptr();
            // SAFETY: inside `ours`. Only the lowest byte of the value counts.
            let back = unsafe { tidegate_memset(at.add(33), 0x1a5, len) };
            assert_eq!(back, at.wrapping_add(33));
            assert!(ours == expected, "{len} bytes, rep from {rep}");
        }
    }
}

#[test]
fn the_first_byte_that_differs_decides() {
    for len in 1..200 {
        let one = numbered(len);
        // SAFETY: `len` bytes on both sides.
        let compare = |a: &[u8], b: &[u8]| unsafe { tidegate_memcmp(a.as_ptr(), b.as_ptr(), len) };
        assert_eq!(compare(&one, &one), 0);
        for at in 0..len {
            let mut other = one.clone();
            other[at] = other[at].wrapping_add(1);
            if at + 1 < len {
                // What comes later does not count.
                other[len - 1] = other[len - 1].wrapping_sub(1);
            }
            let expected = one.cmp(&other) as i32;
            assert_eq!(compare(&one, &other).signum(), expected, "{len} bytes, at {at}");
            assert_eq!(compare(&other, &one).signum(), -expected);
        }
    }
}
