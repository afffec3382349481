//! One slot each: its fields and its bytes (netif.h; little-endian on x86).

use wire::{Csum, Gso, GsoKind, Offload};

macro_rules! flags {
    ($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $flag:ident = $bit:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name(pub u16);

        impl $name {
            $($(#[$item])* pub const $flag: Self = Self($bit);)+

            /// Whether all bits of `other` are set.
            #[must_use]
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// These and those.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// `with(other)` if `on`, else the same.
            #[must_use]
            pub const fn with_if(self, other: Self, on: bool) -> Self {
                if on { self.with(other) } else { self }
            }

            /// The first-slot flags that say `offload`. [`Self::EXTRA_INFO`] is set iff it has a GSO
            /// request, whose slot must follow.
            #[must_use]
            pub const fn of(offload: Offload) -> Self {
                let csum = match offload.csum {
                    Csum::Blank => Self::CSUM_BLANK.with(Self::DATA_VALIDATED),
                    Csum::Valid => Self::DATA_VALIDATED,
                    Csum::Unknown => Self(0),
                };
                csum.with_if(Self::EXTRA_INFO, offload.gso.is_some())
            }
        }
    };
}

flags! {
    /// Flags of a TX request (NETTXF_*). The two lowest bits are the other way round in [`RxFlags`].
    TxFlags {
        /// The checksum field holds the pseudo-header sum only.
        CSUM_BLANK = 1,
        /// The data is vouched for.
        DATA_VALIDATED = 2,
        /// The frame goes on in another slot.
        MORE_DATA = 4,
        /// The next slot is an [`Extra`].
        EXTRA_INFO = 8,
    }
}

flags! {
    /// Flags of an RX response (NETRXF_*). The two lowest bits are the other way round in
    /// [`TxFlags`].
    RxFlags {
        /// The data is vouched for.
        DATA_VALIDATED = 1,
        /// The checksum field holds the pseudo-header sum only.
        CSUM_BLANK = 2,
        /// The frame goes on in another slot.
        MORE_DATA = 4,
        /// The next slot is an [`Extra`].
        EXTRA_INFO = 8,
    }
}

/// Status of a response (NETIF_RSP_*); an RX response with a length uses [`Status::bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub i16);

impl Status {
    /// NETIF_RSP_OKAY.
    pub const OKAY: Self = Self(0);
    /// NETIF_RSP_ERROR.
    pub const ERROR: Self = Self(-1);
    /// NETIF_RSP_DROPPED.
    pub const DROPPED: Self = Self(-2);
    /// NETIF_RSP_NULL: the answer to a slot that was an extra.
    pub const NULL: Self = Self(1);

    /// An RX response with `len` bytes (at most a page).
    #[must_use]
    pub const fn bytes(len: u16) -> Self {
        Self(len.cast_signed())
    }
}

/// netif_tx_request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxRequest {
    /// The page with the data, granted to the backend.
    pub gref: u32,
    /// Where the data starts in it, in bytes.
    pub offset: u16,
    /// Flags; those about the frame count in its first slot only.
    pub flags: TxFlags,
    /// Echoed in the response.
    pub id: u16,
    /// Bytes: of the whole frame in its first slot, of this slot in all others.
    pub size: u16,
}

impl TxRequest {
    /// The slot.
    #[must_use]
    pub const fn encode(&self) -> [u8; 12] {
        let [g0, g1, g2, g3] = self.gref.to_le_bytes();
        let [o0, o1] = self.offset.to_le_bytes();
        let [f0, f1] = self.flags.0.to_le_bytes();
        let [i0, i1] = self.id.to_le_bytes();
        let [s0, s1] = self.size.to_le_bytes();
        [g0, g1, g2, g3, o0, o1, f0, f1, i0, i1, s0, s1]
    }

    /// What a slot says.
    #[must_use]
    pub const fn decode(slot: &[u8; 12]) -> Self {
        let [g0, g1, g2, g3, o0, o1, f0, f1, i0, i1, s0, s1] = *slot;
        Self {
            gref: u32::from_le_bytes([g0, g1, g2, g3]),
            offset: u16::from_le_bytes([o0, o1]),
            flags: TxFlags(u16::from_le_bytes([f0, f1])),
            id: u16::from_le_bytes([i0, i1]),
            size: u16::from_le_bytes([s0, s1]),
        }
    }
}

/// netif_tx_response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxResponse {
    /// Of the request.
    pub id: u16,
    /// What became of it.
    pub status: Status,
}

impl TxResponse {
    /// The slot.
    #[must_use]
    pub const fn encode(&self) -> [u8; 12] {
        let [i0, i1] = self.id.to_le_bytes();
        let [s0, s1] = self.status.0.to_le_bytes();
        [i0, i1, s0, s1, 0, 0, 0, 0, 0, 0, 0, 0]
    }

    /// What a slot says.
    #[must_use]
    pub const fn decode(slot: &[u8; 12]) -> Self {
        let [i0, i1, s0, s1, ..] = *slot;
        Self { id: u16::from_le_bytes([i0, i1]), status: Status(i16::from_le_bytes([s0, s1])) }
    }
}

/// netif_rx_request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxRequest {
    /// Echoed in the response.
    pub id: u16,
    /// An empty page, granted to the backend.
    pub gref: u32,
}

impl RxRequest {
    /// The slot.
    #[must_use]
    pub const fn encode(&self) -> [u8; 8] {
        let [i0, i1] = self.id.to_le_bytes();
        let [g0, g1, g2, g3] = self.gref.to_le_bytes();
        [i0, i1, 0, 0, g0, g1, g2, g3]
    }

    /// What a slot says.
    #[must_use]
    pub const fn decode(slot: &[u8; 8]) -> Self {
        let [i0, i1, _, _, g0, g1, g2, g3] = *slot;
        Self { id: u16::from_le_bytes([i0, i1]), gref: u32::from_le_bytes([g0, g1, g2, g3]) }
    }
}

/// netif_rx_response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxResponse {
    /// Of the request.
    pub id: u16,
    /// Where the data starts in the page, in bytes.
    pub offset: u16,
    /// Flags; those about the frame count in its first slot only.
    pub flags: RxFlags,
    /// Bytes in this slot, or an error below 0.
    pub status: Status,
}

impl RxResponse {
    /// The slot.
    #[must_use]
    pub const fn encode(&self) -> [u8; 8] {
        let [i0, i1] = self.id.to_le_bytes();
        let [o0, o1] = self.offset.to_le_bytes();
        let [f0, f1] = self.flags.0.to_le_bytes();
        let [s0, s1] = self.status.0.to_le_bytes();
        [i0, i1, o0, o1, f0, f1, s0, s1]
    }

    /// What a slot says.
    #[must_use]
    pub const fn decode(slot: &[u8; 8]) -> Self {
        let [i0, i1, o0, o1, f0, f1, s0, s1] = *slot;
        Self {
            id: u16::from_le_bytes([i0, i1]),
            offset: u16::from_le_bytes([o0, o1]),
            flags: RxFlags(u16::from_le_bytes([f0, f1])),
            status: Status(i16::from_le_bytes([s0, s1])),
        }
    }
}

const EXTRA_GSO: u8 = 1;
const EXTRA_MCAST_ADD: u8 = 2;
const EXTRA_MCAST_DEL: u8 = 3;
const EXTRA_HASH: u8 = 4;
const EXTRA_XDP: u8 = 5;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 2;
const EXTRA_MORE: u8 = 1;

/// netif_extra_info: a slot that says more about the frame than its first slot can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extra {
    /// What it says.
    pub kind: ExtraKind,
    /// Another extra follows.
    pub more: bool,
}

/// What an [`Extra`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraKind {
    /// XEN_NETIF_EXTRA_TYPE_GSO.
    Gso(Gso),
    /// A request to the multicast filter, which comes instead of a frame. Only peers that were
    /// offered feature-multicast-control may send it.
    Mcast,
    /// A hint that may be ignored: HASH or XDP.
    Hint(u8),
}

/// A slot that should be an extra and is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadExtra {
    /// A type netif.h does not know.
    Type(u8),
    /// A GSO type other than TCPv4 and TCPv6.
    GsoType(u8),
    /// A GSO size of 0.
    GsoSize,
}

impl Extra {
    /// The slot that says `gso`, and that no other extra follows.
    #[must_use]
    pub const fn gso(gso: Gso) -> Self {
        Self { kind: ExtraKind::Gso(gso), more: false }
    }

    /// As a slot of an RX ring.
    #[must_use]
    pub const fn encode_rx(&self) -> [u8; 8] {
        let flags = if self.more { EXTRA_MORE } else { 0 };
        match self.kind {
            ExtraKind::Gso(gso) => {
                let [s0, s1] = gso.size.to_le_bytes();
                let kind = match gso.kind {
                    GsoKind::TcpV4 => GSO_TCPV4,
                    GsoKind::TcpV6 => GSO_TCPV6,
                };
                [EXTRA_GSO, flags, s0, s1, kind, 0, 0, 0]
            }
            ExtraKind::Mcast => [EXTRA_MCAST_ADD, flags, 0, 0, 0, 0, 0, 0],
            ExtraKind::Hint(kind) => [kind, flags, 0, 0, 0, 0, 0, 0],
        }
    }

    /// As a slot of a TX ring.
    #[must_use]
    pub const fn encode_tx(&self) -> [u8; 12] {
        let [a, b, c, d, e, f, g, h] = self.encode_rx();
        [a, b, c, d, e, f, g, h, 0, 0, 0, 0]
    }

    /// What a slot of an RX ring says.
    ///
    /// # Errors
    /// [`BadExtra`].
    pub const fn decode_rx(slot: &[u8; 8]) -> Result<Self, BadExtra> {
        let [kind, flags, s0, s1, gso, ..] = *slot;
        let kind = match kind {
            EXTRA_GSO => {
                let size = u16::from_le_bytes([s0, s1]);
                if size == 0 {
                    return Err(BadExtra::GsoSize);
                }
                let kind = match gso {
                    GSO_TCPV4 => GsoKind::TcpV4,
                    GSO_TCPV6 => GsoKind::TcpV6,
                    other => return Err(BadExtra::GsoType(other)),
                };
                ExtraKind::Gso(Gso { kind, size })
            }
            EXTRA_MCAST_ADD | EXTRA_MCAST_DEL => ExtraKind::Mcast,
            EXTRA_HASH | EXTRA_XDP => ExtraKind::Hint(kind),
            other => return Err(BadExtra::Type(other)),
        };
        Ok(Self { kind, more: flags & EXTRA_MORE != 0 })
    }

    /// What a slot of a TX ring says.
    ///
    /// # Errors
    /// [`BadExtra`].
    pub const fn decode_tx(slot: &[u8; 12]) -> Result<Self, BadExtra> {
        let [a, b, c, d, e, f, g, h, ..] = *slot;
        Self::decode_rx(&[a, b, c, d, e, f, g, h])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // The layouts of netif.h, byte by byte: each byte holds its own offset.
    const TX: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    const RX: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

    #[test]
    fn tx_slots_have_the_layout_of_netif_h() {
        let request = TxRequest {
            gref: 0x0302_0100,
            offset: 0x0504,
            flags: TxFlags(0x0706),
            id: 0x0908,
            size: 0x0b0a,
        };
        assert_eq!(TxRequest::decode(&TX), request);
        assert_eq!(request.encode(), TX);
        let response = TxResponse { id: 0x0100, status: Status(0x0302) };
        assert_eq!(TxResponse::decode(&TX), response);
        assert_eq!(response.encode(), [0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0]);
        let dropped = TxResponse { id: 1, status: Status::DROPPED };
        assert_eq!(dropped.encode()[..4], [1, 0, 0xfe, 0xff]);
    }

    #[test]
    fn rx_slots_have_the_layout_of_netif_h() {
        let request = RxRequest { id: 0x0100, gref: 0x0706_0504 };
        assert_eq!(RxRequest::decode(&RX), request);
        assert_eq!(request.encode(), [0, 1, 0, 0, 4, 5, 6, 7]);
        let response = RxResponse {
            id: 0x0100,
            offset: 0x0302,
            flags: RxFlags(0x0504),
            status: Status(0x0706),
        };
        assert_eq!(RxResponse::decode(&RX), response);
        assert_eq!(response.encode(), RX);
    }

    #[test]
    fn the_gso_extra_has_the_layout_of_netif_h() {
        for (kind, number) in [(GsoKind::TcpV4, 1), (GsoKind::TcpV6, 2)] {
            let extra = Extra::gso(Gso { kind, size: 0x05b4 });
            assert_eq!(extra.encode_rx(), [1, 0, 0xb4, 0x05, number, 0, 0, 0]);
            assert_eq!(extra.encode_tx(), [1, 0, 0xb4, 0x05, number, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(Extra::decode_rx(&extra.encode_rx()), Ok(extra));
        }
    }

    #[test]
    fn what_is_no_extra_is_named() {
        assert_eq!(Extra::decode_rx(&[0, 0, 1, 0, 1, 0, 0, 0]), Err(BadExtra::Type(0)));
        assert_eq!(Extra::decode_rx(&[6, 0, 1, 0, 1, 0, 0, 0]), Err(BadExtra::Type(6)));
        assert_eq!(Extra::decode_rx(&[1, 0, 0, 0, 1, 0, 0, 0]), Err(BadExtra::GsoSize));
        assert_eq!(Extra::decode_rx(&[1, 0, 1, 0, 3, 0, 0, 0]), Err(BadExtra::GsoType(3)));
    }

    #[test]
    fn the_two_directions_swap_the_checksum_bits() {
        let blank = Offload { csum: Csum::Blank, gso: None };
        let valid = Offload { csum: Csum::Valid, gso: None };
        let gso = Some(Gso { kind: GsoKind::TcpV4, size: 1 });
        assert_eq!(TxFlags::of(blank).0, 1 | 2);
        assert_eq!(RxFlags::of(blank).0, 1 | 2);
        assert_eq!(TxFlags::of(valid).0, 2);
        assert_eq!(RxFlags::of(valid).0, 1);
        assert_eq!(TxFlags::of(Offload::NONE).0, 0);
        assert_eq!(RxFlags::of(Offload { csum: Csum::Unknown, gso }).0, 8);
        assert_eq!((TxFlags::CSUM_BLANK.0, RxFlags::CSUM_BLANK.0), (1, 2));
    }

    proptest! {
        #[test]
        fn slots_round_trip(tx: [u8; 12], rx: [u8; 8]) {
            prop_assert_eq!(TxRequest::decode(&tx).encode(), tx);
            prop_assert_eq!(RxResponse::decode(&rx).encode(), rx);
            let request = RxRequest::decode(&rx);
            prop_assert_eq!(RxRequest::decode(&request.encode()), request);
        }
    }
}
