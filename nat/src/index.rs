//! Where values stand, by the hash of what they are found by: open addressing with linear probing,
//! the entries of each stretch in the order of their homes (Robin Hood).
//!
//! In: hashes, and small numbers. Out: the number that stands under a hash. Never: an allocation after
//! it was made, a rehash, or a mark left behind by what was removed: no step takes longer than the
//! stretch it is in, and how long those get is a matter of luck that nobody can steer.
//!
//! An entry is four bytes: how far it stands from home, some bits of its hash, its number.

use crate::Hash;
use alloc::boxed::Box;
use alloc::vec;

/// Bits that say how far from home an entry stands, counted from one; zero is a vacant place.
const WAY_BITS: u32 = 6;
const WAY_SHIFT: u32 = 32 - WAY_BITS;

/// One step further from home.
const STEP: u32 = 1 << WAY_SHIFT;

/// Places behind the last home, so that no stretch has to wrap around.
const TAIL: usize = 1 << WAY_BITS;

/// Most numbers there can be.
pub(crate) const NUMBERS_MAX: u32 = 1 << WAY_SHIFT;

/// The index.
#[derive(Debug)]
pub(crate) struct Index {
    slots: Box<[u32]>,
    homes: u32,
    /// Bits of an entry that are its number.
    number: u32,
}

/// Homes for so many entries, of which three quarters are taken at most.
const fn homes(entries: u32) -> u32 {
    entries.saturating_add(entries / 3).saturating_add(1)
}

/// Bytes of an index for so many entries.
pub(crate) const fn bytes(entries: u32) -> usize {
    (homes(entries) as usize).saturating_add(TAIL).saturating_mul(size_of::<u32>())
}

impl Index {
    /// An empty index for `entries` numbers below `numbers`, of which there may be [`NUMBERS_MAX`].
    pub(crate) fn new(entries: u32, numbers: u32) -> Self {
        let homes = homes(entries);
        let number = numbers.checked_next_power_of_two().unwrap_or(NUMBERS_MAX).min(NUMBERS_MAX);
        let slots = vec![0; (homes as usize).saturating_add(TAIL)].into_boxed_slice();
        Self { slots, homes, number: number.wrapping_sub(1) }
    }

    /// What `found` makes of the first number under `hash` of which it makes anything.
    #[inline]
    pub(crate) fn find<T>(&self, hash: Hash, found: impl FnMut(u32) -> Option<T>) -> Option<T> {
        self.position(hash, found).map(|(_, found)| found)
    }

    /// The number that stands at the home of a hash, if one does, be it under this hash or another.
    #[inline(always)]
    pub(crate) fn at_home(&self, hash: Hash) -> u32 {
        self.slots.get(self.start(hash).0).map_or(0, |slot| slot & self.number)
    }

    /// Puts a number under a hash. False if there is no room near its home, and nothing happened.
    pub(crate) fn insert(&mut self, hash: Hash, number: u32) -> bool {
        let (home, mut entry) = self.start(hash);
        entry |= number & self.number;
        // Behind all whose home is no later.
        let Some(rest) = self.slots.get_mut(home..) else { return false };
        let mut at = 0;
        loop {
            match rest.get(at) {
                Some(slot) if *slot >> WAY_SHIFT < entry >> WAY_SHIFT => break,
                Some(_) => {}
                None => return false,
            }
            let Some(next) = entry.checked_add(STEP) else { return false };
            entry = next;
            at = at.saturating_add(1);
        }
        let Some(rest) = rest.get_mut(at..) else { return false };
        let Some(end) = rest.iter().position(|slot| *slot == 0) else { return false };
        let Some(stretch) = rest.get_mut(..=end) else { return false };
        // All of the stretch but its vacant end moves on, if none is as far from home as can be.
        if stretch.iter().any(|slot| slot.checked_add(STEP).is_none()) {
            return false;
        }
        for slot in stretch {
            let moved = slot.wrapping_add(if *slot == 0 { 0 } else { STEP });
            *slot = core::mem::replace(&mut entry, moved);
        }
        true
    }

    /// Takes a number out. False if it does not stand there.
    pub(crate) fn remove(&mut self, hash: Hash, number: u32) -> bool {
        let found = self.position(hash, |other| (other == number).then_some(()));
        let Some((at, ())) = found else { return false };
        let Some(rest) = self.slots.get_mut(at..) else { return false };
        // Whoever is not at home comes one closer, up to the first who is, or to a vacant place.
        let mut from: usize = 1;
        while let Some([to, next]) = rest.get_mut(from.saturating_sub(1)..=from) {
            if *next < 2 * STEP {
                *to = 0;
                break;
            }
            *to = next.wrapping_sub(STEP);
            from = from.saturating_add(1);
        }
        true
    }

    /// Puts another number in the place of one. False if that does not stand there.
    pub(crate) fn replace(&mut self, hash: Hash, old: u32, new: u32) -> bool {
        let found = self.position(hash, |other| (other == old).then_some(()));
        let Some(slot) = found.and_then(|(at, _)| self.slots.get_mut(at)) else { return false };
        *slot = *slot & !self.number | new & self.number;
        true
    }

    #[inline]
    fn position<T>(
        &self,
        hash: Hash,
        mut found: impl FnMut(u32) -> Option<T>,
    ) -> Option<(usize, T)> {
        let (home, mut wanted) = self.start(hash);
        for (way, slot) in self.slots.get(home..)?.iter().enumerate() {
            // An entry of this home would stand before one that is closer to its own.
            if *slot >> WAY_SHIFT < wanted >> WAY_SHIFT {
                return None;
            }
            if slot & !self.number == wanted
                && let Some(found) = found(slot & self.number)
            {
                return Some((home.checked_add(way)?, found));
            }
            wanted = wanted.checked_add(STEP)?;
        }
        None
    }

    /// The home of a hash, and its entry there but for the number. They are made of different bits.
    #[inline]
    const fn start(&self, Hash(hash): Hash) -> (usize, u32) {
        let home = (hash >> 32).wrapping_mul(self.homes as u64) >> 32;
        let some = hash as u32 & !(u32::MAX << WAY_SHIFT) & !self.number;
        (home as usize, STEP | some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_pcg::Pcg64Mcg;
    use rand_pcg::rand_core::{Rng, SeedableRng};
    use std::collections::HashMap;
    use std::vec::Vec;

    /// The number, if it stands under that hash.
    fn look(index: &Index, hash: u64, number: u32) -> Option<u32> {
        index.find(Hash(hash), |n| (n == number).then_some(n))
    }

    fn sound(index: &Index, known: &HashMap<u32, u64>) {
        let mut taken = 0;
        let mut before = 0;
        for (at, slot) in index.slots.iter().enumerate().filter(|(_, slot)| **slot != 0) {
            let way = (slot >> WAY_SHIFT) as usize - 1;
            let home = at - way;
            assert!(home >= before, "in the order of homes");
            assert!(way == 0 || index.slots[at - 1] != 0, "no gap on the way from home");
            before = home;
            let hash = known[&(slot & index.number)];
            assert_eq!(index.start(Hash(hash)).0, home);
            taken += 1;
        }
        assert_eq!(taken, known.len());
    }

    fn turbulent(entries: u32, spread: u64) {
        let mut rng = Pcg64Mcg::seed_from_u64(u64::from(entries) ^ spread);
        let mut index = Index::new(entries, 2 * entries);
        let mut known = HashMap::new();
        for step in 0..entries * 20 {
            let number = rng.next_u32() % (2 * entries);
            if let Some(hash) = known.get(&number).copied() {
                assert_eq!(look(&index, hash, number), Some(number));
                assert!(index.remove(Hash(hash), number));
                assert!(!index.remove(Hash(hash), number));
                known.remove(&number);
            } else if known.len() < entries as usize {
                let hash = (rng.next_u64() % spread).wrapping_mul(u64::MAX / spread);
                assert!(index.insert(Hash(hash), number));
                known.insert(number, hash);
            }
            if step % (entries / 4).max(1) == 0 {
                sound(&index, &known);
            }
        }
        for (number, hash) in &known {
            assert_eq!(look(&index, *hash, *number), Some(*number));
            assert_eq!(index.find(Hash(*hash), |_| None::<u32>), None);
        }
        assert_eq!(look(&index, 1, 2 * entries), None);
    }

    #[test]
    fn it_knows_what_a_map_knows_when_full_and_after_much_turnover() {
        turbulent(64, u64::MAX);
        turbulent(2000, u64::MAX);
        turbulent(60, 12);
    }

    #[test]
    fn it_fills_up_to_what_it_was_made_for() {
        for seed in 0..20 {
            let mut rng = Pcg64Mcg::seed_from_u64(seed);
            let mut index = Index::new(40_000, 40_000);
            assert!((0..40_000).all(|number| index.insert(Hash(rng.next_u64()), number)));
        }
    }

    #[test]
    fn a_home_that_is_too_crowded_takes_nobody_and_loses_nobody() {
        let mut index = Index::new(1000, 1000);
        let taken: Vec<u32> = (0..1000).filter(|n| index.insert(Hash(u64::MAX), *n)).collect();
        assert_eq!(taken.len(), TAIL - 1);
        assert!(taken.iter().all(|n| look(&index, u64::MAX, *n).is_some()));
        // Nor does one whose place is further up, if somebody could not move on.
        assert!(!index.insert(Hash(0xffff_0000_0000_0000 | u64::MAX), 999));
        assert!(taken.iter().all(|n| index.remove(Hash(u64::MAX), *n)));
        assert!(index.slots.iter().all(|slot| *slot == 0));
    }

    #[test]
    fn a_number_is_replaced_in_place() {
        let mut index = Index::new(10, 10);
        assert!(index.insert(Hash(7), 3) && index.insert(Hash(7), 4));
        assert!(index.replace(Hash(7), 3, 9) && !index.replace(Hash(7), 3, 8));
        assert_eq!(look(&index, 7, 9), Some(9));
        assert_eq!(look(&index, 7, 3), None);
        assert_eq!(look(&index, 7, 4), Some(4));
    }
}
