//! The keyed hash of everything that is looked up.
//!
//! In: tuples and endpoints, chosen by the enemy. Out: 64 bits he cannot steer (SipHash-1-3 under a
//! key drawn at the start). Never: the key.

use crate::Hash;
use core::hash::{BuildHasher, Hasher as _};
use core::net::IpAddr;
use rand_pcg::rand_core::Rng;
use siphasher::sip::SipHasher13;
use wire::{Addr, Key, Kind};

/// One transport endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) addr: IpAddr,
    pub(crate) port: u16,
}

impl Endpoint {
    /// The same in the fewest bytes; whoever holds them knows the family.
    pub(crate) fn packed(self) -> (Addr, u16) {
        (self.addr.into(), self.port)
    }
}

/// The key. The hasher is made of it each time, so that it is known to be at its start.
pub(crate) struct Hasher([u64; 2]);

impl core::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Hasher")
    }
}

/// For maps.
impl BuildHasher for Hasher {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        self.start()
    }
}

impl Hasher {
    /// A hasher with this key, which must be fresh.
    pub(crate) fn with_key(key: [u8; 16]) -> Self {
        let key = u128::from_le_bytes(key);
        Self([key as u64, (key >> 64) as u64])
    }

    /// A hasher with a fresh key.
    pub(crate) fn fresh(keyed: &mut impl Rng) -> Self {
        Self([keyed.next_u64(), keyed.next_u64()])
    }

    #[inline]
    fn start(&self) -> SipHasher13 {
        let Self([a, b]) = *self;
        SipHasher13::new_with_keys(a, b)
    }

    /// Of a packet's key. IPv4 and IPv6 are told apart by the length of what is hashed.
    #[inline]
    pub(crate) fn key(&self, key: &Key) -> Hash {
        let ports = u32::from(key.sport) << 16 | u32::from(key.dport);
        let ([a, b], [c, d]) = (key.src.words(), key.dst.words());
        let mut hasher = self.start();
        if key.kind.is_ipv6() {
            [a, b, c, d].into_iter().for_each(|word| hasher.write_u64(word));
        } else {
            // The first four bytes are all there is of an IPv4 address.
            hasher.write_u64(a | c >> 32);
        }
        // Five bytes fit into the last block, behind which there is only the length.
        hasher.write_u32(ports);
        hasher.write_u8(key.kind as u8);
        Hash(hasher.finish())
    }

    /// Of one end of a conversation.
    pub(crate) fn endpoint(&self, kind: Kind, (addr, port): (Addr, u16)) -> Hash {
        let mut hasher = self.start();
        addr.words().into_iter().for_each(|word| hasher.write_u64(word));
        hasher.write_u64(u64::from(kind as u8) << 16 | u64::from(port));
        Hash(hasher.finish())
    }

    /// Of a remote address and one of the ends it could be sent to.
    pub(crate) fn pair(&self, remote: IpAddr, end: Endpoint) -> u64 {
        let mut hasher = self.start();
        for addr in [remote, end.addr] {
            Addr::from(addr).words().into_iter().for_each(|word| hasher.write_u64(word));
        }
        hasher.write_u64(u64::from(remote.is_ipv6()) << 16 | u64::from(end.port));
        hasher.finish()
    }
}
