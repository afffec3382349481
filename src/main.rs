//! The kernel: boots as a PV or PVH guest of Xen, then is the appliance.
//!
//! In: a machine from `boot`. Out: a running firewall. Never: policy of its own.
#![no_std]
#![no_main]

extern crate alloc;

mod boot;

use boot::{Booted, say};
use xen::hypervisor::{Hypervisor, Shutdown};

fn start(mut booted: Booted) -> ! {
    say(format_args!(
        "Tidegate {} booting: {}, {} MiB, entropy: {}",
        env!("CARGO_PKG_VERSION"),
        booted.mode,
        booted.ram >> 20,
        booted.entropy
    ));
    say(format_args!("{} KiB free, cmdline {:?}", boot::left() >> 10, booted.cmdline));
    booted.xen.shutdown(Shutdown::Poweroff);
    boot::die(format_args!("shut down, and still here"))
}
