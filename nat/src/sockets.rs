//! Which flows share an external port: all of a client's socket (endpoint-independent mapping, RFC
//! 4787 REQ-1), but a redirected flow has one of its own.
//!
//! In: flows that come and go. Out: a port for each, drawn anew or shared. Never: two sockets of a
//! protocol with the same external port, or a port that is held by no flow.
//!
//! The flows of a socket are in a ring, and one of them stands in an index under the socket.

use crate::Hash;
use crate::flow::{ByPeer, Flow, Origin};
use crate::lists::{Links, join, leave};
use crate::nat::Nat;
use crate::open::Seed;
use crate::ports::Walk;
use wire::{DropReason, Instant, Proto};

impl Nat {
    /// A flow whose external port is that of the seed's socket.
    pub(crate) fn shared(&self, seed: &Seed) -> Option<u32> {
        if seed.origin != Origin::Client {
            return None;
        }
        let (addr, port) = seed.client.packed();
        let same = |index| {
            let of_socket = |flow: &&Flow| {
                (flow.kind, flow.owner) == (seed.kind, seed.owner.slot().0)
                    && (flow.client, flow.client_port) == (addr, port)
                    && flow.external == seed.external
            };
            self.flows.get(index).filter(of_socket).map(|_| index)
        };
        self.sockets.find(self.hasher.endpoint(seed.kind, (addr, port)), same)
    }

    /// Draws a port for a flow, and counts it as its owner's.
    pub(crate) fn draw_port(&mut self, now: Instant, seed: &Seed) -> Result<u16, DropReason> {
        let proto = seed.kind.proto();
        let walk = Walk::fresh(&mut self.keyed);
        let Hash(remote) = self.hasher.endpoint(seed.kind, seed.remote.packed());
        let second = self.second(now);
        let avoid = |port| proto == Proto::Tcp && self.quarantine.holds(port, remote, second);
        let port = self.ports.of_mut(proto).take(walk, avoid).ok_or(DropReason::PortsExhausted)?;
        if let Some(client) = self.clients.get_mut(seed.owner.slot().0) {
            *client.ports.of_mut(proto) += 1;
        }
        self.drawn += 1;
        Ok(port)
    }

    /// A flow that has just come has its port from `shared`, or for itself. False if there is no room.
    pub(crate) fn enter_socket(&mut self, index: u32, shared: Option<u32>) -> bool {
        let Some(flow) = self.flows.get_mut(index) else { return false };
        flow.peers = Links::alone(index);
        match (flow.origin, shared) {
            (Origin::Client, Some(other)) => {
                join(&mut ByPeer(&mut self.flows), index, other);
                true
            }
            (Origin::Client, None) => {
                let hash = self.hasher.endpoint(flow.kind, (flow.client, flow.client_port));
                self.sockets.insert(hash, index)
            }
            (Origin::Redirected | Origin::Named | Origin::World, _) => true,
        }
    }

    /// A flow is about to go. True if nobody has its external port any more, and it was drawn.
    pub(crate) fn leave_socket(&mut self, index: u32) -> bool {
        let other = leave(&mut ByPeer(&mut self.flows), index);
        let Some(flow) = self.flows.get(index) else { return false };
        match flow.origin {
            Origin::Client => {
                let hash = self.hasher.endpoint(flow.kind, (flow.client, flow.client_port));
                match other {
                    Some(other) => self.sockets.replace(hash, index, other),
                    None => self.sockets.remove(hash, index),
                };
                other.is_none()
            }
            Origin::Redirected => true,
            Origin::Named | Origin::World => false,
        }
    }

    /// Gives back the port of a flow that was the last to have it.
    pub(crate) fn give_back(&mut self, now: Instant, flow: &Flow) {
        let (proto, port) = (flow.proto(), flow.external_port);
        if self.book.claims(proto, port) {
            // Written down since it was drawn: nobody is to draw it again.
            self.book.keep(proto, port);
            self.clients.withhold(proto);
        } else {
            self.ports.of_mut(proto).release(port);
        }
        if let Some(client) = self.clients.get_mut(flow.owner) {
            let ports = client.ports.of_mut(proto);
            *ports = ports.saturating_sub(1);
        }
        self.drawn = self.drawn.saturating_sub(1);
        if let (Proto::Tcp, Some(remote)) = (proto, self.remote(flow)) {
            let Hash(remote) = self.hasher.endpoint(flow.kind, remote);
            self.quarantine.hold(port, remote, self.second(now));
        }
    }
}
