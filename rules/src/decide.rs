//! What a policy means. This interpreter is the definition; anything faster is tested against it.

use crate::qubes::Trees;
use crate::{Action, Policy, Query, RuleId, Then};

/// What is to be done with a new flow, and who said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is to be done.
    pub action: Action,
    /// The rule of the policy that decided.
    pub rule: RuleId,
    /// Whether that rule wants a line in the log.
    pub log: bool,
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
    /// Decides a new flow. `own` holds the VMs' own rules, for policies that hand over to them.
    ///
    /// 1. The block for the direction of the query is looked up. Without one, the flow is dropped.
    /// 2. Its rules are asked in the order they were written; the first that matches decides.
    ///    The last rule of a block matches everything, so there always is one.
    #[must_use]
    pub fn decide(&self, query: &Query, own: &Trees) -> Decision {
        let first_match = self.block(query.from, query.to).find(|(_, rule)| rule.matches(query));
        let Some((id, rule)) = first_match else {
            let (action, rule) = (Action::Drop, RuleId::DEFAULT);
            return Decision { action, rule, log: false, own: None };
        };
        let (action, own) = match rule.then {
            Then::Do(action) => (action, None),
            Then::Qubes => {
                let (action, own) = own.decide(query);
                (action, Some(own))
            }
        };
        Decision { action, rule: id, log: rule.log, own }
    }
}
