//! The short way of a frame: what is like others that have passed goes where they went.
//!
//! In: a frame of the plain kind, and its flow. Out: the way it leaves. Never: a frame that the long
//! way would not send on in the same way, which is why whatever is not plain, or has no flow, or is
//! the first of its flow since anything changed, goes there.

use super::{Firewall, Seen, Side};
use nat::Direction;
use wire::{Emit, End, Frame, Instant, Mac, Onward, Outbox};

impl Firewall {
    /// Decides a frame, if it can go the short way. Otherwise nothing has happened.
    #[inline(always)]
    pub(super) fn short_way(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        seen: &Seen,
        out: &mut Outbox<'_>,
    ) -> Option<Emit> {
        let (plain, flow) = (seen.plain.as_ref()?, seen.flow?);
        let [dst, src] = plain.macs(frame.head)?;
        if src.is_group() {
            return None;
        }
        let (to, direction, onward) = match seen.side? {
            Side::Client(from) => {
                let renamed = self.nat.renamed(flow, Direction::Out, self.epochs.last())?;
                if dst != Mac::BACKEND || renamed.client != from.port {
                    return None;
                }
                let uplink = self.links.uplink()?;
                let eth_dst = self.hop_to(plain.key.dst.ip(plain.key.kind.is_ipv6()));
                let (eth_src, end) = (uplink.mac, End::Source);
                let (addr, port) = (renamed.addr, renamed.port);
                (uplink, Direction::Out, Onward { eth_dst, eth_src, end, addr, port })
            }
            Side::Uplink(uplink) => {
                let renamed = self.nat.renamed(flow, Direction::In, self.epochs.last())?;
                if dst != uplink.mac {
                    return None;
                }
                let client = self.links.client(renamed.client)?;
                let (eth_dst, eth_src, end) = (client.mac, Mac::BACKEND, End::Destination);
                let (addr, port) = (renamed.addr, renamed.port);
                (client, Direction::In, Onward { eth_dst, eth_src, end, addr, port })
            }
        };
        if plain.wire_len(frame.offload) > u32::from(to.mtu) {
            return None;
        }
        let segment = plain.tcp(frame.head);
        let place = out.head()?;
        if !self.nat.follow_on(now, flow, direction, segment.as_ref()) {
            return None;
        }
        let head = plain.write(frame, &onward, place)?;
        let (skip, end, offload) = (head.into(), plain.end(), frame.offload);
        Some(Emit { to: to.port, head, skip, end, offload })
    }
}
