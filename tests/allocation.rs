//! Deciding a batch allocates nothing: not for what passes, what opens, what is refused or answered.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(unreachable_pub, reason = "nothing here is reached from outside")]

#[path = "../wire/tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "shared with the tests of the firewall")]
#[path = "firewall/world.rs"]
mod world;

use common::{Spec, packet};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use wire::{BATCH, DropReason, Frame, HEAD_MAX, Outbox, Port, REPLY_MAX, TcpFlags, Verdict};
use world::{UPLINK, WORK, World, config, from_work, from_world, personal, us, web, work};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as demanded of our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as demanded of our caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn deciding_allocates_nothing() {
    let mut world = World::new(config("accept udp\nreject admin-prohibited tcp 25 log\ndrop log"));
    let opened = from_work(Spec::udp((work(), 1), (web(), 2)));
    let port = packet(&world.send(WORK, &opened).emitted(UPLINK)).tuple().unwrap().sport;
    let fresh: Vec<_> =
        (100..140).map(|sport| from_work(Spec::udp((work(), sport), (web(), 2)))).collect();
    let answer = from_world(Spec::udp((web(), 2), (us(), port)));
    let others = [
        from_world(Spec::udp((web(), 3), (us(), port))),
        from_work(Spec::tcp((work(), 1), (web(), 25), TcpFlags::SYN)),
        from_work(Spec::tcp((work(), 1), (web(), 26), TcpFlags::SYN)),
        from_work(Spec::udp((personal(), 1), (web(), 2))),
        from_work(Spec::udp((work(), 1), (web(), 2)).ttl(1)),
        from_work(Spec::ping(work(), us(), 1)),
    ];
    let frame = |from: Port, head| Frame { from, ..common::whole(head) };
    let mut frames = vec![frame(WORK, &opened), frame(UPLINK, &answer), frame(UPLINK, &others[0])];
    frames.extend(others[1..].iter().map(|bytes| frame(WORK, bytes)));
    frames.extend(fresh.iter().map(|bytes| frame(WORK, bytes)));
    assert!(frames.len() <= BATCH);
    let (mut heads, mut places) = (vec![[0; HEAD_MAX]; BATCH], vec![[0; REPLY_MAX]; BATCH]);
    let mut out = Outbox::new(&mut heads, &mut places);

    let before = ALLOCATIONS.with(Cell::get);
    world.firewall.batch(world.now, &frames, &mut out);
    let deadline = world.firewall.tick(world.now, &mut out);
    let line = world.firewall.next_log();
    let after = ALLOCATIONS.with(Cell::get);

    assert_eq!(after - before, 0);
    assert!(deadline.is_some() && line.is_some());
    let verdicts = out.verdicts();
    let emitted = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Emit(_))).count();
    assert_eq!(emitted, 2 + fresh.len());
    let reasons = [
        DropReason::Unsolicited,
        DropReason::RuleReject,
        DropReason::RuleDrop,
        DropReason::SpoofedSource,
        DropReason::TtlExceeded,
        DropReason::Answered,
    ];
    assert_eq!(verdicts[2..8], reasons.map(Verdict::Drop));
    // The counting itself works.
    drop(std::hint::black_box(vec![0u8; 100]));
    assert!(ALLOCATIONS.with(Cell::get) > after);
}
