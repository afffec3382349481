//! The attacks: what each writes, and what the backend is to make of it.
//!
//! In: a vif that works. Out: the table. An attack that costs a frame leaves the vif working; one
//! that contradicts the protocol has it closed, with the words the backend then says.

#![forbid(unsafe_code)]

use crate::guest::{Guest, Nodes, Wrong};
use crate::rings::{BUFFERS, Lent, REQ_PROD, Rings, SLOTS};
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use wire::{Gso, GsoKind};
use xen::hypervisor::{Access, DomId, Hypervisor, Memory, PAGE_SIZE};
use xen::netif::{Extra, ExtraKind, TxFlags, TxRequest};
use xen::xenbus::XenbusState as State;

/// A reference nobody has granted, inside the table.
const UNGRANTED: u32 = 1500;
/// A port of the server that nobody listens on.
const NOBODY: u16 = 9;

/// An attack and its end.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) attack: Attack,
    pub(crate) ends: Ends,
}

/// When it is made.
#[derive(Clone, Copy)]
pub(crate) enum Attack {
    /// By what is published before the backend connects.
    Terms(fn(&mut Guest, &mut Rings, &mut Nodes) -> Result<(), Wrong>),
    /// On connected rings.
    Rings(fn(&mut Guest, &mut Rings) -> Result<(), Wrong>),
    /// By dying right behind it.
    Death(fn(&mut Guest) -> Result<(), Wrong>),
}

/// What becomes of the vif.
#[derive(Clone, Copy)]
pub(crate) enum Ends {
    /// It is closed, and the backend says this.
    Closed(&'static str),
    /// All its slots are answered, and it works on.
    Served,
    /// The one or the other; a new connection works.
    Either,
}

const PRODUCER: &str = "impossible request producer";
const CUT_SHORT: &str = "the published requests end inside a frame";
const TOO_MANY: &str = "a frame of more slots than Xen allows";

/// All attacks. Those that leave the vif working come first, as they can follow each other on one
/// connection.
pub(crate) const CASES: &[Case] = &[
    served("ungranted-references", ungranted_references),
    served("grant-ended-in-queue", grant_ended_in_queue),
    served("grants-ended-in-mid-copy", grants_ended_in_mid_copy),
    served("one-id-for-all", one_id_for_all),
    served("frame-of-no-bytes", |g, r| one(g, r, [data(TxFlags(0), 0, 0)])),
    served("frame-of-13-bytes", |g, r| one(g, r, [data(TxFlags(0), 0, 13)])),
    served("size-below-sum-of-slots", |g, r| {
        one(g, r, [data(TxFlags::MORE_DATA, 0, 100), data(TxFlags(0), 0, 101)])
    }),
    served("slots-of-no-bytes", |g, r| {
        let mut slots = vec![data(TxFlags::MORE_DATA, 0, 0); 18];
        slots.splice(..1, [data(TxFlags::MORE_DATA, 0, 1000)]);
        close_chain(&mut slots);
        one(g, r, slots)
    }),
    served("slots-19", |g, r| one(g, r, chain(19))),
    served("gso-on-udp", |g, r| with_gso(g, r, false, 1000)),
    served("gso-size-over-frame", |g, r| with_gso(g, r, true, u16::MAX)),
    served("gso-size-1", |g, r| with_gso(g, r, true, 1)),
    served("gso-of-the-other-family", |g, r| {
        let frame = g.net.syn(NOBODY, 1000);
        let extra = Extra::gso(Gso { kind: GsoKind::TcpV6, size: 500 });
        let flags = TxFlags::EXTRA_INFO.with(TxFlags::CSUM_BLANK);
        r.send_with(g, &frame, flags, &[extra.encode_tx()])
    }),
    served("gso-with-a-full-sum", |g, r| {
        let frame = g.net.syn(NOBODY, 1000);
        let extra = Extra::gso(Gso { kind: GsoKind::TcpV4, size: 500 });
        r.send_with(g, &frame, TxFlags::EXTRA_INFO, &[extra.encode_tx()])
    }),
    served("extra-multicast", |g, r| with_extra(g, r, ExtraKind::Mcast)),
    served("extra-hash", |g, r| with_extra(g, r, ExtraKind::Hint(4))),
    served("extra-xdp", |g, r| with_extra(g, r, ExtraKind::Hint(5))),
    served("ring-sent-as-frame", ring_sent_as_frame),
    served("event-storm", |g, r| (0..50_000).try_for_each(|_| r.signal(&mut g.xen))),
    served("buffers-that-cannot-be-written", buffers_that_cannot_be_written),
    served("no-buffers", no_buffers),
    closed("tx-producer-ahead", PRODUCER, |g, r| claim_tx(g, r, r.tx_prod.wrapping_add(SLOTS + 1))),
    closed("tx-producer-far-ahead", PRODUCER, |g, r| claim_tx(g, r, r.tx_prod ^ 1 << 31)),
    closed("tx-producer-back", PRODUCER, |g, r| claim_tx(g, r, r.tx_prod.wrapping_sub(1))),
    closed("rx-producer-ahead", PRODUCER, |g, r| claim_rx(g, r, r.rx_prod.wrapping_add(SLOTS + 1))),
    closed("rx-producer-back", PRODUCER, |g, r| claim_rx(g, r, r.rx_prod.wrapping_sub(3))),
    closed("ring-overwritten", PRODUCER, |g, r| {
        r.tx.page.write(0, &[0xa5; PAGE_SIZE]);
        r.signal(&mut g.xen)
    }),
    closed("ring-posted-as-buffer", PRODUCER, ring_posted_as_buffer),
    closed("chain-without-end", CUT_SHORT, |g, r| one(g, r, [data(TxFlags::MORE_DATA, 0, 100)])),
    closed("extra-missing", CUT_SHORT, |g, r| one(g, r, [data(TxFlags::EXTRA_INFO, 0, 100)])),
    closed("slots-22", TOO_MANY, |g, r| one(g, r, chain(22))),
    closed("slots-200", TOO_MANY, |g, r| one(g, r, chain(200))),
    closed("extras-without-end", TOO_MANY, |g, r| {
        let mut slots = vec![data(TxFlags::EXTRA_INFO, 0, 100)];
        slots.extend([Extra { kind: ExtraKind::Hint(4), more: true }.encode_tx(); 20]);
        one(g, r, slots)
    }),
    closed("data-over-page", "97 bytes at offset 4000 cross the end of a page", |g, r| {
        one(g, r, [data(TxFlags(0), 4000, 97)])
    }),
    closed("rest-over-page", "100 bytes at offset 65535 cross the end of a page", |g, r| {
        one(g, r, [data(TxFlags::MORE_DATA, 0, 200), data(TxFlags(0), u16::MAX, 100)])
    }),
    closed("gso-size-0", "a bad extra-info slot: GsoSize", |g, r| with_raw_extra(g, r, 2, [0, 0])),
    closed("gso-type-0", "a bad extra-info slot: GsoType(0)", |g, r| with_raw_extra(g, r, 4, [0])),
    closed("gso-type-9", "a bad extra-info slot: GsoType(9)", |g, r| with_raw_extra(g, r, 4, [9])),
    closed("extra-type-200", "a bad extra-info slot: Type(200)", |g, r| {
        with_raw_extra(g, r, 0, [200])
    }),
    refused("ring-ref-no-number", "tx-ring-ref is \"-1\"", |_, _, nodes| {
        set(nodes, "tx-ring-ref", "-1")
    }),
    refused("ring-ref-too-big", "tx-ring-ref is \"4294967296\"", |_, _, nodes| {
        set(nodes, "tx-ring-ref", "4294967296")
    }),
    refused("ring-ref-of-2000-bytes", "rx-ring-ref is \"9999", |_, _, nodes| {
        nodes.insert("rx-ring-ref", vec![b'9'; 2000]);
        Ok(())
    }),
    refused("ring-ref-of-binary", "rx-ring-ref is \"\\x00\\x1b", |_, _, nodes| {
        nodes.insert("rx-ring-ref", vec![0, 0x1b, 0xff]);
        Ok(())
    }),
    refused("ring-ref-missing", "rx-ring-ref is missing", |_, _, nodes| {
        nodes.remove("rx-ring-ref");
        Ok(())
    }),
    refused("ring-not-granted", "tx-ring-ref 1500 cannot be mapped", |_, _, nodes| {
        set(nodes, "tx-ring-ref", "1500")
    }),
    refused("ring-granted-to-another", "cannot be mapped", |guest, rings, nodes| {
        lend_ring(guest, rings, nodes, DomId(0), Access::ReadWrite)
    }),
    refused("ring-granted-read-only", "cannot be mapped", |guest, rings, nodes| {
        let to = guest.backend;
        lend_ring(guest, rings, nodes, to, Access::ReadOnly)
    }),
    refused("ring-of-garbage", "tx ring: impossible request producer", |_, rings, _| {
        rings.tx.page.write(0, &[0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x55, 0, 0]);
        Ok(())
    }),
    refused("one-ring-for-both", "not a grant reference other than tx-ring-ref", |_, r, nodes| {
        set(nodes, "rx-ring-ref", &r.tx.number().to_string())
    }),
    refused("event-channel-of-another", "cannot be bound: errno", |guest, _, nodes| {
        set(nodes, "event-channel", &guest.store_port().0.to_string())
    }),
    refused("event-channel-too-big", "cannot be bound: errno", |_, _, nodes| {
        set(nodes, "event-channel", "4294967295")
    }),
    refused("event-channel-missing", "event-channel is missing", |_, _, nodes| {
        nodes.remove("event-channel");
        Ok(())
    }),
    refused("no-rx-copy", "request-rx-copy is \"0\"", |_, _, nodes| {
        set(nodes, "request-rx-copy", "0")
    }),
    Case {
        name: "rings-in-one-page",
        attack: Attack::Terms(rings_in_one_page),
        ends: Ends::Either,
    },
    Case { name: "states-flipped", attack: Attack::Rings(states_flipped), ends: Ends::Either },
    dies("die-before-rings", |_| Ok(())),
    dies("die-initialised", |guest| {
        let rings = Rings::open(guest)?;
        for (name, value) in rings.nodes() {
            guest.set(name, &value)?;
        }
        guest.set_state(State::Initialised)
    }),
    dies("die-connecting", |guest| {
        let rings = Rings::open(guest)?;
        guest.offer(&rings.nodes())
    }),
    dies("die-with-requests-queued", |guest| {
        let mut rings = guest.connect()?;
        one(guest, &mut rings, chain(18))?;
        udp_in_slots(guest, &mut rings, 15)
    }),
    dies("die-as-frames-arrive", |guest| {
        let mut rings = guest.connect()?;
        for _ in 0..100 {
            guest.send_echo(&mut rings)?;
        }
        // The first is there, so that others are being copied.
        guest.wait("an answer", |_| Ok(!rings.receive().is_empty()))
    }),
];

const fn served(name: &'static str, f: fn(&mut Guest, &mut Rings) -> Result<(), Wrong>) -> Case {
    Case { name, attack: Attack::Rings(f), ends: Ends::Served }
}

const fn closed(
    name: &'static str,
    says: &'static str,
    f: fn(&mut Guest, &mut Rings) -> Result<(), Wrong>,
) -> Case {
    Case { name, attack: Attack::Rings(f), ends: Ends::Closed(says) }
}

const fn refused(
    name: &'static str,
    says: &'static str,
    f: fn(&mut Guest, &mut Rings, &mut Nodes) -> Result<(), Wrong>,
) -> Case {
    Case { name, attack: Attack::Terms(f), ends: Ends::Closed(says) }
}

const fn dies(name: &'static str, f: fn(&mut Guest) -> Result<(), Wrong>) -> Case {
    Case { name, attack: Attack::Death(f), ends: Ends::Either }
}

fn data(flags: TxFlags, offset: u16, size: u16) -> [u8; 12] {
    TxRequest { gref: UNGRANTED, offset, flags, id: 7, size }.encode()
}

/// A frame of `slots` slots.
fn chain(slots: usize) -> Vec<[u8; 12]> {
    let mut chain = vec![data(TxFlags::MORE_DATA, 0, 100); slots];
    chain.splice(..1, [data(TxFlags::MORE_DATA, 0, u16::MAX)]);
    close_chain(&mut chain);
    chain
}

fn close_chain(slots: &mut [[u8; 12]]) {
    if let Some(last) = slots.last_mut() {
        *last = data(TxFlags(0), 0, 100);
    }
}

/// Shows these slots as they are.
fn one(
    guest: &mut Guest,
    rings: &mut Rings,
    slots: impl IntoIterator<Item = [u8; 12]>,
) -> Result<(), Wrong> {
    slots.into_iter().for_each(|slot| rings.put(&slot));
    rings.show(&mut guest.xen)
}

fn set(nodes: &mut Nodes, name: &'static str, value: &str) -> Result<(), Wrong> {
    nodes.insert(name, value.into());
    Ok(())
}

fn ungranted_references(guest: &mut Guest, rings: &mut Rings) -> Result<(), Wrong> {
    for gref in [0, 1, 7, UNGRANTED, 40_000, 0x00ff_ffff, u32::MAX] {
        let request = TxRequest { gref, offset: 0, flags: TxFlags(0), id: 7, size: 100 };
        rings.put(&request.encode());
    }
    rings.show(&mut guest.xen)
}

fn grant_ended_in_queue(guest: &mut Guest, rings: &mut Rings) -> Result<(), Wrong> {
    let frame = guest.net.udp(NOBODY, 100);
    for id in 0..10 {
        let gref = rings.lend(guest, 0, &frame)?;
        rings.put(&TxRequest { gref, offset: 0, flags: TxFlags(0), id, size: 100 }.encode());
    }
    rings.revoke_sent(&mut guest.xen);
    rings.show(&mut guest.xen)
}

/// Frames that policy lets pass, so that their bodies are copied, in as many slots as possible.
fn grants_ended_in_mid_copy(guest: &mut Guest, rings: &mut Rings) -> Result<(), Wrong> {
    for _ in 0..10 {
        for _ in 0..12 {
            udp_in_slots(guest, rings, 15)?;
        }
        rings.show(&mut guest.xen)?;
        rings.revoke_sent(&mut guest.xen);
        guest.wait("answers to all slots", |_| rings.all_answered())?;
        rings.receive();
    }
    Ok(())
}

/// A datagram in slots of 100 bytes, not shown.
fn udp_in_slots(guest: &mut Guest, rings: &mut Rings, slots: u16) -> Result<(), Wrong> {
    const EACH: u16 = 100;
    let size = slots * EACH;
    let frame = guest.net.udp(NOBODY, size.into());
    for (n, part) in (0..slots).zip(frame.chunks(EACH.into())) {
        let gref = rings.lend(guest, 0, part)?;
        let flags = TxFlags(0).with_if(TxFlags::MORE_DATA, n + 1 < slots);
        let size = if n == 0 { size } else { EACH };
        rings.put(&TxRequest { gref, offset: 0, flags, id: n, size }.encode());
    }
    Ok(())
}

fn one_id_for_all(guest: &mut Guest, rings: &mut Rings) -> Result<(), Wrong> {
    let _earlier = rings.answers();
    one(guest, rings, [data(TxFlags(0), 0, 60); 200])?;
    let mut answers = Vec::new();
    guest.wait("200 answers", |_| {
        answers.extend(rings.answers());
        Ok(answers.len() >= 200)
    })?;
    match answers.iter().find(|answer| answer.id != 7) {
        Some(other) => Err(alloc::format!("an answer nobody asked for: {other:?}")),
        None => Ok(()),
    }
}

fn with_gso(guest: &mut Guest, rings: &mut Rings, tcp: bool, size: u16) -> Result<(), Wrong> {
    let frame = if tcp { guest.net.syn(NOBODY, 1000) } else { guest.net.udp(NOBODY, 1000) };
    let extra = Extra::gso(Gso { kind: GsoKind::TcpV4, size }).encode_tx();
    rings.send_with(guest, &frame, TxFlags::EXTRA_INFO.with(TxFlags::CSUM_BLANK), &[extra])
}

fn with_extra(guest: &mut Guest, rings: &mut Rings, kind: ExtraKind) -> Result<(), Wrong> {
    let frame = guest.net.udp(NOBODY, 100);
    rings.send_with(guest, &frame, TxFlags::EXTRA_INFO, &[Extra { kind, more: false }.encode_tx()])
}

/// A GSO extra with other `bytes` at `at`.
fn with_raw_extra<const N: usize>(
    guest: &mut Guest,
    rings: &mut Rings,
    at: usize,
    bytes: [u8; N],
) -> Result<(), Wrong> {
    let mut extra = Extra::gso(Gso { kind: GsoKind::TcpV4, size: 1448 }).encode_tx();
    if let Some(place) = extra.get_mut(at..at + N) {
        place.copy_from_slice(&bytes);
    }
    let frame = guest.net.syn(NOBODY, 1000);
    rings.send_with(guest, &frame, TxFlags::EXTRA_INFO.with(TxFlags::CSUM_BLANK), &[extra])
}

/// The backend reads the page that it has mapped and answers in.
fn ring_sent_as_frame(guest: &mut Guest, rings: &mut Rings) -> Result<(), Wrong> {
    for gref in [rings.tx.number(), rings.rx.number()] {
        let request = TxRequest { gref, offset: 0, flags: TxFlags(0), id: 7, size: 1500 };
        rings.put(&request.encode());
    }
    rings.show(&mut guest.xen)
}

/// Behind the honest buffers: not granted, read-only, ended.
fn buffers_that_cannot_be_written(guest: &mut Guest, rings: &mut Rings) -> Result<(), Wrong> {
    let read_only = Lent::new(&mut guest.xen, guest.backend, Access::ReadOnly)?;
    let bad = [UNGRANTED, u32::MAX, read_only.number(), 0x00ff_ffff];
    bad.iter().for_each(|gref| rings.put_buffer(*gref));
    rings.show_buffers();
    let end = rings.rx_prod;
    // The honest ones are posted again behind the bad ones: all have had their turn by then.
    for _ in 0..BUFFERS + bad.len() as u32 {
        guest.send_echo(rings)?;
    }
    guest.wait("all buffers to be answered", |_| {
        rings.receive();
        Ok(rings.rx_prod.wrapping_sub(rings.unanswered_buffers()).wrapping_sub(end) < SLOTS)
    })?;
    read_only.end(&mut guest.xen);
    Ok(())
}

/// More answers than buffers: those beyond are lost, and nothing waits for them.
fn no_buffers(guest: &mut Guest, rings: &mut Rings) -> Result<(), Wrong> {
    for _ in 0..4 * BUFFERS {
        guest.send_echo(rings)?;
    }
    guest.wait("answers to all slots", |_| rings.all_answered())
}

/// An echo reply is written over the TX ring's indices.
fn ring_posted_as_buffer(guest: &mut Guest, rings: &mut Rings) -> Result<(), Wrong> {
    rings.put_buffer(rings.tx.number());
    rings.show_buffers();
    for _ in 0..BUFFERS + 1 {
        guest.send_echo(rings)?;
    }
    guest
        .wait("all buffers to be filled", |_| Ok(rings.tx.page.load(REQ_PROD) != rings.tx_prod))?;
    rings.signal(&mut guest.xen)
}

fn claim_tx(guest: &mut Guest, rings: &Rings, producer: u32) -> Result<(), Wrong> {
    rings.tx.page.store(REQ_PROD, producer);
    rings.signal(&mut guest.xen)
}

/// The backend looks at this ring when it has a frame for us.
fn claim_rx(guest: &mut Guest, rings: &mut Rings, producer: u32) -> Result<(), Wrong> {
    rings.rx.page.store(REQ_PROD, producer);
    guest.send_echo(rings).map(drop)
}

/// Publishes a TX ring that is lent to `to` in this way.
fn lend_ring(
    guest: &mut Guest,
    rings: &mut Rings,
    nodes: &mut Nodes,
    to: DomId,
    access: Access,
) -> Result<(), Wrong> {
    let other = Lent::new(&mut guest.xen, to, access)?;
    set(nodes, "tx-ring-ref", &other.number().to_string())?;
    rings.keep(other);
    Ok(())
}

/// Two references, one page: what is written to one ring stands in the other.
fn rings_in_one_page(guest: &mut Guest, rings: &mut Rings, nodes: &mut Nodes) -> Result<(), Wrong> {
    let again = guest.xen.grant(guest.backend, &rings.tx.page, Access::ReadWrite);
    let again = again.map_err(|_| "no grant is left")?;
    set(nodes, "rx-ring-ref", &again.number().to_string())?;
    rings.aliases.push(again);
    one(guest, rings, [data(TxFlags(0), 0, 60); 100])
}

fn states_flipped(guest: &mut Guest, _: &mut Rings) -> Result<(), Wrong> {
    for round in 0..30 {
        for state in State::ALL {
            guest.set_state(state)?;
        }
        guest.set("state", if round % 2 == 0 { b"" } else { b"connected" })?;
        guest.set("state", &[b'4'; 2000])?;
        guest.remove("state")?;
    }
    Ok(())
}
