//! `tidegate explain --pcap` as a person with a capture meets it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use etherparse::PacketBuilder;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const LAPTOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/laptop.tide");
const WORK: [u8; 4] = [10, 137, 0, 10];
const STRANGER: [u8; 4] = [10, 137, 0, 99];
const RESOLVER: [u8; 4] = [10, 139, 1, 1];
const SERVER: [u8; 4] = [93, 184, 216, 34];
const PRINTER: [u8; 4] = [10, 0, 0, 77];
/// Kinds of frames (tcpdump.org/linktypes.html).
const ETHERNET: u32 = 1;
const RAW: u32 = 101;
const LINUX_SLL: u32 = 113;

fn udp(src: ([u8; 4], u16), dst: ([u8; 4], u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 1024];
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(src.0, dst.0, 64);
    let len = builder.udp(src.1, dst.1).write_to_slice(&mut frame, payload).unwrap();
    frame.truncate(len);
    frame
}

fn tcp(src: ([u8; 4], u16), dst: ([u8; 4], u16), numbers: (u32, Option<u32>)) -> Vec<u8> {
    let mut frame = vec![0; 1024];
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(src.0, dst.0, 64);
    let builder = builder.tcp(src.1, dst.1, numbers.0, 64_000).syn();
    let builder = match numbers.1 {
        Some(ack) => builder.ack(ack),
        None => builder,
    };
    let len = builder.write_to_slice(&mut frame, &[]).unwrap();
    frame.truncate(len);
    // As a client's kernel leaves it to its device.
    frame[50..52].fill(0x55);
    frame
}

fn ping(src: [u8; 4], dst: [u8; 4], reply: bool) -> Vec<u8> {
    let mut frame = vec![0; 1024];
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(src, dst, 64);
    let echo =
        if reply { builder.icmpv4_echo_reply(7, 1) } else { builder.icmpv4_echo_request(7, 1) };
    let len = echo.write_to_slice(&mut frame, &[0; 20]).unwrap();
    frame.truncate(len);
    frame
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A pcap file of these frames, a hundredth of a second apart.
fn pcap(name: &str, frames: &[Vec<u8>]) -> PathBuf {
    file(name, &pcap_of(ETHERNET, 0, frames))
}

/// The bytes of a pcap file of frames of this kind, each so many seconds and a hundredth after the other.
fn pcap_of(link: u32, apart: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, link]);
    for (frame, n) in frames.iter().zip(0..) {
        let len = u32::try_from(frame.len()).unwrap();
        bytes.extend(words(&[1_700_000_000 + apart * n, 10_000 * n, len, len]));
        bytes.extend(frame);
    }
    bytes
}

/// A block of a pcapng file.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let body = [body, &[0; 3][..body.len().next_multiple_of(4) - body.len()]].concat();
    let len = u32::try_from(body.len() + 12).unwrap();
    [&words(&[kind, len])[..], &body, &words(&[len])].concat()
}

/// The bytes of a pcapng file of two interfaces, the second with nanoseconds: of each frame in turn.
fn pcapng_of(frames: &[Vec<u8>]) -> Vec<u8> {
    let (section, interface, packet) = (0x0a0d_0d0a, 1, 6);
    let mut bytes = block(section, &words(&[0x1a2b_3c4d, 1, u32::MAX, u32::MAX]));
    bytes.extend(block(interface, &words(&[ETHERNET, 0])));
    bytes.extend(block(interface, &words(&[ETHERNET, 0, 0x0001_0009, 9, 0])));
    for (frame, n) in frames.iter().zip(0_u32..) {
        let parts = [1_000_000, 1_000_000_000][n as usize % 2];
        let ticks = 1_700_000_000 * parts + u64::from(n) * parts / 100;
        let (high, low) = ((ticks >> 32) as u32, ticks as u32);
        let len = u32::try_from(frame.len()).unwrap();
        bytes.extend(block(packet, &[&words(&[n % 2, high, low, len, len])[..], frame].concat()));
    }
    bytes
}

fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn explain(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let out = command.arg("explain").args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.code(), text(out.stdout), text(out.stderr))
}

/// What a client and those it talks to say in an afternoon.
fn afternoon() -> Vec<Vec<u8>> {
    let mut arp = vec![0xff; 12];
    arp.extend([0x08, 0x06]);
    arp.resize(60, 0);
    let query = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let answer = [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
    vec![
        arp,
        udp((WORK, 5000), (RESOLVER, 53), &query),
        udp((RESOLVER, 53), (WORK, 5000), &answer),
        tcp((WORK, 5001), (SERVER, 443), (1000, None)),
        tcp((SERVER, 443), (WORK, 5001), (9000, Some(1001))),
        ping(WORK, SERVER, false),
        ping(SERVER, WORK, true),
        tcp((WORK, 5002), (PRINTER, 22), (1000, None)),
        udp((SERVER, 9), (WORK, 9), b"unasked"),
        udp((STRANGER, 9), (SERVER, 9), b"who?"),
    ]
}

#[test]
fn a_capture_is_put_to_the_firewall_packet_by_packet() {
    let file = pcap("afternoon.pcap", &afternoon());
    let (code, out, told) = explain(&[LAPTOP, "--pcap", file.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{told}");
    let last = format!("{AFTERNOON}2 of nobody here, 0 cut off");
    assert_eq!(out.lines().last(), Some(last.as_str()), "{out}");
    assert!(out.contains("#1 0.010000 s: udp 10.137.0.10:5000 -> 10.139.1.1:53\n"), "{out}");
    assert!(out.contains("-> 192.168.122.1:53\n"), "to the real resolver: {out}");
    assert!(out.contains("passes, leaves as tcp 192.0.2.2:"), "{out}");
    assert!(out.contains("reject host-unreachable to private log"), "{out}");
    assert!(out.contains("refused, and its sender is told"), "{out}");
    assert!(out.contains("  no rule is asked\n      refused: unsolicited"), "{out}");
}

#[test]
fn clients_can_be_named_and_programs_are_told_the_same() {
    let file = pcap("named.pcap", &afternoon());
    let args = [LAPTOP, "--json", "--pcap", file.to_str().unwrap(), "--client", "10.137.0.99"];
    let (_, out, told) = explain(&args);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{told}"));
    assert_eq!((&report["sums"]["foreign"], &report["sums"]["passed"]), (&1.into(), &3.into()));
    let first = &report["packets"][0];
    assert_eq!(
        (&first["accepted"], &first["packet"]),
        (&true.into(), &"udp 10.137.0.10:5000 -> 10.139.1.1:53".into())
    );
    assert!(first["left"].as_str().unwrap().starts_with("udp 192.0.2.2:"));
    assert!(first["line"].is_u64() && first["rule"].as_str().unwrap().starts_with("accept"));
}

const AFTERNOON: &str = "3 opened a flow, 3 passed with one, 0 were answered, 2 refused; ";

#[test]
fn every_form_of_a_capture_tells_the_same() {
    let cooked = |frame: &Vec<u8>| [&[0; 14], &frame[12..]].concat();
    let raw: Vec<_> = afternoon()[1..].iter().map(|frame| frame[14..].to_vec()).collect();
    let cooked: Vec<_> = afternoon().iter().map(cooked).collect();
    for (name, bytes, foreign) in [
        ("form.pcapng", pcapng_of(&afternoon()), 2),
        ("form-raw.pcap", pcap_of(RAW, 0, &raw), 1),
        ("form-cooked.pcap", pcap_of(LINUX_SLL, 0, &cooked), 2),
    ] {
        let (_, out, told) = explain(&[LAPTOP, "--pcap", file(name, &bytes).to_str().unwrap()]);
        let last = format!("{AFTERNOON}{foreign} of nobody here, 0 cut off");
        assert_eq!(out.lines().last(), Some(last.as_str()), "{name}: {out}{told}");
        assert_eq!(out.contains("#1 0.010000 s: udp"), foreign == 2, "{name}: {out}");
    }
}

/// Flows end between packets as they do in a firewall that runs: their answers are too late.
#[test]
fn time_goes_on_as_the_capture_says() {
    let query = udp((WORK, 5000), (SERVER, 443), b"q");
    let answer = udp((SERVER, 443), (WORK, 5000), b"a");
    for (apart, fate) in [(200, "1 passed with one"), (400, "1 refused")] {
        let bytes = pcap_of(ETHERNET, apart, &[query.clone(), answer.clone()]);
        let path = file(&format!("time-{apart}.pcap"), &bytes);
        let out = explain(&[LAPTOP, "--pcap", path.to_str().unwrap()]).1;
        assert!(out.contains("1 opened a flow") && out.contains(fate), "{apart}: {out}");
    }
}

/// Whatever stands in a file, the tool says something about it and ends.
#[test]
fn damaged_captures_are_read_or_refused() {
    let mut state = 7_u32;
    let mut dice = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    let mut codes = [0; 3];
    for n in 0..60 {
        let mut bytes = match n % 2 {
            0 => pcap_of(ETHERNET, 0, &afternoon()),
            _ => pcapng_of(&afternoon()),
        };
        for _ in 0..=dice(4) {
            let at = dice(bytes.len());
            bytes[at] = [0, 0xff, 0x7f, 1][dice(4)];
        }
        bytes.truncate(bytes.len() - dice(3) * dice(40));
        let path = file("damaged.pcap", &bytes);
        let (code, out, told) = explain(&[LAPTOP, "--pcap", path.to_str().unwrap()]);
        let code = usize::try_from(code.unwrap_or_else(|| panic!("{told}"))).unwrap();
        assert!(!told.contains("panicked"), "{told}");
        assert!(code == 2 || out.lines().last().unwrap().ends_with(" cut off"), "{out}{told}");
        codes[code] += 1;
    }
    assert!(codes[1] > 5 && codes[2] > 5, "both come about: {codes:?}");
}

#[test]
fn an_interface_with_a_mac_of_its_own_is_that_of_its_vm() {
    let dmz = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/dmz.tide");
    let mail = tcp(([10, 137, 0, 25], 5000), (SERVER, 25), (1, None));
    let path = pcap("mac.pcap", &[mail]);
    let (code, out, _) = explain(&[dmz, "--pcap", path.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("passes, leaves as tcp 192.0.2.25:5000 -> 93.184.216.34:25"), "{out}");
}

#[test]
fn what_is_no_capture_is_said() {
    let (code, _, told) = explain(&[LAPTOP, "--pcap", LAPTOP]);
    assert!(code == Some(2) && told.contains("no pcap file"), "{told}");
    let file = pcap("cut.pcap", &afternoon());
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 5]).unwrap();
    let (code, _, told) = explain(&[LAPTOP, "--pcap", file.to_str().unwrap()]);
    assert!(code == Some(2) && told.contains("no pcap file"), "{told}");
    assert_eq!(explain(&[LAPTOP, "--pcap", "x", "tcp from work to 1.1.1.1:1"]).0, Some(2));
}

#[test]
fn the_firewall_itself_answers_about_a_described_packet() {
    let (code, out, _) = explain(&[LAPTOP, "udp from work to 10.139.1.1:53"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("  the firewall: passes, leaves as udp 192.0.2.2:"), "{out}");
    assert!(out.contains(" -> 192.168.122.1:53\n"), "{out}");
    let (code, out, _) = explain(&[LAPTOP, "tcp from personal to 10.0.0.9:631"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("  the firewall: refused, and its sender is told\n"), "{out}");
    let gateway = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/gateway.tide");
    let (code, out, _) = explain(&[gateway, "tcp from 198.51.100.7 to firewall:22"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("  nat: it was sent to firewall:22\n"), "{out}");
    assert!(out.contains("passes, leaves as tcp 198.51.100.7:49152 -> 10.20.0.5:22\n"), "{out}");
    let qubes = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/qubes.tide");
    let (_, out, _) = explain(&[qubes, "clients -> uplink tcp from 10.137.0.9 to 1.1.1.1:443"]);
    assert!(out.contains("  the firewall: the VM's own rules decide"), "{out}");
}

/// Answers come by the uplink that the question left by, those of the redirected resolver as well; and
/// what nobody asked for comes by that of its sender.
#[test]
fn a_capture_knows_by_which_uplink_each_packet_came() {
    const OFFICE: [u8; 4] = [10, 20, 0, 7];
    const ADMIN: [u8; 4] = [10, 20, 1, 3];
    let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/two-uplinks.tide");
    let query = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let mut answer = query;
    answer[2] = 0x81;
    let path = pcap(
        "office.pcap",
        &[
            tcp((WORK, 5001), (OFFICE, 22), (1000, None)),
            tcp((OFFICE, 22), (WORK, 5001), (9000, Some(1001))),
            tcp((WORK, 5002), (SERVER, 443), (1000, None)),
            tcp((SERVER, 443), (WORK, 5002), (9000, Some(1001))),
            udp((WORK, 5003), (RESOLVER, 53), &query),
            udp((RESOLVER, 53), (WORK, 5003), &answer),
            tcp((ADMIN, 999), ([192, 0, 2, 3], 22), (1, None)),
            tcp((ADMIN, 999), ([192, 0, 2, 2], 22), (1, None)),
        ],
    );
    let (code, out, _) = explain(&[policy, "--pcap", path.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{out}");
    for part in [
        "passes, leaves as tcp 192.0.2.3:",
        "passes, leaves as tcp 192.0.2.2:",
        "-> 10.20.0.53:53\n",
        "passes, leaves as tcp 10.20.1.3:999 -> 10.137.0.10:22\n",
        "4 opened a flow, 3 passed with one, 0 were answered, 1 refused; 0 of nobody here, 0 cut off",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
}
