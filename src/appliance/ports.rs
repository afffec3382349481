//! All network devices, by the port the firewall knows them under.
//!
//! In: events for all devices. Out: the one device behind a port. Never: a device behind a port of a
//! generation that has passed.

use super::path::Fabric;
use alloc::vec::Vec;
use netback::Netback;
use netfront::Netfront;
use wire::{Instant, Port, PortSlot};
use xen::hypervisor::{EvtPort, Hypervisor, Memory, PortSet};
use xen::io::Device;
use xen::store::{Client, Event, Tag};

/// XenStore tag of the uplink.
const NETFRONT_TAG: Tag = Tag(1);
/// First XenStore tag of the clients.
const NETBACK_TAG: Tag = Tag(2);

/// Where the uplink stands in the table of ports.
const UPLINK: PortSlot = PortSlot(0);

/// The uplink and the clients.
pub(super) struct Ports<H: Hypervisor> {
    uplink: Netfront<H>,
    clients: Netback<H>,
}

impl<H: Hypervisor> Ports<H> {
    /// The uplink and at most so many clients.
    pub(super) fn new(clients: u16) -> Self {
        let slots = 1..clients.saturating_add(1);
        Self {
            uplink: Netfront::new(netfront::Config::new(UPLINK, NETFRONT_TAG)),
            clients: Netback::new(netback::Config { slots, first_tag: NETBACK_TAG }),
        }
    }

    pub(super) fn on_store<M: Memory>(&mut self, h: &mut H, store: &mut Client<M>, event: &Event) {
        self.uplink.on_store(h, store, event);
        self.clients.on_store(h, store, event);
    }

    pub(super) fn on_event(&mut self, h: &mut H, pending: &PortSet) {
        self.uplink.on_event(h, pending);
        self.clients.on_event(pending);
    }

    /// Does what is due on all devices; returns when next there will be.
    pub(super) fn tick<M: Memory>(
        &mut self,
        h: &mut H,
        store: &mut Client<M>,
        now: Instant,
    ) -> Option<Instant> {
        let uplink = self.uplink.tick(h, store, now);
        let clients = self.clients.tick(h, store, now);
        [uplink, clients].into_iter().flatten().min()
    }

    /// The ports that may have frames, into `into`. An idle uplink costs one look.
    pub(super) fn hot(&mut self, into: &mut Vec<Port>) {
        into.clear();
        into.extend(self.uplink.port());
        into.extend(self.clients.hot());
    }

    /// Adds the event channels of all devices, or if they are more than `most` may be, those that were
    /// pending last. Returns whether it is all of them.
    pub(super) fn events(&mut self, most: usize, into: &mut Vec<EvtPort>) -> bool {
        into.extend(self.uplink.event());
        self.clients.busiest(most, into)
    }

    pub(super) fn next_uplink_notice(&mut self) -> Option<netfront::Notice> {
        self.uplink.next_notice()
    }

    pub(super) fn next_client_notice(&mut self) -> Option<netback::Notice> {
        self.clients.next_notice()
    }
}

impl<H: Hypervisor> Fabric<H> for Ports<H> {
    fn device(&mut self, port: Port) -> Option<&mut dyn Device<H>> {
        if self.is_uplink(port) {
            return Some(&mut self.uplink);
        }
        Some(self.clients.vif(port)?)
    }

    fn uplink_room(&self) -> usize {
        match self.uplink.port() {
            Some(_) if !self.uplink.is_stalled() => self.uplink.room().0 as usize,
            // Frames without a way out are answered by the firewall or lost, not kept: behind them
            // wait those that need no way out.
            Some(_) | None => usize::MAX,
        }
    }

    fn posted(&mut self, port: Port) -> Option<usize> {
        Some(self.clients.vif(port)?.posted())
    }

    fn is_uplink(&self, port: Port) -> bool {
        self.uplink.port() == Some(port)
    }
}
