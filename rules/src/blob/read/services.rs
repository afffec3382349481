//! Reads what a policy says beside its rules.
#![deny(clippy::arithmetic_side_effects)]

use super::{Reader, Result};
use crate::{
    AddrSet, Balance, Forward, OneToOne, Ported, Route, Services, Source, Syslog, Timeout, Uplink,
};
use alloc::sync::Arc;

pub(super) fn read(r: &mut Reader<'_>, sets: &[Arc<AddrSet>]) -> Result<Services> {
    let mut services = Services {
        forwards: r.list(13, |r| r.forward(sets))?,
        one_to_one: r.list(10, |r| r.pair())?,
        sources: r.list(12, Reader::source)?,
        hairpin: r.bool()?,
        routes: r.list(7, Reader::route)?,
        syslog: r.option(Reader::syslog)?,
        timeouts: r.list(5, |r| Ok((r.timeout()?, r.u32()?)))?,
        flows_per_client: r.option(Reader::u32)?,
    };
    if !r.rest.is_empty() {
        for uplink in uplinks(&mut services) {
            *uplink = r.uplink()?;
        }
    }
    Ok(services)
}

/// The uplink of each forward, pair, source and route.
fn uplinks(services: &mut Services) -> impl Iterator<Item = &mut Uplink> {
    let forwards = services.forwards.iter_mut().map(|forward| &mut forward.uplink);
    let pairs = services.one_to_one.iter_mut().map(|pair| &mut pair.uplink);
    let sources = services.sources.iter_mut().map(|source| &mut source.uplink);
    let routes = services.routes.iter_mut().map(|route| &mut route.uplink);
    forwards.chain(pairs).chain(sources).chain(routes)
}

impl Reader<'_> {
    fn ported(&mut self) -> Result<Ported> {
        match self.u8()? {
            0 => Ok(Ported::Tcp),
            1 => Ok(Ported::Udp),
            _ => Err(self.wrong()),
        }
    }

    fn forward(&mut self, sets: &[Arc<AddrSet>]) -> Result<Forward> {
        Ok(Forward {
            uplink: Uplink::FIRST,
            proto: self.ported()?,
            at: self.option(Self::addr)?,
            port: self.u16()?,
            from: self.set(sets)?,
            to: self.list(7, |r| Ok((r.addr()?, r.u16()?)))?,
            balance: match self.u8()? {
                0 => Balance::RoundRobin,
                1 => Balance::Hash,
                _ => return Err(self.wrong()),
            },
        })
    }

    fn pair(&mut self) -> Result<OneToOne> {
        Ok(OneToOne { uplink: Uplink::FIRST, inside: self.addr()?, external: self.addr()? })
    }

    fn source(&mut self) -> Result<Source> {
        Ok(Source {
            uplink: Uplink::FIRST,
            inside: self.addr()?,
            socket: self.option(|r| Ok((r.ported()?, r.u16()?)))?,
            external: self.addr()?,
            port: self.option(Self::u16)?,
        })
    }

    fn route(&mut self) -> Result<Route> {
        let (net, prefix) = (self.addr()?, self.u8()?);
        Ok(Route { net, prefix, uplink: Uplink::FIRST, via: self.addr_or_none()? })
    }

    fn syslog(&mut self) -> Result<Syslog> {
        Ok(Syslog {
            to: self.addr()?,
            port: self.u16()?,
            accepted: self.bool()?,
            refused: self.bool()?,
        })
    }

    fn timeout(&mut self) -> Result<Timeout> {
        let number = usize::from(self.u8()?);
        Timeout::ALL.get(number).copied().ok_or(self.wrong())
    }
}
