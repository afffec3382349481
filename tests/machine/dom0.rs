//! dom0's daemons in the simulated machine: strict ones behind simulated libxenvchan.

use daemons::{Asked, Call, Daemon, Outcome, Qrexec, QubesDb};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use wire::Instant;
use xen::hypervisor::DomId;
use xen::sim::peer_vchan::LibVchan;
use xen::sim::xenstored::Xenstored;
use xen::sim::{Actor, Sim};

/// A number no domain of a test has: events of domain 0 are taken by its XenStore.
const SOMEWHERE: DomId = DomId(0x7fe1);
const QUBESDB: u32 = 111;
const QREXEC: u32 = 512;
/// How often who has no channel yet looks for one.
const LOOK: Duration = Duration::from_millis(20);

/// The daemons. Clones are handles to the same ones.
#[derive(Clone)]
pub struct Dom0(Rc<RefCell<Inner>>);

struct Inner {
    sim: Sim,
    xs: Xenstored,
    vm: DomId,
    database: Served<QubesDb>,
    qrexec: Served<Qrexec>,
    calls: Vec<Served<Call>>,
    asked: Vec<Asked>,
    deaths: Vec<String>,
    poked: bool,
}

/// A daemon and its end of a channel.
struct Served<D> {
    daemon: D,
    port: u32,
    /// Whether this end makes the channel.
    serves: bool,
    vchan: Option<LibVchan>,
    met: bool,
    /// It does not run, or has died.
    stopped: bool,
}

impl<D: Daemon> Served<D> {
    fn new(daemon: D, port: u32, serves: bool) -> Self {
        Self { daemon, port, serves, vchan: None, met: false, stopped: false }
    }

    fn is_signalled(&self, xs: &Xenstored) -> bool {
        self.vchan.as_ref().is_some_and(|vchan| xs.is_signalled(vchan.port()))
    }

    /// Does what the process does when its channel wakes it; its last words if it dies. Whether the
    /// channel came to its end is told by `vchan`.
    fn turn(&mut self, sim: &Sim, xs: &Xenstored, vm: DomId, again: bool) -> Option<String> {
        if self.stopped {
            return None;
        }
        if self.vchan.is_none() && (again || !self.met) {
            self.met = false;
            self.vchan = match self.serves {
                true => Some(LibVchan::server(sim, xs, vm, self.port, [4096, 4096])),
                false => LibVchan::client(sim, xs, vm, self.port),
            };
        }
        let vchan = self.vchan.as_mut()?;
        xs.take_signal(vchan.port());
        if !self.met && vchan.is_open() == 1 {
            self.met = true;
            vchan.hide();
            self.daemon.connected();
        }
        loop {
            let bytes = vchan.read(4096);
            if let Err(death) = self.daemon.receive(&bytes) {
                self.stop();
                return Some(death.0);
            }
            let written = if self.met { vchan.write(self.daemon.outgoing()) } else { 0 };
            self.daemon.sent(written);
            if bytes.len() < 4096 && written == 0 {
                break;
            }
        }
        if self.met && vchan.is_open() != 1 {
            self.daemon.disconnected();
            self.vchan.take().into_iter().for_each(LibVchan::close);
        }
        None
    }

    fn stop(&mut self) {
        self.stopped = true;
        self.daemon.disconnected();
        self.vchan.take().into_iter().for_each(LibVchan::close);
    }
}

impl Dom0 {
    /// Both daemons, running for `vm`, with this in its database.
    pub fn start(sim: &Sim, xs: &Xenstored, vm: DomId, entries: &[(&str, &str)]) -> Self {
        let inner = Rc::new(RefCell::new(Inner {
            sim: sim.clone(),
            xs: xs.clone(),
            vm,
            database: Served::new(QubesDb::new(entries), QUBESDB, true),
            qrexec: Served::new(Qrexec::default(), QREXEC, false),
            calls: Vec::new(),
            asked: Vec::new(),
            deaths: Vec::new(),
            poked: true,
        }));
        sim.add_actor(SOMEWHERE, Daemons(Rc::clone(&inner)));
        Self(inner)
    }

    /// What qubesd does to the database.
    pub fn database<T>(&self, change: impl FnOnce(&mut QubesDb) -> T) -> T {
        let mut inner = self.0.borrow_mut();
        inner.poked = true;
        change(&mut inner.database.daemon)
    }

    /// qubesdb-daemon ends; [`restart`](Self::restart) starts it again with what it knew.
    pub fn stop_database(&self) {
        self.0.borrow_mut().database.stop();
    }

    pub fn restart(&self) {
        let mut inner = self.0.borrow_mut();
        (inner.database.stopped, inner.poked) = (false, true);
        inner.database.met = false;
    }

    /// qrexec-daemon ends and is started anew.
    pub fn restart_qrexec(&self) {
        let mut inner = self.0.borrow_mut();
        inner.qrexec.stop();
        (inner.qrexec.stopped, inner.qrexec.met, inner.poked) = (false, false, true);
    }

    /// Whether the VM's agent has greeted.
    pub fn is_greeted(&self) -> bool {
        self.0.borrow().qrexec.daemon.is_greeted()
    }

    /// qrexec-client: calls a service, with input; the number of the call.
    pub fn call(&self, service: &str, input: &[u8]) -> usize {
        self.exec(&format!("root:QUBESRPC {service} dom0"), input)
    }

    /// The same for any command line.
    pub fn exec(&self, cmdline: &str, input: &[u8]) -> usize {
        let mut inner = self.0.borrow_mut();
        let port = inner.qrexec.daemon.exec(cmdline);
        inner.calls.push(Served::new(Call::caller(input), port, true));
        inner.poked = true;
        inner.calls.len() - 1
    }

    /// Orders a call to which nobody will connect.
    pub fn order(&self, cmdline: &str) {
        let mut inner = self.0.borrow_mut();
        inner.qrexec.daemon.exec(cmdline);
        inner.poked = true;
    }

    /// What came of a call, once its channel is closed.
    pub fn outcome(&self, call: usize) -> Option<Outcome> {
        let inner = self.0.borrow();
        let call = &inner.calls[call];
        (call.met && call.vchan.is_none()).then(|| call.daemon.outcome().clone())
    }

    /// Calls for whom dom0 still keeps a port.
    pub fn open_calls(&self) -> usize {
        self.0.borrow().qrexec.daemon.open_calls()
    }

    /// What the VM asked for and nobody has answered.
    pub fn asked(&self) -> Vec<Asked> {
        self.0.borrow().asked.clone()
    }

    /// Lets the VM make the first call it asked for; the number of the call.
    pub fn serve_asked(&self, port: u32, answer: &[u8]) -> usize {
        let mut inner = self.0.borrow_mut();
        let asked = inner.asked.remove(0);
        inner.qrexec.daemon.connect(&asked, 0, port);
        inner.calls.push(Served::new(Call::server(answer), port, false));
        inner.poked = true;
        inner.calls.len() - 1
    }

    /// Refuses the first one.
    pub fn refuse_asked(&self) {
        let mut inner = self.0.borrow_mut();
        let asked = inner.asked.remove(0);
        inner.qrexec.daemon.refuse(&asked);
        inner.poked = true;
    }

    /// What the daemons said when they died.
    pub fn deaths(&self) -> Vec<String> {
        self.0.borrow().deaths.clone()
    }
}

struct Daemons(Rc<RefCell<Inner>>);

impl Actor for Daemons {
    fn turn(&mut self) -> Option<Instant> {
        let inner = &mut *self.0.borrow_mut();
        let _none = inner.sim.domain(SOMEWHERE);
        inner.poked = false;
        let (sim, xs, vm) = (inner.sim.clone(), inner.xs.clone(), inner.vm);
        inner.deaths.extend(inner.database.turn(&sim, &xs, vm, true));
        inner.deaths.extend(inner.qrexec.turn(&sim, &xs, vm, true));
        inner.asked.extend(inner.qrexec.daemon.take_asked());
        for call in &mut inner.calls {
            inner.deaths.extend(call.turn(&sim, &xs, vm, false));
        }
        let looks = |none: bool, stopped: bool| none && !stopped;
        let qrexec = looks(inner.qrexec.vchan.is_none(), inner.qrexec.stopped);
        let database = looks(inner.database.vchan.is_none(), inner.database.stopped);
        let calls =
            inner.calls.iter().any(|call| looks(call.vchan.is_none() && !call.met, call.stopped));
        (qrexec || database || calls).then(|| sim.now() + LOOK)
    }

    fn is_ready(&self) -> bool {
        self.0.try_borrow().is_ok_and(|inner| {
            let xs = &inner.xs;
            inner.poked
                || inner.database.is_signalled(xs)
                || inner.qrexec.is_signalled(xs)
                || inner.calls.iter().any(|call| call.is_signalled(xs))
        })
    }
}
