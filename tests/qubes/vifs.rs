//! Clients' vifs in Qubes: whatever becomes of them, each client may what its rules say and no more.

use crate::machine::frames::Spec;
use crate::machine::{CLIENT_MAC, Client, Machine, SERVER, TIDEGATE, UPLINK_MAC, client_vif};
use crate::world::{ENTRIES, World, tuple};
use std::net::IpAddr;
use std::time::Duration;
use tidegate::appliance::Blobs;
use wire::{Mac, Offload, Tuple};
use xen::hypervisor::DomId;
use xen::sim::peer_front::{Manners, PeerFront};
use xen::sim::toolstack::VifSpec;
use xen::sim::xenstored::Quotas;
use xen::xenbus::XenbusState as State;

const ANY: &str = "action=accept";
const NONE: &str = "action=drop";

/// A client domain with this vif, attached.
fn boot(machine: &Machine, spec: VifSpec, manners: Manners) -> Client {
    let start = machine.xs.introduce(spec.front);
    let peer = PeerFront::start(&machine.sim, spec.front, start, TIDEGATE, 0, manners);
    machine.finish(machine.tools.attach(spec.clone()));
    let addr = spec.ip.parse().unwrap();
    Client { spec, peer, addr }
}

/// A domain that has the address of domain 10.
fn twin(machine: &Machine, dom: u16, manners: Manners) -> Client {
    let spec = VifSpec { ip: "10.137.0.10".into(), ..client_vif(dom) };
    boot(machine, spec, manners)
}

/// Windows' driver: it does nothing by itself, the test says each of its states.
fn windows() -> Manners {
    Manners { follows_backend: false, ..Manners::default() }
}

/// Closes and opens again, each step as soon as ours is seen.
fn close_cycle(machine: &Machine, client: &Client) {
    client.peer.behave(windows());
    let ours = format!("{}/state", client.spec.backend());
    for (own, expected) in [(State::Closing, "5"), (State::Closed, "6"), (State::Initialising, "2")]
    {
        client.peer.write_state(own);
        machine.wait("our answer", || machine.xs.value(&ours).as_deref() == Some(expected));
    }
    client.peer.behave(Manners::default());
    client.peer.write_state(State::Initialising);
    machine.wait("the connection", || client.peer.is_up());
}

/// Sends an answer to what the world saw, and tells which of these it comes to.
fn answered(world: &World, seen: &Tuple, clients: &[&Client]) -> Vec<usize> {
    let _before: Vec<_> = clients.iter().map(|client| client.peer.take_received()).collect();
    let answer = Spec::udp((seen.dst, seen.dport), (seen.src, seen.sport));
    let answer = answer.macs(UPLINK_MAC, Mac::BACKEND).frame();
    world.machine.uplink().send(&answer, Offload::NONE);
    world.machine.settle();
    let got = |n: &usize| !clients[*n].peer.take_received().is_empty();
    (0..clients.len()).filter(got).collect()
}

#[test]
fn windows_closes_and_opens_as_often_as_it_likes_and_its_rules_stay() {
    let world = World::new(1);
    let other = world.client(11, &[ANY]);
    let client = boot(&world.machine, client_vif(10), windows());
    for round in 0..6_u16 {
        let open = round % 3 != 0;
        world.set_rules(&client, &[if open { ANY } else { NONE }]);
        close_cycle(&world.machine, &client);
        assert_eq!(world.passes(&client, 4000 + round), open, "round {round}");
        assert!(world.passes(&other, 4000 + round));
    }
    assert_eq!(client.peer.fault(), None);
}

/// The emulated interface first, then the guest's own driver; dom0 tells them by nothing but their domain.
#[test]
fn both_vifs_of_an_hvm_may_what_their_rules_say_and_the_last_one_goes_on() {
    let world = World::new(2);
    let stub = twin(&world.machine, 21, Manners::default());
    let guest = twin(&world.machine, 20, windows());
    assert_eq!((stub.spec.mac, stub.addr), (guest.spec.mac, guest.addr));
    world.set_rules(&stub, &["action=accept proto=udp dstports=7-7"]);
    world.machine.wait("the emulated interface", || stub.peer.is_up());
    let early = world.out(&stub, 4000, (SERVER, 7)).unwrap();
    close_cycle(&world.machine, &guest);
    let late = world.out(&guest, 4001, (SERVER, 7)).unwrap();
    // Each is answered on the vif it asked by.
    assert_eq!(answered(&world, &early, &[&stub, &guest]), [0]);
    assert_eq!(answered(&world, &late, &[&stub, &guest]), [1]);
    for client in [&stub, &guest] {
        assert!(world.out(client, 4002, (SERVER, 8)).is_none());
    }
    let gone = std::slice::from_ref(&stub.spec);
    world.machine.finish(world.machine.tools.destroy(stub.spec.front, gone));
    assert_eq!(answered(&world, &late, &[&guest]), [0]);
    assert!(world.passes(&guest, 4000), "the port its other interface used");
    world.set_rules(&guest, &[NONE]);
    assert!(!world.passes(&guest, 4001) && !world.passes(&guest, 4003));
}

/// dom0 gives no address twice but to the two vifs of an HVM. If it does all the same, nobody gets what
/// is meant for the other.
#[test]
fn two_qubes_with_one_address_hear_nothing_of_each_other() {
    let world = World::new(3);
    let one = world.client(10, &["action=accept proto=udp dstports=7-7"]);
    let two = twin(&world.machine, 20, Manners::default());
    world.machine.wait("the connection", || two.peer.is_up());
    let of_one = world.out(&one, 4000, (SERVER, 7)).unwrap();
    assert!(world.out(&two, 4000, (SERVER, 7)).is_none(), "that flow is the first one's");
    let of_two = world.out(&two, 4001, (SERVER, 7)).unwrap();
    assert!(world.out(&one, 4001, (SERVER, 7)).is_none());
    assert_eq!(answered(&world, &of_one, &[&one, &two]), [0]);
    assert_eq!(answered(&world, &of_two, &[&one, &two]), [1]);
    for client in [&one, &two] {
        assert!(
            world.out(client, 4002, (SERVER, 8)).is_none(),
            "the rules are those of the address"
        );
    }
    let gone = std::slice::from_ref(&one.spec);
    world.machine.finish(world.machine.tools.destroy(one.spec.front, gone));
    assert_eq!(answered(&world, &of_one, &[&two]), [] as [usize; 0]);
    assert!(world.passes(&two, 4000));
}

#[test]
fn a_qube_that_restarts_has_its_rules_from_its_first_packet_on_and_none_of_its_old_flows() {
    let world = World::new(4);
    let rules = ["action=accept proto=udp dstports=7-7"];
    let mut before = world.client(10, &rules);
    for dom in 30..36 {
        let old = world.out(&before, 4000, (SERVER, 7)).unwrap();
        let gone = std::slice::from_ref(&before.spec);
        world.machine.finish(world.machine.tools.destroy(before.spec.front, gone));
        // dom0 writes the same again, twice.
        world.set_rules(&before, &rules);
        world.set_rules(&before, &rules);
        let after = twin(&world.machine, dom, Manners::default());
        world.machine.wait("the connection", || after.peer.is_up());
        assert_eq!(answered(&world, &old, &[&after]), [] as [usize; 0]);
        assert!(world.out(&after, 4000, (SERVER, 8)).is_none());
        assert!(world.passes(&after, 4000));
        before = after;
    }
}

#[test]
fn sixty_four_qubes_may_each_what_is_said_of_them() {
    let blobs = Blobs { built_in: None, module: None };
    let machine = Machine::with_blobs(5, "", blobs, 30 << 20);
    // Some 58 fit into what an unprivileged domain may have unless xenstored is told otherwise.
    machine.xs.set_quotas(Quotas { nodes: 2000, ..Quotas::default() });
    let world = World::on(machine, ENTRIES);
    let rule = |n: u16| format!("action=accept proto=udp dstports={n}-{n}");
    let clients: Vec<_> = (0..64).map(|n| world.client(10 + n, &[&rule(n + 1)])).collect();
    for round in 0..2 {
        for (n, client) in (0..64).zip(&clients) {
            for port in [n, n + 1, n + 2] {
                let sport = 4000 + 100 * round + port;
                let left = world.out(client, sport, (SERVER, port)).is_some();
                assert_eq!(left, port == n + 1, "qube {n}, port {port}");
            }
        }
        let (status, _) = world.call("tidegate.Status", b"");
        assert_eq!(status.matches("rules 1\n").count(), 64, "{status}");
    }
    assert!(clients.iter().all(|client| client.spec.mac == CLIENT_MAC));
}

/// dom0 writes `/connected-ips` before a qube starts and after it was moved away, and a vif comes and goes
/// in its own time.
#[test]
fn an_address_is_a_clients_while_either_dom0_or_a_vif_says_so() {
    let world = World::new(6);
    let other = world.client(11, &[ANY]);
    let addr: IpAddr = "10.137.0.10".parse().unwrap();
    let listed = "10.137.0.10 10.137.0.11";
    let mut sport = 4000;
    let mut is_fenced = || {
        sport += 1;
        world.out(&other, sport, (addr, 7)).is_none()
    };
    let list = |value: &str| {
        world.dom0.database(|db| db.write("/connected-ips", value));
        world.machine.settle();
    };
    for listed_first in [true, false] {
        list("10.137.0.11");
        assert!(!is_fenced(), "nobody says so");
        if listed_first {
            list(listed);
            assert!(is_fenced());
        }
        let client = world.client(10, &[ANY]);
        assert!(is_fenced() && world.passes(&client, 4000));
        list(listed);
        assert!(is_fenced() && world.passes(&client, 4000));
        let gone = std::slice::from_ref(&client.spec);
        if listed_first {
            world.machine.finish(world.machine.tools.destroy(DomId(10), gone));
            assert!(is_fenced());
        } else {
            list("10.137.0.11");
            assert!(is_fenced() && world.passes(&client, 4000), "it is still there");
            world.machine.finish(world.machine.tools.destroy(DomId(10), gone));
            assert!(!is_fenced());
        }
    }
}

#[test]
fn nothing_passes_between_qubes_that_may_reach_everything() {
    let world = World::new(7);
    let (one, two) = (world.client(10, &[ANY]), world.client(11, &[ANY]));
    let own: IpAddr = "10.137.255.2".parse().unwrap();
    // A flow of each, so that there is something to be guessed.
    let seen = [&one, &two].map(|client| world.out(client, 4000, (SERVER, 7)).unwrap());
    let absent: IpAddr = "10.137.0.77".parse().unwrap();
    let targets = [(two.addr, 4000), (absent, 7), (own, seen[1].sport), (own, seen[0].sport)];
    for (dst, dport) in targets {
        for src in [one.addr, two.addr, SERVER] {
            let frames = [
                Spec::udp((src, 4000), (dst, dport)),
                Spec::tcp((src, 4001), (dst, dport), wire::TcpFlags::SYN),
                Spec::ping(src, dst, 5),
            ];
            for spec in frames {
                one.send(spec.macs(Mac::BACKEND, CLIENT_MAC).frame());
                // By the MAC of its neighbour, which is also its own.
                one.send(Spec::ping(src, dst, 6).macs(CLIENT_MAC, CLIENT_MAC).frame());
                world.machine.settle();
            }
        }
    }
    world.run(Duration::from_secs(1));
    assert!(two.peer.take_received().is_empty());
    assert!(world.machine.uplink().received().is_empty());
}

#[test]
fn a_link_that_carries_less_cuts_what_may_be_cut_and_tells_of_the_rest() {
    let mut world = World::new(8);
    let client = world.client(10, &[ANY]);
    let send = |world: &World, may_be_cut: bool| {
        let spec = Spec::udp((client.addr, 4000), (SERVER, 7)).payload(&[0x5a; 1422]);
        let mut frame = spec.macs(Mac::BACKEND, CLIENT_MAC).frame();
        if may_be_cut {
            frame[20] &= !0x40;
            frame[24..26].fill(0);
            let sum = !crate::machine::frames::plain_sum(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        let _before = client.peer.take_received();
        client.send(frame);
        world.machine.settle();
        (world.machine.uplink().received(), client.peer.take_received())
    };
    let (sent, told) = send(&world, false);
    assert_eq!((sent.len(), told.len(), sent[0].bytes.len()), (1, 0, 1464));
    world.machine.unplug();
    world.machine.plug(DomId(101), 0);
    world.machine.xs.set("/local/domain/2/device/vif/0/mtu", "1400");
    world.machine.wait("the uplink", || world.machine.uplink().is_connected());
    world.machine.settle();
    let (sent, told) = send(&world, false);
    assert_eq!((sent.len(), told.len()), (0, 1));
    // Fragmentation needed, and how long it may be (RFC 1191).
    assert_eq!(told[0].bytes[34..36], [3, 4]);
    assert_eq!(told[0].bytes[40..42], 1400_u16.to_be_bytes());
    let (sent, told) = send(&world, true);
    assert_eq!((sent.len(), told.len()), (2, 0));
    assert!(sent.iter().all(|frame| frame.bytes.len() <= 1414));
    assert_eq!(tuple(&sent[0].bytes, sent[0].offload).dst, SERVER);
}
