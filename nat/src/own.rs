//! What the firewall itself takes from the translator: ports for datagrams of its own, and randomness.
//!
//! In: nothing. Out: a port that no flow has or gets while it is held, and numbers that nobody outside
//! can guess. Never: a port below 1024, one that was asked for, or the same stream twice.

use crate::nat::Nat;
use crate::ports::Walk;
use chacha20::ChaCha20Rng;
use rand_pcg::rand_core::Rng;
use wire::Proto;

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
