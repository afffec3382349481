//! Writes the body of a blob. Address sets come first, each once, and rules name them by number.

mod services;

use crate::{
    Action, AddrSet, Block, Conditions, DnsRedirect, Family, Invalid, Note, Parts, Point, RangeSet,
    Rate, RejectKind, Rule, Then, Traffic, Uplink, Vm, What, Zone,
};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

/// The body of the blob for `parts`.
pub(crate) fn encode_body(parts: &Parts) -> Result<Vec<u8>, Invalid> {
    let sets = Sets::of(parts)?;
    let mut w = Writer(Vec::new());
    w.text(&parts.name)?;
    w.list(&sets.in_order, |w, set| w.addr_set(set))?;
    w.list(&parts.vms, Writer::vm)?;
    w.list(&parts.blocks, |w, block| w.block(block, &sets))?;
    w.list(&parts.masquerade, |w, &(from, to)| {
        w.zone(from);
        w.zone(to);
        Ok(())
    })?;
    w.list(parts.redirect_dns.as_slice(), Writer::redirect)?;
    services::write(&mut w, &parts.services, &sets)?;
    Ok(w.0)
}

/// Each address set of a policy with its number: the order in which rules first name them.
struct Sets<'a> {
    numbers: BTreeMap<&'a AddrSet, u32>,
    in_order: Vec<&'a AddrSet>,
}

impl<'a> Sets<'a> {
    fn of(parts: &'a Parts) -> Result<Self, Invalid> {
        let mut sets = Self { numbers: BTreeMap::new(), in_order: Vec::new() };
        let rules = parts.blocks.iter().flat_map(|block| &block.rules);
        let forwards = parts.services.forwards.iter().map(|forward| &*forward.from);
        for set in rules.flat_map(|rule| [&*rule.src, &*rule.dst]).chain(forwards) {
            if !sets.numbers.contains_key(set) {
                let number = u32::try_from(sets.in_order.len()).map_err(|_| Invalid::TooMany)?;
                sets.numbers.insert(set, number);
                sets.in_order.push(set);
            }
        }
        Ok(sets)
    }

    fn number(&self, set: &AddrSet) -> Result<u32, Invalid> {
        self.numbers.get(set).copied().ok_or(Invalid::TooMany)
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn list<T>(
        &mut self,
        items: &[T],
        mut put: impl FnMut(&mut Self, &T) -> Result<(), Invalid>,
    ) -> Result<(), Invalid> {
        self.u32(u32::try_from(items.len()).map_err(|_| Invalid::TooMany)?);
        items.iter().try_for_each(|item| put(self, item))
    }

    fn text(&mut self, text: &str) -> Result<(), Invalid> {
        self.u8(u8::try_from(text.len()).map_err(|_| Invalid::Name)?);
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn zone(&mut self, zone: Zone) {
        self.u8(match zone {
            Zone::Uplink(Uplink::FIRST) => 0,
            Zone::Clients => 1,
            Zone::Uplink(uplink) => uplink.number().saturating_add(1),
        });
    }

    fn family(&mut self, family: Family) {
        self.u8(match family {
            Family::V4 => 4,
            Family::V6 => 6,
        });
    }

    fn addr(&mut self, addr: &IpAddr) {
        self.family(Family::of(*addr));
        match addr {
            IpAddr::V4(addr) => self.0.extend_from_slice(&addr.octets()),
            IpAddr::V6(addr) => self.0.extend_from_slice(&addr.octets()),
        }
    }

    fn addrs(&mut self, addrs: &[IpAddr]) -> Result<(), Invalid> {
        self.list(addrs, |w, addr| {
            w.addr(addr);
            Ok(())
        })
    }

    fn addr_set(&mut self, set: &AddrSet) -> Result<(), Invalid> {
        self.ranges(&set.v4, Self::u32)?;
        self.ranges(&set.v6, |w, value| w.0.extend_from_slice(&value.to_le_bytes()))
    }

    fn ranges<T: Copy + Point>(
        &mut self,
        set: &RangeSet<T>,
        put: impl Fn(&mut Self, T),
    ) -> Result<(), Invalid> {
        self.list(set.ranges(), |w, &(lo, hi)| {
            put(w, lo);
            put(w, hi);
            Ok(())
        })
    }

    fn vm(&mut self, vm: &Vm) -> Result<(), Invalid> {
        self.text(&vm.name)?;
        self.addrs(&vm.addrs)?;
        self.option(vm.mac, |w, mac| w.0.extend_from_slice(&mac));
        Ok(())
    }

    fn block(&mut self, block: &Block, sets: &Sets<'_>) -> Result<(), Invalid> {
        self.zone(block.from);
        self.zone(block.to);
        self.list(&block.rules, |w, rule| w.rule(rule, sets))
    }

    fn rule(&mut self, rule: &Rule, sets: &Sets<'_>) -> Result<(), Invalid> {
        self.u32(rule.line);
        self.u32(sets.number(&rule.src)?);
        self.u32(sets.number(&rule.dst)?);
        self.u8(match rule.then {
            Then::Do(Action::Accept) => 0,
            Then::Do(Action::Drop) => 1,
            Then::Qubes => 2,
            Then::Do(Action::Reject(RejectKind::TcpReset)) => 3,
            Then::Do(Action::Reject(RejectKind::AdminProhibited)) => 4,
            Then::Do(Action::Reject(RejectKind::HostUnreachable)) => 5,
            Then::Do(Action::Reject(RejectKind::NetUnreachable)) => 6,
            Then::Do(Action::Reject(RejectKind::PortUnreachable)) => 7,
        });
        self.option(rule.limit, Self::rate);
        self.option(rule.log, Self::note);
        match &rule.what {
            What::Any => self.u8(0),
            What::Of(kinds) => {
                self.u8(1);
                self.list(kinds, Self::traffic)?;
            }
        }
        let (when, hosts) = (u8::from(rule.when.is_some()), u8::from(rule.hosts.is_some()));
        self.u8(when | hosts << 1);
        if let Some(when) = &rule.when {
            self.conditions(when)?;
        }
        match &rule.hosts {
            Some(hosts) => self.list(hosts.names(), |w, name| w.text(name.as_str())),
            None => Ok(()),
        }
    }

    fn conditions(&mut self, when: &Conditions) -> Result<(), Invalid> {
        self.u8(when.state.map_or(0, |state| (state as u8).saturating_add(1)));
        for set in [&when.ttl, &when.dscp, &when.flags] {
            self.ranges(set, |w, value| w.u8(value))?;
        }
        self.ranges(&when.length, Self::u16)
    }

    fn rate(&mut self, rate: Rate) {
        [rate.count, rate.secs, rate.burst].into_iter().for_each(|n| self.u32(n));
    }

    fn note(&mut self, note: Note) {
        self.u8(note.severity.number());
        self.option(note.limit, Self::rate);
    }

    fn option<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            put(self, value);
        }
    }

    fn traffic(&mut self, traffic: &Traffic) -> Result<(), Invalid> {
        match traffic {
            Traffic::Tcp { sport, dport } => {
                self.u8(0);
                self.ranges(sport, Self::u16)?;
                self.ranges(dport, Self::u16)
            }
            Traffic::Udp { sport, dport } => {
                self.u8(1);
                self.ranges(sport, Self::u16)?;
                self.ranges(dport, Self::u16)
            }
            Traffic::Icmp => {
                self.u8(2);
                Ok(())
            }
            Traffic::IcmpType { family, kind, code } => {
                self.u8(3);
                self.family(*family);
                self.u8(*kind);
                self.u8(u8::from(code.is_some()));
                self.u8(code.unwrap_or(0));
                Ok(())
            }
        }
    }

    fn redirect(&mut self, redirect: &DnsRedirect) -> Result<(), Invalid> {
        self.addrs(&redirect.virtuals)?;
        self.addrs(&redirect.reals)
    }
}
