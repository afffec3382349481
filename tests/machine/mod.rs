//! A whole machine in memory: XenStore, the toolstack, a Linux-like sys-net, Linux-like clients, and
//! the appliance between them. Repeated by its seed; time is virtual.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

#[path = "../../wire/tests/common/mod.rs"]
pub mod frames;

pub mod dom0;
pub mod flow;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;
use tidegate::appliance::{Appliance, Blobs, PathCounters, Work, begin};
use wire::{Instant, Mac};
use xen::hypervisor::{DomId, Hypervisor, Page, Shutdown, Start};
use xen::sim::peer_back::{Offers, PeerBack};
use xen::sim::peer_front::{Manners, Outgoing, PeerFront};
use xen::sim::toolstack::{Job, Toolstack, VifSpec};
use xen::sim::xenstored::Xenstored;
use xen::sim::{Sim, SimHypervisor, SimPage};

pub const SYS_NET: DomId = DomId(1);
pub const TIDEGATE: DomId = DomId(2);
pub const UPLINK_MAC: Mac = Mac([0, 0x16, 0x3e, 0x5e, 0x6c, 0x01]);
pub const CLIENT_MAC: Mac = Mac([0, 0x16, 0x3e, 0x5e, 0x6c, 0x00]);
pub const OWN: Ipv4Addr = Ipv4Addr::new(10, 137, 255, 2);
pub const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34));
pub const CMDLINE: &str = "ip=10.137.255.2";
pub const OPEN: &str = include_str!("../../examples/open.tide");
pub const SEED: [u8; 32] = [7; 32];
/// Memory that a guest of 16 MiB has left when it has booted.
pub const FREE: usize = 14_500 << 10;

type Sut = Appliance<SimHypervisor, SimPage>;

/// The machine.
pub struct Machine {
    pub sim: Sim,
    pub xs: Xenstored,
    pub tools: Toolstack,
    appliance: Rc<RefCell<Option<Sut>>>,
    uplink: Option<Uplink>,
    console: SimPage,
    sleeps: Rc<Cell<bool>>,
}

/// An uplink of the firewall, and its backend's end of it.
pub struct Uplink {
    pub spec: VifSpec,
    pub peer: PeerBack,
}

/// A client domain with one vif.
pub struct Client {
    pub spec: VifSpec,
    pub peer: PeerFront,
    pub addr: IpAddr,
}

impl Client {
    /// Sends a frame; its ring has room for it.
    pub fn send(&self, frame: Vec<u8>) {
        assert!(self.peer.send(&Outgoing::plain(frame)), "the ring of {} is full", self.addr);
    }
}

/// The parts of a simulated machine hold each other: they have to be let go of.
impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(mut appliance) = self.appliance.try_borrow_mut() {
            *appliance = None;
        }
        self.sim.scrap();
    }
}

impl Machine {
    /// A machine whose firewall lets clients out, its uplink connected.
    pub fn open(seed: u64) -> Self {
        Self::new(seed, CMDLINE, Some(OPEN))
    }

    /// A machine with this command line and policy, its uplink connected.
    pub fn new(seed: u64, cmdline: &str, policy: Option<&str>) -> Self {
        let blob = policy.map(|text| lang::compile("test.tide", text).expect("a policy").blob);
        let mut machine = Self::bare(seed, cmdline, blob.as_deref());
        machine.plug(SYS_NET, 0);
        machine.wait("the uplink to be up", || machine.uplink().is_connected());
        machine
    }

    /// As [`open`](Self::open), with so many bytes of memory left after the boot.
    pub fn open_in(seed: u64, free: usize) -> Self {
        let blob = lang::compile("test.tide", OPEN).expect("a policy").blob;
        let mut machine = Self::bare_in(seed, CMDLINE, Some(&blob), free);
        machine.plug(SYS_NET, 0);
        machine.wait("the uplink to be up", || machine.uplink().is_connected());
        machine
    }

    /// A machine without an uplink, its firewall just started with this blob.
    pub fn bare(seed: u64, cmdline: &str, blob: Option<&[u8]>) -> Self {
        Self::bare_in(seed, cmdline, blob, FREE)
    }

    /// As [`bare`](Self::bare), with so many bytes of memory left after the boot.
    pub fn bare_in(seed: u64, cmdline: &str, blob: Option<&[u8]>, free: usize) -> Self {
        Self::with_blobs(seed, cmdline, Blobs { built_in: blob, module: None }, free)
    }

    /// A machine without an uplink, its firewall just started with what a boot brought.
    pub fn with_blobs(seed: u64, cmdline: &str, blobs: Blobs<'_>, free: usize) -> Self {
        let sim = Sim::new(seed);
        let xs = Xenstored::new(&sim);
        let tools = Toolstack::new(&sim, &xs);
        let store = xs.introduce(TIDEGATE);
        let mut h = sim.domain(TIDEGATE);
        let console = h.page().unwrap();
        let view = sim.page_at(TIDEGATE, console.frame());
        let evtchn = h.alloc_unbound(SYS_NET).unwrap();
        xs.set("/local/domain/2/control/shutdown", "");
        let start = Start { cmdline: cmdline.into(), store, console: (view, evtchn) };
        let appliance = match begin(h, start, blobs, || free, SEED) {
            Ok(appliance) => Some(appliance),
            Err(refused) => {
                refused.halt();
                None
            }
        };
        let appliance = Rc::new(RefCell::new(appliance));
        let sleeps = Rc::new(Cell::new(false));
        let (actor, domain, polls) = (Rc::clone(&appliance), sim.clone(), Rc::clone(&sleeps));
        sim.add_actor(TIDEGATE, move || turn(&domain, &actor, polls.get()));
        Self { sim, xs, tools, appliance, uplink: None, console, sleeps }
    }

    /// From now on the firewall sleeps as its `run` does: its polls are counted, and what they list is
    /// known to the simulation.
    pub fn sleep_between_turns(&self) {
        self.sleeps.set(true);
    }

    /// sys-net's end of the uplink.
    pub fn uplink(&self) -> &PeerBack {
        &self.uplink.as_ref().expect("an uplink").peer
    }

    /// The domain behind the uplink.
    pub fn uplink_domain(&self) -> DomId {
        self.uplink.as_ref().expect("an uplink").spec.back
    }

    /// One more device of the firewall, served by `back`.
    pub fn plug_further(&self, back: DomId, handle: u32) -> Uplink {
        plug(&self.sim, &self.xs, &self.tools, back, handle, Offers::default())
    }

    /// `xl network-detach` of the uplink, to its end.
    pub fn unplug(&mut self) {
        let uplink = self.uplink.take().expect("an uplink");
        self.unplug_further(uplink);
    }

    /// The same of another device.
    pub fn unplug_further(&self, uplink: Uplink) {
        let job = self.tools.detach(&uplink.spec);
        self.finish(job);
        uplink.peer.stop();
    }

    /// The domain behind the uplink is destroyed and the device cleaned up, without a word to anybody.
    pub fn kill_uplink(&mut self) {
        let uplink = self.uplink.take().expect("an uplink");
        self.kill_further(uplink);
    }

    /// The same of the domain behind another device.
    pub fn kill_further(&self, uplink: Uplink) {
        self.sim.destroy(uplink.spec.back);
        self.xs.release(uplink.spec.back);
        self.xs.remove(&uplink.spec.backend());
        self.xs.remove(&uplink.spec.frontend());
    }

    /// A new uplink of the firewall, served by `back`.
    pub fn plug(&mut self, back: DomId, handle: u32) {
        self.plug_offering(back, handle, Offers::default());
    }

    /// A new uplink of the firewall, whose backend offers this.
    pub fn plug_offering(&mut self, back: DomId, handle: u32, offers: Offers) {
        self.uplink = Some(plug(&self.sim, &self.xs, &self.tools, back, handle, offers));
    }

    /// A connected client with the address 10.137.0.`dom`.
    pub fn client(&self, dom: u16) -> Client {
        let client = self.boot(dom, Manners::default());
        self.wait("the client to be up", || client.peer.is_up());
        client
    }

    /// A client domain whose vif is attached.
    pub fn boot(&self, dom: u16, manners: Manners) -> Client {
        let start = self.xs.introduce(DomId(dom));
        let peer = PeerFront::start(&self.sim, DomId(dom), start, TIDEGATE, 0, manners);
        let spec = client_vif(dom);
        let addr = spec.ip.parse().unwrap();
        let job = self.tools.attach(spec.clone());
        assert_eq!(self.tools.finish(job), Ok(()), "attaching the vif of domain {dom}");
        Client { spec, peer, addr }
    }

    /// Runs until a named condition holds, for a virtual minute at most.
    pub fn wait(&self, what: &str, done: impl FnMut() -> bool) {
        let deadline = self.sim.now() + Duration::from_secs(60);
        let held = self.sim.run_until_done(deadline, done);
        assert!(held, "waited in vain for {what}; console:\n{}", self.console());
    }

    /// Runs until nobody has anything to do just now.
    pub fn settle(&self) {
        self.sim.settle();
    }

    /// Runs for a while.
    pub fn run(&self, time: Duration) {
        self.sim.run_until(self.sim.now() + time);
    }

    /// How a job of the toolstack ends.
    pub fn finish(&self, job: Job) {
        assert_eq!(self.tools.finish(job), Ok(()), "console:\n{}", self.console());
    }

    /// What stands in the console's ring, oldest first as far as it was not overwritten.
    pub fn console(&self) -> String {
        let page = self.sim.peek(self.console.frame());
        String::from_utf8_lossy(&page[1024..3072]).replace('\0', "")
    }

    /// Reads the console, so that there is room again.
    pub fn read_console(&self) -> String {
        let text = self.console();
        let page = self.sim.peek(self.console.frame());
        self.sim.poke(self.console.frame(), 1024, &[0; 2048]);
        self.sim.poke(self.console.frame(), 3080, &page[3084..3088]);
        text
    }

    /// What the packet path counted.
    pub fn counters(&self) -> PathCounters {
        self.appliance.borrow().as_ref().expect("a running firewall").counters().clone()
    }

    /// Why the firewall's domain has ended, if it has.
    pub fn ended(&self) -> Option<Shutdown> {
        self.sim.shutdown_of(TIDEGATE)
    }
}

/// The vif of domain `dom`, whose address is 10.137.0.`dom` if that fits.
pub fn client_vif(dom: u16) -> VifSpec {
    let [high, low] = dom.to_be_bytes();
    VifSpec::new(DomId(dom), TIDEGATE, 0, CLIENT_MAC).with_ip(&format!("10.137.{high}.{low}"))
}

fn plug(
    sim: &Sim,
    xs: &Xenstored,
    tools: &Toolstack,
    back: DomId,
    handle: u32,
    offers: Offers,
) -> Uplink {
    let mut spec = VifSpec::new(TIDEGATE, back, handle, UPLINK_MAC);
    spec.driver_domain = false;
    tools.attach(spec.clone());
    let peer = PeerBack::start(sim, xs, &spec, offers);
    Uplink { spec, peer }
}

/// One turn of the appliance's domain, as its `run` would do, with or without the sleep.
fn turn(sim: &Sim, appliance: &RefCell<Option<Sut>>, sleeps: bool) -> Option<Instant> {
    let mut appliance = appliance.borrow_mut();
    let Some(appliance) = appliance.as_mut().filter(|_| sim.shutdown_of(TIDEGATE).is_none()) else {
        // Nobody is there any more to be signalled.
        let _pending = sim.domain(TIDEGATE).take_pending();
        return None;
    };
    loop {
        match appliance.work() {
            Work::Busy => {}
            Work::Idle(until) if sleeps && until.is_none_or(|until| until > sim.now()) => {
                appliance.sleep(until);
                return sim.last_poll(TIDEGATE).until;
            }
            Work::Idle(until) => return until,
            Work::End(why) => {
                appliance.hypervisor().shutdown(why);
                return None;
            }
        }
    }
}
