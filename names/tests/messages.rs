//! DNS messages: what is read of any bytes at all, and what smoltcp makes of the same ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use names::{
    ADDRS_MAX, ALIASES_MAX, Answer, Kind, Name, QUERY_MAX, Query, Told, Unusable, question,
    read_answer, write_query,
};
use proptest::prelude::*;
use smoltcp::wire as smol;
use std::net::IpAddr;

/// Names that are used over and over, so that records meet.
const NAMES: [&str; 4] = ["www.example.org", "a.example.org", "b.org", "cdn.b.org"];

#[derive(Clone, Debug)]
enum Data {
    Addr(IpAddr),
    Alias(usize),
    Text(Vec<u8>),
}

#[derive(Clone, Debug)]
struct Record {
    owner: usize,
    ttl: u32,
    data: Data,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::A), Just(Kind::Aaaa)]
}

fn record() -> impl Strategy<Value = Record> {
    let data = prop_oneof![
        any::<[u8; 4]>().prop_map(|addr| Data::Addr(addr.into())),
        any::<[u8; 16]>().prop_map(|addr| Data::Addr(addr.into())),
        (0..NAMES.len()).prop_map(Data::Alias),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Data::Text),
    ];
    (0..NAMES.len(), any::<u32>(), data).prop_map(|(owner, ttl, data)| Record { owner, ttl, data })
}

/// Writes names, by pointers to where they stood before if they did.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    known: Vec<(String, usize)>,
}

impl Writer {
    fn name(&mut self, name: &str) {
        let mut rest = name;
        while !rest.is_empty() {
            if let Some((_, at)) = self.known.iter().find(|(known, _)| known == rest) {
                let pointer = 0xc000 | u16::try_from(*at).unwrap();
                self.bytes.extend(pointer.to_be_bytes());
                return;
            }
            self.known.push((rest.to_owned(), self.bytes.len()));
            let (label, behind) = rest.split_once('.').unwrap_or((rest, ""));
            self.bytes.push(u8::try_from(label.len()).unwrap());
            self.bytes.extend(label.bytes());
            rest = behind;
        }
        self.bytes.push(0);
    }

    fn words(&mut self, words: &[u16]) {
        self.bytes.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    }
}

fn answer(kind: Kind, records: &[Record]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.words(&[7, 0x8180, 1, u16::try_from(records.len()).unwrap(), 0, 0]);
    writer.name(NAMES[0]);
    writer.words(&[if kind == Kind::A { 1 } else { 28 }, 1]);
    for record in records {
        writer.name(NAMES[record.owner]);
        let number = match &record.data {
            Data::Addr(IpAddr::V4(_)) => 1,
            Data::Addr(IpAddr::V6(_)) => 28,
            Data::Alias(_) => 5,
            Data::Text(_) => 16,
        };
        writer.words(&[number, 1]);
        writer.bytes.extend(record.ttl.to_be_bytes());
        let at = writer.bytes.len();
        writer.words(&[0]);
        match &record.data {
            Data::Addr(IpAddr::V4(addr)) => writer.bytes.extend(addr.octets()),
            Data::Addr(IpAddr::V6(addr)) => writer.bytes.extend(addr.octets()),
            Data::Alias(name) => writer.name(NAMES[*name]),
            Data::Text(text) => writer.bytes.extend(text),
        }
        let len = u16::try_from(writer.bytes.len() - at - 2).unwrap();
        writer.bytes[at..at + 2].copy_from_slice(&len.to_be_bytes());
    }
    writer.bytes
}

/// What records say, by the plainest means: a walk from name to name.
fn plainly(kind: Kind, records: &[Record]) -> Option<Vec<Told>> {
    let ttl = |record: &Record| if record.ttl >> 31 == 1 { 0 } else { record.ttl };
    let (mut name, mut least) = (0, u32::MAX);
    for step in 0.. {
        let aliases: Vec<_> = records
            .iter()
            .filter(|record| record.owner == name)
            .filter_map(|record| match record.data {
                Data::Alias(target) => Some((target, ttl(record))),
                _ => None,
            })
            .collect();
        match aliases[..] {
            [] => break,
            [(target, lives)] if step < ALIASES_MAX => (name, least) = (target, least.min(lives)),
            _ => return None,
        }
    }
    let mut told: Vec<Told> = Vec::new();
    for record in records.iter().filter(|record| record.owner == name) {
        let Data::Addr(addr) = record.data else { continue };
        if Kind::of(addr) == kind && told.iter().all(|told| told.addr != addr) {
            told.push(Told { addr, ttl: least.min(ttl(record)) });
        }
    }
    Some(told)
}

/// All addresses in the answer section, as smoltcp reads it.
fn by_smoltcp(message: &[u8]) -> Option<Vec<IpAddr>> {
    let packet = smol::DnsPacket::new_checked(message).ok()?;
    let (mut rest, _) = smol::DnsQuestion::parse(packet.payload()).ok()?;
    let mut addrs = Vec::new();
    for _ in 0..packet.answer_record_count() {
        let (behind, record) = smol::DnsRecord::parse(rest).ok()?;
        rest = behind;
        match record.data {
            smol::DnsRecordData::A(addr) => addrs.push(addr.into()),
            smol::DnsRecordData::Aaaa(addr) => addrs.push(addr.into()),
            _ => {}
        }
    }
    Some(addrs)
}

fn ours() -> Name {
    Name::new(NAMES[0]).unwrap()
}

fn read(message: &[u8], kind: Kind) -> Result<Answer, Unusable> {
    read_answer(message, &question(&ours(), kind), kind)
}

proptest! {
    #[test]
    fn an_answer_says_what_its_records_say(
        kind in kind(),
        records in prop::collection::vec(record(), 0..12),
    ) {
        let told = read(&answer(kind, &records), kind).ok();
        prop_assert_eq!(told.map(|answer| answer.told.to_vec()), plainly(kind, &records));
    }

    #[test]
    fn what_is_believed_of_a_damaged_answer_stands_in_it(
        kind in kind(),
        records in prop::collection::vec(record(), 0..12),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut message, damaged) = (answer(kind, &records), !damage.is_empty());
        for (at, byte) in damage {
            let at = at.index(message.len());
            message[at] = byte;
        }
        for message in [&message[..], &message[..cut.index(message.len() + 1)]] {
            let Ok(answer) = read(message, kind) else { continue };
            prop_assert!(message[12..].starts_with(&question(&ours(), kind)));
            if answer.told.is_empty() {
                continue;
            }
            // It gives up at a record of another class than IN, which we pass over: only damage makes one.
            let Some(there) = by_smoltcp(message) else {
                prop_assert!(damaged);
                continue;
            };
            for told in &answer.told {
                prop_assert!(Kind::of(told.addr) == kind && there.contains(&told.addr));
            }
        }
    }

    #[test]
    fn no_bytes_make_reading_panic_or_teach_too_much(
        message in prop::collection::vec(any::<u8>(), 0..600),
        kind in kind(),
    ) {
        let _ = Query::read(&message);
        let _ = read_answer(&message, &[], kind);
        let _ = read(&message, kind);
        // Behind the right question, so that more is looked at.
        let mut behind = answer(kind, &[]);
        behind.extend(&message);
        behind[7] = 3;
        if let Ok(answer) = read(&behind, kind) {
            prop_assert!(answer.told.len() <= 3);
        }
    }

    #[test]
    fn a_query_is_read_back_by_us_and_by_smoltcp(
        id in any::<u16>(),
        kind in kind(),
        edns in any::<bool>(),
        labels in prop::collection::vec("[a-z0-9_-]{1,63}", 1..5),
    ) {
        let Some(name) = Name::new(&labels.join(".")) else { return Ok(()) };
        let mut out = [0; QUERY_MAX];
        let len = write_query(id, &name, kind, edns, &mut out).unwrap();
        let query = Query::read(&out[..len]).unwrap();
        prop_assert!(query.is_for(&name) && !query.is_for(&ours()));
        prop_assert_eq!((query.kind, query.question), (kind, &question(&name, kind)[..]));
        let packet = smol::DnsPacket::new_checked(&out[..len]).unwrap();
        prop_assert_eq!((packet.transaction_id(), packet.question_count()), (id, 1));
        prop_assert_eq!(packet.additional_record_count(), u16::from(edns));
        let (_, asked) = smol::DnsQuestion::parse(packet.payload()).unwrap();
        prop_assert_eq!(asked.name, name.spelled());
        let number = if kind == Kind::A { smol::DnsQueryType::A } else { smol::DnsQueryType::Aaaa };
        prop_assert_eq!(asked.type_, number);
        // A query is no answer to itself.
        prop_assert_eq!(read_answer(&out[..len], query.question, kind), Err(Unusable::Malformed));
    }
}

#[test]
fn more_addresses_than_are_taken_are_told_of() {
    let records: Vec<Record> = (0..100u32)
        .map(|n| Record { owner: 0, ttl: n, data: Data::Addr(n.to_be_bytes().into()) })
        .collect();
    let told = |count: usize| read(&answer(Kind::A, &records[..count]), Kind::A).unwrap();
    assert_eq!((told(ADDRS_MAX).told.len(), told(ADDRS_MAX).more), (64, false));
    assert_eq!((told(ADDRS_MAX + 1).told.len(), told(ADDRS_MAX + 1).more), (64, true));
}

#[test]
fn an_answer_of_too_many_records_is_not_read() {
    let record = Record { owner: 2, ttl: 1, data: Data::Text(vec![]) };
    let read_of = |count| read(&answer(Kind::A, &vec![record.clone(); count]), Kind::A);
    assert_eq!(read_of(128), Ok(Answer::default()));
    assert_eq!(read_of(129), Err(Unusable::TooLong));
}

#[test]
fn a_record_of_another_class_is_passed_over() {
    let addr = |last| Record { owner: 0, ttl: 60, data: Data::Addr([192, 0, 2, last].into()) };
    let mut message = answer(Kind::A, &[addr(1), addr(2)]);
    // The second record's class: it stands before its time to live, its length and its address.
    let class = message.len() - 4 - 2 - 4 - 2;
    message[class..class + 2].copy_from_slice(&3u16.to_be_bytes());
    let told = read(&message, Kind::A).unwrap().told;
    assert_eq!(
        told.iter().map(|told| told.addr).collect::<Vec<_>>(),
        [IpAddr::from([192, 0, 2, 1])]
    );
}
