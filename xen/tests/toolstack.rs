//! libxl's side of a network device, against backends that play along and backends that do not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::time::Duration;
use wire::{Instant, Mac};
use xen::hypervisor::DomId;
use xen::sim::Sim;
use xen::sim::toolstack::{Failure, Progress, Toolstack, VifSpec};
use xen::sim::xenstored::{Caller, Xenstored};
use xen::store::StoreError;

const BACK: DomId = DomId(1);
const FRONT: DomId = DomId(2);

struct World {
    sim: Sim,
    store: Xenstored,
    tools: Toolstack,
    spec: VifSpec,
}

impl World {
    fn new() -> Self {
        let sim = Sim::new(1);
        let store = Xenstored::new(&sim);
        let tools = Toolstack::new(&sim, &store);
        for dom in [BACK, FRONT] {
            let _ = store.introduce(dom);
        }
        let mac = Mac([0, 0x16, 0x3e, 0, 0, 1]);
        let spec = VifSpec::new(FRONT, BACK, 0, mac).with_ip("10.137.0.9");
        Self { sim, store, tools, spec }
    }

    fn state(&self, state: &str) {
        let path = format!("{}/state", self.spec.backend());
        let who = Caller::Domain(BACK);
        self.store.with(|s| s.write(who, None, &path, state.as_bytes())).unwrap();
    }

    fn remove(&self) {
        let (who, path) = (Caller::Domain(BACK), self.spec.backend());
        self.store.with(|s| s.remove(who, None, &path)).unwrap();
    }

    fn run(&self, millis: u64) {
        self.sim.run_until(self.sim.now() + Duration::from_millis(millis));
    }

    fn exists(&self, path: &str) -> bool {
        self.store.value(path).is_some()
    }

    fn attached() -> Self {
        let w = Self::new();
        let job = w.tools.attach(w.spec.clone());
        w.state("2");
        w.tools.finish(job).unwrap();
        w.state("4");
        w
    }
}

#[test]
fn attaching_makes_both_directories_and_ends_at_state_2() {
    let w = World::new();
    let job = w.tools.attach(w.spec.clone());
    w.run(500);
    assert_eq!(w.tools.progress(job), Progress::Waiting);
    let (back, front) = (w.spec.backend(), w.spec.frontend());
    assert_eq!(back, "/local/domain/1/backend/vif/2/0");
    assert_eq!(front, "/local/domain/2/device/vif/0");
    let value = |path: String| w.store.value(&path).unwrap();
    assert_eq!(value(format!("{back}/frontend")), front);
    assert_eq!(value(format!("{front}/backend")), back);
    assert_eq!(value(format!("{back}/ip")), "10.137.0.9");
    assert_eq!(value(format!("{back}/mac")), value(format!("{front}/mac")));
    assert_eq!(value(format!("{back}/online")), "1");
    w.state("2");
    w.run(100);
    assert_eq!(w.tools.progress(job), Progress::Done);
}

#[test]
fn each_end_may_write_its_own_directory_and_read_the_other() {
    let w = World::new();
    w.tools.attach(w.spec.clone());
    let back = format!("{}/state", w.spec.backend());
    let front = format!("{}/state", w.spec.frontend());
    let above = "/local/domain/1/backend/vif/2".to_string();
    w.store.with(|s| {
        for (own, path, other) in [(BACK, &back, FRONT), (FRONT, &front, BACK)] {
            s.write(Caller::Domain(own), None, path, b"3").unwrap();
            s.read(Caller::Domain(other), None, path).unwrap();
            let refused = s.write(Caller::Domain(other), None, path, b"4");
            assert_eq!(refused, Err(StoreError::Eacces));
            let stranger = s.read(Caller::Domain(DomId(9)), None, path);
            assert_eq!(stranger, Err(StoreError::Eacces));
        }
        assert_eq!(s.remove(Caller::Domain(BACK), None, &above), Err(StoreError::Eacces));
    });
}

#[test]
fn a_backend_that_is_slow_too_fast_or_gone_fails_the_attach() {
    let w = World::new();
    let slow = w.tools.attach(w.spec.clone());
    let begun = w.sim.now();
    assert_eq!(w.tools.finish(slow), Err(Failure::NotInitWait));
    assert_eq!(w.sim.now(), begun + Duration::from_secs(10));

    // State 2 for less than libxl takes to look is never seen.
    let w = World::new();
    let fast = w.tools.attach(w.spec.clone());
    w.run(1000);
    w.state("2");
    w.run(5);
    w.state("4");
    assert_eq!(w.tools.finish(fast), Err(Failure::NotInitWait));

    let w = World::new();
    let gone = w.tools.attach(w.spec.clone());
    w.remove();
    assert_eq!(w.tools.finish(gone), Err(Failure::RemovedEarly));
}

#[test]
fn detaching_waits_for_state_6_and_then_for_the_directory_to_go() {
    let w = World::attached();
    let job = w.tools.detach(&w.spec);
    let back = w.spec.backend();
    assert_eq!(w.store.value(&format!("{back}/online")).as_deref(), Some("0"));
    assert_eq!(w.store.value(&format!("{back}/state")).as_deref(), Some("5"));
    w.run(1000);
    w.state("6");
    w.run(1000);
    assert_eq!(w.tools.progress(job), Progress::Waiting);
    assert!(w.exists(&w.spec.frontend()));
    w.remove();
    w.tools.finish(job).unwrap();
    for gone in [w.spec.frontend(), w.spec.libxl(), "/local/domain/1/backend/vif/2".into()] {
        assert!(!w.exists(&gone), "{gone}");
    }
}

#[test]
fn a_backend_that_removes_its_directory_too_early_or_never_fails_the_detach() {
    let w = World::attached();
    let job = w.tools.detach(&w.spec);
    w.state("6");
    w.run(5);
    w.remove();
    assert_eq!(w.tools.finish(job), Err(Failure::RemovedEarly));

    let w = World::attached();
    let job = w.tools.detach(&w.spec);
    assert_eq!(w.tools.finish(job), Err(Failure::NotClosed));

    let w = World::attached();
    let job = w.tools.detach(&w.spec);
    w.state("6");
    let begun = w.sim.now();
    assert_eq!(w.tools.finish(job), Err(Failure::NotRemoved));
    assert!(w.sim.now() < begun + Duration::from_secs(11));
}

#[test]
fn destroying_takes_the_frontend_first_and_ends_whatever_the_backend_does() {
    let w = World::attached();
    let job = w.tools.destroy(FRONT, std::slice::from_ref(&w.spec));
    assert!(!w.exists(&w.spec.frontend()));
    assert!(w.exists(&w.spec.backend()));
    w.tools.finish(job).unwrap();
    assert!(!w.exists(&w.spec.backend()));
    assert!(!w.exists("/local/domain/2"));
    assert!(w.sim.now() >= Instant::from_secs(11), "it was waited for");
}
