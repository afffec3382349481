//! The seed of all secrets.
//!
//! In: the processor. Out: 32 bytes and where they came from, so that a weak source can be named
//! loudly. Never: a silent fall-back.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, _mm_pause, _rdtsc};
use core::fmt;

/// Where a seed came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntropySource {
    /// The processor's noise source.
    Rdseed,
    /// The processor's generator.
    Rdrand,
    /// The jitter of its clock: weak, to be warned about.
    Jitter,
}

impl fmt::Display for EntropySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rdseed => "RDSEED",
            Self::Rdrand => "RDRAND",
            Self::Jitter => "clock jitter",
        })
    }
}

/// Fills `seed` from the best source there is.
pub(crate) fn entropy(seed: &mut [u8; 32]) -> EntropySource {
    // RDSEED may run dry when others draw on it, so it is asked more often than Intel advises.
    if __cpuid_count(7, 0).ebx >> 18 & 1 == 1 && fill(seed, || hardware(rdseed, 10_000)) {
        EntropySource::Rdseed
    } else if __cpuid(1).ecx >> 30 & 1 == 1 && fill(seed, || hardware(rdrand, 10)) {
        EntropySource::Rdrand
    } else {
        fill(seed, || Some(jitter()));
        EntropySource::Jitter
    }
}

/// False if the source ran dry, or is stuck: some processors answer all ones for ever after a
/// suspend, claiming success.
fn fill(seed: &mut [u8; 32], source: impl Fn() -> Option<u64>) -> bool {
    let mut last = u64::MAX;
    seed.chunks_exact_mut(8).all(|chunk| match source() {
        Some(word) if word != last => {
            chunk.copy_from_slice(&word.to_le_bytes());
            last = word;
            true
        }
        _ => false,
    })
}

fn hardware(step: fn() -> Option<u64>, tries: u32) -> Option<u64> {
    (0..tries).find_map(|_| {
        step().or_else(|| {
            _mm_pause();
            None
        })
    })
}

fn rdseed() -> Option<u64> {
    let (word, ok): (u64, u8);
    // SAFETY: CPUID has shown that the instruction is there; it changes these registers only.
    unsafe {
        asm!("rdseed {}", "setc {}", out(reg) word, out(reg_byte) ok, options(nomem, nostack));
    };
    (ok == 1).then_some(word)
}

fn rdrand() -> Option<u64> {
    let (word, ok): (u64, u8);
    // SAFETY: CPUID has shown that the instruction is there; it changes these registers only.
    unsafe {
        asm!("rdrand {}", "setc {}", out(reg) word, out(reg_byte) ok, options(nomem, nostack));
    };
    (ok == 1).then_some(word)
}

/// How long a serialising instruction takes varies by what else the machine does: a bit or less of
/// each of 4096 tries is folded into one word.
fn jitter() -> u64 {
    (0..4096).fold(0, |pool: u64, _| {
        // SAFETY: every 64-bit processor has it.
        let start = unsafe { _rdtsc() };
        let _trap = __cpuid(0);
        // SAFETY: as above.
        let end = unsafe { _rdtsc() };
        (pool.rotate_left(13) ^ end ^ (end.wrapping_sub(start) << 32))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}
