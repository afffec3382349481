//! libxenvchan in domain 0, as tools/libs/vchan has it: the ends that dom0's daemons use.
//!
//! It asks to be signalled and signals exactly where the library does, so that a peer that forgets a
//! signal or a wish hangs, as it would with the real one. Nothing here is shared with what it tests.

use super::xenstored::{Caller, STORE_DOM, Xenstored};
use super::{Sim, SimHypervisor, SimMapped, SimPage};
use crate::hypervisor::{Access, DomId, EvtPort, GrantRef, Hypervisor, Memory, PAGE_SIZE};
use crate::store::wire::{Perm, PermLetter};
use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

/// An end of a channel.
pub struct LibVchan {
    xs: Xenstored,
    h: SimHypervisor,
    end: End,
    port: EvtPort,
    read: Ring,
    write: Ring,
}

enum End {
    Server { control: SimPage, pages: Vec<SimPage>, grants: Vec<GrantRef>, path: String },
    Client { control: SimMapped, pages: Vec<SimMapped> },
}

#[derive(Clone, Copy)]
struct Ring {
    /// Where `cons` and then `prod` stand in the control page.
    at: usize,
    order: u32,
    /// Its first page, if it does not stand in the control page.
    first: usize,
}

impl Ring {
    const fn size(self) -> u32 {
        1 << self.order
    }

    const fn pages(self) -> usize {
        if self.order < 12 { 0 } else { 1 << (self.order - 12) }
    }
}

const SERVER_LIVES: usize = 21;
const CLIENT_LIVES: usize = 20;
const WRITE: u8 = 1;
const READ: u8 = 2;

impl LibVchan {
    /// libxenvchan_server_init for `client`, with rings of at least so many bytes.
    #[must_use]
    pub fn server(sim: &Sim, xs: &Xenstored, client: DomId, port: u32, min: [u32; 2]) -> Self {
        let mut h = sim.domain(STORE_DOM);
        let event = h.alloc_unbound(client).expect("a port");
        let [left, right] = orders(min);
        let control = h.page().expect("a page");
        let mut grants = vec![h.grant(client, &control, Access::ReadWrite).expect("a grant")];
        let read = Ring { at: 0, order: left, first: 0 };
        let write = Ring { at: 8, order: right, first: read.pages() };
        let mut pages = Vec::new();
        for n in 0..read.pages() + write.pages() {
            let page = h.page().expect("a page");
            let grant = h.grant(client, &page, Access::ReadWrite).expect("a grant");
            control.store(24 + 4 * n, grant.number());
            pages.push(page);
            grants.push(grant);
        }
        control.store(16, left | right << 16);
        control.write(CLIENT_LIVES, &[2, 1, WRITE]);
        let path = format!("/local/domain/0/data/vchan/{}/{port}", client.0);
        tell(xs, &path, client, grants[0].number(), event);
        let end = End::Server { control, pages, grants, path };
        Self { xs: xs.clone(), h, end, port: event, read, write }
    }

    /// libxenvchan_client_init; `None` if there is nothing to connect to.
    #[must_use]
    pub fn client(sim: &Sim, xs: &Xenstored, server: DomId, port: u32) -> Option<Self> {
        let mut h = sim.domain(STORE_DOM);
        let number = |node: &str| {
            let path = format!("/local/domain/{}/data/vchan/0/{port}/{node}", server.0);
            xs.value(&path)?.parse::<u32>().ok().filter(|number| *number != 0)
        };
        let (ring_ref, remote) = (number("ring-ref")?, number("event-channel")?);
        let event = h.bind_interdomain(server, remote).ok()?;
        let Ok(control) = h.map(server, ring_ref, Access::ReadWrite) else {
            h.close(event);
            return None;
        };
        let orders = control.load(16);
        let (left, right) = (orders & 0xffff, orders >> 16);
        let range = 10..=20;
        assert!(range.contains(&left) && range.contains(&right), "orders {left} and {right}");
        assert!(left != right || left >= 12, "both rings of order {left}");
        let write = Ring { at: 0, order: left, first: 0 };
        let read = Ring { at: 8, order: right, first: write.pages() };
        let mut pages = Vec::new();
        for n in 0..write.pages() + read.pages() {
            let access = if n < write.pages() { Access::ReadWrite } else { Access::ReadOnly };
            pages.push(h.map(server, control.load(24 + 4 * n), access).expect("a page of a ring"));
        }
        control.write(CLIENT_LIVES, &[1]);
        control.write(23, &[WRITE]);
        h.notify(event).expect("the server's port");
        Some(Self {
            xs: xs.clone(),
            h,
            end: End::Client { control, pages },
            port: event,
            read,
            write,
        })
    }

    /// The event channel.
    #[must_use]
    pub const fn port(&self) -> EvtPort {
        self.port
    }

    /// libxenvchan_is_open: 2 means that no client has come yet.
    #[must_use]
    pub fn is_open(&self) -> u8 {
        let (at, mut lives) = match self.end {
            End::Server { .. } => (CLIENT_LIVES, [0]),
            End::Client { .. } => (SERVER_LIVES, [0]),
        };
        self.control().read(at, &mut lives);
        lives[0]
    }

    /// libxenvchan_read of at most `max` bytes, not blocking.
    pub fn read(&mut self, max: usize) -> Vec<u8> {
        let mut ready = self.data_ready();
        if (ready as usize) < max {
            self.request(WRITE);
            ready = self.data_ready();
        }
        let len = max.min(ready as usize);
        let cons = self.control().load(self.read.at);
        let bytes = (0..len).map(|n| self.byte(self.read, cons.wrapping_add(n as u32))).collect();
        if len > 0 {
            self.control().store(self.read.at, cons.wrapping_add(len as u32));
            self.signal(READ);
        }
        bytes
    }

    /// libxenvchan_write, not blocking; how many bytes there was room for.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let mut room = self.buffer_space();
        if (room as usize) < bytes.len() {
            self.request(READ);
            room = self.buffer_space();
        }
        let len = bytes.len().min(room as usize);
        let prod = self.control().load(self.write.at + 4);
        for (n, byte) in bytes.iter().take(len).enumerate() {
            self.put(prod.wrapping_add(n as u32), *byte);
        }
        if len > 0 {
            self.control().store(self.write.at + 4, prod.wrapping_add(len as u32));
            self.signal(WRITE);
        }
        len
    }

    /// libxenvchan_close; also what the kernel does for a process that died.
    pub fn close(mut self) {
        let port = self.port;
        match self.end {
            End::Server { control, pages, grants, path } => {
                control.write(SERVER_LIVES, &[0]);
                // The kernel keeps what is still mapped.
                for (page, grant) in [control].into_iter().chain(pages).zip(grants) {
                    if self.h.end(grant).is_ok() {
                        self.h.free(page);
                    }
                }
                let _gone = self.h.notify(port);
                self.xs.remove(&path);
            }
            End::Client { control, pages } => {
                control.write(CLIENT_LIVES, &[0]);
                for page in pages.into_iter().chain([control]) {
                    self.h.unmap(page).expect("a mapped page");
                }
                let _gone = self.h.notify(port);
            }
        }
        self.h.close(port);
    }

    /// Removes what the server told, as Qubes' wrapper does when its client has come.
    pub fn hide(&self) {
        if let End::Server { path, .. } = &self.end {
            self.xs.remove(path);
        }
    }

    /// Writes an index that cannot be true.
    pub fn lie(&mut self, prod: u32) {
        self.control().store(self.write.at + 4, prod);
        let _signal = self.h.notify(self.port);
    }

    fn control(&self) -> &dyn Memory {
        match &self.end {
            End::Server { control, .. } => control,
            End::Client { control, .. } => control,
        }
    }

    fn place(&self, ring: Ring, index: u32) -> (&dyn Memory, usize) {
        let at = (index & (ring.size() - 1)) as usize;
        if ring.order < 12 {
            return (self.control(), (1 << ring.order) + at);
        }
        let page = ring.first + at / PAGE_SIZE;
        match &self.end {
            End::Server { pages, .. } => (&pages[page], at % PAGE_SIZE),
            End::Client { pages, .. } => (&pages[page], at % PAGE_SIZE),
        }
    }

    fn byte(&self, ring: Ring, index: u32) -> u8 {
        let (page, at) = self.place(ring, index);
        let mut byte = [0];
        page.read(at, &mut byte);
        byte[0]
    }

    fn put(&self, index: u32, byte: u8) {
        let (page, at) = self.place(self.write, index);
        page.write(at, &[byte]);
    }

    /// More than the ring holds locks it up.
    fn data_ready(&self) -> u32 {
        let (cons, prod) =
            (self.control().load(self.read.at), self.control().load(self.read.at + 4));
        let ready = prod.wrapping_sub(cons);
        if ready > self.read.size() { 0 } else { ready }
    }

    fn buffer_space(&self) -> u32 {
        let (cons, prod) =
            (self.control().load(self.write.at), self.control().load(self.write.at + 4));
        let room = self.write.size().wrapping_sub(prod.wrapping_sub(cons));
        if room > self.write.size() { 0 } else { room }
    }

    fn request(&self, bit: u8) {
        let shift = if matches!(self.end, End::Server { .. }) { 16 } else { 24 };
        self.control().fetch_or(20, u32::from(bit) << shift);
    }

    fn signal(&mut self, bit: u8) {
        let shift = if matches!(self.end, End::Server { .. }) { 24 } else { 16 };
        let bit = u32::from(bit) << shift;
        if self.control().fetch_and(20, !bit) & bit != 0 {
            let _gone = self.h.notify(self.port);
        }
    }
}

/// The orders libxenvchan_server_init gives the rings.
fn orders(min: [u32; 2]) -> [u32; 2] {
    let order = |min: u32| min.max(4096).next_power_of_two().ilog2();
    match min {
        [0..=1024, 0..=2048] => [10, 11],
        [0..=2048, 0..=1024] => [11, 10],
        [0..=2048, right] => [11, order(right)],
        [left, 0..=2048] => [order(left), 11],
        [left, right] => [order(left), order(right)],
    }
}

/// init_xs_srv.
fn tell(xs: &Xenstored, path: &str, client: DomId, ring_ref: u32, event: EvtPort) {
    let who = Caller::Domain(STORE_DOM);
    let perms = vec![
        Perm { letter: PermLetter::None, dom: STORE_DOM },
        Perm { letter: PermLetter::Read, dom: client },
    ];
    let told = xs.with(|store| {
        let tx = store.begin(who)?;
        for (node, number) in [("ring-ref", ring_ref), ("event-channel", event.0)] {
            let node = format!("{path}/{node}");
            store.write(who, Some(tx), &node, number.to_string().as_bytes())?;
            store.set_perms(who, Some(tx), &node, perms.clone())?;
        }
        store.end(who, tx, true)
    });
    told.expect("domain 0 may write below its home");
}
