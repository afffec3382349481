//! Which rules a flow was accepted by.
//!
//! In: that rules changed, for all clients or for one. Out: a number for each client that is another
//! after each change that concerns it. Never: a client whose flows are asked again for the sake of
//! another's rules.

use alloc::vec;
use alloc::vec::Vec;
use wire::Port;

/// The number of each client, by slot.
#[derive(Debug)]
pub(super) struct Epochs {
    of: Vec<u32>,
    /// The last number that was given.
    last: u32,
}

impl Epochs {
    /// Of as many slots as there are for clients.
    pub(super) fn new(slots: u16) -> Self {
        Self { of: vec![0; usize::from(slots)], last: 0 }
    }

    /// The number of the client at `port`.
    pub(super) fn of(&self, port: Port) -> u32 {
        self.of.get(port.index()).copied().unwrap_or(self.last)
    }

    /// The rules of this client changed.
    pub(super) fn change(&mut self, port: Port) {
        self.last = self.last.wrapping_add(1);
        if let Some(number) = self.of.get_mut(port.index()) {
            *number = self.last;
        }
    }

    /// Rules changed that are about everybody.
    pub(super) fn change_all(&mut self) {
        self.last = self.last.wrapping_add(1);
        self.of.fill(self.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_concerns_whom_it_is_about() {
        let mut epochs = Epochs::new(3);
        let ports = [0, 1, 2, 99].map(|slot| Port::new(slot, 0));
        let mut before = ports.map(|port| epochs.of(port));
        epochs.change(ports[1]);
        let changed = |epochs: &Epochs, before: &mut [u32; 4]| {
            let now = ports.map(|port| epochs.of(port));
            let changed = [0, 1, 2].map(|n| now[n] != before[n]);
            *before = now;
            changed
        };
        assert_eq!(changed(&epochs, &mut before), [false, true, false]);
        epochs.change_all();
        assert_eq!(changed(&epochs, &mut before), [true; 3]);
        epochs.change(ports[2]);
        assert_eq!(changed(&epochs, &mut before), [false, false, true]);
        epochs.change(ports[3]);
        assert_eq!(changed(&epochs, &mut before), [false; 3]);
    }
}
