//! Networks behind other next hops of the uplink than the gateway.
//!
//! In: routes, and what ARP and neighbour discovery tell. Out: the next hop for an address. Never: a
//! look at an address while there are no routes.

use super::hop::{Hop, NextHop};
use alloc::vec::Vec;
use core::net::IpAddr;
use rules::Route;
use wire::{Instant, Mac};

/// Routes, the longest prefix first, each with its next hop.
#[derive(Debug, Default)]
pub(super) struct Routes(Vec<(Route, Option<Hop>)>);

impl Routes {
    /// Puts new routes in place of the old.
    pub(super) fn set(&mut self, now: Instant, routes: &[Route], is_up: bool) {
        let hop = |route: &Route| (*route, route.via.map(|via| Hop::new(NextHop::Ask(via))));
        self.0 = routes.iter().map(hop).collect();
        self.0.sort_by_key(|(route, _)| core::cmp::Reverse(route.prefix));
        if is_up {
            self.start(now);
        }
    }

    /// The uplink came up.
    pub(super) fn start(&mut self, now: Instant) {
        self.hops().for_each(|hop| hop.start(now));
    }

    /// The uplink went away.
    pub(super) fn stop(&mut self) {
        self.hops().for_each(Hop::stop);
    }

    /// Whether all packets go to the gateway.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where packets to `addr` go, if not to the gateway.
    pub(super) fn to(&self, addr: IpAddr) -> Option<Mac> {
        let (_, hop) = self.0.iter().find(|(route, _)| route.leads_to(addr))?;
        hop.as_ref().map(Hop::mac)
    }

    fn hops(&mut self) -> impl Iterator<Item = &mut Hop> {
        self.0.iter_mut().filter_map(|(_, hop)| hop.as_mut())
    }

    /// Somebody says that `ip` is at `mac`. Whether that is news.
    pub(super) fn tell(&mut self, now: Instant, ip: IpAddr, mac: Mac) -> bool {
        let mut news = false;
        for hop in self.hops() {
            news |= hop.tell(now, ip, mac);
        }
        news
    }

    /// Somebody to be asked for now. To be called until there is none.
    pub(super) fn ask(&mut self, now: Instant) -> Option<IpAddr> {
        self.hops().find_map(|hop| hop.ask(now))
    }

    /// When to ask next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.iter().filter_map(|(_, hop)| hop.as_ref()?.deadline()).min()
    }
}
