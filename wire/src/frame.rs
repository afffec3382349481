//! An Ethernet frame as it stands between the two ends of the packet path.

use crate::Port;

/// Bytes of a frame that are always brought to private memory before the verdict, if it has them.
pub const HEAD_MAX: usize = 256;

/// Bytes that are brought when a verdict needs the whole frame ([`crate::Verdict::NeedWhole`]).
pub const WHOLE_MAX: usize = 2048;

/// A frame waiting for its verdict.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Where it came in.
    pub from: Port,
    /// Its first bytes, in memory no other domain can read or change. It is the whole frame iff
    /// `head.len() == len`.
    pub head: &'a [u8],
    /// Length of the whole frame in bytes, Ethernet header included.
    pub len: u32,
    /// What its sender left for the receiver to do.
    pub offload: Offload,
}

impl Frame<'_> {
    /// Whether `head` is all there is.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.head.len() == self.len as usize
    }
}

/// Work a sender left to the receiver, or vouches to have been done (xen/io/netif.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    /// State of the TCP or UDP checksum.
    pub csum: Csum,
    /// Set iff the frame is one large segment to be cut later.
    pub gso: Option<Gso>,
}

impl Offload {
    /// A plain frame: nothing left out, nothing vouched for.
    pub const NONE: Self = Self { csum: Csum::Unknown, gso: None };
}

/// State of the TCP or UDP checksum of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Csum {
    /// The field holds the folded, uncomplemented sum of the pseudo header only
    /// (NETTXF_csum_blank); whoever needs it complete must sum from the transport header on.
    Blank,
    /// Complete, and checked by somebody who is trusted to (NETTXF_data_validated).
    Valid,
    /// Complete if the sender was honest; nobody has looked.
    Unknown,
}

/// A generic segmentation offload request (XEN_NETIF_EXTRA_TYPE_GSO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// TCP over which family.
    pub kind: GsoKind,
    /// Payload bytes of each segment (the MSS); never 0.
    pub size: u16,
}

/// Which headers stand before the payload of a GSO frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
}
