//! Builds the common form, and refuses what no firewall could obey or no author can have meant.

use crate::ast::{Block, File, Pair, Redirect, Rule};
use crate::diagnostic::Report;
use crate::names::Names;
use crate::{Source, Span};
use rules::{
    Action, AddrSet, DnsRedirect, Family, Parts, Policy, PortSet, RejectKind, Then, Vm, What, Zone,
};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The policy in `file`, if nothing is wrong with it.
pub(crate) fn lower(
    source: &Source,
    file: &File<'_>,
    names: &Names<'_>,
    report: &mut Report,
) -> Option<Policy> {
    let mut lower =
        Lower { source, names, sets: HashMap::new(), directions: HashMap::new(), report };
    let blocks = lower.blocks(&file.blocks);
    let masquerade = lower.masquerade(&file.nats);
    lower.accepted_is_translated(&blocks, &masquerade);
    let redirect_dns = lower.redirect(&file.redirects);
    let vm = |vm: &crate::ast::Decl<'_, crate::ast::Address>| Vm {
        name: vm.name.text.to_owned(),
        addrs: vm.items.iter().map(|item| item.addr).collect(),
    };
    let vms = file.vms.iter().map(vm).collect();
    if !report.is_clean() {
        return None;
    }
    let name = source.short_name().to_owned();
    match Policy::new(Parts { name, vms, blocks, masquerade, redirect_dns }) {
        Ok(policy) => Some(policy),
        Err(why) => {
            let start = Span { start: 0, end: 0 };
            report.error("invalid", format!("this file makes no policy: {why}"), start, "");
            None
        }
    }
}

struct Lower<'s, 'r> {
    source: &'s Source,
    names: &'s Names<'s>,
    /// Rules that mean the same addresses share one set.
    sets: HashMap<AddrSet, Arc<AddrSet>>,
    /// Where each direction that has a block is named first.
    directions: HashMap<(Zone, Zone), Span>,
    report: &'r mut Report,
}

impl Lower<'_, '_> {
    fn blocks(&mut self, blocks: &[Block<'_>]) -> Vec<rules::Block> {
        let mut lowered = Vec::new();
        for block in blocks {
            let direction = self.direction(&block.pair);
            let rules = self.rules(block, direction);
            let Some((from, to)) = direction else { continue };
            let pair = block.pair.span();
            if let Some(&first) = self.directions.get(&(from, to)) {
                let message = "this direction has two blocks";
                self.report
                    .error("two-blocks", message, pair, "again")
                    .see(first, "first here")
                    .help("put the rules into one block, in the order they are to be asked");
                continue;
            }
            self.directions.insert((from, to), pair);
            lowered.push(rules::Block { from, to, rules });
        }
        lowered
    }

    fn direction(&mut self, pair: &Pair<'_>) -> Option<(Zone, Zone)> {
        let from = self.names.zone(pair.from, self.report);
        let to = self.names.zone(pair.to, self.report);
        if let (Some(Zone::Uplink), Some(Zone::Uplink)) = (from, to) {
            let message = "flows from the uplink to the uplink never cross the firewall";
            self.report.error("bad-direction", message, pair.span(), "");
            return None;
        }
        Some((from?, to?))
    }

    fn rules(&mut self, block: &Block<'_>, direction: Option<(Zone, Zone)>) -> Vec<rules::Rule> {
        let mut lowered: Vec<rules::Rule> = Vec::new();
        let mut last_word: Option<Span> = None;
        let mut unreachable = false;
        for rule in &block.rules {
            let new = self.rule(rule);
            if let Some(direction) = direction {
                self.check_direction_of(rule, direction);
            }
            if let (Some(span), false) = (last_word, unreachable) {
                unreachable = true;
                self.report
                    .error("unreachable", "this rule is never asked", rule.span, "")
                    .see(span, "because this one matches everything");
            }
            if last_word.is_none() && new.matches_all() {
                last_word = Some(rule.span);
            }
            lowered.push(new);
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

    fn rule(&mut self, rule: &Rule<'_>) -> rules::Rule {
        let kinds = self.names.kinds(&rule.kinds, self.report);
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
        let what = if rule.kinds.is_empty() { What::Any } else { kinds.what(&sport) };
        let reset = rule.verdict.then == Then::Do(Action::Reject(RejectKind::TcpReset));
        if reset && !what.is_tcp_only() {
            let message = "only tcp can be reset";
            let label = "this rule matches more than tcp";
            self.report
                .error("reset-without-tcp", message, rule.verdict.span, label)
                .help("say `reject tcp-reset tcp`, and what becomes of the rest in another rule");
        }
        rules::Rule {
            line: self.source.place(rule.span.start).line,
            src: self.set(rule.from.as_deref()),
            dst: self.set(rule.to.as_deref()),
            what,
            then: rule.verdict.then,
            log: rule.log,
        }
    }

    fn set(&mut self, list: Option<&[crate::ast::Addresses<'_>]>) -> Arc<AddrSet> {
        let set = list.map_or_else(AddrSet::any, |list| self.names.addresses(list, self.report));
        self.sets.entry(set).or_insert_with_key(|set| Arc::new(set.clone())).clone()
    }

    /// What the firewall does not do must not be written as if it did: whatever is not on its way
    /// from a client to the uplink is dropped without a word, and so must the block say.
    fn check_direction_of(&mut self, rule: &Rule<'_>, (from, to): (Zone, Zone)) {
        if (from, to) == (Zone::Clients, Zone::Uplink) {
            return;
        }
        let help = match (from, rule.verdict.then) {
            (_, Then::Do(Action::Drop)) => None,
            (Zone::Uplink, Then::Do(Action::Accept)) => {
                Some("answers need no rule: they pass with the flow they belong to")
            }
            _ => Some("`drop` is the only verdict for this direction"),
        };
        let (message, span, help) = match help {
            Some(help) => ("flows of this direction can only be dropped", rule.verdict.span, help),
            None if rule.log => {
                let help = "`log=` on the command line of the firewall shows all that is dropped";
                ("a rule about this direction cannot log", rule.span, help)
            }
            None => return,
        };
        self.report.error("not-supported", message, span, "").help(help);
    }

    fn masquerade(&mut self, nats: &[Pair<'_>]) -> Vec<(Zone, Zone)> {
        let mut lowered = Vec::new();
        for pair in nats {
            match self.direction(pair) {
                Some(direction @ (Zone::Clients, Zone::Uplink)) => {
                    if lowered.contains(&direction) {
                        self.report.error("twice", "this is said already", pair.span(), "");
                    } else {
                        lowered.push(direction);
                    }
                }
                Some(_) => {
                    let message = "only flows from clients to the uplink are translated";
                    self.report
                        .error("bad-direction", message, pair.span(), "")
                        .help("towards a client there is no translation");
                }
                None => {}
            }
        }
        lowered
    }

    /// An untranslated address of a client would never be answered: the uplink does not know it.
    fn accepted_is_translated(&mut self, blocks: &[rules::Block], masquerade: &[(Zone, Zone)]) {
        let direction = (Zone::Clients, Zone::Uplink);
        let opens =
            |rule: &rules::Rule| matches!(rule.then, Then::Do(Action::Accept) | Then::Qubes);
        let block = blocks.iter().find(|block| (block.from, block.to) == direction);
        if masquerade.contains(&direction) || !block.is_some_and(|b| b.rules.iter().any(opens)) {
            return;
        }
        let Some(&pair) = self.directions.get(&direction) else { return };
        let written = self.source.text().get(pair.start..pair.end).unwrap_or("clients -> uplink");
        let message = "these flows would leave under an address that nobody can answer to";
        self.report
            .error("not-translated", message, pair, "")
            .help(format!("add `nat {written} masquerade`"));
    }

    fn redirect(&mut self, redirects: &[Redirect]) -> Option<DnsRedirect> {
        let (first, more) = redirects.split_first()?;
        for other in more {
            self.report
                .error("twice", "the resolvers are redirected already", other.span, "again")
                .see(first.span, "first here");
        }
        let addrs = |list: &[crate::ast::Address]| list.iter().map(|a| a.addr).collect::<Vec<_>>();
        let lowered = DnsRedirect { virtuals: addrs(&first.virtuals), reals: addrs(&first.reals) };
        let mut seen: HashMap<IpAddr, Span> = HashMap::new();
        for asked in &first.virtuals {
            if let Some(before) = seen.insert(asked.addr, asked.span) {
                let message = format!("{} is redirected already", asked.addr);
                self.report.error("twice", message, asked.span, "again").see(before, "first here");
            } else if lowered.target(asked.addr).is_none() {
                let family = match Family::of(asked.addr) {
                    Family::V4 => "IPv4",
                    Family::V6 => "IPv6",
                };
                let message = format!("no {family} resolver can answer for {}", asked.addr);
                self.report
                    .error("no-resolver", message, asked.span, "")
                    .help(format!("add an {family} address behind `to`"));
            }
        }
        Some(lowered)
    }
}
