//! One client's interface, as the packet path sees it.
//!
//! In and out: frames and grant copies ([`Device`]). Never: XenStore, or a fault that reaches beyond
//! this vif: whatever the client's rings hold, the worst is that its own link stops.

use crate::alarm::Alarm;
use crate::link::{Fault, Link};
use crate::nodes::VifId;
use crate::rx::Refused;
use crate::tx;
use alloc::boxed::Box;
use alloc::vec::Vec;
use wire::{DropReason, Instant, Offload, Port, Takes};
use xen::hypervisor::{CopyOp, EvtPort, Hypervisor};
use xen::io::{Device, Head, Incoming, Piece, Pulled, Staged};

/// One client's interface. Not linked, it is silent: it has no frames and takes none.
pub struct Vif<H: Hypervisor> {
    port: Port,
    id: VifId,
    link: Option<Box<Link<H>>>,
    /// For who owns them all.
    alarm: Alarm,
}

impl<H: Hypervisor> Vif<H> {
    pub(crate) const fn new(port: Port, id: VifId, alarm: Alarm) -> Self {
        Self { port, id, link: None, alarm }
    }

    /// Under which name the firewall knows it.
    pub const fn port(&self) -> Port {
        self.port
    }

    /// Under which name Xen knows it.
    pub const fn id(&self) -> VifId {
        self.id
    }

    /// Whether frames can pass.
    pub fn is_linked(&self) -> bool {
        self.link.is_some()
    }

    /// Whether requests may be waiting in its TX ring.
    pub fn is_awake(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.awake && link.fault.is_none())
    }

    /// Slots posted for frames to it; none without a sound link.
    pub fn posted(&mut self) -> usize {
        self.sound().map_or(0, |link| link.rx.posted())
    }

    /// Its event channels: none, one or two.
    pub fn event_ports(&self) -> impl Iterator<Item = EvtPort> {
        self.link.iter().flat_map(|link| link.ports())
    }

    pub(crate) fn fault(&self) -> Option<Fault> {
        self.link.as_ref()?.fault
    }

    pub(crate) fn wake(&mut self) {
        if let Some(link) = &mut self.link {
            link.awake = true;
        }
    }

    pub(crate) fn set_link(&mut self, link: Link<H>) {
        self.link = Some(Box::new(link));
    }

    pub(crate) fn take_link(&mut self) -> Option<Box<Link<H>>> {
        let link = self.link.take()?;
        self.alarm.keeps(link.quiet_until(), None);
        Some(link)
    }

    /// Gives a signal that was kept back for long enough, and says again until when one is.
    pub(crate) fn signal_late(&mut self, h: &mut H, now: Instant) {
        self.signal(|link| link.signal_late(h, now));
    }

    /// Says when a signal is due that `act` keeps back or that was before.
    fn signal(&mut self, act: impl FnOnce(&mut Link<H>)) {
        let Some(link) = self.sound() else { return };
        let before = link.quiet_until();
        act(link);
        let now = link.quiet_until();
        self.alarm.keeps(before, now);
    }

    /// The link, unless it is broken.
    fn sound(&mut self) -> Option<&mut Link<H>> {
        self.link.as_deref_mut().filter(|link| link.fault.is_none())
    }

    fn stop(&mut self, fault: Fault) {
        if let Some(link) = &mut self.link {
            link.fault = Some(fault);
        }
        self.alarm.raise();
    }
}

impl<H: Hypervisor> Device<H> for Vif<H> {
    fn pull(&mut self, _: &mut H, pieces: &mut Vec<Piece>) -> Pulled<Incoming> {
        let Some(link) = self.sound() else { return Pulled::Empty };
        match link.tx.pull(pieces) {
            Ok(Pulled::Empty) => {
                link.awake = false;
                Pulled::Empty
            }
            Ok(pulled) => pulled,
            Err(fault) => {
                self.stop(fault);
                Pulled::Bad(DropReason::BadSlot)
            }
        }
    }

    fn heads(
        &mut self,
        frame: &Incoming,
        pieces: &[Piece],
        want: usize,
        at: u32,
        _: &mut [u8],
        ops: &mut Vec<CopyOp>,
    ) -> usize {
        tx::gather(frame.of(pieces), want, at, ops)
    }

    fn takes(&self) -> Takes {
        self.link.as_ref().map_or(Takes::ALL, |link| link.rx.takes())
    }

    fn stage(
        &mut self,
        _: &mut H,
        head: Head<'_>,
        rest: &[Piece],
        offload: Offload,
        ops: &mut Vec<CopyOp>,
    ) -> Result<Staged, DropReason> {
        let link = self.sound().ok_or(DropReason::EgressDown)?;
        link.rx.stage(head, rest, offload, ops).map_err(|refused| match refused {
            Refused::Frame(reason) => reason,
            Refused::Fault(fault) => {
                self.stop(fault);
                DropReason::EgressDown
            }
        })
    }

    fn commit(&mut self, _: &mut H, staged: Staged, ops: &[CopyOp]) -> Result<(), DropReason> {
        let link = self.sound().ok_or(DropReason::EgressDown)?;
        link.rx.commit(&staged, ops)
    }

    fn done(&mut self, _: &mut H, frame: Incoming) {
        if let Some(link) = self.sound() {
            link.tx.done(&frame);
        }
    }

    fn publish(&mut self, h: &mut H) {
        self.signal(|link| link.publish(h));
    }
}
