//! All network devices, by the port the firewall knows them under.
//!
//! In: events for all devices. Out: the one device behind a port. Never: a device behind a port of a
//! generation that has passed.

use super::path::{Fabric, Room};
use alloc::vec::Vec;
use netback::Netback;
use netfront::{Devices, Netfront};
use wire::{Instant, Port, PortSlot, Uplink};
use xen::hypervisor::{EvtPort, Hypervisor, Memory, PortSet};
use xen::io::Device;
use xen::store::{Client, Event, Tag};

/// First XenStore tag of the devices: uplinks and then clients, as in the table of ports.
const FIRST_TAG: u32 = 1;

/// The uplinks and the clients.
pub(super) struct Ports<H: Hypervisor> {
    /// In the order of their slots, which are the first.
    uplinks: Vec<(Uplink, Netfront<H>)>,
    clients: Netback<H>,
}

impl<H: Hypervisor> Ports<H> {
    /// These uplinks and at most so many clients. A further uplink has the device of its number, and the
    /// first takes the lowest that works of the others.
    pub(super) fn new(uplinks: &[Uplink], clients: u16) -> Self {
        let further = uplinks.iter().map(|uplink| uplink.number()).filter(|number| *number != 0);
        let uplinks: Vec<_> = uplinks
            .iter()
            .zip(0u16..)
            .map(|(&uplink, slot)| {
                let devices = match uplink {
                    Uplink::FIRST => Devices::but(further.clone()),
                    other => Devices::only(other.number()),
                };
                let tag = Tag(FIRST_TAG.saturating_add(slot.into()));
                let config = netfront::Config::new(PortSlot(slot), tag);
                (uplink, Netfront::new(netfront::Config { devices, ..config }))
            })
            .collect();
        let first = u16::try_from(uplinks.len()).unwrap_or(u16::MAX);
        let slots = first..clients.saturating_add(first);
        let first_tag = Tag(FIRST_TAG.saturating_add(first.into()));
        let clients = Netback::new(netback::Config { slots, first_tag });
        Self { uplinks, clients }
    }

    pub(super) fn on_store<M: Memory>(&mut self, h: &mut H, store: &mut Client<M>, event: &Event) {
        for (_, uplink) in &mut self.uplinks {
            uplink.on_store(h, store, event);
        }
        self.clients.on_store(h, store, event);
    }

    pub(super) fn on_event(&mut self, h: &mut H, pending: &PortSet) {
        for (_, uplink) in &mut self.uplinks {
            uplink.on_event(h, pending);
        }
        self.clients.on_event(pending);
    }

    /// Does what is due on all devices; returns when next there will be.
    pub(super) fn tick<M: Memory>(
        &mut self,
        h: &mut H,
        store: &mut Client<M>,
        now: Instant,
    ) -> Option<Instant> {
        let uplinks = self.uplinks.iter_mut().filter_map(|(_, uplink)| uplink.tick(h, store, now));
        let uplinks = uplinks.min();
        let clients = self.clients.tick(h, store, now);
        [uplinks, clients].into_iter().flatten().min()
    }

    /// The ports that may have frames, into `into`. An idle uplink costs one look.
    pub(super) fn hot(&mut self, into: &mut Vec<Port>) {
        into.clear();
        into.extend(self.uplinks.iter().filter_map(|(_, uplink)| uplink.port()));
        into.extend(self.clients.hot());
    }

    /// Adds the event channels of all devices, or if they are more than `most` may be, those that were
    /// pending last. Returns whether it is all of them.
    pub(super) fn events(&mut self, most: usize, into: &mut Vec<EvtPort>) -> bool {
        into.extend(self.uplinks.iter().filter_map(|(_, uplink)| uplink.event()));
        self.clients.busiest(most, into)
    }

    pub(super) fn next_uplink_notice(&mut self) -> Option<(Uplink, netfront::Notice)> {
        self.uplinks.iter_mut().find_map(|(uplink, device)| Some((*uplink, device.next_notice()?)))
    }

    pub(super) fn next_client_notice(&mut self) -> Option<netback::Notice> {
        self.clients.next_notice()
    }

    #[inline]
    fn uplink(&self, port: Port) -> Option<&Netfront<H>> {
        let (_, uplink) = self.uplinks.get(port.index())?;
        Some(uplink).filter(|uplink| uplink.port() == Some(port))
    }
}

impl<H: Hypervisor> Fabric<H> for Ports<H> {
    fn device(&mut self, port: Port) -> Option<&mut dyn Device<H>> {
        match self.uplinks.get_mut(port.index()) {
            Some((_, uplink)) if uplink.port() == Some(port) => Some(uplink),
            Some(_) => None,
            None => Some(self.clients.vif(port)?),
        }
    }

    fn uplink_room(&self) -> Option<Room> {
        let usable = |uplink: &&Netfront<H>| uplink.port().is_some() && !uplink.is_stalled();
        let usable = self.uplinks.iter().map(|(_, uplink)| uplink).filter(usable);
        let room =
            |uplink: &Netfront<H>| Room { slots: uplink.room().0 as usize, takes: uplink.takes() };
        usable.map(room).max_by_key(|room| room.slots)
    }

    fn posted(&mut self, port: Port) -> Option<usize> {
        Some(self.clients.vif(port)?.posted())
    }

    #[inline]
    fn is_uplink(&self, port: Port) -> bool {
        self.uplink(port).is_some()
    }
}
