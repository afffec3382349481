//! What libxl does to XenStore when network devices come and go (libxl_nic.c, libxl_device.c).
//!
//! Each attach, detach and destroy is a [`Job`] that a test starts; it then goes on by itself as the
//! virtual time does, with libxl's deadlines, and ends as libxl would end.

mod removal;
mod vif;

pub use vif::VifSpec;

use super::xenstored::{Caller, Xenstored};
use super::{Actor, Sim};
use crate::hypervisor::DomId;
use core::time::Duration;
use removal::Removal;
use std::cell::RefCell;
use std::format;
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec::Vec;
use wire::Instant;

/// LIBXL_INIT_TIMEOUT and LIBXL_DESTROY_TIMEOUT.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// A number no domain of a test has: the toolstack needs no events of its own.
const TOOLSTACK: DomId = DomId(0x7fe0);
const WHO: Caller = Caller::Toolstack;

/// Something the toolstack was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job(usize);

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Waiting for the backend.
    Waiting,
    /// Ended well.
    Done,
    /// Ended as an error of `xl`.
    Failed(Failure),
}

/// How libxl's waiting for a backend can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// `state` was not seen to be exactly 2 in time.
    NotInitWait,
    /// `state` was not seen to be 6 in time.
    NotClosed,
    /// The backend directory vanished while `state` was awaited ("wanted state N but it was
    /// removed").
    RemovedEarly,
    /// The backend domain did not remove its directory in time.
    NotRemoved,
}

/// The toolstack in dom0. Clones are handles to the same one.
#[derive(Clone)]
pub struct Toolstack {
    inner: Rc<RefCell<Inner>>,
}

struct Inner {
    sim: Sim,
    store: Xenstored,
    latency: Duration,
    jobs: Vec<Running>,
}

struct Running {
    progress: Progress,
    task: Task,
    /// When to look at what the last event told of.
    look_at: Option<Instant>,
    deadline: Instant,
}

enum Task {
    Attach(VifSpec),
    Detach(Removal),
    /// The vifs of a domain, one after the other, and then the domain.
    Destroy(DomId, Vec<Removal>),
}

impl Toolstack {
    /// A toolstack for the domains of `sim`.
    #[must_use]
    pub fn new(sim: &Sim, store: &Xenstored) -> Self {
        let inner = Rc::new(RefCell::new(Inner {
            sim: sim.clone(),
            store: store.clone(),
            latency: Duration::from_millis(20),
            jobs: Vec::new(),
        }));
        sim.add_actor(TOOLSTACK, Worker(Rc::clone(&inner)));
        Self { inner }
    }

    /// How long after a change libxl gets to look at it. What has changed again by then it has not
    /// seen.
    pub fn set_latency(&self, latency: Duration) {
        self.inner.borrow_mut().latency = latency;
    }

    /// Creates both directories in one transaction and waits for the backend to be in state 2.
    pub fn attach(&self, spec: VifSpec) -> Job {
        let mut inner = self.inner.borrow_mut();
        inner.store.with(|store| spec.create(store)).expect("the toolstack may create a device");
        let state = format!("{}/state", spec.backend());
        inner.start(Task::Attach(spec), &state)
    }

    /// `xl network-detach`.
    pub fn detach(&self, spec: &VifSpec) -> Job {
        let mut inner = self.inner.borrow_mut();
        let mut removal = Removal::new(spec.clone(), false);
        inner.begin_removal(&mut removal);
        let watched = removal.watched();
        inner.start(Task::Detach(removal), &watched)
    }

    /// `xl destroy`: the domain runs no more; its vifs are removed by force, then it goes.
    pub fn destroy(&self, dom: DomId, vifs: &[VifSpec]) -> Job {
        let mut inner = self.inner.borrow_mut();
        inner.sim.stop_actors(dom);
        let mut removals: Vec<_> = vifs.iter().map(|s| Removal::new(s.clone(), true)).collect();
        for removal in &mut removals {
            inner.begin_removal(removal);
        }
        let watched = removals.first().map_or_else(String::new, Removal::watched);
        inner.start(Task::Destroy(dom, removals), &watched)
    }

    /// How far a job is.
    #[must_use]
    pub fn progress(&self, job: Job) -> Progress {
        self.inner.borrow().jobs[job.0].progress
    }

    /// Runs the machine until a job has ended and returns how.
    ///
    /// # Errors
    /// How it failed.
    pub fn finish(&self, job: Job) -> Result<(), Failure> {
        let sim = self.inner.borrow().sim.clone();
        let until = sim.now() + TIMEOUT * 5;
        let _ = sim.run_until_done(until, || self.progress(job) != Progress::Waiting);
        match self.progress(job) {
            Progress::Done => Ok(()),
            Progress::Failed(failure) => Err(failure),
            Progress::Waiting => panic!("a job of the toolstack has no end"),
        }
    }
}

struct Worker(Rc<RefCell<Inner>>);

impl Actor for Worker {
    fn turn(&mut self) -> Option<Instant> {
        let inner = &mut *self.0.borrow_mut();
        inner.take_events();
        inner.look();
        inner
            .jobs
            .iter()
            .filter(|j| j.progress == Progress::Waiting)
            .map(|j| j.look_at.map_or(j.deadline, |at| at.min(j.deadline)))
            .min()
    }

    fn is_ready(&self) -> bool {
        self.0.try_borrow().is_ok_and(|inner| inner.store.has_event(WHO))
    }
}

impl Inner {
    fn start(&mut self, task: Task, watched: &str) -> Job {
        let job = Job(self.jobs.len());
        let now = self.sim.now();
        self.jobs.push(Running {
            progress: Progress::Waiting,
            task,
            look_at: None,
            deadline: now + TIMEOUT,
        });
        if watched.is_empty() {
            self.jobs[job.0].look_at = Some(now);
            self.sim.raise(TOOLSTACK, crate::hypervisor::EvtPort(0));
        } else {
            self.watch(job, watched);
        }
        job
    }

    fn watch(&self, job: Job, path: &str) {
        let _ = self.store.with(|store| store.watch(WHO, path, &job.0.to_string()));
    }

    fn unwatch(&self, job: Job, path: &str) {
        let _ = self.store.with(|store| store.unwatch(WHO, path, &job.0.to_string()));
    }

    fn begin_removal(&self, removal: &mut Removal) {
        self.store.with(|store| removal.begin(store)).expect("the toolstack may remove a device");
    }

    fn take_events(&mut self) {
        let _ = self.sim.domain(TOOLSTACK);
        self.sim.with_domain(TOOLSTACK, |d| d.events.take_pending());
        let (now, latency) = (self.sim.now(), self.latency);
        while let Some(event) = self.store.with(|store| store.next_event(WHO)) {
            let Ok(job) = event.token.parse::<usize>() else { continue };
            if let Some(job) = self.jobs.get_mut(job) {
                job.look_at.get_or_insert(now + latency);
            }
        }
    }

    fn look(&mut self) {
        let now = self.sim.now();
        for index in 0..self.jobs.len() {
            let job = &mut self.jobs[index];
            let late = now >= job.deadline;
            let due = job.look_at.is_some_and(|at| at <= now);
            if job.progress == Progress::Waiting && (due || late) {
                job.look_at = None;
                self.advance(Job(index), late);
            }
        }
    }

    /// Looks at what a job waits for.
    fn advance(&mut self, job: Job, late: bool) {
        let now = self.sim.now();
        let store = self.store.clone();
        let progress = match &mut self.jobs[job.0].task {
            Task::Attach(spec) => {
                let path = format!("{}/state", spec.backend());
                let progress = match store.value(&path).as_deref() {
                    Some("2") => Progress::Done,
                    None => Progress::Failed(Failure::RemovedEarly),
                    Some(_) if late => Progress::Failed(Failure::NotInitWait),
                    Some(_) => Progress::Waiting,
                };
                if progress != Progress::Waiting {
                    self.unwatch(job, &path);
                }
                progress
            }
            Task::Detach(removal) => {
                let before = removal.watched();
                let progress = store.with(|s| removal.advance(s, late));
                self.renew(job, &before, now);
                progress
            }
            Task::Destroy(dom, removals) => {
                let dom = *dom;
                match removals.first_mut() {
                    Some(first) => {
                        let before = first.watched();
                        // By force: a backend that does not play along costs time only.
                        if store.with(|s| first.advance(s, late)) != Progress::Waiting {
                            removals.remove(0);
                        }
                        self.renew(job, &before, now);
                        Progress::Waiting
                    }
                    None => {
                        self.sim.destroy(dom);
                        self.store.release(dom);
                        self.store.remove(&format!("/local/domain/{}", dom.0));
                        self.store.remove(&format!("/libxl/{}", dom.0));
                        Progress::Done
                    }
                }
            }
        };
        self.jobs[job.0].progress = progress;
    }

    /// Watches what the job waits for now instead of `before`, with a new deadline.
    fn renew(&mut self, job: Job, before: &str, now: Instant) {
        let watched = match &self.jobs[job.0].task {
            Task::Detach(removal) => removal.watched(),
            Task::Destroy(_, removals) => {
                removals.first().map_or_else(String::new, Removal::watched)
            }
            Task::Attach(_) => return,
        };
        if watched == before {
            return;
        }
        self.unwatch(job, before);
        self.jobs[job.0].deadline = now + TIMEOUT;
        if watched.is_empty() {
            self.jobs[job.0].look_at = Some(now);
        } else {
            self.watch(job, &watched);
        }
    }
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NotInitWait => "the backend did not get to state 2",
            Self::NotClosed => "the backend did not get to state 6",
            Self::RemovedEarly => "a state was awaited, but the node was removed",
            Self::NotRemoved => "the backend directory was not removed",
        })
    }
}
