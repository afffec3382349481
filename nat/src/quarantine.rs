//! Ports that were just given back by a TCP connection.
//!
//! In: a port, the remote it talked to, the time. Out: whether the two had better not meet again
//! yet, since segments of the old connection may still be about, or its remote in TIME-WAIT.
//! Never: certain; it forgets all but the last remote of a port, and one remote in 128 looks like
//! another. Both only cost or spare a choice among free ports.

use alloc::boxed::Box;
use alloc::vec;
use core::time::Duration;

/// How long the port of a TCP connection that ended is not given to another one to the same remote.
/// With a thousand connections a second to one server this still leaves half of all ports.
pub const QUARANTINE: Duration = Duration::from_secs(30);

/// Bytes it takes.
pub(crate) const BYTES: usize = 65536 * size_of::<u16>();

/// For each port: a mark of its last remote, never 0, and the second it was given back, both mod 256.
#[derive(Debug)]
pub(crate) struct Quarantine(Box<[[u8; 2]]>);

impl Quarantine {
    /// Nothing is held.
    pub(crate) fn new() -> Self {
        Self(vec![[0; 2]; 65536].into_boxed_slice())
    }

    /// Notes that `port` was given back by a connection to the remote with this hash.
    pub(crate) fn hold(&mut self, port: u16, remote: u64, now: u32) {
        if let Some(entry) = self.0.get_mut(usize::from(port)) {
            *entry = [mark(remote), second(now)];
        }
    }

    /// Whether `port` and that remote should be kept apart.
    pub(crate) fn holds(&self, port: u16, remote: u64, now: u32) -> bool {
        self.0.get(usize::from(port)).is_some_and(|[held, since]| {
            let age = second(now).wrapping_sub(*since);
            *held == mark(remote) && u64::from(age) < QUARANTINE.as_secs()
        })
    }
}

fn mark(remote: u64) -> u8 {
    remote.to_le_bytes()[0] | 1
}

fn second(now: u32) -> u8 {
    now.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_port_and_remote_apart_for_its_time() {
        let mut quarantine = Quarantine::new();
        assert!(!quarantine.holds(2000, 6, 0), "nothing held at the start");
        quarantine.hold(2000, 6, 1000);
        assert!(quarantine.holds(2000, 6, 1000) && quarantine.holds(2000, 6, 1029));
        assert!(!quarantine.holds(2000, 6, 1030), "over");
        assert!(!quarantine.holds(2000, 8, 1000), "another remote");
        assert!(!quarantine.holds(2001, 6, 1000), "another port");
    }
}
