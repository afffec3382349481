//! Which of the networks beyond the firewall is meant.

use core::fmt;

/// An uplink by the number of its netfront, which is below [`Uplink::COUNT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uplink(u8);

impl Uplink {
    /// How many there can be.
    pub const COUNT: usize = 4;

    /// The one every firewall has: netfront 0. What no route speaks of leaves by it.
    pub const FIRST: Self = Self(0);

    /// All there can be, by number.
    pub const ALL: [Self; Self::COUNT] = [Self(0), Self(1), Self(2), Self(3)];

    /// The uplink of this number, if there can be one.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if (number as usize) < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its number as an index, below [`Uplink::COUNT`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// As `netfront` and the command line number it.
impl fmt::Display for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Uplink;

    #[test]
    fn there_are_as_many_as_are_counted() {
        let made: std::vec::Vec<_> = (0..=u8::MAX).filter_map(Uplink::new).collect();
        assert_eq!(made, Uplink::ALL);
        assert!(made.iter().enumerate().all(|(at, uplink)| uplink.index() == at));
        assert_eq!(Uplink::default(), Uplink::FIRST);
    }
}
