//! What a translator is told once: timeouts, memory, how many clients.
//!
//! In: numbers. Out: the same, found sensible, and how many flows they pay for. Never: changed later.

use core::fmt;
use core::time::Duration;

/// How long a flow lives after the last packet that counted, by kind. Whole seconds count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// UDP. At least 2 minutes, 5 recommended (RFC 4787 REQ-5).
    pub udp: Duration,
    /// UDP to port 53, where a shorter time is allowed (RFC 4787 REQ-5a).
    pub dns: Duration,
    /// ICMP queries. At least 60 seconds (RFC 5508 REQ-2).
    pub icmp: Duration,
    /// TCP connections that are established. At least 2 hours 4 minutes (RFC 5382 REQ-5).
    pub tcp_established: Duration,
    /// TCP connections being opened, closed or reset. At least 4 minutes (RFC 5382 REQ-5).
    pub tcp_transitory: Duration,
    /// TCP connections seen to end: both FINs acknowledged, or refused. Their port is given back
    /// after this time, but not to the same remote before [`crate::QUARANTINE`] is over.
    pub tcp_closed: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            udp: Duration::from_secs(300),
            dns: Duration::from_secs(30),
            icmp: Duration::from_secs(60),
            tcp_established: Duration::from_secs(7440),
            tcp_transitory: Duration::from_secs(240),
            tcp_closed: Duration::from_secs(10),
        }
    }
}

/// What a translator is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long flows live.
    pub timeouts: Timeouts,
    /// Number of port slots that may hold flows: a client's [`wire::PortSlot`] is below this.
    pub slots: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self { timeouts: Timeouts::default(), slots: 256 }
    }
}

/// Memory the translator may take, all of it at once and for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes.
    pub bytes: usize,
}

/// Why a configuration is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A timeout is below what its RFC demands.
    Timeout {
        /// Which.
        name: &'static str,
        /// The least that is allowed.
        least: Duration,
    },
    /// No slots: no client could ever open a flow.
    NoSlots,
    /// The budget does not pay for the fixed tables and a few flows.
    Budget {
        /// The least that does, in bytes.
        least: usize,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout { name, least } => {
                write!(f, "timeout {name} is below the least allowed, {} s", least.as_secs())
            }
            Self::NoSlots => f.write_str("no port slots"),
            Self::Budget { least } => write!(f, "less than {least} bytes for flows"),
        }
    }
}

impl core::error::Error for ConfigError {}

impl Timeouts {
    /// Checks every timeout against the least its RFC allows.
    ///
    /// # Errors
    /// [`ConfigError::Timeout`] with the first that is too short.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let least = [
            ("udp", self.udp, 120),
            ("dns", self.dns, 1),
            ("icmp", self.icmp, 60),
            ("tcp-established", self.tcp_established, 7440),
            ("tcp-transitory", self.tcp_transitory, 240),
            ("tcp-closed", self.tcp_closed, 1),
        ];
        for (name, value, least) in least {
            let least = Duration::from_secs(least);
            if value < least {
                return Err(ConfigError::Timeout { name, least });
            }
        }
        Ok(())
    }
}
