//! The rings of a frontend that takes its backend as seriously as Linux' xen-netfront does.
//!
//! In: frames to send, and whatever the backend writes. Out: frames received, and the reason why Linux
//! would have given the device up. Never: forgives: where Linux sets `broken` or logs an error, that
//! is noted for the test to see.

use crate::hypervisor::{Access, DomId, EvtPort, GrantRef, Hypervisor, Memory, PAGE_SIZE, Page};
use crate::netif::{
    Extra, ExtraKind, Rx, RxFlags, RxRequest, RxResponse, Status, Tx, TxFlags, TxRequest,
    TxResponse,
};
use crate::ring::{Front, RingIndex, SLOTS};
use crate::sim::{Label, SimHypervisor, SimPage};
use std::format;
use std::string::String;
use std::vec::Vec;
use wire::{Csum, Gso, Offload, Takes};

/// Most slots of a received frame (`XEN_NETIF_NR_SLOTS_MIN`), one more if the first is short.
const RX_SLOTS_MAX: usize = 18;
/// Frames that arrive with no more in their first slot are pulled out of their page.
const RX_COPY_THRESHOLD: i16 = 256;
/// Page fragments of a received frame (`MAX_SKB_FRAGS`).
const FRAGS_MAX: usize = 17;
/// Where the headers of a frame lie in their page in [`Slots::Linux`].
const LINEAR_AT: usize = 0x142;
/// How much stands with the headers of a frame that is no TCP segment.
const LINEAR_MAX: usize = 256;
/// Where the first fragment lies in its page.
const FRAG_AT: usize = 1024;

/// How a frame is laid into slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slots {
    /// As Linux has it in memory: headers in one page, payload in others. Those of TCP stand alone.
    Linux,
    /// As Linux does for a backend it does not trust: copied to whole pages of its own.
    Bounced,
    /// Data slots of these lengths, each at the offset given.
    Exactly(Vec<(u16, u16)>),
}

impl Slots {
    /// (offset, length) of each data slot of a frame.
    fn cut(&self, frame: &[u8]) -> Vec<(u16, u16)> {
        let mut slots = Vec::new();
        let mut left = frame.len();
        let mut add = |at: usize, max: usize| {
            let part = left.min(max);
            if part != 0 {
                slots.push((at as u16, part as u16));
            }
            left -= part;
            left != 0
        };
        match self {
            Self::Exactly(slots) => return slots.clone(),
            Self::Bounced => while add(0, PAGE_SIZE) {},
            // What fits one page behind its offset goes as one buffer.
            Self::Linux if frame.len() <= 1514 => {
                add(LINEAR_AT, 1514);
            }
            Self::Linux => {
                add(LINEAR_AT, tcp_headers(frame).unwrap_or(LINEAR_MAX));
                if add(FRAG_AT, PAGE_SIZE - FRAG_AT) {
                    while add(0, PAGE_SIZE) {}
                }
            }
        }
        slots
    }
}

/// Length of all headers of a TCP segment without IP options or extension headers.
fn tcp_headers(frame: &[u8]) -> Option<usize> {
    let (protocol, l4) = match frame.get(12..15)? {
        [0x08, 0x00, 0x45] => (*frame.get(23)?, 34),
        [0x86, 0xdd, _] => (*frame.get(20)?, 54),
        _ => return None,
    };
    let header = usize::from(frame.get(l4 + 12)? >> 4) * 4;
    (protocol == 6).then_some(l4 + header)
}

/// A frame to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What the backend is asked to do.
    pub offload: Offload,
    /// Its place in memory.
    pub slots: Slots,
    /// A label for all of its bytes.
    pub label: Label,
}

impl Outgoing {
    /// A frame with nothing left to do.
    #[must_use]
    pub fn plain(bytes: impl Into<Vec<u8>>) -> Self {
        let (offload, label) = (Offload::NONE, Label::OURS);
        Self { bytes: bytes.into(), offload, slots: Slots::Linux, label }
    }
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What the backend left to do or vouches for.
    pub offload: Offload,
    /// Data slots it came in.
    pub slots: usize,
}

/// A page lent to the backend.
struct Lent {
    page: SimPage,
    gref: GrantRef,
}

/// Both rings and their event channel.
pub(super) struct Rings {
    backend: DomId,
    tx: Front<Tx, SimPage>,
    rx: Front<Rx, SimPage>,
    refs: [GrantRef; 2],
    /// Of the TX and the RX ring; mostly the same.
    pub(super) ports: [EvtPort; 2],
    /// In flight, by id.
    sent: Vec<Option<Lent>>,
    /// Ids of slots that carry no page: extras.
    extras: usize,
    /// Posted, by the slot of the request.
    posted: Vec<Option<Lent>>,
    pub(super) rx_target: u32,
    /// What was published of it.
    pub(super) takes: Takes,
    pub(super) broken: Option<String>,
    pub(super) errors: Vec<String>,
    pub(super) received: Vec<Received>,
    /// Statuses of TX responses that were not OKAY.
    pub(super) refused: Vec<Status>,
}

impl Rings {
    pub(super) fn new(h: &mut SimHypervisor, backend: DomId, rx_target: u32, split: bool) -> Self {
        let mut ring = || h.page().expect("a page for a ring");
        let (tx, rx) = (ring(), ring());
        let (tx, rx) = (Front::<Tx, _>::new(tx), Front::<Rx, _>::new(rx));
        let mut lend =
            |page| h.grant(backend, page, Access::ReadWrite).expect("a grant for a ring");
        let refs = [lend(tx.page()), lend(rx.page())];
        let mut port = || h.alloc_unbound(backend).expect("a port");
        let tx_port = port();
        let ports = [tx_port, if split { port() } else { tx_port }];
        Self {
            backend,
            tx,
            rx,
            refs,
            ports,
            sent: (0..SLOTS).map(|_| None).collect(),
            extras: 0,
            posted: (0..SLOTS).map(|_| None).collect(),
            rx_target,
            takes: Takes::ALL,
            broken: None,
            errors: Vec::new(),
            received: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// The grants of the TX and the RX ring.
    pub(super) fn refs(&self) -> [u32; 2] {
        [self.refs[0].number(), self.refs[1].number()]
    }

    /// The pages of the TX and the RX ring.
    pub(super) fn pages(&self) -> [&SimPage; 2] {
        [self.tx.page(), self.rx.page()]
    }

    /// Gives everything back; what the backend still has mapped is returned, to be tried again.
    pub(super) fn dismantle(self, h: &mut SimHypervisor) -> Vec<(GrantRef, SimPage)> {
        h.close(self.ports[0]);
        if self.ports[1] != self.ports[0] {
            h.close(self.ports[1]);
        }
        let lent = self.sent.into_iter().chain(self.posted).flatten().map(|l| (l.gref, l.page));
        let [tx_ref, rx_ref] = self.refs;
        let rings = [(tx_ref, self.tx.into_page()), (rx_ref, self.rx.into_page())];
        give_back(h, lent.chain(rings).collect())
    }

    /// Slots a frame takes.
    fn slots_of(frame: &Outgoing) -> usize {
        frame.slots.cut(&frame.bytes).len() + usize::from(frame.offload.gso.is_some())
    }

    /// Puts a frame into the TX ring. Returns whether there was room.
    pub(super) fn send(&mut self, h: &mut SimHypervisor, frame: &Outgoing) -> bool {
        if self.broken.is_some() || Self::slots_of(frame) > self.tx.free() as usize {
            return false;
        }
        let cut = frame.slots.cut(&frame.bytes);
        let count = cut.len();
        let mut from = 0;
        for (n, (offset, len)) in cut.into_iter().enumerate() {
            let page = h.page().expect("a page for a frame");
            let to = from + usize::from(len);
            page.write(offset.into(), frame.bytes.get(from..to).unwrap_or_default());
            h.sim().label(page.frame(), offset.into(), len.into(), frame.label);
            from = to;
            let gref = h.grant(self.backend, &page, Access::ReadOnly).expect("a grant");
            let id = self.sent.iter().position(Option::is_none).expect("an id") as u16;
            let first = if n == 0 { TxFlags::of(frame.offload) } else { TxFlags(0) };
            let request = TxRequest {
                gref: gref.number(),
                offset,
                flags: first.with_if(TxFlags::MORE_DATA, n + 1 < count),
                id,
                size: if n == 0 { frame.bytes.len() as u16 } else { len },
            };
            self.sent[usize::from(id)] = Some(Lent { page, gref });
            self.push_tx(&request.encode());
            if let Some(gso) = frame.offload.gso.filter(|_| n == 0) {
                self.extras += 1;
                self.push_tx(&Extra::gso(gso).encode_tx());
            }
        }
        self.publish_tx(h);
        true
    }

    /// Writes a slot, whatever it says; it is shown to the backend by the next
    /// [`publish_tx`](Self::publish_tx).
    pub(super) fn push_tx(&mut self, slot: &[u8; 12]) {
        self.tx.push(slot).expect("room in the TX ring");
    }

    pub(super) fn publish_tx(&mut self, h: &mut SimHypervisor) {
        if self.tx.publish() {
            let _ = h.notify(self.ports[0]);
        }
    }

    /// TX slots not yet answered.
    pub(super) const fn in_flight(&self) -> u32 {
        self.tx.outstanding()
    }

    /// Harvests both rings and posts buffers, as the interrupt handler of Linux does.
    pub(super) fn turn(&mut self, h: &mut SimHypervisor) {
        while self.broken.is_none() && (self.harvest(h) | self.receive(h)) {}
        self.post(h);
    }

    fn breaks(&mut self, why: String) -> bool {
        self.broken.get_or_insert(why);
        false
    }

    /// xennet_tx_buf_gc.
    fn harvest(&mut self, h: &mut SimHypervisor) -> bool {
        loop {
            match self.tx.take() {
                Err(broken) => {
                    return self.breaks(format!("illegal number of responses: {broken:?}"));
                }
                Ok(None) => break,
                Ok(Some((_, slot))) => {
                    let response = TxResponse::decode(&slot);
                    if response.status == Status::NULL {
                        if self.extras == 0 {
                            return self.breaks("a NULL response to a data slot".into());
                        }
                        self.extras -= 1;
                        continue;
                    }
                    if response.status != Status::OKAY {
                        self.refused.push(response.status);
                    }
                    let lent = self.sent.get_mut(usize::from(response.id)).and_then(Option::take);
                    let Some(lent) = lent else {
                        return self
                            .breaks(format!("response with id {} not in flight", response.id));
                    };
                    match h.end(lent.gref) {
                        Ok(()) => h.free(lent.page),
                        Err(_) => return self.breaks("grant still in use by backend".into()),
                    }
                }
            }
        }
        self.tx.arm(1).unwrap_or_default()
    }

    /// xennet_poll: frames as far as there are responses.
    fn receive(&mut self, h: &mut SimHypervisor) -> bool {
        loop {
            match self.rx.take() {
                Err(broken) => {
                    return self.breaks(format!("illegal number of responses: {broken:?}"));
                }
                Ok(None) => break,
                Ok(Some((index, slot))) => match self.frame(h, index, RxResponse::decode(&slot)) {
                    Ok(frame) => self.received.push(frame),
                    Err(error) => self.errors.push(error),
                },
            }
        }
        self.rx.arm(1).unwrap_or_default()
    }

    /// xennet_get_responses and handle_incoming_queue.
    fn frame(
        &mut self,
        h: &mut SimHypervisor,
        index: RingIndex,
        head: RxResponse,
    ) -> Result<Received, String> {
        let mut error = None;
        let mut bytes = Vec::new();
        let (mut gso, mut extras_done) = (None, !head.flags.has(RxFlags::EXTRA_INFO));
        let (mut index, mut response) = (index, head);
        let (mut slots, mut frags) = (0, 0);
        loop {
            slots += 1;
            frags += usize::from(slots > 1 || response.status.0 > RX_COPY_THRESHOLD);
            let page = self.posted[index.slot()].take();
            match (self.buffer(h, page), response.status.0) {
                (None, _) => drop(error.get_or_insert("bad rx response id".into())),
                (Some(_), status @ ..0) => {
                    error.get_or_insert(format!("rx->status {status}"));
                }
                (Some(data), status) => {
                    let range = usize::from(response.offset)..;
                    match data.get(range).and_then(|d| d.get(..status as usize)) {
                        Some(part) => bytes.extend_from_slice(part),
                        None => drop(error.get_or_insert("rx->offset + status > page".into())),
                    }
                }
            }
            while !extras_done {
                let Some((at, slot)) = self.rx.take().ok().flatten() else {
                    return Err("missing extra info".into());
                };
                let unused = self.posted[at.slot()].take();
                self.buffer(h, unused);
                match Extra::decode_rx(&slot) {
                    Ok(Extra { kind: ExtraKind::Gso(request), more }) => {
                        gso = Some(request);
                        extras_done = !more;
                    }
                    other => {
                        error.get_or_insert(format!("invalid extra: {other:?}"));
                        extras_done = true;
                    }
                }
            }
            if !response.flags.has(RxFlags::MORE_DATA) {
                break;
            }
            match self.rx.take().ok().flatten() {
                Some((at, slot)) => (index, response) = (at, RxResponse::decode(&slot)),
                None => return Err("need more slots".into()),
            }
        }
        let max = RX_SLOTS_MAX + usize::from(head.status.0 <= RX_COPY_THRESHOLD);
        if slots > max || frags > FRAGS_MAX {
            error.get_or_insert(format!("too many slots: {slots}"));
        }
        let offload = offload(head.flags, gso);
        if !self.takes.frame(&bytes, offload) || (!self.takes.sg && slots > 1) {
            error.get_or_insert(format!("{offload:?} in {slots} slots, which was not offered"));
        }
        match error {
            Some(error) => Err(error),
            None => Ok(Received { bytes, offload, slots }),
        }
    }

    /// The bytes of a buffer the backend has answered; it is ours again.
    fn buffer(&mut self, h: &mut SimHypervisor, lent: Option<Lent>) -> Option<Vec<u8>> {
        let lent = lent?;
        let mut bytes = std::vec![0; PAGE_SIZE];
        if h.end(lent.gref).is_err() {
            self.breaks("rx grant still in use by backend".into());
            return None;
        }
        lent.page.read(0, &mut bytes);
        h.free(lent.page);
        Some(bytes)
    }

    /// xennet_alloc_rx_buffers.
    pub(super) fn post(&mut self, h: &mut SimHypervisor) {
        while self.broken.is_none() && self.rx.outstanding() < self.rx_target.min(SLOTS) {
            let page = h.page().expect("a page for a buffer");
            let gref = h.grant(self.backend, &page, Access::ReadWrite).expect("a grant");
            let index = self.rx.next_request();
            let request = RxRequest { id: index.slot() as u16, gref: gref.number() };
            self.rx.push(&request.encode()).expect("room in the RX ring");
            self.posted[index.slot()] = Some(Lent { page, gref });
        }
        if self.rx.publish() {
            let _ = h.notify(self.ports[1]);
        }
    }

    /// Takes the grant of a posted buffer back behind the backend's back.
    pub(super) fn revoke_posted(&mut self, h: &mut SimHypervisor) {
        for lent in self.posted.iter_mut().filter_map(Option::take) {
            if h.end(lent.gref).is_ok() {
                h.free(lent.page);
            }
        }
    }
}

/// Ends grants and frees their pages; returns those still in use.
pub(super) fn give_back(
    h: &mut SimHypervisor,
    lent: Vec<(GrantRef, SimPage)>,
) -> Vec<(GrantRef, SimPage)> {
    let mut kept = Vec::new();
    for (gref, page) in lent {
        match h.end(gref) {
            Ok(()) => h.free(page),
            Err((gref, _)) => kept.push((gref, page)),
        }
    }
    kept
}

fn offload(flags: RxFlags, gso: Option<Gso>) -> Offload {
    let csum = if flags.has(RxFlags::CSUM_BLANK) {
        Csum::Blank
    } else if flags.has(RxFlags::DATA_VALIDATED) {
        Csum::Valid
    } else {
        Csum::Unknown
    };
    Offload { csum, gso }
}
