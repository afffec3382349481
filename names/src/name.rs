//! Domain names, as rules write them and as messages spell them.
//!
//! In: text, or a place in a message. Out: labels, one after the other, and whether two names are the
//! same. Never: a name put together in memory, a pointer that does not lead back, or a walk longer than
//! a name can be.
#![deny(clippy::arithmetic_side_effects)]

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Most bytes of a name in a message, its last zero included (RFC 1035 section 3.1).
pub(crate) const NAME_MAX: usize = 255;

/// Most bytes of a label.
const LABEL_MAX: u8 = 63;

/// Most pointers in one name. Each leads further back, so this is only a limit to work.
const POINTERS_MAX: u8 = 16;

/// Bytes of the header, into which no name leads.
pub(crate) const HEADER: usize = 12;

/// A host name as messages spell it: each label behind its length, a zero behind all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// The name `host`, with or without a dot at its end. `None` if no message can spell it: it has an
    /// empty label or one of more than 63 bytes, or is too long altogether.
    #[must_use]
    pub fn new(host: &str) -> Option<Self> {
        let mut spelled = Vec::with_capacity(host.len().checked_add(2)?);
        for label in host.strip_suffix('.').unwrap_or(host).split('.') {
            let len = u8::try_from(label.len()).ok().filter(|len| (1..=LABEL_MAX).contains(len))?;
            spelled.push(len);
            spelled.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        spelled.push(0);
        (spelled.len() <= NAME_MAX).then(|| Self(spelled.into()))
    }

    /// Its bytes in a message, in lower case.
    #[must_use]
    pub fn spelled(&self) -> &[u8] {
        &self.0
    }
}

/// A name that stands in a message: holding one proves that it can be read to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spelled<'m> {
    message: &'m [u8],
    at: usize,
}

impl<'m> Spelled<'m> {
    /// The name at `at`, and where what follows it begins. `None` if it breaks off, is too long, or
    /// goes where no name is.
    pub(crate) fn read(message: &'m [u8], at: usize) -> Option<(Self, usize)> {
        let name = Self { message, at };
        let mut walk = name.walk();
        let mut len = 1usize;
        while let Some(label) = walk.step()? {
            len = len.checked_add(label.len())?.checked_add(1)?;
            if len > NAME_MAX {
                return None;
            }
        }
        Some((name, walk.end?))
    }

    /// Whether it is spelled without pointers in this many bytes.
    pub(crate) fn is_plain(&self, end: usize) -> bool {
        let plain: usize =
            self.labels().fold(1, |len, label| len.saturating_add(label.len()).saturating_add(1));
        self.at.checked_add(plain) == Some(end)
    }

    /// Whether both are the same name. Case does not count (RFC 4343).
    pub(crate) fn is(&self, other: &Self) -> bool {
        same(self.labels(), other.labels())
    }

    /// Whether it is the name that a rule wrote.
    pub(crate) fn is_host(&self, host: &Name) -> bool {
        same(self.labels(), Spelled { message: host.spelled(), at: 0 }.labels())
    }

    fn labels(&self) -> impl Iterator<Item = &'m [u8]> + use<'m> {
        let mut walk = self.walk();
        core::iter::from_fn(move || walk.step().flatten())
    }

    const fn walk(&self) -> Walk<'m> {
        Walk { message: self.message, at: self.at, start: self.at, pointers: 0, end: None }
    }
}

fn same<'a>(mut a: impl Iterator<Item = &'a [u8]>, mut b: impl Iterator<Item = &'a [u8]>) -> bool {
    loop {
        match (a.next(), b.next()) {
            (Some(a), Some(b)) if a.eq_ignore_ascii_case(b) => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// A walk over the labels of a name.
struct Walk<'m> {
    message: &'m [u8],
    at: usize,
    /// Where the labels began that are being walked: a pointer leads to before this.
    start: usize,
    pointers: u8,
    /// Where what follows the name begins, once that is known.
    end: Option<usize>,
}

impl<'m> Walk<'m> {
    /// The next label, `Some(None)` after the last; `None` if there is none that can be.
    fn step(&mut self) -> Option<Option<&'m [u8]>> {
        loop {
            let first = *self.message.get(self.at)?;
            let after = self.at.checked_add(1)?;
            match first {
                0 => {
                    self.end.get_or_insert(after);
                    return Some(None);
                }
                1..=LABEL_MAX => {
                    let end = after.checked_add(first.into())?;
                    let label = self.message.get(after..end)?;
                    self.at = end;
                    return Some(Some(label));
                }
                // RFC 1035 section 4.1.4.
                0xc0..=0xff => {
                    let second = *self.message.get(after)?;
                    let to = usize::from(u16::from_be_bytes([first & 0x3f, second]));
                    self.pointers = self.pointers.checked_add(1).filter(|n| *n <= POINTERS_MAX)?;
                    if to < HEADER || to >= self.start {
                        return None;
                    }
                    self.end.get_or_insert(after.checked_add(1)?);
                    (self.at, self.start) = (to, to);
                }
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;
    use std::vec;

    /// A message in which names begin behind a header of zeros.
    fn message(rest: &[u8]) -> Vec<u8> {
        let mut message = vec![0; HEADER];
        message.extend(rest);
        message
    }

    fn text(name: Spelled<'_>) -> String {
        name.labels().map(|label| format!("{}.", label.escape_ascii())).collect()
    }

    #[test]
    fn names_are_spelled_and_read() {
        let name = Name::new("www.exam_ple.org").unwrap();
        assert_eq!(name.spelled(), b"\x03www\x08exam_ple\x03org\x00");
        assert_eq!(Name::new("www.exam_ple.org."), Some(name.clone()));
        let bytes = message(b"\x03WwW\x08Exam_Ple\x03org\0rest");
        let (read, end) = Spelled::read(&bytes, HEADER).unwrap();
        assert!(read.is_host(&name) && read.is_plain(end));
        assert_eq!((text(read).as_str(), &bytes[end..]), ("WwW.Exam_Ple.org.", &b"rest"[..]));
        for other in ["www.exam_ple.or", "exam_ple.org", "www.www.exam_ple.org", "www.exam-ple.org"]
        {
            assert!(!read.is_host(&Name::new(other).unwrap()), "{other}");
        }
    }

    #[test]
    fn what_no_message_can_spell_is_no_name() {
        let label = "a".repeat(63);
        assert!(Name::new(&label).is_some());
        assert!(Name::new(&format!("{label}a")).is_none());
        let long = [&*label; 4].join(".");
        assert!(Name::new(&long[..253]).is_some());
        assert!(Name::new(&long[..254]).is_none());
        for bad in ["", ".", "..", "a..b", ".a", "a.."] {
            assert_eq!(Name::new(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn pointers_lead_back_and_only_back() {
        let bytes = message(b"\x03org\0\x01a\xc0\x0c\x01b\xc0\x11");
        let (name, end) = Spelled::read(&bytes, 21).unwrap();
        assert_eq!((text(name).as_str(), end), ("b.a.org.", bytes.len()));
        assert!(!name.is_plain(end));
        for (what, bad) in [
            ("to itself", &b"\xc0\x0c"[..]),
            ("forward", b"\xc0\x0e\x01a\0"),
            ("to its own labels", b"\x01a\xc0\x0c"),
            ("to each other", b"\xc0\x0e\xc0\x0c"),
            ("into the header", b"\xc0\x0b"),
            ("half", b"\xc0"),
            ("no end", b"\x01a"),
            ("cut label", b"\x05abc"),
            ("extended label", b"\x41a\0"),
            ("reserved", b"\x80\x0c"),
        ] {
            let bytes = message(bad);
            assert!(Spelled::read(&bytes, HEADER).is_none(), "{what}");
        }
        let bytes = message(b"\xc0\x0e\xc0\x0c");
        assert!(Spelled::read(&bytes, 14).is_none(), "a loop of two");
    }

    #[test]
    fn a_name_is_no_longer_and_has_no_more_pointers_than_it_may() {
        // Each name is one label and a pointer to the one before.
        let chain = |label: &[u8], count: usize| {
            let (mut bytes, mut last) = (message(b"\0"), HEADER);
            for _ in 0..count {
                let at = bytes.len();
                bytes.extend(label);
                bytes.extend((0xc000 | last as u16).to_be_bytes());
                last = at;
            }
            Spelled::read(&bytes, last).is_some()
        };
        assert!(chain(b"\x01a", 16) && !chain(b"\x01a", 17));
        let label = [&b"\x3f"[..], &[b'a'; 63]].concat();
        assert!(chain(&label, 3) && !chain(&label, 4), "254 bytes, and 257");
    }
}
