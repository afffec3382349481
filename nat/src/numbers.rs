//! Values that many flows share, so that a flow only keeps a number.
//!
//! In: values. Out: small numbers, valid while counted as used. Never: more than 256 at once.

use alloc::vec::Vec;

/// Most values in use at once.
const MOST: usize = 256;

/// The number of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(u8);

impl Number {
    /// For who has no use for one.
    pub(crate) const NONE: Self = Self(0);
}

/// Values, each with how many flows use it. Unused ones make room for others.
#[derive(Debug)]
pub(crate) struct Numbers<T>(Vec<Entry<T>>);

#[derive(Debug)]
struct Entry<T> {
    value: T,
    users: u32,
}

impl<T: Copy + PartialEq> Numbers<T> {
    /// Bytes of the table.
    pub(crate) const BYTES: usize = MOST * size_of::<Entry<T>>();

    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(MOST))
    }

    /// The number of a value, new if need be; `None` if all numbers are in use.
    pub(crate) fn number(&mut self, value: T) -> Option<Number> {
        let number = if let Some(known) = self.0.iter().position(|entry| entry.value == value) {
            known
        } else if let Some(unused) = self.0.iter().position(|entry| entry.users == 0) {
            *self.0.get_mut(unused)? = Entry { value, users: 0 };
            unused
        } else if self.0.len() < MOST {
            self.0.push(Entry { value, users: 0 });
            self.0.len() - 1
        } else {
            return None;
        };
        u8::try_from(number).ok().map(Number)
    }

    /// The value of a number.
    #[inline]
    pub(crate) fn value(&self, number: Number) -> Option<T> {
        self.0.get(usize::from(number.0)).map(|entry| entry.value)
    }

    /// All values, to be made others under the numbers they have.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|entry| &mut entry.value)
    }

    /// One flow more uses it.
    pub(crate) fn hold(&mut self, number: Number) {
        if let Some(entry) = self.0.get_mut(usize::from(number.0)) {
            entry.users += 1;
        }
    }

    /// One less.
    pub(crate) fn release(&mut self, number: Number) {
        if let Some(entry) = self.0.get_mut(usize::from(number.0)) {
            entry.users = entry.users.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_keeps_its_number_and_what_is_not_makes_room() {
        let mut numbers = Numbers::new();
        let mut taken = |n| {
            let number = numbers.number(n).unwrap();
            numbers.hold(number);
            number
        };
        let all: std::vec::Vec<_> = (0..256).map(&mut taken).collect();
        assert_eq!(numbers.number(7), Some(all[7]));
        assert_eq!(numbers.number(999), None, "all are in use");
        numbers.hold(all[7]);
        numbers.release(all[7]);
        assert_eq!(numbers.number(999), None, "it has another user");
        numbers.release(all[7]);
        assert_eq!(numbers.number(999), Some(all[7]));
        assert_eq!((numbers.value(all[7]), numbers.value(all[8])), (Some(999), Some(8)));
    }
    #[test]
    fn a_value_that_was_made_another_is_given_a_number_anew() {
        let mut numbers = Numbers::new();
        let old = numbers.number(1).unwrap();
        numbers.hold(old);
        numbers.values_mut().filter(|value| **value == 1).for_each(|value| *value = -1);
        let new = numbers.number(1).unwrap();
        assert!(new != old && numbers.value(new) == Some(1));
        assert_eq!(numbers.value(old), Some(-1));
    }
}
