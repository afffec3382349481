//! What only several domains can show of the simulation: who wakes whom, what a dead peer leaves, and
//! what its hooks see. What one domain can see of Xen is in the conformance table.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use wire::Instant;
use xen::hypervisor::{
    Access, CopyEnd, CopyOp, DomId, Errno, EvtPort, GrantStatus, Hypervisor, Memory, NoMemory,
    NoRef, Page, StillMapped,
};
use xen::sim::{Holdings, Label, Sim, SimHypervisor};

const A: DomId = DomId(1);
const B: DomId = DomId(2);

/// A channel between A and B, nothing pending.
fn channel(sim: &Sim) -> (SimHypervisor, EvtPort, SimHypervisor, EvtPort) {
    let (mut a, mut b) = (sim.domain(A), sim.domain(B));
    let pa = a.alloc_unbound(B).unwrap();
    let pb = b.bind_interdomain(A, pa.0).unwrap();
    let _ = (a.take_pending(), b.take_pending());
    (a, pa, b, pb)
}

fn copy(src: CopyEnd, dst: CopyEnd, len: u16) -> CopyOp {
    let mut op = CopyOp::new(src, 0, dst, 0, len);
    op.status = GrantStatus(77);
    op
}

/// B signals at 5 s while A sleeps until 9 s with `hot` of A's list; returns when A woke.
fn woken_at(hot: impl Fn(EvtPort, EvtPort) -> Vec<EvtPort>) -> u64 {
    let sim = Sim::new(1);
    let (mut a, pa, mut b, pb) = channel(&sim);
    let other = a.alloc_unbound(B).unwrap();
    let handle = sim.clone();
    sim.add_actor(B, move || {
        let _ = b.take_pending();
        if handle.now() < Instant::from_secs(5) {
            return Some(Instant::from_secs(5));
        }
        b.notify(pb).unwrap();
        None
    });
    a.poll(&hot(pa, other), Some(Instant::from_secs(9))).unwrap();
    a.now().as_secs()
}

#[test]
fn a_port_that_becomes_pending_wakes_unless_exactly_one_other_is_listed() {
    assert_eq!(woken_at(|port, _| vec![port]), 5);
    assert_eq!(woken_at(|_, _| vec![]), 5);
    assert_eq!(woken_at(|_, other| vec![other]), 9);
    assert_eq!(woken_at(|_, other| vec![other, other]), 5);
    assert_eq!(woken_at(|port, other| vec![other, port]), 5);
}

#[test]
fn a_port_that_was_pending_before_never_wakes() {
    let sim = Sim::new(1);
    let (mut a, pa, mut b, pb) = channel(&sim);
    let other = a.alloc_unbound(B).unwrap();
    b.notify(pb).unwrap();
    sim.add_actor(B, move || {
        let _ = b.take_pending();
        b.notify(pb).unwrap();
        None
    });
    a.poll(&[other, other], Some(Instant::from_secs(9))).unwrap();
    assert_eq!(a.now(), Instant::from_secs(9));
    assert!(a.take_pending().contains(pa));
    assert_eq!(sim.counters(B).merged_notifies, 1);
}

#[test]
fn sleeping_for_ever_is_an_error_and_not_a_hang() {
    let sim = Sim::new(1);
    let (mut a, pa, _, _) = channel(&sim);
    assert_eq!(a.poll(&[pa], None), Err(Errno(35)));
}

#[test]
fn the_same_seed_gives_the_same_order() {
    let order = |seed| {
        let sim = Sim::new(seed);
        let log = Rc::new(RefCell::new(Vec::new()));
        for dom in 1..6 {
            let (log, sim2) = (Rc::clone(&log), sim.clone());
            sim.add_actor(DomId(dom), move || {
                log.borrow_mut().push(dom);
                let next = sim2.now() + Duration::from_secs(1);
                (next < Instant::from_secs(9)).then_some(next)
            });
        }
        sim.run_until(Instant::from_secs(10));
        assert_eq!(sim.now(), Instant::from_secs(10));
        log.take()
    };
    assert_eq!(order(1), order(1));
    assert_eq!(order(1).len(), 40);
    assert_ne!(order(1), order(2));
}

#[test]
fn a_condition_ends_a_run_and_a_deadline_ends_it_without() {
    let sim = Sim::new(1);
    let turns = Rc::new(Cell::new(0));
    let (count, handle) = (Rc::clone(&turns), sim.clone());
    sim.add_actor(A, move || {
        count.set(count.get() + 1);
        Some(handle.now() + Duration::from_secs(1))
    });
    assert!(sim.run_until_done(Instant::from_secs(100), || turns.get() == 3));
    assert_eq!(sim.now(), Instant::from_secs(3));
    assert!(!sim.run_until_done(Instant::from_secs(5), || false));
    assert_eq!(sim.now(), Instant::from_secs(5));
}

#[test]
fn a_foreign_grant_is_used_as_it_was_granted() {
    let sim = Sim::new(1);
    let (mut a, mut b) = (sim.domain(A), sim.domain(B));
    let (pa, pb) = (a.page().unwrap(), b.page().unwrap());
    pa.write(0, b"secret");
    let gref = a.grant(B, &pa, Access::ReadOnly).unwrap();
    let mut private = b.private(1).unwrap();
    let theirs = CopyEnd::Grant { dom: A, gref: gref.number() };
    let ours = CopyEnd::Page(pb.frame());
    let mut ops = [
        copy(theirs, ours, 6),
        copy(ours, theirs, 6),
        copy(CopyEnd::Page(pa.frame()), CopyEnd::Private(0), 6),
    ];
    b.copy(&mut private, &mut ops).unwrap();
    let statuses = ops.map(|op| op.status);
    let (okay, error) = (GrantStatus::OKAY, GrantStatus::GENERAL_ERROR);
    assert_eq!(statuses, [okay, error, GrantStatus::BAD_PAGE]);
    assert_eq!(&sim.peek(pb.frame())[..6], b"secret");
    let third = DomId(3);
    let mut c = sim.domain(third);
    assert!(c.map(A, gref.number(), Access::ReadOnly).is_err());
    a.end(gref).unwrap();
    b.copy(&mut private, &mut ops[..1]).unwrap();
    assert_eq!(ops[0].status, error);
    let counters = sim.counters(B);
    assert_eq!((counters.copies, counters.copy_ops, counters.copied_bytes), (2, 4, 6));
}

#[test]
fn a_destroyed_domain_lets_go_of_everything() {
    let sim = Sim::new(1);
    let (mut a, pa, mut b, _) = channel(&sim);
    let page = a.page().unwrap();
    let gref = a.grant(B, &page, Access::ReadWrite).unwrap();
    let _mapped = b.map(A, gref.number(), Access::ReadWrite).unwrap();
    let Err((gref, StillMapped)) = a.end(gref) else { panic!("it is mapped") };
    sim.destroy(B);
    assert_eq!(a.end(gref), Ok(()));
    a.free(page);
    a.notify(pa).unwrap();
    a.close(pa);
    assert_eq!(sim.holdings(A), Holdings::default());
}

#[test]
fn a_page_stays_readable_for_who_mapped_it_when_its_owner_dies() {
    let sim = Sim::new(1);
    let (mut a, mut b) = (sim.domain(A), sim.domain(B));
    let page = a.page().unwrap();
    page.store(0, 42);
    let gref = a.grant(B, &page, Access::ReadWrite).unwrap();
    let mapped = b.map(A, gref.number(), Access::ReadWrite).unwrap();
    sim.destroy(A);
    assert_eq!(mapped.load(0), 42);
    assert_eq!(b.unmap(mapped), Ok(()));
    assert_eq!(sim.holdings(B), Holdings::default());
}

#[test]
#[should_panic(expected = "a page is freed that others may still use")]
fn freeing_a_lent_page_stops_the_test() {
    let sim = Sim::new(1);
    let mut a = sim.domain(A);
    let page = a.page().unwrap();
    let _gref = a.grant(B, &page, Access::ReadOnly).unwrap();
    a.free(page);
}

#[test]
fn limits_and_faults_come_as_the_errors_they_are() {
    let sim = Sim::new(1);
    let mut a = sim.domain(A);
    sim.limit_pages(A, 2);
    let pages = [a.page().unwrap(), a.page().unwrap()];
    assert_eq!(a.page().err(), Some(NoMemory));
    sim.limit_grants(A, 1);
    let gref = a.grant(A, &pages[0], Access::ReadWrite).unwrap();
    assert_eq!(a.grant(B, &pages[0], Access::ReadWrite).err(), Some(NoRef));
    let nth = Cell::new(0);
    sim.on_copy(move |_, _| {
        nth.set(nth.get() + 1);
        (nth.get() == 2).then_some(GrantStatus::EAGAIN)
    });
    pages[1].write(0, b"x");
    let end = CopyEnd::Grant { dom: A, gref: gref.number() };
    let mut ops = [copy(CopyEnd::Page(pages[1].frame()), end, 1); 3];
    let mut private = a.private(1).unwrap();
    a.copy(&mut private, &mut ops).unwrap();
    let okay = GrantStatus::OKAY;
    assert_eq!(ops.map(|op| op.status), [okay, GrantStatus::EAGAIN, okay]);
}

#[test]
fn the_hook_sees_lent_pages_only_and_before_each_access() {
    let sim = Sim::new(1);
    let mut a = sim.domain(A);
    let (lent, own) = (a.page().unwrap(), a.page().unwrap());
    let gref = a.grant(B, &lent, Access::ReadWrite).unwrap();
    sim.on_touch(|touch, bytes| bytes[touch.offset] ^= 1);
    assert_eq!((lent.load(0), lent.load(0), own.load(0)), (1, 0, 0));
    a.end(gref).unwrap();
    assert_eq!(lent.load(0), 0);
}

#[test]
fn labels_tell_to_whom_bytes_are_shown() {
    const SECRET: Label = Label(7);
    let sim = Sim::new(1);
    let (mut a, mut b) = (sim.domain(A), sim.domain(B));
    let shown = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&shown);
    sim.on_exposure(move |e| {
        let secret = e.labels.iter().filter(|l| **l == SECRET).count();
        if secret != 0 {
            log.borrow_mut().push((e.owner, e.to, e.offset, secret));
        }
    });
    let source = a.page().unwrap();
    source.write(0, &[1; 100]);
    sim.label(source.frame(), 0, 100, SECRET);
    let gref = a.grant(B, &source, Access::ReadOnly).unwrap();
    assert_eq!(shown.take(), [(A, B, 0, 100)], "granted with the bytes in it");

    let mut private = b.private(1).unwrap();
    let from = CopyEnd::Grant { dom: A, gref: gref.number() };
    b.copy(&mut private, &mut [copy(from, CopyEnd::Private(0), 60)]).unwrap();
    let page = b.page().unwrap();
    b.copy(&mut private, &mut [copy(CopyEnd::Private(0), CopyEnd::Page(page.frame()), 50)])
        .unwrap();
    assert_eq!(shown.take(), [], "private memory and a page that is not lent");
    let gref = b.grant(DomId(3), &page, Access::ReadOnly).unwrap();
    assert_eq!(shown.take(), [(B, DomId(3), 0, 50)]);
    let op = CopyOp::new(from, 0, CopyEnd::Page(page.frame()), 1000, 10);
    b.copy(&mut private, &mut [op]).unwrap();
    assert_eq!(shown.take(), [(B, DomId(3), 1000, 10)]);
    page.write(0, &[0; 4096]);
    b.end(gref).unwrap();
    let _gref = b.grant(DomId(3), &page, Access::ReadOnly).unwrap();
    assert_eq!(shown.take(), [], "overwritten by the domain itself");

    let before = sim.counters(B).moved_bytes;
    let other = b.page().unwrap();
    other.write(8, &private.as_ref()[20..120]);
    let _gref = b.grant(DomId(3), &other, Access::ReadOnly).unwrap();
    assert_eq!(shown.take(), [(B, DomId(3), 0, 40)], "moved from private memory");
    other.read(8, &mut private.as_mut()[1000..1060]);
    let third = b.page().unwrap();
    let to = CopyEnd::Page(third.frame());
    let _gref = b.grant(DomId(3), &third, Access::ReadOnly).unwrap();
    b.copy(&mut private, &mut [CopyOp::new(CopyEnd::Private(0), 900, to, 0, 200)]).unwrap();
    assert_eq!(shown.take(), [(B, DomId(3), 0, 40)], "moved to private memory before");
    assert_eq!(sim.counters(B).moved_bytes - before, 160);
}
