//! Many doubly linked lists through one table, each value in exactly one of them.
//!
//! In: places of values that carry [`Links`]. Out: the same, in order, each step in constant time.
//! Never: an allocation after it was made.
//!
//! Every list is a ring through a node of its own, its anchor, so that no end is special. Nodes
//! from [`ANCHOR`] on are anchors, those below are places of the table.

use alloc::boxed::Box;

/// Where anchors start.
pub(crate) const ANCHOR: u32 = 1 << 31;

/// The two neighbours of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Links {
    prev: u32,
    next: u32,
}

impl Links {
    /// Of a value that is in no list yet.
    pub(crate) const NONE: Self = Self { prev: u32::MAX, next: u32::MAX };
}

impl Links {
    /// The value behind it in its list, if it is not the last.
    pub(crate) fn next(&self) -> Option<u32> {
        Some(self.next).filter(|next| *next < ANCHOR)
    }

    /// Of a value that is in a ring of its own.
    pub(crate) const fn alone(index: u32) -> Self {
        Self { prev: index, next: index }
    }
}

/// Puts a value that is in no ring behind another.
pub(crate) fn join(values: &mut impl Linked, index: u32, behind: u32) {
    let Some(links) = values.links(behind) else { return };
    let next = core::mem::replace(&mut links.next, index);
    if let Some(links) = values.links(next) {
        links.prev = index;
    }
    if let Some(links) = values.links(index) {
        *links = Links { prev: behind, next };
    }
}

/// Takes a value out of its ring. Another one of it, if there is any.
pub(crate) fn leave(values: &mut impl Linked, index: u32) -> Option<u32> {
    let links = values.links(index)?;
    let Links { prev, next } = core::mem::replace(links, Links::alone(index));
    values.links(prev)?.next = next;
    values.links(next)?.prev = prev;
    (next != index).then_some(next)
}

/// Where the values' links are.
pub(crate) trait Linked {
    /// The links of the value at `index`.
    fn links(&mut self, index: u32) -> Option<&mut Links>;
}

/// The anchors of some lists.
#[derive(Debug)]
pub(crate) struct Lists(Box<[Links]>);

impl Lists {
    /// Bytes for each list.
    pub(crate) const BYTES: usize = size_of::<Links>();

    /// So many empty lists.
    pub(crate) fn new(count: u32) -> Self {
        let anchors = (ANCHOR..).take(count as usize);
        Self(anchors.map(|list| Links { prev: list, next: list }).collect())
    }

    /// The first of a list.
    pub(crate) fn first(&self, list: u32) -> Option<u32> {
        self.0.get(list as usize).map(|anchor| anchor.next).filter(|next| *next < ANCHOR)
    }

    /// Puts a value that is in no list at the end of one.
    pub(crate) fn push(&mut self, values: &mut impl Linked, list: u32, index: u32) {
        let anchor = ANCHOR | list;
        let Some(last) = self.at(values, anchor).map(|links| links.prev) else { return };
        if let Some(links) = self.at(values, index) {
            *links = Links { prev: last, next: anchor };
        }
        self.join(values, last, index);
        if let Some(links) = self.at(values, anchor) {
            links.prev = index;
        }
    }

    /// Takes a value out of the list it is in.
    pub(crate) fn unlink(&mut self, values: &mut impl Linked, index: u32) {
        let Some(links) = self.at(values, index) else { return };
        let Links { prev, next } = core::mem::replace(links, Links::NONE);
        if prev != u32::MAX {
            self.join(values, prev, next);
        }
    }

    fn join(&mut self, values: &mut impl Linked, prev: u32, next: u32) {
        if let Some(links) = self.at(values, prev) {
            links.next = next;
        }
        if let Some(links) = self.at(values, next) {
            links.prev = prev;
        }
    }

    fn at<'a>(&'a mut self, values: &'a mut impl Linked, node: u32) -> Option<&'a mut Links> {
        if node & ANCHOR == 0 {
            values.links(node)
        } else {
            self.0.get_mut((node & !ANCHOR) as usize)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    struct Nodes(Vec<Links>);

    impl Linked for Nodes {
        fn links(&mut self, index: u32) -> Option<&mut Links> {
            self.0.get_mut(index as usize)
        }
    }

    fn drain(lists: &mut Lists, nodes: &mut Nodes, list: u32) -> Vec<u32> {
        core::iter::from_fn(|| {
            let first = lists.first(list)?;
            lists.unlink(nodes, first);
            Some(first)
        })
        .collect()
    }

    #[test]
    fn values_come_out_in_order_whatever_leaves_in_between() {
        for leaving in 0..5 {
            let mut nodes = Nodes(vec![Links::NONE; 5]);
            let mut lists = Lists::new(2);
            for i in 0..5 {
                lists.push(&mut nodes, 0, i);
            }
            lists.unlink(&mut nodes, leaving);
            lists.push(&mut nodes, 1, leaving);
            let stayed: Vec<_> = (0..5).filter(|i| *i != leaving).collect();
            assert_eq!(drain(&mut lists, &mut nodes, 0), stayed);
            assert_eq!(drain(&mut lists, &mut nodes, 1), [leaving]);
            assert_eq!(lists.first(0), None);
        }
    }

    #[test]
    fn who_leaves_a_ring_names_another_of_it_and_the_last_nobody() {
        let mut nodes = Nodes((0..4).map(Links::alone).collect());
        (1..4).for_each(|index| join(&mut nodes, index, 0));
        let mut left = vec![];
        let mut at = Some(2);
        while let Some(index) = at {
            left.push(index);
            at = leave(&mut nodes, index);
        }
        left.sort_unstable();
        assert_eq!(left, [0, 1, 2, 3]);
        join(&mut nodes, 3, 1);
        assert_eq!((leave(&mut nodes, 1), leave(&mut nodes, 3)), (Some(3), None));
    }

    #[test]
    fn unlinking_what_is_in_no_list_does_nothing() {
        let mut nodes = Nodes(vec![Links::NONE; 2]);
        let mut lists = Lists::new(1);
        lists.push(&mut nodes, 0, 1);
        lists.unlink(&mut nodes, 0);
        assert_eq!(drain(&mut lists, &mut nodes, 0), [1]);
    }
}
