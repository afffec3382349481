//! DNS messages: what resolvers tell, and what clients ask.

use names::{ADDRS_MAX, Kind, Name, Names, Query, Source, Told, Unusable, read_answer};
use std::net::IpAddr;
use wire::{Instant, Port};

const CLIENTS: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(10, 137, 0, 10)),
    IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
];
const VM: Port = Port::new(1, 0);

/// Answers with any bytes. Whatever they are, each name has so many addresses, of the right family.
///
/// The message is taken for the answer to the very question it repeats, and for one to a query of ours
/// for www.example.org.
pub fn dns(data: &[u8]) {
    for kind in [Kind::A, Kind::Aaaa] {
        if let Some(query) = Query::read(data) {
            assert_eq!(read_answer(data, query.question, kind), Err(Unusable::Malformed));
        }
        let question = data.get(12..).unwrap_or_default();
        let len = question.iter().position(|byte| *byte == 0).map_or(0, |end| end + 5);
        if let Ok(answer) = read_answer(data, question.get(..len).unwrap_or_default(), kind) {
            sound(&answer.told, kind);
        }
        let ours = names::question(&Name::new("www.example.org").unwrap(), kind);
        if let Ok(answer) = read_answer(data, &ours, kind) {
            sound(&answer.told, kind);
        }
    }
    learnt(data);
}

fn sound(told: &[Told], kind: Kind) {
    assert!(told.len() <= ADDRS_MAX);
    for (n, one) in told.iter().enumerate() {
        assert!(Kind::of(one.addr) == kind);
        assert!(told[..n].iter().all(|other| other.addr != one.addr), "told twice");
    }
}

/// A client asks what the message answers, and our own resolver the same.
fn learnt(data: &[u8]) {
    let (now, mut rest) = (Instant::from_secs(1), Rest(1024));
    let mut names = Names::new([7; 16]);
    names.set_resolvers(now, &[IpAddr::from([10, 139, 1, 1])], &mut rest);
    for client in CLIENTS {
        names.set_hosts(now, client, (["www.example.org"].into_iter(), [].into_iter()), &mut rest);
    }
    let mut query = data.to_vec();
    if let Some(flags) = query.get_mut(2..12) {
        flags.copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    }
    names.client_asks(now, VM, &CLIENTS, (5000, 7), &query);
    let _ = names.client_is_told(now, VM, &CLIENTS, (5000, 7), data, &mut rest);
    names.tick(now, &mut rest);
    while let Some(ask) = names.next_ask(now, &mut rest) {
        let mut answer = data.to_vec();
        if let Some(id) = answer.get_mut(..2) {
            id.copy_from_slice(&ask.message[..2]);
        }
        let _ = names.is_told(now, ask.resolver, ask.port, &answer, &mut rest);
    }
    while let Some(change) = names.next_change() {
        assert!(change.addrs.len() <= ADDRS_MAX);
        assert!(change.addrs.iter().all(|addr| addr.is_ipv4() == change.client.is_ipv4()));
    }
}

/// Ports in order; every address is usable.
struct Rest(u16);

impl Source for Rest {
    fn take_port(&mut self) -> Option<u16> {
        self.0 += 1;
        Some(self.0)
    }

    fn give_port_back(&mut self, _: u16) {}

    fn draw(&mut self) -> u16 {
        self.0
    }

    fn used(&mut self, _: IpAddr, _: &[IpAddr]) -> u64 {
        0
    }

    fn is_usable(&mut self, _: IpAddr) -> bool {
        true
    }
}
