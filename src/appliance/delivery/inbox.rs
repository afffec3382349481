//! A policy on its way in, part by part, whoever carries it.
//!
//! In: what the sender announced, the parts in order. Out: a checked policy, or why it is refused.
//! Never: more bytes than were announced, or than there is room for.
#![deny(clippy::arithmetic_side_effects)]

use super::offer::Offer;
use alloc::vec::Vec;
use core::fmt;
use rules::{BlobError, Policy};

/// Why a policy is refused. The one in force stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is not so much room.
    TooLong { len: usize, most: usize },
    /// There were other parts than announced.
    Length { got: usize, announced: usize },
    /// Whole, but no policy.
    Blob(BlobError),
    /// A policy, but another one than announced.
    Digest,
}

/// What has come of an offered policy.
#[derive(Debug)]
pub(super) struct Inbox {
    offer: Offer,
    bytes: Vec<u8>,
}

impl Inbox {
    /// Makes room for what is offered, `most` bytes at most.
    pub(super) fn open(offer: Offer, most: usize) -> Result<Self, Refusal> {
        let len = offer.len();
        if len > most {
            return Err(Refusal::TooLong { len, most });
        }
        Ok(Self { offer, bytes: Vec::with_capacity(len) })
    }

    /// What was offered.
    pub(super) const fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Takes the next part.
    pub(super) fn push(&mut self, part: &[u8]) -> Result<(), Refusal> {
        let got = self.bytes.len().saturating_add(part.len());
        if got > self.offer.len() {
            return Err(Refusal::Length { got, announced: self.offer.len() });
        }
        self.bytes.extend_from_slice(part);
        Ok(())
    }

    /// The policy, if these were all its parts.
    pub(super) fn close(self) -> Result<Policy, Refusal> {
        let (got, announced) = (self.bytes.len(), self.offer.len());
        if got != announced {
            return Err(Refusal::Length { got, announced });
        }
        let policy = Policy::decode(&self.bytes).map_err(Refusal::Blob)?;
        if policy.digest() == self.offer.digest() { Ok(policy) } else { Err(Refusal::Digest) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len, most } => {
                write!(f, "{len} bytes, and there is room for {most} in this domain's memory")
            }
            Self::Length { got, announced } => {
                write!(f, "{got} bytes came, {announced} were announced")
            }
            Self::Blob(why) => write!(f, "{why}"),
            Self::Digest => f.write_str("another policy came than was announced"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::Digest;

    const TEXT: &str = "zone a = netback\nzone b = netfront 0\npolicy a -> b { drop }\n";

    fn offered(len: usize, digest: Digest) -> Offer {
        Offer::new("x", len, digest).unwrap()
    }

    #[test]
    fn a_policy_comes_out_if_its_parts_go_in_and_nothing_else_does() {
        let compiled = lang::compile("x.tide", TEXT).unwrap();
        let (blob, digest) = (compiled.blob, compiled.policy.digest());
        let len = blob.len();
        let put = |offer: Offer, parts: &[&[u8]]| {
            let mut inbox = Inbox::open(offer, len + 1)?;
            parts.iter().try_for_each(|part| inbox.push(part))?;
            inbox.close().map(|policy| policy.digest())
        };
        let right = || offered(len, digest);
        assert_eq!(put(right(), &[&blob]), Ok(digest));
        let (a, b) = blob.split_at(20);
        assert_eq!(put(right(), &[a, b, &[]]), Ok(digest));
        assert_eq!(put(right(), &[a]), Err(Refusal::Length { got: 20, announced: len }));
        let got = len + 1;
        assert_eq!(put(right(), &[a, b, &[0]]), Err(Refusal::Length { got, announced: len }));
        let long = offered(len + 2, digest);
        assert_eq!(put(long, &[]), Err(Refusal::TooLong { len: len + 2, most: len + 1 }));
        assert_eq!(put(right(), &[b, a]), Err(Refusal::Blob(BlobError::NotAPolicy)));
        let mut broken = blob.clone();
        *broken.last_mut().unwrap() ^= 1;
        assert_eq!(put(right(), &[&broken]), Err(Refusal::Blob(BlobError::Damaged)));
        assert_eq!(put(offered(len, Digest([0; 32])), &[&blob]), Err(Refusal::Digest));
    }
}
