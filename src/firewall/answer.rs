//! What the firewall says in its own name.
//!
//! In: the packet that is answered. Out: a frame to where it came from, if the rate allows. Never: an
//! answer that decides anything: a frame is dropped for its reason, answered or not.

use super::{Event, Firewall, Reach};
use core::net::IpAddr;
use rules::RejectKind;
use wire::reply;
use wire::{IcmpErrorKind, Instant, Mac, Outbox, Packet, Port, REPLY_MAX, Transport};

impl Firewall {
    /// Sends a frame of our own to `to`, if the rate allows and there is anything to write.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        to: Port,
        out: &mut Outbox<'_>,
        write: impl FnOnce(&mut [u8; REPLY_MAX]) -> Option<usize>,
    ) {
        let mut sent = None;
        let door = self.door(to);
        let room = out.reply(to, |place| {
            let len = write(place)?;
            let len = door.map_or(Some(len), |door| door.readdress(place, len))?;
            let allowed = self.links.may_answer(now, to);
            sent = Some(allowed);
            allowed.then_some(len)
        });
        if room.is_err() {
            sent = Some(false);
        }
        if let Some(sent) = sent {
            self.counters.answered(sent);
        }
    }

    /// Tells the client that sent `packet` what went wrong.
    pub(super) fn error_to_client(
        &mut self,
        now: Instant,
        client: Reach,
        packet: &Packet<'_>,
        kind: IcmpErrorKind,
        out: &mut Outbox<'_>,
    ) {
        let Some(from) = self.own_addr(packet.src) else { return };
        self.answer(now, client.port, out, |place| {
            reply::icmp_error(packet, kind, from, Mac::BACKEND, place)
        });
    }

    /// Tells the client that sent `packet` that it is refused.
    pub(super) fn reject(
        &mut self,
        now: Instant,
        client: Reach,
        packet: &Packet<'_>,
        kind: RejectKind,
        out: &mut Outbox<'_>,
    ) {
        let icmp = if packet.is_ipv6() { kind.icmp_v6() } else { kind.icmp_v4() };
        match (icmp, packet.transport) {
            (Some((_, code)), _) => {
                let kind = IcmpErrorKind::Unreachable { code };
                self.error_to_client(now, client, packet, kind, out);
            }
            (None, Transport::Tcp(tcp)) => self.answer(now, client.port, out, |place| {
                reply::tcp_reset(packet, &tcp, Mac::BACKEND, place)
            }),
            (None, _) => {}
        }
    }

    /// Asks for the next hop on the uplink when it is time to.
    pub(super) fn ask_for_next_hop(&mut self, now: Instant, out: &mut Outbox<'_>) {
        let Some(uplink) = self.links.uplink() else { return };
        if let (Some(IpAddr::V4(target)), Some(us)) = (self.hop4.ask(now), self.addr4) {
            self.answer(now, uplink.port, out, |place| {
                reply::arp_request(uplink.mac, us, target, place)
            });
        }
        if let (Some(IpAddr::V6(target)), Some(us)) = (self.hop6.ask(now), self.addr6) {
            self.answer(now, uplink.port, out, |place| {
                reply::neighbour_solicit(uplink.mac, us, target, place)
            });
        }
        while let Some(target) = self.routes.ask(now) {
            let us = self.own_addr(target);
            self.answer(now, uplink.port, out, |place| match (us?, target) {
                (IpAddr::V4(us), IpAddr::V4(target)) => {
                    reply::arp_request(uplink.mac, us, target, place)
                }
                (IpAddr::V6(us), IpAddr::V6(target)) => {
                    reply::neighbour_solicit(uplink.mac, us, target, place)
                }
                _ => None,
            });
        }
    }

    /// Somebody on the uplink says that `ip` is at `mac`.
    pub(super) fn told(&mut self, now: Instant, ip: IpAddr, mac: Mac) {
        let hop = if ip.is_ipv6() { &mut self.hop6 } else { &mut self.hop4 };
        let of_route = self.routes.tell(now, ip, mac);
        if hop.tell(now, ip, mac) || of_route {
            self.journal.push(now, Event::NextHop { mac });
        }
    }
}
