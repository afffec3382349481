//! The data stream of one call, from either end.
//!
//! Serving a call, its input comes as STDIN and its output goes as STDOUT, followed by the ends of both
//! outputs and the exit code. Calling, it is the other way round.
#![deny(clippy::arithmetic_side_effects)]

use super::frame::{self, BODY_MAX, FrameError, Frames};
use super::kind;
use alloc::vec::Vec;
use core::mem;

/// Input that may wait before nothing more is read, and output before no more is to be printed.
const WAITING_MAX: usize = 2 * BODY_MAX;

/// What went wrong with a call.
pub type CallError = FrameError;

/// One end of a call, without the bytes' way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    role: Role,
    frames: Frames,
    greeted: bool,
    input: Vec<u8>,
    input_ended: bool,
    exit: Option<i32>,
    /// Whether all we have to say is in the frames.
    finished: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Serving,
    Calling,
}

impl Call {
    /// A call that is served here.
    #[must_use]
    pub fn serving() -> Self {
        Self::new(Role::Serving)
    }

    /// A call of ours, with `input` for the service.
    #[must_use]
    pub fn calling(input: &[u8]) -> Self {
        let mut call = Self::new(Role::Calling);
        call.print(input);
        call.frames.put(kind::STDIN, &[]);
        call.finished = true;
        call
    }

    fn new(role: Role) -> Self {
        Self {
            role,
            frames: Frames::new(),
            greeted: false,
            input: Vec::new(),
            input_ended: false,
            exit: None,
            finished: false,
        }
    }

    /// Whether more may be read from the stream: take the input first.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.input.len() < WAITING_MAX
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// What the other end did wrong: close the stream.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), CallError> {
        self.frames.add(bytes);
        while let Some((kind, body)) = self.frames.next()? {
            if !self.greeted {
                frame::hello(kind, &body)?;
                self.greeted = true;
                continue;
            }
            match (self.role, kind) {
                (Role::Serving, kind::STDIN) | (Role::Calling, kind::STDOUT) => {
                    if self.input_ended {
                        return Err(FrameError::Unexpected(kind));
                    }
                    self.input_ended = body.is_empty();
                    self.input.extend_from_slice(&body);
                }
                // What a service complains about is its own affair.
                (Role::Calling, kind::STDERR) => {}
                (Role::Calling, kind::EXIT) => {
                    let code = body.try_into().map_err(|_| FrameError::Unexpected(kind))?;
                    self.exit = Some(i32::from_le_bytes(code));
                }
                _ => return Err(FrameError::Unexpected(kind)),
            }
        }
        Ok(())
    }

    /// What came since the last time.
    pub fn take_input(&mut self) -> Vec<u8> {
        mem::take(&mut self.input)
    }

    /// Whether no more will come.
    #[must_use]
    pub const fn input_ended(&self) -> bool {
        self.input_ended
    }

    /// How the called service ended.
    #[must_use]
    pub const fn exit_code(&self) -> Option<i32> {
        self.exit
    }

    /// Whether there is room for more output.
    #[must_use]
    pub fn may_print(&self) -> bool {
        !self.finished && self.frames.outgoing().len() < WAITING_MAX
    }

    /// Gives output.
    pub fn print(&mut self, bytes: &[u8]) {
        let kind = match self.role {
            Role::Serving => kind::STDOUT,
            Role::Calling => kind::STDIN,
        };
        if !self.finished {
            // An empty chunk would be the end.
            bytes.chunks(BODY_MAX).for_each(|chunk| self.frames.put(kind, &[chunk]));
        }
    }

    /// Ends the service with this code.
    pub fn exit(&mut self, code: i32) {
        if !mem::replace(&mut self.finished, true) {
            self.frames.put(kind::STDOUT, &[]);
            self.frames.put(kind::STDERR, &[]);
            self.frames.put(kind::EXIT, &[&code.to_le_bytes()]);
        }
    }

    /// Whether everything is said and sent: a served call after its exit code, one of ours when the
    /// service has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let heard = match self.role {
            Role::Serving => self.greeted,
            Role::Calling => self.exit.is_some(),
        };
        heard && self.finished && self.outgoing().is_empty()
    }

    /// The bytes to be sent next.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        self.frames.outgoing()
    }

    /// Says that the first `count` of them were sent.
    pub fn sent(&mut self, count: usize) {
        self.frames.sent(count);
    }
}
