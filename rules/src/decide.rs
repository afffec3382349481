//! The answer to the question asked for each new flow. [`crate::interpret()`] says what it must be;
//! this finds it quickly.

use crate::qubes::Trees;
use crate::{Action, HostTable, Note, Policy, Query, Rate, RuleId, Then};

/// What is to be done with a new flow, and who said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is to be done.
    pub action: Action,
    /// The rule of the policy that decided.
    pub rule: RuleId,
    /// The line that rule wants in the log, if it does.
    pub log: Option<Note>,
    /// How many flows that rule may decide. Whoever asks counts them.
    pub limit: Option<Rate>,
    /// Where the policy handed over to the VM's own rules: which of those decided.
    pub own: Option<OwnRule>,
}

/// Which of a VM's own rules decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnRule {
    /// The rule under this number.
    Number(u16),
    /// None matched: its tree's `policy` key.
    Fallback,
    /// There are none, or they could not be understood: everything is refused.
    Blocked,
}

impl Policy {
    /// Decides a new flow. `own` holds the VMs' own rules, for policies that hand over to them, and
    /// `hosts` what names stand for, for policies with names in them.
    ///
    /// The first rule that matches in the block for the direction decides. It is found by
    /// an index once [`Policy::settle`] has prepared it, and before that by asking one rule after the
    /// other.
    #[must_use]
    pub fn decide(&self, query: &Query, own: &Trees, hosts: &HostTable) -> Decision {
        let Some((id, rule)) = self.first_match(query, hosts) else {
            let (action, rule) = (Action::Drop, RuleId::DEFAULT);
            return Decision { action, rule, log: None, limit: None, own: None };
        };
        let (action, own) = match rule.then {
            Then::Do(action) => (action, None),
            Then::Qubes => {
                let (action, own) = own.decide(query);
                (action, Some(own))
            }
        };
        Decision { action, rule: id, log: rule.log, limit: rule.limit, own }
    }
}
