//! Which segments belong to a TCP connection, and what they do to it.
//!
//! In: segments of both sides. Out: whether each passes, and the state after it. Never: a change of
//! state by a segment that somebody could have guessed.
//!
//! The window check is that of van Rooij ("Real Stateful TCP Packet Filtering in IP Filter", 2000):
//! a middlebox knows less than the ends, so each bound is the loosest an end could have. RST follows
//! RFC 5961 section 3: only the exact number resets; one that is merely in the window passes, so
//! that its receiver can challenge it. SYN follows section 4 of the same.
#![deny(clippy::arithmetic_side_effects)]

use crate::state::{Event, Side, State};
use wire::{Tcp, TcpFlags};

/// An acknowledgement may be this much older than the newest byte it could acknowledge, even if the
/// window is smaller: it may have been overtaken.
const ACK_AGE: u32 = 66_000;

/// Largest shift of a window (RFC 7323 section 2.3).
const SCALE_MAX: u8 = 14;

/// One side's half of a connection, as far as its segments have told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Half {
    /// One past the highest sequence number it sent.
    end: u32,
    /// What it waits for: the highest number it acknowledged.
    acked: u32,
    /// The largest window it offered, in units of its scale.
    window: u16,
    /// Shift count of its windows; `UNSCALED` if it offered none.
    scale: u8,
    /// Whether it sent a SYN that did not count, which `Track::probe` remembers.
    probes: bool,
}

/// Shift count of a side that offered none. Such a side may not be offered one either.
const UNSCALED: u8 = u8::MAX;

impl Half {
    const NONE: Self = Self { end: 0, acked: 0, window: 0, scale: UNSCALED, probes: false };

    /// After a first segment. Its window is never scaled, and kept in units as if it were.
    fn of_syn(syn: &Tcp) -> Self {
        let scale = syn.window_scale.map_or(UNSCALED, |scale| scale.min(SCALE_MAX));
        let half = Self { end: segment_end(syn), scale, ..Self::NONE };
        let units = u32::from(syn.window).div_ceil(1_u32.checked_shl(half.shift()).unwrap_or(1));
        Self { window: u16::try_from(units).unwrap_or(u16::MAX), ..half }
    }

    const fn shift(self) -> u32 {
        if self.scale == UNSCALED { 0 } else { self.scale as u32 }
    }

    /// The largest window it offered, in bytes.
    fn window_bytes(self) -> u32 {
        u32::from(self.window).checked_shl(self.shift()).unwrap_or(u32::MAX).max(1)
    }

    fn unscale(&mut self) {
        self.window = u16::try_from(self.window_bytes()).unwrap_or(u16::MAX);
        self.scale = UNSCALED;
    }
}

/// What is remembered of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Track {
    opener: Half,
    other: Half,
    /// What acknowledges the opener's last SYN, and nothing else of it.
    probe: u32,
}

/// What becomes of a segment that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// It counts: this is the state after it.
    Counts(State),
    /// It may be right or wrong, which only its receiver can tell. Nothing changes by it.
    Unproven,
}

impl Track {
    /// Of the connection that this SYN opens; `None` if it is not one.
    pub(crate) fn open(syn: &Tcp) -> Option<Self> {
        (control(syn) == Some(Control::Syn)).then(|| Self {
            opener: Half::of_syn(syn),
            other: Half { acked: syn.seq, ..Half::NONE },
            probe: syn.seq.wrapping_add(1),
        })
    }

    /// Judges a segment. `None`: it fits nothing, and must not pass.
    pub(crate) fn pass(&mut self, state: State, side: Side, segment: &Tcp) -> Option<Passed> {
        match control(segment)? {
            Control::Syn => self.syn(state, side, segment),
            Control::SynAck => self.syn_ack(state, side, segment),
            Control::Rst => self.rst(state, side, segment),
            Control::Fin => self.data(state, side, segment, Event::Fin),
            Control::Ack => self.data(state, side, segment, Event::Ack),
        }
    }

    /// Whether a quoted segment of `side` is one that could still be under way: ICMP errors about
    /// any other are forged, or too late to matter (RFC 5927 section 4.1).
    pub(crate) const fn in_flight(&self, side: Side, seq: u32) -> bool {
        let (from, to) = self.halves(side);
        from.end.wrapping_sub(seq) <= from.end.wrapping_sub(to.acked)
    }

    /// Whether `seq` is that of data of `side` which the other has not acknowledged.
    pub(crate) const fn is_unread(&self, side: Side, seq: u32) -> bool {
        let (from, _) = self.halves(side);
        self.in_flight(side, seq) && seq != from.end
    }

    /// More data was sent than was seen: the rest of a segment that came in fragments.
    pub(crate) const fn stretch(&mut self, side: Side, end: u32) {
        let from = self.half_mut(side);
        from.end = later(from.end, end);
    }

    fn syn(&mut self, state: State, side: Side, syn: &Tcp) -> Option<Passed> {
        match (state, side) {
            (State::SynSent | State::Closed | State::Reset, Side::Opener) => {
                *self = Self::open(syn)?;
            }
            (State::SynSent, Side::Other) => self.answer(syn, self.other.acked),
            (State::SynCrossed | State::SynReceived, _)
                if segment_end(syn) == self.halves(side).0.end => {}
            // An opener that forgot the connection. The other side will challenge it (RFC 5961
            // section 4), or has forgotten too and answers: either sorts it out.
            (_, Side::Opener) => {
                self.opener.probes = true;
                self.probe = syn.seq.wrapping_add(1);
                return Some(Passed::Unproven);
            }
            _ => return None,
        }
        state.next(side, Event::Syn).map(Passed::Counts)
    }

    fn syn_ack(&mut self, state: State, side: Side, segment: &Tcp) -> Option<Passed> {
        match (state, side) {
            (State::SynSent, Side::Other) => {
                // Data sent along with SYN need not be accepted (RFC 7413 section 4.2.2).
                let of_syn = segment.ack.wrapping_sub(self.probe);
                if of_syn > self.opener.end.wrapping_sub(self.probe) {
                    return Some(Passed::Unproven);
                }
                self.answer(segment, segment.ack);
            }
            (State::SynSent, Side::Opener) => return None,
            (_, Side::Other) if self.opener.probes && segment.ack == self.probe => {
                // What window the SYN offered was not kept: let the ends mind it.
                let window = u16::MAX;
                self.opener = Half { end: self.probe, window, scale: SCALE_MAX, ..Half::NONE };
                self.answer(segment, segment.ack);
                return Some(Passed::Counts(State::SynReceived));
            }
            _ => return self.data(state, side, segment, Event::SynAck),
        }
        state.next(side, Event::SynAck).map(Passed::Counts)
    }

    fn rst(&self, state: State, side: Side, segment: &Tcp) -> Option<Passed> {
        let (from, to) = self.halves(side);
        let exact = if state == State::SynSent && side == Side::Other {
            // It has said no number yet, so only an acknowledgement proves anything (RFC 9293
            // section 3.10.7.3).
            segment.flags.contains(TcpFlags::ACK) && segment.ack == to.end
        } else {
            segment.seq == from.end || segment.seq == to.acked
        };
        if exact {
            return state.next(side, Event::Rst).map(Passed::Counts);
        }
        // The opener may be resetting an older connection of the same name.
        let older = side == Side::Opener && matches!(state, State::SynSent | State::SynReceived);
        let in_window = state != State::SynSent && seq_fits(from, to, segment);
        (older || in_window || self.opener.probes && side == Side::Opener)
            .then_some(Passed::Unproven)
    }

    fn data(&mut self, state: State, side: Side, segment: &Tcp, event: Event) -> Option<Passed> {
        if state == State::SynSent {
            // What is left of an older connection at the other side: the opener will reset it.
            return (side == Side::Other).then_some(Passed::Unproven);
        }
        let (from, to) = self.halves(side);
        if !seq_fits(from, to, segment) || !ack_fits(from, to, segment) {
            // The other side's answer to the opener's SYN that did not count.
            let challenge = self.opener.probes && side == Side::Other && event == Event::Ack;
            return challenge.then_some(Passed::Unproven);
        }
        let from = self.half_mut(side);
        // Who knows where the connection stands has not forgotten it.
        from.probes = false;
        from.end = later(from.end, segment_end(segment));
        from.acked = later(from.acked, segment.ack);
        if event != Event::SynAck {
            from.window = from.window.max(segment.window);
        }
        let all_acked = self.opener.acked == self.other.end && self.other.acked == self.opener.end;
        let event = if event == Event::Ack && all_acked { Event::LastAck } else { event };
        state.next(side, event).map(Passed::Counts)
    }

    /// Takes the numbers of the other side's first segment, which waits for `acked`.
    fn answer(&mut self, segment: &Tcp, acked: u32) {
        self.other = Half { acked, ..Half::of_syn(segment) };
        self.opener.acked = segment.seq;
        // Windows are scaled by both or by neither (RFC 7323 section 2.2).
        if self.opener.scale == UNSCALED || self.other.scale == UNSCALED {
            self.opener.unscale();
            self.other.unscale();
        }
    }

    const fn halves(&self, from: Side) -> (Half, Half) {
        match from {
            Side::Opener => (self.opener, self.other),
            Side::Other => (self.other, self.opener),
        }
    }

    const fn half_mut(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Opener => &mut self.opener,
            Side::Other => &mut self.other,
        }
    }
}

/// The one thing a segment is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    Syn,
    SynAck,
    Ack,
    Fin,
    Rst,
}

/// `None` for flags that no TCP sends together, or that lack what every segment but SYN and RST has.
const fn control(segment: &Tcp) -> Option<Control> {
    let flags = segment.flags;
    let (syn, ack) = (flags.contains(TcpFlags::SYN), flags.contains(TcpFlags::ACK));
    let (fin, rst) = (flags.contains(TcpFlags::FIN), flags.contains(TcpFlags::RST));
    match (syn, fin, rst, ack) {
        (true, false, false, false) => Some(Control::Syn),
        (true, false, false, true) => Some(Control::SynAck),
        (false, true, false, true) => Some(Control::Fin),
        (false, false, true, _) => Some(Control::Rst),
        (false, false, false, true) => Some(Control::Ack),
        _ => None,
    }
}

const fn segment_end(segment: &Tcp) -> u32 {
    segment.seq.wrapping_add(segment.seg_len())
}

/// Whether `a` is not after `b`, on the circle of sequence numbers.
const fn not_after(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) <= i32::MAX as u32
}

const fn later(a: u32, b: u32) -> u32 {
    if not_after(a, b) { b } else { a }
}

/// Whether it starts within the window of its receiver, and is not older than what may be repeated.
fn seq_fits(from: Half, to: Half, segment: &Tcp) -> bool {
    let window = to.window_bytes();
    not_after(segment.seq, to.acked.wrapping_add(window))
        && not_after(from.end.wrapping_sub(window), segment_end(segment))
}

/// Whether it acknowledges what was sent, and not what was forgotten long ago.
fn ack_fits(from: Half, to: Half, segment: &Tcp) -> bool {
    let age = from.window_bytes().max(ACK_AGE);
    not_after(segment.ack, to.end) && not_after(to.end.wrapping_sub(age), segment.ack)
}
