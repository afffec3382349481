//! Who has flows, how many, and what is each one's share.
//!
//! In: ports of clients. Out: their counts, and lists of their flows by how readily they are given
//! up. Never: a share that depends on what another client does, only on how many there are.

use crate::flow::{ByOwner, Flow};
use crate::lists::Lists;
use crate::ports;
use crate::slab::Slab;
use crate::state::Class;
use alloc::boxed::Box;
use alloc::vec;
use wire::{Port, Proto};

/// Into so many shares the tables are cut at least, so that the first clients do not take all.
const SHARES_MIN: u32 = 4;

/// One value for each protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerProto<T> {
    /// For TCP.
    pub tcp: T,
    /// For UDP.
    pub udp: T,
    /// For ICMP queries.
    pub icmp: T,
    /// For ICMPv6 queries.
    pub icmpv6: T,
}

impl<T> PerProto<T> {
    /// The value for a protocol.
    pub const fn of(&self, proto: Proto) -> &T {
        match proto {
            Proto::Tcp => &self.tcp,
            Proto::Udp => &self.udp,
            Proto::Icmp => &self.icmp,
            Proto::Icmpv6 => &self.icmpv6,
        }
    }

    /// The value for a protocol, to be changed.
    pub const fn of_mut(&mut self, proto: Proto) -> &mut T {
        match proto {
            Proto::Tcp => &mut self.tcp,
            Proto::Udp => &mut self.udp,
            Proto::Icmp => &mut self.icmp,
            Proto::Icmpv6 => &mut self.icmpv6,
        }
    }
}

/// What a client holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Who.
    pub client: Port,
    /// Flows.
    pub flows: u32,
    /// External ports.
    pub ports: PerProto<u32>,
}

/// What each client may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Flows.
    pub flows: u32,
    /// External ports.
    pub ports: PerProto<u32>,
}

impl Share {
    /// Whether this is more than the share.
    pub(crate) fn is_exceeded_by(&self, holding: &Holding, proto: Option<Proto>) -> bool {
        match proto {
            Some(proto) => holding.ports.of(proto) > self.ports.of(proto),
            None => holding.flows > self.flows,
        }
    }
}

/// What becomes of a client's flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// They live.
    Stays,
    /// They are over, all of them, and are being taken out of the tables.
    Clears,
    /// The same, and so is the client.
    Leaves,
}

#[derive(Clone, Copy, Debug)]
struct Seat {
    holding: Holding,
    fate: Fate,
}

/// All clients, by slot.
#[derive(Debug)]
pub(crate) struct Clients {
    slots: Box<[Option<Seat>]>,
    /// Two for each slot, see [`list`].
    lists: Lists,
    present: u32,
    /// How many do not stay.
    ending: u32,
    /// What is there to be shared.
    whole: Share,
    /// Most flows of each, whatever its share.
    most: u32,
}

/// Bytes for each slot.
pub(crate) const BYTES: usize = size_of::<Option<Seat>>() + 2 * Lists::BYTES;

const fn list(slot: u16, class: Class) -> u32 {
    slot as u32 * 2 + matches!(class, Class::Settled) as u32
}

impl Clients {
    /// Nobody, in so many slots, who will share so many flows and all ports.
    pub(crate) fn new(slots: u16, flows: u32) -> Self {
        let lists = Lists::new(u32::from(slots) * 2);
        let [tcp, udp, icmp, icmpv6] = [ports::COUNT; 4];
        let whole = Share { flows, ports: PerProto { tcp, udp, icmp, icmpv6 } };
        let slots = vec![None; slots.into()].into_boxed_slice();
        Self { slots, lists, present: 0, ending: 0, whole, most: u32::MAX }
    }

    /// Nobody gets more flows than that.
    pub(crate) fn set_most(&mut self, most: Option<u32>) {
        self.most = most.unwrap_or(u32::MAX);
    }

    /// There is one port less to be shared.
    pub(crate) fn withhold(&mut self, proto: Proto) {
        let ports = self.whole.ports.of_mut(proto);
        *ports = ports.saturating_sub(1);
    }

    /// There is one more again.
    pub(crate) fn restore(&mut self, proto: Proto) {
        let ports = self.whole.ports.of_mut(proto);
        *ports = ports.saturating_add(1);
    }

    /// What each may hold now. Shares shrink by halves, when as many have come again.
    pub(crate) fn share(&self) -> Share {
        let shares = self.present.next_power_of_two().max(SHARES_MIN);
        let Share { flows, ports: PerProto { tcp, udp, icmp, icmpv6 } } = self.whole;
        let [flows, tcp, udp, icmp, icmpv6] =
            [flows, tcp, udp, icmp, icmpv6].map(|whole| (whole / shares).max(1));
        Share { flows, ports: PerProto { tcp, udp, icmp, icmpv6 } }
    }

    /// Lets a client in for one flow more. False if it has as many as it may, or no slot, or flows of
    /// another that was there before, or of its own that are over, are not all gone yet.
    pub(crate) fn admit(&mut self, client: Port) -> bool {
        let Some(slot) = self.slots.get_mut(client.index()) else { return false };
        if slot.is_none() {
            let holding = Holding { client, flows: 0, ports: PerProto::default() };
            *slot = Some(Seat { holding, fate: Fate::Stays });
            self.present += 1;
        }
        let may = |seat: Seat| {
            seat.holding.client == client
                && seat.fate == Fate::Stays
                && seat.holding.flows < self.most
        };
        slot.is_some_and(may)
    }

    /// All flows of a client are over, though none is gone yet.
    pub(crate) fn end_flows(&mut self, slot: u16, fate: Fate) {
        let Some(Some(seat)) = self.slots.get_mut(usize::from(slot)) else { return };
        self.ending += u32::from(seat.fate == Fate::Stays);
        // Who leaves does not stay after all.
        if seat.fate != Fate::Leaves {
            seat.fate = fate;
        }
        self.settle(slot);
    }

    /// If the last flow of a client that does not stay is gone, so is the client, or it starts anew.
    pub(crate) fn settle(&mut self, slot: u16) {
        let Some(slot) = self.slots.get_mut(usize::from(slot)) else { return };
        match slot {
            Some(Seat { holding, fate }) if *fate != Fate::Stays && holding.flows == 0 => {
                self.ending -= 1;
                if *fate == Fate::Leaves {
                    *slot = None;
                    self.present -= 1;
                } else {
                    *fate = Fate::Stays;
                }
            }
            _ => {}
        }
    }

    /// A client whose flows are over and not all gone.
    pub(crate) fn ending(&self) -> Option<u16> {
        if self.ending == 0 {
            return None;
        }
        let seat = self.slots.iter().flatten().find(|seat| seat.fate != Fate::Stays)?;
        Some(seat.holding.client.slot().0)
    }

    /// What a client holds whose flows live.
    pub(crate) fn get(&self, slot: u16) -> Option<&Holding> {
        let seat = self.slots.get(usize::from(slot))?.as_ref()?;
        (seat.fate == Fate::Stays).then_some(&seat.holding)
    }

    /// What a client holds, its flows alive or over.
    pub(crate) fn get_mut(&mut self, slot: u16) -> Option<&mut Holding> {
        self.slots.get_mut(usize::from(slot))?.as_mut().map(|seat| &mut seat.holding)
    }

    /// How many slots there are.
    pub(crate) fn slots(&self) -> u16 {
        u16::try_from(self.slots.len()).unwrap_or(u16::MAX)
    }

    /// The client that is furthest over its share.
    pub(crate) fn greediest(&self, proto: Option<Proto>) -> Option<u16> {
        let share = self.share();
        let held = |holding: &Holding| proto.map_or(holding.flows, |p| *holding.ports.of(p));
        let staying = self.slots.iter().flatten().filter(|seat| seat.fate == Fate::Stays);
        let over = staying.map(|seat| &seat.holding).filter(|h| share.is_exceeded_by(h, proto));
        over.max_by_key(|holding| held(holding)).map(|holding| holding.client.slot().0)
    }

    /// Puts a flow at the end of its owner's list.
    pub(crate) fn enlist(&mut self, flows: &mut Slab<Flow>, slot: u16, class: Class, index: u32) {
        self.lists.push(&mut ByOwner(flows), list(slot, class), index);
    }

    /// Takes a flow out of its owner's list.
    pub(crate) fn unlist(&mut self, flows: &mut Slab<Flow>, index: u32) {
        self.lists.unlink(&mut ByOwner(flows), index);
    }

    /// The flow that has been longest at its place in a client's list.
    pub(crate) fn first(&self, slot: u16, class: Class) -> Option<u32> {
        self.lists.first(list(slot, class))
    }
}
