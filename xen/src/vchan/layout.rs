//! The control page (struct vchan_interface, libxenvchan.h).
//!
//! ```text
//! 0  left: consumed    4 left: produced      the client writes, the server reads
//! 8  right: consumed  12 right: produced     the server writes, the client reads
//! 16 u16 order of left, 18 u16 order of right
//! 20 client lives, 21 server lives           0 gone, 1 there, 2 not yet
//! 22 client's wishes, 23 server's wishes     1 when you write, 2 when you read
//! 24 u32 grants of the left ring's pages, then of the right ring's
//! ```
//!
//! Each end writes its wishes into the byte named after the *other* end, which looks there. Both change
//! that byte, so it is changed in one step.
#![deny(clippy::arithmetic_side_effects)]

use crate::hypervisor::PAGE_SIZE;

pub(super) const LEFT: usize = 0;
pub(super) const RIGHT: usize = 8;
/// The consumer's index within a ring's part; the producer's follows.
pub(super) const CONS: usize = 0;
pub(super) const PROD: usize = 4;
pub(super) const ORDERS: usize = 16;
/// The word of the four bytes below.
pub(super) const STATE: usize = 20;
pub(super) const CLIENT_LIVES: usize = 20;
pub(super) const SERVER_LIVES: usize = 21;
pub(super) const GRANTS: usize = 24;

/// Bit of [`STATE`] from which the wishes are that the client looks at (`cli_notify`).
pub(super) const CLIENT_LOOKS: u32 = 16;
/// The same for the server (`srv_notify`).
pub(super) const SERVER_LOOKS: u32 = 24;

pub(super) const GONE: u8 = 0;
pub(super) const THERE: u8 = 1;
pub(super) const NOT_YET: u8 = 2;

/// VCHAN_NOTIFY_WRITE: signal me when you have written.
pub(super) const ON_WRITE: u32 = 1;
/// VCHAN_NOTIFY_READ: signal me when you have read.
pub(super) const ON_READ: u32 = 2;

/// The size of a ring: two to its power are the bytes it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order(u16);

impl Order {
    /// 1 KiB, inside the control page.
    pub const SMALL: Self = Self(10);
    /// 2 KiB, inside the control page.
    pub const LARGE: Self = Self(11);
    /// One page.
    pub const PAGE: Self = Self(12);
    /// 64 KiB, which qrexec uses for data.
    pub const DATA: Self = Self(16);
    /// The largest whose grants fit the control page, twice.
    pub const MAX: Self = Self(20);

    /// The order `n`, if a ring may have it.
    #[must_use]
    pub const fn new(n: u16) -> Option<Self> {
        if n >= Self::SMALL.0 && n <= Self::MAX.0 { Some(Self(n)) } else { None }
    }

    /// As a number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Bytes a ring of this order holds.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        1_u32.wrapping_shl(self.0 as u32)
    }

    /// Pages of its own; none if it stands in the control page.
    #[must_use]
    pub const fn pages(self) -> usize {
        self.bytes() as usize / PAGE_SIZE
    }
}

/// The sizes of both rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orders {
    pub(super) left: Order,
    pub(super) right: Order,
}

impl Orders {
    /// One page each way, as QubesDB and qrexec's control channel have it.
    pub const PAGE: Self = Self { left: Order::PAGE, right: Order::PAGE };
    /// 64 KiB each way.
    pub const DATA: Self = Self { left: Order::DATA, right: Order::DATA };

    /// `left` is what the client writes, `right` what the server writes. Two rings of one order do
    /// not both fit the control page.
    #[must_use]
    pub fn new(left: Order, right: Order) -> Option<Self> {
        (left != right || left >= Order::PAGE).then_some(Self { left, right })
    }

    /// Reads them from the word at [`ORDERS`].
    pub(super) fn parse(word: u32) -> Option<Self> {
        let [a, b, c, d] = word.to_le_bytes();
        Self::new(Order::new(u16::from_le_bytes([a, b]))?, Order::new(u16::from_le_bytes([c, d]))?)
    }

    pub(super) fn word(self) -> u32 {
        let ([a, b], [c, d]) = (self.left.0.to_le_bytes(), self.right.0.to_le_bytes());
        u32::from_le_bytes([a, b, c, d])
    }

    /// Pages of both rings.
    pub(super) const fn pages(self) -> usize {
        self.left.pages().saturating_add(self.right.pages())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_libxenvchan_checks_them() {
        for left in 0..24_u16 {
            for right in 0..24_u16 {
                let word = u32::from(left) | u32::from(right) << 16;
                let range = 10..=20;
                let fine = range.contains(&left) && range.contains(&right);
                let fine = fine && (left != right || left >= 12);
                let parsed = Orders::parse(word);
                assert_eq!(parsed.is_some(), fine, "{left} {right}");
                assert!(parsed.is_none_or(|orders| orders.word() == word));
            }
        }
        // The grants of the two largest end with the page.
        let largest = Orders::new(Order::MAX, Order::MAX).unwrap();
        assert!(GRANTS + 4 * largest.pages() <= PAGE_SIZE);
    }
}
