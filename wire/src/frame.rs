//! An Ethernet frame as it stands between the two ends of the packet path.

use crate::Port;

/// Bytes of a frame that are brought to private memory before the verdict, if it has them: fewer only where
/// these are [all headers of TCP](crate::has_tcp_headers), more where it is short.
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

/// What a receiver of frames does itself; the rest is done before it is sent anything (the feature-*
/// keys of xen/io/netif.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takes {
    /// feature-sg: frames in more than one slot.
    pub sg: bool,
    /// feature-gso-tcpv4.
    pub gso_v4: bool,
    /// feature-gso-tcpv6.
    pub gso_v6: bool,
    /// No feature-no-csum-offload: blank checksums in IPv4.
    pub blank_v4: bool,
    /// feature-ipv6-csum-offload: blank checksums in IPv6.
    pub blank_v6: bool,
}

impl Takes {
    /// Everything there is, as a Linux bridge does.
    pub const ALL: Self =
        Self { sg: true, gso_v4: true, gso_v6: true, blank_v4: true, blank_v6: true };

    /// Whether frames to be segmented are taken. They are large, and always have a blank checksum, so
    /// that each segment can get its own.
    #[must_use]
    pub const fn gso(self, kind: GsoKind) -> bool {
        let (feature, blank) = match kind {
            GsoKind::TcpV4 => (self.gso_v4, self.blank_v4),
            GsoKind::TcpV6 => (self.gso_v6, self.blank_v6),
        };
        self.sg && feature && blank
    }

    /// Whether a frame is taken whose head is `head` and of which `offload` is left to do.
    #[must_use]
    pub fn frame(self, head: &[u8], offload: Offload) -> bool {
        let ipv6 = head.get(ETHER_TYPE) == Some(&ETHER_TYPE_IPV6);
        let blank = if ipv6 { self.blank_v6 } else { self.blank_v4 };
        match offload.gso {
            None => offload.csum != Csum::Blank || blank,
            Some(Gso { kind, size }) => {
                let family = (kind == GsoKind::TcpV6) == ipv6;
                self.gso(kind) && family && size != 0 && offload.csum == Csum::Blank
            }
        }
    }
}

/// Where the EtherType stands (RFC 894), and that of IPv6 (RFC 2464).
const ETHER_TYPE: core::ops::Range<usize> = 12..14;
const ETHER_TYPE_IPV6: [u8; 2] = [0x86, 0xdd];

#[cfg(test)]
mod tests {
    use super::*;

    const V4: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    const V6: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];

    #[test]
    fn each_offload_needs_its_features_and_no_other() {
        for bits in 0..32u8 {
            let has = |bit: u8| bits >> bit & 1 == 1;
            let takes = Takes {
                sg: has(0),
                gso_v4: has(1),
                gso_v6: has(2),
                blank_v4: has(3),
                blank_v6: has(4),
            };
            let frame = |head: &[u8], csum, kind: Option<GsoKind>| {
                let gso = kind.map(|kind| Gso { kind, size: 1448 });
                takes.frame(head, Offload { csum, gso })
            };
            for csum in [Csum::Unknown, Csum::Valid] {
                assert!(frame(&V4, csum, None) && frame(&V6, csum, None));
                assert!(!frame(&V4, csum, Some(GsoKind::TcpV4)));
                assert!(!frame(&V6, csum, Some(GsoKind::TcpV6)));
            }
            assert_eq!(frame(&V4, Csum::Blank, None), has(3));
            assert_eq!(frame(&V6, Csum::Blank, None), has(4));
            let (v4, v6) = (has(0) && has(1) && has(3), has(0) && has(2) && has(4));
            assert_eq!(frame(&V4, Csum::Blank, Some(GsoKind::TcpV4)), v4);
            assert_eq!(frame(&V6, Csum::Blank, Some(GsoKind::TcpV6)), v6);
            assert!(!frame(&V6, Csum::Blank, Some(GsoKind::TcpV4)));
            assert!(!frame(&V4, Csum::Blank, Some(GsoKind::TcpV6)));
        }
    }
}
