//! Blocks of rules: the most particular first, groups in the place where they are used.
//!
//! In: blocks as written, for zones, VMs and sets. Out: one list of rules for each pair of zones, in
//! which the rules of a block for some clients are about these clients alone, and stand before those
//! of blocks for more. Never: a list that does not end in a verdict for everything.

use super::{Destinations, Lower};
use crate::Span;
use crate::ast::{Block, Does, Group, Rule, When};
use crate::names::{Kinds, Side, misplaced};
use rules::{
    Action, AddrSet, Conditions, PortSet, RangeSet, RejectKind, Then, Traffic, What, Zone,
};
use std::collections::HashMap;
use std::sync::Arc;

/// Lowered blocks, and where each rule stands, by its id.
#[derive(Default)]
pub(super) struct Blocks {
    pub(super) blocks: Vec<rules::Block>,
    pub(super) spans: Vec<Option<Span>>,
}

/// A rule and where it stands.
pub(super) type Placed = (rules::Rule, Span);

/// Both ends of a block.
type Ends = (Side, Side);

impl Lower<'_, '_> {
    pub(super) fn blocks(&mut self) -> Blocks {
        let file = self.file;
        self.groups = file.groups.iter().map(|group| self.group(group)).collect();
        let mut seen: HashMap<(String, String), Span> = HashMap::new();
        let mut lowered: Vec<(Ends, Vec<Placed>)> = Vec::new();
        for block in &file.blocks {
            let ends = self.ends(block);
            let rules = self.rules(block, ends.as_ref());
            let Some(ends) = ends else { continue };
            let pair = block.pair.span();
            let key = (format!("{:?}", ends.0), format!("{:?}", ends.1));
            if let Some(&first) = seen.get(&key) {
                let message = "this direction has two blocks";
                self.report
                    .error("two-blocks", message, pair, "again")
                    .see(first, "first here")
                    .help("put the rules into one block, in the order they are to be asked");
                continue;
            }
            seen.insert(key, pair);
            let direction = (ends.0.zone(), ends.1.zone());
            self.directions.entry(direction).or_insert(pair);
            lowered.push((ends, rules));
        }
        // The more particular a block is, the earlier: both ends, then the beginning, then the end;
        // and a VM before a set that holds it.
        lowered.sort_by_key(|((from, to), _)| {
            let whole = |side: &Side| matches!(side, Side::Zone(_));
            (whole(from), whole(to), size(from), size(to))
        });
        gathered(lowered)
    }

    /// The rules of a group, which are looked at once and asked wherever it is used.
    fn group(&mut self, group: &Group<'_>) -> Vec<Placed> {
        let mut rules = Vec::new();
        for rule in &group.rules {
            if let Does::Then(then) = rule.verdict.does {
                rules.push((self.rule(rule, then), rule.span));
                continue;
            }
            let message = "a group has verdicts only";
            self.report
                .error("bad-group", message, rule.span, "")
                .help("write this rule where the group is used");
        }
        rules
    }

    fn ends(&mut self, block: &Block<'_>) -> Option<Ends> {
        let from = self.names.side(block.pair.from, self.report);
        let to = self.names.side(block.pair.to, self.report);
        let (from, to) = (from?, to?);
        match (from.zone(), to.zone()) {
            (Zone::Uplink(a), Zone::Uplink(b)) if a == b => {
                let message = "flows from the uplink to the uplink never cross the firewall";
                self.report.error("bad-direction", message, block.pair.span(), "");
                None
            }
            (Zone::Uplink(_), Zone::Uplink(_)) => {
                let message = "nothing passes from one uplink to another";
                self.report
                    .error("not-supported", message, block.pair.span(), "")
                    .help("flows begin or end at clients: the networks outside stay apart");
                None
            }
            _ => Some((from, to)),
        }
    }

    fn rules(&mut self, block: &Block<'_>, ends: Option<&Ends>) -> Vec<Placed> {
        let mut lowered: Vec<Placed> = Vec::new();
        let mut last_word: Option<Span> = None;
        let mut unreachable = false;
        for rule in &block.rules {
            if let (Some(span), false) = (last_word, unreachable) {
                unreachable = true;
                self.report
                    .error("unreachable", "this rule is never asked", rule.span, "")
                    .see(span, "because this one matches everything");
            }
            let direction = ends.map(|(from, to)| (from.zone(), to.zone()));
            for new in self.each(rule, direction) {
                self.check_hosts_of(&new, direction);
                if last_word.is_none() && new.0.matches_all() {
                    last_word = Some(rule.span);
                }
                match ends {
                    Some(ends) => lowered.extend(self.within(new, ends)),
                    None => lowered.push(new),
                }
            }
        }
        if last_word.is_none() && !block.broken {
            let message = "this block does not say what becomes of the rest";
            self.report
                .error("no-verdict", message, block.close, "a flow that no rule matches comes here")
                .see(block.pair.span(), "in the block for this direction")
                .help("end it with a rule without conditions: `drop`, `reject` or `accept`");
        }
        lowered
    }

    /// What a rule stands for: itself, those of a group, or those that let in what is forwarded.
    fn each(&mut self, rule: &Rule<'_>, direction: Option<(Zone, Zone)>) -> Vec<Placed> {
        if let Some(direction) = direction {
            self.check_direction_of(rule, direction);
        }
        match &rule.verdict.does {
            Does::Then(then) => vec![(self.rule(rule, *then), rule.span)],
            Does::Forward(forward) => {
                let from = self.set(rule.from.as_deref());
                let uplink = direction.and_then(|(outside, _)| outside.uplink());
                let uplink = uplink.unwrap_or_default();
                let targets = self.forward(forward, uplink, &from, rule.span);
                let when = self.when(&rule.when, true, rule.span);
                let make = |(dst, what)| {
                    let line = self.source.place(rule.span.start).line;
                    let (src, dst) = (from.clone(), Arc::new(dst));
                    let (limit, log, then) = (rule.limit, rule.log, Then::Do(Action::Accept));
                    let (when, hosts) = (when.clone(), None);
                    let new = rules::Rule { line, src, dst, hosts, what, when, then, limit, log };
                    (new, rule.span)
                };
                targets.into_iter().map(make).collect()
            }
            Does::Use(name) => {
                let Some(number) = self.names.group(*name, self.report) else { return Vec::new() };
                let group = self.groups.get(number).cloned().unwrap_or_default();
                let src = self.set(rule.from.as_deref());
                let to = self.places(rule.to.as_deref());
                if let Some(direction) = direction {
                    let file = self.file;
                    let written = file.groups.get(number).map_or(&[][..], |group| &group.rules);
                    let simple =
                        written.iter().filter(|rule| matches!(rule.verdict.does, Does::Then(_)));
                    simple.for_each(|inner| self.check_direction_of(inner, direction));
                }
                let asked = group.into_iter();
                let narrowed = asked.filter_map(|new| self.narrowed(new, &src, &to, rule.span));
                narrowed.collect()
            }
        }
    }

    /// The rule, about what goes from one end of a block to the other alone.
    fn within(&mut self, placed: Placed, (from, to): &Ends) -> Option<Placed> {
        let set = |side: &Side| match side {
            Side::Zone(_) => AddrSet::any(),
            Side::Clients(set) => set.clone(),
        };
        let span = placed.1;
        self.narrowed(placed, &set(from), &(Arc::new(set(to)), None), span)
    }

    fn narrowed(
        &mut self,
        (rule, span): Placed,
        from: &AddrSet,
        to: &Destinations,
        used: Span,
    ) -> Option<Placed> {
        let src = rule.src.intersection(from);
        let (dst, hosts) = if to.0.is_any() {
            ((*rule.dst).clone(), rule.hosts.clone())
        } else if rule.dst.is_any() {
            ((*to.0).clone(), to.1.clone())
        } else if rule.hosts.is_some() || to.1.is_some() {
            let message = "which addresses of these a host has is not known";
            let more = self
                .report
                .error("host-narrowed", message, span, "this rule says where to")
                .help("leave `to` out in one of the two places");
            if used != span {
                more.see(used, "and so does this");
            }
            return None;
        } else {
            (rule.dst.intersection(&to.0), None)
        };
        let none = |dst: &AddrSet, hosts: &Option<_>| dst.is_empty() && hosts.is_none();
        let nowhere = none(&dst, &hosts) && !none(&rule.dst, &rule.hosts);
        if (src.is_empty() && !rule.src.is_empty()) || nowhere {
            let message = "this rule is about none of the addresses its block is about";
            let more = self.report.error("outside-block", message, span, "");
            if used != span {
                more.see(used, "used here");
            }
            return None;
        }
        let (src, dst) = (self.shared(src), self.shared(dst));
        Some((rules::Rule { src, dst, hosts, ..rule }, span))
    }

    fn rule(&mut self, rule: &Rule<'_>, then: Then) -> rules::Rule {
        let kinds = self.names.kinds(&rule.kinds, self.report);
        let what = self.what(rule, kinds);
        if then == Then::Do(Action::Reject(RejectKind::TcpReset)) && !what.is_tcp_only() {
            let message = "only tcp can be reset";
            let label = "this rule matches more than tcp";
            self.report
                .error("reset-without-tcp", message, rule.verdict.span, label)
                .help("say `reject tcp-reset tcp`, and what becomes of the rest in another rule");
        }
        let (dst, hosts) = self.places(rule.to.as_deref());
        rules::Rule {
            line: self.source.place(rule.span.start).line,
            src: self.set(rule.from.as_deref()),
            dst,
            hosts,
            when: self.when(&rule.when, what.is_tcp_only(), rule.span),
            what,
            then,
            limit: rule.limit,
            log: rule.log,
        }
    }

    fn what(&mut self, rule: &Rule<'_>, kinds: Kinds) -> What {
        if let Some((_, span)) = &rule.sport
            && (rule.kinds.is_empty() || kinds.has_icmp())
        {
            self.report
                .error("sport-without-port", "only tcp and udp have ports", *span, "")
                .help("name them: `accept udp 123 sport 123`");
        }
        let sport = match &rule.sport {
            Some((ports, _)) => PortSet::from_ranges(ports.iter().copied()),
            None => PortSet::full(),
        };
        if rule.kinds.is_empty() { What::Any } else { kinds.what(&sport) }
    }

    /// What a rule demands of the rest of the header, if anything.
    fn when(&mut self, when: &When, is_tcp: bool, rule: Span) -> Option<Arc<Conditions>> {
        let (set, clear) = (when.flags, when.no_flags);
        if let Some((_, span)) = set.or(clear).filter(|_| !is_tcp) {
            self.report
                .error("flags-without-tcp", "only tcp has flags", span, "")
                .see(rule, "this rule matches more than tcp")
                .help("name it: `accept tcp 443 flags ece`");
        }
        let bits = |said: Option<(u8, Span)>| said.map_or(0, |(bits, _)| bits);
        if let (Some((_, span)), true) = (clear, bits(set) & bits(clear) != 0) {
            let message = "a flag cannot be set and not set";
            self.report.error("flags-without-tcp", message, span, "");
        }
        let none = Conditions::none();
        let few = |list: &Option<Vec<(u16, u16)>>, all: RangeSet<u8>| match list {
            None => all,
            Some(list) => RangeSet::from_ranges(list.iter().map(|&(lo, hi)| {
                let byte = |n: u16| u8::try_from(n).unwrap_or(u8::MAX);
                (byte(lo), byte(hi))
            })),
        };
        let conditions = Conditions {
            state: when.state,
            ttl: few(&when.ttl, none.ttl.clone()),
            dscp: few(&when.dscp, none.dscp.clone()),
            length: match &when.length {
                None => none.length.clone(),
                Some(list) => PortSet::from_ranges(list.iter().copied()),
            },
            flags: Conditions::flags(bits(set), bits(clear)),
        };
        (conditions != none).then(|| Arc::new(conditions))
    }

    /// Only in the world a name stands for something, and only clients ask for it.
    fn check_hosts_of(&mut self, (rule, span): &Placed, direction: Option<(Zone, Zone)>) {
        let outward = |(from, to)| from == Zone::Clients && to != Zone::Clients;
        if rule.hosts.is_some() && direction.is_some_and(|direction| !outward(direction)) {
            misplaced(self.report, *span);
        }
    }

    /// What the firewall does not do must not be written as if it did: it never says a word to the
    /// world about a flow it does not let in, and the world's addresses have no VM with rules.
    fn check_direction_of(&mut self, rule: &Rule<'_>, (from, to): (Zone, Zone)) {
        let inward = from != Zone::Clients && to == Zone::Clients;
        let (message, help) = match &rule.verdict.does {
            Does::Forward(_) if !inward => (
                "only flows from the uplink to clients are forwarded",
                "put it into `policy uplink -> clients`",
            ),
            Does::Then(Then::Qubes) if from != Zone::Clients || to == Zone::Clients => (
                "a VM's own rules are about flows to the uplink",
                "say what becomes of these flows: `accept` or `drop`",
            ),
            Does::Then(Then::Do(Action::Reject(_))) if inward => {
                ("the world is told nothing about flows that are not let in", "`drop` them")
            }
            _ => return,
        };
        self.report.error("not-supported", message, rule.verdict.span, "").help(help);
    }
}

/// How many addresses a side has, which orders sets that hold one another.
fn size(side: &Side) -> u128 {
    let Side::Clients(set) = side else { return u128::MAX };
    let v4 = set.v4.ranges().iter().map(|&(lo, hi)| u128::from(hi.abs_diff(lo)).saturating_add(1));
    let v6 = set.v6.ranges().iter().map(|&(lo, hi)| hi.abs_diff(lo).saturating_add(1));
    v4.chain(v6).fold(0, u128::saturating_add)
}

/// Puts all blocks of one pair of zones into one list, whose last rule is about everything.
fn gathered(lowered: Vec<(Ends, Vec<Placed>)>) -> Blocks {
    let mut directions: Vec<((Zone, Zone), Vec<Placed>)> = Vec::new();
    for ((from, to), rules) in lowered {
        let direction = (from.zone(), to.zone());
        match directions.iter_mut().find(|(known, _)| *known == direction) {
            Some((_, all)) => all.extend(rules),
            None => directions.push((direction, rules)),
        }
    }
    let mut blocks = Blocks::default();
    for ((from, to), mut placed) in directions {
        let ends = placed.last().is_some_and(|(rule, _)| rule.matches_all());
        let mut unwritten = None;
        if !ends {
            let any = Arc::new(AddrSet::any());
            unwritten = Some(rules::Rule {
                line: 0,
                src: any.clone(),
                dst: any,
                hosts: None,
                what: What::Any,
                when: None,
                then: Then::Do(Action::Drop),
                limit: None,
                log: None,
            });
        }
        blocks.spans.extend(placed.iter().map(|(_, span)| Some(*span)));
        blocks.spans.extend(unwritten.iter().map(|_| None));
        let rules = placed.drain(..).map(|(rule, _)| rule).chain(unwritten).collect();
        blocks.blocks.push(rules::Block { from, to, rules });
    }
    blocks
}

/// TCP or UDP to these ports.
pub(super) fn to_ports(proto: rules::Ported, dport: PortSet) -> What {
    let sport = PortSet::full();
    What::Of(vec![match proto {
        rules::Ported::Tcp => Traffic::Tcp { sport, dport },
        rules::Ported::Udp => Traffic::Udp { sport, dport },
    }])
}
