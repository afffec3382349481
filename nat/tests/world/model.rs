//! What a human would remember of the small world.

/// A UDP flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Udp {
    pub(crate) answered: bool,
    /// Seconds since its client last sent.
    pub(crate) age: u64,
}

/// States of RFC 6146 section 3.5.2, the opening and the end taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum State {
    #[default]
    Init,
    SynReceived,
    Established,
    /// One side sent FIN: 0 the client, 1 the remote.
    Fin(usize),
    BothFin,
    /// Both FINs acknowledged, or refused.
    Over,
    /// After RST (RFC 7857 section 2).
    Trans,
}

/// A TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Tcp {
    pub(crate) state: State,
    /// Who sent FIN: the client, the remote.
    pub(crate) fin: [bool; 2],
    /// Whose FIN was acknowledged.
    acked: [bool; 2],
    /// Whether the remote has said a number, without which nothing can be acknowledged.
    heard: bool,
    /// Seconds since what counts was last sent.
    age: u64,
}

/// What must have become of a packet.
pub(crate) enum Expected {
    Passes,
    Dropped,
}

/// A client's flows: of a socket to two remotes, of another socket, of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Client {
    pub(crate) udp: [Option<Udp>; 2],
    pub(crate) other: Option<Udp>,
    pub(crate) tcp: Option<Tcp>,
}

/// Everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Model([Client; 2]);

impl Model {
    pub(crate) fn client(&self, c: u16) -> Client {
        self.0[usize::from(c)]
    }

    pub(crate) fn client_mut(&mut self, c: u16) -> &mut Client {
        &mut self.0[usize::from(c)]
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        for client in &mut self.0 {
            for flow in client.udp.iter_mut().chain([&mut client.other]) {
                *flow = flow.map(|f| Udp { age: f.age + seconds, ..f }).filter(|f| f.age <= 300);
            }
            let aged = client.tcp.map(|tcp| Tcp { age: tcp.age + seconds, ..tcp });
            client.tcp = aged.filter(|tcp| tcp.age <= tcp.lifetime());
        }
    }

    /// The same whichever client is which.
    pub(crate) fn canonical(&self) -> Self {
        let [a, b] = self.0;
        Self(if a <= b { [a, b] } else { [b, a] })
    }
}

impl Client {
    pub(crate) fn datagram(&mut self, to: usize) {
        let answered = self.udp[to].is_some_and(|flow| flow.answered);
        self.udp[to] = Some(Udp { answered, age: 0 });
    }

    pub(crate) fn other_datagram(&mut self) {
        self.other = Some(Udp { answered: false, age: 0 });
    }

    /// Whether it passes: only from whom was asked. It keeps nothing alive.
    pub(crate) fn answer(&mut self, from: usize) -> bool {
        if let Some(flow) = &mut self.udp[from] {
            flow.answered = true;
        }
        self.udp[from].is_some()
    }

    /// A SYN with the number of the connection; `None` while that is under way.
    pub(crate) fn syn(&mut self) -> Option<Expected> {
        match &mut self.tcp {
            Some(Tcp { state: State::SynReceived, age, fin: [false, false], .. }) => *age = 0,
            None | Some(Tcp { state: State::Init | State::Over | State::Trans, .. }) => {
                self.tcp = Some(Tcp::default());
            }
            Some(_) => return None,
        }
        Some(Expected::Passes)
    }

    pub(crate) fn syn_ack(&mut self) -> Expected {
        let Some(tcp) = &mut self.tcp else { return Expected::Dropped };
        tcp.heard = true;
        match tcp.state {
            State::Init => tcp.moves(State::SynReceived),
            State::Trans => tcp.moves(State::Established),
            _ => {}
        }
        Expected::Passes
    }

    /// An acknowledgement of all that was sent, from the client (0) or the remote (1), perhaps with
    /// FIN.
    pub(crate) fn says(&mut self, side: usize, fin: bool) -> Expected {
        let Some(tcp) = &mut self.tcp else { return Expected::Dropped };
        if tcp.state == State::Init {
            // The client knows that nothing is established. From the remote it may be about an
            // older connection, which only the client can tell.
            return if side == 0 { Expected::Dropped } else { Expected::Passes };
        }
        tcp.heard |= side == 1;
        if !tcp.heard {
            return Expected::Dropped;
        }
        tcp.fin[side] |= fin;
        tcp.acked[1 - side] |= tcp.fin[1 - side];
        let next = match (tcp.state, fin) {
            (State::SynReceived, false) if side == 1 => State::SynReceived,
            (State::SynReceived | State::Established | State::Trans, false) => State::Established,
            (State::SynReceived | State::Established | State::Trans, true) => State::Fin(side),
            (State::Fin(by), true) if by != side => State::BothFin,
            (State::BothFin, false) if tcp.acked == [true; 2] => State::Over,
            (same, _) => same,
        };
        // Only the client keeps it alive; but a new state has its own time.
        if side == 0 || next != tcp.state {
            tcp.moves(next);
        }
        Expected::Passes
    }

    /// RST from the remote, with the very number.
    pub(crate) fn reset(&mut self) -> Expected {
        let Some(tcp) = &mut self.tcp else { return Expected::Dropped };
        match tcp.state {
            State::Init | State::SynReceived => tcp.moves(State::Over),
            State::Over | State::Trans => {}
            _ => tcp.moves(State::Trans),
        }
        Expected::Passes
    }
}

impl Tcp {
    fn moves(&mut self, to: State) {
        (self.state, self.age) = (to, 0);
    }

    const fn lifetime(&self) -> u64 {
        match self.state {
            State::Established | State::Fin(_) => 7440,
            State::Init | State::SynReceived | State::BothFin | State::Trans => 240,
            State::Over => 10,
        }
    }
}
