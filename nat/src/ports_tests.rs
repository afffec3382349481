//! The allocator, and the same judgement over allocators that must not pass it.

use super::*;
use chacha20::ChaCha20Rng;
use rand_pcg::Pcg32;
use std::vec;
use std::vec::Vec;

fn keyed(secret: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([secret; 32])
}

/// Something that picks a free port. It is told nothing but what is free.
trait Pick {
    fn pick(&mut self, ports: &mut Ports) -> u16;
}

/// The real one.
struct Keyed(ChaCha20Rng);

impl Pick for Keyed {
    fn pick(&mut self, ports: &mut Ports) -> u16 {
        let port = ports.take(Walk::fresh(&mut self.0), |_| false).unwrap();
        ports.release(port);
        port
    }
}

/// The next free one.
struct Sequential(u16);

impl Pick for Sequential {
    fn pick(&mut self, ports: &mut Ports) -> u16 {
        let from = self.0;
        self.0 = (1..).map(|i| from.wrapping_add(i)).find(|p| !ports.is_taken(*p)).unwrap();
        self.0
    }
}

/// Evenly spread, but for the lowest bit: of two ports that only differ there, it likes one more.
struct LowBitBiased(Keyed);

impl Pick for LowBitBiased {
    fn pick(&mut self, ports: &mut Ports) -> u16 {
        let port = self.0.pick(ports);
        if port & 1 == 1 { port } else { self.0.pick(ports) }
    }
}

/// One walk that goes on for ever.
struct OneWalk(Walk);

impl Pick for OneWalk {
    fn pick(&mut self, ports: &mut Ports) -> u16 {
        let mut numbers = self.0.numbers().skip(1);
        let port = numbers.find(|port| !ports.is_taken(*port)).unwrap();
        self.0.start = port ^ self.0.mask;
        port
    }
}

/// A generator that was keyed once, and is good for everything but secrecy.
struct OneGenerator(Pcg32);

impl Pick for OneGenerator {
    fn pick(&mut self, ports: &mut Ports) -> u16 {
        let port = ports.take(Walk::fresh(&mut self.0), |_| false).unwrap();
        ports.release(port);
        port
    }
}

/// One way of sorting ports into so many cells.
type View = (usize, fn(u16) -> usize);

/// A table in which this share of the ports is taken, at random.
fn filled(percent: u32) -> Ports {
    let mut ports = Ports::new();
    let mut rng = keyed(77);
    for _ in 0..COUNT * percent / 100 {
        ports.take(Walk::fresh(&mut rng), |_| false).unwrap();
    }
    ports
}

/// How far counts are from those expected, in standard deviations of chi-square.
fn deviation(counts: &[u32], expected: &[f64]) -> f64 {
    let terms = counts.iter().zip(expected).filter(|(_, e)| **e > 0.0);
    let (chi, cells) = terms.fold((0.0, 0.0), |(chi, cells), (count, expected)| {
        let off = f64::from(*count) - expected;
        (chi + off * off / expected, cells + 1.0)
    });
    let df: f64 = cells - 1.0;
    (chi - df) / (2.0 * df).sqrt()
}

/// The worst deviation over several ways of looking at the same picks: where in the range they lie,
/// their low bits, and how each depends on the one before.
fn worst(picker: &mut impl Pick, percent: u32) -> f64 {
    const PICKS: u32 = 60_000;
    let mut ports = filled(percent);
    let picks: Vec<u16> = (0..PICKS).map(|_| picker.pick(&mut ports)).collect();
    let free: Vec<u16> = (0..=u16::MAX).filter(|port| !ports.is_taken(*port)).collect();
    assert!(picks.iter().all(|port| !ports.is_taken(*port)), "only free ports are picked");
    let views: [View; 3] = [
        (256, |p| usize::from(p >> 8)),
        (16, |p| usize::from(p & 15)),
        (2, |p| usize::from(p & 1)),
    ];
    let mut worst: f64 = 0.0;
    for (cells, view) in views {
        let mut share = vec![0.0; cells];
        for port in &free {
            share[view(*port)] += 1.0 / free.len() as f64;
        }
        let mut counts = vec![0; cells];
        picks.iter().for_each(|port| counts[view(*port)] += 1);
        let expected: Vec<f64> = share.iter().map(|s| s * f64::from(PICKS)).collect();
        worst = worst.max(deviation(&counts, &expected));
        // Pairs of successive picks, coarser so that no cell is too small to count.
        let coarse = cells.min(16);
        let view = |port| view(port) * coarse / cells;
        let mut coarse_share = vec![0.0; coarse];
        for port in &free {
            coarse_share[view(*port)] += 1.0 / free.len() as f64;
        }
        let mut counts = vec![0; coarse * coarse];
        picks.windows(2).for_each(|w| counts[view(w[0]) * coarse + view(w[1])] += 1);
        let pairs = coarse_share.iter().flat_map(|a| coarse_share.iter().map(move |b| a * b));
        let expected: Vec<f64> = pairs.map(|s| s * f64::from(PICKS - 1)).collect();
        worst = worst.max(deviation(&counts, &expected));
    }
    worst
}

/// Beyond this many standard deviations no honest allocator is found.
const LIMIT: f64 = 6.0;

/// How many of `observed` picks an enemy foretells, who takes the last three for outputs of one
/// linear congruential generator.
fn foretold(picker: &mut impl Pick, observed: usize) -> usize {
    let mut ports = filled(0);
    let picks: Vec<u16> = (0..observed).map(|_| picker.pick(&mut ports)).collect();
    picks
        .windows(4)
        .filter(|w| {
            let (first, second) = (w[1].wrapping_sub(w[0]), w[2].wrapping_sub(w[1]));
            // The inverse of an odd number mod 2^16, by Newton.
            let inverse =
                (0..4).fold(first, |i, _| i.wrapping_mul(2u16.wrapping_sub(first.wrapping_mul(i))));
            let a = second.wrapping_mul(inverse);
            first & 1 == 1 && w[3] == w[2].wrapping_add(a.wrapping_mul(second))
        })
        .count()
}

#[test]
fn every_walk_visits_every_number_once() {
    let mut rng = keyed(1);
    for _ in 0..10_000 {
        let walk = Walk::fresh(&mut rng);
        assert_eq!((walk.a % 8, walk.c % 2), (5, 1));
        // Written out, since it runs 655 million times; that `numbers` walks the same way is
        // checked below. A walk that first comes back to its start after 65,536 steps has met as
        // many numbers.
        let [a, c, start] = [walk.a, walk.c, walk.start].map(u32::from);
        let mut x = start;
        let mut steps = 0;
        loop {
            x = (x * a + c) & 0xffff;
            steps += 1;
            if x == start {
                break;
            }
        }
        assert_eq!(steps, 65536, "{walk:?}");
    }
}

#[test]
fn numbers_are_the_walk_under_its_mask() {
    let walk = Walk { a: 13, c: 7, start: 100, mask: 0xff00, rank: 0 };
    let first: Vec<u16> = walk.numbers().take(3).collect();
    assert_eq!(first, [100 ^ 0xff00, 1307 ^ 0xff00, 16998 ^ 0xff00]);
    let mut all: Vec<u16> = walk.numbers().collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 65536);
}

#[test]
fn n30_picks_are_even_and_independent_however_full_it_is() {
    for percent in [0, 50, 90, 99] {
        let worst = worst(&mut Keyed(keyed(2)), percent);
        assert!(worst < LIMIT, "{percent} % full: {worst} standard deviations");
    }
}

#[test]
fn n30_uneven_allocators_are_found_out() {
    for percent in [0, 50, 90] {
        assert!(worst(&mut Sequential(2000), percent) > LIMIT, "sequential at {percent} %");
        assert!(
            worst(&mut LowBitBiased(Keyed(keyed(3))), percent) > LIMIT,
            "biased at {percent} %"
        );
        assert!(
            worst(&mut OneWalk(Walk::fresh(&mut keyed(4))), percent) > LIMIT,
            "one walk at {percent} %"
        );
    }
}

#[test]
fn n30_a_lattice_foretells_nothing() {
    const OBSERVED: usize = 100_000;
    // By chance, one in 2 * 65536 is right.
    assert!(foretold(&mut Keyed(keyed(5)), OBSERVED) <= 8);
    let walk = Walk { mask: 0, ..Walk::fresh(&mut keyed(5)) };
    assert!(foretold(&mut OneWalk(walk), OBSERVED) > OBSERVED / 4, "the enemy knows his trade");
}

/// Whether what is picked after `known` picks still depends on the key, for one who has learnt all
/// there was inside up to then. `make` makes an allocator of a key; `rekey` changes what it will
/// draw from now on, and nothing it has drawn already.
fn stays_secret<P: Pick>(make: impl Fn() -> P, rekey: impl Fn(&mut P)) -> bool {
    let (mut ours, mut theirs) = (make(), make());
    let mut ports = filled(0);
    for _ in 0..100 {
        assert_eq!(ours.pick(&mut ports), theirs.pick(&mut ports));
    }
    rekey(&mut ours);
    let same = (0..100).filter(|_| ours.pick(&mut ports) == theirs.pick(&mut ports)).count();
    same < 5
}

#[test]
fn n30_every_search_is_freshly_keyed() {
    assert!(stays_secret(|| Keyed(keyed(6)), |p| p.0 = keyed(7)));
    // Keyed once: what the key does afterwards no longer matters.
    assert!(!stays_secret(
        || (OneGenerator(Pcg32::from_seed([6; 16])), keyed(6)),
        |(_, key)| *key = keyed(7)
    ));
}

impl<P: Pick> Pick for (P, ChaCha20Rng) {
    fn pick(&mut self, ports: &mut Ports) -> u16 {
        self.0.pick(ports)
    }
}

/// How many of a hundred picks two allocators have in common, each at the same place.
fn in_common(mut a: impl Pick, mut b: impl Pick) -> usize {
    let mut ports = filled(0);
    (0..100).filter(|_| a.pick(&mut ports) == b.pick(&mut ports)).count()
}

#[test]
fn n30_two_secrets_pick_differently() {
    assert!(in_common(Keyed(keyed(8)), Keyed(keyed(9))) < 5);
    let unkeyed = || OneGenerator(Pcg32::new(1, 1));
    assert_eq!(in_common(unkeyed(), unkeyed()), 100);
}

#[test]
fn n04_every_port_from_1024_on_is_given_once_and_then_none() {
    let mut ports = Ports::new();
    let mut rng = keyed(10);
    let mut given = std::collections::BTreeSet::new();
    for left in (0..COUNT).rev() {
        let port = ports.take(Walk::fresh(&mut rng), |_| false).unwrap();
        assert!(port >= FIRST && given.insert(port));
        assert_eq!(ports.free(), left);
    }
    // Known from the counter: not even asked about a port.
    assert_eq!(ports.take(Walk::fresh(&mut rng), |_| unreachable!()), None);
    for port in [1024, 40_000, 65_535] {
        ports.release(port);
        assert_eq!(ports.take(Walk::fresh(&mut rng), |_| false), Some(port));
    }
}

#[test]
fn only_what_is_taken_and_may_be_given_is_given_back() {
    let mut ports = Ports::new();
    ports.release(80);
    ports.release(2000);
    assert_eq!(ports.free(), COUNT);
    assert!(ports.reserve(2000) && !ports.reserve(2000) && !ports.reserve(80));
    ports.release(2000);
    assert_eq!(ports.free(), COUNT);
}

#[test]
fn ports_better_avoided_are_taken_last() {
    for percent in [0, 90, 99] {
        let mut ports = filled(percent);
        let mut rng = keyed(11);
        for _ in 0..500 {
            let port = ports.take(Walk::fresh(&mut rng), |port| port % 2 == 0).unwrap();
            assert_eq!(port % 2, 1, "{percent} %");
            ports.release(port);
        }
        assert!(ports.take(Walk::fresh(&mut rng), |_| true).is_some(), "but rather than none");
    }
}
