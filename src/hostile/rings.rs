//! Both rings of a vif, word by word: nothing here keeps an attack from writing what it likes.
//!
//! In: slots and indices, right or wrong. Out: them, in pages the backend has mapped. Never: checks,
//! but for what would hurt this domain only.

#![forbid(unsafe_code)]

use crate::guest::{Guest, Nodes, Wrong};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use xen::hypervisor::{
    Access, DomId, EvtPort, GrantRef, Hypervisor, Memory, PAGE_SIZE, StillMapped,
};
use xen::netif::{RxRequest, RxResponse, TxFlags, TxRequest, TxResponse};
use xen::raw::{Own, Shared, Xen};

/// Places of the indices in a ring page (ring.h).
pub(crate) const REQ_PROD: usize = 0;
const RSP_PROD: usize = 8;
const RSP_EVENT: usize = 12;
const SLOTS_AT: usize = 64;
const TX_SLOT: usize = 12;
const RX_SLOT: usize = 8;
/// Slots of a ring.
pub(crate) const SLOTS: u32 = 256;
/// How often a page in use is asked for; a copy in mid-way takes a few.
const TRIES: u32 = 1 << 24;
/// Buffers an honest moment has posted.
pub(crate) const BUFFERS: u32 = 32;

/// A page lent to somebody.
pub(crate) struct Lent {
    pub(crate) page: Shared<Own>,
    gref: GrantRef,
}

impl Lent {
    /// Lends a zeroed page.
    pub(crate) fn new(xen: &mut Xen, to: DomId, access: Access) -> Result<Self, Wrong> {
        let page = xen.page().map_err(|_| "no page is left")?;
        let gref = xen.grant(to, &page, access).map_err(|_| "no grant is left")?;
        Ok(Self { page, gref })
    }

    /// What the peer is told.
    pub(crate) const fn number(&self) -> u32 {
        self.gref.number()
    }

    /// Takes the page back as soon as the peer does not use it just now; lost if it does for long.
    pub(crate) fn end(self, xen: &mut Xen) {
        let mut gref = self.gref;
        for _ in 0..TRIES {
            match xen.end(gref) {
                Ok(()) => return xen.free(self.page),
                Err((still, StillMapped)) => gref = still,
            }
        }
    }
}

/// Both rings and what was lent through them.
pub(crate) struct Rings {
    pub(crate) tx: Lent,
    pub(crate) rx: Lent,
    pub(crate) port: EvtPort,
    pub(crate) tx_prod: u32,
    tx_cons: u32,
    pub(crate) rx_prod: u32,
    rx_cons: u32,
    /// Pages that frames stand in.
    sent: Vec<Lent>,
    /// Buffers, by the slot they were posted in.
    posted: BTreeMap<u32, Lent>,
    /// Further grants of the ring pages.
    pub(crate) aliases: Vec<GrantRef>,
}

impl Rings {
    /// Empty rings and an event channel.
    pub(crate) fn open(guest: &mut Guest) -> Result<Self, Wrong> {
        let (xen, to) = (&mut guest.xen, guest.backend);
        let mut ring = || {
            let lent = Lent::new(xen, to, Access::ReadWrite)?;
            lent.page.store(RSP_EVENT, 1);
            Ok::<_, Wrong>(lent)
        };
        let (tx, rx) = (ring()?, ring()?);
        let port = xen.alloc_unbound(to).map_err(|errno| format!("event channel: {errno:?}"))?;
        let (sent, posted, aliases) = (Vec::new(), BTreeMap::new(), Vec::new());
        let (tx_prod, tx_cons, rx_prod, rx_cons) = (0, 0, 0, 0);
        Ok(Self { tx, rx, port, tx_prod, tx_cons, rx_prod, rx_cons, sent, posted, aliases })
    }

    /// What an honest frontend publishes about them.
    pub(crate) fn nodes(&self) -> Nodes {
        let number = |n: u32| n.to_string().into_bytes();
        let mut nodes = Nodes::from([
            ("tx-ring-ref", number(self.tx.number())),
            ("rx-ring-ref", number(self.rx.number())),
            ("event-channel", number(self.port.0)),
        ]);
        for on in ["request-rx-copy", "feature-sg", "feature-gso-tcpv4", "feature-rx-notify"] {
            nodes.insert(on, b"1".into());
        }
        nodes
    }

    /// Gives everything back; the backend has let go of it, or does so soon.
    pub(crate) fn close(self, xen: &mut Xen) {
        xen.close(self.port);
        for alias in self.aliases {
            let _in_use = xen.end(alias);
        }
        let lent = self.sent.into_iter().chain(self.posted.into_values());
        lent.chain([self.tx, self.rx]).for_each(|lent| lent.end(xen));
    }

    /// Writes a TX slot, unseen until [`show`](Self::show).
    pub(crate) fn put(&mut self, slot: &[u8; TX_SLOT]) {
        let at = SLOTS_AT + (self.tx_prod % SLOTS) as usize * TX_SLOT;
        self.tx.page.write(at, slot);
        self.tx_prod = self.tx_prod.wrapping_add(1);
    }

    /// Writes an RX slot, unseen until [`show_buffers`](Self::show_buffers).
    pub(crate) fn put_buffer(&mut self, gref: u32) {
        let at = SLOTS_AT + (self.rx_prod % SLOTS) as usize * RX_SLOT;
        let request = RxRequest { id: (self.rx_prod % SLOTS) as u16, gref };
        self.rx.page.write(at, &request.encode());
        self.rx_prod = self.rx_prod.wrapping_add(1);
    }

    /// Publishes the TX slots and signals, asked or not.
    pub(crate) fn show(&self, xen: &mut Xen) -> Result<(), Wrong> {
        self.tx.page.store(REQ_PROD, self.tx_prod);
        self.signal(xen)
    }

    /// Publishes the RX slots.
    pub(crate) fn show_buffers(&self) {
        self.rx.page.store(REQ_PROD, self.rx_prod);
    }

    /// Signals the backend.
    pub(crate) fn signal(&self, xen: &mut Xen) -> Result<(), Wrong> {
        xen.notify(self.port).map_err(|errno| format!("notify: {errno:?}"))
    }

    /// Lends a page with `bytes` at `offset` and returns its number.
    pub(crate) fn lend(
        &mut self,
        guest: &mut Guest,
        offset: usize,
        bytes: &[u8],
    ) -> Result<u32, Wrong> {
        let lent = Lent::new(&mut guest.xen, guest.backend, Access::ReadOnly)?;
        lent.page.write(offset, bytes);
        let number = lent.number();
        self.sent.push(lent);
        Ok(number)
    }

    /// Sends a frame of at most a page, as an honest frontend would.
    pub(crate) fn send(&mut self, guest: &mut Guest, frame: &[u8]) -> Result<(), Wrong> {
        self.send_with(guest, frame, TxFlags(0), &[])
    }

    /// The same with these flags and slots behind the first.
    pub(crate) fn send_with(
        &mut self,
        guest: &mut Guest,
        frame: &[u8],
        flags: TxFlags,
        more: &[[u8; TX_SLOT]],
    ) -> Result<(), Wrong> {
        let gref = self.lend(guest, 0, frame)?;
        let size = frame.len() as u16;
        self.put(&TxRequest { gref, offset: 0, flags, id: 1, size }.encode());
        more.iter().for_each(|slot| self.put(slot));
        self.show(&mut guest.xen)
    }

    /// Lends this page as long as the connection lasts.
    pub(crate) fn keep(&mut self, lent: Lent) {
        self.sent.push(lent);
    }

    /// Ends all grants of frames, whatever the backend does with them just now.
    pub(crate) fn revoke_sent(&mut self, xen: &mut Xen) {
        self.sent.drain(..).for_each(|lent| lent.end(xen));
    }

    /// The answers to TX slots that came since the last call.
    pub(crate) fn answers(&mut self) -> Vec<TxResponse> {
        let prod = self.tx.page.load(RSP_PROD);
        let mut answers = Vec::new();
        while self.tx_cons != prod && answers.len() < SLOTS as usize {
            let mut slot = [0; TX_SLOT];
            self.tx.page.read(SLOTS_AT + (self.tx_cons % SLOTS) as usize * TX_SLOT, &mut slot);
            answers.push(TxResponse::decode(&slot));
            self.tx_cons = self.tx_cons.wrapping_add(1);
        }
        self.tx.page.store(RSP_EVENT, self.tx_cons.wrapping_add(1));
        answers
    }

    /// Whether every TX slot was answered, and no more than there were.
    pub(crate) fn all_answered(&mut self) -> Result<bool, Wrong> {
        let _answers = self.answers();
        let ahead = self.tx_cons.wrapping_sub(self.tx_prod);
        if ahead != 0 && ahead < SLOTS {
            return Err(format!("{ahead} answers to slots that were not sent"));
        }
        Ok(ahead == 0)
    }

    /// Posts as many buffers as an honest moment has.
    pub(crate) fn post_buffers(&mut self, guest: &mut Guest) -> Result<(), Wrong> {
        while self.unanswered_buffers() < BUFFERS {
            let lent = Lent::new(&mut guest.xen, guest.backend, Access::ReadWrite)?;
            self.post(lent);
        }
        self.show_buffers();
        Ok(())
    }

    fn post(&mut self, lent: Lent) {
        let (place, number) = (self.rx_prod % SLOTS, lent.number());
        self.put_buffer(number);
        self.posted.insert(place, lent);
    }

    /// RX slots the backend has not answered.
    pub(crate) const fn unanswered_buffers(&self) -> u32 {
        self.rx_prod.wrapping_sub(self.rx_cons)
    }

    /// The frames that came, each in one slot. Their buffers are posted again: the next bytes in them
    /// are for us as well.
    pub(crate) fn receive(&mut self) -> Vec<Vec<u8>> {
        let prod = self.rx.page.load(RSP_PROD);
        let mut frames = Vec::new();
        while self.rx_cons != prod && frames.len() < SLOTS as usize {
            let place = self.rx_cons % SLOTS;
            let mut slot = [0; RX_SLOT];
            self.rx.page.read(SLOTS_AT + place as usize * RX_SLOT, &mut slot);
            self.rx_cons = self.rx_cons.wrapping_add(1);
            // What an attack posted is not to be read.
            let Some(lent) = self.posted.remove(&place) else { continue };
            let len = usize::try_from(RxResponse::decode(&slot).status.0).unwrap_or(0);
            let mut bytes = vec![0; len.min(PAGE_SIZE)];
            lent.page.read(0, &mut bytes);
            frames.push(bytes);
            self.post(lent);
        }
        self.rx.page.store(RSP_EVENT, self.rx_cons.wrapping_add(1));
        self.show_buffers();
        frames
    }
}
