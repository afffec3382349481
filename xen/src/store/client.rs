//! The asynchronous client: requests go in, events come out, bytes move when asked to.
//!
//! In: operations, and whatever XenStore writes. Out: [`Event`]s. Never: waits, or lets the queues
//! grow without bound: requests beyond a limit are refused, and while too many events are not yet
//! taken, XenStore's further bytes stay on its ring.

use super::ring::{BadIndex, REPLIES, REQUESTS};
use super::wire::{
    HEADER, Header, MsgType, Op, PAYLOAD_MAX, Reply, StoreError, TooLong, TxId, parse_watch_event,
};
use crate::hypervisor::{EvtPort, Hypervisor, Memory};
use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Requests sent and not yet answered; C xenstored reads no further ones beyond (quota-outstanding).
const OUTSTANDING_MAX: usize = 20;
/// Transactions open at once, two below what daemons allow.
const TRANSACTIONS_MAX: usize = 8;
/// Requests waiting to be sent.
const QUEUE_MAX: usize = 2048;
/// Events not yet taken from which on nothing more is read.
const EVENTS_MAX: usize = 256;

/// Chosen by the user of the client for each request and watch, to tell to whom an event belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u32);

/// A request that was accepted; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(u32);

/// What XenStore said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The answer to a request.
    Reply {
        /// As given with the request.
        tag: Tag,
        /// Which request.
        id: RequestId,
        /// What came of it.
        result: Result<Reply, StoreError>,
    },
    /// Something at or below a watched path has changed, or may have.
    Watch {
        /// As given with the watch.
        tag: Tag,
        /// What has changed; relative if the watched path was.
        path: String,
    },
    /// XenStore is lost. Comes once; all requests stay unanswered.
    Broken(Broken),
}

/// Why XenStore is taken for lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Producer and consumer index of a ring are further apart than it is long.
    RingIndex,
    /// A message claims a payload above the limit.
    TooLong {
        /// Bytes it claims.
        len: u32,
    },
    /// The reply to a request of this type is not what it should be.
    BadReply(MsgType),
    /// The event channel cannot be signalled.
    Notify,
}

/// Why a request was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// Its path or payload is too long for the protocol.
    TooLong,
    /// Too many requests are waiting.
    QueueFull,
    /// XenStore is lost.
    Broken,
}

/// One request, encoded.
#[derive(Debug)]
struct Queued {
    request: Request,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    id: RequestId,
    /// `None` for the client's own.
    tag: Option<Tag>,
    kind: MsgType,
    tx: TxId,
}

/// A connection to XenStore over its ring page.
#[derive(Debug)]
pub struct Client<M> {
    page: M,
    port: EvtPort,
    last_id: u32,
    queue: VecDeque<Queued>,
    /// TRANSACTION_START requests wait apart, as they may have to wait for others to end.
    starts: VecDeque<Queued>,
    /// What is being written to the ring, from a byte on.
    sending: Vec<u8>,
    sent: usize,
    outstanding: Vec<Request>,
    open_transactions: usize,
    /// What is being read from the ring.
    incoming: Vec<u8>,
    events: VecDeque<Event>,
    /// The ring was not read to its end, as there were too many events.
    held: bool,
    broken: bool,
}

impl<M: Memory> Client<M> {
    /// A client on the ring `page`, signalled by `port`. Its first message drops the watches and
    /// transactions of whoever used the ring before.
    #[must_use]
    pub fn new(page: M, port: EvtPort) -> Self {
        let mut client = Self {
            page,
            port,
            last_id: 0,
            queue: VecDeque::new(),
            starts: VecDeque::new(),
            sending: Vec::new(),
            sent: 0,
            outstanding: Vec::new(),
            open_transactions: 0,
            incoming: Vec::new(),
            events: VecDeque::new(),
            held: false,
            broken: false,
        };
        // The payload is one byte and the queue is empty: it cannot be refused.
        let _ = client.enqueue(None, TxId::NONE, &Op::ResetWatches);
        client
    }

    /// The event channel that tells there is something to [`pump`](Self::pump).
    pub const fn port(&self) -> EvtPort {
        self.port
    }

    /// Queues a request; [`pump`](Self::pump) sends it. Requests are sent in order, but one that
    /// starts a transaction may be overtaken while too many transactions are open.
    ///
    /// # Errors
    /// [`SubmitError`]; there will be no reply then.
    pub fn submit(&mut self, tag: Tag, tx: TxId, op: &Op<'_>) -> Result<RequestId, SubmitError> {
        self.enqueue(Some(tag), tx, op)
    }

    /// Moves bytes both ways as far as they go, and signals XenStore if any did.
    pub fn pump(&mut self, h: &mut impl Hypervisor) {
        if self.broken {
            return;
        }
        let moved = self.exchange();
        let signalled = match moved {
            Ok(true) => h.notify(self.port).map_err(|_| Broken::Notify),
            Ok(false) => Ok(()),
            Err(broken) => Err(broken),
        };
        if let Err(broken) = signalled {
            self.broken = true;
            self.events.push_back(Event::Broken(broken));
        }
    }

    /// Whether there is something to [`pump`](Self::pump) though XenStore has not signalled: requests
    /// that wait, or answers left on the ring as too many events were not yet taken.
    pub fn has_work(&self) -> bool {
        self.held || !(self.queue.is_empty() && self.starts.is_empty() && self.sending.is_empty())
    }

    /// The next event, oldest first.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether nothing is queued, under way or waiting to be taken.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.starts.is_empty()
            && self.sending.is_empty()
            && self.outstanding.is_empty()
            && self.events.is_empty()
    }

    fn enqueue(
        &mut self,
        tag: Option<Tag>,
        tx: TxId,
        op: &Op<'_>,
    ) -> Result<RequestId, SubmitError> {
        if self.broken {
            return Err(SubmitError::Broken);
        }
        if self.queue.len().saturating_add(self.starts.len()) >= QUEUE_MAX {
            return Err(SubmitError::QueueFull);
        }
        let token = tag.map_or_else(String::new, |tag| tag.0.to_string());
        let payload = op.payload(&token).map_err(|TooLong| SubmitError::TooLong)?;
        let id = RequestId(self.unused_id());
        let request = Request { id, tag, kind: op.kind(), tx };
        let len = u32::try_from(payload.len()).map_err(|_| SubmitError::TooLong)?;
        let header = Header { kind: request.kind as u32, request: id.0, tx, len };
        let mut bytes = Vec::from(header.encode());
        bytes.extend_from_slice(&payload);
        match op {
            Op::TransactionStart => &mut self.starts,
            _ => &mut self.queue,
        }
        .push_back(Queued { request, bytes });
        Ok(id)
    }

    /// 0 is for watch events. After 2^32 requests numbers come again, when the old are long answered.
    fn unused_id(&mut self) -> u32 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.last_id
    }

    /// Returns whether any byte moved.
    fn exchange(&mut self) -> Result<bool, Broken> {
        let mut any = false;
        loop {
            let moved = self.send()? | self.receive()?;
            any |= moved;
            if !moved {
                return Ok(any);
            }
        }
    }

    fn send(&mut self) -> Result<bool, Broken> {
        if self.sent == self.sending.len() {
            let Some(next) = self.next_to_send() else { return Ok(false) };
            self.outstanding.push(next.request);
            self.sending = next.bytes;
            self.sent = 0;
        }
        let rest = self.sending.get(self.sent..).unwrap_or_default();
        let put = REQUESTS.put(&self.page, rest).map_err(|BadIndex| Broken::RingIndex)?;
        self.sent = self.sent.saturating_add(put);
        if self.sent == self.sending.len() {
            self.sending.clear();
            self.sent = 0;
        }
        Ok(put != 0)
    }

    fn next_to_send(&mut self) -> Option<Queued> {
        if self.outstanding.len() >= OUTSTANDING_MAX {
            return None;
        }
        let start_is_next = match (self.starts.front(), self.queue.front()) {
            (Some(start), Some(other)) => start.request.id.0 < other.request.id.0,
            (start, _) => start.is_some(),
        };
        if start_is_next && self.open_transactions < TRANSACTIONS_MAX {
            self.open_transactions = self.open_transactions.saturating_add(1);
            return self.starts.pop_front();
        }
        self.queue.pop_front()
    }

    fn receive(&mut self) -> Result<bool, Broken> {
        self.held = self.events.len() >= EVENTS_MAX;
        if self.held {
            return Ok(false);
        }
        let want = self.wanted()?;
        let have = self.incoming.len();
        self.incoming.resize(want, 0);
        let into = self.incoming.get_mut(have..).unwrap_or_default();
        let took = REPLIES.take(&self.page, into).map_err(|BadIndex| Broken::RingIndex)?;
        self.incoming.truncate(have.saturating_add(took));
        if self.incoming.len() >= HEADER && self.incoming.len() == self.wanted()? {
            let message = core::mem::take(&mut self.incoming);
            self.message(&message)?;
        }
        Ok(took != 0)
    }

    /// How long the message being read is, as far as known.
    fn wanted(&self) -> Result<usize, Broken> {
        let Some(header) = self.incoming.first_chunk() else { return Ok(HEADER) };
        let len = Header::decode(header).len;
        match usize::try_from(len) {
            Ok(payload) if payload <= PAYLOAD_MAX => Ok(HEADER.saturating_add(payload)),
            _ => Err(Broken::TooLong { len }),
        }
    }

    fn message(&mut self, message: &[u8]) -> Result<(), Broken> {
        let Some((header, payload)) = message.split_first_chunk::<HEADER>() else { return Ok(()) };
        let header = Header::decode(header);
        if header.kind == MsgType::WatchEvent as u32 {
            self.watch_event(payload);
            return Ok(());
        }
        // An answer nobody waits for is one to whoever used the ring before us.
        let Some(at) = self.outstanding.iter().position(|r| r.id.0 == header.request) else {
            return Ok(());
        };
        let request = self.outstanding.swap_remove(at);
        let result = if header.kind == MsgType::Error as u32 {
            Err(StoreError::parse(payload))
        } else if header.kind == request.kind as u32 && header.tx == request.tx {
            Ok(Reply::parse(request.kind, payload).ok_or(Broken::BadReply(request.kind))?)
        } else {
            return Err(Broken::BadReply(request.kind));
        };
        let ended = match request.kind {
            MsgType::TransactionStart => result.is_err(),
            MsgType::TransactionEnd => true,
            _ => false,
        };
        if ended {
            self.open_transactions = self.open_transactions.saturating_sub(1);
        }
        if let Some(tag) = request.tag {
            self.events.push_back(Event::Reply { tag, id: request.id, result });
        }
        Ok(())
    }

    /// Events with a token that is not ours are from watches we did not set. One that says what a
    /// waiting one says already says nothing new: users look at the state, not at the event.
    fn watch_event(&mut self, payload: &[u8]) {
        let Some((path, token)) = parse_watch_event(payload) else { return };
        let Ok(tag) = token.parse().map(Tag) else { return };
        let known = self
            .events
            .iter()
            .any(|e| matches!(e, Event::Watch { tag: t, path: p } if *t == tag && p == path));
        if !known {
            self.events.push_back(Event::Watch { tag, path: path.into() });
        }
    }
}
