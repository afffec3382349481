//! The states both ends of a Xen device publish (xen/io/xenbus.h).

use core::fmt;

/// State of one end of a device, as written to its `state` node in decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum XenbusState {
    /// The directory exists, nobody has looked at it yet. A frontend writes it to start over.
    Initialising = 1,
    /// A backend has published what it can do and waits for its frontend.
    InitWait = 2,
    /// A frontend has published its rings; netif skips this.
    Initialised = 3,
    /// Both directions may be used.
    Connected = 4,
    /// On the way down.
    Closing = 5,
    /// Down; the other end may forget everything.
    Closed = 6,
    /// Not used by netif.
    Reconfiguring = 7,
    /// Not used by netif.
    Reconfigured = 8,
}

impl XenbusState {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::Initialising,
        Self::InitWait,
        Self::Initialised,
        Self::Connected,
        Self::Closing,
        Self::Closed,
        Self::Reconfiguring,
        Self::Reconfigured,
    ];

    /// The value of a `state` node; `None` for everything else, XenbusStateUnknown (0) included.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let [digit] = value else { return None };
        Self::ALL.into_iter().find(|state| state.digit() == *digit)
    }

    /// What to write to a `state` node.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initialising => "1",
            Self::InitWait => "2",
            Self::Initialised => "3",
            Self::Connected => "4",
            Self::Closing => "5",
            Self::Closed => "6",
            Self::Reconfiguring => "7",
            Self::Reconfigured => "8",
        }
    }

    const fn digit(self) -> u8 {
        b'0' + self as u8
    }
}

impl fmt::Display for XenbusState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_one_decimal_digit_and_nothing_else() {
        for byte in 0..=u8::MAX {
            let expected = XenbusState::ALL.into_iter().find(|s| s.as_str().as_bytes() == [byte]);
            assert_eq!(XenbusState::parse(&[byte]), expected, "{byte:#x}");
        }
        for bad in [&b""[..], b"0", b"9", b"04", b"4 ", b"4\0", b"-1"] {
            assert_eq!(XenbusState::parse(bad), None, "{bad:?}");
        }
    }
}
