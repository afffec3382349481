//! What a firewall without a policy of its own does in Qubes: what `qvm-firewall` says, and no more.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec;
use rules::{AddrSet, Block, Parts, Policy, Rule, Then, Uplink, What, Zone};

/// `policy clients -> uplink { qubes }`, and `nat clients -> uplink masquerade`.
pub(super) fn qubes() -> Option<Policy> {
    let any = Arc::new(AddrSet::any());
    let rule = Rule {
        line: 1,
        src: any.clone(),
        dst: any,
        hosts: None,
        what: What::Any,
        when: None,
        then: Then::Qubes,
        limit: None,
        log: None,
    };
    let outward = (Zone::Clients, Zone::Uplink(Uplink::FIRST));
    let parts = Parts {
        name: "qubes".to_string(),
        blocks: vec![Block { from: outward.0, to: outward.1, rules: vec![rule] }],
        masquerade: vec![outward],
        ..Parts::default()
    };
    Policy::new(parts).ok()
}
