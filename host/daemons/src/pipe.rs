//! Bytes that wait, and numbers in them.

/// Bytes in both directions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pipe {
    pub(crate) inbox: Vec<u8>,
    pub(crate) outbox: Vec<u8>,
}

impl Pipe {
    /// The first `len` bytes, once they are all there.
    pub(crate) fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        (self.inbox.len() >= len).then(|| self.inbox.drain(..len).collect())
    }

    pub(crate) fn sent(&mut self, count: usize) {
        self.outbox.drain(..count.min(self.outbox.len()));
    }

    pub(crate) fn word(&mut self, number: u32) {
        self.outbox.extend(number.to_le_bytes());
    }
}

/// The number at `at`, little-endian; 0 beyond the end.
pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_le_bytes(*word))
}
