//! One domain's ring: requests in, replies and watch events out, byte by byte.

use super::store::{Caller, Store};
use crate::hypervisor::{DomId, EvtPort, Hypervisor, Memory};
use crate::sim::{SimHypervisor, SimPage};
use crate::store::StoreError;
use crate::store::ring::{REPLIES, REQUESTS};
use crate::store::wire::{HEADER, Header, MsgType, PAYLOAD_MAX, Perm, TxId};
use std::collections::VecDeque;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

pub(super) struct Connection {
    page: SimPage,
    port: EvtPort,
    incoming: Vec<u8>,
    outgoing: VecDeque<u8>,
    broken: bool,
}

impl Connection {
    /// A new ring, whose indices stand at `start`.
    pub(super) fn new(page: SimPage, port: EvtPort, start: u32) -> Self {
        for index in [2048, 2052, 2056, 2060] {
            page.store(index, start);
        }
        Self { page, port, incoming: Vec::new(), outgoing: VecDeque::new(), broken: false }
    }

    /// Moves what can be moved and answers whole requests; returns whether anything moved.
    pub(super) fn serve(&mut self, dom: DomId, store: &mut Store, h: &mut SimHypervisor) -> bool {
        if self.broken {
            return false;
        }
        let mut any = false;
        while let Some(moved) = self.exchange(dom, store)
            && moved
        {
            any = true;
        }
        if any {
            h.notify(self.port).expect("the port of a guest");
        }
        any
    }

    /// As [`serve`](Self::serve), one step of it.
    pub(super) fn serve_one(
        &mut self,
        dom: DomId,
        store: &mut Store,
        h: &mut SimHypervisor,
    ) -> bool {
        let moved = !self.broken && self.exchange(dom, store) == Some(true);
        if moved {
            h.notify(self.port).expect("the port of a guest");
        }
        moved
    }

    /// `None` if the guest's ring is broken.
    fn exchange(&mut self, dom: DomId, store: &mut Store) -> Option<bool> {
        let mut moved = self.write()?;
        // As the real one: no new request while the reply to the last one waits for room.
        if self.outgoing.is_empty() {
            moved |= self.read(dom, store)?;
        }
        if self.outgoing.is_empty()
            && let Some(event) = store.next_event(Caller::Domain(dom))
        {
            let payload = format!("{}\0{}\0", event.path, event.token);
            self.push(MsgType::WatchEvent, 0, TxId::NONE, payload.as_bytes());
            moved = true;
        }
        Some(moved)
    }

    fn write(&mut self) -> Option<bool> {
        let bytes = self.outgoing.make_contiguous();
        let Ok(put) = REPLIES.put(&self.page, bytes) else {
            self.broken = true;
            return None;
        };
        self.outgoing.drain(..put);
        Some(put != 0)
    }

    fn read(&mut self, dom: DomId, store: &mut Store) -> Option<bool> {
        let want = match self.incoming.first_chunk::<HEADER>() {
            Some(header) => HEADER + Header::decode(header).len as usize,
            None => HEADER,
        };
        if want > HEADER + PAYLOAD_MAX {
            self.broken = true;
            return None;
        }
        let have = self.incoming.len();
        self.incoming.resize(want, 0);
        let Ok(took) = REQUESTS.take(&self.page, &mut self.incoming[have..]) else {
            self.broken = true;
            return None;
        };
        self.incoming.truncate(have + took);
        let complete = self.incoming.first_chunk::<HEADER>().is_some_and(|header| {
            self.incoming.len() == HEADER + Header::decode(header).len as usize
        });
        if complete {
            let message = core::mem::take(&mut self.incoming);
            if let Some((header, payload)) = message.split_first_chunk::<HEADER>() {
                self.answer(dom, store, Header::decode(header), payload);
            }
        }
        Some(took != 0)
    }

    fn answer(&mut self, dom: DomId, store: &mut Store, header: Header, payload: &[u8]) {
        match respond(Caller::Domain(dom), store, header, payload) {
            Ok((kind, reply)) => self.push(kind, header.request, header.tx, &reply),
            Err(error) => {
                let name = format!("{}\0", error.name());
                self.push(MsgType::Error, header.request, header.tx, name.as_bytes());
            }
        }
    }

    fn push(&mut self, kind: MsgType, request: u32, tx: TxId, payload: &[u8]) {
        let len = u32::try_from(payload.len()).expect("a short reply");
        self.outgoing.extend(Header { kind: kind as u32, request, tx, len }.encode());
        self.outgoing.extend(payload);
    }
}

fn respond(
    who: Caller,
    store: &mut Store,
    header: Header,
    payload: &[u8],
) -> Result<(MsgType, Vec<u8>), StoreError> {
    let kind = MsgType::parse(header.kind).ok_or(StoreError::Enosys)?;
    let tx = (header.tx != TxId::NONE).then_some(header.tx.0);
    let (first, rest) = first_string(payload)?;
    let ok = |()| b"OK\0".to_vec();
    let reply = match kind {
        MsgType::Read => store.read(who, tx, first)?,
        MsgType::Directory => joined(store.directory(who, tx, first)?)?,
        MsgType::DirectoryPart => {
            let all: String =
                store.directory(who, tx, first)?.iter().map(|n| format!("{n}\0")).collect();
            part(&all, first_string(rest)?.0)?
        }
        MsgType::GetPerms => joined(store.perms(who, tx, first)?.iter().map(Perm::to_string))?,
        MsgType::SetPerms => {
            let text = core::str::from_utf8(rest).map_err(|_| StoreError::Einval)?;
            let perms = text.split_terminator('\0').map(Perm::parse).collect::<Option<_>>();
            store.set_perms(who, tx, first, perms.ok_or(StoreError::Einval)?).map(ok)?
        }
        MsgType::Write => store.write(who, tx, first, rest).map(ok)?,
        MsgType::Mkdir => store.mkdir(who, tx, first).map(ok)?,
        MsgType::Rm => store.remove(who, tx, first).map(ok)?,
        MsgType::Watch => store.watch(who, first, first_string(rest)?.0).map(ok)?,
        MsgType::Unwatch => store.unwatch(who, first, first_string(rest)?.0).map(ok)?,
        MsgType::TransactionStart => format!("{}\0", store.begin(who)?).into(),
        MsgType::TransactionEnd => {
            let commit = match first {
                "T" => true,
                "F" => false,
                _ => return Err(StoreError::Einval),
            };
            store.end(who, tx.ok_or(StoreError::Einval)?, commit).map(ok)?
        }
        MsgType::GetDomainPath => {
            let dom: u16 = first.parse().map_err(|_| StoreError::Einval)?;
            format!("/local/domain/{dom}\0").into()
        }
        MsgType::ResetWatches => {
            store.reset(who);
            ok(())
        }
        MsgType::WatchEvent | MsgType::Error => return Err(StoreError::Enosys),
    };
    Ok((kind, reply))
}

fn first_string(payload: &[u8]) -> Result<(&str, &[u8]), StoreError> {
    let end = payload.iter().position(|b| *b == 0).ok_or(StoreError::Einval)?;
    let text = core::str::from_utf8(&payload[..end]).map_err(|_| StoreError::Einval)?;
    Ok((text, &payload[end + 1..]))
}

fn joined(strings: impl IntoIterator<Item = String>) -> Result<Vec<u8>, StoreError> {
    let all: String = strings.into_iter().map(|s| format!("{s}\0")).collect();
    if all.len() > PAYLOAD_MAX { Err(StoreError::E2big) } else { Ok(all.into()) }
}

fn part(all: &str, offset: &str) -> Result<Vec<u8>, StoreError> {
    let offset: usize = offset.parse().map_err(|_| StoreError::Einval)?;
    let rest = all.get(offset..).ok_or(StoreError::Einval)?;
    let mut reply = String::from("1\0");
    let mut names = rest.split_inclusive('\0').peekable();
    while let Some(name) = names.next_if(|n| reply.len() + n.len() < PAYLOAD_MAX) {
        reply.push_str(name);
    }
    if names.peek().is_none() {
        reply.push('\0');
    }
    Ok(reply.into())
}
