//! What a running firewall is told: another network, the VMs' own rules, more entropy.
//!
//! In: what dom0 keeps for this firewall. Out: the same firewall, whose flows live on as far as what
//! they were made of is still so. Never: asks a flow again when nothing has changed.

use super::hop::{Hop, NextHop};
use super::{Alias, Firewall, Site};
use alloc::vec::Vec;
use core::net::IpAddr;
use rules::DnsRedirect;
use rules::qubes::{Tree, TreeError, Trees};
use wire::{Instant, Port, Uplink};

/// Where the firewall stands between its networks, of which the world is that of the first uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// What we are on the first uplink.
    pub site: Site,
    /// Resolvers that are really somewhere else. If given, that of the policy does not count.
    pub dns: Option<DnsRedirect>,
    /// What `specialtarget=dns` means in a VM's own rules.
    pub resolvers: Vec<IpAddr>,
    /// Addresses of clients, here now or not: nobody on the uplink may have them.
    pub clients: Vec<IpAddr>,
    /// Clients that go by other names, here now or not.
    pub aliases: Vec<Alias>,
}

impl Firewall {
    /// Takes another network. Flows that left from an address that is no longer ours are over.
    pub fn set_network(&mut self, now: Instant, network: Network) {
        let Network { site, dns, resolvers, clients, aliases } = network;
        let is_up = self.links.uplink(Uplink::FIRST).is_some();
        if self.ways.set_site(now, Uplink::FIRST, site, is_up) {
            self.nat.flush_uplink(now, Uplink::FIRST);
            self.ask_for_names_anew(now);
            self.take_services(now);
        }
        if self.own.set_resolvers(&resolvers) || self.dns != dns {
            self.dns = dns;
            self.take_resolvers(now);
            self.epochs.change_all();
        }
        self.links.reserve(clients);
        self.links.rename(aliases);
        self.epochs.change_ways();
    }

    /// Takes the rules of the client with this address, or why they were not understood. Whether they
    /// differ from those before; then each flow is asked about again when its next packet comes.
    pub fn set_rules(&mut self, client: IpAddr, tree: Result<Tree, TreeError>) -> bool {
        let changed = self.own.set(client, tree);
        if changed {
            self.ask_again_about(client);
            self.take_names(self.last, client);
        }
        changed
    }

    /// The VMs' own rules.
    #[must_use]
    pub const fn own_rules(&self) -> &Trees {
        &self.own
    }

    /// Never more than `most` rules of VMs in all. Before any is set.
    pub fn limit_own_rules(&mut self, most: usize) {
        self.own = Trees::new(most);
    }

    /// Mixes entropy into what is secret from now on.
    pub fn stir(&mut self, entropy: &[u8; 32]) {
        self.nat.stir(entropy);
    }

    /// The rules of the client with this address are others.
    pub(super) fn ask_again_about(&mut self, client: IpAddr) {
        let ports: Vec<Port> = self.links.owners(client).collect();
        for port in ports {
            self.epochs.change(port);
        }
    }
}

impl Hop {
    /// Takes another next hop, which is asked for if there is an uplink.
    pub(super) fn change(&mut self, now: Instant, how: NextHop, uplink: bool) {
        if self.how() == how {
            return;
        }
        *self = Self::new(how);
        if uplink {
            self.start(now);
        }
    }
}
