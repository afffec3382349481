//! A policy survives its blob; whatever else the bytes are, they are refused without a panic.

use crate::common::{every_query, parts};
use proptest::prelude::*;
use rules::qubes::Trees;
use rules::{BlobError, Digest, HostTable, Policy};

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
