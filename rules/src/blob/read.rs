//! Reads the body of a blob. Every count is checked against the bytes that are left before anything
//! is allocated for it.
#![deny(clippy::arithmetic_side_effects)]

mod services;

use super::BlobError;
use crate::{
    Action, AddrSet, Block, Conditions, DnsRedirect, Family, HostName, HostSet, Note, Parts, Point,
    PortSet, RangeSet, Rate, RejectKind, Rule, Severity, State, Then, Traffic, Uplink, Vm, What,
    Zone,
};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

type Result<T> = core::result::Result<T, BlobError>;

/// The parts in `body`, which are yet to be checked.
pub(super) fn decode_body(body: &[u8]) -> Result<Parts> {
    let mut r = Reader { rest: body, len: body.len() };
    let name = r.text()?;
    let sets = r.list(8, |r| r.addr_set().map(Arc::new))?;
    let vms = r.list(6, Reader::vm)?;
    let blocks = r.list(6, |r| r.block(&sets))?;
    let masquerade = r.list(2, |r| Ok((r.zone()?, r.zone()?)))?;
    let redirect_dns = match r.u32()? {
        0 => None,
        1 => Some(DnsRedirect {
            virtuals: r.list(5, Reader::addr)?,
            reals: r.list(5, Reader::addr)?,
        }),
        _ => return Err(r.wrong()),
    };
    let services = services::read(&mut r, &sets)?;
    if !r.rest.is_empty() {
        return Err(r.wrong());
    }
    Ok(Parts { name, vms, blocks, masquerade, redirect_dns, services })
}

struct Reader<'a> {
    rest: &'a [u8],
    len: usize,
}

impl Reader<'_> {
    /// The error for what was read last.
    const fn wrong(&self) -> BlobError {
        BlobError::Field(self.len.saturating_sub(self.rest.len()))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(self.wrong())?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8> {
        self.take().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u128(&mut self) -> Result<u128> {
        self.take().map(u128::from_le_bytes)
    }

    fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.wrong()),
        }
    }

    /// A list of items that take at least `least` bytes each.
    fn list<T>(
        &mut self,
        least: usize,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let count = usize::try_from(self.u32()?).map_err(|_| self.wrong())?;
        if count > self.rest.len().checked_div(least).unwrap_or(0) {
            return Err(self.wrong());
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn text(&mut self) -> Result<String> {
        let len = usize::from(self.u8()?);
        let (text, rest) = self.rest.split_at_checked(len).ok_or(self.wrong())?;
        let text = core::str::from_utf8(text).map_err(|_| self.wrong())?;
        self.rest = rest;
        Ok(String::from(text))
    }

    fn zone(&mut self) -> Result<Zone> {
        match self.u8()? {
            0 => Ok(Zone::Uplink(Uplink::FIRST)),
            1 => Ok(Zone::Clients),
            other => Ok(Zone::Uplink(Uplink::new(other.wrapping_sub(1)).ok_or(self.wrong())?)),
        }
    }

    fn uplink(&mut self) -> Result<Uplink> {
        Uplink::new(self.u8()?).ok_or(self.wrong())
    }

    fn family(&mut self) -> Result<Family> {
        match self.u8()? {
            4 => Ok(Family::V4),
            6 => Ok(Family::V6),
            _ => Err(self.wrong()),
        }
    }

    fn addr(&mut self) -> Result<IpAddr> {
        self.addr_or_none()?.ok_or(self.wrong())
    }

    /// An address; in the place of its family a zero stands for none.
    fn addr_or_none(&mut self) -> Result<Option<IpAddr>> {
        if self.rest.first() == Some(&0) {
            return self.u8().map(|_| None);
        }
        Ok(Some(match self.family()? {
            Family::V4 => IpAddr::from(self.take::<4>()?),
            Family::V6 => IpAddr::from(self.take::<16>()?),
        }))
    }

    fn addr_set(&mut self) -> Result<AddrSet> {
        Ok(AddrSet { v4: self.ranges(8, Self::u32)?, v6: self.ranges(32, Self::u128)? })
    }

    /// Ranges that must already stand in their one form.
    fn ranges<T: Point>(
        &mut self,
        size: usize,
        mut value: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<RangeSet<T>> {
        let ranges = self.list(size, |r| Ok((value(r)?, value(r)?)))?;
        let set = RangeSet::from_ranges(ranges.iter().copied());
        if set.ranges() == ranges { Ok(set) } else { Err(self.wrong()) }
    }

    fn ports(&mut self) -> Result<PortSet> {
        self.ranges(4, Self::u16)
    }

    fn vm(&mut self) -> Result<Vm> {
        let (name, addrs) = (self.text()?, self.list(5, Self::addr)?);
        Ok(Vm { name, addrs, mac: self.option(Self::take::<6>)? })
    }

    fn block(&mut self, sets: &[Arc<AddrSet>]) -> Result<Block> {
        Ok(Block { from: self.zone()?, to: self.zone()?, rules: self.list(17, |r| r.rule(sets))? })
    }

    fn rule(&mut self, sets: &[Arc<AddrSet>]) -> Result<Rule> {
        let line = self.u32()?;
        let (src, dst) = (self.set(sets)?, self.set(sets)?);
        let then = self.then()?;
        let (limit, log) = (self.option(Self::rate)?, self.option(Self::note)?);
        let what = if self.bool()? { What::Of(self.list(1, Self::traffic)?) } else { What::Any };
        let (when, hosts) = match self.u8()? {
            more @ 0..4 => (more & 1 != 0, more & 2 != 0),
            _ => return Err(self.wrong()),
        };
        let when = if when { Some(Arc::new(self.conditions()?)) } else { None };
        let hosts = if hosts { Some(Arc::new(self.hosts()?)) } else { None };
        Ok(Rule { line, src, dst, hosts, what, when, then, limit, log })
    }

    fn conditions(&mut self) -> Result<Conditions> {
        let state = match self.u8()? {
            0 => None,
            1 => Some(State::New),
            2 => Some(State::Established),
            _ => return Err(self.wrong()),
        };
        let [ttl, dscp, flags] = [(); 3].map(|()| self.ranges(2, Self::u8));
        Ok(Conditions { state, ttl: ttl?, dscp: dscp?, flags: flags?, length: self.ports()? })
    }

    fn hosts(&mut self) -> Result<HostSet> {
        let names = self.list(2, |r| HostName::new(&r.text()?).map_err(|_| r.wrong()))?;
        HostSet::new(names).ok_or(self.wrong())
    }

    fn rate(&mut self) -> Result<Rate> {
        Ok(Rate { count: self.u32()?, secs: self.u32()?, burst: self.u32()? })
    }

    fn note(&mut self) -> Result<Note> {
        let severity = Severity::ALL.get(usize::from(self.u8()?)).copied().ok_or(self.wrong())?;
        Ok(Note { severity, limit: self.option(Self::rate)? })
    }

    fn option<T>(&mut self, some: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        if self.bool()? { some(self).map(Some) } else { Ok(None) }
    }

    fn set(&mut self, sets: &[Arc<AddrSet>]) -> Result<Arc<AddrSet>> {
        let number = usize::try_from(self.u32()?).ok();
        number.and_then(|n| sets.get(n)).cloned().ok_or(self.wrong())
    }

    fn then(&mut self) -> Result<Then> {
        Ok(Then::Do(match self.u8()? {
            0 => Action::Accept,
            1 => Action::Drop,
            2 => return Ok(Then::Qubes),
            3 => Action::Reject(RejectKind::TcpReset),
            4 => Action::Reject(RejectKind::AdminProhibited),
            5 => Action::Reject(RejectKind::HostUnreachable),
            6 => Action::Reject(RejectKind::NetUnreachable),
            7 => Action::Reject(RejectKind::PortUnreachable),
            _ => return Err(self.wrong()),
        }))
    }

    fn traffic(&mut self) -> Result<Traffic> {
        Ok(match self.u8()? {
            0 => Traffic::Tcp { sport: self.ports()?, dport: self.ports()? },
            1 => Traffic::Udp { sport: self.ports()?, dport: self.ports()? },
            2 => Traffic::Icmp,
            3 => {
                let (family, kind) = (self.family()?, self.u8()?);
                let (some, code) = (self.bool()?, self.u8()?);
                Traffic::IcmpType { family, kind, code: some.then_some(code) }
            }
            _ => return Err(self.wrong()),
        })
    }
}
