//! What the firewall itself takes from the translator: ports for datagrams of its own, and randomness.
//!
//! In: nothing. Out: a port that no flow has or gets while it is held, and numbers that nobody outside
//! can guess. Never: a port below 1024, one that was asked for, or the same stream twice.

use crate::nat::Nat;
use crate::ports::Walk;
use crate::state::Class;
use chacha20::ChaCha20Rng;
use core::net::IpAddr;
use rand_pcg::rand_core::Rng;
use wire::{Addr, Instant, Port, Proto};

impl Nat {
    /// Takes an external port for the firewall itself, drawn like those of flows. No flow has it until
    /// it is given back. `None` if none is free.
    pub fn take_port(&mut self, proto: Proto) -> Option<u16> {
        let walk = Walk::fresh(&mut self.keyed);
        let port = self.ports.of_mut(proto).take(walk, |_| false)?;
        self.clients.withhold(proto);
        Some(port)
    }

    /// Gives back a port that [`Nat::take_port`] gave.
    pub fn give_port_back(&mut self, proto: Proto, port: u16) {
        self.ports.of_mut(proto).release(port);
        self.clients.restore(proto);
    }

    /// To which of `addrs` (at most 64) a client has flows that are answered: bit n for the n-th.
    #[must_use]
    pub fn talks_to(&self, now: Instant, client: Port, addrs: &[IpAddr]) -> u64 {
        let slot = client.slot().0;
        if self.clients.get(slot).is_none_or(|holding| holding.client != client) {
            return 0;
        }
        let mut found = 0;
        let mut next = self.clients.first(slot, Class::Settled);
        while let Some((index, flow)) = next.and_then(|at| Some((at, self.flows.get(at)?))) {
            next = flow.siblings.next();
            for (bit, _) in
                (0u32..64).zip(addrs).filter(|(_, addr)| Addr::from(**addr) == flow.asked)
            {
                if self.live(now, index).is_some() {
                    found |= 1 << bit;
                }
            }
        }
        found
    }

    /// A key that nobody outside can guess.
    pub fn draw_key(&mut self) -> [u8; 16] {
        let mut key = [0; 16];
        self.keyed.fill_bytes(&mut key);
        key
    }

    /// A number that nobody outside can guess.
    pub fn draw(&mut self) -> u16 {
        draw(&mut self.keyed)
    }
}

/// 16 bits of the keyed stream.
pub(crate) fn draw(keyed: &mut ChaCha20Rng) -> u16 {
    let [a, b, ..] = keyed.next_u32().to_le_bytes();
    u16::from_le_bytes([a, b])
}
