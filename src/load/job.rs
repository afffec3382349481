//! What the guest is told to do.
//!
//! In: words such as `id=3 do=udp to=198.51.100.1:9 seconds=5`. Out: a [`Job`]. Never: a default for
//! what must be said, or a word that is ignored.

#![forbid(unsafe_code)]

use core::net::SocketAddrV4;
use core::time::Duration;

/// Shortest frame that can be asked for, in bytes: Ethernet, IPv4 and UDP.
const FRAME_MIN: u16 = 42;
/// Longest: an MTU of 1500.
const FRAME_MAX: u16 = 1514;

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Datagrams in frames of so many bytes.
    Udp {
        frame: u16,
        /// In a second; 0 is as many as the ring takes.
        rate: u32,
    },
    /// Connections that are opened and closed, so many at a time.
    Connect { at_once: u16 },
}

/// One job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// Repeated in the report.
    pub(crate) id: u32,
    pub(crate) kind: Kind,
    pub(crate) to: SocketAddrV4,
    /// How long.
    pub(crate) time: Duration,
    /// Source ports used in turn.
    pub(crate) ports: u16,
}

impl Job {
    /// Reads words.
    ///
    /// # Errors
    /// The word that makes no sense, or the name of one that is missing.
    pub(crate) fn parse(text: &str) -> Result<Self, &str> {
        let (mut id, mut to, mut seconds, mut what) = (None, None, None, None);
        let (mut frame, mut rate, mut ports, mut at_once) = (64, 0, 64, 64);
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').ok_or(word)?;
            match key {
                "id" => id = Some(value.parse().map_err(|_| word)?),
                "to" => to = Some(value.parse().map_err(|_| word)?),
                "seconds" => seconds = Some(value.parse().map_err(|_| word)?),
                "do" => what = Some(value),
                "frame" => frame = value.parse().map_err(|_| word)?,
                "rate" => rate = value.parse().map_err(|_| word)?,
                "ports" => ports = value.parse().map_err(|_| word)?,
                "at-once" => at_once = value.parse().map_err(|_| word)?,
                _ => return Err(word),
            }
        }
        let kind = match what.ok_or("do")? {
            "udp" if (FRAME_MIN..=FRAME_MAX).contains(&frame) => Kind::Udp { frame, rate },
            "udp" => return Err("frame"),
            "connect" => Kind::Connect { at_once },
            other => return Err(other),
        };
        Ok(Self {
            id: id.ok_or("id")?,
            kind,
            to: to.ok_or("to")?,
            time: Duration::from_secs(seconds.ok_or("seconds")?),
            ports: core::cmp::max(ports, 1),
        })
    }
}
