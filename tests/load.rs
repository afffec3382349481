//! How policies come to a firewall: in the image, as a boot module, and while it runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod machine;

use machine::frames::Spec;
use machine::{CLIENT_MAC, CMDLINE, Client, FREE, Machine, OPEN, SERVER, SYS_NET, TIDEGATE};
use std::time::Duration;
use tidegate::appliance::Blobs;
use tidegate::appliance::delivery::offer::{ANSWER, COMMIT, MOST, Offer, PART, RUNNING, hex};
use xen::hypervisor::DomId;
use xen::sim::xenstored::Caller;
use xen::store::StoreError;

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

/// Whether a datagram to the echo port gets out.
fn passes(machine: &Machine, client: &Client, sport: u16) -> bool {
    passes_to(machine, client, sport, 7)
}

/// Whether a datagram between these ports gets out.
fn passes_to(machine: &Machine, client: &Client, sport: u16, dport: u16) -> bool {
    let from = (client.addr, sport);
    client.send(Spec::udp(from, (SERVER, dport)).macs(wire::Mac::BACKEND, CLIENT_MAC).frame());
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

/// Lets clients send to the echo port only.
const ECHO: &str = "zone clients = netback\nzone uplink = netfront 0\n\
    policy clients -> uplink { accept udp 7; drop }\nnat clients -> uplink masquerade\n";

/// A path of the firewall's domain.
fn home(path: &str) -> String {
    format!("/local/domain/{}/{path}", TIDEGATE.0)
}

/// What stands at a path of the firewall's domain.
fn node(machine: &Machine, path: &str) -> String {
    machine.xs.value(&home(path)).unwrap_or_default()
}

/// The offer of a blob under this id, and its parts, as they stand in XenStore.
fn offered(id: &str, blob: &[u8]) -> (Offer, Vec<(String, String)>) {
    let digest = rules::Policy::decode(blob).unwrap().digest();
    let offer = Offer::new(id, blob.len(), digest).unwrap();
    let parts = blob.chunks(PART).enumerate();
    let parts = parts.map(|(n, part)| (home(&offer.part(n)), hex(part))).collect();
    (offer, parts)
}

/// Writes the parts and then the marker.
fn send(machine: &Machine, (offer, parts): &(Offer, Vec<(String, String)>)) {
    parts.iter().for_each(|(path, value)| machine.xs.set(path, value));
    machine.xs.set(&home(COMMIT), &offer.to_string());
}

/// Waits for the answer to `offer` and returns what it says.
fn answer(machine: &Machine, offer: &Offer) -> String {
    let start = format!("{} ", offer.id());
    machine.wait("the answer", || node(machine, ANSWER).starts_with(&start));
    node(machine, ANSWER)[start.len()..].to_owned()
}

/// Sends a blob and returns what became of it.
fn load(machine: &Machine, id: &str, blob: &[u8]) -> String {
    let sent = offered(id, blob);
    send(machine, &sent);
    answer(machine, &sent.0)
}

/// A blob of so many rules, the last of which drops.
fn long(rules: u16) -> Vec<u8> {
    let rules: String = (1..=rules).map(|port| format!("drop tcp {port}\n")).collect();
    let text = ECHO.replace("accept udp 7", &format!("{rules}accept udp 7"));
    blob("long.tide", &text)
}

#[test]
fn a_policy_comes_while_frames_pass_and_each_flow_is_asked_again() {
    let machine = booted(Some(&blob("open.tide", OPEN)), None);
    let client = machine.client(10);
    assert!(passes_to(&machine, &client, 4000, 7) && passes_to(&machine, &client, 4000, 9));
    assert!(node(&machine, RUNNING).ends_with(" open.tide"));
    assert_eq!(load(&machine, "first", &blob("echo.tide", ECHO)), "loaded");
    assert!(passes_to(&machine, &client, 4000, 7), "a flow that may go on");
    assert!(!passes_to(&machine, &client, 4000, 9), "a flow that may not");
    assert!(passes_to(&machine, &client, 4001, 7) && !passes_to(&machine, &client, 4001, 9));
    assert!(node(&machine, RUNNING).ends_with(" echo.tide"));
    assert_eq!(load(&machine, "second", &blob("open.tide", OPEN)), "loaded");
    assert!(passes_to(&machine, &client, 4000, 9));
    let console = machine.console();
    assert_eq!(console.matches("(loaded)").count(), 2, "{console}");
}

#[test]
fn many_parts_come_whole_and_a_firewall_without_a_policy_takes_one() {
    let machine = booted(None, None);
    let client = machine.client(10);
    assert_eq!(node(&machine, RUNNING), "none");
    assert!(!passes(&machine, &client, 4000));
    for rules in [1, 30, 100] {
        assert_eq!(load(&machine, &format!("n{rules}"), &long(rules)), "loaded");
        assert!(passes(&machine, &client, 4000) && !passes_to(&machine, &client, 4000, 9));
    }
}

#[test]
fn what_is_not_whole_is_refused_with_a_reason_and_the_old_policy_stays() {
    let machine = booted(Some(&blob("echo.tide", ECHO)), None);
    let client = machine.client(10);
    let good = offered("x", &long(60));
    assert!(good.1.len() > 2, "several parts");
    let digest = good.0.digest();
    type Spoil = Box<dyn Fn(&mut (Offer, Vec<(String, String)>))>;
    let cases: Vec<(&str, Spoil)> = vec![
        ("part 1 is missing", Box::new(|sent| drop(sent.1.remove(1)))),
        ("part 0 is missing", Box::new(|sent| sent.1.clear())),
        ("part 1 is not hexadecimal, or too long", Box::new(|sent| sent.1[1].1.push('0'))),
        ("part 2 is not hexadecimal, or too long", Box::new(|sent| sent.1[2].1 = "no".into())),
        ("bytes came, ", Box::new(|sent| drop(sent.1[1].1.split_off(20)))),
        ("not a policy blob", Box::new(|sent| sent.1[0].1.replace_range(..2, "00"))),
        (
            "damaged: the digest does not fit",
            Box::new(|sent| {
                let last = sent.1.last_mut().unwrap();
                last.1.replace_range(..2, if last.1.starts_with("00") { "01" } else { "00" });
            }),
        ),
        (
            "another policy came than was announced",
            Box::new(move |sent| {
                let other = rules::Digest(digest.0.map(|byte| !byte));
                sent.0 = Offer::new("x", sent.0.len(), other).unwrap();
            }),
        ),
        (
            "bytes came, ",
            Box::new(move |sent| {
                sent.0 = Offer::new("x", sent.0.len() - 1, digest).unwrap();
            }),
        ),
    ];
    let running = node(&machine, RUNNING);
    for (n, (why, spoil)) in cases.into_iter().enumerate() {
        let mut sent = offered(&format!("case{n}"), &long(60));
        let id = sent.0.id().to_owned();
        spoil(&mut sent);
        sent.0 = Offer::new(&id, sent.0.len(), sent.0.digest()).unwrap();
        send(&machine, &sent);
        let told = answer(&machine, &sent.0);
        assert!(told.starts_with("refused: ") && told.contains(why), "{why}: {told}");
        let console = machine.read_console();
        assert!(console.contains(why) && console.contains("what was in force stays"), "{console}");
        assert_eq!(node(&machine, RUNNING), running);
        assert!(passes(&machine, &client, 4000) && !passes_to(&machine, &client, 4000, 9));
    }
    machine.xs.set(&home(COMMIT), "what is this");
    machine
        .wait("the answer", || node(&machine, ANSWER).starts_with("- refused: the commit marker"));
    assert_eq!(load(&machine, "good", &blob("open.tide", OPEN)), "loaded");
    assert!(passes_to(&machine, &client, 4000, 9));
}

#[test]
fn without_the_marker_nothing_happens() {
    let machine = booted(Some(&blob("open.tide", OPEN)), None);
    let client = machine.client(10);
    let (_, parts) = offered("half", &blob("closed.tide", CLOSED));
    parts.iter().for_each(|(path, value)| machine.xs.set(path, value));
    machine.run(Duration::from_secs(100));
    assert_eq!(node(&machine, ANSWER), "");
    assert!(passes(&machine, &client, 4000));
}

#[test]
fn of_two_offers_the_last_wins_and_one_that_is_taken_back_is_forgotten() {
    let machine = booted(Some(&blob("open.tide", OPEN)), None);
    let client = machine.client(10);
    let pace = Duration::from_millis(50);
    let (first, second) =
        (offered("first", &long(300)), offered("second", &blob("c.tide", CLOSED)));
    machine.xs.set_pace(pace);
    send(&machine, &first);
    machine.run(pace * 6);
    send(&machine, &second);
    assert_eq!(answer(&machine, &second.0), "loaded");
    machine.run(Duration::from_secs(5));
    assert!(node(&machine, RUNNING).ends_with(" c.tide"));
    assert!(node(&machine, ANSWER).starts_with("second "));
    assert!(!passes(&machine, &client, 4000));
    assert_eq!(machine.console().matches("(loaded)").count(), 1);

    let third = offered("third", &long(300));
    send(&machine, &third);
    machine.run(pace * 6);
    machine.xs.remove(&home(COMMIT));
    machine.run(Duration::from_secs(5));
    assert!(node(&machine, RUNNING).ends_with(" c.tide"));
    assert!(machine.console().contains("policy: offer third was taken back"));
    send(&machine, &third);
    assert_eq!(answer(&machine, &third.0), "loaded");
}

#[test]
fn an_offer_is_answered_once_however_often_it_is_told_of() {
    let machine = booted(Some(&blob("open.tide", OPEN)), None);
    let sent = offered("once", &blob("echo.tide", ECHO));
    for _ in 0..5 {
        send(&machine, &sent);
        assert_eq!(answer(&machine, &sent.0), "loaded");
        machine.run(Duration::from_secs(1));
    }
    assert_eq!(machine.console().matches("(loaded)").count(), 1);
    machine.xs.remove(&home("control/policy"));
    machine.run(Duration::from_secs(1));
    assert!(node(&machine, RUNNING).ends_with(" echo.tide"));
}

#[test]
fn the_uplink_may_be_down_and_xenstore_slow() {
    let mut machine = booted(Some(&blob("open.tide", OPEN)), None);
    let client = machine.client(10);
    assert!(passes_to(&machine, &client, 4000, 9));
    machine.unplug();
    assert_eq!(load(&machine, "down", &blob("echo.tide", ECHO)), "loaded");
    machine.plug(SYS_NET, 0);
    machine.wait("the uplink to be up", || machine.uplink().is_connected());
    machine.run(Duration::from_millis(10));
    assert!(passes(&machine, &client, 4000) && !passes_to(&machine, &client, 4000, 9));
    machine.xs.stall(true);
    send(&machine, &offered("slow", &blob("open.tide", OPEN)));
    machine.run(Duration::from_secs(1));
    assert!(passes(&machine, &client, 4000) && !passes_to(&machine, &client, 4000, 9));
    machine.xs.stall(false);
    machine.wait("the answer", || node(&machine, ANSWER) == "slow loaded");
    assert!(passes_to(&machine, &client, 4000, 9));
}

#[test]
fn what_there_is_no_room_for_is_refused_before_it_is_read() {
    let machine = booted(Some(&blob("open.tide", OPEN)), None);
    let most: usize = node(&machine, MOST).parse().unwrap();
    let digest = rules::Digest([1; 32]);
    for (id, len) in [("more", most + 1), ("much-more", usize::MAX)] {
        let offer = Offer::new(id, len, digest).unwrap();
        machine.xs.set(&home(COMMIT), &offer.to_string());
        let told = answer(&machine, &offer);
        assert!(told.contains(&format!("there is room for {most}")), "{told}");
    }
    let offer = Offer::new("fits", most, digest).unwrap();
    machine.xs.set(&home(COMMIT), &offer.to_string());
    assert_eq!(answer(&machine, &offer), "refused: part 0 is missing");
}

/// dom0 alone: not a client, not sys-net, and not even the firewall itself.
#[test]
fn nobody_but_dom0_can_offer_a_policy_or_read_one() {
    let machine = booted(Some(&blob("open.tide", OPEN)), None);
    let client = machine.client(10);
    let sent = offered("real", &blob("echo.tide", ECHO));
    send(&machine, &sent);
    assert_eq!(answer(&machine, &sent.0), "loaded");
    let part = home(&sent.0.part(0));
    for dom in [client.spec.front, SYS_NET, TIDEGATE, DomId(77)] {
        let who = Caller::Domain(dom);
        for path in [home(COMMIT), part.clone(), home("control/policy/other/0")] {
            let wrote = machine.xs.with(|store| store.write(who, None, &path, b"x"));
            assert_eq!(wrote, Err(StoreError::Eacces), "{dom} writes {path}");
        }
        let read = machine.xs.with(|store| store.read(who, None, &part));
        assert_eq!(read.is_ok(), dom == TIDEGATE, "{dom} reads");
        let forged = machine.xs.with(|store| store.write(who, None, &home(ANSWER), b"x"));
        assert_eq!(forged.is_ok(), dom == TIDEGATE, "{dom} answers");
    }
}
