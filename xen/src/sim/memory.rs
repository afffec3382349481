//! Pages: ours, mapped ones, and private memory.

use super::labels::{Label, Labels, Privates};
use super::{Sim, State};
use crate::hypervisor::{Access, DomId, FrameNo, Memory, PAGE_SIZE, Page};
use std::boxed::Box;
use std::vec;
use std::vec::Vec;

/// A page of the machine.
pub(super) struct Frame {
    pub(super) owner: DomId,
    pub(super) bytes: Box<[u8]>,
    pub(super) labels: Box<[Label]>,
    /// To whom it is lent just now, once for each grant.
    pub(super) lent_to: Vec<DomId>,
    /// Who has it mapped: the domain, whose grant, and which.
    pub(super) mappers: Vec<(DomId, DomId, u32)>,
}

/// An access to a page that is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Who accesses it.
    pub by: DomId,
    /// Whose page it is.
    pub owner: DomId,
    /// Which page.
    pub frame: FrameNo,
    /// Where in the page, in bytes.
    pub offset: usize,
    /// How many bytes.
    pub len: usize,
    /// How.
    pub kind: TouchKind,
}

/// How a page is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TouchKind {
    /// By the domain, reading.
    Read,
    /// By the domain, writing.
    Write,
    /// By Xen, as the source of a copy.
    CopyFrom,
    /// By Xen, as the destination of a copy.
    CopyTo,
}

/// A page of a domain's own.
pub struct SimPage(View);

/// A page mapped from another domain.
pub struct SimMapped {
    pub(super) view: View,
    pub(super) granter: DomId,
    pub(super) gref: u32,
}

pub(super) struct View {
    pub(super) sim: Sim,
    pub(super) dom: DomId,
    pub(super) frame: FrameNo,
    pub(super) access: Access,
}

/// Private memory. The labels are those of the bytes that were copied into it, by Xen or from a page.
pub struct SimPrivate {
    pub(super) bytes: Vec<u8>,
    pub(super) labels: Labels,
}

impl SimPrivate {
    pub(super) fn new(pages: u16, known: &mut Privates) -> Self {
        let len = usize::from(pages) * PAGE_SIZE;
        let (bytes, labels) = (vec![0; len], Labels::new(vec![Label::OURS; len].into()));
        known.add(&bytes, &labels);
        Self { bytes, labels }
    }
}

impl AsRef<[u8]> for SimPrivate {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for SimPrivate {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl SimPage {
    pub(super) fn new(sim: Sim, dom: DomId, frame: FrameNo) -> Self {
        Self(View { sim, dom, frame, access: Access::ReadWrite })
    }
}

impl std::fmt::Debug for SimPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimPage({} of {})", self.0.frame.0, self.0.dom)
    }
}

impl std::fmt::Debug for SimMapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimMapped({} of {})", self.gref, self.granter)
    }
}

impl Page for SimPage {
    fn frame(&self) -> FrameNo {
        self.0.frame
    }
}

impl View {
    fn access(&self, offset: usize, len: usize, kind: TouchKind, f: impl FnOnce(&mut Frame)) {
        assert!(offset + len <= PAGE_SIZE, "access beyond a page: {offset} + {len}");
        assert!(
            kind == TouchKind::Read || self.access == Access::ReadWrite,
            "write to a page mapped read-only"
        );
        self.sim.touch(self.dom, self.frame, offset, len, kind);
        let mut state = self.sim.world.state.borrow_mut();
        f(state.frames.get_mut(&self.frame).expect("a page that exists"));
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        let mut moved = 0;
        self.access(offset, into.len(), TouchKind::Read, |frame| {
            let at = offset..offset + into.len();
            into.copy_from_slice(&frame.bytes[at.clone()]);
            let known = self.sim.world.privates.borrow();
            let is_private = known.of(into, |labels| match frame.labels.get(at) {
                Some(theirs) => labels.copy_from_slice(theirs),
                None => labels.fill(Label::OURS),
            });
            moved = if is_private { into.len() } else { 0 };
        });
        self.count_moved(moved);
    }

    fn write(&self, offset: usize, from: &[u8]) {
        let mut moved = 0;
        self.access(offset, from.len(), TouchKind::Write, |frame| {
            let at = offset..offset + from.len();
            frame.bytes[at.clone()].copy_from_slice(from);
            let mut place = frame.labels.get_mut(at);
            place.iter_mut().for_each(|place| place.fill(Label::OURS));
            let known = self.sim.world.privates.borrow();
            let is_private = known.of(from, |labels| {
                place.iter_mut().for_each(|place| place.copy_from_slice(labels));
            });
            moved = if is_private { from.len() } else { 0 };
        });
        self.count_moved(moved);
    }

    fn count_moved(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        if let Some(domain) = self.sim.world.state.borrow_mut().domains.get_mut(&self.dom) {
            domain.counters.moved_bytes += bytes as u64;
        }
    }

    fn load(&self, offset: usize) -> u32 {
        assert_eq!(offset % 4, 0, "a word that is not aligned");
        let mut word = [0; 4];
        self.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    fn store(&self, offset: usize, value: u32) {
        assert_eq!(offset % 4, 0, "a word that is not aligned");
        self.write(offset, &value.to_le_bytes());
    }

    fn exchange(&self, offset: usize, new: impl FnOnce(u32) -> u32) -> u32 {
        assert_eq!(offset % 4, 0, "a word that is not aligned");
        let mut old = [0; 4];
        self.access(offset, 4, TouchKind::Write, |frame| {
            let word = &mut frame.bytes[offset..offset + 4];
            old.copy_from_slice(word);
            word.copy_from_slice(&new(u32::from_le_bytes(old)).to_le_bytes());
        });
        u32::from_le_bytes(old)
    }
}

macro_rules! memory_through {
    ($type:ty, $($view:tt)+) => {
        impl Memory for $type {
            fn load(&self, offset: usize) -> u32 {
                self.$($view)+.load(offset)
            }
            fn store(&self, offset: usize, value: u32) {
                self.$($view)+.store(offset, value);
            }
            fn fetch_and(&self, offset: usize, mask: u32) -> u32 {
                self.$($view)+.exchange(offset, |word| word & mask)
            }
            fn fetch_or(&self, offset: usize, bits: u32) -> u32 {
                self.$($view)+.exchange(offset, |word| word | bits)
            }
            fn read(&self, offset: usize, into: &mut [u8]) {
                self.$($view)+.read(offset, into);
            }
            fn write(&self, offset: usize, from: &[u8]) {
                self.$($view)+.write(offset, from);
            }
            fn barrier(&self) {}
        }
    };
}

memory_through!(SimPage, 0);
memory_through!(SimMapped, view);

impl Sim {
    /// The bytes of a page, for a test to look at. No hook is called.
    #[must_use]
    pub fn peek(&self, frame: FrameNo) -> Vec<u8> {
        self.world.state.borrow().frames.get(&frame).map(|f| f.bytes.to_vec()).unwrap_or_default()
    }

    /// Changes bytes of a page behind everybody's back. No hook is called.
    pub fn poke(&self, frame: FrameNo, offset: usize, bytes: &[u8]) {
        let mut state = self.world.state.borrow_mut();
        let frame = state.frames.get_mut(&frame).expect("a page that exists");
        frame.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Another handle to a page of `dom`, for one who plays that domain or its firmware.
    #[must_use]
    pub fn page_at(&self, dom: DomId, frame: FrameNo) -> SimPage {
        SimPage::new(self.clone(), dom, frame)
    }

    pub(super) fn touch(
        &self,
        by: DomId,
        frame: FrameNo,
        offset: usize,
        len: usize,
        kind: TouchKind,
    ) {
        // Taken out while it runs, so that it may use the machine itself.
        let Some(mut hook) = self.world.on_touch.borrow_mut().take() else { return };
        let lent = {
            let mut state = self.world.state.borrow_mut();
            state.frames.get_mut(&frame).filter(|f| f.is_shared()).map(|f| {
                let touch = Touch { by, owner: f.owner, frame, offset, len, kind };
                (touch, f.bytes.clone())
            })
        };
        if let Some((touch, mut bytes)) = lent {
            let before = bytes.clone();
            hook(&touch, &mut bytes);
            if bytes != before {
                self.poke(frame, 0, &bytes);
            }
        }
        let mut place = self.world.on_touch.borrow_mut();
        if place.is_none() {
            *place = Some(hook);
        }
    }
}

impl Frame {
    pub(super) fn new(owner: DomId, labels: bool) -> Self {
        let labels = if labels { vec![Label::OURS; PAGE_SIZE] } else { Vec::new() };
        Self {
            owner,
            bytes: vec![0; PAGE_SIZE].into(),
            labels: labels.into(),
            lent_to: Vec::new(),
            mappers: Vec::new(),
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        !self.lent_to.is_empty() || !self.mappers.is_empty()
    }
}

impl State {
    pub(super) fn new_frame(&mut self, owner: DomId) -> FrameNo {
        let no = FrameNo(self.next_frame);
        self.next_frame += 1;
        let frame = Frame::new(owner, self.labels);
        self.frames.insert(no, frame);
        no
    }
}
