//! More entropy for what is drawn from now on.

use crate::Nat;
use chacha20::ChaCha20Rng;
use rand_pcg::rand_core::{Rng, SeedableRng};

impl Nat {
    /// Mixes `entropy` into what ports are drawn from. What was secret before stays so, even if
    /// `entropy` is known; if that is secret, the next draws are, even if what was before is known.
    pub fn stir(&mut self, entropy: &[u8; 32]) {
        let mut seed = [0; 32];
        self.keyed.fill_bytes(&mut seed);
        seed.iter_mut().zip(entropy).for_each(|(byte, more)| *byte ^= more);
        self.keyed = ChaCha20Rng::from_seed(seed);
    }
}
