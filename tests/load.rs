//! How policies come to a firewall: in the image, as a boot module, and while it runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod machine;

use machine::frames::Spec;
use machine::{CLIENT_MAC, CMDLINE, Client, FREE, Machine, OPEN, SERVER, SYS_NET};
use tidegate::appliance::Blobs;

const CLOSED: &str =
    "zone clients = netback\nzone uplink = netfront 0\npolicy clients -> uplink { drop }\n";

fn blob(name: &str, text: &str) -> Vec<u8> {
    lang::compile(name, text).unwrap().blob
}

fn booted(built_in: Option<&[u8]>, module: Option<&[u8]>) -> Machine {
    let mut machine = Machine::with_blobs(1, CMDLINE, Blobs { built_in, module }, FREE);
    machine.plug(SYS_NET, 0);
    machine.wait("the uplink to be up", || machine.uplink().is_connected());
    machine
}

/// Whether a datagram from this port gets out.
fn passes(machine: &Machine, client: &Client, sport: u16) -> bool {
    let from = (client.addr, sport);
    client.send(Spec::udp(from, (SERVER, 7)).macs(wire::Mac::BACKEND, CLIENT_MAC).frame());
    machine.settle();
    !machine.uplink().received().is_empty()
}

#[test]
fn a_boot_module_counts_before_the_image_and_a_broken_one_opens_nothing() {
    let (open, closed) = (blob("open.tide", OPEN), blob("closed.tide", CLOSED));
    let cut = &open[..open.len() - 1];
    let linux = b"\x1f\x8b\x08an initramfs";
    let (o, c) = (Some(&*open), Some(&*closed));
    for (built_in, module, lets_out, told) in [
        (o, None, true, "policy open.tide: 2 rules, "),
        (None, o, true, "policy open.tide: 2 rules, "),
        (c, o, true, "policy open.tide: 2 rules, "),
        (o, c, false, "policy closed.tide: 2 rules, "),
        (o, Some(cut), false, "WARNING: policy (boot module): cut off"),
        (
            o,
            Some(linux),
            false,
            "WARNING: policy (boot module): not a policy blob: everything is dropped",
        ),
        (Some(cut), None, false, "WARNING: policy (built in): cut off"),
        (None, None, false, "no policy: everything is dropped"),
    ] {
        let machine = booted(built_in, module);
        let console = machine.console();
        assert!(console.contains(told), "{told:?} is not on the console:\n{console}");
        let client = machine.client(10);
        assert_eq!(passes(&machine, &client, 4000), lets_out, "{told}");
    }
}
