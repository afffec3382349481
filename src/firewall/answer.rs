//! What the firewall says in its own name.
//!
//! In: the packet that is answered. Out: a frame to where it came from, if the rate allows. Never: an
//! answer that decides anything: a frame is dropped for its reason, answered or not.

use super::{Event, Firewall, Reach};
use core::net::IpAddr;
use rules::RejectKind;
use wire::reply;
use wire::{IcmpErrorKind, Instant, Mac, Outbox, Packet, Port, REPLY_MAX, Transport, Uplink};

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
        let own = |uplink| self.ways.own(uplink, packet.src);
        let Some(from) = Uplink::ALL.into_iter().find_map(own) else { return };
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

    /// Asks for the next hops on all uplinks when it is time to.
    pub(super) fn ask_for_next_hops(&mut self, now: Instant, out: &mut Outbox<'_>) {
        while let Some((uplink, target)) = self.ways.ask(now) {
            let Some(reach) = self.links.uplink(uplink) else { continue };
            let us = self.ways.own(uplink, target);
            self.answer(now, reach.port, out, |place| match (us?, target) {
                (IpAddr::V4(us), IpAddr::V4(target)) => {
                    reply::arp_request(reach.mac, us, target, place)
                }
                (IpAddr::V6(us), IpAddr::V6(target)) => {
                    reply::neighbour_solicit(reach.mac, us, target, place)
                }
                _ => None,
            });
        }
    }

    /// Somebody on `uplink` says that `ip` is at `mac`.
    pub(super) fn told(&mut self, now: Instant, uplink: Uplink, ip: IpAddr, mac: Mac) {
        if self.ways.tell(now, uplink, ip, mac) {
            self.journal.push(now, Event::NextHop { uplink, mac });
        }
    }
}
