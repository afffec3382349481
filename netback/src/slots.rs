//! The vifs by slot, by name and by event channel.
//!
//! Never: gives a slot away twice at a time, or the same port ([`Port`]) ever again before its
//! generation wraps.

use crate::entry::Entry;
use crate::nodes::VifId;
use crate::vif::Vif;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use wire::Port;
use xen::hypervisor::{EvtPort, Hypervisor, PortSet};

/// A place for a vif.
struct Slot<H: Hypervisor> {
    generation: u16,
    entry: Option<Box<Entry<H>>>,
    /// The event channels it is found by.
    ports: ArrayVec<EvtPort, 2>,
    /// Whether it stands in the list of hot slots.
    hot: bool,
    /// In which turn it was last woken.
    woken: u64,
}

/// All vifs.
pub(crate) struct Slots<H: Hypervisor> {
    base: u16,
    max: u16,
    slots: Vec<Slot<H>>,
    by_id: BTreeMap<VifId, usize>,
    by_port: BTreeMap<EvtPort, usize>,
    hot: Vec<usize>,
    /// Counts the turns in which any was woken.
    turn: u64,
    /// Where event channels are sorted when there are too many to be listed.
    recent: Vec<(u64, EvtPort)>,
}

impl<H: Hypervisor> Slots<H> {
    /// No vifs; later ones get the ports from `base` on, at most `max` at a time.
    pub(crate) const fn new(base: u16, max: u16) -> Self {
        Self {
            base,
            max,
            slots: Vec::new(),
            by_id: BTreeMap::new(),
            by_port: BTreeMap::new(),
            hot: Vec::new(),
            turn: 0,
            recent: Vec::new(),
        }
    }

    /// Puts what `make` makes for its port into a free slot. `None` if there is none.
    pub(crate) fn insert(
        &mut self,
        id: VifId,
        make: impl FnOnce(usize, Port) -> Entry<H>,
    ) -> Option<usize> {
        let at = match self.slots.iter().position(|slot| slot.entry.is_none()) {
            Some(at) => at,
            None if self.slots.len() < usize::from(self.max) => {
                let ports = ArrayVec::new();
                self.slots.push(Slot { generation: 0, entry: None, ports, hot: false, woken: 0 });
                self.slots.len().checked_sub(1)?
            }
            None => return None,
        };
        let number = self.base.checked_add(u16::try_from(at).ok()?)?;
        let slot = self.slots.get_mut(at)?;
        slot.entry = Some(Box::new(make(at, Port::new(number, slot.generation))));
        self.by_id.insert(id, at);
        Some(at)
    }

    /// Takes out the vif at `at`; its slot may be used again, in the next generation.
    pub(crate) fn remove(&mut self, at: usize) -> Option<Entry<H>> {
        let slot = self.slots.get_mut(at)?;
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.by_id.remove(&entry.id());
        self.list(at);
        Some(*entry)
    }

    pub(crate) fn entry(&mut self, at: usize) -> Option<&mut Entry<H>> {
        self.slots.get_mut(at)?.entry.as_deref_mut()
    }

    pub(crate) fn find(&self, id: VifId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    /// The vif known under `port`, if it is still that one.
    pub(crate) fn vif(&mut self, port: Port) -> Option<&mut Vif<H>> {
        let at = port.slot().0.checked_sub(self.base)?;
        let slot = self.slots.get_mut(usize::from(at))?;
        let entry = slot.entry.as_deref_mut()?;
        (slot.generation == port.generation()).then_some(&mut entry.vif)
    }

    /// The indices of slots in use.
    pub(crate) fn used(&self) -> impl Iterator<Item = usize> + use<H> {
        let used: Vec<_> = self.by_id.values().copied().collect();
        used.into_iter()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry<H>> {
        self.slots.iter().filter_map(|slot| slot.entry.as_deref())
    }

    pub(crate) fn vifs(&mut self) -> impl Iterator<Item = &mut Vif<H>> {
        self.slots.iter_mut().filter_map(|slot| Some(&mut slot.entry.as_deref_mut()?.vif))
    }

    /// Makes the lists agree with whether the vif at `at` is linked.
    pub(crate) fn list(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let vif = slot.entry.as_deref().map(|entry| &entry.vif);
        let ports: ArrayVec<_, 2> = vif.into_iter().flat_map(Vif::event_ports).collect();
        if slot.ports == ports {
            return;
        }
        for port in core::mem::replace(&mut slot.ports, ports) {
            self.by_port.remove(&port);
        }
        for port in &slot.ports {
            self.by_port.insert(*port, at);
        }
        if !slot.ports.is_empty() && !slot.hot {
            slot.hot = true;
            self.hot.push(at);
        }
    }

    /// Wakes the vifs whose event channels are in `pending`.
    pub(crate) fn wake(&mut self, pending: &PortSet) {
        self.turn = self.turn.wrapping_add(1);
        for port in pending.iter() {
            let Some(at) = self.by_port.get(&port) else { continue };
            let Some(slot) = self.slots.get_mut(*at) else { continue };
            slot.woken = self.turn;
            if let Some(entry) = &mut slot.entry {
                entry.vif.wake();
            }
            if !slot.hot {
                slot.hot = true;
                self.hot.push(*at);
            }
        }
    }

    /// The vifs that are awake.
    pub(crate) fn hot(&mut self) -> impl Iterator<Item = Port> {
        let slots = &mut self.slots;
        self.hot.retain(|at| {
            let Some(slot) = slots.get_mut(*at) else { return false };
            slot.hot = slot.entry.as_ref().is_some_and(|entry| entry.vif.is_awake());
            slot.hot
        });
        self.hot.iter().filter_map(|at| Some(slots.get(*at)?.entry.as_ref()?.vif.port()))
    }

    /// Fills `into` up to `most` with event channels in use, those that were woken last if there are
    /// more. Returns whether it is all of them.
    pub(crate) fn busiest(&mut self, most: usize, into: &mut Vec<EvtPort>) -> bool {
        let room = most.saturating_sub(into.len());
        if self.by_port.len() <= room {
            into.extend(self.by_port.keys());
            return true;
        }
        let woken = |at: &usize| self.slots.get(*at).map_or(0, |slot| slot.woken);
        self.recent.clear();
        self.recent.extend(self.by_port.iter().map(|(port, at)| (woken(at), *port)));
        if let Some(last) = room.checked_sub(1) {
            self.recent.select_nth_unstable_by(last, |a, b| b.cmp(a));
        }
        into.extend(self.recent.iter().take(room).map(|(_, port)| *port));
        false
    }

    /// All event channels in use.
    pub(crate) fn event_ports(&self) -> impl Iterator<Item = EvtPort> {
        self.by_port.keys().copied()
    }
}
