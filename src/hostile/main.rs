//! A hostile client: our boot code as a frontend that breaks the netif protocol in every way we know,
//! against the real backend of its one vif.
//!
//! In: `ip=`, `gw=` and `to=`, the addresses of this client, its gateway and a server beyond it, and
//! `case=NAME[,NAME]`; without that, all attacks this domain survives are made one after the other.
//! Out: for each a line on the console that says how the backend took it, then the sums. Before each
//! the vif is shown to work, so what an attack leaves behind is seen. Never: part of the appliance.
#![no_std]
#![no_main]

extern crate alloc;

#[path = "../boot/mod.rs"]
#[allow(dead_code, unused_imports, reason = "what the firewall's kernel needs of it")]
mod boot;
mod cases;
mod frames;
mod guest;
mod rings;

use alloc::vec::Vec;
use boot::{Booted, die, say};
use cases::{Attack, CASES, Case, Ends};
use guest::{Guest, Wrong};
use rings::Rings;
use xen::hypervisor::{Hypervisor, Shutdown};

fn start(booted: Booted) -> ! {
    booted.announce("Tidegate hostile client");
    let Booted { xen, cmdline, rings, .. } = booted;
    let word = |key: &str| cmdline.split_whitespace().find_map(|word| word.strip_prefix(key));
    let Some([store, _]) = rings else { die(format_args!("hostile: this needs a toolstack")) };
    let cases = match chosen(word("case=")) {
        Ok(cases) => cases,
        Err(unknown) => die(format_args!("hostile: no case is called {unknown:?}")),
    };
    let mut guest = match Guest::new(xen, store, word) {
        Ok(guest) => guest,
        Err(wrong) => die(format_args!("hostile: {wrong}")),
    };
    let mut failed = 0;
    let mut rings = None;
    for case in &cases {
        match run(&mut guest, &mut rings, case) {
            Ok(()) => tell(case),
            Err(wrong) => {
                failed += 1;
                say(format_args!("hostile: {} FAILED: {wrong}", case.name));
            }
        }
    }
    say(format_args!("hostile: all done, {} cases, {failed} failed", cases.len()));
    guest.xen.shutdown(Shutdown::Poweroff);
    die(format_args!("hostile: shut down, and still here"))
}

fn tell(Case { name, ends, .. }: &Case) {
    match ends {
        Ends::Closed(why) => say(format_args!("hostile: {name} done: closed, {why}")),
        Ends::Served => say(format_args!("hostile: {name} done: served")),
        Ends::Either => say(format_args!("hostile: {name} done: closed or served")),
    }
}

/// The cases named in `names`, or all but the deadly ones.
fn chosen(names: Option<&str>) -> Result<Vec<&'static Case>, &str> {
    let Some(names) = names else {
        let survived = |case: &&Case| !matches!(case.attack, Attack::Death(_));
        return Ok(CASES.iter().filter(survived).collect());
    };
    let find = |name| CASES.iter().find(|case| case.name == name).ok_or(name);
    names.split(',').map(find).collect()
}

/// Makes an attack and waits for what it ends in. A connection that lives on is kept for the next.
fn run(guest: &mut Guest, rings: &mut Option<Rings>, case: &Case) -> Result<(), Wrong> {
    match case.attack {
        Attack::Terms(attack) => {
            if let Some(old) = rings.take() {
                guest.disconnect(old)?;
            }
            guest.reset()?;
            let mut rings = Rings::open(guest)?;
            let mut nodes = rings.nodes();
            attack(guest, &mut rings, &mut nodes)?;
            guest.keep_apart()?;
            guest.offer(&nodes)?;
            match case.ends {
                Ends::Closed(_) => guest.wait_down()?,
                Ends::Served | Ends::Either => guest.wait_taken()?,
            }
            for name in nodes.into_keys() {
                guest.remove(name)?;
            }
            guest.disconnect(rings)
        }
        Attack::Rings(attack) => {
            let mut own = match rings.take() {
                Some(rings) => rings,
                None => guest.connect()?,
            };
            guest.keep_apart()?;
            attack(guest, &mut own)?;
            match case.ends {
                Ends::Closed(_) => guest.wait_down()?,
                Ends::Either => {}
                Ends::Served => {
                    guest.wait("answers to all slots", |_| own.all_answered())?;
                    own.revoke_sent(&mut guest.xen);
                    own.receive();
                    own.post_buffers(guest)?;
                    guest.ping(&mut own)?;
                    *rings = Some(own);
                    return Ok(());
                }
            }
            guest.disconnect(own)
        }
        Attack::Death(attack) => {
            guest.reset()?;
            say(format_args!("hostile: {} dies", case.name));
            attack(guest)?;
            guest.xen.shutdown(Shutdown::Crash);
            Ok(())
        }
    }
}
