//! The short way of a frame: what is like others that have passed goes where they went.
//!
//! In: a frame of the plain kind, and its flow. Out: the way it leaves. Never: a frame that the long
//! way would not send on in the same way, which is why whatever is not plain, or has no flow, or is
//! the first of its flow since anything changed, goes there.

use super::links::Links;
use super::ways::Ways;
use super::{Firewall, Reach, Seen, Side};
use core::net::IpAddr;
use nat::{Direction, FlowId, Second, Sender};
use wire::{Emit, End, Frame, Instant, Mac, Onward, Outbox, Port, Uplink};

/// What is the same for all frames of a batch, as long as none of them goes the long way.
#[derive(Clone, Copy)]
pub(super) struct Circumstances {
    now: Second,
    epoch: u32,
    /// The first uplink. What leaves by others costs a little more.
    uplink: Option<Reach>,
    /// The gateway of IPv4 on it, and of IPv6.
    gateways: [Mac; 2],
}

impl Firewall {
    pub(super) fn circumstances(&self, now: Instant) -> Circumstances {
        Circumstances {
            now: self.nat.moment(now),
            epoch: self.epochs.last(),
            uplink: self.links.uplink(Uplink::FIRST),
            gateways: [false, true].map(|v6| self.ways.gateway(Uplink::FIRST, v6)),
        }
    }

    /// From now on packets of a flow that are like this one may go the short way, unless `client` goes by
    /// other names than those it is looked up by.
    pub(super) fn shorten(&mut self, flow: FlowId, direction: Direction, client: Port) {
        if self.links.alias(client).is_none() {
            self.nat.shorten(flow, direction, self.epochs.last());
        }
    }

    /// Decides a frame, if it can go the short way. Otherwise nothing has happened.
    #[inline(always)]
    pub(super) fn short_way(
        &mut self,
        here: &Circumstances,
        frame: &Frame<'_>,
        seen: &Seen,
        out: &mut Outbox<'_>,
    ) -> Option<Emit> {
        let (plain, flow) = (seen.plain.as_ref()?, seen.flow?);
        let [dst, src] = plain.macs(frame.head)?;
        let (to, end, eth_dst, eth_src, cut) = match seen.side? {
            Side::Client(from) => {
                let cut = self.nat.shortcut(here.now, flow, Sender::Client, here.epoch)?;
                if dst != Mac::BACKEND || cut.client != from.port {
                    return None;
                }
                let v6 = plain.key.kind.is_ipv6();
                let [gateway4, gateway6] = here.gateways;
                let (uplink, hop) = match cut.uplink {
                    Uplink::FIRST if self.ways.has_no_routes() => {
                        (here.uplink?, if v6 { gateway6 } else { gateway4 })
                    }
                    by => other_way(&self.links, &self.ways, by, plain.key.dst.ip(v6))?,
                };
                (uplink, End::Source, hop, uplink.mac, cut)
            }
            Side::Uplink(by, uplink) => {
                let cut = self.nat.shortcut(here.now, flow, Sender::World(by), here.epoch)?;
                let client = self.links.client(cut.client)?;
                if dst != uplink.mac {
                    return None;
                }
                (client, End::Destination, client.mac, Mac::BACKEND, cut)
            }
        };
        if src.is_group() || plain.wire_len(frame.offload) > u32::from(to.mtu) {
            return None;
        }
        let place = out.head()?;
        let (addr, port) = (cut.addr, cut.port);
        if !cut.take(plain.tcp(frame.head).as_ref()) {
            return None;
        }
        let head = plain.write(frame, &Onward { eth_dst, eth_src, end, addr, port }, place)?;
        let (skip, end, offload) = (head.into(), plain.end(), frame.offload);
        Some(Emit { to: to.port, head, skip, end, offload })
    }
}

/// How packets leave that do not go to the gateway of the first uplink.
#[inline(never)] // What it needs would stand on the stack of all others.
fn other_way(links: &Links, ways: &Ways, by: Uplink, dst: IpAddr) -> Option<(Reach, Mac)> {
    Some((links.uplink(by)?, ways.hop(by, dst)))
}
