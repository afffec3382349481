//! What a client asked of a resolver and has not been told yet.
//!
//! In: the ids of DNS queries and answers. Out: whether an answer was asked for, and was the last.
//! Never: more than a few; who asks more at once from one socket is not told the oldest.

use crate::FlowId;
use crate::flow::Memory;
use crate::nat::Nat;
use wire::DropReason;

/// Most queries that wait at once. A stub resolver asks two (A and AAAA) from one socket.
const MOST: usize = 4;

/// The ids of queries that wait, oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queries {
    ids: [u16; MOST],
    len: u8,
}

impl Queries {
    /// A query was sent, perhaps again.
    pub(crate) fn ask(&mut self, id: u16) {
        if self.waiting().contains(&id) {
            return;
        }
        if usize::from(self.len) == MOST {
            self.ids.rotate_left(1);
            self.len -= 1;
        }
        if let Some(place) = self.ids.get_mut(usize::from(self.len)) {
            *place = id;
            self.len += 1;
        }
    }

    /// An answer came. `None` if nobody waits for it, otherwise whether it was the last.
    pub(crate) fn answer(&mut self, id: u16) -> Option<bool> {
        let at = self.waiting().iter().position(|waiting| *waiting == id)?;
        self.ids.get_mut(at..usize::from(self.len))?.rotate_left(1);
        self.len -= 1;
        Some(self.len == 0)
    }

    fn waiting(&self) -> &[u16] {
        self.ids.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl Nat {
    /// A client sent a DNS query with this id through a flow that is redirected to a resolver.
    pub fn ask(&mut self, id: FlowId, query: u16) {
        if let Some(Memory::Dns(queries)) = self.get_mut(id).map(|flow| &mut flow.memory) {
            queries.ask(query);
        }
    }

    /// An answer with this id came back through such a flow. True if it was the last that was waited
    /// for: once it has passed, the flow is to be closed, and its port is worth nothing any more.
    ///
    /// # Errors
    /// [`DropReason::Unsolicited`] if no query with this id waits.
    pub fn answer(&mut self, id: FlowId, query: u16) -> Result<bool, DropReason> {
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

    #[test]
    fn each_query_is_answered_once() {
        let mut queries = Queries::default();
        for id in [7, 8, 7] {
            queries.ask(id);
        }
        assert_eq!(queries.answer(9), None, "nobody asked");
        assert_eq!(queries.answer(7), Some(false));
        assert_eq!(queries.answer(7), None, "told already");
        assert_eq!(queries.answer(8), Some(true));
        assert_eq!(queries.answer(8), None);
    }

    #[test]
    fn who_asks_too_much_is_not_told_the_oldest() {
        let mut queries = Queries::default();
        (0..5).for_each(|id| queries.ask(id));
        assert_eq!(queries.answer(0), None);
        assert_eq!((1..5).map(|id| queries.answer(id)).last(), Some(Some(true)));
    }
}
