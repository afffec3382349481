//! `qrexec-daemon` for one virtual machine: the control channel, protocol 3 (libqrexec/qrexec.h).

use crate::pipe::{Pipe, word};
use crate::{Daemon, Death, die};
use std::collections::BTreeSet;

const EXEC_CMDLINE: u32 = 0x200;
const JUST_EXEC: u32 = 0x201;
const SERVICE_CONNECT: u32 = 0x202;
const SERVICE_REFUSED: u32 = 0x203;
const TERMINATED: u32 = 0x211;
const TRIGGER_SERVICE3: u32 = 0x212;
const HELLO: u32 = 0x300;

const VERSION: u32 = 3;
const FIRST_PORT: u32 = 513;
const IDENT: usize = 32;
const TARGET: usize = 64;
/// Bytes a service with its argument may have.
const SERVICE_MAX: usize = 65000;

/// A call the machine wants to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Whom to call.
    pub target: String,
    /// The service, with its argument.
    pub service: String,
    /// By which the machine knows the call.
    pub ident: [u8; IDENT],
}

/// The daemon.
#[derive(Clone, Debug, Default)]
pub struct Qrexec {
    greeted: bool,
    pipe: Pipe,
    ports: BTreeSet<u32>,
    asked: Vec<Asked>,
}

impl Qrexec {
    /// Orders the machine to run `cmdline` and to connect to the port returned, where a
    /// [`Call`](crate::Call) waits.
    pub fn exec(&mut self, cmdline: &str) -> u32 {
        self.order(EXEC_CMDLINE, cmdline)
    }

    /// The same, with nobody interested in what comes of it.
    pub fn just_exec(&mut self, cmdline: &str) -> u32 {
        self.order(JUST_EXEC, cmdline)
    }

    fn order(&mut self, kind: u32, cmdline: &str) -> u32 {
        let port = (FIRST_PORT..).find(|port| !self.ports.contains(port)).unwrap_or(u32::MAX);
        self.ports.insert(port);
        let mut body = [0_u32.to_le_bytes(), port.to_le_bytes()].concat();
        body.extend(cmdline.bytes());
        body.push(0);
        self.send(kind, &body);
        port
    }

    /// The calls the machine wants to make, oldest first.
    pub fn take_asked(&mut self) -> Vec<Asked> {
        std::mem::take(&mut self.asked)
    }

    /// Lets it make one: it is to serve `port` for `domain`.
    pub fn connect(&mut self, asked: &Asked, domain: u16, port: u32) {
        let mut body = [u32::from(domain).to_le_bytes(), port.to_le_bytes()].concat();
        body.extend(asked.ident);
        self.send(SERVICE_CONNECT, &body);
    }

    /// Refuses one.
    pub fn refuse(&mut self, asked: &Asked) {
        self.send(SERVICE_REFUSED, &asked.ident.clone());
    }

    /// Whether both have said hello.
    #[must_use]
    pub const fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Ports of calls that are not over.
    #[must_use]
    pub fn open_calls(&self) -> usize {
        self.ports.len()
    }

    /// Sends bytes the real one would not.
    pub fn corrupt(&mut self, bytes: &[u8]) {
        self.pipe.outbox.extend(bytes);
    }

    fn send(&mut self, kind: u32, body: &[u8]) {
        self.pipe.word(kind);
        self.pipe.word(u32::try_from(body.len()).unwrap_or(u32::MAX));
        self.pipe.outbox.extend(body);
    }

    fn obey(&mut self, kind: u32, body: &[u8]) -> Result<(), Death> {
        match kind {
            HELLO => {
                let version = word(body, 0);
                if version != VERSION {
                    return die(format!("the agent speaks {version}, it is to advertise 3"));
                }
                self.greeted = true;
            }
            TERMINATED => {
                self.ports.remove(&word(body, 4));
            }
            _ => self.asked.push(trigger(body)?),
        }
        Ok(())
    }

    /// What sanitize_message_from_agent lets through.
    fn check(&self, kind: u32, len: usize) -> Result<(), Death> {
        let fine = match kind {
            HELLO => !self.greeted && len == 4,
            TERMINATED => self.greeted && len == 8,
            TRIGGER_SERVICE3 => {
                let text = len.checked_sub(TARGET + IDENT);
                self.greeted && text.is_some_and(|len| (2..=SERVICE_MAX).contains(&len))
            }
            _ => false,
        };
        if fine { Ok(()) } else { die(format!("unknown message type {kind:#x} of {len} bytes")) }
    }
}

fn trigger(body: &[u8]) -> Result<Asked, Death> {
    let (target, rest) = body.split_at_checked(TARGET).unwrap_or_default();
    let (ident, service) = rest.split_first_chunk::<IDENT>().unwrap_or((&[0; IDENT], &[]));
    let text = |field: &[u8]| {
        let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
        let padded = field.iter().skip(end).all(|b| *b == 0);
        let text = String::from_utf8_lossy(field.get(..end).unwrap_or_default()).into_owned();
        (end < field.len() && padded).then_some(text)
    };
    let name = text(ident)
        .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_. -".contains(&b)));
    if name.is_none() {
        return die("bad identifier");
    }
    let Some(service) = text(service).filter(|s| !s.is_empty() && !s.starts_with('+')) else {
        return die("bad service name");
    };
    let target = text(target).ok_or(Death("no NUL in the target".into()))?;
    Ok(Asked { target, service, ident: *ident })
}

impl Daemon for Qrexec {
    fn connected(&mut self) {
        self.send(HELLO, &VERSION.to_le_bytes());
    }

    fn disconnected(&mut self) {
        (self.greeted, self.pipe) = (false, Pipe::default());
        self.ports.clear();
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Death> {
        self.pipe.inbox.extend(bytes);
        while self.pipe.inbox.len() >= 8 {
            let (kind, len) = (word(&self.pipe.inbox, 0), word(&self.pipe.inbox, 4) as usize);
            self.check(kind, len)?;
            let Some(message) = self.pipe.take(8 + len) else { break };
            self.obey(kind, message.get(8..).unwrap_or_default())?;
        }
        Ok(())
    }

    fn outgoing(&self) -> &[u8] {
        &self.pipe.outbox
    }

    fn sent(&mut self, count: usize) {
        self.pipe.sent(count);
    }
}
