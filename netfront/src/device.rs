//! The uplink as those who move frames see it. Without a connected backend there is nothing to pull,
//! and everything staged is refused.

use crate::uplink::Netfront;
use alloc::vec::Vec;
use wire::{DropReason, Offload, Takes};
use xen::hypervisor::{CopyOp, Hypervisor};
use xen::io::{Device, Head, Incoming, Piece, Pulled, Staged};

impl<H: Hypervisor> Device<H> for Netfront<H> {
    fn pull(&mut self, h: &mut H, pieces: &mut Vec<Piece>) -> Pulled<Incoming> {
        self.link().map_or(Pulled::Empty, |link| link.pull(h, pieces))
    }

    fn heads(
        &mut self,
        frame: &Incoming,
        pieces: &[Piece],
        want: usize,
        at: u32,
        private: &mut [u8],
        _: &mut Vec<CopyOp>,
    ) -> usize {
        self.link().map_or(0, |link| link.heads(frame, pieces, want, at, private))
    }

    fn takes(&self) -> Takes {
        Self::takes(self)
    }

    fn stage(
        &mut self,
        h: &mut H,
        head: Head<'_>,
        rest: &[Piece],
        offload: Offload,
        ops: &mut Vec<CopyOp>,
    ) -> Result<Staged, DropReason> {
        self.link().ok_or(DropReason::EgressDown)?.stage(h, head, rest, offload, ops)
    }

    fn commit(&mut self, h: &mut H, staged: Staged, ops: &[CopyOp]) -> Result<(), DropReason> {
        self.link().ok_or(DropReason::EgressDown)?.commit(h, staged, ops)
    }

    fn done(&mut self, _: &mut H, frame: Incoming) {
        if let Some(link) = self.link() {
            link.done(&frame);
        }
    }

    fn publish(&mut self, h: &mut H) {
        if let Some(link) = self.link() {
            link.publish(h);
        }
    }
}
