//! Whether a claim about reachability holds for every packet it speaks of.

use super::layers::By;
use super::named::nameable;
use super::space::{Region, Sides};
use super::witness::Example;
use super::{FUEL, TooTangled, decided, layers_of, witness};
use rules::{Action, AddrSet, HostSet, Policy, RuleId, Then, What, Zone};
use std::sync::Arc;

/// `FROM can|cannot reach TO [KINDS]`, with its names resolved.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) from: End,
    pub(crate) can: bool,
    pub(crate) to: End,
    pub(crate) what: What,
}

/// One end of a claim.
#[derive(Debug)]
pub(crate) enum End {
    Zone(Zone),
    /// Addresses, and any that one of these names stands for.
    Addrs(AddrSet, Option<Arc<HostSet>>),
}

/// What can be said about a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It holds for every packet.
    Holds,
    /// It does not hold for this one, because of this rule.
    Fails(Example, RuleId),
    /// There is no packet it speaks of.
    Nothing,
}

/// Looks for a packet that contradicts `claim`.
pub(crate) fn prove(policy: &Policy, claim: &Claim) -> Result<Answer, TooTangled> {
    let mut sides = Sides::with_names(nameable(policy));
    let (mut fuel, mut answer) = (FUEL, Answer::Nothing);
    let any = AddrSet::any();
    let set = |end: &End| match end {
        End::Zone(_) => any.clone(),
        End::Addrs(set, _) => set.clone(),
    };
    let hosts = match &claim.to {
        End::Zone(_) => None,
        End::Addrs(_, hosts) => hosts.as_ref(),
    };
    let (from, to) = (set(&claim.from), set(&claim.to));
    let spoken_of = sides.product_with_names(&from, (&to, hosts), &claim.what);
    for direction in directions(policy, claim) {
        let layers = layers_of(policy, direction);
        let here = |region: &&Region| direction.1 != Zone::Clients || region.named.is_all();
        for region in spoken_of.iter().filter(here) {
            decided(region.clone(), &layers, &mut fuel, &mut |part, by, _| {
                let By::Rule(at) = by else { return Ok(true) };
                let then = layers.effect(at).map(|effect| effect.then);
                let agrees = match then {
                    Some(Then::Do(action)) => (action == Action::Accept) == claim.can,
                    // Nobody knows what a VM's own rules will say.
                    Some(Then::Qubes) | None => false,
                };
                if agrees {
                    answer = Answer::Holds;
                    return Ok(true);
                }
                let packet = witness::packet(policy, direction, &part);
                answer = Answer::Fails(packet, layers.id(at));
                Ok(false)
            })?;
            if matches!(answer, Answer::Fails(..)) {
                return Ok(answer);
            }
        }
    }
    Ok(answer)
}

/// Where such packets may come in and go out. An address that is no VM's may be outside or that of a
/// client without a name: what cannot be reached is looked for in both places, what can be reached
/// is meant to be outside.
fn directions(policy: &Policy, claim: &Claim) -> Vec<(Zone, Zone)> {
    let vms = policy.parts().vms.iter().flat_map(|vm| vm.addrs.iter().copied());
    let vms = AddrSet::from_addrs(vms);
    let fits = |end: &End, zone: Zone| match end {
        End::Zone(of) => *of == zone,
        // A name is known on an uplink alone.
        End::Addrs(set, Some(_)) if set.is_empty() => zone != Zone::Clients,
        End::Addrs(set, _) if set.v4.is_subset(&vms.v4) && set.v6.is_subset(&vms.v6) => {
            zone == Zone::Clients
        }
        End::Addrs(set, _) if claim.can && set.intersection(&vms).is_empty() => {
            zone != Zone::Clients
        }
        End::Addrs(..) => true,
    };
    let spoken_of = |end: &End| match end {
        End::Zone(zone) => zone.uplink(),
        End::Addrs(..) => None,
    };
    let mut uplinks = super::uplinks(policy);
    uplinks.extend([&claim.from, &claim.to].into_iter().filter_map(spoken_of));
    let all = super::directions(&uplinks);
    let fitting = all.iter().filter(|(a, b)| fits(&claim.from, *a) && fits(&claim.to, *b));
    let fitting: Vec<_> = fitting.copied().collect();
    if !fitting.is_empty() || spoken_of(&claim.from).is_some() {
        return fitting;
    }
    // Both ends would be outside, where nothing begins that is ours: the first is a client.
    all.into_iter().filter(|(a, b)| *a == Zone::Clients && fits(&claim.to, *b)).collect()
}
