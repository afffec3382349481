//! The rules of one direction as layers that lie on the space of packets: who lies on top decides.
//!
//! On top of all rules lies what the firewall settles before it asks them, so that no rule is said
//! to decide what it is never asked about. A direction without a block has one layer: it is dropped.

use super::named::nameable;
use super::space::{Pane, Region, Sides};
use super::{Effect, TooTangled, beyond, without};
use rules::{Action, AddrSet, Policy, PortSet, RuleId, Then, Traffic, What, Zone};
use std::collections::{BTreeMap, BTreeSet};

/// Whose layer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum By {
    /// The redirect: queries to these resolvers have another destination by then.
    Redirect,
    /// The VMs: what is theirs goes to and comes from clients.
    Vms,
    /// The routes: what they lead to another uplink does not leave by this one.
    Elsewhere,
    /// A rule, by its position in the block.
    Rule(usize),
}

#[derive(Debug)]
struct Layer {
    by: By,
    region: Region,
}

/// All layers of one direction.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    panes: BTreeMap<Pane, Vec<Layer>>,
    /// What each rule does, and its id.
    effects: Vec<(Effect, RuleId)>,
}

impl Layers {
    pub(crate) fn of(policy: &Policy, direction: (Zone, Zone)) -> Self {
        let mut layers = Self::default();
        let mut sides = Sides::with_names(nameable(policy));
        let parts = policy.parts();
        let vms = AddrSet::from_addrs(parts.vms.iter().flat_map(|vm| vm.addrs.iter().copied()));
        let any = AddrSet::any();
        if direction.1 != Zone::Clients {
            layers.put(By::Vms, sides.product(&any, &vms, &What::Any));
        }
        if direction.0 != Zone::Clients {
            layers.put(By::Vms, sides.product(&vms, &any, &What::Any));
        }
        if let (Some(redirect), Zone::Clients) = (&parts.redirect_dns, direction.0) {
            let moved = redirect.virtuals.iter().filter(|v| redirect.target(**v) != Some(**v));
            let moved = AddrSet::from_addrs(moved.copied());
            layers.put(By::Redirect, sides.product(&any, &moved, &dns()));
        }
        if let (Zone::Clients, Zone::Uplink(uplink)) = direction {
            let elsewhere = without(&any, &beyond(&parts.services, uplink));
            layers.put(By::Elsewhere, sides.product(&any, &elsewhere, &What::Any));
        }
        for (at, (id, rule)) in policy.block(direction.0, direction.1).enumerate() {
            layers.put(By::Rule(at), sides.regions(rule));
            let effect = Effect { then: rule.then, log: rule.log, limit: rule.limit };
            layers.effects.push((effect, id));
        }
        if layers.effects.is_empty() {
            layers.put(By::Rule(0), sides.product(&any, &any, &What::Any));
            let effect = Effect { then: Then::Do(Action::Drop), log: None, limit: None };
            layers.effects.push((effect, RuleId::DEFAULT));
        }
        layers
    }

    fn put(&mut self, by: By, regions: Vec<Region>) {
        for region in regions {
            self.panes.entry(region.pane).or_default().push(Layer { by, region });
        }
    }

    /// Rules there are.
    pub(crate) const fn rules(&self) -> usize {
        self.effects.len()
    }

    /// What the rule at `at` does.
    pub(crate) fn effect(&self, at: usize) -> Option<Effect> {
        self.effects.get(at).map(|(effect, _)| *effect)
    }

    /// The id of the rule at `at`.
    pub(crate) fn id(&self, at: usize) -> RuleId {
        self.effects.get(at).map_or(RuleId::DEFAULT, |(_, id)| *id)
    }

    /// The regions of the rule at `at`, each with the place of its layer in its pane.
    pub(crate) fn regions(&self, at: usize) -> Vec<(usize, Region)> {
        let mut found = Vec::new();
        for layers in self.panes.values() {
            let start = layers.partition_point(|layer| layer.by < By::Rule(at));
            let own = layers.iter().enumerate().skip(start);
            let own = own.take_while(|(_, layer)| layer.by == By::Rule(at));
            found.extend(own.map(|(place, layer)| (place, layer.region.clone())));
        }
        found
    }

    /// The rules before the one at `at` that speak of packets of `regions`.
    pub(crate) fn before(&self, at: usize, regions: &[(usize, Region)]) -> BTreeSet<usize> {
        let above = regions.iter().flat_map(|(place, region)| {
            let layers = self.panes.get(&region.pane).map_or(&[][..], Vec::as_slice);
            layers.iter().take(*place).filter(|layer| layer.region.overlaps(region))
        });
        let rules = above.filter_map(|layer| match layer.by {
            By::Rule(before) if before < at => Some(before),
            By::Rule(_) | By::Redirect | By::Vms | By::Elsewhere => None,
        });
        rules.collect()
    }

    /// The first layer at or below the place `from` that speaks of some of `piece`, with those packets.
    pub(crate) fn next_overlap(
        &self,
        piece: &Region,
        from: usize,
        fuel: &mut usize,
    ) -> Result<Option<(usize, By, Region)>, TooTangled> {
        let layers = self.panes.get(&piece.pane).map_or(&[][..], Vec::as_slice);
        *fuel = fuel.checked_sub(1).ok_or(TooTangled)?;
        for (place, layer) in layers.iter().enumerate().skip(from) {
            if piece.overlaps(&layer.region)
                && let Some(both) = piece.intersection(&layer.region)
            {
                return Ok(Some((place, layer.by, both)));
            }
        }
        Ok(None)
    }
}

/// What a redirect of resolvers speaks of.
fn dns() -> What {
    let (sport, dport) = (PortSet::full(), PortSet::from_ranges([(53, 53)]));
    let tcp = Traffic::Tcp { sport: sport.clone(), dport: dport.clone() };
    What::Of(vec![tcp, Traffic::Udp { sport, dport }])
}
