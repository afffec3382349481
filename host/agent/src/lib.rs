//! The language between the rig on the host and its agents inside dom0 and the guests.
//!
//! In and out: JSON, one message a line. A [`Request`] carries a number and the domain it is
//! meant for; dom0's agent hands on what is not its own. A [`Reply`] repeats the number.
//! On a guest's console the lines share the way with kernel messages, so each carries [`MARK`].
//!
//! Nothing here does I/O.

#![forbid(unsafe_code)]

pub mod dom0;
pub mod probe;

use serde::{Deserialize, Serialize};

/// First byte of every protocol line. Kernels and programs do not print it (ASCII RS).
pub const MARK: char = '\u{1e}';

/// The number of the privileged domain.
pub const DOM0: u16 = 0;

/// One order from the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the host, repeated in the reply.
    pub id: u64,
    /// The domain that shall do it.
    pub to: u16,
    /// What to do.
    pub op: Op,
}

/// What an agent can do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Op {
    /// Answer at once: "is anybody there?"
    Hello,
    /// Run a program to its end, at most `deadline_ms`, then kill it.
    Exec {
        /// Program and arguments.
        argv: Vec<String>,
        /// Fed to the program's standard input.
        stdin: String,
        /// Milliseconds until it is killed.
        deadline_ms: u64,
        /// Never at the same time as another exclusive one (two `xl` at once break each other).
        exclusive: bool,
    },
    /// Start a program and leave it running; its output goes to a file.
    Spawn {
        /// Name for [`Op::Stop`].
        name: String,
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// Kill what was spawned under this name and return what it printed.
    Stop {
        /// As given to [`Op::Spawn`].
        name: String,
    },
    /// Read a file from `offset` on.
    ReadFile {
        /// Absolute path.
        path: String,
        /// First byte wanted.
        offset: u64,
    },
    /// Create or replace a file.
    WriteFile {
        /// Absolute path.
        path: String,
        /// New contents.
        text: String,
    },
    /// Read a XenStore node (dom0 only).
    XsRead {
        /// Absolute XenStore path.
        path: String,
    },
    /// Write a XenStore node (dom0 only).
    XsWrite {
        /// Absolute XenStore path.
        path: String,
        /// New value.
        value: String,
    },
    /// Names of the children of a XenStore node (dom0 only).
    XsList {
        /// Absolute XenStore path.
        path: String,
    },
    /// Wait until something is so, at most `deadline_ms`.
    Wait {
        /// What to wait for.
        until: Condition,
        /// Milliseconds until it is given up, with an error that tells what was seen last.
        deadline_ms: u64,
    },
}

/// Something an agent can watch from where it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Condition {
    /// A XenStore node has this value (dom0 only).
    XsIs {
        /// Absolute XenStore path.
        path: String,
        /// The value awaited.
        value: String,
    },
    /// A XenStore node is gone (dom0 only).
    XsGone {
        /// Absolute XenStore path.
        path: String,
    },
    /// A XenStore node has this value, or is gone after it had (dom0 only).
    XsEnds {
        /// Absolute XenStore path.
        path: String,
        /// The last value awaited.
        value: String,
    },
    /// A file, from `offset` on, contains a text.
    FileHas {
        /// Absolute path.
        path: String,
        /// First byte looked at.
        offset: u64,
        /// What it must contain.
        text: String,
    },
    /// A path exists.
    Exists {
        /// Absolute path.
        path: String,
    },
    /// A path does not exist.
    Absent {
        /// Absolute path.
        path: String,
    },
    /// Something listens on this TCP or UDP port.
    Listening {
        /// Local port number.
        port: u16,
        /// UDP instead of TCP.
        udp: bool,
    },
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::XsIs { path, value } => write!(f, "XenStore {path} = {value:?}"),
            Self::XsGone { path } => write!(f, "XenStore {path} gone"),
            Self::XsEnds { path, value } => write!(f, "XenStore {path} = {value:?} or gone"),
            Self::FileHas { path, text, .. } => write!(f, "{text:?} in {path}"),
            Self::Exists { path } => write!(f, "{path} to appear"),
            Self::Absent { path } => write!(f, "{path} to disappear"),
            Self::Listening { port, udp } => {
                write!(f, "a listener on {} {port}", if *udp { "udp" } else { "tcp" })
            }
        }
    }
}

/// An agent's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// The request's number; 0 is the greeting of an agent that has just started.
    pub id: u64,
    /// What came of it; an error says what was tried.
    pub outcome: Result<Answer, String>,
}

/// What can come of an [`Op`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    /// Done, nothing to tell.
    Done,
    /// A program ended.
    Exited(Exit),
    /// Contents of a file or a XenStore node.
    Text(String),
    /// Names of XenStore children.
    Names(Vec<String>),
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code; None when a signal ended it.
    pub code: Option<i32>,
    /// Everything it printed.
    pub stdout: String,
    /// Everything it printed to standard error.
    pub stderr: String,
}

impl Exit {
    /// Whether it ended by itself with code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

/// One protocol line, marked and ended.
///
/// # Errors
/// Only if serialising fails, which the types here never cause.
pub fn encode<T: Serialize>(message: &T) -> serde_json::Result<String> {
    serde_json::to_string(message).map(|json| format!("{MARK}{json}\n"))
}

/// The message in a line, or None if the line is something else, such as a kernel message.
/// Text before the mark (a prompt, half a kernel line) is skipped.
pub fn decode<'a, T: Deserialize<'a>>(line: &'a str) -> Option<T> {
    let (_, json) = line.rsplit_once(MARK)?;
    serde_json::from_str(json.trim_end()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_a_dirty_console() {
        let sent = Request { id: 7, to: 3, op: Op::ReadFile { path: "/a\nb".into(), offset: 9 } };
        let line = encode(&sent).unwrap();
        assert_eq!(line.matches('\n').count(), 1, "one message, one line");
        let dirty = format!("[    1.5] eth0: up{line}");
        let got: Request = decode(&dirty).unwrap();
        assert_eq!((got.id, got.to), (7, 3));
    }

    #[test]
    fn what_is_no_message_is_skipped() {
        assert!(decode::<Request>("Linux version 6.1").is_none());
        assert!(decode::<Request>("\u{1e}{\"id\":1,\"to\":").is_none());
    }
}
