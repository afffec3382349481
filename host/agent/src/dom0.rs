//! Orders to the peers that play Qubes' daemons in dom0 (`tidegate-agent qubes`), and their answers.
//!
//! In and out: JSON, one line each, over a socket in dom0.

use serde::{Deserialize, Serialize};

/// Where the peers of a domain listen.
#[must_use]
pub fn socket(domain: u16) -> String {
    format!("/run/qubes-{domain}.sock")
}

/// What a test wants of the daemons.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Order {
    /// How are they?
    State,
    /// `qubesdb-write`.
    Write {
        /// The key.
        path: String,
        /// Its value.
        value: String,
    },
    /// `qubesdb-read`.
    Read {
        /// The key.
        path: String,
    },
    /// What qubesd does when the rules of a client change, with the commit or without.
    Rules {
        /// Its address.
        client: String,
        /// Numbered rules.
        rules: Vec<(u16, String)>,
        /// Whether they are committed.
        commit: bool,
    },
    /// Send bytes the real qubesdb-daemon would not.
    Corrupt {
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// End qubesdb-daemon, as a crash does.
    StopDatabase,
    /// Start it again.
    StartDatabase,
    /// End qrexec-daemon and start it again.
    RestartQrexec,
    /// Call a service of the domain and wait for its end.
    Call {
        /// The service, with its argument.
        service: String,
        /// Its input.
        input: String,
    },
    /// Serve the first call the domain asked for, and wait for its end.
    Serve,
}

/// How the daemons are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The domain has read the database, and follows it.
    pub live: bool,
    /// Changes it has acknowledged.
    pub acknowledged: usize,
    /// Its agent and qrexec-daemon have greeted.
    pub greeted: bool,
    /// What it asked for and nobody has answered: services.
    pub asked: Vec<String>,
    /// Calls for which a port is still taken.
    pub open_calls: usize,
    /// What daemons said when they died.
    pub deaths: Vec<String>,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// Done.
    Done,
    /// How the daemons are.
    State(State),
    /// A value, if there is one.
    Value(Option<String>),
    /// A call has ended.
    Ended {
        /// What it printed.
        output: String,
        /// Its exit code.
        exit: Option<i32>,
    },
    /// It cannot be done.
    No(String),
}
