//! `/qubes-random-seed`: base64 of 64 random bytes of dom0, to be mixed in and forgotten.

/// 32 bytes that are as hard to guess as `text`, whatever it is.
///
/// Each character of base64 carries six bits: so many bytes are added up that each takes part in the
/// result, and unknown ones stay unknown.
#[must_use]
pub fn seed(text: &[u8]) -> [u8; 32] {
    let mut seed = [0_u8; 32];
    for (n, byte) in text.iter().filter_map(|b| sextet(*b)).enumerate() {
        // Six bits a time, one after the other, folded over 256 bits.
        let bit = (n * 6) % 256;
        let word = u16::from(byte) << (bit % 8);
        let [low, high] = word.to_le_bytes();
        for (at, part) in [(bit / 8, low), (bit / 8 + 1, high)] {
            if let Some(place) = seed.get_mut(at % 32) {
                *place ^= part;
            }
        }
    }
    seed
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_of_a_seed_counts() {
        let text = [
            b"0123456789abcdefghijABCDEFGHIJKLMNOPQRSTUVWXYZ+/".as_slice(),
            b"abcdefghijklmnopqrstuvwxyz0123456789+/",
        ]
        .concat();
        let whole = seed(&text[..86]);
        for n in 0..86 {
            let mut other = text[..86].to_vec();
            other[n] = if other[n] == b'A' { b'B' } else { b'A' };
            assert_ne!(seed(&other), whole, "character {n}");
        }
        assert!(
            whole.iter().all(|byte| *byte != 0) || whole.iter().filter(|b| **b == 0).count() < 4
        );
        assert_eq!(seed(b""), [0; 32]);
    }
}
