//! What can go wrong on the rig: one message that says what was tried, and why it failed.

use std::fmt;
use std::io;
use std::path::Path;

/// Result of everything on the rig.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure, outermost attempt first.
#[derive(Debug)]
pub struct Error(String);

impl Error {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// Names the file an I/O error is about.
    pub fn file(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |e| Self(format!("{}: {e}", path.as_ref().display()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        Self(e.to_string())
    }
}

impl From<serde_json::Error> for Error {
    fn from(e: serde_json::Error) -> Self {
        Self(format!("JSON: {e}"))
    }
}

/// Says what was being done when something failed.
pub trait Context<T> {
    /// Puts `what` before the message.
    ///
    /// # Errors
    /// The error it is called on, with `what` before it.
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Error(format!("{what}: {e}")))
    }
}

/// Fails with this message unless the condition holds.
///
/// # Errors
/// `message()` if `holds` is false.
pub fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error(message())) }
}
