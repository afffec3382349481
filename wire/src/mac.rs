//! Ethernet addresses.

use core::fmt;

/// An Ethernet (MAC-48) address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// fe:ff:ff:ff:ff:ff, the address every Xen backend answers with by convention.
    pub const BACKEND: Self = Self([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]);

    /// Whether the group bit is set (multicast or broadcast, IEEE 802 section 8.2).
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Reads `aa:bb:cc:dd:ee:ff`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next()?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(mac))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn text_round_trips_and_rejects_other_forms() {
        let text = "00:16:3e:5e:6c:00";
        assert_eq!(Mac::parse(text).unwrap().to_string(), text);
        for bad in
            ["", "00:16:3e:5e:6c", "00:16:3e:5e:6c:00:01", "0:16:3e:5e:6c:00", "+0:16:3e:5e:6c:00"]
        {
            assert_eq!(Mac::parse(bad), None, "{bad}");
        }
    }
}
