//! Judges of port allocators: given what was picked and what was free, how far from chance is it?

use std::collections::BTreeSet;

/// What somebody saw of an allocator: all that was free, each time, and what was picked.
pub(crate) struct Observed {
    pub(crate) picks: Vec<u16>,
    pub(crate) free: BTreeSet<u16>,
}

/// Beyond this many standard deviations no honest allocator is found.
pub(crate) const LIMIT: f64 = 6.0;

/// How far apart two picks may stand and still be compared.
const LAGS: usize = 64;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judge {
    /// Where in the range the picks lie: chi-square over 256 parts.
    Range,
    /// Their lowest four bits: chi-square.
    LowBits,
    /// Two that follow each other: chi-square over 16 x 16 parts.
    Pairs,
    /// Serial correlation of the picks, at every lag.
    Lag,
    /// Serial correlation of each of the low bits, at every lag.
    LowBitLag,
}

impl Judge {
    pub(crate) const ALL: [Self; 5] =
        [Self::Range, Self::LowBits, Self::Pairs, Self::Lag, Self::LowBitLag];

    /// How far from chance, in standard deviations.
    pub(crate) fn deviation(self, observed: &Observed) -> f64 {
        match self {
            Self::Range => cells(observed, 256, |port| port >> 8),
            Self::LowBits => cells(observed, 16, |port| port & 15),
            Self::Pairs => pairs(observed),
            Self::Lag => correlation(observed.picks.iter().map(|port| f64::from(*port))),
            Self::LowBitLag => (0..4)
                .map(|bit| {
                    correlation(observed.picks.iter().map(|port| f64::from(port >> bit & 1)))
                })
                .fold(0.0, f64::max),
        }
    }
}

/// Chi-square of counts against what is expected, as a normal deviation.
fn chi_square(counts: &[u32], shares: &[f64], total: usize) -> f64 {
    let cells = counts.iter().zip(shares).filter(|(_, share)| **share > 0.0);
    let (chi, cells) = cells.fold((0.0, 0.0), |(chi, cells), (count, share)| {
        let expected = share * total as f64;
        (chi + (f64::from(*count) - expected).powi(2) / expected, cells + 1.0)
    });
    let freedom: f64 = cells - 1.0;
    (chi - freedom) / (2.0 * freedom).sqrt()
}

fn shares(observed: &Observed, count: usize, cell: impl Fn(u16) -> u16) -> Vec<f64> {
    let mut shares = vec![0.0; count];
    for port in &observed.free {
        shares[usize::from(cell(*port))] += 1.0 / observed.free.len() as f64;
    }
    shares
}

fn cells(observed: &Observed, count: usize, cell: impl Fn(u16) -> u16 + Copy) -> f64 {
    let mut counts = vec![0; count];
    for port in &observed.picks {
        counts[usize::from(cell(*port))] += 1;
    }
    chi_square(&counts, &shares(observed, count, cell), observed.picks.len())
}

fn pairs(observed: &Observed) -> f64 {
    let single = shares(observed, 16, |port| port >> 12);
    let shares: Vec<f64> = single.iter().flat_map(|a| single.iter().map(move |b| a * b)).collect();
    let mut counts = vec![0; 256];
    for pair in observed.picks.windows(2) {
        counts[usize::from(pair[0] >> 12) * 16 + usize::from(pair[1] >> 12)] += 1;
    }
    chi_square(&counts, &shares, observed.picks.len() - 1)
}

/// The strongest correlation of a series with itself, over all lags.
fn correlation(series: impl Iterator<Item = f64>) -> f64 {
    let series: Vec<f64> = series.collect();
    let count = series.len() as f64;
    let mean = series.iter().sum::<f64>() / count;
    let off: Vec<f64> = series.iter().map(|value| value - mean).collect();
    let spread: f64 = off.iter().map(|value| value * value).sum();
    (1..=LAGS)
        .map(|lag| {
            let together: f64 = off.iter().zip(&off[lag..]).map(|(a, b)| a * b).sum();
            (together / spread * count.sqrt()).abs()
        })
        .fold(0.0, f64::max)
}

/// How many picks three enemies foretell who have seen all those before: one who takes the last
/// three for outputs of a linear congruential generator; one who looks for a small linear relation
/// (a short vector of the lattice that every such generator has); one who knows the multiplier of a
/// generator that shows the upper half of its 32 bits.
pub(crate) fn foretold(picks: &[u16]) -> [usize; 3] {
    [three_outputs(picks), small_relation(picks), hidden_half(picks)]
}

fn three_outputs(picks: &[u16]) -> usize {
    let next = |w: &[u16]| {
        let (first, second) = (w[1].wrapping_sub(w[0]), w[2].wrapping_sub(w[1]));
        // The inverse of an odd number mod 2^16, by Newton.
        let double = |i: u16, _| i.wrapping_mul(2u16.wrapping_sub(first.wrapping_mul(i)));
        let multiplier = second.wrapping_mul((0..4).fold(first, double));
        (first & 1 == 1).then(|| w[2].wrapping_add(multiplier.wrapping_mul(second)))
    };
    picks.windows(4).filter(|w| next(w) == Some(w[3])).count()
}

fn small_relation(picks: &[u16]) -> usize {
    const MOST: i16 = 3;
    let (known, unknown) = picks.split_at(picks.len() / 2);
    let rest = |w: &[u16], k: [i16; 3]| {
        let sum = w
            .iter()
            .zip(k)
            .fold(0u16, |sum, (port, k)| sum.wrapping_add(port.wrapping_mul(k.cast_unsigned())));
        w[3].wrapping_sub(sum)
    };
    let range = -MOST..=MOST;
    let relations = range.clone().flat_map(|a| {
        let range = range.clone();
        range.clone().flat_map(move |b| range.clone().map(move |c| [a, b, c]))
    });
    let mut counts = vec![0u32; 65_536];
    let best = relations.map(|relation| {
        counts.fill(0);
        for window in known.windows(4) {
            counts[usize::from(rest(window, relation))] += 1;
        }
        let (constant, count) = counts.iter().enumerate().max_by_key(|(_, n)| **n).unwrap();
        (*count, relation, u16::try_from(constant).unwrap())
    });
    let (_, relation, constant) = best.max().unwrap();
    unknown.windows(4).filter(|window| rest(window, relation) == constant).count()
}

/// The multiplier and increment that "Numerical Recipes" made known to all.
pub(crate) const LCG: (u32, u32) = (1_664_525, 1_013_904_223);

fn hidden_half(picks: &[u16]) -> usize {
    let next = |state: u32| state.wrapping_mul(LCG.0).wrapping_add(LCG.1);
    let seen = |state: u32| u16::try_from(state >> 16).unwrap();
    let mut hits = 0;
    let mut state: Option<u32> = None;
    for (nth, window) in picks.windows(4).enumerate() {
        // Once found out, the state is followed; a guess that fails is given up. It is looked for
        // now and then only, since that means trying out the whole hidden half.
        let followed = state.map(next).filter(|state| seen(*state) == window[2]);
        state = followed.or_else(|| {
            if nth % 16 != 0 {
                return None;
            }
            let halves = u32::from(window[0]) << 16..=u32::from(window[0]) << 16 | 0xffff;
            halves.map(next).find_map(|second| {
                let third = next(second);
                (seen(second) == window[1] && seen(third) == window[2]).then_some(third)
            })
        });
        hits += usize::from(state.is_some_and(|state| seen(next(state)) == window[3]));
    }
    hits
}
