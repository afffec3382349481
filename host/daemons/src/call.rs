//! The other end of one qrexec call: who made it, or who serves what the machine called
//! (libqrexec/process_io.c, protocol 3).

use crate::pipe::{Pipe, word};
use crate::{Daemon, Death, die};

const STDIN: u32 = 0x190;
const STDOUT: u32 = 0x191;
const STDERR: u32 = 0x192;
const EXIT: u32 = 0x193;
const HELLO: u32 = 0x300;
/// Most data in a message of protocol 3.
const CHUNK: usize = 65536;

/// What came of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What the other end printed; or, serving, what it gave as input.
    pub output: Vec<u8>,
    /// What it printed to its standard error.
    pub errors: Vec<u8>,
    /// Whether the output has ended.
    pub ended: bool,
    /// How it ended.
    pub exit: Option<i32>,
}

/// One end of a call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Whether this end serves the call: it gets STDIN and gives STDOUT.
    serves: bool,
    greeted: bool,
    input: Vec<u8>,
    pipe: Pipe,
    outcome: Outcome,
}

impl Call {
    /// Who calls a service of the machine, with this input.
    #[must_use]
    pub fn caller(input: &[u8]) -> Self {
        Self::new(false, input)
    }

    /// Who serves what the machine calls, and answers this.
    #[must_use]
    pub fn server(answer: &[u8]) -> Self {
        Self::new(true, answer)
    }

    fn new(serves: bool, input: &[u8]) -> Self {
        let (pipe, outcome) = (Pipe::default(), Outcome::default());
        Self { serves, greeted: false, input: input.into(), pipe, outcome }
    }

    /// What came of it so far.
    #[must_use]
    pub const fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    fn message(&mut self, kind: u32, body: &[u8]) {
        self.pipe.word(kind);
        self.pipe.word(u32::try_from(body.len()).unwrap_or(u32::MAX));
        self.pipe.outbox.extend(body);
    }

    fn obey(&mut self, kind: u32, body: &[u8]) -> Result<(), Death> {
        let gives = if self.serves { STDIN } else { STDOUT };
        match kind {
            HELLO if self.greeted || body.len() != 4 => return die("a hello out of place"),
            HELLO => {
                self.greeted = true;
                let (input, kind) =
                    (std::mem::take(&mut self.input), if self.serves { STDOUT } else { STDIN });
                input.chunks(CHUNK).for_each(|chunk| self.message(kind, chunk));
                self.message(kind, &[]);
                if self.serves {
                    self.message(STDERR, &[]);
                    self.message(EXIT, &0_i32.to_le_bytes());
                }
            }
            _ if !self.greeted => return die(format!("message {kind:#x} before the hello")),
            _ if kind == gives && self.outcome.ended => return die("data after its end"),
            _ if kind == gives && body.is_empty() => self.outcome.ended = true,
            _ if kind == gives => self.outcome.output.extend(body),
            STDERR if !self.serves => self.outcome.errors.extend(body),
            EXIT if !self.serves && body.len() == 4 => {
                self.outcome.exit = Some(word(body, 0).cast_signed());
            }
            other => return die(format!("message {other:#x} of {} bytes", body.len())),
        }
        Ok(())
    }
}

impl Daemon for Call {
    fn connected(&mut self) {
        self.message(HELLO, &3_u32.to_le_bytes());
    }

    fn disconnected(&mut self) {}

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Death> {
        self.pipe.inbox.extend(bytes);
        while self.pipe.inbox.len() >= 8 {
            let (kind, len) = (word(&self.pipe.inbox, 0), word(&self.pipe.inbox, 4) as usize);
            if len > CHUNK {
                return die(format!("a chunk of {len} bytes"));
            }
            let Some(message) = self.pipe.take(8 + len) else { break };
            self.obey(kind, message.get(8..).unwrap_or_default())?;
        }
        Ok(())
    }

    fn outgoing(&self) -> &[u8] {
        &self.pipe.outbox
    }

    fn sent(&mut self, count: usize) {
        self.pipe.sent(count);
    }
}
