//! The kernel: boots as a PV or PVH guest of Xen, then is the appliance.
//!
//! In: a machine from `boot`. Out: a running firewall. Never: policy of its own.
#![no_std]
#![no_main]

extern crate alloc;

mod boot;

use boot::{Booted, die};
use tidegate::appliance::begin;
use xen::hypervisor::Start;

fn start(booted: Booted) -> ! {
    booted.announce("Tidegate");
    let Some([store, console]) = booted.rings else {
        die(format_args!("Tidegate is no dom0: it needs a toolstack's XenStore and console"))
    };
    let start = Start { cmdline: booted.cmdline, store, console };
    match begin(booted.xen, start, booted.blobs, boot::left, booted.seed) {
        Ok(appliance) => {
            appliance.run();
        }
        Err(refused) => refused.halt(),
    }
    die(format_args!("shut down, and still here"))
}
