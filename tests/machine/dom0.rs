//! dom0's daemons in the simulated machine: strict ones behind simulated libxenvchan.

use daemons::{Asked, Call, Channel, Daemon, Other, Outcome, Qrexec, QubesDb, Served};
use std::cell::RefCell;
use std::convert::Infallible;
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
    database: Placed<QubesDb>,
    qrexec: Placed<Qrexec>,
    calls: Vec<Placed<Call>>,
    asked: Vec<Asked>,
    deaths: Vec<String>,
    poked: bool,
}

/// A daemon's end of a channel.
struct End(LibVchan);

impl Channel for End {
    type Error = Infallible;

    fn other(&self) -> Other {
        match self.0.is_open() {
            1 => Other::There,
            2 => Other::NotYet,
            _ => Other::Gone,
        }
    }

    fn read(&mut self, into: &mut [u8]) -> usize {
        let bytes = self.0.read(into.len());
        into[..bytes.len()].copy_from_slice(&bytes);
        bytes.len()
    }

    fn write(&mut self, from: &[u8]) -> usize {
        self.0.write(from)
    }

    fn hide(&mut self) -> Result<(), Infallible> {
        self.0.hide();
        Ok(())
    }

    fn close(self) {
        self.0.close();
    }
}

/// Where a daemon's channel is, and whether its end makes it.
#[derive(Clone, Copy)]
struct Place {
    port: u32,
    serves: bool,
}

/// A daemon, its channel and where that is.
struct Placed<D> {
    served: Served<D, End>,
    place: Place,
}

impl<D: Daemon> Placed<D> {
    fn lasting(daemon: D, port: u32, serves: bool) -> Self {
        Self { served: Served::lasting(daemon), place: Place { port, serves } }
    }

    fn once(daemon: D, port: u32, serves: bool) -> Self {
        Self { served: Served::once(daemon), place: Place { port, serves } }
    }

    fn is_signalled(&self, xs: &Xenstored) -> bool {
        self.served.channel().is_some_and(|end| xs.is_signalled(end.0.port()))
    }

    /// Does what the process does when its channel wakes it; its last words if it dies.
    fn turn(&mut self, sim: &Sim, xs: &Xenstored, vm: DomId) -> Option<String> {
        if let Some(end) = self.served.channel() {
            xs.take_signal(end.0.port());
        }
        let Place { port, serves } = self.place;
        let Ok(death) = self.served.turn(|| {
            let vchan = match serves {
                true => Some(LibVchan::server(sim, xs, vm, port, [4096, 4096])),
                false => LibVchan::client(sim, xs, vm, port),
            };
            Ok(vchan.map(End))
        });
        death.map(|death| death.0)
    }
}

impl Dom0 {
    /// Both daemons, running for `vm`, with this in its database.
    pub fn start(sim: &Sim, xs: &Xenstored, vm: DomId, entries: &[(&str, &str)]) -> Self {
        let inner = Rc::new(RefCell::new(Inner {
            sim: sim.clone(),
            xs: xs.clone(),
            vm,
            database: Placed::lasting(QubesDb::new(entries), QUBESDB, true),
            qrexec: Placed::lasting(Qrexec::default(), QREXEC, false),
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
        change(&mut inner.database.served.daemon)
    }

    /// qubesdb-daemon ends; [`restart`](Self::restart) starts it again with what it knew.
    pub fn stop_database(&self) {
        self.0.borrow_mut().database.served.stop();
    }

    pub fn restart(&self) {
        let mut inner = self.0.borrow_mut();
        inner.database.served.start();
        inner.poked = true;
    }

    /// qrexec-daemon ends and is started anew.
    pub fn restart_qrexec(&self) {
        let mut inner = self.0.borrow_mut();
        inner.qrexec.served.stop();
        inner.qrexec.served.start();
        inner.poked = true;
    }

    /// Whether the VM's agent has greeted.
    pub fn is_greeted(&self) -> bool {
        self.0.borrow().qrexec.served.daemon.is_greeted()
    }

    /// qrexec-client: calls a service, with input; the number of the call.
    pub fn call(&self, service: &str, input: &[u8]) -> usize {
        self.exec(&format!("root:QUBESRPC {service} dom0"), input)
    }

    /// The same for any command line.
    pub fn exec(&self, cmdline: &str, input: &[u8]) -> usize {
        let mut inner = self.0.borrow_mut();
        let port = inner.qrexec.served.daemon.exec(cmdline);
        inner.calls.push(Placed::once(Call::caller(input), port, true));
        inner.poked = true;
        inner.calls.len() - 1
    }

    /// Orders a call to which nobody will connect.
    pub fn order(&self, cmdline: &str) {
        let mut inner = self.0.borrow_mut();
        inner.qrexec.served.daemon.exec(cmdline);
        inner.poked = true;
    }

    /// What came of a call, once its channel is closed.
    pub fn outcome(&self, call: usize) -> Option<Outcome> {
        let inner = self.0.borrow();
        let call = &inner.calls[call].served;
        call.has_ended().then(|| call.daemon.outcome().clone())
    }

    /// Calls for whom dom0 still keeps a port.
    pub fn open_calls(&self) -> usize {
        self.0.borrow().qrexec.served.daemon.open_calls()
    }

    /// What the VM asked for and nobody has answered.
    pub fn asked(&self) -> Vec<Asked> {
        self.0.borrow().asked.clone()
    }

    /// Lets the VM make the first call it asked for; the number of the call.
    pub fn serve_asked(&self, port: u32, answer: &[u8]) -> usize {
        let mut inner = self.0.borrow_mut();
        let asked = inner.asked.remove(0);
        inner.qrexec.served.daemon.connect(&asked, 0, port);
        inner.calls.push(Placed::once(Call::server(answer), port, false));
        inner.poked = true;
        inner.calls.len() - 1
    }

    /// Refuses the first one.
    pub fn refuse_asked(&self) {
        let mut inner = self.0.borrow_mut();
        let asked = inner.asked.remove(0);
        inner.qrexec.served.daemon.refuse(&asked);
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
        inner.deaths.extend(inner.database.turn(&sim, &xs, vm));
        inner.deaths.extend(inner.qrexec.turn(&sim, &xs, vm));
        inner.asked.extend(inner.qrexec.served.daemon.take_asked());
        for call in &mut inner.calls {
            inner.deaths.extend(call.turn(&sim, &xs, vm));
        }
        let looks = inner.database.served.looks()
            || inner.qrexec.served.looks()
            || inner.calls.iter().any(|call| call.served.looks());
        looks.then(|| sim.now() + LOOK)
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
