//! What rules cost: how long a policy takes to be read, studied, put into a kernel and prepared, and what
//! a new flow pays for being asked about, by the number of rules.
//!
//! In: numbers of rules (all, if none is given), or `send N` to do what is measured of nft: send so many
//! datagrams, each of a new flow. Out: a line of JSON for each. Never: a rule that would not be found in
//! a policy: clients, servers and networks with their ports. `cargo xtask bench rules` runs this and
//! makes a table and a plot of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../../host/image/tests/elf/mod.rs"]
mod elf;
mod policy;
mod town;

use image::{Image, Kernel};
use policy::Written;
use std::hint::black_box;
use std::net::UdpSocket;
use std::time::Instant as Clock;
use town::Town;

/// Numbers of rules.
const RULES: [usize; 5] = [10, 100, 1000, 10_000, 100_000];

/// As much code as our kernel has, in bytes.
const CODE: usize = 600 << 10;

/// More rules are not studied: the analysis is for policies that people write.
const STUDIED: usize = 1000;

/// Rounds of new flows; the best tenth counts, as others may use the machine too.
const ROUNDS: usize = 20;

fn main() {
    // `cargo bench` adds `--bench`; what else there is chooses.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match chosen.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["send", count] => send(count.parse().expect("how many datagrams")),
        ["write", rules, ref form @ ..] => {
            let written = Written::new(rules.parse().expect("how many rules"));
            print!("{}", if form == ["sets"] { written.nft_sets() } else { written.nft_plain() });
        }
        [] => RULES.into_iter().for_each(measure),
        ref some => some.iter().for_each(|count| measure(count.parse().expect("how many rules"))),
    }
}

fn measure(rules: usize) {
    let written = Written::new(rules);
    let text = written.tide();
    let (compiled, compile) = timed(|| lang::compile("bench.tide", &text).expect("a policy"));
    let check = (rules <= STUDIED).then(|| timed(|| black_box(lang::check("bench.tide", &text))).1);
    let kernel = elf::with_code(CODE);
    let (_, build) = timed(|| {
        let compiled = lang::compile("bench.tide", &text).expect("a policy");
        let kernel = Kernel::parse(&kernel).expect("a kernel");
        let image = Image::with_policy(kernel, &compiled.blob, &text).expect("an image");
        black_box((image.bytes(), image.kernel.digest()))
    });
    let mut policy = compiled.policy;
    let (_, settle) = timed(|| while !policy.settle(2000) {});
    let index = policy.index_bytes();
    let mut matches: Vec<f64> = (0..ROUNDS).map(|_| written.nanos_to_match(&policy)).collect();
    let mut town = Town::new(policy);
    let mut news: Vec<f64> = (0..ROUNDS).map(|_| town.nanos_to_open(&written)).collect();
    println!(
        "{{\"rules\":{rules},\"compile_ms\":{:.2},\"check_ms\":{},\"build_ms\":{:.2},\"settle_ms\":{:.2},\
         \"blob_bytes\":{},\"index_bytes\":{index},\"match_nanos\":{:.0},\"new_nanos\":{:.0}}}",
        compile * 1e3,
        check.map_or("null".to_owned(), |secs| format!("{:.2}", secs * 1e3)),
        build * 1e3,
        settle * 1e3,
        compiled.blob.len(),
        best(&mut matches),
        best(&mut news),
    );
}

/// The tenth of the smallest ends here.
fn best(nanos: &mut [f64]) -> f64 {
    nanos.sort_by(f64::total_cmp);
    nanos[nanos.len() / 10]
}

/// What `work` gives, and how many seconds it took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Clock::now();
    let done = work();
    (done, start.elapsed().as_secs_f64())
}

/// Sends datagrams to many ports of this machine, and says how long one takes: beside nft's rules in
/// the way of what is sent.
fn send(count: u32) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let round = || {
        let start = Clock::now();
        for n in 0..count {
            // Refused or dropped, it has been through the rules.
            let _ = socket.send_to(b"x", ("127.0.0.1", u16::try_from(1024 + n % 60_000).unwrap()));
        }
        start.elapsed().as_nanos() as f64 / f64::from(count)
    };
    let mut nanos: Vec<f64> = (0..10).map(|_| round()).collect();
    println!("{{\"send_nanos\":{:.0}}}", best(&mut nanos));
}
