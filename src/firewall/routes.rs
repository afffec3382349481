//! Networks behind further uplinks, or behind other next hops than an uplink's gateway.
//!
//! In: routes, and what ARP and neighbour discovery tell. Out: the uplink and the next hop for an address.
//! Never: two answers: the longest prefix counts.

use super::hop::{Hop, NextHop};
use alloc::vec::Vec;
use core::net::IpAddr;
use rules::Route;
use wire::{Instant, Mac, Uplink};

/// Routes, the longest prefix first, each with its next hop if that is not the gateway.
#[derive(Debug, Default)]
pub(super) struct Routes(Vec<(Route, Option<Hop>)>);

impl Routes {
    /// Puts new routes in place of the old.
    pub(super) fn set(&mut self, now: Instant, routes: &[Route], is_up: impl Fn(Uplink) -> bool) {
        let hop = |route: &Route| (*route, route.via.map(|via| Hop::new(NextHop::Ask(via))));
        self.0 = routes.iter().map(hop).collect();
        self.0.sort_by_key(|(route, _)| core::cmp::Reverse(route.prefix));
        for (route, hop) in &mut self.0 {
            hop.iter_mut().filter(|_| is_up(route.uplink)).for_each(|hop| hop.start(now));
        }
    }

    /// The next hops on `uplink`.
    pub(super) fn of(&mut self, uplink: Uplink) -> impl Iterator<Item = &mut Hop> {
        let of = self.0.iter_mut().filter(move |(route, _)| route.uplink == uplink);
        of.filter_map(|(_, hop)| hop.as_mut())
    }

    /// Whether all packets go to the gateway of the first uplink.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The uplink by which packets to `addr` leave.
    pub(super) fn uplink_to(&self, addr: IpAddr) -> Uplink {
        let leading = self.0.iter().find(|(route, _)| route.leads_to(addr));
        leading.map_or(Uplink::FIRST, |(route, _)| route.uplink)
    }

    /// Where packets to `addr` go that leave by `uplink`, if not to its gateway.
    pub(super) fn hop(&self, uplink: Uplink, addr: IpAddr) -> Option<Mac> {
        let leads = |(route, _): &&(Route, _)| route.uplink == uplink && route.leads_to(addr);
        let (_, hop) = self.0.iter().find(leads)?;
        hop.as_ref().map(Hop::mac)
    }

    /// Somebody to be asked for now, and on which uplink. To be called until there is nobody.
    pub(super) fn ask(&mut self, now: Instant) -> Option<(Uplink, IpAddr)> {
        self.0.iter_mut().find_map(|(route, hop)| Some((route.uplink, hop.as_mut()?.ask(now)?)))
    }

    /// When to ask next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.iter().filter_map(|(_, hop)| hop.as_ref()?.deadline()).min()
    }
}
