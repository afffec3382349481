//! Conformance on the real hypervisor: a kernel that boots as dom0, does to itself what guests do to
//! each other, says what came of it, and ends the emulator with an exit status.
//!
//! In: Xen, and a command line: `domid=N` if it is not dom0 (it then powers off, or crashes if a row
//! failed), `crash=NAME` for the ends no row can survive. Out: one line for each row, then the sums.
//! Never: part of the appliance.
#![no_std]
#![no_main]

extern crate alloc;

mod boot;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use boot::{Booted, say};
use core::arch::asm;
use core::hint::black_box;
use core::time::Duration;
use xen::conformance::rows;
use xen::hypervisor::{CopyEnd, CopyOp, DomId, Hypervisor, Memory, PAGE_SIZE, Page, Shutdown};
use xen::raw::abi::nr;
use xen::raw::{Xen, call};

/// What a row found wrong.
type Wrong = String;
type Row = fn(&mut Xen) -> Result<(), Wrong>;

/// What only the real machine can show; what a guest sees of Xen is in the table of the `xen` crate.
const MACHINE: [(&str, Row); 7] = [
    ("heap-holds-what-it-is-given", heap),
    ("time-goes-on-and-polls-end", time),
    ("wall-clock-is-of-this-age", wall_clock),
    ("private-pages-are-contiguous", private),
    ("page-copies-of-every-length", page_copies),
    ("memory-functions", memory_functions),
    ("all-memory-is-usable", all_memory),
];

fn start(mut booted: Booted) -> ! {
    booted.announce("Tidegate conformance");
    let word = |key| booted.cmdline.split_whitespace().find_map(|word| word.strip_prefix(key));
    if let Some(how) = word("crash=") {
        crash(how);
    }
    let xen = &mut booted.xen;
    let pv = booted.mode == "PV";
    let own = DomId(word("domid=").and_then(|id| id.parse().ok()).unwrap_or(0));
    let shared = rows::<Xen>()
        .filter(|row| pv || !row.pv_only)
        .map(|row| (row.name, (row.run)(xen, own).map_err(|wrong| format!("{wrong}"))))
        .map(report)
        .fold([0, 0], sum);
    let drawn = booted.seed.chunks(8).all(|word| word.iter().any(|byte| *byte != 0));
    let seed = ("seed-is-drawn", same("every word drawn", drawn, true));
    let machine = MACHINE.into_iter().map(|(name, row)| (name, row(xen)));
    let found = [booted.blobs.built_in, booted.blobs.module].map(|blob| blob.map(<[u8]>::len));
    let policy = ("no-policy-where-none-was-given", same("bytes of policies", found, [None; 2]));
    let all = machine.chain([seed, policy]).map(report).fold(shared, sum);
    let [passed, failed] = all;
    say(format_args!("{passed} passed, {failed} failed"));
    if booted.rings.is_some() {
        xen.shutdown(if failed == 0 { Shutdown::Poweroff } else { Shutdown::Crash });
    }
    exit(failed == 0, pv)
}

/// Says what came of a row; whether it passed and whether it failed, as numbers.
fn report((name, outcome): (&str, Result<(), Wrong>)) -> [u32; 2] {
    match outcome {
        Ok(()) => {
            say(format_args!("conformance {name}: ok"));
            [1, 0]
        }
        Err(wrong) => {
            say(format_args!("conformance {name}: FAILED {wrong}"));
            [0, 1]
        }
    }
}

fn sum([passed, failed]: [u32; 2], [p, f]: [u32; 2]) -> [u32; 2] {
    [passed + p, failed + f]
}

/// The ends that must be readable.
#[allow(clippy::panic, reason = "the point of it")]
fn crash(how: &str) {
    match how {
        "panic" => panic!("as asked for"),
        // SAFETY: none: this and the next three are meant to fault.
        "null" => drop(unsafe { black_box(core::ptr::null::<u8>()).add(8).read_volatile() }),
        // SAFETY: as above.
        "text" => unsafe { (start as *mut u8).write_volatile(0) },
        // SAFETY: as above.
        "run" => unsafe { asm!("call {}", in(reg) black_box(&[0xc3_u8; 16]).as_ptr()) },
        // SAFETY: as above.
        "invalid" => unsafe { asm!("ud2") },
        "stack" => drop(black_box(eat(1))),
        "memory" => {
            let mut all = Vec::new();
            loop {
                all.push(alloc::vec![1_u8; 1 << 20]);
                black_box(&all);
            }
        }
        _ => say(format_args!("conformance: no way to crash is called {how:?}")),
    }
}

#[allow(unconditional_recursion, reason = "the point of it")]
fn eat(n: u64) -> u64 {
    let here = black_box([n; 64]);
    black_box(eat(n + 1)) + here.iter().sum::<u64>()
}

/// Ends the emulator: exit status 33 is a pass (isa-debug-exit gives 2n + 1).
fn exit(pass: bool, pv: bool) -> ! {
    /// PHYSDEVOP_set_iopl (physdev.h).
    const SET_IOPL: u32 = 6;
    if pv {
        // SAFETY: it takes the level.
        let _needed = unsafe { call::op::<{ nr::PHYSDEV_OP }, u32>(SET_IOPL, &mut 1) };
    }
    let code: u8 = if pass { 0x10 } else { 0x11 };
    // SAFETY: the port of isa-debug-exit, or of nothing.
    unsafe { asm!("out dx, al", in("dx") 0xf4_u16, in("al") code, options(nomem, nostack)) };
    boot::die(format_args!("no isa-debug-exit here"))
}

fn same<T: PartialEq + core::fmt::Debug>(what: &str, got: T, want: T) -> Result<(), Wrong> {
    if got == want { Ok(()) } else { Err(format!("{what}: want {want:?}, got {got:?}")) }
}

fn failed<E: core::fmt::Debug>(what: &str) -> impl Fn(E) -> Wrong + '_ {
    move |e| format!("{what}: {e:?}")
}

fn heap(_: &mut Xen) -> Result<(), Wrong> {
    let mut kept: Vec<Vec<u64>> = Vec::new();
    for i in 0..2000_u64 {
        kept.push((0..i % 97).map(|j| i << 32 | j).collect());
        if i % 3 == 0 {
            kept.swap_remove((i as usize * 7) % kept.len());
        }
    }
    let torn = kept.iter().filter(|v| v.windows(2).any(|w| matches!(w, [a, b] if b - a != 1)));
    same("torn blocks", torn.count(), 0)
}

fn time(xen: &mut Xen) -> Result<(), Wrong> {
    let start = xen.now();
    let end = start + Duration::from_millis(50);
    xen.poll(&[], Some(end)).map_err(failed("poll"))?;
    let slept = xen.now().since(start);
    let right = slept >= Duration::from_millis(50) && slept < Duration::from_secs(5);
    same(&format!("slept 50 ms, by the clock {slept:?}"), right, true)?;
    xen.poll(&[], Some(wire::Instant::ZERO)).map_err(failed("poll until the past"))
}

fn wall_clock(xen: &mut Xen) -> Result<(), Wrong> {
    let now = xen.wall_clock().ok_or("none")?;
    let years = now.as_secs() / (365 * 86400);
    same(&format!("{years} years since 1970"), (50..200).contains(&years), true)
}

fn private(xen: &mut Xen) -> Result<(), Wrong> {
    let mut private = xen.private(3).map_err(failed("private"))?;
    same("zeroed", private.as_ref().iter().any(|byte| *byte != 0), false)?;
    let page = xen.page().map_err(failed("page"))?;
    page.write(0, &[7; PAGE_SIZE]);
    let op = |i| CopyOp::new(CopyEnd::Page(page.frame()), 0, CopyEnd::Private(i), 0, 4096);
    private.as_mut().fill(1);
    xen.copy(&mut private, &mut [op(1)]).map_err(failed("copy"))?;
    let ones = private.as_ref().chunks(PAGE_SIZE).map(|p| p.iter().all(|b| *b == 1));
    same("pages left alone", ones.collect::<Vec<_>>(), alloc::vec![true, false, true])?;
    xen.free(page);
    Ok(())
}

/// Every length around the steps of a copy between a page and our own memory, at both ends of the page.
fn page_copies(xen: &mut Xen) -> Result<(), Wrong> {
    let page = xen.page().map_err(failed("page"))?;
    let bytes: Vec<u8> = (0..PAGE_SIZE).map(|i| (i * 37 % 251) as u8).collect();
    let lens = (0..100).chain(2040..2060).chain(PAGE_SIZE - 40..=PAGE_SIZE);
    for (len, at_end) in lens.flat_map(|len| [(len, false), (len, true)]) {
        let offset = if at_end { PAGE_SIZE - len } else { 0 };
        let from = bytes.get(..len).unwrap_or_default();
        page.write(0, &[0xff; PAGE_SIZE]);
        page.write(offset, from);
        let mut all = [0; PAGE_SIZE];
        page.read(0, &mut all);
        let (before, rest) = all.split_at_checked(offset).unwrap_or_default();
        let (written, behind) = rest.split_at_checked(len).unwrap_or_default();
        same(&format!("{len} bytes written at {offset}"), written == from, true)?;
        let beside = before.iter().chain(behind).any(|byte| *byte != 0xff);
        same(&format!("bytes beside {len} at {offset} changed"), beside, false)?;
        let mut back = [0xee; PAGE_SIZE];
        let (place, rest) = back.split_at_mut_checked(len).unwrap_or_default();
        page.read(offset, place);
        let right = place == from && rest.iter().all(|byte| *byte == 0xee);
        same(&format!("{len} bytes read at {offset}"), right, true)?;
    }
    xen.free(page);
    Ok(())
}

/// Every length and offset around the steps of mem.s, against byte by byte.
fn memory_functions(_: &mut Xen) -> Result<(), Wrong> {
    let fresh = || (0..200_u8).map(|i| i.wrapping_mul(37)).collect::<Vec<u8>>();
    for len in 0..100_usize {
        for (from, to) in [(0, 0), (0, 1), (1, 0), (3, 11), (11, 3), (0, 40), (40, 0), (0, 100)] {
            let mut got = fresh();
            got.copy_within(from..from + len, to);
            let want = |i: usize| {
                let source = if (to..to + len).contains(&i) { i + from - to } else { i };
                (source as u8).wrapping_mul(37)
            };
            let right = got.iter().enumerate().all(|(i, byte)| *byte == want(i));
            same(&format!("memmove {len} bytes from {from} to {to}"), right, true)?;
        }
        let mut got = fresh();
        if let Some(part) = got.get_mut(3..3 + len) {
            part.fill(black_box(9));
        }
        let right = got
            .iter()
            .zip(fresh())
            .enumerate()
            .all(|(i, (got, old))| *got == if (3..3 + len).contains(&i) { 9 } else { old });
        same(&format!("memset {len} bytes"), right, true)?;
        for at in 0..len {
            let (one, mut two) = (fresh(), fresh());
            if let Some(byte) = two.get_mut(at) {
                *byte ^= 0x80;
            }
            let (one, two) = (black_box(one.get(..len)), black_box(two.get(..len)));
            let want = (at * 37) as u8 & 0x80 != 0;
            same(&format!("memcmp {len} bytes that differ at {at}"), one > two, want)?;
            same(&format!("bcmp {len} bytes that differ at {at}"), one == two, false)?;
        }
    }
    Ok(())
}

/// Takes every page there is, marks both its ends, and finds all marks again.
fn all_memory(xen: &mut Xen) -> Result<(), Wrong> {
    let left = boot::left();
    // Pages that earlier rows have given back come on top.
    let mut pages = Vec::with_capacity(left / PAGE_SIZE + 1024);
    while let Ok(page) = xen.page() {
        let mark = pages.len() as u32;
        page.store(0, mark);
        page.store(PAGE_SIZE - 4, !mark);
        pages.push(page);
    }
    let torn = (0_u32..)
        .zip(&pages)
        .filter(|(mark, page)| page.load(0) != *mark || page.load(PAGE_SIZE - 4) != !*mark);
    same("pages that lost their mark", torn.count(), 0)?;
    say(format_args!("conformance: {} of {} KiB were pages", pages.len() * 4, left >> 10));
    let most = pages.len() * PAGE_SIZE * 20 >= left * 19;
    pages.into_iter().for_each(|page| xen.free(page));
    same("95 % of memory came as pages", most, true)
}
