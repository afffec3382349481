//! What a flow has been through: one small table for TCP, UDP and ICMP.
//!
//! In: a state, who sent, what was sent. Out: the next state, or that it fits none. Never: a look
//! at sequence numbers; what comes here has been found to belong to the connection.
//!
//! The TCP part follows RFC 6146 section 3.5.2, which RFC 7857 section 2 makes the rule for all
//! NATs, with the opening taken apart further. Sides are those of the connection, not of the
//! network: the table does not care which of them is the client.

use crate::Timeouts;
use core::time::Duration;

/// Who sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The one who sent the first packet of the flow.
    Opener,
    /// The one it was sent to.
    Other,
}

impl Side {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 2] = [Self::Opener, Self::Other];
}

/// What a packet means to the state of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A UDP datagram or ICMP query message.
    Datagram,
    /// SYN without ACK.
    Syn,
    /// SYN with ACK.
    SynAck,
    /// Data or an acknowledgement.
    Ack,
    /// An acknowledgement after which neither side waits for another.
    LastAck,
    /// FIN.
    Fin,
    /// RST with exactly the sequence number its receiver waits for.
    Rst,
}

impl Event {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 7] =
        [Self::Datagram, Self::Syn, Self::SynAck, Self::Ack, Self::LastAck, Self::Fin, Self::Rst];
}

/// What a flow has been through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// UDP, ICMP: nobody has answered yet.
    Unanswered,
    /// UDP, ICMP: somebody has.
    Answered,
    /// The opener sent SYN.
    SynSent,
    /// Both sent SYN without having seen the other's (simultaneous open).
    SynCrossed,
    /// SYN was answered with SYN and ACK.
    SynReceived,
    /// Both directions are open.
    Established,
    /// The opener sent FIN.
    OpenerFin,
    /// The other side sent FIN.
    OtherFin,
    /// Both sent FIN.
    Closing,
    /// Both FINs were acknowledged, or the connection was refused: nothing is on its way but
    /// repetitions.
    Closed,
    /// RST was seen. Perhaps it never arrives: data will tell (RFC 7857 section 2).
    Reset,
}

/// How readily a flow is given up when its client needs room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Half open, unanswered, or as good as over.
    Loose,
    /// In use.
    Settled,
}

impl State {
    pub(crate) const ALL: [Self; 11] = [
        Self::Unanswered,
        Self::Answered,
        Self::SynSent,
        Self::SynCrossed,
        Self::SynReceived,
        Self::Established,
        Self::OpenerFin,
        Self::OtherFin,
        Self::Closing,
        Self::Closed,
        Self::Reset,
    ];

    /// The state after `event` from `side`; `None` if that cannot happen in this one.
    pub(crate) const fn next(self, side: Side, event: Event) -> Option<Self> {
        use Event::{Ack, Datagram, Fin, LastAck, Rst, Syn, SynAck};
        use Side::{Opener, Other};
        Some(match (self, side, event) {
            (Self::Unanswered, Opener, Datagram) => Self::Unanswered,
            (Self::Unanswered | Self::Answered, _, Datagram) => Self::Answered,

            (Self::SynSent, Opener, Syn) => Self::SynSent,
            (Self::SynSent, Other, Syn) => Self::SynCrossed,
            (Self::SynSent, Other, SynAck) => Self::SynReceived,

            (Self::SynCrossed, _, Syn | SynAck) => Self::SynCrossed,
            (Self::SynCrossed, _, Ack | LastAck) => Self::Established,

            (Self::SynReceived, Opener, Syn) => Self::SynReceived,
            (Self::SynReceived, Other, SynAck | Ack | LastAck) => Self::SynReceived,
            (Self::SynReceived, Opener, Ack | LastAck) => Self::Established,

            (Self::SynSent | Self::SynCrossed | Self::SynReceived, _, Rst) => Self::Closed,

            // Anything but RST that is in the window shows that both ends are still there.
            (Self::Established | Self::Reset, _, SynAck | Ack | LastAck) => Self::Established,
            (
                Self::SynCrossed
                | Self::SynReceived
                | Self::Established
                | Self::Reset
                | Self::OpenerFin,
                Opener,
                Fin,
            ) => Self::OpenerFin,
            (
                Self::SynCrossed
                | Self::SynReceived
                | Self::Established
                | Self::Reset
                | Self::OtherFin,
                Other,
                Fin,
            ) => Self::OtherFin,
            (Self::OpenerFin, _, SynAck | Ack | LastAck) => Self::OpenerFin,
            (Self::OtherFin, _, SynAck | Ack | LastAck) => Self::OtherFin,

            (Self::OpenerFin, Other, Fin) | (Self::OtherFin, Opener, Fin) => Self::Closing,
            (Self::Closing, _, SynAck | Ack | Fin) => Self::Closing,
            (Self::Closing, _, LastAck) => Self::Closed,
            (Self::Closed, _, SynAck | Ack | LastAck | Fin | Rst) => Self::Closed,
            (
                Self::Established | Self::OpenerFin | Self::OtherFin | Self::Closing | Self::Reset,
                _,
                Rst,
            ) => Self::Reset,

            // The same two endpoints, a new connection.
            (Self::Closed | Self::Reset, Opener, Syn) => Self::SynSent,

            _ => return None,
        })
    }

    /// How long a flow in this state outlives its last packet.
    const fn timeout(self, timeouts: &Timeouts, use_: Use) -> Duration {
        match self {
            Self::Unanswered | Self::Answered => match use_ {
                Use::Icmp => timeouts.icmp,
                Use::Dns => timeouts.dns,
                Use::Plain => timeouts.udp,
            },
            Self::Established | Self::OpenerFin | Self::OtherFin => timeouts.tcp_established,
            Self::SynSent | Self::SynCrossed | Self::SynReceived | Self::Closing | Self::Reset => {
                timeouts.tcp_transitory
            }
            Self::Closed => timeouts.tcp_closed,
        }
    }

    /// Whether segments that neither begin nor end anything leave it as it is.
    pub(crate) const fn is_open(self) -> bool {
        matches!(self, Self::Established | Self::OpenerFin | Self::OtherFin)
    }

    /// How readily the flow is given up.
    pub(crate) const fn class(self) -> Class {
        match self {
            Self::Answered | Self::Established | Self::OpenerFin | Self::OtherFin => Class::Settled,
            Self::Unanswered
            | Self::SynSent
            | Self::SynCrossed
            | Self::SynReceived
            | Self::Closing
            | Self::Closed
            | Self::Reset => Class::Loose,
        }
    }
}

/// What matters about a datagram flow for its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// An ICMP query.
    Icmp,
    /// UDP to port 53.
    Dns,
    /// Anything else.
    Plain,
}

impl Use {
    const ALL: [Self; 3] = [Self::Icmp, Self::Dns, Self::Plain];
}

/// All timeouts in seconds, by use and state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetimes([[u32; State::ALL.len()]; Use::ALL.len()]);

impl Lifetimes {
    pub(crate) fn new(timeouts: &Timeouts) -> Self {
        let secs = |use_, state: State| state.timeout(timeouts, use_).as_secs();
        let secs = |use_, state| u32::try_from(secs(use_, state)).unwrap_or(u32::MAX);
        Self(Use::ALL.map(|use_| State::ALL.map(|state| secs(use_, state))))
    }

    /// How many seconds a flow outlives its last packet.
    #[inline]
    pub(crate) fn of(&self, use_: Use, state: State) -> u32 {
        let of_use = self.0.get(use_ as usize);
        of_use.and_then(|states| states.get(state as usize)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn after(start: State, events: &[(Side, Event)]) -> Option<State> {
        events.iter().try_fold(start, |state, (side, event)| state.next(*side, *event))
    }

    use Event::{Ack, Datagram, Fin, LastAck, Rst, Syn, SynAck};
    use Side::{Opener, Other};

    /// Every pair of states, sides and events stands here by number, so that no cell of the table
    /// changes unseen: a row for each state, opener's events first; `-` is a drop.
    #[test]
    fn the_whole_table() {
        let letter = |state: Option<State>| match state {
            None => '-',
            Some(State::Unanswered) => 'u',
            Some(State::Answered) => 'a',
            Some(State::SynSent) => 's',
            Some(State::SynCrossed) => 'x',
            Some(State::SynReceived) => 'r',
            Some(State::Established) => 'E',
            Some(State::OpenerFin) => 'p',
            Some(State::OtherFin) => 'q',
            Some(State::Closing) => 'c',
            Some(State::Closed) => 'Z',
            Some(State::Reset) => 'R',
        };
        // Columns: Datagram Syn SynAck Ack LastAck Fin Rst, from the opener and from the other.
        let expected = [
            "u------ a------",
            "a------ a------",
            "-s----Z -xr---Z",
            "-xxEEpZ -xxEEqZ",
            "-r-EEpZ --rrrqZ",
            "--EEEpR --EEEqR",
            "--ppppR --pppcR",
            "--qqqcR --qqqqR",
            "--ccZcR --ccZcR",
            "-sZZZZZ --ZZZZZ",
            "-sEEEpR --EEEqR",
        ];
        for (state, expected) in State::ALL.into_iter().zip(expected) {
            let row: Vec<std::string::String> = Side::ALL
                .iter()
                .map(|side| Event::ALL.iter().map(|e| letter(state.next(*side, *e))).collect())
                .collect();
            assert_eq!(row.join(" "), expected, "{state:?}");
        }
    }

    #[test]
    fn n14_every_legal_opening_is_followed() {
        let plain = [(Opener, Syn), (Other, SynAck), (Opener, Ack)];
        let crossed = [(Other, Syn), (Opener, SynAck), (Other, SynAck), (Opener, Ack)];
        let repeated = [(Opener, Syn), (Other, SynAck), (Opener, Syn), (Other, SynAck)];
        assert_eq!(after(State::SynSent, &plain), Some(State::Established));
        assert_eq!(after(State::SynSent, &crossed), Some(State::Established));
        assert_eq!(after(State::SynSent, &repeated), Some(State::SynReceived));
    }

    #[test]
    fn n14_every_legal_closing_is_followed() {
        let (from, to) = (State::Established, Some(State::Closed));
        assert_eq!(
            after(from, &[(Opener, Fin), (Other, Ack), (Other, Fin), (Opener, LastAck)]),
            to
        );
        assert_eq!(after(from, &[(Other, Fin), (Opener, Fin), (Other, LastAck)]), to);
        assert_eq!(
            after(from, &[(Opener, Fin), (Other, Fin), (Opener, Ack), (Other, LastAck)]),
            to
        );
    }

    #[test]
    fn n17_a_reset_connection_lives_again_when_data_flows() {
        assert_eq!(after(State::Established, &[(Other, Rst)]), Some(State::Reset));
        assert_eq!(after(State::Reset, &[(Opener, Ack)]), Some(State::Established));
    }

    #[test]
    fn only_a_datagram_or_a_syn_opens() {
        for event in Event::ALL {
            let starts = State::Closed.next(Opener, event) == Some(State::SynSent);
            assert_eq!(starts, event == Syn);
            assert_eq!(State::Unanswered.next(Opener, event).is_some(), event == Datagram);
        }
    }
}
