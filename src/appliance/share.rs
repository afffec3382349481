//! Whose turn it is: deficit round robin over the ports, charged by what their frames cost.
//!
//! In: which ports have frames, and what was taken from them. Out: who may send another one. Never:
//! saves credit for a port that had nothing to send, forgives a debt, or lets a port begin with what
//! another left that had its slot before.
//!
//! What a frame costs is known when it has been taken, so a port may take one as long as it has any
//! credit, and pays with what it gets later: over time each gets its share to within one frame.

use alloc::vec::Vec;
use wire::Port;

/// Work, told as the number of bytes that could have been copied instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost(u32);

impl Cost {
    /// Of any frame: taken, parsed, found, decided, answered.
    const FRAME: u32 = 4096;
    /// Of each of its slots: a grant-copy operation, in which Xen looks up and pins two pages. That
    /// alone takes as long as copying 2 KiB on hardware, and three times that under emulation.
    const SLOT: u32 = 2048;
    /// What one turn may cost before it takes no more: ten frames of 64 KiB. Whoever waits for the
    /// next turn waits so long.
    pub(super) const TURN: Self = Self(1_000_000);

    /// Of a frame with its bytes.
    pub(super) fn of_frame(slots: usize, len: u32) -> Self {
        Self(Self::FRAME).plus(Self::of_more(slots, len))
    }

    /// Of further slots and bytes.
    pub(super) fn of_more(slots: usize, len: u32) -> Self {
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        Self(slots.saturating_mul(Self::SLOT).saturating_add(len))
    }

    /// Both.
    pub(super) const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// What a port gets in each round: about ten small frames or half a large one.
const QUANTUM: i64 = 1 << 16;

/// The accounts of all ports.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// By slot.
    accounts: Vec<Account>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    generation: u16,
    /// What may still be spent, or is owed.
    credit: i64,
}

impl Shares {
    /// Whether `port` may send another frame in this round.
    pub(super) fn may_send(&mut self, port: Port) -> bool {
        self.account(port).is_some_and(|account| account.credit > 0)
    }

    /// `port` has caused this work.
    pub(super) fn charge(&mut self, port: Port, cost: Cost) {
        if let Some(account) = self.account(port) {
            account.credit = account.credit.saturating_sub(cost.0.into());
        }
    }

    /// `port` has nothing to send: what it has not used is lost, what it owes is not.
    pub(super) fn rest(&mut self, port: Port) {
        if let Some(account) = self.account(port) {
            account.credit = account.credit.min(0);
        }
    }

    /// None of `ports` may send and all of them want to: each gets its share. The uplinks, which
    /// carry what comes for all clients, together get as much as these do.
    pub(super) fn begin_round(&mut self, ports: &[Port], is_uplink: impl Fn(Port) -> bool) {
        let uplinks = ports.iter().filter(|port| is_uplink(**port)).count();
        let clients = i64::try_from(ports.len().saturating_sub(uplinks).max(1)).unwrap_or(1);
        let all = QUANTUM.saturating_mul(clients);
        let of_uplink = i64::try_from(uplinks).ok().and_then(|n| all.checked_div(n)).unwrap_or(all);
        for port in ports {
            let quantum = if is_uplink(*port) { of_uplink } else { QUANTUM };
            if let Some(account) = self.account(*port) {
                account.credit = account.credit.saturating_add(quantum);
            }
        }
    }

    /// The account of `port`, empty if the port is new. There is a place for it once and for all.
    fn account(&mut self, port: Port) -> Option<&mut Account> {
        let at = port.index();
        if self.accounts.len() <= at {
            self.accounts.resize(at.saturating_add(1), Account::default());
        }
        let account = self.accounts.get_mut(at)?;
        if account.generation != port.generation() {
            *account = Account { generation: port.generation(), credit: 0 };
        }
        Some(account)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;

    const UPLINK: Port = Port::new(0, 0);
    const LAB: Port = Port::new(50, 0);
    const UPLINKS: [Port; 2] = [UPLINK, LAB];
    const A: Port = Port::new(1, 0);
    const B: Port = Port::new(2, 0);

    fn small() -> Cost {
        Cost::of_frame(1, 64)
    }

    /// A segment, and an acknowledgement every now and then.
    fn segment() -> Cost {
        Cost::of_frame(1, 1514)
    }

    fn large() -> Cost {
        Cost::of_frame(17, 65_226)
    }

    /// What each port has spent when all together have spent `until`, if each always has frames of its
    /// cost.
    fn spent(ports: &[(Port, Cost)], until: u64) -> vec::Vec<u64> {
        let mut shares = Shares::default();
        let names: vec::Vec<_> = ports.iter().map(|(port, _)| *port).collect();
        let mut spent = vec![0; ports.len()];
        loop {
            for ((port, cost), spent) in ports.iter().zip(&mut spent) {
                while shares.may_send(*port) {
                    shares.charge(*port, *cost);
                    *spent += u64::from(cost.0);
                }
            }
            if spent.iter().sum::<u64>() >= until {
                return spent;
            }
            shares.begin_round(&names, |port| UPLINKS.contains(&port));
        }
    }

    #[test]
    fn whatever_the_frames_each_of_two_gets_half_of_the_work() {
        // Alone a port gets everything, so half of the work is half of its rate.
        for mine in [small(), segment(), large()] {
            for other in [small(), segment(), large()] {
                let spent = spent(&[(A, mine), (B, other)], 1 << 28);
                let share = spent[0] as f64 / (spent[0] + spent[1]) as f64;
                assert!((0.49..0.51).contains(&share), "{mine:?} beside {other:?}: {share}");
            }
        }
    }

    #[test]
    fn the_uplink_gets_as_much_as_all_clients_together() {
        let clients = (1..=9).map(|n| (Port::new(n, 0), small()));
        let ports: vec::Vec<_> = core::iter::once((UPLINK, large())).chain(clients).collect();
        let spent = spent(&ports, 1 << 28);
        let share = spent[0] as f64 / spent.iter().sum::<u64>() as f64;
        assert!((0.49..0.51).contains(&share), "{share}");
    }

    #[test]
    fn two_uplinks_share_what_one_would_get() {
        let clients = (1..=9).map(|n| (Port::new(n, 0), small()));
        let uplinks = [(UPLINK, large()), (LAB, segment())];
        let ports: vec::Vec<_> = uplinks.into_iter().chain(clients).collect();
        let spent = spent(&ports, 1 << 28);
        let all = spent.iter().sum::<u64>() as f64;
        for of_uplink in &spent[..2] {
            let share = *of_uplink as f64 / all;
            assert!((0.24..0.26).contains(&share), "{share}");
        }
    }

    #[test]
    fn who_was_silent_has_saved_nothing_and_who_owes_still_does() {
        let mut shares = Shares::default();
        shares.begin_round(&[A, B], |_| false);
        shares.charge(B, large().plus(large()));
        for port in [A, B] {
            shares.rest(port);
            assert!(!shares.may_send(port));
        }
        shares.begin_round(&[A, B], |_| false);
        assert!(shares.may_send(A) && !shares.may_send(B));
        shares.charge(A, Cost(u32::try_from(QUANTUM).unwrap()));
        assert!(!shares.may_send(A), "it has saved something");
    }

    #[test]
    fn a_new_port_in_an_old_slot_owes_nothing() {
        let mut shares = Shares::default();
        shares.charge(A, Cost(1 << 30));
        let next = Port::new(1, 1);
        shares.begin_round(&[next], |_| false);
        assert!(shares.may_send(next));
    }

    #[test]
    fn ten_large_frames_are_a_turn() {
        let ten = (0..10).fold(Cost::default(), |sum, _| sum.plus(large()));
        assert!(ten >= Cost::TURN);
        assert!((0..9).fold(Cost::default(), |sum, _| sum.plus(large())) < Cost::TURN);
    }
}
