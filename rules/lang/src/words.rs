//! The words with a meaning of their own, and the nearest one to a word that has none.

use rules::RejectKind;

/// Words that begin a declaration.
pub(crate) const DECLARATIONS: [&str; 8] =
    ["zone", "vm", "set", "service", "policy", "nat", "redirect", "expect"];

/// Words that begin a rule.
pub(crate) const VERDICTS: [&str; 4] = ["accept", "drop", "reject", "qubes"];

/// Words that begin a condition of a rule, or say more about it.
pub(crate) const CLAUSES: [&str; 4] = ["sport", "from", "to", "log"];

/// Words that name a protocol.
pub(crate) const PROTOCOLS: [&str; 3] = ["tcp", "udp", "icmp"];

/// Words of firewalls that this language does not know yet, with what can be said about each.
const LATER: [(&str, &str); 22] = [
    ("limit", "rates cannot be limited yet"),
    ("rate", "rates cannot be limited yet"),
    ("forward", "connections from outside cannot be forwarded to a VM yet"),
    ("dnat", "destinations cannot be translated yet, except by `redirect dns`"),
    ("snat", "sources are translated by `masquerade` only"),
    ("route", "there is one route: the uplink"),
    ("routes", "there is one route: the uplink"),
    ("syslog", "logs go to the console only"),
    ("host", "host names cannot be used yet: write addresses"),
    ("state", "answers always pass with the flow they belong to; rules speak of new flows only"),
    ("established", "answers always pass with the flow they belong to; no rule is needed"),
    ("related", "answers always pass with the flow they belong to; no rule is needed"),
    ("not", "put a rule for the exception before the general one"),
    ("any", "a condition that is left out holds for everything"),
    ("all", "a condition that is left out holds for everything"),
    ("if", "conditions follow the verdict: `accept tcp 443 from work`"),
    ("else", "the first rule that matches decides"),
    ("include", "a policy is one file"),
    ("balance", "load balancing is not there yet"),
    ("vlan", "there are no VLANs"),
    ("flags", "rules cannot look at TCP flags yet"),
    ("ttl", "rules cannot look at the TTL yet"),
];

/// Whether `word` cannot be used as a name.
pub(crate) fn is_reserved(word: &str) -> bool {
    let lists = [&DECLARATIONS[..], &VERDICTS, &CLAUSES, &PROTOCOLS];
    word == "echo-request"
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
