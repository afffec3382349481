//! What clients have asked of their resolvers, and have not been answered.
//!
//! In: queries as they leave, and answers as they come. Out: whether an answer is the first to a query
//! that lives, with the very question that was asked. Never: more than a few queries of one client: each
//! is a chance to guess for whoever forges answers.

use crate::message::{Kind, Query};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;
use siphasher::sip::SipHasher13;
use wire::{Instant, Port};

/// Most queries of one client that can be learnt from at once; who asks more is not listened to about
/// the oldest.
pub(crate) const LIVE_MAX: usize = 8;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What tells a query from all others, as the world sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The external port that it left by.
    pub(crate) port: u16,
    /// The id it left with.
    pub(crate) id: u16,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    ticket: Ticket,
    kind: Kind,
    /// Of the question; keyed, so that no other can be made that has the same.
    hash: u64,
    until: Instant,
}

/// The queries of all clients.
pub(crate) struct Live {
    clients: BTreeMap<Port, Vec<Asked>>,
    hasher: SipHasher13,
}

impl Live {
    /// No queries. The key must be fresh.
    pub(crate) fn new(key: [u8; 16]) -> Self {
        Self { clients: BTreeMap::new(), hasher: SipHasher13::new_with_key(&key) }
    }

    /// A query left. One that left before with the same ticket is not listened to any more.
    pub(crate) fn ask(&mut self, now: Instant, vm: Port, ticket: Ticket, query: &Query<'_>) {
        let hash = self.hasher.hash(query.question);
        let places = self.clients.entry(vm).or_insert_with(|| Vec::with_capacity(LIVE_MAX));
        places.retain(|asked| asked.ticket != ticket);
        if places.len() >= LIVE_MAX {
            places.remove(0);
        }
        places.push(Asked { ticket, kind: query.kind, hash, until: now + PATIENCE });
    }

    /// Another query left with this ticket, which is not to be listened to.
    pub(crate) fn forget(&mut self, vm: Port, ticket: Ticket) {
        if let Some(places) = self.clients.get_mut(&vm) {
            places.retain(|asked| asked.ticket != ticket);
        }
    }

    /// Whether an answer with this ticket is waited for.
    pub(crate) fn waits(&self, vm: Port, ticket: Ticket) -> bool {
        self.clients.get(&vm).is_some_and(|places| places.iter().any(|a| a.ticket == ticket))
    }

    /// An answer came: whatever it says, it was the first and last. What was asked, and a way to tell
    /// whether a question is the same.
    pub(crate) fn take(&mut self, now: Instant, vm: Port, ticket: Ticket) -> Option<(Kind, u64)> {
        let places = self.clients.get_mut(&vm)?;
        let at = places.iter().position(|asked| asked.ticket == ticket)?;
        let asked = places.remove(at);
        (asked.until > now).then_some((asked.kind, asked.hash))
    }

    /// Whether a question is the one that was asked.
    pub(crate) fn is(&self, question: &[u8], hash: u64) -> bool {
        self.hasher.hash(question) == hash
    }

    /// A client is gone.
    pub(crate) fn client_gone(&mut self, vm: Port) {
        self.clients.remove(&vm);
    }
}

impl core::fmt::Debug for Live {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Live")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Name, write_query};

    const VM: Port = Port::new(1, 0);

    fn ask(live: &mut Live, now: Instant, ticket: Ticket) {
        let mut out = [0; crate::QUERY_MAX];
        let name = Name::new("a.b").unwrap();
        let len = write_query(0, &name, Kind::A, false, &mut out).unwrap();
        live.ask(now, VM, ticket, &Query::read(&out[..len]).unwrap());
    }

    #[test]
    fn each_query_is_listened_to_once_and_for_a_while() {
        let mut live = Live::new([1; 16]);
        let (now, ticket) = (Instant::from_secs(1), Ticket { port: 5, id: 6 });
        ask(&mut live, now, ticket);
        assert!(live.waits(VM, ticket));
        for other in [Ticket { port: 6, ..ticket }, Ticket { id: 7, ..ticket }] {
            assert_eq!(live.take(now, VM, other), None);
        }
        assert_eq!(live.take(now, Port::new(1, 1), ticket), None, "another client");
        assert!(live.take(now, VM, ticket).is_some());
        assert_eq!(live.take(now, VM, ticket), None);
        ask(&mut live, now, ticket);
        assert_eq!(live.take(now + PATIENCE, VM, ticket), None, "too late");
        ask(&mut live, now, ticket);
        live.forget(VM, ticket);
        assert_eq!(live.take(now, VM, ticket), None);
    }

    #[test]
    fn only_the_last_few_are_listened_to() {
        let mut live = Live::new([1; 16]);
        let ticket = |port| Ticket { port, id: 1 };
        for port in 0..20 {
            ask(&mut live, Instant::ZERO, ticket(port));
        }
        let waited = (0..20).filter(|port| live.waits(VM, ticket(*port)));
        assert!(waited.eq(12..20));
    }
}
