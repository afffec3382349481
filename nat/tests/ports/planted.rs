//! Allocators that must not pass: each has one of the faults that are known from the field.

use super::judges::{LCG, Observed};
use chacha20::ChaCha20Rng;
use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};
use std::collections::BTreeSet;

/// Something that picks one of the ports that are free, which is all it is told.
pub(crate) trait Allocator {
    fn pick(&mut self, free: &BTreeSet<u16>) -> u16;
}

/// What is seen of an allocator while this share of the ports is taken.
pub(crate) fn observe(allocator: &mut dyn Allocator, percent: u32, count: usize) -> Observed {
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let mut free: BTreeSet<u16> = (1024..=u16::MAX).collect();
    let left = free.len() * (100 - percent as usize) / 100;
    while free.len() > left {
        free.remove(&random(&mut rng));
    }
    let picks = std::iter::repeat_with(|| allocator.pick(&free)).take(count).collect();
    Observed { picks, free }
}

fn random(rng: &mut impl Rng) -> u16 {
    u16::try_from(rng.next_u32() >> 16).unwrap()
}

/// The next free one.
pub(crate) struct Sequential(pub(crate) u16);

impl Allocator for Sequential {
    fn pick(&mut self, free: &BTreeSet<u16>) -> u16 {
        let next = self.0.checked_add(1).and_then(|from| free.range(from..).next());
        self.0 = *next.or_else(|| free.first()).unwrap();
        self.0
    }
}

/// Evenly spread, but that it likes odd ports a little more.
pub(crate) struct LowBitBiased(ChaCha20Rng);

impl LowBitBiased {
    pub(crate) fn new(secret: u8) -> Self {
        Self(ChaCha20Rng::from_seed([secret; 32]))
    }
}

impl Allocator for LowBitBiased {
    fn pick(&mut self, free: &BTreeSet<u16>) -> u16 {
        let mut even_passed = false;
        loop {
            let port = random(&mut self.0);
            if free.contains(&port) {
                if port & 1 == 1 || even_passed || self.0.next_u32().is_multiple_of(4) {
                    return port;
                }
                even_passed = true;
            }
        }
    }
}

/// One full-period walk that goes on for ever, instead of one for each search.
pub(crate) struct OneWalk {
    a: u16,
    c: u16,
    x: u16,
}

impl OneWalk {
    pub(crate) fn new(secret: u8) -> Self {
        let mut rng = ChaCha20Rng::from_seed([secret; 32]);
        let [a, c, x] = [(); 3].map(|()| random(&mut rng));
        Self { a: a & !7 | 5, c: c | 1, x }
    }
}

impl Allocator for OneWalk {
    fn pick(&mut self, free: &BTreeSet<u16>) -> u16 {
        loop {
            self.x = self.x.wrapping_mul(self.a).wrapping_add(self.c);
            if free.contains(&self.x) {
                return self.x;
            }
        }
    }
}

/// A linear congruential generator that shows the upper half of its state.
pub(crate) struct OneLcg(pub(crate) u32);

impl Allocator for OneLcg {
    fn pick(&mut self, free: &BTreeSet<u16>) -> u16 {
        loop {
            self.0 = self.0.wrapping_mul(LCG.0).wrapping_add(LCG.1);
            let port = u16::try_from(self.0 >> 16).unwrap();
            if free.contains(&port) {
                return port;
            }
        }
    }
}

/// A good generator that starts from a number in the source.
pub(crate) struct Unkeyed(Pcg32);

impl Unkeyed {
    pub(crate) fn new() -> Self {
        Self(Pcg32::new(0xcafe_f00d_d15e_a5e5, 0x0a02_bdbf_7bb3_c0a7))
    }
}

impl Allocator for Unkeyed {
    fn pick(&mut self, free: &BTreeSet<u16>) -> u16 {
        std::iter::repeat_with(|| random(&mut self.0)).find(|port| free.contains(port)).unwrap()
    }
}
