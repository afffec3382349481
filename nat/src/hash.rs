//! The keyed hash of everything that is looked up.
//!
//! In: tuples and endpoints, chosen by the enemy. Out: 64 bits he cannot steer (SipHash-1-3 under a
//! key drawn at the start). Never: the key.

use crate::Hash;
use core::net::IpAddr;
use rand_pcg::rand_core::Rng;
use siphasher::sip::SipHasher13;
use wire::{Proto, Tuple};

/// One transport endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) addr: IpAddr,
    pub(crate) port: u16,
}

/// The key.
pub(crate) struct Hasher(SipHasher13);

impl core::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Hasher")
    }
}

impl Hasher {
    /// A hasher with a fresh key.
    pub(crate) fn fresh(keyed: &mut impl Rng) -> Self {
        Self(SipHasher13::new_with_keys(keyed.next_u64(), keyed.next_u64()))
    }

    /// Of a packet's tuple. IPv4 and IPv6 are told apart by the length of what is hashed.
    pub(crate) fn tuple(&self, tuple: &Tuple) -> Hash {
        let proto = tuple.proto.number();
        let [s0, s1] = tuple.sport.to_le_bytes();
        let [d0, d1] = tuple.dport.to_le_bytes();
        Hash(match (tuple.src, tuple.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let ([a, b, c, d], [e, f, g, h]) = (src.octets(), dst.octets());
                self.0.hash(&[proto, a, b, c, d, e, f, g, h, s0, s1, d0, d1])
            }
            (src, dst) => {
                let mut rest = [0; 16];
                [rest[0], rest[1], rest[2], rest[3], rest[4]] = [proto, s0, s1, d0, d1];
                self.0.hash([octets(src), octets(dst), rest].as_flattened())
            }
        })
    }

    /// Of one end of a conversation.
    pub(crate) fn endpoint(&self, proto: Proto, end: Endpoint) -> u64 {
        let [p0, p1] = end.port.to_le_bytes();
        let mut rest = [0; 16];
        [rest[0], rest[1], rest[2]] = [proto.number(), p0, p1];
        self.0.hash([octets(end.addr), rest].as_flattened())
    }

    /// Of a remote address and one of the ends it could be sent to.
    pub(crate) fn pair(&self, remote: IpAddr, end: Endpoint) -> u64 {
        let [p0, p1] = end.port.to_le_bytes();
        let mut rest = [0; 16];
        [rest[0], rest[1]] = [p0, p1];
        self.0.hash([octets(remote), octets(end.addr), rest].as_flattened())
    }
}

fn octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}
