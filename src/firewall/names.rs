//! Names in rules, of clients' own VMs and of the policy: how the firewall asks for them, and learns from
//! what clients are told.
//!
//! In: queries and answers that pass, answers to our own queries, clients that come and go. Out: queries
//! of our own, and rules that know the addresses of their names before the packets that need them. Never:
//! a packet that waits, is changed or dropped because of a name, or an answer that is believed although it
//! was not asked for.

use super::is_martian;
use super::links::Links;
use super::ways::Ways;
use super::{Event, Firewall};
use core::net::IpAddr;
use nat::Nat;
use rules::HostName;
use wire::{
    DropReason, Instant, Outbox, Packet, Port, Proto, REPLY_MAX, Transport, Unparsed, Uplink,
    Verdict, reply,
};

/// The port of resolvers.
const DNS: u16 = 53;

/// Most queries of our own that are sent in one turn of the loop.
const ASKS_AT_ONCE: usize = 8;

/// The external port and the id that a query left with.
pub(super) type Left = (u16, u16);

/// What the table of names takes from the rest of the firewall.
pub(super) struct Rest<'a> {
    now: Instant,
    nat: &'a mut Nat,
    links: &'a Links,
    ways: &'a Ways,
}

impl names::Source for Rest<'_> {
    fn take_port(&mut self) -> Option<u16> {
        self.nat.take_port(Proto::Udp)
    }

    fn give_port_back(&mut self, port: u16) {
        self.nat.give_port_back(Proto::Udp, port);
    }

    fn draw(&mut self) -> u16 {
        self.nat.draw()
    }

    fn used(&mut self, client: IpAddr, addrs: &[IpAddr]) -> u64 {
        let owners = self.links.owners(client);
        owners.fold(0, |used, port| used | self.nat.talks_to(self.now, port, addrs))
    }

    fn is_usable(&mut self, addr: IpAddr) -> bool {
        !is_martian(addr)
            && !is_internal(addr)
            && self.ways.owner(addr).is_none()
            && self.nat.external_on(addr).is_none()
            && !self.links.is_a_clients(addr)
    }
}

/// Whether Qubes gives this address to its own VMs, or means its own resolvers by it.
const fn is_internal(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => matches!(addr.octets(), [10, 137..=139, ..]),
        IpAddr::V6(addr) => matches!(addr.segments(), [0xfd09, 0x24ef, 0x4179, ..]),
    }
}

impl Firewall {
    /// The table of names, and the rest of the firewall as it sees it.
    fn with_names(&mut self, now: Instant) -> (&mut names::Names, Rest<'_>) {
        let Self { names, nat, links, ways, .. } = self;
        (names, Rest { now, nat, links, ways })
    }

    /// The rules of the client with this address are others, or it came or went: nobody is asked for the
    /// sake of one that is not there.
    pub(super) fn take_names(&mut self, now: Instant, client: IpAddr) {
        let is_there = self.links.is_a_client(client);
        if !is_there {
            self.own.forget_hosts(client);
        }
        let Self { names, nat, links, ways, own, policy, hosts, .. } = self;
        let of_policy = policy.as_ref().filter(|_| is_there).map(|policy| policy.hosts_of(client));
        let (admitted, left_out) = hosts.admit(client, of_policy.unwrap_or_default());
        let own = own.hosts(client).filter(|_| is_there).map(HostName::as_str);
        let used = (own, admitted.into_iter().map(HostName::as_str));
        names.set_hosts(now, client, used, &mut Rest { now, nat, links, ways });
        // What was known of a name already is news to rules that did not use it.
        names.tell_again(client);
        self.obey_names();
        if left_out > 0 {
            self.journal.push(now, Event::HostsLeftOut { client, hosts: left_out });
        }
    }

    /// The resolvers that answer have changed, or may have.
    pub(super) fn take_resolvers(&mut self, now: Instant) {
        let of_policy = || self.policy.as_ref()?.parts().redirect_dns.as_ref();
        let dns = self.dns.as_ref().or_else(of_policy);
        let reals = dns.map(|dns| dns.reals.clone()).unwrap_or_default();
        let (names, mut rest) = self.with_names(now);
        names.set_resolvers(now, &reals, &mut rest);
        self.look_for_resolvers();
    }

    /// Nothing ran for so long.
    pub(super) fn names_paused(&mut self, now: Instant, silence: core::time::Duration) {
        let (names, mut rest) = self.with_names(now);
        names.paused(now, silence, &mut rest);
    }

    /// There is an uplink, perhaps another one.
    pub(super) fn ask_for_names_anew(&mut self, now: Instant) {
        let (names, mut rest) = self.with_names(now);
        names.ask_anew(now, &mut rest);
    }

    /// Asks for names that are due; says when to do so again.
    pub(super) fn ask_for_names(&mut self, now: Instant, out: &mut Outbox<'_>) -> Option<Instant> {
        let (names, mut rest) = self.with_names(now);
        names.tick(now, &mut rest);
        self.obey_names();
        if Uplink::ALL.into_iter().all(|uplink| self.links.uplink(uplink).is_none()) {
            return self.names.deadline();
        }
        for _ in 0..ASKS_AT_ONCE {
            let (names, mut rest) = self.with_names(now);
            let Some(ask) = names.next_ask(now, &mut rest) else {
                return self.names.deadline();
            };
            self.send_ask(&ask, out);
        }
        Some(now)
    }

    /// Sends a query. One for which there is no room counts as lost, and is sent again.
    fn send_ask(&mut self, ask: &names::Ask, out: &mut Outbox<'_>) {
        let by = self.ways.to(ask.resolver);
        let Some(uplink) = self.links.uplink(by) else { return };
        let Some(us) = self.ways.own(by, ask.resolver) else { return };
        let link = reply::Link { dst: self.ways.hop(by, ask.resolver), src: uplink.mac };
        let write = |place: &mut [u8; REPLY_MAX]| {
            reply::datagram(link, (us, ask.port), (ask.resolver, DNS), &ask.message, place)
        };
        let sent = out.reply(uplink.port, write).is_ok();
        self.counters.answered(sent);
    }

    /// Whether a packet of the world is to a port from which we asked a resolver, and from that one.
    pub(super) fn is_for_names(&self, by: Uplink, packet: &Packet<'_>) -> bool {
        match packet.transport {
            Transport::Udp(udp) => {
                udp.sport == DNS
                    && self.ways.own(by, packet.dst) == Some(packet.dst)
                    && self.ways.to(packet.src) == by
                    && self.names.waits_for(packet.src, udp.dport)
            }
            _ => false,
        }
    }

    /// Takes the answer to a query of our own, if that is what it is.
    pub(super) fn take_answer(&mut self, now: Instant, packet: &Packet<'_>) -> Verdict {
        let message = match whole_message(packet) {
            Ok(message) => message,
            Err(verdict) => return verdict,
        };
        let Transport::Udp(udp) = packet.transport else { return DropReason::Unsolicited.into() };
        let (names, mut rest) = self.with_names(now);
        let told = names.is_told(now, packet.src, udp.dport, message, &mut rest);
        self.obey_names();
        match told {
            Err(names::Unusable::OtherQuestion) => DropReason::Unsolicited.into(),
            Ok(_) | Err(_) => DropReason::Answered.into(),
        }
    }

    /// Has all of a query brought that a client sends to its resolver, if its rules use names.
    ///
    /// # Errors
    /// [`Verdict::NeedWhole`].
    pub(super) fn look_at_query(&self, from: Port, packet: &Packet<'_>) -> Result<(), Verdict> {
        if self.names.any(self.links.addrs_of(from)) { bring_whole(packet) } else { Ok(()) }
    }

    /// A client's query has left by this external port, under this id.
    pub(super) fn note_query(&mut self, now: Instant, from: Port, left: Left, packet: &Packet<'_>) {
        let addrs = self.links.addrs_of(from);
        if self.names.any(addrs) {
            let message = whole_message(packet).unwrap_or_default();
            self.names.client_asks(now, from, addrs, left, message);
        }
    }

    /// Has all of an answer brought that a client waits for because of a name in its rules.
    ///
    /// # Errors
    /// [`Verdict::NeedWhole`].
    pub(super) fn look_at_answer(
        &self,
        client: Port,
        left: Left,
        packet: &Packet<'_>,
    ) -> Result<(), Verdict> {
        if self.names.client_waits(client, left) { bring_whole(packet) } else { Ok(()) }
    }

    /// The answer to a client's query is about to be sent on to it: what it tells of names is in the
    /// rules by then.
    pub(super) fn learn(&mut self, now: Instant, client: Port, left: Left, packet: &Packet<'_>) {
        if !self.names.client_waits(client, left) {
            return;
        }
        let Ok(message) = whole_message(packet) else {
            return self.names.client_is_not_told(client, left);
        };
        let (names, mut rest) = self.with_names(now);
        let addrs = rest.links.addrs_of(client);
        // That nothing was learnt is nothing to the client.
        let _ = names.client_is_told(now, client, addrs, left, message, &mut rest);
        self.obey_names();
    }

    /// Puts the addresses of names that changed into the rules.
    fn obey_names(&mut self) {
        while let Some(change) = self.names.next_change() {
            let names::Change { client, host, addrs, whole } = change;
            let Ok(host) = host.parse() else { continue };
            let changed = self.hosts.take(client, &host, &addrs);
            if self.own.set_host(client, host, addrs, whole) | changed {
                self.ask_again_about(client);
            }
        }
    }
}

/// Has all of a packet brought if that is possible. One that is too long is not looked at.
fn bring_whole(packet: &Packet<'_>) -> Result<(), Verdict> {
    match packet.need_whole() {
        Err(Unparsed::NeedWhole) if packet.fragment.is_none() => Err(Verdict::NeedWhole),
        _ => Ok(()),
    }
}

/// The message in a datagram that is whole, no fragment, and what its sender sent.
///
/// # Errors
/// What to do with it instead.
fn whole_message<'a>(packet: &Packet<'a>) -> Result<&'a [u8], Verdict> {
    packet.trust_checksum()?;
    packet.need_whole()?;
    let Transport::Udp(udp) = packet.transport else { return Err(DropReason::BadHeader.into()) };
    let len = usize::try_from(udp.data).unwrap_or(usize::MAX);
    let message = packet.l4_bytes().get(8..).and_then(|payload| payload.get(..len));
    message.ok_or(DropReason::Truncated.into())
}
