//! What a policy does to all packets at once, exactly, by arithmetic on ranges.
//!
//! In: a checked policy with the places of its rules. Out: rules that decide nothing or change
//! nothing, each with the rules that are the reason and a packet that shows it; what differs between
//! two policies; whether a claim holds. Never: an answer that is only likely. A policy so tangled
//! that its pieces cannot be counted within [`FUEL`] gets none.

pub(crate) mod change;
pub(crate) mod claim;
pub(crate) mod findings;
pub(crate) mod layers;
pub(crate) mod named;
pub(crate) mod space;
pub(crate) mod witness;

use layers::Layers;
use rules::{AddrSet, Note, Policy, Rate, Services, Then, Uplink, Zone};
use space::Region;
use std::collections::BTreeSet;

/// Pieces of the space of packets that are looked at for one answer: about a second's worth, and
/// more than twenty times what a thousand rules take that people would write.
pub(crate) const FUEL: usize = 500_000;

/// The space was cut into more pieces than can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooTangled;

/// Every direction in which flows may cross the firewall, from and to these uplinks.
pub(crate) fn directions(uplinks: &BTreeSet<Uplink>) -> Vec<(Zone, Zone)> {
    let outside = || uplinks.iter().copied().map(Zone::Uplink);
    let outward = outside().map(|zone| (Zone::Clients, zone));
    let inward = outside().map(|zone| (zone, Zone::Clients));
    outward.chain([(Zone::Clients, Zone::Clients)]).chain(inward).collect()
}

/// The uplinks a policy speaks of, and the one that every firewall has.
pub(crate) fn uplinks(policy: &Policy) -> BTreeSet<Uplink> {
    let parts = policy.parts();
    let blocks = parts.blocks.iter().flat_map(|block| [block.from, block.to]);
    let routes = parts.services.routes.iter().map(|route| route.uplink);
    blocks.filter_map(Zone::uplink).chain(routes).chain([Uplink::FIRST]).collect()
}

/// The addresses to which packets leave by `uplink`.
pub(crate) fn beyond(services: &Services, uplink: Uplink) -> AddrSet {
    let mut routes: Vec<_> = services.routes.iter().collect();
    routes.sort_by_key(|route| route.prefix);
    let rest = if uplink == Uplink::FIRST { AddrSet::any() } else { AddrSet::EMPTY };
    routes.into_iter().fold(rest, |found, route| {
        let net = AddrSet::from_ranges([route.ends()]);
        match route.uplink == uplink {
            true => AddrSet::from_ranges(found.ranges().chain(net.ranges())),
            false => without(&found, &net),
        }
    })
}

/// The addresses of one set that are not in another.
pub(crate) fn without(set: &AddrSet, other: &AddrSet) -> AddrSet {
    AddrSet { v4: set.v4.difference(&other.v4), v6: set.v6.difference(&other.v6) }
}

/// What a rule does to the flows it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) then: Then,
    pub(crate) log: Option<Note>,
    pub(crate) limit: Option<Rate>,
}

/// Calls `each` with every part of `piece` and the rule of `layers` that decides it, until it says
/// stop.
pub(crate) fn decided(
    piece: Region,
    layers: &Layers,
    fuel: &mut usize,
    each: &mut dyn FnMut(Region, layers::By, &mut usize) -> Result<bool, TooTangled>,
) -> Result<(), TooTangled> {
    let mut waiting = vec![(piece, 0)];
    while let Some((piece, from)) = waiting.pop() {
        let Some((at, by, both)) = layers.next_overlap(&piece, from, fuel)? else { continue };
        let rest = piece.minus(&both);
        waiting.extend(rest.into_iter().map(|part| (part, at.saturating_add(1))));
        if !each(both, by, fuel)? {
            return Ok(());
        }
    }
    Ok(())
}

/// The layers of one direction of `policy`: what is never asked, then its rules.
pub(crate) fn layers_of(policy: &Policy, direction: (Zone, Zone)) -> Layers {
    Layers::of(policy, direction)
}
