//! GNTTABOP_copy.

use super::labels::Label;
use super::memory::{SimPrivate, TouchKind};
use super::{Sim, grants};
use crate::hypervisor::{Access, CopyEnd, CopyOp, DomId, FrameNo, GrantStatus, PAGE_SIZE};
use std::vec;
use std::vec::Vec;

#[derive(Clone, Copy)]
enum Place {
    Frame(FrameNo),
    Private(usize),
}

impl Sim {
    /// Does one operation and returns its status and the bytes it copied.
    pub(super) fn copy_one(
        &self,
        by: DomId,
        private: &mut SimPrivate,
        op: &CopyOp,
    ) -> (GrantStatus, u64) {
        let fault = self.world.on_copy.borrow_mut().as_mut().and_then(|hook| hook(by, op));
        match fault.map_or_else(|| self.try_copy(by, private, op), Err) {
            Ok(()) => (GrantStatus::OKAY, u64::from(op.len())),
            Err(status) => (status, 0),
        }
    }

    fn try_copy(
        &self,
        by: DomId,
        private: &mut SimPrivate,
        op: &CopyOp,
    ) -> Result<(), GrantStatus> {
        let from = self.place(by, private, op.src(), Access::ReadOnly)?;
        let to = self.place(by, private, op.dst(), Access::ReadWrite)?;
        let (from_at, to_at) = (usize::from(op.src_offset()), usize::from(op.dst_offset()));
        let len = usize::from(op.len());
        if from_at + len > PAGE_SIZE || to_at + len > PAGE_SIZE {
            return Err(GrantStatus::BAD_COPY_ARG);
        }
        let (bytes, labels) = match from {
            Place::Frame(frame) => {
                self.touch(by, frame, from_at, len, TouchKind::CopyFrom);
                self.cut(frame, from_at, len)
            }
            Place::Private(base) => {
                let range = base + from_at..base + from_at + len;
                (private.bytes[range.clone()].to_vec(), private.labels.borrow()[range].to_vec())
            }
        };
        match to {
            Place::Frame(frame) => {
                self.touch(by, frame, to_at, len, TouchKind::CopyTo);
                self.paste(frame, to_at, &bytes, &labels);
                self.expose(frame, to_at, len);
            }
            Place::Private(base) => {
                let range = base + to_at..base + to_at + len;
                private.bytes[range.clone()].copy_from_slice(&bytes);
                private.labels.borrow_mut()[range].copy_from_slice(&labels);
            }
        }
        Ok(())
    }

    fn place(
        &self,
        by: DomId,
        private: &SimPrivate,
        end: CopyEnd,
        access: Access,
    ) -> Result<Place, GrantStatus> {
        let state = self.world.state.borrow();
        match end {
            CopyEnd::Grant { dom, gref } => {
                let dom = if dom == DomId::SELF { by } else { dom };
                grants::resolve(&state, dom, gref, by, access).map(Place::Frame)
            }
            CopyEnd::Page(frame) => match state.frames.get(&frame) {
                Some(f) if f.owner == by => Ok(Place::Frame(frame)),
                _ => Err(GrantStatus::BAD_PAGE),
            },
            CopyEnd::Private(page) => {
                let base = usize::from(page) * PAGE_SIZE;
                assert!(base < private.bytes.len(), "copy beyond the private memory");
                Ok(Place::Private(base))
            }
        }
    }

    fn cut(&self, frame: FrameNo, at: usize, len: usize) -> (Vec<u8>, Vec<Label>) {
        let state = self.world.state.borrow();
        let frame = state.frames.get(&frame).expect("a resolved page");
        let bytes = frame.bytes[at..at + len].to_vec();
        let labels =
            frame.labels.get(at..at + len).map_or_else(|| vec![Label::OURS; len], Vec::from);
        (bytes, labels)
    }

    fn paste(&self, frame: FrameNo, at: usize, bytes: &[u8], labels: &[Label]) {
        let mut state = self.world.state.borrow_mut();
        let frame = state.frames.get_mut(&frame).expect("a resolved page");
        frame.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        if let Some(place) = frame.labels.get_mut(at..at + labels.len()) {
            place.copy_from_slice(labels);
        }
    }
}
