//! Whoever wants a rule to let a client reach what it must not: what is tried, one way a test, against
//! the client's own rules and the policy at once. In each, the true answer that comes after it, or would
//! have come, is still what counts.

use crate::common::{Spec, packet};
use crate::resolver::{
    A, AAAA, HOST, Message, Record, address, alias, evil, good, resolver, second, spelled, told,
    world_twice as world,
};
use crate::world::{UPLINK, WORK, World, from_work, from_world, ip, personal, us, work};
use std::net::IpAddr;
use wire::{DropReason, TcpFlags};

/// Has the client ask, lets `forge` make a message out of the true answer, which says that the name is
/// at `evil`, and sends it from where the true one would come. It is passed on, as any answer is, and
/// teaches nothing.
fn forged(forge: impl FnOnce(&mut Message)) {
    let mut world = world();
    let (port, id) = world.asks(5000, 7, A);
    let mut message = Message::answer(id, evil());
    forge(&mut message);
    world.is_told(port, &message).emitted(WORK);
    assert!(!world.reaches(evil()), "the forgery was believed");
    assert!(learns(&mut world), "the true answer to the next query");
}

/// Sends a frame that does not get in, while a query waits; the true answer still does.
fn kept_out(why: DropReason, frame: impl FnOnce(u16, u16) -> Vec<u8>) {
    let mut world = world();
    let (port, id) = world.asks(5000, 7, A);
    world.send(UPLINK, &frame(port, id)).silent(why);
    assert!(!world.reaches(evil()), "the forgery was believed");
    world.is_told(port, &Message::answer(id, good())).emitted(WORK);
    assert!(world.reaches(good()), "the query was still alive");
}

/// Whether the client learns from an honest exchange.
fn learns(world: &mut World) -> bool {
    let (port, id) = world.asks(6000, 9, A);
    world.is_told(port, &Message::answer(id, good())).emitted(WORK);
    world.reaches(good())
}

#[test]
fn what_the_resolver_tells_is_in_the_rules_before_the_client_hears_of_it() {
    let mut world = world();
    assert!(!world.reaches(good()), "not known yet: accepting matches nothing");
    let (port, id) = world.asks(5000, 7, A);
    assert!(!world.reaches(good()));
    let heard = world.is_told(port, &Message::answer(id, good())).emitted(WORK);
    assert_eq!(packet(&heard).dns().unwrap().id, 7);
    assert!(world.reaches(good()));
    assert!(!world.reaches(evil()));
}

#[test]
fn poison_from_the_other_resolver() {
    kept_out(DropReason::Unsolicited, |port, id| {
        told((second(), 53), port, &Message::answer(id, evil()).bytes())
    });
}

#[test]
fn poison_from_a_stranger() {
    kept_out(DropReason::Unsolicited, |port, id| {
        told((ip("198.51.100.1"), 53), port, &Message::answer(id, evil()).bytes())
    });
}

#[test]
fn poison_from_another_port_of_the_resolver() {
    kept_out(DropReason::Unsolicited, |port, id| {
        told((resolver(), 5353), port, &Message::answer(id, evil()).bytes())
    });
}

#[test]
fn poison_to_another_port() {
    kept_out(DropReason::Unsolicited, |port, id| {
        told((resolver(), 53), port ^ 1, &Message::answer(id, evil()).bytes())
    });
}

#[test]
fn poison_with_another_id() {
    kept_out(DropReason::Unsolicited, |port, id| {
        told((resolver(), 53), port, &Message::answer(id ^ 1, evil()).bytes())
    });
}

#[test]
fn poison_with_the_id_that_the_client_chose_and_told_an_accomplice() {
    let mut world = world();
    let (port, id) = world.asks(5000, 7, A);
    assert_ne!(id, 7);
    world.is_told(port, &Message::answer(7, evil())).silent(DropReason::Unsolicited);
    assert!(!world.reaches(evil()));
}

#[test]
fn poison_that_comes_second() {
    let mut world = world();
    let (port, id) = world.asks(5000, 7, A);
    world.is_told(port, &Message::answer(id, good())).emitted(WORK);
    world.is_told(port, &Message::answer(id, evil())).silent(DropReason::Unsolicited);
    assert!(world.reaches(good()) && !world.reaches(evil()));
}

#[test]
fn poison_behind_an_answer_that_taught_nothing() {
    let mut world = world();
    let (port, id) = world.asks(5000, 7, A);
    // The socket waits for another, so that the flow lives on.
    world.asks(5000, 8, AAAA);
    let refused = Message { flags: 0x8182, answers: vec![], ..Message::answer(id, evil()) };
    world.is_told(port, &refused).emitted(WORK);
    world.is_told(port, &Message::answer(id, evil())).silent(DropReason::Unsolicited);
    assert!(!world.reaches(evil()));
}

#[test]
fn poison_that_nobody_asked_for() {
    let mut world = world();
    for port in [53, 5000, 40000] {
        world.is_told(port, &Message::answer(7, evil())).silent(DropReason::Unsolicited);
    }
    assert!(!world.reaches(evil()) && learns(&mut world));
}

#[test]
fn poison_that_comes_late() {
    let mut world = world();
    let (port, id) = world.asks(5000, 7, A);
    // The flow still lives: the client is told, the rules are not.
    world.now = world.now + std::time::Duration::from_secs(10);
    world.is_told(port, &Message::answer(id, evil())).emitted(WORK);
    assert!(!world.reaches(evil()) && learns(&mut world));
}

#[test]
fn poison_that_is_a_query() {
    kept_out(DropReason::Unsolicited, |port, id| {
        let message = Message { flags: 0x0180, ..Message::answer(id, evil()) };
        told((resolver(), 53), port, &message.bytes())
    });
}

#[test]
fn poison_of_another_kind_of_message() {
    // NOTIFY and UPDATE.
    for opcode in [4, 5] {
        forged(|message| message.flags |= opcode << 11);
    }
}

#[test]
fn poison_with_an_error() {
    // FORMERR, SERVFAIL, NXDOMAIN, REFUSED
    for code in [1, 2, 3, 5] {
        forged(|message| message.flags |= code);
    }
}

#[test]
fn poison_that_is_truncated() {
    forged(|message| message.flags |= 0x0200);
}

#[test]
fn poison_that_answers_another_name() {
    forged(|message| {
        message.questions[0].0 = spelled("www.evil.org");
        message.answers[0].owner = spelled("www.evil.org");
    });
    forged(|message| message.questions[0].0 = spelled("www.evil.org"));
}

#[test]
fn poison_that_answers_another_type() {
    forged(|message| message.questions[0].1 = AAAA);
}

#[test]
fn poison_that_does_not_spell_the_question_as_it_was_asked() {
    forged(|message| message.questions[0].0 = spelled("WWW.example.org"));
}

#[test]
fn poison_with_two_questions_or_none() {
    forged(|message| message.questions.push((spelled("www.evil.org"), A)));
    forged(|message| message.questions.clear());
}

#[test]
fn poison_about_another_name_beside_the_question() {
    forged(|message| message.answers[0].owner = spelled("www.evil.org"));
    forged(|message| message.answers[0].owner = spelled("example.org"));
    forged(|message| message.answers[0].owner = spelled("www.www.example.org"));
}

#[test]
fn poison_in_the_other_sections() {
    forged(|message| message.additional = core::mem::take(&mut message.answers));
    forged(|message| message.authorities = core::mem::take(&mut message.answers));
    // An alias in the answer, its address as glue.
    forged(|message| {
        message.answers = vec![alias(HOST, "cdn.evil.org")];
        message.additional = vec![address("cdn.evil.org", evil())];
    });
}

#[test]
fn poison_by_an_alias_of_another_name() {
    forged(|message| {
        message.answers = vec![alias("mail.example.org", "evil.org"), address("evil.org", evil())];
    });
}

#[test]
fn poison_at_the_end_of_too_many_aliases() {
    let chain = |count: u32| {
        let name = |n: u32| if n == 0 { HOST.to_owned() } else { format!("a{n}.example.org") };
        let mut records: Vec<Record> = (0..count).map(|n| alias(&name(n), &name(n + 1))).collect();
        records.push(address(&name(count), evil()));
        records.reverse();
        records
    };
    let mut eight = world();
    let (port, id) = eight.asks(5000, 7, A);
    let answer = Message { answers: chain(8), ..Message::answer(id, evil()) };
    eight.is_told(port, &answer).emitted(WORK);
    assert!(eight.reaches(evil()), "eight are followed, in whatever order they stand");
    forged(|message| message.answers = chain(9));
}

#[test]
fn poison_in_a_loop_of_aliases() {
    forged(|message| {
        message.answers = vec![alias(HOST, "a.org"), alias("a.org", HOST), address(HOST, evil())];
    });
    forged(|message| message.answers = vec![alias(HOST, HOST), address(HOST, evil())]);
}

#[test]
fn poison_beside_the_only_alias_a_name_can_have() {
    for targets in [["a.org", "evil.org"], ["evil.org", "a.org"]] {
        forged(|message| {
            message.answers = targets.map(|target| alias(HOST, target)).to_vec();
            message.answers.push(address("evil.org", evil()));
        });
    }
    // Nor has a name addresses beside its alias.
    forged(|message| message.answers.push(alias(HOST, "a.org")));
}

#[test]
fn poison_with_names_that_lead_astray() {
    for owner in [&b"\xc0\x0b"[..], b"\xc0\x2e", b"\xff\xff", b"\x41w\0", b"\x03www\xc0", b""] {
        forged(|message| message.answers[0].owner = owner.to_vec());
    }
}

#[test]
fn poison_that_breaks_off_or_does_not_add_up() {
    forged(|message| message.answers[0].data.push(1));
    forged(|message| message.answers[0].data.truncate(3));
    // A sound record before a broken one does not count either.
    forged(|message| message.answers.push(Record { data: vec![1], ..address(HOST, good()) }));
    let mut world = world();
    let (port, id) = world.asks(5000, 7, A);
    let bytes = Message::answer(id, evil()).bytes();
    world.send(UPLINK, &told((resolver(), 53), port, &bytes[..bytes.len() - 1])).emitted(WORK);
    assert!(!world.reaches(evil()));
}

#[test]
fn poison_of_another_class_or_family() {
    forged(|message| message.answers[0].class = 3);
    forged(|message| message.answers[0] = address(HOST, ip("2001:db8::66")));
}

/// An answer of the resolver itself says that the name is at `addr`, too: as if it did not.
fn never_at(addr: IpAddr) {
    let rules_after = |told: &[IpAddr]| {
        let mut world = world();
        let (port, id) = world.asks(5000, 7, A);
        let answers = told.iter().map(|addr| address(HOST, *addr)).collect();
        world.is_told(port, &Message { answers, ..Message::answer(id, addr) }).emitted(WORK);
        assert!(world.reaches(good()), "what stands beside it counts");
        world.firewall.own_rules().clone()
    };
    assert_eq!(rules_after(&[addr, good()]), rules_after(&[good()]), "{addr}");
    assert_ne!(rules_after(&[evil(), good()]), rules_after(&[good()]));
}

#[test]
fn poison_that_leads_to_the_firewall_or_to_clients() {
    for addr in [us(), work(), personal()] {
        never_at(addr);
    }
}

#[test]
fn poison_that_leads_to_where_nothing_is_routed() {
    for addr in ["127.0.0.1", "169.254.1.1", "224.0.0.251", "0.0.0.0", "255.255.255.255"] {
        never_at(ip(addr));
    }
}

#[test]
fn poison_that_leads_into_qubes() {
    for addr in ["10.137.200.1", "10.138.7.7", "10.139.1.1", "10.139.1.2"] {
        never_at(ip(addr));
    }
}

#[test]
fn poison_of_another_client() {
    let mut world = world();
    let (port, id) = world.asks(5000, 7, A);
    world.is_told(port, &Message::answer(id, evil())).emitted(WORK);
    assert!(world.reaches(evil()), "its own rules, its own affair");
    assert!(!world.personal_reaches(evil()), "nobody else's");
}

#[test]
fn poison_of_a_resolver_that_nobody_is_told_to_ask() {
    let mut world = world();
    let stranger = ip("8.8.8.8");
    world.firewall.set_policy(crate::world::config("accept udp 53\nqubes").policy);
    let query = Message::query(7, HOST, A).bytes();
    let query = from_work(Spec::udp((work(), 5000), (stranger, 53)).payload(&query));
    let sent = world.send(WORK, &query).emitted(UPLINK);
    let port = packet(&sent).tuple().unwrap().sport;
    let answer = Message::answer(packet(&sent).dns().unwrap().id, evil()).bytes();
    world.send(UPLINK, &told((stranger, 53), port, &answer)).emitted(WORK);
    assert!(!world.reaches(evil()) && learns(&mut world));
}

#[test]
fn poison_of_the_clients_own_making() {
    let mut world = world();
    let (port, id) = world.asks(5000, 7, A);
    let answer = Message::answer(id, evil()).bytes();
    let forged = Spec::udp((resolver(), 53), (us(), port)).payload(&answer);
    world.send(WORK, &from_work(forged)).silent(DropReason::SpoofedSource);
    let sent = Spec::udp((work(), 53), (us(), port)).payload(&answer);
    world.send(WORK, &from_work(sent)).answered(DropReason::ToFirewall, WORK);
    assert!(!world.reaches(evil()));
}

#[test]
fn poison_under_one_id_for_two_questions() {
    let mut world = world();
    let (port, id) = world.asks(5000, 7, A);
    let other = Message::query(7, "www.evil.org", A);
    assert_eq!(world.asks_of(resolver(), 5000, &other), (port, id), "as if it were sent again");
    world.is_told(port, &Message::answer(id, evil())).emitted(WORK);
    assert!(!world.reaches(evil()), "the last question is another");
}

#[test]
fn poison_of_names_that_no_rule_uses() {
    let mut world = world();
    let query = Message::query(7, "www.evil.org", A);
    let (port, id) = world.asks_of(resolver(), 5000, &query);
    let mut answer = Message { id, flags: 0x8180, ..query };
    answer.answers = vec![address("www.evil.org", evil()), address(HOST, evil())];
    world.is_told(port, &answer).emitted(WORK);
    assert!(!world.reaches(evil()));
}

#[test]
fn poison_in_fragments() {
    let mut world = world();
    let (port, id) = world.asks(5000, 7, A);
    let whole = told((resolver(), 53), port, &Message::answer(id, evil()).bytes());
    for fragment in crate::fragments::cut(&whole, 1, &[24]) {
        world.send_unsound(UPLINK, &fragment);
    }
    assert!(!world.reaches(evil()) && learns(&mut world));
}

#[test]
fn poison_with_a_wrong_checksum() {
    let mut world = world();
    let (port, id) = world.asks(5000, 7, A);
    let mut frame = told((resolver(), 53), port, &Message::answer(id, evil()).bytes());
    *frame.last_mut().unwrap() ^= 1;
    world.send_unsound(UPLINK, &frame).emitted(WORK);
    let wrong = ip("203.0.113.67");
    assert!(!world.reaches(wrong) && !world.reaches(evil()) && learns(&mut world));
}

#[test]
fn poison_over_tcp() {
    let mut world = world();
    world.firewall.set_policy(crate::world::config("accept tcp 53\naccept udp 53\nqubes").policy);
    let syn = from_work(Spec::tcp((work(), 5000), (resolver(), 53), TcpFlags::SYN));
    let port = packet(&world.send(WORK, &syn).emitted(UPLINK)).tuple().unwrap().sport;
    let flags = TcpFlags::SYN.with(TcpFlags::ACK);
    let kind = crate::common::Kind::Tcp { sport: 53, dport: port, flags, seq: 1, ack: 1001 };
    let message = Message::answer(7, evil()).bytes();
    let spec = Spec::new(resolver(), us(), kind).payload(&message);
    world.send(UPLINK, &from_world(spec)).emitted(WORK);
    assert!(!world.reaches(evil()) && learns(&mut world));
}

#[test]
fn poison_by_many_queries_at_once() {
    let mut world = world();
    // Each query that waits is one more chance for who guesses; only the last few are listened to.
    let asked: Vec<_> = (0..100).map(|n| world.asks(5000 + n, n, A)).collect();
    let believed = asked.iter().enumerate().filter(|(n, (port, id))| {
        let addr = IpAddr::from([203, 0, 113, *n as u8 + 1]);
        world.is_told(*port, &Message::answer(*id, addr)).emitted(WORK);
        world.reaches(addr)
    });
    assert_eq!(believed.count(), 8);
}
