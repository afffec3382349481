//! The header that stands before each frame of a TAP with `IFF_VNET_HDR` (linux/virtio_net.h).
//!
//! In: a header from the kernel, or a frame that is to leave. Out: its [`Offload`], or the header that
//! tells it. Never: a guess: a segmentation that [`Offload`] has no word for is an error.

use wire::{Csum, DropReason, Frame, Gso, GsoKind, Offload, Parsed, Transport, parse};

/// Bytes of a header.
pub(crate) const LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

/// Where TCP and UDP have their checksum.
const TCP_CSUM: u16 = 16;
const UDP_CSUM: u16 = 6;

/// Reads the header of a frame that comes in.
///
/// # Errors
/// [`DropReason::BadHeader`] for a kind of segmentation the TAP was not asked for.
pub(crate) fn read(header: [u8; LEN]) -> Result<Offload, DropReason> {
    let [flags, gso, _, _, size_a, size_b, ..] = header;
    let csum = match flags & (NEEDS_CSUM | DATA_VALID) {
        0 => Csum::Unknown,
        DATA_VALID => Csum::Valid,
        _ => Csum::Blank,
    };
    let kind = match gso {
        GSO_NONE => return Ok(Offload { csum, gso: None }),
        GSO_TCPV4 => GsoKind::TcpV4,
        GSO_TCPV6 => GsoKind::TcpV6,
        _ => return Err(DropReason::BadHeader),
    };
    Ok(Offload { csum, gso: Some(Gso { kind, size: u16::from_ne_bytes([size_a, size_b]) }) })
}

/// Writes the header of a frame that leaves; `None` if its head says nothing of a checksum that it
/// promises.
pub(crate) fn write(frame: &Frame<'_>) -> Option<[u8; LEN]> {
    let mut header = [0; LEN];
    let [flags, gso_type, head_a, head_b, size_a, size_b, start_a, start_b, at_a, at_b] =
        &mut header;
    match frame.offload.csum {
        Csum::Unknown => {}
        Csum::Valid => *flags = DATA_VALID,
        Csum::Blank => {
            let Ok(Parsed::Ip(packet)) = parse(frame) else { return None };
            let at = match packet.transport {
                Transport::Tcp(_) => TCP_CSUM,
                Transport::Udp(_) => UDP_CSUM,
                _ => return None,
            };
            *flags = NEEDS_CSUM;
            [*head_a, *head_b] = packet.payload.to_ne_bytes();
            [*start_a, *start_b] = packet.l4.to_ne_bytes();
            [*at_a, *at_b] = at.to_ne_bytes();
        }
    }
    if let Some(gso) = frame.offload.gso {
        *gso_type = match gso.kind {
            GsoKind::TcpV4 => GSO_TCPV4,
            GsoKind::TcpV6 => GSO_TCPV6,
        };
        [*size_a, *size_b] = gso.size.to_ne_bytes();
    }
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Mac, Port};

    /// A TCP segment from 10.0.0.1 to 10.0.0.2, its sums left out.
    fn tcp() -> Vec<u8> {
        let mut frame = vec![0; 54];
        frame[..6].copy_from_slice(&Mac::BACKEND.0);
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14..24].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
        frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        let sum = wire::sums::Sum::ZERO.bytes(&frame[14..34]).checksum();
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame[46] = 5 << 4;
        frame
    }

    fn written(head: &[u8], offload: Offload) -> Option<[u8; LEN]> {
        let len = u32::try_from(head.len()).unwrap();
        write(&Frame { from: Port::new(0, 0), head, len, offload })
    }

    #[test]
    fn what_is_written_is_read_again() {
        let gso = Gso { kind: GsoKind::TcpV4, size: 1448 };
        for (csum, gso) in [
            (Csum::Unknown, None),
            (Csum::Valid, None),
            (Csum::Blank, None),
            (Csum::Blank, Some(gso)),
        ] {
            let offload = Offload { csum, gso };
            assert_eq!(read(written(&tcp(), offload).unwrap()), Ok(offload));
        }
    }

    #[test]
    fn a_blank_checksum_is_told_with_its_place() {
        let header = written(&tcp(), Offload { csum: Csum::Blank, gso: None }).unwrap();
        let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        assert_eq!((header[0], word(2), word(6), word(8)), (NEEDS_CSUM, 54, 34, 16));
    }

    #[test]
    fn a_blank_checksum_without_a_place_is_none() {
        let mut other = tcp();
        other[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(written(&other, Offload { csum: Csum::Blank, gso: None }), None);
    }

    #[test]
    fn a_segmentation_not_asked_for_is_an_error() {
        for kind in [2, 3, 5, GSO_TCPV4 | 0x80] {
            let mut header = [0; LEN];
            header[1] = kind;
            assert_eq!(read(header), Err(DropReason::BadHeader), "{kind}");
        }
    }
}
