//! Every reason for which a frame can be dropped. One list for counters, logs and documents.

use core::fmt;
use core::ops::{Index, IndexMut};

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Why a frame was not sent on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $name,)+ }

        impl DropReason {
            /// All reasons, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The name used in logs, counters and documents: lower case with dashes.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than its headers claim, or than an Ethernet header.
    Truncated = "truncated",
    /// An Ethernet type, IP version or ARP form that is not handled.
    UnknownProtocol = "unknown-protocol",
    /// Header fields contradict each other or the frame.
    BadHeader = "bad-header",
    /// The IPv4 header checksum is wrong.
    BadIpChecksum = "bad-ip-checksum",
    /// The transport or ICMP checksum is wrong.
    BadChecksum = "bad-checksum",
    /// IPv4 options that route or record (RFC 7126).
    SourceRoute = "source-route",
    /// A fragment that overlaps others, is too small or too many, or whose first never came.
    Fragment = "fragment",
    /// Destination MAC is not ours.
    NotForUs = "not-for-us",
    /// Source address is not one of the sender's own.
    SpoofedSource = "spoofed-source",
    /// Source or destination address can never be routed (loopback, multicast, unspecified, ...).
    MartianAddress = "martian-address",
    /// TTL or hop limit used up.
    TtlExceeded = "ttl-exceeded",
    /// No uplink, or no route to the destination.
    NoRoute = "no-route",
    /// To an address of the firewall itself, and not something it answers.
    ToFirewall = "to-firewall",
    /// Answered by the firewall itself (ARP, echo): nothing to send on.
    Answered = "answered",
    /// From the uplink, and belongs to no flow.
    Unsolicited = "unsolicited",
    /// From one client to another, which no rule allows.
    ClientToClient = "client-to-client",
    /// A rule said drop.
    RuleDrop = "rule-drop",
    /// A rule said reject; the sender was told.
    RuleReject = "rule-reject",
    /// No policy is loaded.
    NoPolicy = "no-policy",
    /// A TCP segment that fits no state of its connection.
    InvalidTcp = "invalid-tcp",
    /// An ICMP error that quotes no known flow.
    UnrelatedIcmp = "unrelated-icmp",
    /// A transport protocol that cannot be translated.
    Untranslatable = "untranslatable",
    /// No external port is free.
    PortsExhausted = "ports-exhausted",
    /// The client's share of flows or ports is used up.
    QuotaExceeded = "quota-exceeded",
    /// The flow table is full.
    FlowTableFull = "flow-table-full",
    /// Longer than the egress can carry.
    TooBig = "too-big",
    /// A rate limit of a rule or of our own answers.
    RateLimited = "rate-limited",
    /// The egress has no free slots.
    EgressFull = "egress-full",
    /// The egress went away or is not connected.
    EgressDown = "egress-down",
    /// The egress cannot take this offload.
    EgressOffload = "egress-offload",
    /// More slots or bytes than the ring protocol allows.
    TooManySlots = "too-many-slots",
    /// A slot descriptor that breaks the ring protocol.
    BadSlot = "bad-slot",
    /// A grant copy failed.
    CopyFailed = "copy-failed",
    /// The peer still had the page mapped when it said it was done.
    StillMapped = "still-mapped",
    /// Not enough memory.
    NoMemory = "no-memory",
    /// A verdict needed more of the frame than may be brought.
    TooLongToInspect = "too-long-to-inspect",
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One value for each reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerReason<T>([T; DropReason::COUNT]);

impl<T: Default + Copy> Default for PerReason<T> {
    fn default() -> Self {
        Self([T::default(); DropReason::COUNT])
    }
}

impl<T> Index<DropReason> for PerReason<T> {
    type Output = T;

    #[allow(clippy::indexing_slicing, reason = "every discriminant is below COUNT")]
    fn index(&self, reason: DropReason) -> &T {
        &self.0[reason as usize]
    }
}

impl<T> IndexMut<DropReason> for PerReason<T> {
    #[allow(clippy::indexing_slicing, reason = "every discriminant is below COUNT")]
    fn index_mut(&mut self, reason: DropReason) -> &mut T {
        &mut self.0[reason as usize]
    }
}

impl<T> PerReason<T> {
    /// Each reason with its value.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, &T)> {
        DropReason::ALL.iter().copied().zip(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn reasons_stand_at_their_discriminant_and_have_distinct_names() {
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
        }
        let names: BTreeSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
    }
}
