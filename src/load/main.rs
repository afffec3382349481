//! A load guest: our boot code and our own netfront as a client of the firewall under test, which is
//! fast where a Linux client would be what is measured.
//!
//! In: `ip=`, its address, and jobs, written one after the other into its XenStore node `data/load`.
//! Out: for each job one line on the console, `load: ` and JSON. Never: part of the appliance.
#![no_std]
#![no_main]

extern crate alloc;

#[path = "../boot/mod.rs"]
#[allow(dead_code, unused_imports, reason = "what the firewall's kernel needs of it")]
mod boot;
mod connect;
mod frames;
mod job;
mod net;
mod orders;
mod run;

use boot::{Booted, die, say};
use net::Net;
use orders::Orders;
use run::Run;
use xen::hypervisor::Hypervisor;
use xen::store::Client;

fn start(booted: Booted) -> ! {
    booted.announce("Tidegate load guest");
    let Booted { mut xen, cmdline, rings, .. } = booted;
    let Some([(page, port), _]) = rings else { die(format_args!("load: this needs a toolstack")) };
    let word = cmdline.split_whitespace().find_map(|word| word.strip_prefix("ip="));
    let Some(ip) = word.and_then(|ip| ip.parse().ok()) else {
        die(format_args!("load: ip= is missing or no address"))
    };
    let mut store = Client::new(page, port);
    let Ok(mut net) = Net::new(&mut xen, ip) else { die(format_args!("load: no memory")) };
    let Ok(mut orders) = Orders::new(&mut store) else {
        die(format_args!("load: XenStore takes no requests"))
    };
    let mut running: Option<Run> = None;
    loop {
        let pending = xen.take_pending();
        store.pump(&mut xen);
        while let Some(event) = store.next_event() {
            net.on_store(&mut xen, &mut store, &event);
            orders.on_store(&mut store, &event);
        }
        let due = net.work(&mut xen, &mut store, &pending);
        if running.is_none() && net.is_up() {
            running = orders.next().map(|job| Run::new(job, xen.now()));
        }
        let again = match &mut running {
            Some(run) => run.turn(&mut xen, &mut net),
            None => net.receive(&mut xen, |_, _| {}).then_some(wire::Instant::ZERO),
        };
        if let Some(report) = running.as_ref().and_then(|run| run.report(&xen)) {
            say(format_args!("load: {report}"));
            running = None;
        }
        store.pump(&mut xen);
        let until = [due, again].into_iter().flatten().min();
        let ports = [Some(port), net.event()];
        let mut hot = arrayvec::ArrayVec::<_, 2>::new();
        hot.extend(ports.into_iter().flatten());
        if until.is_none_or(|until| until > xen.now()) && xen.poll(&hot, until).is_err() {
            die(format_args!("load: poll fails"));
        }
    }
}
