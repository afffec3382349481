//! A policy survives its blob; whatever else the bytes are, they are refused without a panic.

use crate::common::{every_query, last_rule, parts};
use proptest::prelude::*;
use rules::qubes::Trees;
use rules::{
    Action, AddrSet, BlobError, Block, Digest, HostSet, HostTable, Parts, Policy, Uplink, Zone,
};
use std::sync::Arc;

const HEADER: usize = 48;

/// Makes the header fit the body again, so that the body itself is looked at.
fn sealed(mut blob: Vec<u8>) -> Vec<u8> {
    if blob.len() >= HEADER {
        let len = u32::try_from(blob.len() - HEADER).unwrap();
        blob[12..16].copy_from_slice(&len.to_le_bytes());
        let digest = Digest::of(&blob[HEADER..]);
        blob[16..HEADER].copy_from_slice(&digest.0);
    }
    blob
}

proptest! {
    #[test]
    fn decoding_gives_back_what_was_encoded(parts in parts()) {
        let policy = Policy::new(parts).unwrap();
        let blob = policy.encode().unwrap();
        let again = Policy::decode(&blob).unwrap();
        prop_assert_eq!(&again, &policy);
        prop_assert_eq!(again.encode().unwrap(), blob);
    }

    #[test]
    fn policies_differ_iff_their_digests_do(a in parts(), b in parts()) {
        let (a, b) = (Policy::new(a).unwrap(), Policy::new(b).unwrap());
        prop_assert_eq!(a == b, a.digest() == b.digest());
    }

    /// Any damage is noticed; if the damage comes with a fitting header, what is accepted is a
    /// policy with that very encoding.
    #[test]
    fn damaged_blobs_are_refused_or_canonical(
        parts in parts(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        tail in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let blob = Policy::new(parts).unwrap().encode().unwrap();
        let mut damaged = blob.clone();
        for (at, value) in edits {
            let at = at.index(damaged.len());
            damaged[at] = value;
        }
        if let Some(cut) = cut {
            damaged.truncate(cut.index(damaged.len()));
        }
        damaged.extend(tail);
        if damaged != blob {
            prop_assert!(Policy::decode(&damaged).is_err());
        }
        let damaged = sealed(damaged);
        if let Ok(policy) = Policy::decode(&damaged) {
            prop_assert_eq!(policy.encode().unwrap(), damaged);
            let query = every_query()[0];
            let _ = policy.decide(&query, &Trees::default(), &HostTable::new());
        }
    }

    #[test]
    fn noise_is_no_policy(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Policy::decode(&noise).is_err());
        let mut blob = b"TIDEGATE\x02\x00\x00\x00".to_vec();
        blob.extend([0; 36]);
        blob.extend(noise);
        let _ = Policy::decode(&sealed(blob));
    }
}

/// The list of names of the only rule with names, written plainly.
#[test]
fn names_in_a_blob_are_those_that_would_be_written() {
    let names = ["a.example", "b.example"].map(|name| rules::HostName::new(name).unwrap());
    let mut rule = last_rule(Action::Accept);
    rule.dst = Arc::new(AddrSet::EMPTY);
    rule.hosts = HostSet::new(names).map(Arc::new);
    let rules = vec![rule, last_rule(Action::Drop)];
    let block = Block { from: Zone::Clients, to: Zone::Uplink(Uplink::FIRST), rules };
    let parts = Parts { name: "a.tide".into(), blocks: vec![block], ..Parts::default() };
    let blob = Policy::new(parts).unwrap().encode().unwrap();
    let list = b"\x02\x02\0\0\0\x09a.example\x09b.example";
    let at = blob.windows(list.len()).position(|bytes| bytes == list).unwrap();
    let with = |list: &[u8]| {
        let mut other = blob.clone();
        other.splice(at..at + 25, list.iter().copied());
        Policy::decode(&sealed(other)).map(|_| ())
    };
    assert_eq!(with(list), Ok(()));
    for (list, why) in [
        (&b"\x02\x02\0\0\0\x09b.example\x09a.example"[..], "order"),
        (b"\x02\x02\0\0\0\x09a.example\x09a.example", "twice"),
        (b"\x02\x02\0\0\0\x09A.example\x09b.example", "upper case"),
    ] {
        assert_eq!(with(list), Err(BlobError::NotCanonical), "{why}");
    }
    for (list, why) in [
        (&b"\x02\0\0\0\0"[..], "none"),
        (b"\x02\x01\0\0\0\0", "an empty name"),
        (b"\x02\x01\0\0\0\x09*.example", "no name"),
        (b"\x02\x01\0\0\0\x0810.0.0.1", "an address"),
        (b"\x02\xff\xff\xff\xff\x01a", "more than there are"),
        (b"\x04\x01\0\0\0\x01a", "a condition nobody knows"),
    ] {
        assert!(matches!(with(list), Err(BlobError::Field(_))), "{why}");
    }
}

#[test]
fn each_kind_of_damage_has_its_name() {
    let policy = Policy::new(rules::Parts { name: "a.tide".into(), ..Default::default() }).unwrap();
    let blob = policy.encode().unwrap();
    let with = |at: usize, value: u8| {
        let mut blob = blob.clone();
        blob[at] = value;
        blob
    };
    assert_eq!(Policy::decode(&[]), Err(BlobError::NotAPolicy));
    assert_eq!(Policy::decode(&with(0, b'X')), Err(BlobError::NotAPolicy));
    assert_eq!(Policy::decode(&with(8, 1)), Err(BlobError::Format(1)));
    assert_eq!(Policy::decode(&with(10, 1)), Err(BlobError::NotCanonical));
    assert_eq!(Policy::decode(&with(12, 200)), Err(BlobError::Length));
    assert_eq!(Policy::decode(&blob[..20]), Err(BlobError::Length));
    assert_eq!(Policy::decode(&with(HEADER + 1, b'b')), Err(BlobError::Damaged));
    assert_eq!(
        Policy::decode(&sealed(with(HEADER + 1, 0))),
        Err(BlobError::Invalid(rules::Invalid::Name))
    );
    assert!(matches!(Policy::decode(&sealed(with(HEADER, 200))), Err(BlobError::Field(_))));
    // A count that the rest of the blob cannot hold is refused before anything is allocated for it.
    let mut bomb = blob.clone();
    let end = bomb.len();
    bomb[end - 4..].fill(0xff);
    assert!(matches!(Policy::decode(&sealed(bomb)), Err(BlobError::Field(_))));
    // A set that no rule names: the same policy, but not the way it is written.
    let mut unused = blob[..HEADER + 7].to_vec();
    unused.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    unused.extend(&blob[HEADER + 11..]);
    assert_eq!(Policy::decode(&sealed(unused)), Err(BlobError::NotCanonical));
}
