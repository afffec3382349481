//! The rings of a backend that takes its frontend as seriously as Linux' xen-netback does.
//!
//! In: frames to deliver, and whatever the frontend writes. Out: frames it sent, and the reason why
//! Linux would have disabled the vif. Never: forgives. What a hostile backend would do is done when
//! a test asks for it: see [`Tricks`] and [`RxSlot`].

use crate::hypervisor::{Access, CopyEnd, CopyOp, DomId, EvtPort, Hypervisor, Memory, PAGE_SIZE};
use crate::netif::{
    Extra, Rx, RxFlags, RxRequest, RxResponse, Status, Tx, TxAnswer, TxFrame, read_tx,
};
use crate::ring::{Back, RingIndex};
use crate::sim::{Label, SimHypervisor, SimMapped, SimPrivate};
use std::collections::VecDeque;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;
use wire::{Csum, Offload, Takes};

/// Where the producer index of the responses stands in a ring page.
const RSP_PROD: usize = 8;

/// A frame as it came from the frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What was left to do.
    pub offload: Offload,
    /// Bytes in each data slot.
    pub slots: Vec<u16>,
}

/// One slot to be written to the RX ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RxSlot {
    /// Data, and the response that tells of it.
    Data {
        /// Copied to the posted page, as far as they fit behind `offset`.
        bytes: Vec<u8>,
        /// Where in the page.
        offset: u16,
        /// As given.
        flags: RxFlags,
        /// Instead of the number of bytes.
        status: Option<Status>,
        /// Instead of the request's.
        id: Option<u16>,
    },
    /// A slot as it is; its page stays as it was.
    Raw([u8; 8]),
}

impl RxSlot {
    /// Honest data.
    #[must_use]
    pub fn data(bytes: &[u8], flags: RxFlags) -> Self {
        Self::Data { bytes: bytes.into(), offset: 0, flags, status: None, id: None }
    }

    /// The slots Linux would use for a frame: whole pages, the extra behind the first.
    #[must_use]
    pub fn frame(bytes: &[u8], offload: Offload) -> Vec<Self> {
        let count = bytes.len().div_ceil(PAGE_SIZE);
        let mut slots = Vec::new();
        for (n, part) in bytes.chunks(PAGE_SIZE).enumerate() {
            let flags = if n == 0 { RxFlags::of(offload) } else { RxFlags(0) };
            slots.push(Self::data(part, flags.with_if(RxFlags::MORE_DATA, n + 1 != count)));
            if let (0, Some(gso)) = (n, offload.gso) {
                slots.push(Self::Raw(Extra::gso(gso).encode_rx()));
            }
        }
        slots
    }
}

/// What a backend does that it should not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tricks {
    /// Takes frames and answers none of them, until this is off again.
    pub hold_tx: bool,
    /// Answers one frame a turn, and takes a turn each millisecond.
    pub slow_tx: bool,
    /// Keeps the pages of frames mapped when it answers them.
    pub keep_tx: bool,
    /// Maps the pages it fills, and keeps them so.
    pub keep_rx: bool,
    /// Keeps the rings mapped when it disconnects.
    pub keep_rings: bool,
    /// Does not look at the frontend's state.
    pub deaf: bool,
    /// No trick: the label of all bytes it delivers.
    pub label: Label,
}

/// Both rings, mapped and bound.
pub(super) struct Rings {
    front: DomId,
    takes: Takes,
    tx: Back<Tx, SimMapped>,
    rx: Back<Rx, SimMapped>,
    port: EvtPort,
    private: SimPrivate,
    unanswered: VecDeque<(TxAnswer, Vec<SimMapped>)>,
    kept: Vec<SimMapped>,
    pub(super) received: Vec<Received>,
    pub(super) queue: VecDeque<Vec<RxSlot>>,
    /// Why Linux would have disabled the vif.
    pub(super) dead: Option<String>,
}

impl Rings {
    /// Maps and binds what the frontend published.
    pub(super) fn connect(
        h: &mut SimHypervisor,
        front: DomId,
        [tx, rx, port]: [u32; 3],
        takes: Takes,
    ) -> Result<Self, String> {
        let tx = map(h, front, tx, "tx")?;
        let rx = match map(h, front, rx, "rx") {
            Ok(rx) => rx,
            Err(why) => return give_up(h, vec![tx], why),
        };
        let (tx, rx) = match (Back::attach(tx), Back::attach(rx)) {
            (Ok(tx), Ok(rx)) => (tx, rx),
            (tx, rx) => {
                let tx = tx.map_or_else(|(page, _)| page, Back::into_page);
                let rx = rx.map_or_else(|(page, _)| page, Back::into_page);
                return give_up(h, vec![tx, rx], "ring indices out of range".into());
            }
        };
        let port = match h.bind_interdomain(front, port) {
            Ok(port) => port,
            Err(errno) => {
                let why = format!("binding event-channel {port}: errno {}", errno.0);
                return give_up(h, vec![tx.into_page(), rx.into_page()], why);
            }
        };
        Ok(Self {
            front,
            takes,
            tx,
            rx,
            port,
            private: h.private(1).map_err(|_| String::from("no private memory"))?,
            unanswered: VecDeque::new(),
            kept: Vec::new(),
            received: Vec::new(),
            queue: VecDeque::new(),
            dead: None,
        })
    }

    /// Unmaps and unbinds everything; what the tricks keep is returned.
    pub(super) fn disconnect(self, h: &mut SimHypervisor, tricks: Tricks) -> Vec<SimMapped> {
        h.close(self.port);
        let mut kept = self.kept;
        for (_, pages) in self.unanswered {
            release(h, pages, tricks.keep_tx, &mut kept);
        }
        release(h, vec![self.tx.into_page(), self.rx.into_page()], tricks.keep_rings, &mut kept);
        kept
    }

    /// Takes what was sent, delivers what waits, and signals if asked for.
    pub(super) fn run(&mut self, h: &mut SimHypervisor, tricks: Tricks) {
        if self.dead.is_none() {
            self.take(h);
            if !tricks.hold_tx {
                self.answer(h, tricks);
            }
            while self.dead.is_none() && self.deliver(h, tricks) {}
            let (tx, rx) = (self.tx.publish(), self.rx.publish());
            if tx || rx {
                h.notify(self.port).expect("a bound port");
            }
        }
    }

    fn take(&mut self, h: &mut SimHypervisor) {
        loop {
            let tx = &mut self.tx;
            let mut broken = false;
            let next = read_tx(|| match tx.take() {
                Ok(next) => next,
                Err(_) => {
                    broken = true;
                    None
                }
            });
            let packet = match next {
                _ if broken => return self.die("tx ring: impossible producer index"),
                Err(fault) => return self.die(&format!("tx ring: {fault:?}")),
                Ok(Some(packet)) => packet,
                Ok(None) => match tx.arm(1) {
                    Ok(true) => continue,
                    Ok(false) => return,
                    Err(_) => return self.die("tx ring: impossible producer index"),
                },
            };
            let pages = match packet.frame {
                Ok(frame) => self.receive(h, &frame),
                Err(reason) => {
                    return self.die(&format!("tx ring: a frame to be dropped: {reason}"));
                }
            };
            self.unanswered.push_back((packet.answer, pages));
        }
    }

    fn receive(&mut self, h: &mut SimHypervisor, frame: &TxFrame) -> Vec<SimMapped> {
        let mut bytes = Vec::new();
        let mut pages = Vec::new();
        for data in &frame.data {
            if let Ok(page) = h.map(self.front, data.gref, Access::ReadWrite) {
                h.unmap(page).expect("a mapped page");
                self.die("a page to be read is lent for writing");
            }
            match h.map(self.front, data.gref, Access::ReadOnly) {
                Ok(page) => {
                    let mut part = vec![0; usize::from(data.len)];
                    page.read(usize::from(data.offset), &mut part);
                    bytes.extend(part);
                    pages.push(page);
                }
                Err(status) => self.die(&format!("mapping frame page {}: {}", data.gref, status.0)),
            }
        }
        if frame.offload.gso.is_some() && frame.offload.csum != Csum::Blank {
            self.die("a GSO frame whose checksum is not blank");
        }
        if !self.takes.frame(&bytes, frame.offload) {
            self.die(&format!("a frame with {:?}, which was not offered", frame.offload));
        }
        if !self.takes.sg && frame.data.len() > 1 {
            self.die("a frame in several slots, which was not offered");
        }
        let slots = frame.data.iter().map(|data| data.len).collect();
        self.received.push(Received { bytes, offload: frame.offload, slots });
        pages
    }

    fn answer(&mut self, h: &mut SimHypervisor, tricks: Tricks) {
        let now = if tricks.slow_tx { 1 } else { self.unanswered.len() };
        for (answer, pages) in self.unanswered.drain(..now.min(self.unanswered.len())) {
            release(h, pages, tricks.keep_tx, &mut self.kept);
            for (index, response) in answer.responses(Status::OKAY) {
                self.tx.answer(index, &response.encode());
            }
        }
    }

    /// Delivers the first frame of the queue if there are requests for all of it.
    fn deliver(&mut self, h: &mut SimHypervisor, tricks: Tricks) -> bool {
        let Some(slots) = self.queue.front() else { return false };
        let wanted = u32::try_from(slots.len()).expect("few slots");
        match self.rx.requests() {
            Err(_) => {
                self.die("rx ring: impossible producer index");
                return false;
            }
            // Those that came before the frontend saw that we wait are there now.
            Ok(there) if there < wanted => return self.rx.arm(wanted) == Ok(true),
            Ok(_) => {}
        }
        let slots = self.queue.pop_front().unwrap_or_default();
        for slot in slots {
            let Ok(Some((index, request))) = self.rx.take() else { return false };
            let response = self.fill(h, tricks, index, RxRequest::decode(&request), slot);
            self.rx.answer(index, &response);
        }
        true
    }

    fn fill(
        &mut self,
        h: &mut SimHypervisor,
        tricks: Tricks,
        index: RingIndex,
        request: RxRequest,
        slot: RxSlot,
    ) -> [u8; 8] {
        let (bytes, offset, flags, status, id) = match slot {
            RxSlot::Raw(raw) => return raw,
            RxSlot::Data { bytes, offset, flags, status, id } => (bytes, offset, flags, status, id),
        };
        if usize::from(request.id) != index.slot() {
            self.die(&format!("rx ring: id {} at index {}", request.id, index.0));
        }
        let fits = bytes.len().min(PAGE_SIZE.saturating_sub(usize::from(offset)));
        self.private.as_mut()[..fits].copy_from_slice(&bytes[..fits]);
        self.private.labels.borrow_mut().fill(tricks.label);
        let dst = CopyEnd::Grant { dom: self.front, gref: request.gref };
        let len = u16::try_from(fits).expect("a page");
        let mut op = CopyOp::new(CopyEnd::Private(0), 0, dst, offset, len);
        if fits != 0 {
            h.copy(&mut self.private, core::slice::from_mut(&mut op)).expect("a copy");
        }
        if fits != 0 && !op.status.is_okay() {
            self.die(&format!("rx page {}: {}", request.gref, op.status.0));
        }
        if tricks.keep_rx
            && let Ok(page) = h.map(self.front, request.gref, Access::ReadWrite)
        {
            self.kept.push(page);
        }
        let len = u16::try_from(bytes.len()).expect("a short slot");
        let status = status.unwrap_or(Status::bytes(len));
        RxResponse { id: id.unwrap_or(request.id), offset, flags, status }.encode()
    }

    /// Whether frames wait for their answer.
    pub(super) fn is_behind(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// Answers a TX request that may never have been made.
    pub(super) fn answer_tx(&self, h: &mut SimHypervisor, raw: [u8; 12]) {
        let page = self.tx.page();
        let at = RingIndex(page.load(RSP_PROD));
        page.write(64 + at.slot() * 12, &raw);
        page.store(RSP_PROD, at.plus(1).0);
        h.notify(self.port).expect("a bound port");
    }

    /// Moves a producer index by `by`.
    pub(super) fn overrun(&self, h: &mut SimHypervisor, tx: bool, by: u32) {
        let page = if tx { self.tx.page() } else { self.rx.page() };
        page.store(RSP_PROD, page.load(RSP_PROD).wrapping_add(by));
        h.notify(self.port).expect("a bound port");
    }

    /// Unmaps what was kept.
    pub(super) fn let_go(&mut self, h: &mut SimHypervisor) {
        release(h, core::mem::take(&mut self.kept), false, &mut Vec::new());
    }

    fn die(&mut self, why: &str) {
        self.dead.get_or_insert_with(|| why.into());
    }
}

fn map(h: &mut SimHypervisor, front: DomId, gref: u32, name: &str) -> Result<SimMapped, String> {
    h.map(front, gref, Access::ReadWrite)
        .map_err(|status| format!("mapping {name}-ring-ref {gref}: {}", status.0))
}

fn give_up<T>(h: &mut SimHypervisor, pages: Vec<SimMapped>, why: String) -> Result<T, String> {
    release(h, pages, false, &mut Vec::new());
    Err(why)
}

pub(super) fn release(
    h: &mut SimHypervisor,
    pages: Vec<SimMapped>,
    keep: bool,
    kept: &mut Vec<SimMapped>,
) {
    for page in pages {
        if keep {
            kept.push(page);
        } else {
            h.unmap(page).expect("a mapped page");
        }
    }
}
