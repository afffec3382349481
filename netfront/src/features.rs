//! What a backend can take, and whether a frame asks for more.

use wire::{Csum, DropReason, GsoKind, Offload};

/// Offers of a backend (feature-* in its directory, xen/io/netif.h); absent ones are off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// feature-sg: frames of more than one slot.
    pub sg: bool,
    /// feature-gso-tcpv4.
    pub gso_v4: bool,
    /// feature-gso-tcpv6.
    pub gso_v6: bool,
    /// feature-ipv6-csum-offload: blank checksums over IPv6. Over IPv4 every backend takes them.
    pub ipv6_csum: bool,
}

/// EtherType of IPv6 (RFC 2464), where it stands in a frame.
const ETHER_TYPE: core::ops::Range<usize> = 12..14;
const IPV6: [u8; 2] = [0x86, 0xdd];

impl Features {
    /// Whether a frame that begins with `head` may leave as `offload` says.
    ///
    /// # Errors
    /// [`DropReason::EgressOffload`] if the backend cannot do what is left to do.
    pub(crate) fn check(self, head: &[u8], offload: Offload) -> Result<(), DropReason> {
        let ipv6 = head.get(ETHER_TYPE) == Some(&IPV6);
        let fine = match offload.gso {
            // A segment to be cut always has a blank checksum: each cut gets its own.
            Some(gso) => {
                offload.csum == Csum::Blank
                    && gso.size != 0
                    && self.sg
                    && match gso.kind {
                        GsoKind::TcpV4 => self.gso_v4 && !ipv6,
                        GsoKind::TcpV6 => self.gso_v6 && ipv6,
                    }
            }
            None => offload.csum != Csum::Blank || !ipv6 || self.ipv6_csum,
        };
        if fine { Ok(()) } else { Err(DropReason::EgressOffload) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Gso;

    const V4: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    const V6: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];

    #[test]
    fn each_offload_needs_its_feature_and_no_other() {
        for bits in 0..16u8 {
            let has = |bit: u8| bits >> bit & 1 == 1;
            let features =
                Features { sg: has(0), gso_v4: has(1), gso_v6: has(2), ipv6_csum: has(3) };
            let takes = |head: &[u8], csum, kind: Option<GsoKind>| {
                let gso = kind.map(|kind| Gso { kind, size: 1448 });
                features.check(head, Offload { csum, gso }).is_ok()
            };
            for csum in [Csum::Unknown, Csum::Valid] {
                assert!(takes(&V4, csum, None) && takes(&V6, csum, None));
                assert!(!takes(&V4, csum, Some(GsoKind::TcpV4)));
                assert!(!takes(&V6, csum, Some(GsoKind::TcpV6)));
            }
            assert!(takes(&V4, Csum::Blank, None));
            assert_eq!(takes(&V6, Csum::Blank, None), has(3));
            assert_eq!(takes(&V4, Csum::Blank, Some(GsoKind::TcpV4)), has(0) && has(1));
            assert_eq!(takes(&V6, Csum::Blank, Some(GsoKind::TcpV6)), has(0) && has(2));
            assert!(!takes(&V6, Csum::Blank, Some(GsoKind::TcpV4)));
            assert!(!takes(&V4, Csum::Blank, Some(GsoKind::TcpV6)));
        }
    }
}
