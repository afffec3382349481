//! The static translations as they are asked.
//!
//! In: checked lists. Out: where a packet from the world is to go, and under which name a client's
//! socket leaves. Never: a search that grows with the flows, or longer than the logarithm of a list
//! where it is made for each packet.

use crate::hash::{Endpoint, Hasher};
use crate::statics::{External, Forward, Inbound, Source, Statics};
use alloc::vec::Vec;
use core::net::IpAddr;
use wire::{Balance, OneToOne, Proto, Tuple, Uplink};

/// The lists as they are asked.
#[derive(Debug, Default)]
pub(crate) struct Book {
    statics: Statics,
    /// See [`Statics::externals`].
    externals: Vec<External>,
    /// How many flows each forward has opened.
    turns: Vec<usize>,
    /// Ports that are spoken for at some address, in order.
    claimed: Vec<(Proto, u16)>,
    /// Those of them that were taken out of the ports to be given away.
    kept: Vec<(Proto, u16)>,
}

impl Book {
    /// Takes checked lists.
    pub(crate) fn new(mut statics: Statics) -> Self {
        statics.forwards.sort_unstable_by_key(Forward::key);
        statics.one_to_one.sort_unstable_by_key(pair_key);
        statics.sources.sort_unstable_by_key(|s| source_key(s.uplink, s.inside, s.socket));
        let turns = alloc::vec![0; statics.forwards.len()];
        let mut claimed: Vec<_> = statics.claims().map(|(proto, _, port)| (proto, port)).collect();
        claimed.sort_unstable();
        claimed.dedup();
        let kept = Vec::with_capacity(claimed.len());
        let externals = statics.externals();
        Self { statics, externals, turns, claimed, kept }
    }

    pub(crate) const fn statics(&self) -> &Statics {
        &self.statics
    }

    /// All ports that are spoken for, each once.
    pub(crate) fn claimed(&self) -> impl Iterator<Item = (Proto, u16)> + use<> {
        self.claimed.clone().into_iter()
    }

    /// Notes that a port that is spoken for was taken out of those to be given away.
    pub(crate) fn keep(&mut self, proto: Proto, port: u16) {
        if self.kept.len() < self.kept.capacity() {
            self.kept.push((proto, port));
        }
    }

    /// The ports that can be given away again when this is no longer written.
    pub(crate) fn into_kept(self) -> Vec<(Proto, u16)> {
        self.kept
    }

    /// Whether a port is spoken for at any address. Ports are given away for all addresses at once.
    pub(crate) fn claims(&self, proto: Proto, port: u16) -> bool {
        self.claimed.binary_search(&(proto, port)).is_ok()
    }

    /// Under which name a client's socket leaves by `uplink`, if that is written; with a port if that
    /// is, too.
    pub(crate) fn source(
        &self,
        uplink: Uplink,
        proto: Proto,
        inside: Endpoint,
    ) -> Option<(IpAddr, Option<u16>)> {
        let Statics { one_to_one, sources, .. } = &self.statics;
        let of = |socket: Option<(Proto, u16)>| {
            let key = source_key(uplink, inside.addr, socket);
            let of = |s: &Source| source_key(s.uplink, s.inside, s.socket);
            let found = sources.binary_search_by_key(&key, of);
            found.ok().and_then(|at| sources.get(at))
        };
        if let Some(source) = of(Some((proto, inside.port))).or_else(|| of(None)) {
            return Some((source.external, source.port));
        }
        let at = one_to_one.binary_search_by_key(&(uplink, inside.addr), pair_key).ok()?;
        Some((one_to_one.get(at)?.external, Some(inside.port)))
    }

    /// Where a packet from the world goes that belongs to no flow. `is_there` says which clients are.
    pub(crate) fn inbound(
        &self,
        hasher: &Hasher,
        tuple: &Tuple,
        is_there: impl Fn(IpAddr) -> bool,
    ) -> Option<Inbound> {
        let Some((at, forward)) = self.forward(tuple) else {
            let inside = self.external(tuple.dst)?.inside?;
            let to = (inside, tuple.dport);
            return is_there(inside).then_some(Inbound { to, forwarded: false });
        };
        if !forward.lets_in(tuple.src) {
            return None;
        }
        let there = || forward.to.iter().filter(|(addr, _)| is_there(*addr));
        let to = match forward.balance {
            Balance::RoundRobin => {
                let turn = self.turns.get(at)?.checked_rem(there().count())?;
                there().nth(turn).copied()
            }
            Balance::Hash => {
                let weight = |(addr, port): &&(IpAddr, u16)| {
                    let target = Endpoint { addr: *addr, port: *port };
                    hasher.pair(tuple.src, target)
                };
                there().max_by_key(weight).copied()
            }
        }?;
        Some(Inbound { to, forwarded: true })
    }

    /// A flow was opened that way: it is the next target's turn.
    pub(crate) fn turn(&mut self, tuple: &Tuple) {
        let Some((at, _)) = self.forward(tuple) else { return };
        if let Some(turn) = self.turns.get_mut(at) {
            *turn = turn.wrapping_add(1);
        }
    }

    /// Whether a flow that the world opened by `uplink` with `tuple` to this client would be let in now
    /// by a forward (`Some(true)`), or is for the rules to decide (`Some(false)`).
    pub(crate) fn still(&self, uplink: Uplink, tuple: &Tuple, to: Endpoint) -> Option<bool> {
        let External { inside, .. } = self.external(tuple.dst).filter(|e| e.uplink == uplink)?;
        if let Some((_, forward)) = self.forward(tuple) {
            let leads = forward.to.contains(&(to.addr, to.port));
            return (leads && forward.lets_in(tuple.src)).then_some(true);
        }
        (inside == Some(to.addr)).then_some(false)
    }

    /// What is known of an external address.
    pub(crate) fn external(&self, addr: IpAddr) -> Option<External> {
        let at = self.externals.binary_search_by_key(&addr, |external| external.addr).ok()?;
        self.externals.get(at).copied()
    }

    fn forward(&self, tuple: &Tuple) -> Option<(usize, &Forward)> {
        let key = (tuple.proto, tuple.dst, tuple.dport);
        let forwards = &self.statics.forwards;
        let at = forwards.binary_search_by_key(&key, Forward::key).ok()?;
        forwards.get(at).map(|forward| (at, forward))
    }
}

const fn pair_key(pair: &OneToOne) -> (Uplink, IpAddr) {
    (pair.uplink, pair.inside)
}

type SourceKey = (Uplink, IpAddr, Option<(u8, u16)>);

fn source_key(uplink: Uplink, inside: IpAddr, socket: Option<(Proto, u16)>) -> SourceKey {
    (uplink, inside, socket.map(|(proto, port)| (proto.number(), port)))
}
