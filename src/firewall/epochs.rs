//! Which rules a flow was accepted by, and what else was so when a packet of it went the long way.
//!
//! In: that rules changed, for all clients or for one, or anything else that packets of a flow depend
//! on. Out: whether a flow is to be asked about again, and a number that is another after each change.
//! Never: a client whose flows are asked again for the sake of another's rules.

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

    /// The number after the last change of anything.
    pub(super) const fn last(&self) -> u32 {
        self.last
    }

    /// Whether the rules of the client at `port` are those of `epoch`, which was the last number then.
    pub(super) fn still(&self, port: Port, epoch: u32) -> bool {
        let age = |number| self.last.wrapping_sub(number);
        age(epoch) <= age(self.of(port))
    }

    /// Interfaces or addresses changed, but no rules.
    pub(super) const fn change_ways(&mut self) {
        self.last = self.last.wrapping_add(1);
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
        let last = epochs.last();
        epochs.change_ways();
        assert_eq!(changed(&epochs, &mut before), [false; 3]);
        assert_ne!(epochs.last(), last);
    }

    #[test]
    fn a_flow_is_asked_again_after_a_change_of_its_clients_rules_and_no_other() {
        let mut epochs = Epochs::new(2);
        let ports = [0, 1].map(|slot| Port::new(slot, 0));
        let still = |epochs: &Epochs, epoch| ports.map(|port| epochs.still(port, epoch));
        let (first, accepted) = (epochs.of(ports[0]), epochs.last());
        epochs.change_ways();
        assert_eq!(still(&epochs, accepted), [true, true]);
        let passed = epochs.last();
        epochs.change(ports[1]);
        assert_eq!(still(&epochs, first), [true, false]);
        assert_eq!(still(&epochs, passed), [true, false]);
        assert_eq!(still(&epochs, epochs.of(ports[1])), [true, true]);
        epochs.change_all();
        assert_eq!(still(&epochs, passed), [false, false]);
        assert_eq!(still(&epochs, epochs.last()), [true, true]);
    }
}
