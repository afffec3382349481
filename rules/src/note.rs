//! What a rule does beside its verdict: how often it may be met, and the line it writes.

use core::fmt;

/// So many in so long a time, after so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rate {
    /// How many; never 0.
    pub count: u32,
    /// In so many seconds; never 0.
    pub secs: u32,
    /// How many may come at once before the rate counts; never 0.
    pub burst: u32,
}

impl Rate {
    /// The largest of each of its numbers.
    pub const MAX: u32 = 1_000_000;

    /// Whether each number is one that can be kept to.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        [self.count, self.secs, self.burst].into_iter().all(|n| (1..=Self::MAX).contains(&n))
    }
}

/// How much a line in the log matters (RFC 5424 section 6.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Severity {
    /// 0: the system cannot be used.
    Emergency,
    /// 1: something must be done at once.
    Alert,
    /// 2
    Critical,
    /// 3
    Error,
    /// 4
    Warning,
    /// 5: normal, but worth knowing.
    Notice,
    /// 6
    #[default]
    Info,
    /// 7
    Debug,
}

impl Severity {
    /// All of them, by their number.
    pub const ALL: [Self; 8] = [
        Self::Emergency,
        Self::Alert,
        Self::Critical,
        Self::Error,
        Self::Warning,
        Self::Notice,
        Self::Info,
        Self::Debug,
    ];

    /// Its number, 0 for the gravest.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The word for it in a policy and in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Emergency => "emergency",
            Self::Alert => "alert",
            Self::Critical => "critical",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The line a rule writes about each flow it decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Note {
    /// How much it matters.
    pub severity: Severity,
    /// How often at most.
    pub limit: Option<Rate>,
}
