//! All rules of one VM address.
#![deny(clippy::arithmetic_side_effects)]

use super::{RuleError, RuleText, Target, Verdict};
use crate::Family;
use alloc::collections::BTreeMap;
use core::fmt;

/// Most rules of one address: what takes about a millisecond to be understood and compiled.
pub const RULES_MAX: usize = 2000;

/// The rules of one client address, as dom0 committed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// In the order of their numbers, which may have gaps: dom0 leaves out expired rules and those
    /// of the other address family.
    pub rules: BTreeMap<u16, RuleText>,
    /// The `policy` key: for what no rule matches.
    pub policy: Verdict,
}

/// Why a tree was not understood, and its VM is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeError {
    /// The rule with this number.
    Rule(u16, RuleError),
    /// A key that is neither `policy` nor four digits.
    Key,
    /// A key that stands there twice.
    Twice,
    /// `policy` is neither `drop` nor `accept`.
    Policy,
    /// There is no `policy`.
    NoPolicy,
    /// More than [`RULES_MAX`] rules.
    TooMany,
    /// With the rules of all other addresses there are more than there is memory for.
    NoRoom,
}

impl Tree {
    /// Reads the keys below `/qubes-firewall/ADDRESS/` (`policy`, `0000`, …) with their values.
    /// `family` is that of the address.
    ///
    /// # Errors
    /// The first thing that was not understood. Then the VM must be blocked.
    pub fn parse<'a>(
        family: Family,
        entries: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, TreeError> {
        let (mut rules, mut policy) = (BTreeMap::new(), None);
        for (key, value) in entries {
            let twice = if key == "policy" {
                policy.replace(parse_policy(value)?).is_some()
            } else {
                let number = rule_number(key).ok_or(TreeError::Key)?;
                if rules.len() >= RULES_MAX {
                    return Err(TreeError::TooMany);
                }
                let rule = parse_rule(family, value).map_err(|why| TreeError::Rule(number, why))?;
                rules.insert(number, rule).is_some()
            };
            if twice {
                return Err(TreeError::Twice);
            }
        }
        Ok(Self { rules, policy: policy.ok_or(TreeError::NoPolicy)? })
    }
}

fn parse_policy(value: &[u8]) -> Result<Verdict, TreeError> {
    let text = core::str::from_utf8(value).map_err(|_| TreeError::Policy)?;
    text.parse().map_err(|_| TreeError::Policy)
}

fn rule_number(key: &str) -> Option<u16> {
    let four_digits = key.len() == 4 && key.bytes().all(|b| b.is_ascii_digit());
    key.parse().ok().filter(|_| four_digits)
}

fn parse_rule(family: Family, value: &[u8]) -> Result<RuleText, RuleError> {
    let text = core::str::from_utf8(value).map_err(|_| RuleError::Form)?;
    let rule: RuleText = text.parse()?;
    match (&rule.target, family) {
        (Target::Net(net), Family::V4) if net.v4.is_empty() => Err(RuleError::Family),
        (Target::Net(net), Family::V6) if net.v6.is_empty() => Err(RuleError::Family),
        _ => Ok(rule),
    }
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(number, why) => write!(f, "rule {number:04}: {why}"),
            Self::Key => f.write_str("a key that is neither policy nor four digits"),
            Self::Twice => f.write_str("a key stands there twice"),
            Self::Policy => f.write_str("policy is neither drop nor accept"),
            Self::NoPolicy => f.write_str("no policy key"),
            Self::TooMany => write!(f, "more than {RULES_MAX} rules"),
            Self::NoRoom => f.write_str("no memory for so many rules"),
        }
    }
}

impl core::error::Error for TreeError {}
