//! The translator beside a naive one that only knows TCP as its tables say (RFC 5382, RFC 6146 section
//! 3.5.2, RFC 7857 section 2): whole connections opened, used, reset and closed in any order.
//!
//! The naive one shares no code with it, keeps a list, and looks at nothing but who spoke last and
//! when. What sequence numbers do is for other tests: here both ends always say the right ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{ACK, FIN_ACK, RST, SYN, SYN_ACK, World, client, inside, remote, segment, tuple};
use core::time::Duration;
use proptest::prelude::*;
use std::collections::BTreeMap;
use wire::{DropReason, Proto, TcpFlags, Transport, Tuple};

/// What happens to a connection.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Its client says SYN.
    Syn,
    /// Its remote agrees, and the client acknowledges.
    Agree,
    DataOut,
    DataIn,
    ResetByRemote,
    ResetByClient,
    /// Both say FIN, and all is acknowledged.
    Finish,
    /// A FIN of the client alone.
    HalfClose,
}

#[derive(Clone, Debug)]
enum Step {
    /// Client, port, remote, and what happens between them.
    Of(u16, u16, u16, Act),
    Wait(u64, usize),
    Gone(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Open,
    HalfClosed,
    Reset,
    Closed,
}

/// A connection as a human would write it down.
#[derive(Clone, Debug)]
struct Connection {
    slot: u16,
    sent: Tuple,
    phase: Phase,
    /// When it was last used in a way that counts.
    touched: u64,
}

impl Connection {
    fn is_over(&self, now: u64) -> bool {
        let lives = match self.phase {
            Phase::Open | Phase::HalfClosed => 7440,
            Phase::Opening | Phase::Reset => 240,
            Phase::Closed => 10,
        };
        now > self.touched + lives
    }
}

fn step() -> impl Strategy<Value = Step> {
    use Act::{Agree, DataIn, DataOut, Finish, HalfClose, ResetByClient, ResetByRemote, Syn};
    let act = prop_oneof![
        6 => Just(Syn),
        5 => Just(Agree),
        3 => Just(DataOut),
        3 => Just(DataIn),
        1 => Just(ResetByRemote),
        1 => Just(ResetByClient),
        2 => Just(Finish),
        1 => Just(HalfClose),
    ];
    let secs = prop_oneof![4 => 0..12u64, 2 => 200..260u64, 1 => 7000..8000u64];
    prop_oneof![
        20 => (0..3u16, 0..2u16, 0..2u16, act).prop_map(|(c, p, r, act)| Step::Of(c, p, r, act)),
        5 => (secs, 0..8usize).prop_map(|(secs, most)| Step::Wait(secs, most)),
        1 => (0..3u16).prop_map(Step::Gone),
    ]
}

struct Pair {
    world: World,
    naive: BTreeMap<Tuple, Connection>,
}

type Outcome = Result<(), TestCaseError>;

impl Pair {
    /// A segment of the client: whether it passes, and under the name it has.
    fn out(
        &mut self,
        slot: u16,
        asked: Tuple,
        said: (TcpFlags, u32, u32),
        passes: bool,
    ) -> Outcome {
        let got = self.world.send(client(slot), asked, &of(said));
        let Some(sent) = self.naive.get(&asked).map(|c| c.sent) else {
            prop_assert_eq!(got, Err(DropReason::InvalidTcp));
            return Ok(());
        };
        match got {
            Ok(got) => prop_assert!(passes && got.tuple == sent, "{:?} {:?}", got, sent),
            Err(reason) => {
                prop_assert!(!passes, "{:?} of {:?}", reason, self.naive.get(&asked));
                prop_assert_eq!(reason, DropReason::InvalidTcp);
            }
        }
        Ok(())
    }

    /// The same of the remote.
    fn back(&mut self, sent: Tuple, asked: Tuple, said: (TcpFlags, u32, u32)) -> Outcome {
        let got = self.world.receive(sent.reversed(), &of(said));
        prop_assert_eq!(got.map(|got| got.tuple), Ok(asked.reversed()));
        Ok(())
    }

    fn act(&mut self, slot: u16, asked: Tuple, act: Act) -> Outcome {
        let now = self.world.now.as_secs();
        if self.naive.get(&asked).is_some_and(|c| c.is_over(now)) {
            self.naive.remove(&asked);
        }
        let Some(Connection { sent, phase, .. }) = self.naive.get(&asked).cloned() else {
            return self.begin(slot, asked, act);
        };
        let next = match (act, phase) {
            // In the middle of a connection a SYN only asks whether it still is one.
            (Act::Syn, Phase::Open | Phase::HalfClosed) => return Ok(()),
            (Act::Syn, _) => {
                self.out(slot, asked, (SYN, 1000, 0), true)?;
                Phase::Opening
            }
            (Act::Agree, Phase::Opening) => {
                self.back(sent, asked, (SYN_ACK, 5000, 1001))?;
                self.out(slot, asked, (ACK, 1001, 5001), true)?;
                Phase::Open
            }
            (Act::DataOut, Phase::Open | Phase::HalfClosed | Phase::Reset) => {
                let seq = if phase == Phase::HalfClosed { 1002 } else { 1001 };
                self.out(slot, asked, (ACK, seq, 5001), true)?;
                if phase == Phase::Reset { Phase::Open } else { phase }
            }
            (Act::DataIn, Phase::Open | Phase::HalfClosed) => {
                self.back(sent, asked, (ACK, 5001, 1001))?;
                // The world keeps nothing alive.
                return Ok(());
            }
            (Act::DataIn, Phase::Reset) => {
                self.back(sent, asked, (ACK, 5001, 1001))?;
                Phase::Open
            }
            (Act::ResetByRemote, Phase::Opening) => {
                self.back(sent, asked, (RST.with(ACK), 0, 1001))?;
                Phase::Closed
            }
            (Act::ResetByRemote, Phase::Open) => {
                self.back(sent, asked, (RST, 5001, 0))?;
                Phase::Reset
            }
            (Act::ResetByClient, Phase::Open) => {
                self.out(slot, asked, (RST, 1001, 0), true)?;
                Phase::Reset
            }
            (Act::HalfClose, Phase::Open) => {
                self.out(slot, asked, (FIN_ACK, 1001, 5001), true)?;
                Phase::HalfClosed
            }
            (Act::Finish, Phase::Open | Phase::HalfClosed) => {
                if phase == Phase::Open {
                    self.out(slot, asked, (FIN_ACK, 1001, 5001), true)?;
                }
                self.back(sent, asked, (FIN_ACK, 5001, 1002))?;
                self.out(slot, asked, (ACK, 1002, 5002), true)?;
                Phase::Closed
            }
            _ => return Ok(()),
        };
        let connection = self.naive.get_mut(&asked).unwrap();
        (connection.phase, connection.touched) = (next, now);
        Ok(())
    }

    /// Something of a connection that there is not: only a SYN begins one.
    fn begin(&mut self, slot: u16, asked: Tuple, act: Act) -> Outcome {
        if !matches!(act, Act::Syn) {
            return self.out(slot, asked, (ACK, 1001, 5001), false);
        }
        let now = self.world.now.as_secs();
        let sent = self.world.send(client(slot), asked, &of((SYN, 1000, 0))).unwrap().tuple;
        // All connections of a socket have its port, and no other socket has it.
        for (other, connection) in self.naive.iter().filter(|(_, c)| !c.is_over(now)) {
            let same_socket = (other.src, other.sport) == (asked.src, asked.sport);
            prop_assert_eq!(connection.sent.sport == sent.sport, same_socket);
        }
        let (phase, touched) = (Phase::Opening, now);
        self.naive.insert(asked, Connection { slot, sent, phase, touched });
        Ok(())
    }

    /// Both know the same connections, each found from both sides.
    fn same(&self) -> Outcome {
        let now = self.world.now.as_secs();
        for (asked, connection) in &self.naive {
            let back = connection.sent.reversed();
            let ids = (self.world.flow_out(asked), self.world.flow_in(&back));
            if connection.is_over(now) {
                prop_assert_eq!(ids, (None, None), "{:?} is over", connection);
            } else {
                prop_assert!(ids.0.is_some() && ids.0 == ids.1, "{:?} is whole", connection);
            }
        }
        Ok(())
    }
}

fn of((flags, seq, ack): (TcpFlags, u32, u32)) -> Transport {
    segment(flags, seq, ack, 0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_say_the_same_of_tcp(steps in prop::collection::vec(step(), 1..150)) {
        let mut pair = Pair { world: World::sized(1 << 20), naive: BTreeMap::new() };
        for step in &steps {
            match *step {
                Step::Of(slot, port, to, act) => {
                    let asked = tuple(Proto::Tcp, inside(slot), 4000 + port, remote(to), 443);
                    pair.act(slot, asked, act)?;
                }
                Step::Wait(secs, most) => {
                    pair.world.now = pair.world.now + Duration::from_secs(secs);
                    pair.world.nat.tick(pair.world.now, most);
                }
                Step::Gone(slot) => {
                    pair.world.nat.client_gone(pair.world.now, client(slot));
                    pair.naive.retain(|_, connection| connection.slot != slot);
                }
            }
            pair.same()?;
        }
        pair.world.wait(7442);
        prop_assert_eq!(pair.world.nat.stats().flows, 0);
        prop_assert_eq!(pair.world.nat.stats().ports_free.tcp, 64_512);
    }
}
