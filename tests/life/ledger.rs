//! How much heap the firewall's own code holds: all that was allocated in its turns, and not by the
//! simulation it calls.
//!
//! Each block carries in front of it whose it is, so that it counts until it is freed, by whomever.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use xen::sim::Bracket;

thread_local! {
    static RUNS: Cell<bool> = const { Cell::new(false) };
    static CALLS: Cell<u32> = const { Cell::new(0) };
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

struct Ledger;

/// Bytes in front of a block: enough for the mark, and as aligned as the block.
fn padded(layout: Layout) -> (usize, Layout) {
    let pad = layout.align().max(16);
    let padded = Layout::from_size_align(layout.size() + pad, pad);
    (pad, padded.expect("a size that fits memory"))
}

// SAFETY: blocks are the system's, longer by what stands in front of them.
unsafe impl GlobalAlloc for Ledger {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (pad, padded) = padded(layout);
        // SAFETY: the size is not 0.
        let at = unsafe { System.alloc(padded) };
        if at.is_null() {
            return at;
        }
        let ours = RUNS.get() && CALLS.get() == 0;
        if ours {
            HELD.set(HELD.get() + layout.size());
            PEAK.set(PEAK.get().max(HELD.get()));
        }
        // SAFETY: `pad` bytes before the end of a block that is longer than that.
        unsafe {
            at.write(u8::from(ours));
            at.add(pad)
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let (pad, padded) = padded(layout);
        // SAFETY: the block came from `alloc`, `pad` bytes before.
        unsafe {
            let start = at.sub(pad);
            if start.read() == 1 {
                HELD.set(HELD.get() - layout.size());
            }
            System.dealloc(start, padded);
        }
    }
}

#[global_allocator]
static LEDGER: Ledger = Ledger;

/// For [`xen::sim::Sim::on_bracket`].
pub(crate) fn bracket(bracket: Bracket) {
    match bracket {
        Bracket::Turn => RUNS.set(true),
        Bracket::EndOfTurn => RUNS.set(false),
        Bracket::Call => CALLS.set(CALLS.get() + 1),
        Bracket::EndOfCall => CALLS.set(CALLS.get() - 1),
    }
}

/// Bytes held.
pub(crate) fn held() -> usize {
    HELD.get()
}

/// The most bytes that were held at a time since this was asked last.
pub(crate) fn take_peak() -> usize {
    PEAK.replace(HELD.get())
}

#[test]
fn only_what_is_allocated_in_a_turn_and_outside_of_calls_counts_until_it_is_freed() {
    let before = held();
    let not_ours = vec![0u8; 1000];
    bracket(Bracket::Turn);
    let ours = vec![0u8; 10];
    bracket(Bracket::Call);
    let of_the_call = vec![0u8; 100];
    bracket(Bracket::EndOfCall);
    drop(not_ours);
    bracket(Bracket::EndOfTurn);
    assert_eq!(held() - before, 10);
    drop((of_the_call, ours));
    assert_eq!(held(), before);
}
