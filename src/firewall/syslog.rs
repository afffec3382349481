//! The log, sent to whoever the policy names (RFC 5424 over UDP, RFC 5426).
//!
//! In: what is worth a line. Out: one datagram for each, from our own address on the uplink it leaves by. Never: a
//! wait, or more lines than the receiver is to get in a second: the rest is counted, and told.

use super::limit::Bucket;
use super::log::Line;
use super::{Event, Firewall, Log};
use alloc::collections::VecDeque;
use core::fmt::{self, Write as _};
use core::net::IpAddr;
use rules::{Policy, Severity};
use wire::reply::{Link, datagram};
use wire::{DropReason, Instant, Outbox, Port};

/// Most lines that wait to be sent.
const WAITING: usize = 128;

/// Most lines sent in one turn, so that answers find room beside them.
const AT_ONCE: usize = 16;

/// Bytes of a line; no IPv4 network may refuse a packet with as many (RFC 5426 section 3.2).
const LINE_MAX: usize = 480;

/// Local use 0 (RFC 5424 table 1), in the place of the facility.
const FACILITY: u8 = 16 << 3;

/// Where it is sent from: below the ports that flows have.
const SOURCE_PORT: u16 = 514;

/// The lines for the receiver, if there is one.
#[derive(Debug)]
pub(super) struct Syslog {
    to: Option<rules::Syslog>,
    lines: VecDeque<Log>,
    lost: u64,
    rate: Bucket,
}

impl Syslog {
    pub(super) fn new(now: Instant, to: Option<rules::Syslog>) -> Self {
        let lines = VecDeque::with_capacity(if to.is_some() { WAITING } else { 0 });
        Self { to, lines, lost: 0, rate: Bucket::syslog(now) }
    }

    /// Notes what became of a flow, if the receiver wants to know: `asked` says whether a rule does.
    pub(super) fn note(&mut self, at: Instant, event: Event, refused: bool, asked: bool) {
        let Some(to) = self.to else { return };
        if !(asked || if refused { to.refused } else { to.accepted }) {
            return;
        }
        if self.lines.len() < WAITING && self.rate.take(at) {
            self.lines.push_back(Log { at, event });
        } else {
            self.lost = self.lost.saturating_add(1);
        }
    }

    fn next(&mut self, now: Instant) -> Option<Log> {
        let line = self.lines.pop_front();
        line.or_else(|| {
            let lost = core::mem::take(&mut self.lost);
            (lost > 0).then_some(Log { at: now, event: Event::Lost(lost) })
        })
    }
}

impl Firewall {
    /// Where lines that wait go, and from which address of ours.
    fn syslog_way(&self) -> Option<(rules::Syslog, Port, Link, IpAddr)> {
        // Mostly there are none.
        (!self.syslog.lines.is_empty()).then_some(())?;
        let to = self.syslog.to?;
        let uplink = self.ways.to(to.to);
        let link = Link { dst: self.ways.hop(uplink, to.to), src: self.links.uplink(uplink)?.mac };
        Some((to, self.links.uplink(uplink)?.port, link, self.ways.own(uplink, to.to)?))
    }

    /// Sends lines that wait, as far as there is room; returns whether more can be sent. Without an
    /// uplink, or an address of the receiver's family, they wait.
    pub(super) fn send_syslog(&mut self, now: Instant, out: &mut Outbox<'_>) -> bool {
        let Some((to, port, link, us)) = self.syslog_way() else { return false };
        for _ in 0..AT_ONCE {
            let Some(log) = self.syslog.next(now) else { return false };
            let policy = self.policy.as_ref().map_or("", Policy::name);
            let text = Text::of(us, Line { log, policy });
            let ends = ((us, SOURCE_PORT), (to.to, to.port));
            let write = |place: &mut _| datagram(link, ends.0, ends.1, text.bytes(), place);
            if out.reply(port, write).is_err() {
                self.syslog.lines.push_front(log);
                return true;
            }
        }
        !self.syslog.lines.is_empty()
    }
}

/// How much an event matters to nobody in particular.
fn severity(event: &Event) -> Severity {
    match event {
        Event::Flow { severity: Some(severity), .. } => *severity,
        Event::Flow { refused: Some(DropReason::RuleDrop | DropReason::RuleReject), .. } => {
            Severity::Notice
        }
        Event::Flow { refused: Some(_), .. }
        | Event::Lost(_)
        | Event::HostsLeftOut { .. }
        | Event::NobodyToAsk => Severity::Warning,
        Event::Dropped { .. } => Severity::Notice,
        _ => Severity::Info,
    }
}

/// A line as it is sent, cut off where it is too long.
struct Text {
    bytes: [u8; LINE_MAX],
    len: usize,
}

impl Text {
    /// RFC 5424 section 6: we have no clock, no process and no kinds of messages, which `-` says.
    fn of(us: IpAddr, line: Line<'_>) -> Self {
        let mut text = Self { bytes: [0; LINE_MAX], len: 0 };
        let priority = FACILITY | severity(&line.log.event).number();
        // What does not fit is left out.
        let _ = write!(text, "<{priority}>1 - {us} tidegate - - - {line}");
        text
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..).unwrap_or(&mut []);
        let fits = piece.len().min(room.len());
        if let (Some(place), Some(part)) = (room.get_mut(..fits), piece.as_bytes().get(..fits)) {
            place.copy_from_slice(part);
        }
        self.len = self.len.saturating_add(fits);
        if fits == piece.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
