//! Writes what a policy says beside its rules. Which uplink each thing belongs to comes last, and only
//! if it is not the first everywhere.

use super::{Sets, Writer};
use crate::{Balance, Forward, Invalid, Ported, Route, Services, Source, Syslog, Uplink};

pub(super) fn write(w: &mut Writer, services: &Services, sets: &Sets<'_>) -> Result<(), Invalid> {
    w.list(&services.forwards, |w, forward| w.forward(forward, sets))?;
    w.list(&services.one_to_one, |w, pair| {
        w.addr(&pair.inside);
        w.addr(&pair.external);
        Ok(())
    })?;
    w.list(&services.sources, |w, source| {
        w.source(source);
        Ok(())
    })?;
    w.u8(u8::from(services.hairpin));
    w.list(&services.routes, |w, &Route { net, prefix, via, uplink: _ }| {
        w.addr(&net);
        w.u8(prefix);
        match via {
            Some(via) => w.addr(&via),
            None => w.u8(0),
        }
        Ok(())
    })?;
    w.option(services.syslog, Writer::syslog);
    w.list(&services.timeouts, |w, &(kind, secs)| {
        w.u8(kind as u8);
        w.u32(secs);
        Ok(())
    })?;
    w.option(services.flows_per_client, Writer::u32);
    let uplinks = || uplinks(services);
    if uplinks().any(|uplink| uplink != Uplink::FIRST) {
        uplinks().for_each(|uplink| w.u8(uplink.number()));
    }
    Ok(())
}

/// The uplink of each forward, pair, source and route.
fn uplinks(services: &Services) -> impl Iterator<Item = Uplink> {
    let forwards = services.forwards.iter().map(|forward| forward.uplink);
    let pairs = services.one_to_one.iter().map(|pair| pair.uplink);
    let sources = services.sources.iter().map(|source| source.uplink);
    let routes = services.routes.iter().map(|route| route.uplink);
    forwards.chain(pairs).chain(sources).chain(routes)
}

impl Writer {
    fn ported(&mut self, proto: Ported) {
        self.u8(match proto {
            Ported::Tcp => 0,
            Ported::Udp => 1,
        });
    }

    fn forward(&mut self, forward: &Forward, sets: &Sets<'_>) -> Result<(), Invalid> {
        self.ported(forward.proto);
        self.option(forward.at, |w, at| w.addr(&at));
        self.u16(forward.port);
        self.u32(sets.number(&forward.from)?);
        self.list(&forward.to, |w, (addr, port)| {
            w.addr(addr);
            w.u16(*port);
            Ok(())
        })?;
        self.u8(match forward.balance {
            Balance::RoundRobin => 0,
            Balance::Hash => 1,
        });
        Ok(())
    }

    fn source(&mut self, source: &Source) {
        self.addr(&source.inside);
        self.option(source.socket, |w, (proto, port)| {
            w.ported(proto);
            w.u16(port);
        });
        self.addr(&source.external);
        self.option(source.port, Self::u16);
    }

    fn syslog(&mut self, syslog: Syslog) {
        self.addr(&syslog.to);
        self.u16(syslog.port);
        self.u8(u8::from(syslog.accepted));
        self.u8(u8::from(syslog.refused));
    }
}
