//! Hands orders on to the agents of other domains, through their PV consoles.
//!
//! xenconsoled offers each console as a pty, named in XenStore. One thread per domain reads it
//! and sends every protocol line on to the host; all else (kernel messages) is in xenconsoled's log.

use crate::desk::Out;
use crate::store;
use agent::{MARK, Request};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// The open consoles, by domain number (a number is never used twice in one boot).
#[derive(Default)]
pub(crate) struct Relay(Mutex<HashMap<u16, File>>);

impl Relay {
    /// Passes the line of an order to the agent of the domain it is for.
    ///
    /// # Errors
    /// When the domain has no console, or it is gone.
    pub(crate) fn hand_on(&self, order: &Request, line: &str, out: &Out) -> io::Result<()> {
        let mut consoles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let console = match consoles.entry(order.to) {
            std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => new.insert(open(order.to, out)?),
        };
        console.write_all(line.as_bytes())
    }
}

fn open(domain: u16, out: &Out) -> io::Result<File> {
    let pty = store::read(&format!("/local/domain/{domain}/console/tty"))?;
    let console = OpenOptions::new().read(true).write(true).open(&pty)?;
    let raw = Command::new("stty").args(["-F", &pty, "raw", "-echo"]).status()?;
    if !raw.success() {
        return Err(io::Error::other(format!("stty on {pty}: {raw}")));
    }
    let lines = BufReader::new(console.try_clone()?);
    let out = out.clone();
    thread::spawn(move || pump(lines, &out));
    Ok(console)
}

fn pump(mut lines: impl BufRead, out: &Out) {
    let mut line = Vec::new();
    // A pty whose other end is gone reads as an error: the domain has ended.
    while matches!(lines.read_until(b'\n', &mut line), Ok(n) if n > 0) {
        let text = String::from_utf8_lossy(&line);
        if let Some((_, message)) = text.rsplit_once(MARK) {
            out.line(&format!("{MARK}{message}"));
        }
        line.clear();
    }
}
