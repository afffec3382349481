//! A machine for tests: XenStore, the toolstack's doings, netback in a domain of its own, clients.
#![allow(dead_code, reason = "each test file uses its part")]

use netback::{Config, Netback, Notice};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use wire::{DropReason, Instant, Mac, Offload, Port};
use xen::hypervisor::{CopyEnd, CopyOp, DomId, EvtPort, Hypervisor, PAGE_SIZE};
use xen::io::{Device, Head, Incoming, Piece, Pulled, all_okay, skip};
use xen::sim::peer_front::{Manners, PeerFront};
use xen::sim::toolstack::{Failure, Job, Toolstack, VifSpec};
use xen::sim::xenstored::Xenstored;
use xen::sim::{Sim, SimHypervisor, SimPage, SimPrivate};
use xen::store::{Client, Event, Tag};

pub(crate) const BACK: DomId = DomId(1);
pub(crate) const FIRST_SLOT: u16 = 1;
const PRIVATE_PAGES: u16 = 64;
/// Where new heads stand: neither at the start of private memory nor of a page of it.
const HEAD_AT: usize = 3 * PAGE_SIZE + 768;
/// Where the rest of frames made by tests stands.
const REST_AT: usize = 32 * PAGE_SIZE;

/// netback with what its appliance would keep around it.
pub(crate) struct Back {
    pub(crate) h: SimHypervisor,
    pub(crate) store: Client<SimPage>,
    pub(crate) netback: Netback<SimHypervisor>,
    pub(crate) private: SimPrivate,
    pub(crate) notices: Vec<Notice>,
    pub(crate) store_broke: bool,
}

pub(crate) struct Machine {
    pub(crate) sim: Sim,
    pub(crate) xs: Xenstored,
    pub(crate) xl: Toolstack,
    pub(crate) back: Rc<RefCell<Back>>,
}

/// A frame netback gave us.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pulled1 {
    pub(crate) from: Port,
    pub(crate) bytes: Vec<u8>,
    pub(crate) offload: Offload,
    pub(crate) slots: usize,
}

/// A vif as the tests' clients have it.
pub(crate) fn spec(dom: u16, handle: u32) -> VifSpec {
    let mac = Mac([0, 0x16, 0x3e, 0x5e, 0x6c, 0]);
    let spec = VifSpec::new(DomId(dom), BACK, handle, mac).with_ip(&format!("10.137.0.{dom}"));
    VifSpec { trusted: false, ..spec }
}

pub(crate) fn back_dir(dom: u16, handle: u32) -> String {
    format!("/local/domain/{}/backend/vif/{dom}/{handle}", BACK.0)
}

pub(crate) fn front_dir(dom: u16, handle: u32) -> String {
    format!("/local/domain/{dom}/device/vif/{handle}")
}

impl Machine {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_slots(seed, 300)
    }

    pub(crate) fn with_slots(seed: u64, slots: u16) -> Self {
        let sim = Sim::new(seed);
        let xs = Xenstored::new(&sim);
        let xl = Toolstack::new(&sim, &xs);
        let (page, port) = xs.introduce(BACK);
        let mut h = sim.domain(BACK);
        let private = h.private(PRIVATE_PAGES).unwrap();
        let config = Config { slots: FIRST_SLOT..FIRST_SLOT + slots, first_tag: Tag(1000) };
        let back = Rc::new(RefCell::new(Back {
            h,
            store: Client::new(page, port),
            netback: Netback::new(config),
            private,
            notices: Vec::new(),
            store_broke: false,
        }));
        let actor = Rc::clone(&back);
        sim.add_actor(BACK, move || actor.borrow_mut().turn());
        let machine = Self { sim, xs, xl, back };
        machine.sim.settle();
        machine
    }

    /// A client domain with a frontend, and its vif attached.
    pub(crate) fn client(&self, dom: u16, manners: Manners) -> PeerFront {
        let peer = self.boot(dom, 0, manners);
        self.attach(dom, 0);
        peer
    }

    /// A client domain without any vif yet.
    pub(crate) fn boot(&self, dom: u16, handle: u32, manners: Manners) -> PeerFront {
        let start = self.xs.introduce(DomId(dom));
        PeerFront::start(&self.sim, DomId(dom), start, BACK, handle, manners)
    }

    /// `xl network-attach`, begun.
    pub(crate) fn attach(&self, dom: u16, handle: u32) -> Job {
        self.attach_with(dom, handle, &[])
    }

    /// As [`attach`](Self::attach), with some nodes of our directory other than usual; an empty value
    /// leaves the node out.
    pub(crate) fn attach_with(&self, dom: u16, handle: u32, other: &[(&str, &str)]) -> Job {
        let mut spec = spec(dom, handle);
        spec.more = other.iter().map(|(n, v)| ((*n).to_string(), (*v).to_string())).collect();
        let job = self.xl.attach(spec);
        for (name, _) in other.iter().filter(|(_, value)| value.is_empty()) {
            self.xs.remove(&format!("{}/{name}", back_dir(dom, handle)));
        }
        job
    }

    /// `xl network-detach`, from beginning to end.
    pub(crate) fn detach(&self, dom: u16, handle: u32) -> Result<(), Failure> {
        self.xl.finish(self.xl.detach(&spec(dom, handle)))
    }

    /// `xl destroy`, from beginning to end.
    pub(crate) fn destroy(&self, dom: u16) -> Result<(), Failure> {
        self.xl.finish(self.xl.destroy(DomId(dom), &[spec(dom, 0)]))
    }

    /// Our state as the toolstack reads it; empty if it is gone.
    pub(crate) fn state(&self, dom: u16, handle: u32) -> String {
        self.xs.value(&format!("{}/state", back_dir(dom, handle))).unwrap_or_default()
    }

    /// Runs for a while.
    pub(crate) fn run(&self, time: Duration) {
        self.sim.run_until(self.sim.now() + time);
    }

    /// Runs until a named condition holds; a second is more than anything here may take.
    pub(crate) fn wait(&self, what: &str, done: impl FnMut() -> bool) {
        let deadline = self.sim.now() + Duration::from_secs(1);
        assert!(self.sim.run_until_done(deadline, done), "waited in vain for {what}");
    }

    /// Boots a client and waits until frames can pass. Returns its port.
    pub(crate) fn connected(&self, dom: u16, manners: Manners) -> (PeerFront, Port) {
        let peer = self.client(dom, manners);
        self.wait("connection", || peer.is_up());
        let port = self.back.borrow().port_of(dom);
        (peer, port)
    }

    /// The states our end shows to the toolstack one after the other, and how long each, until `done`.
    pub(crate) fn trace(
        &self,
        dom: u16,
        mut done: impl FnMut() -> bool,
    ) -> Vec<(String, Duration)> {
        let mut trace: Vec<(String, Duration)> = Vec::new();
        const STEP: Duration = Duration::from_millis(5);
        for _ in 0..400 {
            let state = self.state(dom, 0);
            match trace.last_mut() {
                Some((last, time)) if *last == state => *time += STEP,
                _ => trace.push((state, Duration::ZERO)),
            }
            if done() {
                break;
            }
            self.run(STEP);
        }
        trace
    }

    pub(crate) fn back(&self) -> std::cell::RefMut<'_, Back> {
        self.back.borrow_mut()
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        let back = self.back();
        let text = |n: &Notice| match n {
            Notice::Problem { text } => Some(text.clone()),
            _ => None,
        };
        back.notices.iter().filter_map(text).collect()
    }
}

impl Back {
    fn turn(&mut self) -> Option<Instant> {
        let pending = self.h.take_pending();
        self.netback.on_event(&pending);
        self.store.pump(&mut self.h);
        while let Some(event) = self.store.next_event() {
            self.store_broke |= matches!(event, Event::Broken(_));
            self.netback.on_store(&mut self.h, &mut self.store, &event);
            self.store.pump(&mut self.h);
        }
        let now = self.h.now();
        let next = self.netback.tick(&mut self.h, &mut self.store, now);
        self.store.pump(&mut self.h);
        self.notices.extend(core::iter::from_fn(|| self.netback.next_notice()));
        next
    }

    /// The port of the last vif of `dom` that came up.
    pub(crate) fn port_of(&self, dom: u16) -> Port {
        let up = self.notices.iter().rev().find_map(|notice| match notice {
            Notice::Up { port, dom: d, .. } if d.0 == dom => Some(*port),
            _ => None,
        });
        up.expect("a vif that is up")
    }

    pub(crate) fn hot(&mut self) -> Vec<Port> {
        self.netback.hot().collect()
    }

    pub(crate) fn event_ports(&self) -> Vec<EvtPort> {
        self.netback.event_ports().collect()
    }

    /// Everything that waits in the rings, read to private memory and answered.
    pub(crate) fn pull_all(&mut self) -> (Vec<Pulled1>, Vec<DropReason>) {
        let (mut frames, mut bad) = (Vec::new(), Vec::new());
        for port in self.hot() {
            loop {
                match self.pull(port) {
                    Pulled::Frame(frame) => frames.push(frame),
                    Pulled::Bad(reason) => bad.push(reason),
                    Pulled::Empty => break,
                }
            }
            if let Some(vif) = self.netback.vif(port) {
                vif.publish(&mut self.h);
            }
        }
        (frames, bad)
    }

    fn pull(&mut self, port: Port) -> Pulled<Pulled1> {
        let Self { h, netback, private, .. } = self;
        let vif = netback.vif(port).expect("a vif");
        let mut pieces = Vec::new();
        let frame = match vif.pull(h, &mut pieces) {
            Pulled::Frame(frame) => frame,
            Pulled::Bad(reason) => return Pulled::Bad(reason),
            Pulled::Empty => return Pulled::Empty,
        };
        let mut ops = Vec::new();
        // Somewhere that makes it cross pages of private memory.
        let got = vif.heads(&frame, &pieces, frame.len as usize, 100, private.as_mut(), &mut ops);
        assert_eq!(got, frame.len as usize);
        h.copy(private, &mut ops).unwrap();
        let pulled = Pulled1 {
            from: port,
            bytes: private.as_ref()[100..100 + got].to_vec(),
            offload: frame.offload,
            slots: frame.pieces.len(),
        };
        let okay = all_okay(&ops);
        netback.vif(port).expect("a vif").done(h, frame);
        if okay { Pulled::Frame(pulled) } else { Pulled::Bad(DropReason::CopyFailed) }
    }

    /// Sends `bytes` to `port`: a new head of `head` bytes, the rest in pieces of these lengths.
    pub(crate) fn send(
        &mut self,
        port: Port,
        bytes: &[u8],
        head: usize,
        pieces: &[u16],
        offload: Offload,
    ) -> Result<(), DropReason> {
        let mut ops = Vec::new();
        let memory = self.private.as_mut();
        memory[HEAD_AT..HEAD_AT + head].copy_from_slice(&bytes[..head]);
        let mut from = head;
        let mut rest = Vec::new();
        for (n, len) in pieces.iter().enumerate() {
            let at = REST_AT + n * PAGE_SIZE;
            memory[at..at + usize::from(*len)]
                .copy_from_slice(&bytes[from..from + usize::from(*len)]);
            from += usize::from(*len);
            let page = CopyEnd::Private((at / PAGE_SIZE) as u16);
            rest.push(Piece { at: page, offset: 0, len: *len });
        }
        assert_eq!(from, bytes.len());
        let head = Head { bytes: &bytes[..head], private_offset: HEAD_AT as u32 };
        let vif = self.netback.vif(port).ok_or(DropReason::EgressDown)?;
        let staged = vif.stage(&mut self.h, head, &rest, offload, &mut ops)?;
        self.finish(port, staged, ops)
    }

    fn finish(
        &mut self,
        port: Port,
        staged: xen::io::Staged,
        mut ops: Vec<CopyOp>,
    ) -> Result<(), DropReason> {
        self.h.copy(&mut self.private, &mut ops).unwrap();
        let vif = self.netback.vif(port).expect("a vif");
        let result = vif.commit(&mut self.h, staged, &ops);
        vif.publish(&mut self.h);
        result
    }

    /// Passes the next frame of `from` on to `to`, its first bytes replaced by `head`, without ever
    /// holding the rest.
    pub(crate) fn forward(&mut self, from: Port, to: Port, head: &[u8]) -> Result<(), DropReason> {
        let mut pieces = Vec::new();
        let vif = self.netback.vif(from).expect("a vif");
        let frame: Incoming = match vif.pull(&mut self.h, &mut pieces) {
            Pulled::Frame(frame) => frame,
            other => panic!("no frame to forward: {other:?}"),
        };
        self.private.as_mut()[HEAD_AT..HEAD_AT + head.len()].copy_from_slice(head);
        let rest = skip(&mut pieces, head.len() as u32);
        let head = Head { bytes: head, private_offset: HEAD_AT as u32 };
        let mut ops = Vec::new();
        let vif = self.netback.vif(to).ok_or(DropReason::EgressDown)?;
        let staged = vif.stage(&mut self.h, head, rest, frame.offload, &mut ops);
        let result = staged.and_then(|staged| self.finish(to, staged, ops));
        let vif = self.netback.vif(from).expect("a vif");
        vif.done(&mut self.h, frame);
        vif.publish(&mut self.h);
        result
    }
}

/// An Ethernet frame of `len` bytes that is unlike others of another `seed`.
pub(crate) fn frame(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..len).map(|n| (n as u8).wrapping_mul(31).wrapping_add((n >> 8) as u8) ^ seed).collect();
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes
}
