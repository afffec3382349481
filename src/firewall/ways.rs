//! Which uplink a packet leaves by, from which address of ours, and to which next hop.
//!
//! In: what we are on each uplink, routes, and what ARP and neighbour discovery tell. Out: the way to an
//! address. Never: a way by another uplink because one is down: who is behind it is not behind the other.

use super::hop::Hop;
use super::routes::Routes;
use super::site::{PerUplink, Site};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use rules::Route;
use wire::{Instant, Mac, Uplink};

/// All ways out.
#[derive(Debug)]
pub(super) struct Ways {
    places: PerUplink<Place>,
    /// Our addresses, and where we have them: by themselves, as they are looked for in each packet.
    own4: Vec<(Ipv4Addr, Uplink)>,
    own6: Vec<(Ipv6Addr, Uplink)>,
    /// Whether flows can leave by others than the first uplink.
    several: bool,
    routes: Routes,
}

/// One uplink.
#[derive(Clone, Copy, Debug)]
struct Place {
    site: Site,
    hop4: Hop,
    hop6: Hop,
    /// Where it led when it was last up.
    network: Option<u16>,
}

impl Place {
    const fn new(site: Site) -> Self {
        let (hop4, hop6) = (Hop::new(site.next_hop4), Hop::new(site.next_hop6));
        Self { site, hop4, hop6, network: None }
    }

    fn hops(&mut self) -> [&mut Hop; 2] {
        [&mut self.hop4, &mut self.hop6]
    }
}

impl Ways {
    pub(super) fn new(sites: PerUplink<Site>) -> Self {
        let places = sites.map(|_, site| Place::new(site));
        let (own4, own6, routes) = (Vec::new(), Vec::new(), Routes::default());
        let mut ways = Self { places, own4, own6, several: false, routes };
        ways.note_own();
        ways
    }

    /// The uplink by which packets to `addr` leave.
    #[inline]
    pub(super) fn to(&self, addr: IpAddr) -> Uplink {
        if self.routes.is_empty() { Uplink::FIRST } else { self.routes.uplink_to(addr) }
    }

    /// The Ethernet address that packets to `addr` go to, if they leave by `uplink`.
    #[inline]
    pub(super) fn hop(&self, uplink: Uplink, addr: IpAddr) -> Mac {
        let routed = if self.routes.is_empty() { None } else { self.routes.hop(uplink, addr) };
        routed.unwrap_or_else(|| self.gateway(uplink, addr.is_ipv6()))
    }

    /// The Ethernet address of the gateway of an uplink.
    pub(super) fn gateway(&self, uplink: Uplink, v6: bool) -> Mac {
        let place = &self.places[uplink];
        if v6 { place.hop6.mac() } else { place.hop4.mac() }
    }

    /// Whether all packets of an uplink go to its gateway.
    pub(super) const fn has_no_routes(&self) -> bool {
        self.routes.is_empty()
    }

    /// Our address on `uplink`, of the family of `other`.
    #[inline]
    pub(super) fn own(&self, uplink: Uplink, other: IpAddr) -> Option<IpAddr> {
        let site = &self.places[uplink].site;
        if other.is_ipv4() { site.addr4.map(IpAddr::V4) } else { site.addr6.map(IpAddr::V6) }
    }

    /// What we are on the first uplink.
    pub(super) fn first(&self) -> &Site {
        &self.places[Uplink::FIRST].site
    }

    /// The uplink on which `addr` is our own address, if it is.
    #[inline]
    pub(super) fn owner(&self, addr: IpAddr) -> Option<Uplink> {
        match addr {
            IpAddr::V4(addr) => Some(self.own4.iter().find(|(own, _)| *own == addr)?.1),
            IpAddr::V6(addr) => Some(self.own6.iter().find(|(own, _)| *own == addr)?.1),
        }
    }

    /// Whether an uplink has any address of ours.
    pub(super) fn is_there(&self, uplink: Uplink) -> bool {
        uplink == Uplink::FIRST || self.places[uplink].site.is_there()
    }

    /// Whether flows can leave by others than the first uplink.
    pub(super) const fn are_several(&self) -> bool {
        self.several
    }

    /// Takes what we are on `uplink`, which is up or not. Whether our addresses are others.
    pub(super) fn set_site(&mut self, now: Instant, uplink: Uplink, site: Site, up: bool) -> bool {
        let place = &mut self.places[uplink];
        let old = core::mem::replace(&mut place.site, site);
        place.hop4.change(now, site.next_hop4, up);
        place.hop6.change(now, site.next_hop6, up);
        self.note_own();
        (old.addr4, old.addr6) != (site.addr4, site.addr6)
    }

    /// Puts new routes in place of the old.
    pub(super) fn set_routes(
        &mut self,
        now: Instant,
        routes: &[Route],
        is_up: impl Fn(Uplink) -> bool,
    ) {
        self.routes.set(now, routes, is_up);
    }

    /// An uplink came up. Whether it leads to another network than the last time.
    pub(super) fn start(&mut self, now: Instant, uplink: Uplink, network: u16) -> bool {
        let place = &mut self.places[uplink];
        place.hops().into_iter().for_each(|hop| hop.start(now));
        self.routes.of(uplink).for_each(|hop| hop.start(now));
        place.network.replace(network).is_some_and(|before| before != network)
    }

    /// An uplink went away.
    pub(super) fn stop(&mut self, uplink: Uplink) {
        self.places[uplink].hops().into_iter().for_each(Hop::stop);
        self.routes.of(uplink).for_each(Hop::stop);
    }

    /// Somebody on `uplink` says that `ip` is at `mac`. Whether that is news.
    pub(super) fn tell(&mut self, now: Instant, uplink: Uplink, ip: IpAddr, mac: Mac) -> bool {
        let gateways = self.places[uplink].hops().into_iter();
        let hops = gateways.chain(self.routes.of(uplink));
        // All of them are told.
        hops.fold(false, |news, hop| hop.tell(now, ip, mac) | news)
    }

    /// Somebody to be asked for now, and on which uplink. To be called until there is nobody.
    pub(super) fn ask(&mut self, now: Instant) -> Option<(Uplink, IpAddr)> {
        let gateways = self.places.values_mut().find_map(|(uplink, place)| {
            let target = place.hops().into_iter().find_map(|hop| hop.ask(now))?;
            Some((uplink, target))
        });
        gateways.or_else(|| self.routes.ask(now))
    }

    /// When to ask next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let used = if self.several { usize::MAX } else { 1 };
        let gateways = self.places.iter().take(used);
        let gateways = gateways.flat_map(|(_, place)| [&place.hop4, &place.hop6]);
        let gateways = gateways.filter_map(|hop| hop.deadline());
        gateways.chain(self.routes.deadline()).min()
    }

    fn note_own(&mut self) {
        let sites = || self.places.iter().map(|(uplink, place)| (place.site, uplink));
        self.own4 = sites().filter_map(|(site, uplink)| Some((site.addr4?, uplink))).collect();
        self.own6 = sites().filter_map(|(site, uplink)| Some((site.addr6?, uplink))).collect();
        self.several = sites().skip(1).any(|(site, _)| site.is_there());
    }
}
