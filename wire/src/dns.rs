//! The one look into a payload: whether it is a DNS message, and which.
//!
//! In: a UDP datagram. Out: the identification of the message (RFC 1035 section 4.1.1). Never: its
//! names, or anything behind its header.

use crate::{Packet, Transport, bytes};

/// Bytes of a DNS header.
const DNS_HEADER: u32 = 12;

/// Which DNS message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dns {
    /// The same in a query and its answer.
    pub id: u16,
    /// Whether it is an answer.
    pub is_answer: bool,
}

impl Packet<'_> {
    /// The DNS message that a UDP datagram carries, if it has room for one. A first fragment is
    /// enough.
    #[must_use]
    pub fn dns(&self) -> Option<Dns> {
        let Transport::Udp(udp) = self.transport else { return None };
        let payload = self.head.get(usize::from(self.payload)..).unwrap_or_default();
        let id = bytes::be16(payload, 0)?;
        let is_answer = bytes::be16(payload, 2)? & 0x8000 != 0;
        (udp.data >= DNS_HEADER).then_some(Dns { id, is_answer })
    }
}
