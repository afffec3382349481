//! The real hypervisor: [`Hypervisor`] by hypercalls and shared pages, for one vCPU.
//!
//! In: the machine as boot found it. Out: pages, grants, events, time. Never: policy, a wait other
//! than [`Hypervisor::poll`], or trust in what a peer wrote.
#![allow(unsafe_code)]

pub mod abi;
pub mod call;
mod clock;
mod grants;
mod memory;

pub use memory::{Lent, Own, Private, Shared};

use crate::hypervisor::{
    Access, CopyOp, DomId, Errno, EvtPort, FrameNo, GrantRef, GrantStatus, Hypervisor, NoMemory,
    NoRef, PAGE_SIZE, Page, PortSet, Shutdown, StillMapped,
};
use abi::{
    AddToPhysmap, GrantEntry, MapGrantRef, QuerySize, SetupTable, UnmapGrantRef, gntmap, gnttabop,
    nr, pte, shared_info, xenmem,
};
use alloc::vec::Vec;
use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use wire::Instant;
const SELF: u16 = DomId::SELF.0;
/// Pages of the grant table we use at most: 32768 references, Xen's default limit.
const GRANT_FRAMES: usize = 64;
/// GNTST_no_space (grant_table.h): here, no address is left to map at.
const NO_SPACE: GrantStatus = GrantStatus(-13);

/// How this guest runs, and how Xen calls its pages.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    /// Paravirtual: frames are machine frames, looked up by our page number.
    Pv {
        /// The machine frame of each page of ours.
        p2m: &'static [u64],
        /// Machine address of the shared info page.
        shared_info: u64,
    },
    /// Hardware-assisted without emulation: frames are our own page numbers.
    Pvh,
}

/// What boot hands over.
#[derive(Debug)]
pub struct Machine {
    /// PV or PVH.
    pub mode: Mode,
    /// Addresses with page tables but without memory (PVH: identity mapped and without RAM), for
    /// pages of Xen and of other domains. The first becomes the shared info page.
    pub window: core::ops::Range<usize>,
    /// Takes contiguous pages nobody else uses, for good. Their address is that of the page number.
    pub take: fn(pages: usize) -> Option<NonNull<u8>>,
}

/// Xen.
#[derive(Debug)]
pub struct Xen {
    machine: Machine,
    info: NonNull<shared_info>,
    grants: grants::Table,
    pages: Stack<NonNull<u8>>,
    /// Addresses of the window that were used and are empty again.
    holes: Stack<NonNull<u8>>,
    /// Words of the event channel bitmap in which ports of ours can be.
    words: usize,
    last: Cell<u64>,
}

/// Things to be used again. Room to put one back is made when it is first taken.
#[derive(Debug)]
struct Stack<T> {
    spare: Vec<T>,
    made: usize,
}

impl<T> Stack<T> {
    const fn new() -> Self {
        Self { spare: Vec::new(), made: 0 }
    }

    fn take(&mut self, make: impl FnOnce() -> Option<T>) -> Option<T> {
        self.spare.pop().or_else(|| {
            self.spare.try_reserve(self.made + 1).ok()?;
            let thing = make()?;
            self.made += 1;
            Some(thing)
        })
    }
}

impl Xen {
    /// Maps shared info and grant table, and masks all event channels.
    ///
    /// # Safety
    /// Called once, with hypercalls working, and `machine` is as its fields say.
    ///
    /// # Errors
    /// The errno of the hypercall that Xen refused.
    pub unsafe fn new(mut machine: Machine) -> Result<Self, Errno> {
        const NO_WINDOW: Errno = Errno(12);
        let mut next = || take_page(&mut machine.window).ok_or(NO_WINDOW);
        let info = next()?;
        match machine.mode {
            // SAFETY: the address is in the window, thus not in use.
            Mode::Pv { shared_info, .. } => unsafe {
                call::update_va_mapping(info.addr().get(), shared_info | pte::DATA)?;
            },
            Mode::Pvh => add_to_physmap(xenmem::SHARED_INFO, 0, info)?,
        }
        let mut size = QuerySize { dom: SELF, ..QuerySize::default() };
        // SAFETY: query_size writes its structure only.
        unsafe { call::grant_table_op(gnttabop::QUERY_SIZE, core::slice::from_mut(&mut size))? };
        let frames = GRANT_FRAMES.min(size.max_nr_frames as usize);
        let table = next()?;
        for _ in 1..frames {
            next()?;
        }
        map_grant_table(machine.mode, table, frames)?;
        // SAFETY: just mapped, with 512 entries a page.
        let grants = unsafe { grants::Table::new(table.cast::<GrantEntry>(), frames as u32 * 512) };
        let xen = Self {
            machine,
            info: info.cast(),
            grants,
            pages: Stack::new(),
            holes: Stack::new(),
            // The toolstack's ports are the first a domain gets.
            words: 1,
            last: Cell::new(0),
        };
        xen.masks().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
        Ok(xen)
    }

    /// The ring page of the toolstack that is mapped at `at`.
    ///
    /// # Safety
    /// It is such a page, and stays mapped.
    #[must_use]
    pub const unsafe fn ring(at: NonNull<u8>) -> Shared<Lent> {
        // SAFETY: the caller's promise.
        unsafe { Shared::new(at, Lent(None)) }
    }

    fn words(&self, first: *mut u64) -> impl Iterator<Item = &AtomicU64> {
        // SAFETY: `first` is one of the two bitmaps of the shared info page, 64 words each.
        (0..64).map(move |i| unsafe { AtomicU64::from_ptr(first.add(i)) })
    }

    fn pending(&self) -> impl Iterator<Item = &AtomicU64> {
        // SAFETY: inside the shared info page.
        self.words(unsafe { &raw mut (*self.info.as_ptr()).evtchn_pending }.cast())
    }

    fn masks(&self) -> impl Iterator<Item = &AtomicU64> {
        // SAFETY: inside the shared info page.
        self.words(unsafe { &raw mut (*self.info.as_ptr()).evtchn_mask }.cast())
    }

    /// From now on `port` is looked for among those pending.
    fn know(&mut self, port: u32) -> EvtPort {
        self.words = self.words.max(port as usize / 64 + 1);
        EvtPort(port)
    }

    fn frame(&self, at: usize) -> FrameNo {
        let number = at / PAGE_SIZE;
        FrameNo(match self.machine.mode {
            Mode::Pv { p2m, .. } => p2m.get(number).copied().unwrap_or(u64::MAX),
            Mode::Pvh => number as u64,
        })
    }
}

fn take_page(window: &mut core::ops::Range<usize>) -> Option<NonNull<u8>> {
    let at = window.start;
    (at < window.end).then(|| window.start += PAGE_SIZE)?;
    NonNull::new(core::ptr::with_exposed_provenance_mut(at))
}

fn add_to_physmap(space: u32, idx: u64, at: NonNull<u8>) -> Result<(), Errno> {
    let gpfn = (at.addr().get() / PAGE_SIZE) as u64;
    let mut arg = AddToPhysmap { domid: SELF, size: 0, space, idx, gpfn };
    // SAFETY: the page is in the window, where no RAM is.
    unsafe { call::op::<{ nr::MEMORY_OP }, _>(xenmem::ADD_TO_PHYSMAP, &mut arg) }.map(drop)
}

fn map_grant_table(mode: Mode, at: NonNull<u8>, frames: usize) -> Result<(), Errno> {
    // SAFETY: the addresses are consecutive pages of the window.
    let page = |i: usize| unsafe { at.add(i * PAGE_SIZE) };
    let mut list = [0_u64; GRANT_FRAMES];
    if let Mode::Pv { .. } = mode {
        let frame_list = list.as_mut_ptr();
        let mut setup = SetupTable { dom: SELF, nr_frames: frames as u32, status: 0, frame_list };
        // SAFETY: the list has room for that many frames.
        unsafe { call::grant_table_op(gnttabop::SETUP_TABLE, core::slice::from_mut(&mut setup))? };
    }
    for (i, frame) in list.iter().take(frames).enumerate() {
        match mode {
            // SAFETY: the address is in the window, thus not in use.
            Mode::Pv { .. } => unsafe {
                call::update_va_mapping(page(i).addr().get(), frame << 12 | pte::DATA)?;
            },
            Mode::Pvh => add_to_physmap(xenmem::GRANT_TABLE, i as u64, page(i))?,
        }
    }
    Ok(())
}

impl Hypervisor for Xen {
    type Page = Shared<Own>;
    type Mapped = Shared<Lent>;
    type Private = Private;

    fn now(&self) -> Instant {
        // SAFETY: `info` is the shared info page. The maximum hides what processors differ by.
        let now = unsafe { clock::system_time(self.info) }.max(self.last.get());
        self.last.set(now);
        Instant::from_nanos(now)
    }

    fn wall_clock(&self) -> Option<Duration> {
        // SAFETY: `info` is the shared info page.
        unsafe { clock::wall_clock(self.info) }
    }

    fn page(&mut self) -> Result<Self::Page, NoMemory> {
        let at = self.pages.take(|| (self.machine.take)(1)).ok_or(NoMemory)?;
        // SAFETY: a page of ours that nobody else uses.
        unsafe { at.write_bytes(0, PAGE_SIZE) };
        let frame = self.frame(at.addr().get());
        // SAFETY: as above, and no reference into it is ever made.
        Ok(unsafe { Shared::new(at, Own(frame)) })
    }

    fn free(&mut self, page: Self::Page) {
        self.pages.spare.push(page.at);
    }

    fn private(&mut self, pages: u16) -> Result<Self::Private, NoMemory> {
        let at = (self.machine.take)(pages.into()).ok_or(NoMemory)?;
        // SAFETY: pages of ours that nobody else uses.
        unsafe { at.write_bytes(0, usize::from(pages) * PAGE_SIZE) };
        Ok(Private { at, pages })
    }

    fn grant(&mut self, to: DomId, page: &Self::Page, access: Access) -> Result<GrantRef, NoRef> {
        self.grants.grant(to, page.frame(), access)
    }

    fn end(&mut self, gref: GrantRef) -> Result<(), (GrantRef, StillMapped)> {
        self.grants.end(gref)
    }

    fn map(&mut self, of: DomId, gref: u32, access: Access) -> Result<Self::Mapped, GrantStatus> {
        let window = &mut self.machine.window;
        let at = self.holes.take(|| take_page(window)).ok_or(NO_SPACE)?;
        let readonly = if access == Access::ReadOnly { gntmap::READONLY } else { 0 };
        let mut op = MapGrantRef {
            host_addr: at.addr().get() as u64,
            flags: gntmap::HOST_MAP | readonly,
            gref,
            dom: of.0,
            ..MapGrantRef::default()
        };
        // SAFETY: the address is in the window and has no page.
        let done = unsafe {
            call::grant_table_op(gnttabop::MAP_GRANT_REF, core::slice::from_mut(&mut op))
        };
        let status = done.map_or(GrantStatus::GENERAL_ERROR, |_| GrantStatus(op.status));
        if !status.is_okay() {
            self.holes.spare.push(at);
            return Err(status);
        }
        // SAFETY: just mapped there.
        Ok(unsafe { Shared::new(at, Lent(Some(op.handle))) })
    }

    fn unmap(&mut self, page: Self::Mapped) -> Result<(), GrantStatus> {
        let Lent(Some(handle)) = page.kind else { return Err(GrantStatus::GENERAL_ERROR) };
        let host_addr = page.at.addr().get() as u64;
        let mut op = UnmapGrantRef { host_addr, handle, ..UnmapGrantRef::default() };
        // SAFETY: `page` was the only way to what is mapped there.
        let done = unsafe {
            call::grant_table_op(gnttabop::UNMAP_GRANT_REF, core::slice::from_mut(&mut op))
        };
        let status = done.map_or(GrantStatus::GENERAL_ERROR, |_| GrantStatus(op.status));
        if !status.is_okay() {
            return Err(status);
        }
        self.holes.spare.push(page.at);
        Ok(())
    }

    fn copy(&mut self, private: &mut Self::Private, ops: &mut [CopyOp]) -> Result<(), Errno> {
        for op in &mut *ops {
            // A page that is not there becomes a frame no domain has: Xen refuses that operation.
            op.resolve(|page| private.page(page).map_or(FrameNo(u64::MAX), |at| self.frame(at)));
        }
        // SAFETY: the operations are laid out as this command's (xen/src/copy.rs asserts it). Xen checks
        // that none crosses a page, and writes to pages that are shared anyway, or to `private`, which
        // we hold exclusively.
        unsafe { call::grant_table_op(gnttabop::COPY, ops) }.map(drop)
    }

    fn alloc_unbound(&mut self, remote: DomId) -> Result<EvtPort, Errno> {
        let mut arg = abi::evtchn_alloc_unbound { dom: SELF, remote_dom: remote.0, port: 0 };
        // SAFETY: the structure of this command.
        unsafe { call::op::<{ nr::EVENT_CHANNEL_OP }, _>(abi::EVTCHNOP_alloc_unbound, &mut arg)? };
        Ok(self.know(arg.port))
    }

    fn bind_interdomain(&mut self, remote: DomId, port: u32) -> Result<EvtPort, Errno> {
        let mut arg =
            abi::evtchn_bind_interdomain { remote_dom: remote.0, remote_port: port, local_port: 0 };
        // SAFETY: the structure of this command.
        unsafe {
            call::op::<{ nr::EVENT_CHANNEL_OP }, _>(abi::EVTCHNOP_bind_interdomain, &mut arg)?
        };
        Ok(self.know(arg.local_port))
    }

    fn close(&mut self, port: EvtPort) {
        let mut arg = abi::evtchn_close { port: port.0 };
        // SAFETY: the structure of this command. It fails for a port that is not open: nothing to do.
        let _was_open =
            unsafe { call::op::<{ nr::EVENT_CHANNEL_OP }, _>(abi::EVTCHNOP_close, &mut arg) };
        if let Some(word) = self.pending().nth(port.0 as usize / 64) {
            word.fetch_and(!(1 << (port.0 % 64)), Ordering::Relaxed);
        }
    }

    fn notify(&mut self, port: EvtPort) -> Result<(), Errno> {
        let mut arg = abi::evtchn_send { port: port.0 };
        // SAFETY: the structure of this command.
        unsafe { call::op::<{ nr::EVENT_CHANNEL_OP }, _>(abi::EVTCHNOP_send, &mut arg) }.map(drop)
    }

    fn take_pending(&mut self) -> PortSet {
        let mut set = PortSet::default();
        // Word by word, as Xen sets no selector bit for a masked port. Cleared before the rings are
        // looked at, so that what comes later is seen by the next poll.
        for (i, word) in self.pending().take(self.words).enumerate() {
            if word.load(Ordering::Relaxed) != 0 {
                set.add_word(i, word.swap(0, Ordering::SeqCst));
            }
        }
        set
    }

    fn poll(&mut self, hot: &[EvtPort], until: Option<Instant>) -> Result<(), Errno> {
        let mut arg = abi::sched_poll {
            // Xen only reads the list.
            ports: hot.as_ptr().cast_mut().cast(),
            nr_ports: hot.len() as u32,
            // 0 would be no time-out at all.
            timeout: until.map_or(0, |at| at.as_nanos().max(1)),
        };
        // SAFETY: the structure of this command; the list has `nr_ports` ports, each a number alone.
        unsafe { call::op::<{ nr::SCHED_OP }, _>(abi::SCHEDOP_poll, &mut arg) }.map(drop)
    }

    fn shutdown(&mut self, why: Shutdown) {
        shutdown(why)
    }
}

/// Ends this domain, for who has no [`Xen`] at hand.
pub fn shutdown(why: Shutdown) -> ! {
    let reason = match why {
        Shutdown::Poweroff => abi::SHUTDOWN_poweroff,
        Shutdown::Reboot => abi::SHUTDOWN_reboot,
        Shutdown::Crash => abi::SHUTDOWN_crash,
    };
    loop {
        let mut arg = abi::sched_shutdown { reason };
        // SAFETY: the structure of this command.
        let _never_returns =
            unsafe { call::op::<{ nr::SCHED_OP }, _>(abi::SCHEDOP_shutdown, &mut arg) };
    }
}
