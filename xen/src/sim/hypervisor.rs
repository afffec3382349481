//! [`Hypervisor`] for one domain of the machine.

use super::memory::View;
use super::{Bracket, Domain, Poll, Sim, SimMapped, SimPage, SimPrivate, events, grants};
use crate::hypervisor::{
    Access, CopyOp, DomId, Errno, EvtPort, GrantRef, GrantStatus, Hypervisor, NoMemory, NoRef,
    PAGE_SIZE, Page, PortSet, Shutdown, StillMapped,
};
use core::time::Duration;
use wire::Instant;

/// What the simulation answers instead of sleeping for ever: nobody would ever wake the domain.
const EDEADLK: Errno = Errno(35);
/// Most ports of one poll (do_poll, Xen).
const POLL_MAX: usize = 128;

/// Xen as one domain sees it. Clones act for the same domain.
#[derive(Clone)]
pub struct SimHypervisor {
    sim: Sim,
    dom: DomId,
}

impl SimHypervisor {
    pub(super) const fn new(sim: Sim, dom: DomId) -> Self {
        Self { sim, dom }
    }

    /// The domain's number.
    #[must_use]
    pub const fn dom(&self) -> DomId {
        self.dom
    }

    /// The machine.
    #[must_use]
    pub const fn sim(&self) -> &Sim {
        &self.sim
    }

    fn domain<T>(&self, f: impl FnOnce(&mut Domain) -> T) -> T {
        self.sim.with_domain(self.dom, f)
    }

    fn hypercall(&self) -> InCall {
        self.domain(|d| d.counters.hypercalls += 1);
        self.call()
    }

    /// From here to the end of the returned value, the simulation's own code runs.
    fn call(&self) -> InCall {
        self.sim.bracket(self.dom, Bracket::Call);
        InCall(self.clone())
    }
}

struct InCall(SimHypervisor);

impl Drop for InCall {
    fn drop(&mut self) {
        self.0.sim.bracket(self.0.dom, Bracket::EndOfCall);
    }
}

impl Hypervisor for SimHypervisor {
    type Page = SimPage;
    type Mapped = SimMapped;
    type Private = SimPrivate;

    fn now(&self) -> Instant {
        self.sim.now()
    }

    fn wall_clock(&self) -> Option<Duration> {
        const START: Duration = Duration::from_secs(1_800_000_000);
        Some(START + self.now().since(Instant::ZERO))
    }

    fn page(&mut self) -> Result<SimPage, NoMemory> {
        let _call = self.call();
        let full = self.domain(|d| d.pages_max.is_some_and(|max| d.pages >= max));
        if full {
            return Err(NoMemory);
        }
        self.domain(|d| d.pages += 1);
        let frame = self.sim.world.state.borrow_mut().new_frame(self.dom);
        Ok(SimPage::new(self.sim.clone(), self.dom, frame))
    }

    fn free(&mut self, page: SimPage) {
        let _call = self.call();
        self.domain(|d| d.pages -= 1);
        let frame = self.sim.world.state.borrow_mut().frames.remove(&page.frame());
        let frame = frame.expect("a page is freed once");
        assert!(!frame.is_shared(), "a page is freed that others may still use: {page:?}");
    }

    fn private(&mut self, pages: u16) -> Result<SimPrivate, NoMemory> {
        let _call = self.call();
        self.domain(|d| d.private += usize::from(pages));
        Ok(SimPrivate::new(pages, &mut self.sim.world.privates.borrow_mut()))
    }

    fn grant(&mut self, to: DomId, page: &SimPage, access: Access) -> Result<GrantRef, NoRef> {
        let _call = self.call();
        let gref = self.domain(|d| {
            let gref = d.grants.create(to, page.frame(), access)?;
            d.counters.grants += 1;
            Some(gref)
        });
        let gref = gref.ok_or(NoRef)?;
        if let Some(frame) = self.sim.world.state.borrow_mut().frames.get_mut(&page.frame()) {
            frame.lent_to.push(to);
        }
        self.sim.expose(page.frame(), 0, PAGE_SIZE);
        Ok(GrantRef::in_force(gref))
    }

    fn end(&mut self, gref: GrantRef) -> Result<(), (GrantRef, StillMapped)> {
        let _call = self.call();
        let Some((frame, to)) = self.domain(|d| d.grants.end(gref.number())) else {
            return Err((gref, StillMapped));
        };
        self.domain(|d| d.counters.ends += 1);
        if let Some(frame) = self.sim.world.state.borrow_mut().frames.get_mut(&frame)
            && let Some(at) = frame.lent_to.iter().position(|dom| *dom == to)
        {
            frame.lent_to.swap_remove(at);
        }
        Ok(())
    }

    fn map(&mut self, of: DomId, gref: u32, access: Access) -> Result<SimMapped, GrantStatus> {
        let _call = self.hypercall();
        let mut state = self.sim.world.state.borrow_mut();
        let frame = grants::resolve(&state, of, gref, self.dom, access)?;
        if let Some(granter) = state.domains.get_mut(&of) {
            granter.grants.pin(gref, self.dom);
        }
        if let Some(frame) = state.frames.get_mut(&frame) {
            frame.mappers.push((self.dom, of, gref));
        }
        if let Some(own) = state.domains.get_mut(&self.dom) {
            own.mapped += 1;
            own.counters.maps += 1;
        }
        let view = View { sim: self.sim.clone(), dom: self.dom, frame, access };
        Ok(SimMapped { view, granter: of, gref })
    }

    fn unmap(&mut self, page: SimMapped) -> Result<(), GrantStatus> {
        let _call = self.hypercall();
        let mut state = self.sim.world.state.borrow_mut();
        if let Some(granter) = state.domains.get_mut(&page.granter) {
            granter.grants.unpin(page.gref, self.dom);
        }
        let mapping = (self.dom, page.granter, page.gref);
        let orphan = state.frames.get_mut(&page.view.frame).is_some_and(|frame| {
            if let Some(at) = frame.mappers.iter().position(|m| *m == mapping) {
                frame.mappers.swap_remove(at);
            }
            frame.mappers.is_empty()
        }) && !state.domains.contains_key(&page.granter);
        if orphan {
            state.frames.remove(&page.view.frame);
        }
        if let Some(own) = state.domains.get_mut(&self.dom) {
            own.mapped -= 1;
            own.counters.unmaps += 1;
        }
        Ok(())
    }

    fn copy(&mut self, private: &mut SimPrivate, ops: &mut [CopyOp]) -> Result<(), Errno> {
        let _call = self.hypercall();
        let mut bytes = 0;
        for op in ops.iter_mut() {
            let (status, copied) = self.sim.copy_one(self.dom, private, op);
            op.status = status;
            bytes += copied;
        }
        self.domain(|d| {
            d.counters.copies += 1;
            d.counters.copy_ops += ops.len() as u64;
            d.counters.copied_bytes += bytes;
        });
        Ok(())
    }

    fn alloc_unbound(&mut self, remote: DomId) -> Result<EvtPort, Errno> {
        let _call = self.hypercall();
        let mut state = self.sim.world.state.borrow_mut();
        events::alloc_unbound(&mut state, self.dom, remote).map(EvtPort)
    }

    fn bind_interdomain(&mut self, remote: DomId, port: u32) -> Result<EvtPort, Errno> {
        let _call = self.hypercall();
        let mut state = self.sim.world.state.borrow_mut();
        events::bind(&mut state, self.dom, remote, port).map(EvtPort)
    }

    fn close(&mut self, port: EvtPort) {
        let _call = self.hypercall();
        events::close(&mut self.sim.world.state.borrow_mut(), self.dom, port.0);
    }

    fn notify(&mut self, port: EvtPort) -> Result<(), Errno> {
        let _call = self.hypercall();
        let new = events::send(&mut self.sim.world.state.borrow_mut(), self.dom, port.0)?;
        self.domain(|d| {
            d.counters.notifies += 1;
            d.counters.merged_notifies += u64::from(!new);
        });
        Ok(())
    }

    fn take_pending(&mut self) -> PortSet {
        let _call = self.call();
        self.domain(|d| d.events.take_pending())
    }

    fn poll(&mut self, hot: &[EvtPort], until: Option<Instant>) -> Result<(), Errno> {
        let _call = self.hypercall();
        if hot.len() > POLL_MAX {
            return Err(events::EINVAL);
        }
        let only = match hot {
            [port] => Some(port.0),
            _ => None,
        };
        let at_once = self.domain(|d| {
            d.counters.polls += 1;
            d.last_poll = Poll { ports: hot.to_vec(), until };
            let pending = hot.iter().any(|port| d.events.is_pending(port.0));
            if !pending {
                d.events.sleep(only);
            }
            pending
        });
        // An actor that polls gives its turn back instead.
        if at_once || self.sim.is_running() {
            self.domain(|d| d.events.wake());
            return Ok(());
        }
        let ended = self.sim.sleep(until, || self.domain(|d| d.events.is_woken()));
        self.domain(|d| d.events.wake());
        if ended { Ok(()) } else { Err(EDEADLK) }
    }

    fn shutdown(&mut self, why: Shutdown) {
        let _call = self.hypercall();
        self.domain(|d| d.shutdown = Some(why));
    }
}
