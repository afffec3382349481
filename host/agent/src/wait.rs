//! Waiting for a condition, never for a while: looks again and again until the deadline.

use crate::desk::read_from;
use crate::store;
use agent::Condition;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Returns when the condition holds.
///
/// # Errors
/// At the deadline, telling what was awaited and what was seen last.
pub(crate) fn until(condition: &Condition, deadline: Duration) -> io::Result<()> {
    let started = Instant::now();
    loop {
        let seen = match look(condition) {
            Ok(()) => return Ok(()),
            Err(seen) => seen,
        };
        if started.elapsed() >= deadline {
            let what = format!("waited {deadline:?} for {condition}; last seen: {seen}");
            return Err(io::Error::other(what));
        }
        thread::sleep(LOOK);
    }
}

/// Whether the condition holds; if not, what is there instead.
fn look(condition: &Condition) -> Result<(), String> {
    match condition {
        Condition::XsIs { path, value } => match store::read(path) {
            Ok(seen) if seen == *value => Ok(()),
            Ok(seen) => Err(format!("{seen:?}")),
            Err(e) => Err(e.to_string()),
        },
        Condition::XsGone { path } => match store::read(path) {
            Ok(seen) => Err(format!("{seen:?}")),
            Err(_) => Ok(()),
        },
        Condition::XsEnds { path, value } => match store::read(path) {
            Ok(seen) if seen != *value => Err(format!("{seen:?}")),
            Ok(_) | Err(_) => Ok(()),
        },
        Condition::FileHas { path, offset, text } => match read_from(path, *offset) {
            Ok(seen) if seen.contains(text) => Ok(()),
            Ok(seen) => Err(format!("…{}", tail(&seen, 300))),
            Err(e) => Err(e.to_string()),
        },
        Condition::Exists { path } => {
            Path::new(path).exists().then_some(()).ok_or_else(|| "it is not there".into())
        }
        Condition::Absent { path } => {
            (!Path::new(path).exists()).then_some(()).ok_or_else(|| "it is there".into())
        }
        Condition::Listening { port, udp } => {
            listening(*port, *udp).then_some(()).ok_or_else(|| "nobody listens".into())
        }
    }
}

/// Reads the kernel's socket tables (proc_net_tcp(5)): state 0A is LISTEN, 07 an unconnected UDP
/// socket.
fn listening(port: u16, udp: bool) -> bool {
    let (tables, state) = if udp {
        (["/proc/net/udp", "/proc/net/udp6"], "07")
    } else {
        (["/proc/net/tcp", "/proc/net/tcp6"], "0A")
    };
    let local = format!(":{port:04X}");
    tables.iter().filter_map(|table| std::fs::read_to_string(table).ok()).any(|table| {
        table.lines().skip(1).any(|line| {
            let mut words = line.split_whitespace().skip(1);
            let here = words.next().is_some_and(|address| address.ends_with(&local));
            here && words.nth(1) == Some(state)
        })
    })
}

fn tail(text: &str, chars: usize) -> &str {
    let from = text.char_indices().rev().take(chars).last().map_or(0, |(at, _)| at);
    text.get(from..).unwrap_or_default()
}
