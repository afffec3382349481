//! Which external ports are free, and which of them is taken next.
//!
//! In: fresh keyed randomness. Out: a free port that nobody outside can guess. Never: the same walk
//! twice, a search that does not end, or a port below 1024.
//!
//! A search is a walk of x -> a x + c mod 2^16. With a = 5 mod 8 and c odd its period is full (Hull
//! and Dobell), so it meets every port once. That is all the generator is good for: its low bits
//! repeat and three outputs betray it. So it lives for one search, and a, c, the start and a mask
//! over the output are drawn anew for each from a ChaCha stream, expanded by a PCG.

use alloc::boxed::Box;
use alloc::vec;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// The lowest port that is given away.
pub(crate) const FIRST: u16 = 1024;

/// How many ports can be given away for each protocol.
pub(crate) const COUNT: u32 = 65536 - FIRST as u32;

/// Words of the bitmap.
const WORDS: u16 = 1024;

/// With fewer free ports than this, the walk would meet too many that are taken: a free one is
/// picked by its rank in the bitmap instead, word by word.
const SPARSE: u32 = 2048;

/// Free ports passed over in one search because they are better avoided, before one is taken all
/// the same.
const PATIENCE: usize = 64;

/// Bytes of one protocol's bitmap.
pub(crate) const BYTES: usize = WORDS as usize * size_of::<u64>();

/// Everything that is random about one search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    a: u16,
    c: u16,
    start: u16,
    mask: u16,
    rank: u64,
}

impl Walk {
    /// A walk that has nothing in common with the one before, but for the secret behind `keyed`.
    pub(crate) fn fresh(keyed: &mut impl Rng) -> Self {
        let mut seed = [0; 16];
        keyed.fill_bytes(&mut seed);
        let mut pcg = Pcg64Mcg::from_seed(seed);
        let [a0, a1, c0, c1, s0, s1, m0, m1] = pcg.next_u64().to_le_bytes();
        Self {
            a: u16::from_le_bytes([a0 & !7 | 5, a1]),
            c: u16::from_le_bytes([c0 | 1, c1]),
            start: u16::from_le_bytes([s0, s1]),
            mask: u16::from_le_bytes([m0, m1]),
            rank: pcg.next_u64(),
        }
    }

    /// All 65,536 numbers, each once.
    fn numbers(self) -> impl Iterator<Item = u16> {
        let step = move |x: &u16| Some(x.wrapping_mul(self.a).wrapping_add(self.c));
        core::iter::successors(Some(self.start), step).take(65536).map(move |x| x ^ self.mask)
    }

    /// A number below `n`, all equally likely but for 2^-48.
    fn below(self, n: u32) -> u32 {
        u32::try_from(u128::from(self.rank).wrapping_mul(n.into()) >> 64).unwrap_or(0)
    }
}

/// The ports of one protocol.
#[derive(Debug)]
pub(crate) struct Ports {
    /// One bit for each port; set if it cannot be given away.
    taken: Box<[u64]>,
    /// How many bits are not set.
    free: u32,
}

impl Ports {
    /// All ports from [`FIRST`] on are free.
    pub(crate) fn new() -> Self {
        let mut taken = vec![0; WORDS.into()].into_boxed_slice();
        for word in taken.iter_mut().take(usize::from(FIRST >> 6)) {
            *word = u64::MAX;
        }
        Self { taken, free: COUNT }
    }

    /// How many are free.
    pub(crate) const fn free(&self) -> u32 {
        self.free
    }

    /// Takes a free port, one that `avoid` does not name unless nearly all are named. `None` is
    /// known at once: none is free.
    pub(crate) fn take(&mut self, walk: Walk, avoid: impl Fn(u16) -> bool) -> Option<u16> {
        if self.free == 0 {
            return None;
        }
        let port = if self.free < SPARSE {
            let rank = walk.below(self.free);
            let (first, rest) = self.split_at_rank(rank);
            choose(first.chain(rest), avoid)
        } else {
            choose(walk.numbers().filter(|port| !self.is_taken(*port)), avoid)
        }?;
        self.reserve(port).then_some(port)
    }

    /// Takes this very port, which then is never given to a flow. False if it is not free.
    pub(crate) fn reserve(&mut self, port: u16) -> bool {
        if self.is_taken(port) {
            return false;
        }
        if let Some(word) = self.taken.get_mut(usize::from(port >> 6)) {
            *word |= bit(port);
            self.free = self.free.saturating_sub(1);
        }
        true
    }

    /// Gives a port back.
    pub(crate) fn release(&mut self, port: u16) {
        if !self.is_taken(port) || port < FIRST {
            return;
        }
        if let Some(word) = self.taken.get_mut(usize::from(port >> 6)) {
            *word &= !bit(port);
            self.free = self.free.saturating_add(1);
        }
    }

    fn is_taken(&self, port: u16) -> bool {
        self.taken.get(usize::from(port >> 6)).is_none_or(|word| word & bit(port) != 0)
    }

    /// The free ports from the one of this rank on, and those before it.
    fn split_at_rank(&self, rank: u32) -> (impl Iterator<Item = u16>, impl Iterator<Item = u16>) {
        let mut before = 0;
        let mut start = 0;
        for (word, taken) in (0..WORDS).zip(&self.taken) {
            let here = taken.count_zeros();
            if before + here > rank {
                start = word;
                break;
            }
            before += here;
        }
        let skip = usize::try_from(rank - before).unwrap_or(0);
        (self.free_in(start..WORDS).skip(skip), self.free_in(0..start + 1))
    }

    /// The free ports of some words of the bitmap.
    fn free_in(&self, words: core::ops::Range<u16>) -> impl Iterator<Item = u16> {
        let taken = self.taken.iter().skip(words.start.into());
        words.zip(taken).flat_map(|(word, taken)| {
            let next = |left: &u64| Some(left & left.wrapping_sub(1));
            core::iter::successors(Some(!taken), next)
                .take_while(|left| *left != 0)
                .map(move |left| word << 6 | u16::try_from(left.trailing_zeros()).unwrap_or(0))
        })
    }
}

const fn bit(port: u16) -> u64 {
    1 << (port & 63)
}

/// The first that need not be avoided; failing that, the first of all.
fn choose(mut free: impl Iterator<Item = u16>, avoid: impl Fn(u16) -> bool) -> Option<u16> {
    let first = free.next()?;
    if !avoid(first) {
        return Some(first);
    }
    free.take(PATIENCE).find(|port| !avoid(*port)).or(Some(first))
}

#[cfg(test)]
#[path = "ports_tests.rs"]
mod tests;
