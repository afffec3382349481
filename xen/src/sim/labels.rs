//! A label on every byte, to prove where bytes go.
//!
//! A test labels the bytes of a frame where they enter. Grant copies carry labels along, and so do moves
//! between private memory and a page; whatever else a domain writes is [`Label::OURS`]. Each time
//! labelled bytes come into a page that is lent, or such a page is lent, the test's hook is told to whom.

use super::Sim;
use crate::hypervisor::{DomId, FrameNo};
use std::boxed::Box;
use std::cell::RefCell;
use std::ops::Range;
use std::rc::{Rc, Weak};
use std::vec;
use std::vec::Vec;

/// What a byte belongs to; numbers are the test's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(pub u16);

impl Label {
    /// Nobody's secret: zeros and what the domain wrote itself.
    pub const OURS: Self = Self(0);
}

/// The labels of a domain's private memory, byte by byte.
pub(super) type Labels = Rc<RefCell<Vec<Label>>>;

/// The labels of all private memory, by the addresses where it stands: so a move shows what it moves.
#[derive(Default)]
pub(super) struct Privates(Vec<(Range<usize>, WeakLabels)>);

type WeakLabels = Weak<RefCell<Vec<Label>>>;

impl Privates {
    pub(super) fn add(&mut self, bytes: &[u8], labels: &Labels) {
        self.0.retain(|(_, labels)| labels.strong_count() != 0);
        let at = bytes.as_ptr_range();
        self.0.push((at.start.addr()..at.end.addr(), Rc::downgrade(labels)));
    }

    /// Shows `act` the labels of `bytes`, if those stand in private memory.
    pub(super) fn of(&self, bytes: &[u8], act: impl FnOnce(&mut [Label])) -> bool {
        let from = bytes.as_ptr().addr();
        let at = self.0.iter().find(|(at, _)| at.contains(&from));
        let Some((base, labels)) = at.and_then(|(at, all)| Some((at.start, all.upgrade()?))) else {
            return false;
        };
        act(&mut labels.borrow_mut()[from - base..][..bytes.len()]);
        true
    }
}

/// Bytes that another domain can read now.
#[derive(Clone, Copy, Debug)]
pub struct Exposure<'a> {
    /// Whose page they are in.
    pub owner: DomId,
    /// Who can read them.
    pub to: DomId,
    /// The page.
    pub frame: FrameNo,
    /// Where in the page they start.
    pub offset: usize,
    /// Their labels.
    pub labels: &'a [Label],
}

impl Sim {
    /// Keeps labels from now on (pages that exist start as [`Label::OURS`]) and calls `hook` for each
    /// exposure.
    pub fn on_exposure(&self, hook: impl FnMut(&Exposure<'_>) + 'static) {
        let mut state = self.world.state.borrow_mut();
        state.labels = true;
        for frame in state.frames.values_mut().filter(|f| f.labels.is_empty()) {
            frame.labels = vec![Label::OURS; frame.bytes.len()].into();
        }
        *self.world.on_exposure.borrow_mut() = Some(Box::new(hook));
    }

    /// Labels bytes of a page.
    pub fn label(&self, frame: FrameNo, offset: usize, len: usize, label: Label) {
        let mut state = self.world.state.borrow_mut();
        if let Some(frame) = state.frames.get_mut(&frame)
            && !frame.labels.is_empty()
        {
            frame.labels[offset..offset + len].fill(label);
        }
    }

    /// The labels of a page, for a test to look at; empty if none are kept.
    #[must_use]
    pub fn labels(&self, frame: FrameNo) -> Vec<Label> {
        self.world.state.borrow().frames.get(&frame).map(|f| f.labels.to_vec()).unwrap_or_default()
    }

    /// Tells the hook about bytes that everybody `frame` is lent to can read.
    pub(super) fn expose(&self, frame: FrameNo, offset: usize, len: usize) {
        let Some(mut hook) = self.world.on_exposure.borrow_mut().take() else { return };
        let exposed = {
            let state = self.world.state.borrow();
            state.frames.get(&frame).map(|f| {
                let labels = f.labels[offset..offset + len].to_vec();
                let mappers = f.mappers.iter().map(|(dom, _, _)| *dom);
                let to: Vec<_> = f.lent_to.iter().copied().chain(mappers).collect();
                (f.owner, to, labels)
            })
        };
        if let Some((owner, to, labels)) = exposed {
            for to in to {
                hook(&Exposure { owner, to, frame, offset, labels: &labels });
            }
        }
        *self.world.on_exposure.borrow_mut() = Some(hook);
    }
}
