//! What is worth a line on the console.
//!
//! In: events. Out: the same, in order, as far as they fit. Never: more than is bearable; what is left
//! out is counted, and the count takes the next free place.

use alloc::collections::VecDeque;
use core::fmt;
use core::net::IpAddr;
use rules::{OwnRule, Query, Severity, Zone};
use wire::{DropReason, Instant, Mac, Port, Uplink};

/// Most lines that wait to be fetched.
const WAITING: usize = 128;

/// Which packets are worth a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// None.
    None,
    /// Those refused, and those whose rule says `log`.
    #[default]
    Drops,
    /// Every new flow.
    All,
}

/// A line for the console: print it with [`fmt::Display`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// What is told.
    pub log: Log,
    /// Name of the policy whose lines are meant.
    pub policy: &'a str,
}

/// What happened when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// When it happened.
    pub at: Instant,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A new flow was decided.
    Flow {
        /// Where it came from.
        from: Port,
        /// Its first packet, as the rules saw it.
        query: Query,
        /// Why it was refused; `None` if it was accepted.
        refused: Option<DropReason>,
        /// Who said so.
        rule: Option<Author>,
        /// How much it matters to that rule, if it logs.
        severity: Option<Severity>,
    },
    /// A packet was dropped before any rule was asked.
    Dropped {
        /// Which side it came from.
        from: Zone,
        /// Its source.
        src: IpAddr,
        /// Its destination.
        dst: IpAddr,
        /// Why.
        reason: DropReason,
    },
    /// The next hop told where it is.
    NextHop {
        /// Of which uplink.
        uplink: Uplink,
        /// Its Ethernet address.
        mac: Mac,
    },
    /// So many names of the policy are not resolved for this client: there is no memory for them.
    HostsLeftOut {
        /// Its address.
        client: IpAddr,
        /// How many.
        hosts: usize,
    },
    /// The policy has host names, and no resolver is known that could be asked for them.
    NobodyToAsk,
    /// So many lines were left out.
    Lost(u64),
}

/// Which rule decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Author {
    /// Its line in the policy; `None` if no block of the policy is about this direction.
    pub line: Option<u32>,
    /// The rule of the VM that the policy handed over to.
    pub own: Option<OwnRule>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.log.event {
            Event::Flow { query, refused, rule, severity, .. } => {
                if let Some(severity) = severity.filter(|it| *it != Severity::default()) {
                    write!(f, "{severity}: ")?;
                }
                match refused {
                    None => f.write_str("accept")?,
                    Some(DropReason::RuleReject) => f.write_str("reject")?,
                    Some(_) => f.write_str("drop")?,
                }
                write!(f, " {} -> {}: {query}", query.from, query.to)?;
                match refused {
                    None | Some(DropReason::RuleDrop | DropReason::RuleReject) => {}
                    Some(reason) => write!(f, ", {reason}")?,
                }
                rule.map_or(Ok(()), |rule| rule.write(f, self.policy))
            }
            Event::Dropped { from, src, dst, reason } => {
                write!(f, "drop from {from}: {src} -> {dst}, {reason}")
            }
            Event::NextHop { uplink: Uplink::FIRST, mac } => {
                write!(f, "next hop on the uplink is at {mac}")
            }
            Event::NextHop { uplink, mac } => write!(f, "next hop on uplink {uplink} is at {mac}"),
            Event::HostsLeftOut { client, hosts } => {
                write!(f, "WARNING: no memory for {hosts} host names of {}", self.policy)?;
                write!(f, " for {client}: for it they stand for nothing")
            }
            Event::NobodyToAsk => {
                write!(f, "WARNING: host names of {} stand for nothing: no resolver", self.policy)?;
                f.write_str(" is known (`redirect dns`, or dnsto= on the command line)")
            }
            Event::Lost(lines) => write!(f, "{lines} lines left out"),
        }
    }
}

impl Author {
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>, policy: &str) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, ", {policy}:{line}")?,
            None => f.write_str(", no policy for this direction")?,
        }
        match self.own {
            Some(OwnRule::Number(n)) => write!(f, ", rule {n} of the VM"),
            Some(OwnRule::Fallback) => f.write_str(", default of the VM"),
            Some(OwnRule::Blocked) => f.write_str(", the VM has no valid rules"),
            None => Ok(()),
        }
    }
}

/// The lines that wait.
#[derive(Debug)]
pub(super) struct Journal {
    lines: VecDeque<Log>,
    lost: u64,
    last: Instant,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self { lines: VecDeque::with_capacity(WAITING), lost: 0, last: Instant::ZERO }
    }

    /// Adds a line, or counts it.
    pub(super) fn push(&mut self, at: Instant, event: Event) {
        if self.lines.len() < WAITING {
            self.lines.push_back(Log { at, event });
        } else {
            self.lose(at);
        }
    }

    /// Counts a line that is left out.
    pub(super) const fn lose(&mut self, at: Instant) {
        (self.lost, self.last) = (self.lost.saturating_add(1), at);
    }

    /// The oldest line; after the last one, how many were left out.
    pub(super) fn next(&mut self) -> Option<Log> {
        if let Some(line) = self.lines.pop_front() {
            return Some(line);
        }
        let lost = core::mem::take(&mut self.lost);
        (lost > 0).then_some(Log { at: self.last, event: Event::Lost(lost) })
    }
}
