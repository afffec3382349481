//! How fast the kernel's memory functions and sums are beside the host's own.
//!
//! Prints bytes per nanosecond for each length, as JSON: `cargo xtask bench memory` makes a table of it.
#![allow(clippy::indexing_slicing)]

use std::arch::global_asm;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use wire::sums::Sum;

global_asm!(include_str!("../src/boot/mem.s"));

unsafe extern "C" {
    static tidegate_rep_from: AtomicU64;
    static tidegate_rep_where_fast: u64;
    fn tidegate_memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8;
    fn tidegate_memset(to: *mut u8, byte: i32, len: usize) -> *mut u8;
}

const LENGTHS: [usize; 12] = [8, 14, 42, 66, 128, 256, 512, 1024, 1448, 2048, 4096, 65536];

fn main() {
    let (from, mut to) = (vec![0x5a_u8; 65536], vec![0_u8; 65536]);
    for len in LENGTHS {
        // SAFETY: a word of the data section.
        let rep = |from| unsafe { &tidegate_rep_from }.store(from, Ordering::Relaxed);
        // SAFETY: both buffers are longer than any of the lengths.
        let mut ours =
            || unsafe { tidegate_memmove(to.as_mut_ptr(), black_box(from.as_ptr()), len) };
        rep(u64::MAX);
        let loops = rate(len, || _ = black_box(ours()));
        rep(32);
        let with_rep = rate(len, || _ = black_box(ours()));
        // SAFETY: a word that is never written.
        rep(unsafe { tidegate_rep_where_fast });
        let copy = rate(len, || _ = black_box(ours()));
        let libc = rate(len, || black_box(&mut to[..len]).copy_from_slice(black_box(&from[..len])));
        // SAFETY: as above.
        let fill = rate(len, || unsafe { _ = black_box(tidegate_memset(to.as_mut_ptr(), 3, len)) });
        let libc_fill = rate(len, || black_box(&mut to[..len]).fill(black_box(3)));
        let sum = rate(len, || _ = black_box(Sum::ZERO.bytes(black_box(&from[..len]))));
        println!(
            "{{\"bytes\":{len},\"copy\":{copy:.2},\"copy_loops\":{loops:.2},\
             \"copy_rep\":{with_rep:.2},\
             \"copy_libc\":{libc:.2},\"fill\":{fill:.2},\"fill_libc\":{libc_fill:.2},\
             \"sum\":{sum:.2}}}"
        );
    }
}

/// Bytes per nanosecond of what handles `len` bytes a call.
fn rate(len: usize, mut call: impl FnMut()) -> f64 {
    let calls = (1 << 22) / (len + 64);
    let round = |call: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..calls {
            call();
        }
        start.elapsed().as_secs_f64() * 1e9
    };
    let best = (0..9).map(|_| round(&mut call)).fold(f64::INFINITY, f64::min);
    (len * calls) as f64 / best
}
