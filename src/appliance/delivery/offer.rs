//! What sender and receiver of a policy agree on, whoever carries it.
//!
//! In: the text of a commit marker, hexadecimal text. Out: an [`Offer`], bytes, and where in XenStore
//! things stand. Never: I/O.
#![deny(clippy::arithmetic_side_effects)]

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use rules::Digest;

/// The commit marker: an [`Offer`]. Only dom0 may write below a domain's `control`; the domain itself
/// may read there, others may neither.
pub const COMMIT: &str = "control/policy/commit";
/// What became of the offer answered last: `ID loaded`, or `ID refused: WHY`. Written by the firewall,
/// who owns `data`.
pub const ANSWER: &str = "data/policy/answer";
/// Digest and name of the policy that is obeyed, or `none`.
pub const RUNNING: &str = "data/policy/running";
/// How many bytes a blob may have at most.
pub const MOST: &str = "data/policy/most";

/// Bytes of a blob in one node, which holds twice as many characters: XenStore's quota is 2048.
pub const PART: usize = 1000;

/// Characters of an id at most.
const ID_MAX: usize = 32;

/// A blob that stands ready to be read, all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    id: String,
    len: usize,
    digest: Digest,
}

impl Offer {
    /// The offer with this id (letters, digits and `-`, used for no offer before) of a blob.
    /// `None` if the id is none, or the blob is empty.
    #[must_use]
    pub fn new(id: &str, len: usize, digest: Digest) -> Option<Self> {
        let fine = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let id_is = !id.is_empty() && id.len() <= ID_MAX && id.chars().all(fine);
        (id_is && len != 0).then(|| Self { id: id.into(), len, digest })
    }

    /// Reads a marker: `ID LENGTH DIGEST`.
    #[must_use]
    pub fn parse(marker: &[u8]) -> Option<Self> {
        let mut words = core::str::from_utf8(marker).ok()?.split(' ');
        let (id, len, digest) = (words.next()?, words.next()?, words.next()?);
        let digest = Digest(unhex(digest.as_bytes())?.try_into().ok()?);
        let offer = Self::new(id, len.parse().ok()?, digest)?;
        // Only what would have been written so: one form, nothing behind it.
        (format!("{offer}").as_bytes() == marker).then_some(offer)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Bytes of the blob.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Never: an offer of nothing is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Of the policy in the blob.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// How many nodes hold the blob.
    #[must_use]
    pub const fn parts(&self) -> usize {
        self.len.div_ceil(PART)
    }

    /// The directory of its nodes, relative to the domain's.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("control/policy/{}", self.id)
    }

    /// The node that holds part `n`, counted from 0.
    #[must_use]
    pub fn part(&self, n: usize) -> String {
        format!("{}/{n}", self.directory())
    }
}

/// As it stands in [`COMMIT`].
impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.id, self.len, self.digest)
    }
}

/// Bytes as a node holds them.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of `text`, two digits each; `None` if it is anything else.
#[must_use]
pub fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (pairs, rest) = text.as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::ToOwned;

    #[test]
    fn an_offer_is_read_as_it_was_written_and_nothing_else_is() {
        let offer = Offer::new("a-1", 2001, Digest([0xab; 32])).unwrap();
        let text = format!("{offer}");
        assert_eq!(Offer::parse(text.as_bytes()), Some(offer.clone()));
        assert_eq!((offer.parts(), offer.part(2)), (3, "control/policy/a-1/2".to_owned()));
        let digest = "ab".repeat(32);
        for wrong in [
            String::new(),
            text.to_uppercase(),
            format!("{text} "),
            format!(" {text}"),
            format!("{text}\n"),
            format!("a-1 2001 {}", &digest[1..]),
            format!("a-1 02001 {digest}"),
            format!("a-1 0 {digest}"),
            format!("a-1 -1 {digest}"),
            format!("a/1 2001 {digest}"),
            format!("{} 2001 {digest}", "a".repeat(33)),
            format!("a-1 99999999999999999999 {digest}"),
        ] {
            assert_eq!(Offer::parse(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(Offer::parse(b"\xff 1 1"), None);
    }

    #[test]
    fn hex_gives_every_byte_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(hex(&all).as_bytes()), Some(all));
        for wrong in ["a", "ag", "+1", "é"] {
            assert_eq!(unhex(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
