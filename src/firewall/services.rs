//! What the policy says beside its rules, in the words of those who do it.
//!
//! In: a policy's [`Services`] and our own addresses. Out: the translator's lists, its times and its
//! limit. Never: a second translation of one name: of two, the one that was written first counts.

use super::Firewall;
use super::syslog::Syslog;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;
use nat::{Forward, Prefix, STATICS_MAX, Source, Statics, Timeouts};
use rules::{Policy, Ported, Services, Timeout};
use wire::{Instant, Proto};

impl Firewall {
    /// Takes over what the policy says beside its rules. To be called again when our own addresses
    /// change.
    pub(super) fn take_services(&mut self, now: Instant) {
        let none = Services::default();
        let services = self.policy.as_ref().map_or(&none, |policy| &policy.parts().services);
        let statics = self.written(services);
        // What a policy may say, a translator can do: it was checked when the policy was made.
        let taken = self.nat.set_statics(statics);
        debug_assert_eq!(taken, Ok(()));
        self.asks_about_forwards = true;
        let services = self.policy.as_ref().map_or(&none, |policy| &policy.parts().services);
        let _ = self.nat.set_timeouts(timeouts(self.timeouts, services));
        self.nat.set_flows_per_client(services.flows_per_client);
        let links = &self.links;
        self.ways.set_routes(now, &services.routes, |uplink| links.uplink(uplink).is_some());
        self.syslog = Syslog::new(now, services.syslog);
    }

    /// The lists of the translator.
    fn written(&self, services: &Services) -> Statics {
        let mut names = BTreeSet::new();
        // What is our own address on an uplink is not answered for on another.
        let may_be = |uplink, external| self.ways.owner(external).is_none_or(|own| own == uplink);
        let forwards = services.forwards.iter().filter_map(|forward| {
            let (own, _) = forward.to.first()?;
            let uplink = forward.uplink;
            let external = forward.at.or_else(|| self.ways.own(uplink, *own))?;
            let from = remotes(forward, external).filter(|_| may_be(uplink, external))?;
            let (proto, port) = (proto(forward.proto), forward.port);
            names.insert((proto, external, port)).then(|| Forward {
                uplink,
                proto,
                external,
                port,
                from,
                to: forward.to.clone(),
                balance: forward.balance,
            })
        });
        let forwards = forwards.collect();
        let sources = services.sources.iter().filter(|s| may_be(s.uplink, s.external));
        let sources = sources.filter(|source| {
            let fixed = source.socket.zip(source.port);
            fixed.is_none_or(|((of, _), port)| names.insert((proto(of), source.external, port)))
        });
        let sources = sources.map(|source| Source {
            uplink: source.uplink,
            inside: source.inside,
            socket: source.socket.map(|(of, port)| (proto(of), port)),
            external: source.external,
            port: source.port,
        });
        let one_to_one = services.one_to_one.iter().filter(|p| may_be(p.uplink, p.external));
        Statics {
            forwards,
            sources: sources.collect(),
            one_to_one: one_to_one.copied().collect(),
            hairpin: services.hairpin,
        }
    }
}

/// Who may use a forward: nobody is named if everybody may, and `None` is nobody at all.
fn remotes(forward: &rules::Forward, external: IpAddr) -> Option<Vec<Prefix>> {
    if forward.from.is_any() {
        return Some(Vec::new());
    }
    let same = forward.from.prefixes().filter(|(addr, _)| addr.is_ipv6() == external.is_ipv6());
    let from: Vec<_> = same.map(|(addr, len)| Prefix { addr, len }).collect();
    // Whom the list has no place for is still refused by the rules.
    if from.len() > STATICS_MAX { Some(Vec::new()) } else { Some(from).filter(|f| !f.is_empty()) }
}

const fn proto(of: Ported) -> Proto {
    match of {
        Ported::Tcp => Proto::Tcp,
        Ported::Udp => Proto::Udp,
    }
}

fn timeouts(usual: Timeouts, services: &Services) -> Timeouts {
    let mut times = usual;
    for (kind, secs) in &services.timeouts {
        let time = match kind {
            Timeout::Udp => &mut times.udp,
            Timeout::Dns => &mut times.dns,
            Timeout::Icmp => &mut times.icmp,
            Timeout::TcpEstablished => &mut times.tcp_established,
            Timeout::TcpTransitory => &mut times.tcp_transitory,
            Timeout::TcpClosed => &mut times.tcp_closed,
        };
        *time = Duration::from_secs((*secs).into());
    }
    times
}

/// What rules, beside matching, make of a policy: whether the interface with this address may use
/// `addr`.
pub(super) fn may_use(policy: &Policy, addr: IpAddr, mac: [u8; 6]) -> bool {
    policy.mac_of(addr).is_none_or(|of| of == mac)
}
