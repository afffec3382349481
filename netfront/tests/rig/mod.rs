//! A guest with nothing but an uplink, on a simulated machine with XenStore and a toolstack.

#![allow(dead_code, reason = "each test program uses its part of it")]

use core::time::Duration;
use netfront::{Config, Netfront, Notice, Slots};
use wire::{DropReason, Instant, Mac, Offload, Port, PortSlot};
use xen::hypervisor::{
    CopyEnd, CopyOp, DomId, FrameNo, GrantStatus, Hypervisor, Memory, PAGE_SIZE, Page,
};
use xen::io::{Device, Head, Incoming, Piece, Pulled};
use xen::sim::peer_back::{Offers, PeerBack};
use xen::sim::toolstack::{Toolstack, VifSpec};
use xen::sim::xenstored::{Caller, Xenstored};
use xen::sim::{Holdings, Sim, SimHypervisor, SimPage, SimPrivate};
use xen::store::{Client, Tag};

pub(crate) const GUEST: DomId = DomId(7);
pub(crate) const MAC: Mac = Mac([0, 0x16, 0x3e, 0x5e, 0x6c, 0]);
/// Longer than anything here takes; virtual.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Rig {
    pub(crate) sim: Sim,
    pub(crate) xs: Xenstored,
    pub(crate) tools: Toolstack,
    pub(crate) h: SimHypervisor,
    pub(crate) store: Client<SimPage>,
    pub(crate) store_page: FrameNo,
    pub(crate) front: Netfront<SimHypervisor>,
    pub(crate) private: SimPrivate,
    /// Of all frames that were pulled.
    pub(crate) pieces: Vec<Piece>,
    pub(crate) notices: Vec<Notice>,
}

/// A backend and the vif it serves.
pub(crate) struct Uplink {
    pub(crate) spec: VifSpec,
    pub(crate) peer: PeerBack,
}

/// A frame as it was pulled.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) offload: Offload,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(1, Config::new(PortSlot(0), Tag(9)))
    }

    pub(crate) fn with(seed: u64, config: Config) -> Self {
        let sim = Sim::new(seed);
        let xs = Xenstored::new(&sim);
        let (page, port) = xs.introduce(GUEST);
        let mut h = sim.domain(GUEST);
        Self {
            tools: Toolstack::new(&sim, &xs),
            store_page: page.frame(),
            store: Client::new(page, port),
            front: Netfront::new(config),
            private: h.private(32).unwrap(),
            pieces: Vec::new(),
            notices: Vec::new(),
            h,
            xs,
            sim,
        }
    }

    /// A connected rig and its backend in domain 1.
    pub(crate) fn connected() -> (Self, Uplink) {
        Self::connected_to(Offers::default())
    }

    pub(crate) fn connected_to(offers: Offers) -> (Self, Uplink) {
        let mut rig = Self::new();
        let uplink = rig.plug(1, 0, offers);
        rig.until("up", |rig| rig.front.port().is_some());
        (rig, uplink)
    }

    /// `xl network-attach` with a backend in domain `back`.
    pub(crate) fn plug(&self, back: u16, handle: u32, offers: Offers) -> Uplink {
        let mut spec = VifSpec::new(GUEST, DomId(back), handle, MAC);
        spec.driver_domain = false;
        self.tools.attach(spec.clone());
        let peer = PeerBack::start(&self.sim, &self.xs, &spec, offers);
        Uplink { spec, peer }
    }

    /// `xl network-detach`, to its end.
    pub(crate) fn unplug(&mut self, uplink: &Uplink) {
        let job = self.tools.detach(&uplink.spec);
        let tools = self.tools.clone();
        self.until("detached", |_| tools.progress(job) == xen::sim::toolstack::Progress::Done);
        uplink.peer.stop();
    }

    /// One turn of the guest; returns when it wants the next.
    pub(crate) fn turn(&mut self) -> Option<Instant> {
        let pending = self.h.take_pending();
        self.store.pump(&mut self.h);
        while let Some(event) = self.store.next_event() {
            self.front.on_store(&mut self.h, &mut self.store, &event);
        }
        self.front.on_event(&mut self.h, &pending);
        let now = self.h.now();
        let next = self.front.tick(&mut self.h, &mut self.store, now);
        self.store.pump(&mut self.h);
        while let Some(notice) = self.front.next_notice() {
            self.notices.push(notice);
        }
        next
    }

    /// Runs the machine until `done`.
    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = self.h.now() + DEADLINE;
        loop {
            let next = self.turn();
            if done(self) {
                return;
            }
            let late = self.h.now() >= deadline;
            assert!(!late, "not {what} after {DEADLINE:?}; {:?} {}", self.notices, self.states());
            let until = next.map_or(deadline, |next| next.min(deadline));
            self.h.poll(&[], Some(until)).unwrap();
        }
    }

    /// Runs the machine for a while.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.h.now() + time;
        while self.h.now() < end {
            let next = self.turn();
            self.h.poll(&[], Some(next.map_or(end, |next| next.min(end)))).unwrap();
        }
        self.turn();
    }

    /// Until the backend has had its say and nothing is on its way.
    pub(crate) fn settle(&mut self) {
        self.run_for(Duration::from_millis(1));
    }

    /// The states of all devices and their backends, for a human.
    fn states(&self) -> String {
        let root = format!("/local/domain/{}/device/vif", GUEST.0);
        let who = Caller::Toolstack;
        let names = self.xs.with(|store| store.directory(who, None, &root)).unwrap_or_default();
        let state = |dir: &str| self.xs.value(&format!("{dir}/state"));
        let device = |name: &String| {
            let front = format!("{root}/{name}");
            let back = self.xs.value(&format!("{front}/backend")).unwrap_or_default();
            format!("{name}: ours {:?}, {back}: {:?}; ", state(&front), state(&back))
        };
        names.iter().map(device).collect()
    }

    pub(crate) fn problems(&self) -> Vec<&str> {
        let problems = self.notices.iter().filter_map(|notice| match notice {
            Notice::Problem { text } => Some(text.as_str()),
            Notice::Up { .. } | Notice::Down { .. } => None,
        });
        problems.collect()
    }

    pub(crate) fn ups(&self) -> Vec<Port> {
        let up = |notice: &Notice| match notice {
            Notice::Up { port, .. } => Some(*port),
            _ => None,
        };
        self.notices.iter().filter_map(up).collect()
    }

    pub(crate) fn room(&self) -> u32 {
        let Slots(room) = self.front.room();
        room
    }

    pub(crate) fn posted(&self) -> u32 {
        let Slots(posted) = self.front.posted();
        posted
    }

    /// What a leak would show in.
    pub(crate) fn held(&self) -> (Holdings, usize, usize, usize) {
        self.xs.with(|store| {
            let who = Caller::Domain(GUEST);
            (
                self.sim.holdings(GUEST),
                store.watches_of(who),
                store.transactions_of(who),
                self.front.quarantined(),
            )
        })
    }

    /// Pages of the guest with `bytes` in them, for the rest of a frame.
    pub(crate) fn body(&mut self, parts: &[&[u8]]) -> (Vec<Piece>, Vec<SimPage>) {
        let mut pieces = Vec::new();
        let mut pages = Vec::new();
        for part in parts {
            let page = self.h.page().unwrap();
            page.write(0, part);
            let (at, len) = (CopyEnd::Page(page.frame()), u16::try_from(part.len()).unwrap());
            pieces.push(Piece { at, offset: 0, len });
            pages.push(page);
        }
        (pieces, pages)
    }

    /// Sends `head` and the `parts` behind it, each in a page of its own, and shows it.
    pub(crate) fn send(
        &mut self,
        head: &[u8],
        parts: &[&[u8]],
        how: Offload,
    ) -> Result<(), DropReason> {
        let result = self.commit(head, parts, how);
        self.front.publish(&mut self.h);
        result
    }

    /// The same without showing it.
    pub(crate) fn commit(
        &mut self,
        head: &[u8],
        parts: &[&[u8]],
        how: Offload,
    ) -> Result<(), DropReason> {
        let (pieces, pages) = self.body(parts);
        let mut ops: Vec<CopyOp> = Vec::new();
        let head = Head { bytes: head, private_offset: 0 };
        let staged = self.front.stage(&mut self.h, head, &pieces, how, &mut ops);
        let result = staged.and_then(|staged| {
            if self.h.copy(&mut self.private, &mut ops).is_err() {
                ops.iter_mut().for_each(|op| op.status = GrantStatus::GENERAL_ERROR);
            }
            self.front.commit(&mut self.h, staged, &ops)
        });
        pages.into_iter().for_each(|page| self.h.free(page));
        result
    }

    pub(crate) fn private_bytes(&mut self) -> &mut [u8] {
        self.private.as_mut()
    }

    /// Pulls one frame, without giving it back.
    pub(crate) fn pull(&mut self) -> Pulled<Incoming> {
        self.front.pull(&mut self.h, &mut self.pieces)
    }

    /// All bytes of a frame, and its pages given back.
    pub(crate) fn take(&mut self, incoming: Incoming) -> Frame {
        let want = incoming.len as usize;
        let private = self.private.as_mut();
        let copied = self.front.heads(&incoming, &self.pieces, want, 0, private, &mut Vec::new());
        assert_eq!(copied, want);
        let bytes = private[..want].to_vec();
        let frame = Frame { bytes, offload: incoming.offload };
        self.front.done(&mut self.h, incoming);
        frame
    }

    /// Pulls all there is, gives it back and shows it.
    pub(crate) fn receive(&mut self) -> Vec<Result<Frame, DropReason>> {
        let mut frames = Vec::new();
        loop {
            match self.pull() {
                Pulled::Frame(incoming) => frames.push(Ok(self.take(incoming))),
                Pulled::Bad(reason) => frames.push(Err(reason)),
                Pulled::Empty => break,
            }
        }
        self.front.publish(&mut self.h);
        frames
    }
}

/// `len` bytes that tell their place, beginning with an Ethernet header of type `ether_type`.
pub(crate) fn frame(ether_type: u16, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|n| (n * 7 + n / 251) as u8).collect();
    bytes[12..14].copy_from_slice(&ether_type.to_be_bytes());
    bytes
}

/// Behind a head of `head` bytes in pieces of a page.
pub(crate) fn pages(bytes: &[u8], head: usize) -> (&[u8], Vec<&[u8]>) {
    let (head, rest) = bytes.split_at(head);
    (head, rest.chunks(PAGE_SIZE).collect())
}
