//! The Internet checksum: whole (RFC 1071), and by difference (RFC 1624).
//!
//! In: bytes, numbers and old checksum fields. Out: new checksum fields. Never: a zero where zero
//! means "no checksum".

use crate::Addr;
use core::net::IpAddr;

/// A one's complement sum in the making. Order does not matter, so parts can be added one by one,
/// as long as each part starts at an even offset of what is summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// Adds bytes; an odd last one counts as if a zero followed (RFC 1071 section 1).
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // Eight bytes a step: a carry out of the top is a one at the bottom, in 64 bits as in 16. In the
        // machine's own order, as the order of bytes is that of the result (RFC 1071 section 2 B). Four
        // sums, so that one addition need not wait for the other's carry.
        let mut sums = [Self::ZERO; 4];
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            for (sum, word) in sums.iter_mut().zip(block.as_chunks::<8>().0) {
                *sum = sum.long(u64::from_ne_bytes(*word));
            }
        }
        let (words, rest) = rest.as_chunks::<8>();
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = sum.long(u64::from_ne_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        let [a, b, c, d] = sums;
        let all = a.plus(b).plus(c).plus(d).long(u64::from_ne_bytes(last));
        self.long(all.0.to_be())
    }

    /// Whether the sum over an IPv4 header without options is right.
    pub(crate) fn is_right(header: &[u8; 20]) -> bool {
        let (words, _) = header.as_chunks::<4>();
        let sum = words
            .iter()
            .fold(Self::ZERO, |sum, word| sum.long(u64::from(u32::from_ne_bytes(*word))));
        sum.checksum() == 0
    }

    /// Adds one 16-bit word.
    #[must_use]
    pub fn word(self, word: u16) -> Self {
        self.long(u64::from(word))
    }

    /// Adds an address.
    #[must_use]
    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(a) => self.long(u64::from(a.to_bits())),
            IpAddr::V6(a) => self.bytes(&a.octets()),
        }
    }

    /// Adds another sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.long(other.0)
    }

    /// The one's complement: adding it takes the sum away again.
    #[must_use]
    pub const fn negated(self) -> Self {
        Self(!self.0)
    }

    /// The sum in 16 bits. Zero only if nothing but zeros was added (0xffff is the other zero).
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the halves that are left out are added")]
    pub const fn fold(self) -> u16 {
        let (sum, carry) = ((self.0 >> 32) as u32).overflowing_add(self.0 as u32);
        let sum = sum.wrapping_add(carry as u32);
        // Both halves end up in the upper one, and with them the carry out of the lower one.
        (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
    }

    /// What goes into a checksum field: the complement of the folded sum.
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    const fn long(self, value: u64) -> Self {
        let (next, carry) = self.0.overflowing_add(value);
        // Cannot overflow: after a carry the sum is below its maximum.
        Self(next.wrapping_add(carry as u64))
    }
}

/// The pseudo header of TCP, UDP and ICMPv6: RFC 9293 section 3.1, RFC 768, RFC 8200 section 8.1.
/// `len` is the length of the transport header and payload in bytes.
#[must_use]
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: u32) -> Sum {
    Sum::ZERO.address(src).address(dst).word(u16::from(protocol)).long(u64::from(len))
}

/// A checksum field, and how it changes when the data it covers does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// A complete checksum that is always present: IPv4 header, TCP, ICMP, ICMPv6.
    Complete,
    /// UDP: 0 means there is none, and stays; a computed 0 is written as 0xffff.
    Udp,
    /// The uncomplemented pseudo-header sum (NETTXF_csum_blank): addresses change it, ports and
    /// payload do not.
    Blank,
}

/// What was changed under a checksum: what went away and what came, kept apart by whether the
/// pseudo header covers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    pseudo: Sum,
    data: Sum,
}

impl Delta {
    /// Nothing changed.
    pub const NONE: Self = Self { pseudo: Sum::ZERO, data: Sum::ZERO };

    /// An address of the pseudo header was exchanged.
    #[must_use]
    pub fn address(self, old: IpAddr, new: IpAddr) -> Self {
        let change = Sum::ZERO.address(old).negated().plus(Sum::ZERO.address(new));
        Self { pseudo: self.pseudo.plus(change), ..self }
    }

    /// The same of packed addresses.
    #[must_use]
    pub(crate) fn packed(self, old: Addr, new: Addr) -> Self {
        let sum = |addr: Addr| addr.words().into_iter().fold(Sum::ZERO, Sum::long);
        Self { pseudo: self.pseudo.plus(sum(old).negated()).plus(sum(new)), ..self }
    }

    /// A word of the data was exchanged.
    #[must_use]
    pub fn word(self, old: u16, new: u16) -> Self {
        Self { data: self.data.word(!old).word(new), ..self }
    }

    /// A stretch of data with an even start was exchanged for one of the same length.
    #[must_use]
    pub fn sums(self, old: Sum, new: Sum) -> Self {
        Self { data: self.data.plus(old.negated()).plus(new), ..self }
    }

    /// Both changes.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { pseudo: self.pseudo.plus(other.pseudo), data: self.data.plus(other.data) }
    }

    /// The same change under a checksum that covers no pseudo header.
    #[must_use]
    pub const fn without_pseudo_header(self) -> Self {
        Self { pseudo: Sum::ZERO, ..self }
    }

    /// The new value of a checksum field that held `old` (RFC 1624 equation 3).
    #[inline]
    #[must_use]
    pub fn apply(self, field: Field, old: u16) -> u16 {
        match field {
            Field::Blank => Sum::ZERO.word(old).plus(self.pseudo).fold(),
            Field::Udp if old == 0 => 0,
            Field::Udp => match self.complete(old) {
                0 => 0xffff,
                sum => sum,
            },
            Field::Complete => self.complete(old),
        }
    }

    fn complete(self, old: u16) -> u16 {
        if self == Self::NONE {
            return old;
        }
        Sum::ZERO.word(!old).plus(self.pseudo).plus(self.data).checksum()
    }
}
