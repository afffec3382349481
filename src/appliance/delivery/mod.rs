//! A new policy while the firewall runs, from dom0 through XenStore.
//!
//! In: XenStore events. Out: a checked policy to put in force, the answer to its sender, lines for the
//! console. Never: a policy that is not whole; a part that is asked for before the sender has said that
//! all stand there (the commit marker, written last); a wait.
//!
//! The parts stand in nodes of their own for each offer, so that two senders do not mix. What the marker
//! says counts, not how often it was written; of two offers the one written last wins.

mod inbox;
pub mod offer;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use inbox::{Inbox, Refusal};
use offer::{ANSWER, COMMIT, MOST, Offer, PART, RUNNING, unhex};
use rules::Policy;
use xen::hypervisor::Memory;
use xen::store::{
    Client, Event, Found, Gather, Key, Op, Reply, RequestId, Step, StoreError, SubmitError, Tag,
    TxId,
};

/// Parts asked for at once: less than XenStore answers without our taking of replies.
const PARTS_AT_ONCE: usize = 8;

/// What we are at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ours {
    /// Waiting for an offer.
    Idle,
    /// Reading the parts of one.
    Reading,
}

/// What the marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// There is none.
    Nothing,
    /// The one that was answered last.
    Answered,
    /// The one whose parts are being read.
    Current,
    /// Another.
    Other,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// Nothing.
    Rest,
    /// Take it up, instead of what is being read if anything is.
    Begin,
    /// Forget what was read.
    Abandon,
}

/// Level-triggered: called again whenever something may have changed.
const fn next(ours: Ours, seen: Seen) -> Move {
    match (ours, seen) {
        (_, Seen::Other) => Move::Begin,
        (Ours::Reading, Seen::Nothing | Seen::Answered) => Move::Abandon,
        (Ours::Reading, Seen::Current) | (Ours::Idle, _) => Move::Rest,
    }
}

/// What [`Delivery::on_store`] found out.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and it moves once")]
pub(super) enum News {
    /// A policy to put in force; [`Delivery::answer`] tells its sender what came of it.
    Arrived(Box<Policy>),
    /// A line for the console.
    Line(String),
}

/// The watch on the marker and what is under way for it.
#[derive(Debug)]
pub(super) struct Delivery {
    tag: Tag,
    most: usize,
    looking: Option<RequestId>,
    /// It changed while it was being read.
    again: bool,
    /// The marker that was answered last.
    answered: Vec<u8>,
    reading: Option<Reading>,
}

/// An offer whose parts are being read.
#[derive(Debug)]
struct Reading {
    marker: Vec<u8>,
    inbox: Inbox,
    /// Parts that are in, or asked for.
    asked: usize,
    replies: Gather,
}

/// Why an offer came to nothing.
enum Failure {
    Marker,
    Missing(usize),
    NotHex(usize),
    Refused(Refusal),
    Store(StoreError),
    Submit(SubmitError),
}

impl Delivery {
    /// Watches for offers of at most `most` bytes, and says so beside what is `running`.
    pub(super) fn start<M: Memory>(
        store: &mut Client<M>,
        tag: Tag,
        most: usize,
        running: Option<&Policy>,
    ) -> Result<Self, SubmitError> {
        store.submit(tag, TxId::NONE, &Op::Write(MOST, format!("{most}").as_bytes()))?;
        store.submit(tag, TxId::NONE, &Op::Write(RUNNING, name(running).as_bytes()))?;
        store.submit(tag, TxId::NONE, &Op::Watch(COMMIT))?;
        let (answered, reading) = (Vec::new(), None);
        Ok(Self { tag, most, looking: None, again: false, answered, reading })
    }

    /// Takes an event with the tag given at the start.
    pub(super) fn on_store<M: Memory>(
        &mut self,
        store: &mut Client<M>,
        event: &Event,
    ) -> Option<News> {
        match event {
            Event::Watch { .. } if self.looking.is_some() => {
                self.again = true;
                None
            }
            Event::Watch { .. } => {
                self.look(store);
                None
            }
            Event::Reply { id, result, .. } if self.looking == Some(*id) => {
                self.looking = None;
                if core::mem::take(&mut self.again) {
                    self.look(store);
                    return None;
                }
                let marker = match result {
                    Ok(Reply::Value(marker)) => marker.as_slice(),
                    _ => b"",
                };
                self.act(store, marker)
            }
            Event::Reply { id, result, .. } => self.on_reply(store, *id, result),
            Event::Broken(_) => None,
        }
    }

    /// Tells the sender of what [`News::Arrived`] whether its policy is in force; `running` is the one
    /// that is.
    pub(super) fn answer<M: Memory>(&self, store: &mut Client<M>, running: Option<&Policy>) {
        let id = Offer::parse(&self.answered);
        let id = id.as_ref().map_or("-", Offer::id);
        self.write(store, RUNNING, &name(running));
        self.write(store, ANSWER, &format!("{id} loaded"));
    }

    /// Tells which policy is in force, if it came another way.
    pub(super) fn running<M: Memory>(&self, store: &mut Client<M>, running: Option<&Policy>) {
        self.write(store, RUNNING, &name(running));
    }

    fn look<M: Memory>(&mut self, store: &mut Client<M>) {
        self.looking = store.submit(self.tag, TxId::NONE, &Op::Read(COMMIT)).ok();
    }

    fn act<M: Memory>(&mut self, store: &mut Client<M>, marker: &[u8]) -> Option<News> {
        let current = self.reading.as_ref().is_some_and(|reading| reading.marker == marker);
        let seen = match marker {
            b"" => Seen::Nothing,
            _ if marker == self.answered => Seen::Answered,
            _ if current => Seen::Current,
            _ => Seen::Other,
        };
        let ours = if self.reading.is_some() { Ours::Reading } else { Ours::Idle };
        match next(ours, seen) {
            Move::Rest => None,
            Move::Begin => {
                self.reading = None;
                match self.begin(store, marker) {
                    Ok(reading) => {
                        self.reading = Some(reading);
                        None
                    }
                    Err(why) => Some(self.refuse(store, marker, &why)),
                }
            }
            Move::Abandon => {
                let reading = self.reading.take()?;
                let id = reading.inbox.offer().id();
                Some(News::Line(format!("policy: offer {id} was taken back")))
            }
        }
    }

    fn begin<M: Memory>(&self, store: &mut Client<M>, marker: &[u8]) -> Result<Reading, Failure> {
        let offer = Offer::parse(marker).ok_or(Failure::Marker)?;
        let inbox = Inbox::open(offer, self.most).map_err(Failure::Refused)?;
        let replies = ask(store, self.tag, inbox.offer(), 0).map_err(Failure::Submit)?;
        let asked = PARTS_AT_ONCE.min(inbox.offer().parts());
        Ok(Reading { marker: marker.into(), inbox, asked, replies })
    }

    fn on_reply<M: Memory>(
        &mut self,
        store: &mut Client<M>,
        id: RequestId,
        result: &Result<Reply, StoreError>,
    ) -> Option<News> {
        let step = self.reading.as_mut().map_or(Step::NotMine, |r| r.replies.on(id, result));
        match step {
            Step::Pending => None,
            Step::Done(found) => self.take(store, found.map_err(|e| Failure::Store(e.error))),
            // A write, or what belonged to an offer that was given up.
            Step::NotMine => match result {
                Err(error) if !error.is_gone() => {
                    Some(News::Line(format!("data/policy: XenStore refuses: {}", error.name())))
                }
                _ => None,
            },
        }
    }

    /// Takes parts that have come, and asks for more or ends.
    fn take<M: Memory>(
        &mut self,
        store: &mut Client<M>,
        found: Result<Vec<Found>, Failure>,
    ) -> Option<News> {
        let mut reading = self.reading.take()?;
        let whole = found.and_then(|parts| reading.put(&parts)).and_then(|()| {
            let offer = reading.inbox.offer();
            if reading.asked >= offer.parts() {
                return Ok(true);
            }
            reading.replies =
                ask(store, self.tag, offer, reading.asked).map_err(Failure::Submit)?;
            reading.asked = reading.asked.saturating_add(PARTS_AT_ONCE).min(offer.parts());
            Ok(false)
        });
        let Reading { marker, inbox, .. } = match whole {
            Ok(true) => reading,
            Ok(false) => {
                self.reading = Some(reading);
                return None;
            }
            Err(why) => return Some(self.refuse(store, &reading.marker, &why)),
        };
        match inbox.close() {
            Ok(policy) => {
                self.answered = marker;
                Some(News::Arrived(Box::new(policy)))
            }
            Err(why) => Some(self.refuse(store, &marker, &Failure::Refused(why))),
        }
    }

    fn refuse<M: Memory>(&mut self, store: &mut Client<M>, marker: &[u8], why: &Failure) -> News {
        self.answered = marker.into();
        let id = Offer::parse(marker);
        let id = id.as_ref().map_or("-", Offer::id);
        self.write(store, ANSWER, &format!("{id} refused: {why}"));
        News::Line(format!("policy: offer {id} refused: {why}; what was in force stays"))
    }

    /// An answer that cannot even be queued is one nobody gets; the console has the same.
    fn write<M: Memory>(&self, store: &mut Client<M>, path: &str, value: &str) {
        let _unanswered = store.submit(self.tag, TxId::NONE, &Op::Write(path, value.as_bytes()));
    }
}

impl Reading {
    /// Takes the parts that were asked for last.
    fn put(&mut self, parts: &[Found]) -> Result<(), Failure> {
        let first = self.asked.saturating_sub(parts.len());
        for (n, part) in (first..).zip(parts) {
            let text = part.value().ok_or(Failure::Missing(n))?;
            let bytes = unhex(text).filter(|bytes| bytes.len() <= PART);
            let bytes = bytes.ok_or(Failure::NotHex(n))?;
            self.inbox.push(&bytes).map_err(Failure::Refused)?;
        }
        Ok(())
    }
}

/// Asks for some parts of an offer.
fn ask<M: Memory>(
    store: &mut Client<M>,
    tag: Tag,
    offer: &Offer,
    from: usize,
) -> Result<Gather, SubmitError> {
    let to = from.saturating_add(PARTS_AT_ONCE).min(offer.parts());
    let paths: Vec<String> = (from..to).map(|n| offer.part(n)).collect();
    Gather::start(store, tag, TxId::NONE, paths.iter().map(|path| Key::Value(path)))
}

fn name(policy: Option<&Policy>) -> String {
    policy.map_or_else(|| "none".into(), |policy| format!("{} {}", policy.digest(), policy.name()))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Marker => f.write_str("the commit marker makes no sense"),
            Self::Missing(n) => write!(f, "part {n} is missing"),
            Self::NotHex(n) => write!(f, "part {n} is not hexadecimal, or too long"),
            Self::Refused(why) => write!(f, "{why}"),
            Self::Store(error) => write!(f, "XenStore says {}", error.name()),
            Self::Submit(error) => write!(f, "XenStore cannot be asked: {error:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_alone_says_what_is_to_be_done() {
        let table = [
            (Ours::Idle, Seen::Nothing, Move::Rest),
            (Ours::Idle, Seen::Answered, Move::Rest),
            (Ours::Idle, Seen::Current, Move::Rest),
            (Ours::Idle, Seen::Other, Move::Begin),
            (Ours::Reading, Seen::Nothing, Move::Abandon),
            (Ours::Reading, Seen::Answered, Move::Abandon),
            (Ours::Reading, Seen::Current, Move::Rest),
            (Ours::Reading, Seen::Other, Move::Begin),
        ];
        for (ours, seen, step) in table {
            assert_eq!(next(ours, seen), step, "{ours:?}, {seen:?}");
        }
    }
}
