//! `qubesdb-daemon` for one virtual machine.
//!
//! | from the machine | what it does |
//! |---|---|
//! | MULTIREAD, the first since it connected | sends everything, last path first |
//! | WRITE | stores, answers; with a NUL in it, an error |
//! | RM of what is there | removes, answers |
//! | RESP_OK, RESP_ERROR without data | nothing |
//! | MULTIREAD again, RM of what is not there, anything else, a bad path, 3072 bytes or more | exits |

use crate::pipe::{Pipe, word};
use crate::{Daemon, Death, die};
use std::collections::BTreeMap;

const HEADER: usize = 72;
const PATH: usize = 64;
const DATA_MAX: usize = 3072;

const WRITE: u8 = 1;
const MULTIREAD: u8 = 2;
const RM: u8 = 4;
const OK: u8 = 7;
const NOENT: u8 = 8;
const ERROR: u8 = 9;
const GOT_MULTIREAD: u8 = 11;

/// The daemon with its database.
#[derive(Clone, Debug, Default)]
pub struct QubesDb {
    entries: BTreeMap<String, Vec<u8>>,
    /// Whether the machine has read it, and is told of changes.
    live: bool,
    pipe: Pipe,
    acknowledged: usize,
    /// What the machine wrote and nobody has asked about.
    written: Vec<(String, String)>,
}

impl QubesDb {
    /// A database with these entries.
    #[must_use]
    pub fn new(entries: &[(&str, &str)]) -> Self {
        let entry = |(path, value): &(&str, &str)| ((*path).into(), (*value).into());
        Self { entries: entries.iter().map(entry).collect(), ..Self::default() }
    }

    /// `qubesdb-write`, and what qubesd does.
    pub fn write(&mut self, path: &str, value: &str) {
        self.entries.insert(path.into(), value.into());
        if self.live {
            self.send(WRITE, path, value.as_bytes());
        }
    }

    /// `qubesdb-rm`: a key, or with a slash at its end all that is below it. Nobody is told of what was
    /// not there.
    pub fn remove(&mut self, path: &str) {
        if self.forget(path) && self.live {
            self.send(RM, path, &[]);
        }
    }

    /// What qubesd does when the rules of a client change: removal, rules, commit.
    pub fn set_rules(&mut self, client: &str, policy: &str, rules: &[(u16, &str)]) {
        self.begin_rules(client, policy, rules);
        self.write(&format!("/qubes-firewall/{client}"), "");
    }

    /// The same without the commit.
    pub fn begin_rules(&mut self, client: &str, policy: &str, rules: &[(u16, &str)]) {
        let home = format!("/qubes-firewall/{client}/");
        self.remove(&home);
        self.write(&format!("{home}policy"), policy);
        for (number, rule) in rules {
            self.write(&format!("{home}{number:04}"), rule);
        }
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&str> {
        std::str::from_utf8(self.entries.get(path)?).ok()
    }

    /// Whether the machine has read everything.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// How many changes the machine has acknowledged.
    #[must_use]
    pub const fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// What the machine has written since last asked.
    pub fn take_written(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.written)
    }

    /// Sends bytes the real one would not.
    pub fn corrupt(&mut self, bytes: &[u8]) {
        self.pipe.outbox.extend(bytes);
    }

    /// Whether there was anything to forget.
    fn forget(&mut self, path: &str) -> bool {
        let before = self.entries.len();
        if path.ends_with('/') {
            self.entries.retain(|key, _| !key.starts_with(path));
        } else {
            self.entries.remove(path);
        }
        self.entries.len() != before
    }

    fn send(&mut self, kind: u8, path: &str, data: &[u8]) {
        let mut header = [0; HEADER];
        let [first, field @ ..] = &mut header;
        *first = kind;
        field.iter_mut().zip(path.bytes()).for_each(|(to, from)| *to = from);
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes();
        field.iter_mut().skip(67).zip(len).for_each(|(to, from)| *to = from);
        self.pipe.outbox.extend(header);
        self.pipe.outbox.extend(data);
    }

    fn obey(&mut self, kind: u8, path: &str, data: &[u8]) -> Result<(), Death> {
        match kind {
            WRITE if data.contains(&0) => self.send(ERROR, path, &[]),
            WRITE if !path.starts_with('/') || path.ends_with('/') => {
                return die(format!("failed to write path {path}"));
            }
            WRITE => {
                self.entries.insert(path.into(), data.into());
                self.written.push((path.into(), String::from_utf8_lossy(data).into_owned()));
                self.send(OK, path, &[]);
            }
            MULTIREAD if self.live => return die("received spurious QDB_CMD_MULTIREAD on vchan"),
            MULTIREAD => self.dump(path),
            RM if !data.is_empty() => self.send(ERROR, path, &[]),
            RM if self.forget(path) => self.send(OK, path, &[]),
            RM => {
                self.send(NOENT, path, &[]);
                return die(format!("rm of {path}, which is not there: desynchronised"));
            }
            OK => self.acknowledged += 1,
            ERROR if !data.is_empty() => {
                return die("error packet contains some unexpected data");
            }
            ERROR => {}
            GOT_MULTIREAD => return die("spurious MULTIREAD response"),
            other => return die(format!("unexpected command from peer: {other}")),
        }
        Ok(())
    }

    fn dump(&mut self, prefix: &str) {
        let matching = |(path, _): &(&String, &Vec<u8>)| path.starts_with(prefix);
        let mut entries: Vec<(String, Vec<u8>)> =
            self.entries.iter().filter(matching).map(|(p, v)| (p.clone(), v.clone())).collect();
        entries.reverse();
        for (path, value) in entries {
            self.send(GOT_MULTIREAD, &path, &value);
        }
        self.send(GOT_MULTIREAD, "", &[]);
        self.live = true;
    }
}

impl Daemon for QubesDb {
    fn disconnected(&mut self) {
        self.live = false;
        self.pipe = Pipe::default();
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Death> {
        self.pipe.inbox.extend(bytes);
        while let Some(header) = self.pipe.inbox.get(..HEADER) {
            let (kind, len) =
                (header.first().copied().unwrap_or(0), word(header, HEADER - 4) as usize);
            let field = header.get(1..=PATH).unwrap_or_default();
            let path: Vec<u8> =
                field.iter().copied().take_while(|b| *b != 0).take(PATH - 1).collect();
            let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"_-/.:@".contains(b);
            let known = [WRITE, MULTIREAD, RM, OK, ERROR, GOT_MULTIREAD].contains(&kind);
            if !known || len >= DATA_MAX || !path.iter().all(allowed) {
                return die(format!(
                    "invalid message received from peer: type {kind}, {len} bytes"
                ));
            }
            let path = String::from_utf8_lossy(&path).into_owned();
            let Some(message) = self.pipe.take(HEADER + len) else { break };
            self.obey(kind, &path, message.get(HEADER..).unwrap_or_default())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, path: &str, data: &[u8]) -> Vec<u8> {
        let mut sender = QubesDb::default();
        sender.send(kind, path, data);
        sender.pipe.outbox
    }

    #[test]
    fn it_dies_where_the_real_one_was_seen_to_die() {
        let all = |kind| message(kind, "", &[]);
        let deadly: [(&str, Vec<u8>); 9] = [
            ("READ", message(0, "/name", &[])),
            ("LIST", all(3)),
            ("WATCH", message(5, "/name", &[])),
            ("RM of nothing", message(RM, "/nothing", &[])),
            ("NOENT", message(NOENT, "/name", &[])),
            ("an entry nobody asked for", message(GOT_MULTIREAD, "/name", b"x")),
            ("an error with data", message(ERROR, "/name", b"x")),
            ("a bad path", message(WRITE, "/na me", b"x")),
            ("too much data", message(WRITE, "/name", &[b'x'; 3072])),
        ];
        for (what, bytes) in deadly {
            let mut daemon = QubesDb::new(&[("/name", "fw")]);
            daemon.receive(&all(MULTIREAD)).unwrap();
            assert!(daemon.receive(&bytes).is_err(), "{what}");
        }
        let mut daemon = QubesDb::new(&[("/name", "fw")]);
        daemon.receive(&all(MULTIREAD)).unwrap();
        assert!(daemon.receive(&all(MULTIREAD)).is_err());
        daemon.disconnected();
        daemon.receive(&all(MULTIREAD)).unwrap();
    }

    #[test]
    fn it_lives_through_what_the_real_one_lives_through() {
        let mut daemon = QubesDb::new(&[("/name", "fw")]);
        for bytes in [
            message(MULTIREAD, "", &[]),
            message(WRITE, "/own", b"1"),
            message(WRITE, "/nul", b"a\0b"),
            message(RM, "/own", &[]),
            message(OK, "/name", &[]),
            message(ERROR, "/name", &[]),
        ] {
            // In pieces, as a ring gives them.
            for piece in bytes.chunks(50) {
                daemon.receive(piece).unwrap();
            }
        }
        assert_eq!(
            (daemon.get("/own"), daemon.get("/nul"), daemon.acknowledged()),
            (None, None, 1)
        );
    }
}
