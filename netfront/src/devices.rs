//! Which of the devices under `device/vif` an uplink may use.
//!
//! In: indices of devices. Out: whether they are its own. Never: one device of two uplinks, if each
//! further uplink has one [`Devices::only`] for itself and the first has all [`Devices::but`] those.

/// Some of the devices, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Devices(Which);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Only(u8),
    /// All whose bit is not set.
    But(u32),
}

impl Devices {
    /// Whichever there is: the lowest that works.
    pub const ANY: Self = Self(Which::But(0));

    /// This one, there or not.
    #[must_use]
    pub const fn only(index: u8) -> Self {
        Self(Which::Only(index))
    }

    /// None of these, whose indices are below 32.
    #[must_use]
    pub fn but(others: impl IntoIterator<Item = u8>) -> Self {
        let bit = |index: u8| 1u32.checked_shl(index.into()).unwrap_or(0);
        Self(Which::But(others.into_iter().fold(0, |all, index| all | bit(index))))
    }

    /// Whether this device is among them.
    pub(crate) fn has(self, index: u32) -> bool {
        match self.0 {
            Which::Only(only) => index == u32::from(only),
            Which::But(others) => 1u32.checked_shl(index).unwrap_or(0) & others == 0,
        }
    }

    /// Whether it is for whoever uses them to say what is wrong with the list of all devices, of which
    /// each uplink has its own part.
    pub(crate) const fn tell_of_list(self) -> bool {
        matches!(self.0, Which::But(_))
    }
}

#[cfg(test)]
mod tests {
    use super::Devices;
    use alloc::vec::Vec;

    #[test]
    fn each_device_belongs_to_one_uplink() {
        let own = [Devices::but([1, 3]), Devices::only(1), Devices::only(3)];
        for index in (0..70).chain([u32::MAX]) {
            let users: Vec<_> = (0..3).filter(|n| own[*n].has(index)).collect();
            let expected = match index {
                1 => 1,
                3 => 2,
                _ => 0,
            };
            assert_eq!(users, [expected], "device {index}");
            assert!(Devices::ANY.has(index));
        }
    }
}
