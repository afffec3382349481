//! The name of a key: what both ends agree to be one, checked once.

use alloc::string::String;
use core::borrow::Borrow;
use core::fmt;

/// Bytes of a path, without the NUL that ends it on the wire.
pub(crate) const PATH_MAX: usize = 63;

/// A valid path: begins with `/`, is at most 63 bytes of `[A-Za-z0-9_/.:@-]`, and ends in `/` only
/// if it stands for all that is below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(String);

impl Path {
    /// The path `text`, if it is one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"_/.:@-".contains(&b);
        let fine = text.starts_with('/') && text.len() <= PATH_MAX && text.bytes().all(known);
        fine.then(|| Self(String::from(text)))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for all that is below it, and not for a key.
    #[must_use]
    pub fn is_subtree(&self) -> bool {
        self.0.ends_with('/')
    }
}

impl Borrow<str> for Path {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
