//! A XenStore with one firewall in it that answers offers, on a Unix socket.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use tidegate::appliance::delivery::offer::{ANSWER, COMMIT, MOST, Offer, RUNNING, unhex};
use xen::store::wire::{HEADER, Header, MsgType, TxId};

/// What the firewall does with an offer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firewall {
    /// Checks it, and says what came of it.
    Answers,
    /// Says nothing.
    Silent,
    /// Says what a terminal would obey.
    Rude,
}

const HOME: &str = "/local/domain/7";

struct Store {
    nodes: BTreeMap<String, Vec<u8>>,
    firewall: Firewall,
}

/// Serves one connection on `socket`; the join handle gives the nodes that are left in the end.
pub(crate) fn serve(
    socket: &Path,
    firewall: Firewall,
    nodes: &[(&str, &str)],
) -> thread::JoinHandle<BTreeMap<String, Vec<u8>>> {
    drop(std::fs::remove_file(socket));
    let listener = UnixListener::bind(socket).unwrap();
    let mut all = BTreeMap::from([(format!("{HOME}/name"), b"fw".to_vec())]);
    for (path, value) in nodes {
        all.insert(format!("{HOME}/{path}"), value.as_bytes().to_vec());
    }
    let mut store = Store { nodes: all, firewall };
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        while let Some((header, payload)) = message(&mut stream) {
            store.answer(&mut stream, &header, &payload);
        }
        store.nodes
    })
}

fn message(stream: &mut UnixStream) -> Option<(Header, Vec<u8>)> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).ok()?;
    let header = Header::decode(&header);
    let mut payload = vec![0; header.len as usize];
    stream.read_exact(&mut payload).unwrap();
    Some((header, payload))
}

fn send(stream: &mut UnixStream, header: &Header, kind: MsgType, payload: &[u8]) {
    let len = u32::try_from(payload.len()).unwrap();
    let header = Header { kind: kind as u32, len, ..*header };
    stream.write_all(&[&header.encode(), payload].concat()).unwrap();
}

impl Store {
    fn answer(&mut self, stream: &mut UnixStream, header: &Header, payload: &[u8]) {
        let end = payload.iter().position(|b| *b == 0).unwrap();
        let path = String::from_utf8(payload[..end].to_vec()).unwrap();
        let below = format!("{path}/");
        let kind = MsgType::parse(header.kind).unwrap();
        let done = match kind {
            MsgType::Read => self.nodes.get(&path).cloned(),
            MsgType::Directory => Some(self.names(&below)),
            MsgType::Write => {
                assert!(payload.len() - end < 2048, "xenstored's quota");
                self.nodes.insert(path.clone(), payload[end + 1..].to_vec());
                Some(b"OK\0".to_vec())
            }
            MsgType::Rm => {
                self.nodes.retain(|p, _| *p != path && !p.starts_with(&below));
                Some(b"OK\0".to_vec())
            }
            MsgType::Watch => Some(b"OK\0".to_vec()),
            _ => None,
        };
        match done {
            Some(done) => send(stream, header, kind, &done),
            None => send(stream, header, MsgType::Error, b"ENOENT\0"),
        }
        let event = Header { request: 0, tx: TxId::NONE, ..*header };
        let told = [format!("{HOME}/{ANSWER}").as_bytes(), b"\0tidegate\0"].concat();
        if kind == MsgType::Watch {
            send(stream, &event, MsgType::WatchEvent, &told);
        }
        if path == format!("{HOME}/{COMMIT}")
            && kind == MsgType::Write
            && let Some(said) = self.judge(&payload[end + 1..])
        {
            self.nodes.insert(format!("{HOME}/{ANSWER}"), said.into_bytes());
            send(stream, &event, MsgType::WatchEvent, &told);
        }
    }

    fn names(&self, below: &str) -> Vec<u8> {
        let first = |path: &str| path.strip_prefix(below)?.split('/').next().map(str::to_owned);
        let mut names: Vec<_> = self.nodes.keys().filter_map(|path| first(path)).collect();
        names.dedup();
        names.iter().flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect()
    }

    /// What the firewall says of an offer.
    fn judge(&mut self, marker: &[u8]) -> Option<String> {
        let offer = Offer::parse(marker).unwrap();
        let part = |n| unhex(&self.nodes[&format!("{HOME}/{}", offer.part(n))]).unwrap();
        let blob: Vec<u8> = (0..offer.parts()).flat_map(part).collect();
        match self.firewall {
            Firewall::Silent => None,
            Firewall::Rude => Some(format!("{} refused: \u{1b}[2J", offer.id())),
            Firewall::Answers => {
                let policy = rules::Policy::decode(&blob).unwrap();
                assert_eq!((policy.digest(), blob.len()), (offer.digest(), offer.len()));
                let running = format!("{} {}", policy.digest(), policy.name());
                self.nodes.insert(format!("{HOME}/{RUNNING}"), running.into_bytes());
                Some(format!("{} loaded", offer.id()))
            }
        }
    }
}

/// How much there is room for, in the words of [`MOST`].
pub(crate) const fn room(most: &'static str) -> (&'static str, &'static str) {
    (MOST, most)
}
