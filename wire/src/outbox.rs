//! Where verdicts and new heads go: one box for a batch, over memory that the caller owns.
//!
//! In: a verdict for each frame, heads, and whole frames of our own. Out: the same, by index.
//! Never: allocates, or holds more than the caller gave room for.

use crate::{DropReason, HEAD_MAX, Offload, Port, Unparsed, WHOLE_MAX};
use arrayvec::ArrayVec;

/// Most frames decided at once.
pub const BATCH: usize = 64;

/// Most bytes of a frame of our own, or of one that was kept: half a page, so that none crosses one.
pub const REPLY_MAX: usize = WHOLE_MAX;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Sent on behind a new head.
    Emit(Emit),
    /// Cannot be told from the head: bring up to [`crate::WHOLE_MAX`] bytes and ask again.
    NeedWhole,
    /// Taken over into memory of our own. What is sent of it, now or later, is sent as a frame of our
    /// own.
    Kept,
    /// Not sent on, counted under its reason.
    Drop(DropReason),
}

impl From<DropReason> for Verdict {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

impl From<Unparsed> for Verdict {
    fn from(unparsed: Unparsed) -> Self {
        match unparsed {
            Unparsed::NeedWhole => Self::NeedWhole,
            Unparsed::Drop(reason) => Self::Drop(reason),
        }
    }
}

/// A frame sent on: `heads[i][..head]`, then what came in from byte `skip` up to byte `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emit {
    /// Where it leaves.
    pub to: Port,
    /// Bytes of the new head.
    pub head: u16,
    /// Bytes of the old frame that the new head replaces.
    pub skip: u32,
    /// Where the packet ends in the old frame. What its sender put behind that is nobody's, and is
    /// not sent on.
    pub end: u32,
    /// What is left to the next receiver.
    pub offload: Offload,
}

/// A whole frame made by the firewall itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Where it leaves.
    pub to: Port,
    /// Its length in bytes; it stands at the start of its place in the reply memory.
    pub len: u16,
}

/// No room for another reply in this batch. Replies are best effort: count and go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyFull;

/// The answer to one batch. Heads and replies are written straight into the memory given to
/// [`Outbox::new`], from which the devices copy them.
#[derive(Debug)]
pub struct Outbox<'m> {
    heads: &'m mut [[u8; HEAD_MAX]],
    replies: &'m mut [[u8; REPLY_MAX]],
    verdicts: ArrayVec<Verdict, BATCH>,
    sent: ArrayVec<Reply, BATCH>,
}

impl<'m> Outbox<'m> {
    /// An empty box: `heads` has a place for each frame of the batch, `replies` one for each frame
    /// the firewall may send by itself meanwhile (at most [`BATCH`] are used of either).
    #[must_use]
    pub fn new(heads: &'m mut [[u8; HEAD_MAX]], replies: &'m mut [[u8; REPLY_MAX]]) -> Self {
        Self { heads, replies, verdicts: ArrayVec::new(), sent: ArrayVec::new() }
    }

    /// The place for the new head of the frame that is decided next.
    pub fn head(&mut self) -> Option<&mut [u8; HEAD_MAX]> {
        self.heads.get_mut(self.verdicts.len())
    }

    /// Decides the next frame of the batch. Beyond the batch it has no effect.
    pub fn decide(&mut self, verdict: Verdict) {
        let _ = self.verdicts.try_push(verdict);
    }

    /// Sends a frame of our own to `to`: `write` fills the place it is given and says how many bytes
    /// it used, or that after all there is nothing to send.
    ///
    /// # Errors
    /// [`ReplyFull`] if the reply memory of this batch is used up.
    pub fn reply(
        &mut self,
        to: Port,
        write: impl FnOnce(&mut [u8; REPLY_MAX]) -> Option<usize>,
    ) -> Result<(), ReplyFull> {
        let place = self.replies.get_mut(self.sent.len()).ok_or(ReplyFull)?;
        let Some(len) = write(place) else { return Ok(()) };
        let len = u16::try_from(len.min(REPLY_MAX)).map_err(|_| ReplyFull)?;
        self.sent.try_push(Reply { to, len }).map_err(|_| ReplyFull)
    }

    /// The verdicts so far, in the order of the frames.
    #[must_use]
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// The replies so far; the bytes of the n-th stand in the n-th place of the reply memory.
    #[must_use]
    pub fn replies(&self) -> &[Reply] {
        &self.sent
    }

    /// The bytes of the `n`-th reply.
    #[must_use]
    pub fn reply_bytes(&self, n: usize) -> Option<&[u8]> {
        let reply = self.sent.get(n)?;
        self.replies.get(n)?.get(..usize::from(reply.len))
    }

    /// The new head of the `n`-th frame, if it is emitted.
    #[must_use]
    pub fn head_bytes(&self, n: usize) -> Option<&[u8]> {
        match self.verdicts.get(n)? {
            Verdict::Emit(emit) => self.heads.get(n)?.get(..usize::from(emit.head)),
            Verdict::NeedWhole | Verdict::Kept | Verdict::Drop(_) => None,
        }
    }

    /// Gives back the verdicts and replies, and with them the borrow of the memory.
    #[must_use]
    pub fn into_parts(self) -> (ArrayVec<Verdict, BATCH>, ArrayVec<Reply, BATCH>) {
        (self.verdicts, self.sent)
    }
}
