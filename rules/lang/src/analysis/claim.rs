//! Whether a claim about reachability holds for every packet it speaks of.

use super::layers::By;
use super::space::Sides;
use super::{DIRECTIONS, FUEL, TooTangled, decided, layers_of, witness};
use rules::{Action, AddrSet, Policy, Query, RuleId, Then, Uplink, What, Zone};

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
    Addrs(AddrSet),
}

/// What can be said about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It holds for every packet.
    Holds,
    /// It does not hold for this one, because of this rule.
    Fails(Query, RuleId),
    /// There is no packet it speaks of.
    Nothing,
}

/// Looks for a packet that contradicts `claim`.
pub(crate) fn prove(policy: &Policy, claim: &Claim) -> Result<Answer, TooTangled> {
    let (mut sides, mut fuel, mut answer) = (Sides::default(), FUEL, Answer::Nothing);
    let any = AddrSet::any();
    let set = |end: &End| match end {
        End::Zone(_) => any.clone(),
        End::Addrs(set) => set.clone(),
    };
    let spoken_of = sides.product(&set(&claim.from), &set(&claim.to), &claim.what);
    for direction in directions(policy, claim) {
        let layers = layers_of(policy, direction);
        for region in &spoken_of {
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
    let zones = |end: &End| match end {
        End::Zone(zone) => vec![*zone],
        End::Addrs(set) if set.v4.is_subset(&vms.v4) && set.v6.is_subset(&vms.v6) => {
            vec![Zone::Clients]
        }
        End::Addrs(set) if claim.can && set.intersection(&vms).is_empty() => {
            vec![Zone::Uplink(Uplink::FIRST)]
        }
        End::Addrs(_) => Zone::ALL.to_vec(),
    };
    let (from, to) = (zones(&claim.from), zones(&claim.to));
    let mut fitting = DIRECTIONS.to_vec();
    fitting.retain(|(a, b)| from.contains(a) && to.contains(b));
    if fitting.is_empty() { vec![(Zone::Clients, Zone::Uplink(Uplink::FIRST))] } else { fitting }
}
