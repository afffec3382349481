//! What a running firewall is told: the VMs' own rules.
//!
//! In: what dom0 keeps for this firewall. Out: the same firewall, whose flows live on as far as what
//! they were made of is still so. Never: asks a flow again when nothing has changed.

use super::Firewall;
use alloc::vec::Vec;
use core::net::IpAddr;
use rules::qubes::{Tree, TreeError, Trees};
use wire::Port;

impl Firewall {
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

    /// The rules of the client with this address are others.
    pub(super) fn ask_again_about(&mut self, client: IpAddr) {
        let ports: Vec<Port> = self.links.owners(client).collect();
        for port in ports {
            self.epochs.change(port);
        }
    }
}
