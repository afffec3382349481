//! What a client asked of a resolver and has not been told yet.
//!
//! In: the ids of DNS queries and answers. Out: the id that a query has in the world, drawn anew for
//! each; whether an answer was asked for, and was the last. Never: more than a few; who asks more at
//! once from one socket is not told the oldest.

use crate::FlowId;
use crate::flow::Memory;
use crate::nat::Nat;
use crate::own;
use wire::DropReason;

/// Most queries that wait at once. A stub resolver asks two (A and AAAA) from one socket.
const MOST: usize = 4;

/// A query that waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Waiting {
    /// Its id as the client chose it.
    inside: u16,
    /// Its id in the world.
    outside: u16,
}

/// The queries that wait, oldest first. No two have the same id on either side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queries {
    places: [Waiting; MOST],
    len: u8,
}

/// An answer that was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The id its query had when the client sent it.
    pub id: u16,
    /// Whether no other is waited for: once it has passed, the flow is to be closed, and its port is
    /// worth nothing any more.
    pub last: bool,
}

impl Queries {
    /// A query was sent, perhaps again. The id it gets in the world: `fresh`, or the one it has.
    pub(crate) fn ask(&mut self, inside: u16, mut fresh: impl FnMut() -> u16) -> u16 {
        if let Some(again) = self.waiting().iter().find(|waiting| waiting.inside == inside) {
            return again.outside;
        }
        if usize::from(self.len) == MOST {
            self.places.rotate_left(1);
            self.len -= 1;
        }
        let mut outside = fresh();
        // Few are taken, so this ends; the source of `fresh` may be a poor one in a test.
        while self.waiting().iter().any(|waiting| waiting.outside == outside) {
            outside = outside.wrapping_add(fresh() | 1);
        }
        if let Some(place) = self.places.get_mut(usize::from(self.len)) {
            *place = Waiting { inside, outside };
            self.len += 1;
        }
        outside
    }

    /// An answer with this id in the world came; `None` if nobody waits for it.
    pub(crate) fn answer(&mut self, outside: u16) -> Option<Answered> {
        let at = self.waiting().iter().position(|waiting| waiting.outside == outside)?;
        let id = self.places.get(at)?.inside;
        self.places.get_mut(at..usize::from(self.len))?.rotate_left(1);
        self.len -= 1;
        Some(Answered { id, last: self.len == 0 })
    }

    fn waiting(&self) -> &[Waiting] {
        self.places.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl Nat {
    /// A client sent a DNS query with this id through a flow that is redirected to a resolver. The id
    /// it is to have in the world, which nobody but the resolver is ever told.
    pub fn ask(&mut self, id: FlowId, query: u16) -> u16 {
        let Self { flows, keyed, .. } = self;
        let flow = flows.get_mut(id.index).filter(|flow| flow.generation == id.generation);
        match flow.map(|flow| &mut flow.memory) {
            Some(Memory::Dns(queries)) => queries.ask(query, || own::draw(keyed)),
            Some(Memory::Tcp(_) | Memory::None) | None => query,
        }
    }

    /// An answer with this id came back through such a flow.
    ///
    /// # Errors
    /// [`DropReason::Unsolicited`] if no query with this id waits.
    pub fn answer(&mut self, id: FlowId, query: u16) -> Result<Answered, DropReason> {
        match self.get_mut(id).map(|flow| &mut flow.memory) {
            Some(Memory::Dns(queries)) => queries.answer(query).ok_or(DropReason::Unsolicited),
            Some(Memory::Tcp(_) | Memory::None) | None => Err(DropReason::Unsolicited),
        }
    }

    /// Whether a flow is redirected to a resolver over UDP, so that [`Nat::ask`] and [`Nat::answer`]
    /// are about it.
    #[must_use]
    pub fn is_dns(&self, id: FlowId) -> bool {
        matches!(self.get(id).map(|flow| &flow.memory), Some(Memory::Dns(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// The id in the world is the one inside and a thousand.
    fn ask(queries: &mut Queries, id: u16) -> u16 {
        queries.ask(id, || id + 1000)
    }

    #[test]
    fn each_query_is_answered_once_under_the_id_it_had() {
        let mut queries = Queries::default();
        assert_eq!([7, 8, 7].map(|id| ask(&mut queries, id)), [1007, 1008, 1007]);
        assert_eq!(queries.answer(7), None, "nobody asked that in the world");
        assert_eq!(queries.answer(1007), Some(Answered { id: 7, last: false }));
        assert_eq!(queries.answer(1007), None, "told already");
        assert_eq!(queries.answer(1008), Some(Answered { id: 8, last: true }));
        assert_eq!(queries.answer(1008), None);
    }

    #[test]
    fn who_asks_too_much_is_not_told_the_oldest() {
        let mut queries = Queries::default();
        for id in 0..5 {
            ask(&mut queries, id);
        }
        assert_eq!(queries.answer(1000), None);
        let last = (1001..1005).filter_map(|id| queries.answer(id)).last();
        assert_eq!(last, Some(Answered { id: 4, last: true }));
    }

    #[test]
    fn a_query_sent_again_keeps_its_id_and_no_two_share_one() {
        let mut queries = Queries::default();
        let ids: Vec<u16> = (0..4).map(|id| queries.ask(id, || 5)).collect();
        let again: Vec<u16> = (0..4).map(|id| queries.ask(id, || 9)).collect();
        assert_eq!(ids, again);
        for (n, id) in ids.iter().enumerate() {
            assert!(!ids[..n].contains(id), "{ids:?}");
        }
    }
}
