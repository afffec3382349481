//! Memory: all of it is taken at the start, within the budget, and none afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{ACK, World, client, inside, remote, segment, tuple};
use core::time::Duration;
use nat::{Budget, Config, Direction, FLOW_BYTES, Nat};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use wire::Proto;

thread_local! {
    /// Bytes held and allocations made by this thread.
    static HELD: Cell<usize> = const { Cell::new(0) };
    static MADE: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, with a count kept for each thread.
struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get().wrapping_add(layout.size()));
        MADE.set(MADE.get() + 1);
        // SAFETY: the caller vouches for `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: the caller vouches for both.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn all_memory_is_taken_at_once_and_within_the_budget() {
    for bytes in [250 << 10, 1 << 20, 3_000_000, 16 << 20, 200 << 20] {
        let before = HELD.get();
        let nat = Nat::new(Config::default(), Budget { bytes }, [1; 32]).unwrap();
        let held = HELD.get().wrapping_sub(before);
        assert!(held <= bytes, "{held} of {bytes}");
        let flows = nat.stats().capacity;
        assert!(held + 2 * FLOW_BYTES >= bytes, "only {held} of {bytes} for {flows}");
    }
}

#[test]
fn a_flow_takes_what_is_written() {
    for bytes in [16 << 20, 200 << 20] {
        let nat = Nat::new(Config::default(), Budget { bytes }, [1; 32]).unwrap();
        let flows = nat.stats().capacity as usize;
        // But for what does not grow with the flows.
        let each = (bytes - (250 << 10)) / flows;
        assert!(each <= FLOW_BYTES && bytes / flows <= 130, "{each} bytes a flow");
    }
}

#[test]
fn no_packet_allocates_whatever_it_does() {
    let mut world = World::sized(1 << 20);
    let before = MADE.get();
    for n in 0..60_000u32 {
        let slot = u16::try_from(n % 7).unwrap();
        let port = u16::try_from(n % 50_000).unwrap();
        // Opens, loses, refuses.
        let udp = world.udp(slot, port, remote(port));
        if let Ok(passage) = udp {
            assert!(world.answer(passage.tuple).is_ok());
        }
        let _ = world.syn(slot, port, remote(1));
        let inner = tuple(Proto::Tcp, inside(slot), port, remote(1), 443);
        if let Some(id) = world.flow_out(&inner) {
            let _ = world.nat.pass(world.now, id, Direction::Out, &segment(ACK, 1, 1, 1));
        }
        if n % 5000 == 4999 {
            world.now = world.now + Duration::from_secs(400);
            world.nat.tick(world.now, 1000);
        }
        if n % 20_000 == 19_999 {
            world.nat.client_gone(world.now, client(3));
            world.nat.flush(world.now);
        }
    }
    let stats = world.nat.stats();
    assert!(
        stats.opened > 20_000 && stats.expired > 100 && stats.lost_half_open > 100,
        "{stats:?}"
    );
    assert_eq!(MADE.get(), before);
}
