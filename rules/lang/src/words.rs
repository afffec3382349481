//! The words with a meaning of their own, and the nearest one to a word that has none.

use crate::ast::IcmpType;
use rules::{Family, RejectKind};

/// Words that begin a declaration.
pub(crate) const DECLARATIONS: [&str; 13] = [
    "zone", "vm", "set", "service", "group", "policy", "nat", "redirect", "route", "syslog",
    "timeout", "flows", "expect",
];

/// Words that begin a rule.
pub(crate) const VERDICTS: [&str; 6] = ["accept", "drop", "reject", "qubes", "forward", "use"];

/// Words that begin a condition of a rule, or say more about it.
pub(crate) const CLAUSES: [&str; 11] =
    ["sport", "from", "to", "state", "ttl", "dscp", "length", "flags", "no-flags", "limit", "log"];

/// Words that name a protocol.
pub(crate) const PROTOCOLS: [&str; 5] = ["tcp", "udp", "icmp", "icmp4", "icmp6"];

/// Other words that stand where a name could.
const OTHERS: [&str; 6] = ["at", "host", "balance", "via", "firewall", "masquerade"];

/// Types of ICMP that begin a flow and have a name (RFC 792, RFC 4443).
pub(crate) const ICMP_NAMES: [(&str, &[IcmpType]); 2] = [
    ("echo-request", &[(Family::V4, 8, None), (Family::V6, 128, None)]),
    ("timestamp-request", &[(Family::V4, 13, None)]),
];

/// Words of firewalls that this language does not know, with what can be said about each.
const LATER: [(&str, &str); 20] = [
    ("rate", "a rate stands behind `limit`: `accept icmp echo-request limit 10/s`"),
    ("dnat", "ports are translated by `forward tcp 80 to web:8080` in a block, or by `nat`"),
    ("snat", "sources are translated by `nat clients -> uplink snat from work to 192.0.2.7`"),
    ("routes", "each stands alone: `route 10.0.0.0/8 via 192.0.2.9`"),
    ("metric", "the longest prefix counts, and no uplink stands in for another"),
    ("failover", "no uplink stands in for another: load another policy instead"),
    ("established", "answers always pass with the flow they belong to; no rule is needed"),
    ("related", "answers always pass with the flow they belong to; no rule is needed"),
    ("invalid", "what fits no flow and opens none is always dropped; no rule is needed"),
    ("not", "put a rule for the exception before the general one"),
    ("any", "a condition that is left out holds for everything"),
    ("all", "a condition that is left out holds for everything"),
    ("if", "conditions follow the verdict: `accept tcp 443 from work`"),
    ("else", "the first rule that matches decides"),
    ("include", "a policy is one file"),
    ("vlan", "there are no VLANs"),
    ("jump", "the rules of a group are asked by `use NAME`"),
    ("goto", "the rules of a group are asked by `use NAME`"),
    ("timer", "rules do not depend on the time of day"),
    ("mac", "an interface belongs to a VM: `vm work = 10.137.0.10, mac 00:16:3e:5e:6c:10`"),
];

/// Whether `word` cannot be used as a name.
pub(crate) fn is_reserved(word: &str) -> bool {
    let lists = [&DECLARATIONS[..], &VERDICTS, &CLAUSES, &PROTOCOLS, &OTHERS];
    ICMP_NAMES.iter().any(|(name, _)| *name == word)
        || lists.iter().any(|list| list.contains(&word))
        || RejectKind::ALL.iter().any(|kind| kind.name() == word)
}

/// What to say about a word that may come later.
pub(crate) fn later(word: &str) -> Option<&'static str> {
    LATER.iter().find(|(name, _)| *name == word).map(|(_, text)| *text)
}

/// The candidate that `word` was most likely meant to be.
pub(crate) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let far = word.chars().count().div_ceil(3);
    candidates
        .into_iter()
        .filter(|_| word.len() <= 64)
        .map(|c| (strsim::osa_distance(&word.to_lowercase(), c), c))
        .filter(|(distance, _)| *distance <= far)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The same as a sentence.
pub(crate) fn did_you_mean<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<String> {
    nearest(word, candidates).map(|name| format!("did you mean `{name}`?"))
}
