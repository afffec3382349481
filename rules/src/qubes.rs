//! The rules Qubes keeps for each VM, as they stand in QubesDB under `/qubes-firewall/ADDRESS/`
//! (dom0's qubes/firewall.py writes them; the Linux agent's qubesagent/firewall.py is the reference).
//!
//! In: a tree of keys and values as it was when dom0 committed it. Out: what it decides for a flow
//! of that VM. A tree that is not understood wholly blocks its VM and says why; nothing in it can
//! widen what another VM may do. Never: resolves host names, it is told their addresses.

mod grammar;
mod tree;
mod trees;

pub use grammar::{Proto, RuleError, RuleText, Target, Verdict};
pub use tree::{RULES_MAX, Tree, TreeError};
pub use trees::Trees;
