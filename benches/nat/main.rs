//! What a packet costs in `Firewall::batch`: by number of flows, by what becomes of it, by family.
//!
//! In: which of it to measure (`64 v4 hit`; all, if nothing is said), and whether `short`ly, as is
//! enough to count instructions. Out: a line of JSON for each. Never: the making of frames in what is
//! measured, or an allocation while packets are decided, which is asserted. `cargo xtask bench nat`
//! runs this, makes a table and a plot of it, and has callgrind count.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod clock;
mod frames;
mod memory;
mod town;

use frames::Family;
use std::hint::black_box;
use town::Town;
use wire::{BATCH, DropReason, Verdict};

/// Numbers of flows in the table while it is measured.
const FLOWS: [u32; 3] = [64, 1 << 16, 1_000_000];

/// What becomes of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// They belong to flows, every other one inward.
    Hit,
    /// The same of pings, which are looked at more closely than datagrams.
    Long,
    /// They come from the world and belong to no flow.
    Miss,
    /// Each opens a flow that needs a port.
    New,
    /// Not packets but flows whose time is over, taken out by `Firewall::tick`.
    Expire,
}

impl Work {
    const ALL: [Self; 5] = [Self::Hit, Self::Long, Self::Miss, Self::New, Self::Expire];

    const fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Long => "long",
            Self::Miss => "miss",
            Self::New => "new",
            Self::Expire => "expire",
        }
    }
}

/// For how long to measure.
struct Pace {
    /// Batches that warm up.
    warm: usize,
    /// Batches that count.
    batches: usize,
    /// Seconds of churn; less than what a settled flow lives without being used.
    churn: u32,
    /// Whether single inserts are timed. Callgrind does not bear the clock.
    inserts: bool,
}

impl Pace {
    const LONG: Self = Self { warm: 4000, batches: 40_000, churn: 240, inserts: true };
    const SHORT: Self = Self { warm: 0, batches: 1000, churn: 80, inserts: false };
}

/// What was measured.
#[derive(Default)]
struct Cost {
    /// Of each batch (or tick): nanoseconds for one packet (or flow).
    nanos: Vec<f64>,
    /// Of single inserts, each a batch of its own: nanoseconds of the processor.
    inserts: Vec<f64>,
    packets: u64,
    allocations: usize,
}

fn main() {
    // `cargo bench` adds `--bench`; what else there is chooses.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let wanted = |word: &str, among: &[&str]| {
        let named: Vec<_> = chosen.iter().filter(|arg| among.contains(&arg.as_str())).collect();
        named.is_empty() || named.iter().any(|arg| *arg == word)
    };
    let pace = if chosen.iter().any(|arg| arg == "short") { Pace::SHORT } else { Pace::LONG };
    let numbers = FLOWS.map(|flows| flows.to_string());
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    let words = Work::ALL.map(Work::word);
    for flows in FLOWS {
        for family in Family::ALL {
            let count = flows.to_string();
            if !wanted(&count, &numbers) || !wanted(family.word(), &["v4", "v6"]) {
                continue;
            }
            let mut town = Town::new(flows, family);
            for work in Work::ALL.into_iter().filter(|w| wanted(w.word(), &words)) {
                let emitted = |v: &Verdict| matches!(v, Verdict::Emit(_));
                let refused = |v: &Verdict| *v == Verdict::Drop(DropReason::Unsolicited);
                let cost = match work {
                    Work::Hit => repeated(&mut town, &pace, Town::hits, emitted),
                    Work::Long => repeated(&mut town, &pace, Town::pings, emitted),
                    Work::Miss => repeated(&mut town, &pace, Town::misses, refused),
                    Work::New | Work::Expire => continue,
                };
                report(flows, family, work, &cost, &town);
            }
            // Time passes in these, so they come last.
            if [Work::New, Work::Expire].iter().any(|w| wanted(w.word(), &words)) {
                let (new, expire) = churned(&mut town, &pace);
                report(flows, family, Work::New, &new, &town);
                report(flows, family, Work::Expire, &expire, &town);
            }
        }
    }
}

/// Batches of the same kind of packets, again and again.
fn repeated(
    town: &mut Town,
    pace: &Pace,
    fill: fn(&mut Town),
    expected: fn(&Verdict) -> bool,
) -> Cost {
    let mut cost = Cost::default();
    for nth in 0..pace.warm + pace.batches {
        fill(town);
        let before = memory::allocations();
        let took = town.decide(clock::passed);
        let allocations = memory::allocations() - before;
        if nth >= pace.warm {
            cost.nanos.push(took.as_nanos() as f64 / BATCH as f64);
            cost.packets += BATCH as u64;
            cost.allocations += allocations;
        }
        assert!(town.verdicts.iter().all(expected), "{:?}", town.verdicts);
    }
    cost
}

/// Each second as many flows are opened as end. In every other second they come in batches, in the
/// others alone.
fn churned(town: &mut Town, pace: &Pace) -> (Cost, Cost) {
    let (mut new, mut expire) = (Cost::default(), Cost::default());
    for second in 0..pace.churn {
        let alone = pace.inserts && second % 2 == 0;
        let batches = Town::NEWCOMERS / if alone { 1 } else { BATCH };
        for _ in 0..batches {
            if alone {
                town.newcomer();
            } else {
                town.newcomers_batch();
            }
            let before = memory::allocations();
            // What else the machine does in the meantime is no part of an insert's latency.
            let took = town.decide(if alone { clock::worked } else { clock::passed });
            let nanos = took.as_nanos() as f64;
            new.allocations += memory::allocations() - before;
            assert!(town.verdicts.iter().all(|v| matches!(v, Verdict::Emit(_))));
            if alone {
                new.inserts.push(nanos);
            } else {
                new.nanos.push(nanos / BATCH as f64);
            }
            new.packets += town.verdicts.len() as u64;
        }
        town.second_passes();
        let before = memory::allocations();
        let began = clock::passed();
        tick(town);
        let nanos = (clock::passed() - began).as_nanos() as f64;
        expire.allocations += memory::allocations() - before;
        if second > Town::NEWCOMERS_LIVE {
            expire.nanos.push(nanos / Town::NEWCOMERS as f64);
            expire.packets += Town::NEWCOMERS as u64;
        }
    }
    (new, expire)
}

/// What is measured of ticks; by its name callgrind knows where to count.
#[inline(never)]
fn tick(town: &mut Town) {
    black_box(town).tick();
}

fn report(flows: u32, family: Family, work: Work, cost: &Cost, town: &Town) {
    assert_eq!(cost.allocations, 0, "{flows} flows, {}, {}", family.word(), work.word());
    let (nanos, best) = (quantile(&cost.nanos, 0.5), quantile(&cost.nanos, 0.01));
    let insert = |q| if cost.inserts.is_empty() { 0.0 } else { quantile(&cost.inserts, q) };
    println!(
        "{{\"flows\":{flows},\"family\":\"{}\",\"work\":\"{}\",\"packets\":{},\
         \"nanos\":{nanos:.1},\"best_nanos\":{best:.1},\"allocations\":{},\
         \"insert_p50_nanos\":{:.0},\"insert_p999_nanos\":{:.0},\"insert_max_nanos\":{:.0},\
         \"bytes_per_flow\":{}}}",
        family.word(),
        work.word(),
        cost.packets,
        cost.allocations,
        insert(0.5),
        insert(0.999),
        insert(1.0),
        town.bytes_per_flow(),
    );
}

/// The value below which this share of all lies.
fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len() - 1;
    sorted[((last as f64 * q) as usize).min(last)]
}
