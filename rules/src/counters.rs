//! How often each rule decided.

use crate::{Policy, RuleId};
use alloc::vec;
use alloc::vec::Vec;

/// New flows decided by each rule of one policy. Kept beside the policy, not in it, so that deciding
/// changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(Vec<u64>);

impl Counters {
    /// All zero, one for each rule of `policy` and one for [`RuleId::DEFAULT`].
    #[must_use]
    pub fn new(policy: &Policy) -> Self {
        Self(vec![0; policy.rule_ids().count()])
    }

    /// Counts one flow for `rule`. A rule of another policy is not counted.
    pub fn count(&mut self, rule: RuleId) {
        if let Some(n) = self.0.get_mut(rule.index()) {
            *n = n.saturating_add(1);
        }
    }

    /// How many flows `rule` decided.
    #[must_use]
    pub fn of(&self, rule: RuleId) -> u64 {
        self.0.get(rule.index()).copied().unwrap_or(0)
    }
}
