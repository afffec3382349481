//! How often domains were woken up, of what `xentrace` wrote.
//!
//! In: records of Xen's trace buffers (trace.h). Out: for each domain how often one of its processors
//! went from waiting for something to being ready to run. Never: guesses at records it cannot read.

use std::collections::BTreeMap;
use std::io;

/// A record's first word: event in its low 28 bits, number of words that follow, whether the time
/// stands before those in two more.
const EVENT: u32 = 0x0fff_ffff;
const WORDS: u32 = 28;
const TIMED: u32 = 1 << 31;
/// TRC_SCHED_RUNSTATE_CHANGE, with the old state from bit 8 and the new one from bit 4 on: from
/// RUNSTATE_blocked to RUNSTATE_runnable (vcpu.h). Its word is the domain above the processor.
const WOKEN: u32 = 0x0002_1001 | 2 << 8 | 1 << 4;
/// TRC_LOST_RECORDS.
const LOST: u32 = 0x0001_f001;

/// Counts by domain number.
pub(crate) fn of(trace: &[u8]) -> io::Result<BTreeMap<u16, u64>> {
    let broken = || io::Error::other("the trace is cut off");
    let (words, []) = trace.as_chunks() else { return Err(broken()) };
    let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
    let mut woken = BTreeMap::new();
    while let Some(head) = words.next() {
        for _ in 0..if head & TIMED == 0 { 0 } else { 2 } {
            words.next().ok_or_else(broken)?;
        }
        let mut first = None;
        for _ in 0..head >> WORDS & 7 {
            let word = words.next().ok_or_else(broken)?;
            first.get_or_insert(word);
        }
        match (head & EVENT, first) {
            (LOST, _) => return Err(io::Error::other("records were lost")),
            (WOKEN, Some(who)) => *woken.entry((who >> 16) as u16).or_default() += 1,
            _ => {}
        }
    }
    Ok(woken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a trace of Xen 4.17 has it.
    const BLOCKED_TO_RUNNABLE: u32 = 0x0002_1211;

    fn trace(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn who_waited_and_is_ready_was_woken() {
        let one = 1 << WORDS;
        let words: [&[u32]; 5] = [
            &[TIMED | one | BLOCKED_TO_RUNNABLE, 7, 0, 3 << 16],
            &[TIMED | one | BLOCKED_TO_RUNNABLE, 9, 0, 3 << 16],
            &[one | BLOCKED_TO_RUNNABLE, 0],
            // From being ready to running, and something else of three words.
            &[TIMED | one | 0x0002_1001 | 1 << 8, 9, 0, 4 << 16],
            &[3 << WORDS | 0x0002_8006, BLOCKED_TO_RUNNABLE, 5 << 16, 1],
        ];
        assert_eq!(of(&trace(&words.concat())).unwrap(), BTreeMap::from([(0, 1), (3, 2)]));
    }

    #[test]
    fn what_is_cut_off_or_lost_is_no_count() {
        assert!(of(&trace(&[TIMED | 1 << WORDS | BLOCKED_TO_RUNNABLE, 7, 0])).is_err());
        assert!(of(&trace(&[1 << WORDS | BLOCKED_TO_RUNNABLE, 3 << 16])[..7]).is_err());
        assert!(of(&trace(&[1 << WORDS | 0x0001_f001, 7])).is_err());
        assert!(of(&[]).unwrap().is_empty());
    }
}
