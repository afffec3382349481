//! The way past IPv6 extension headers (RFC 8200 section 4).
//!
//! In: the head and where the chain starts. Out: where the transport header starts, and whether
//! this is a fragment. Never: walks further than a bound.
#![deny(clippy::arithmetic_side_effects)]

use crate::bytes::{be16, be32};
use crate::parse::Fault;
use crate::{DropReason, Fragment};
use etherparse::IpNumber;

/// Most extension headers that are walked past. A packet with more is no accident.
const EXTENSIONS_MAX: usize = 6;

/// What the IP headers say of what follows them.
pub(crate) struct Carried {
    /// Where it starts.
    pub(crate) l4: usize,
    /// What it is.
    pub(crate) protocol: IpNumber,
    /// Set iff it is only a part.
    pub(crate) fragment: Option<Fragment>,
    /// Where the data starts that was cut: of a first fragment, extension headers may come first.
    pub(crate) cut_at: usize,
}

/// Walks from the header of kind `protocol` at `l4` to the first that is no extension.
pub(crate) fn walk(head: &[u8], l4: usize, protocol: IpNumber) -> Result<Carried, Fault> {
    let mut at = Carried { l4, protocol, fragment: None, cut_at: l4 };
    for position in 0..EXTENSIONS_MAX {
        let (len, fragment) = match at.protocol {
            IpNumber::IPV6_HEADER_HOP_BY_HOP if position > 0 => {
                return Err(DropReason::BadHeader.into());
            }
            IpNumber::IPV6_HEADER_HOP_BY_HOP | IpNumber::IPV6_DESTINATION_OPTIONS => {
                (options_len(head, at.l4)?, None)
            }
            IpNumber::IPV6_ROUTE_HEADER => (routing_len(head, at.l4)?, None),
            // A part of a part is no accident.
            IpNumber::IPV6_FRAGMENTATION_HEADER if at.fragment.is_some() => {
                return Err(DropReason::Fragment.into());
            }
            IpNumber::IPV6_FRAGMENTATION_HEADER => (8, fragment(head, at.l4)?),
            _ => return Ok(at),
        };
        let next = head.get(at.l4).copied().ok_or(Fault::Short)?;
        at.l4 = at.l4.saturating_add(len);
        at.protocol = IpNumber(next);
        if fragment.is_some() {
            (at.fragment, at.cut_at) = (fragment, at.l4);
        }
        // What follows in a later fragment is data, whatever it looks like.
        if fragment.is_some_and(|fragment| fragment.offset > 0) {
            return Ok(at);
        }
    }
    Err(DropReason::BadHeader.into())
}

/// Length of a header that counts itself in units of 8 bytes, the first not counted.
fn options_len(head: &[u8], at: usize) -> Result<usize, Fault> {
    let [_, units] = be16(head, at).ok_or(Fault::Short)?.to_be_bytes();
    Ok(usize::from(units).saturating_add(1).saturating_mul(8))
}

/// Length of a routing header that has led to its end. One that still wants to go elsewhere is a
/// source route: the address it names is not the one that rules and flows are asked about.
fn routing_len(head: &[u8], at: usize) -> Result<usize, Fault> {
    let [_, segments_left] = be16(head, at.saturating_add(2)).ok_or(Fault::Short)?.to_be_bytes();
    match segments_left {
        0 => options_len(head, at),
        _ => Err(DropReason::SourceRoute.into()),
    }
}

/// What a fragment header says; `None` for an atomic fragment, which is a whole packet (RFC 6946).
fn fragment(head: &[u8], at: usize) -> Result<Option<Fragment>, Fault> {
    let protocol = head.get(at).copied().ok_or(Fault::Short)?;
    let field = be16(head, at.saturating_add(2)).ok_or(Fault::Short)?;
    let id = be32(head, at.saturating_add(4)).ok_or(Fault::Short)?;
    let (offset, more) = (field & !7, field & 1 == 1);
    Ok((offset > 0 || more).then_some(Fragment { id, offset, more, protocol, len: 0 }))
}
