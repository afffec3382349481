//! Nothing is allocated for a frame: not to decide what passes, opens, is refused or answered, and not
//! to move it, whole, cut or summed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(unreachable_pub, reason = "nothing here is reached from outside")]

mod machine;
#[allow(dead_code, reason = "shared with the tests of the firewall")]
#[path = "firewall/world.rs"]
mod world;

use common::{Spec, packet};
use machine::flow::{BOTH, Flow, gso};
use machine::frames as common;
use machine::{Machine, SYS_NET};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use wire::{
    BATCH, DropReason, Frame, HEAD_MAX, Offload, Outbox, Port, REPLY_MAX, TcpFlags, Verdict,
};
use world::{UPLINK, WORK, World, config, from_work, from_world, personal, us, web, work};
use xen::sim::Bracket;
use xen::sim::peer_back::Offers;
use xen::sim::peer_front::Manners;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// Those in turns of the firewall, without what the simulation does when it is called.
    static OURS: Cell<usize> = const { Cell::new(0) };
    static RUNS: Cell<bool> = const { Cell::new(false) };
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        if RUNS.get() && CALLS.get() == 0 {
            OURS.set(OURS.get() + 1);
        }
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

fn bracket(bracket: Bracket) {
    match bracket {
        Bracket::Turn => RUNS.set(true),
        Bracket::EndOfTurn => RUNS.set(false),
        Bracket::Call => CALLS.set(CALLS.get() + 1),
        Bracket::EndOfCall => CALLS.set(CALLS.get() - 1),
    }
}

#[test]
fn moving_frames_allocates_nothing_be_they_whole_cut_or_summed() {
    let takes = [
        (Offers::default(), Manners::default()),
        (Offers { ipv4_csum: true, ipv6_csum: true, ..Offers::PLAIN }, Manners::default()),
        (Offers::PLAIN, Manners::default().plain()),
    ];
    for (seed, (offers, manners)) in takes.into_iter().enumerate() {
        let blob = lang::compile("test.tide", machine::OPEN).unwrap().blob;
        let mut machine = Machine::bare(seed as u64, BOTH, Some(&blob));
        machine.plug_offering(SYS_NET, 0, offers);
        machine.wait("the uplink to be up", || machine.uplink().is_connected());
        let client = machine::flow::client(&machine, 10, manners);
        let flows = [false, true].map(|ipv6| (ipv6, Flow::connect(&machine, &client, ipv6)));
        let traffic = || {
            for (ipv6, flow) in &flows {
                let large = gso(*ipv6, 1400);
                assert!(client.peer.send(&flow.upload(&[1; 40_000], large)));
                assert!(client.peer.send(&flow.upload(&[1; 100], Offload { gso: None, ..large })));
                machine.uplink().send(&flow.download(&[2; 40_000], large), large);
            }
            machine.settle();
            (machine.uplink().received().len(), client.peer.take_received().len())
        };
        let first = traffic();
        machine.sim.on_bracket(machine::TIDEGATE, bracket);
        let before = OURS.get();
        assert_eq!(traffic(), first);
        assert_eq!(OURS.get() - before, 0, "{offers:?}");
        assert!(first.0 >= 4 && first.1 >= 2);
    }
}
