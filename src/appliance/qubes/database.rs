//! The connection to QubesDB: what dom0 says about us and our clients, as it changes.
//!
//! In: a stream to dom0's daemon that comes and goes. Out: the firewall told of its network and of
//! each client's rules when they are committed. Never: forgets what it knew because the daemon is gone,
//! or takes more than one client's rules in a turn.

use super::network::{self, Given};
use super::{DOM0, Done, policy};
use crate::firewall::Firewall;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;
use qubes::{Event, Path, Session, seed};
use wire::Instant;
use xen::hypervisor::{DomId, EvtPort, Hypervisor, Memory};
use xen::store::{self, Tag};
use xen::vchan::{Client, Order, Stream};

/// Where dom0's daemon serves a VM (QUBESDB_VCHAN_PORT, qubesdb.h).
const PORT: u32 = 111;

/// Bytes read in one turn.
const READ: usize = 4096;

/// News taken in one turn, unless one is about rules.
const NEWS: usize = 64;

/// About what a rule takes: as it was written, in the common form, and in the index.
pub(super) const BYTES_PER_RULE: usize = 640;

const SEED: &str = "/qubes-random-seed";

/// The connection and what came of it.
pub(super) struct Database<H: Hypervisor> {
    own: DomId,
    channel: Client<H>,
    /// Bytes the copy may have; while it is read again there are two.
    room: usize,
    session: Option<Session>,
    /// Whether `session` is of the channel that is up.
    connected: bool,
    lines: Vec<String>,
    network_changed: bool,
    /// How often each client's rules were committed, and whether dom0 has not been told yet.
    handled: BTreeMap<IpAddr, (u32, bool)>,
    synced: bool,
}

impl<H: Hypervisor> Database<H> {
    pub(super) fn new<M: Memory>(
        store: &mut store::Client<M>,
        tag: Tag,
        own: DomId,
        room: usize,
    ) -> Self {
        Self {
            own,
            channel: Client::new(store, tag, own, (DOM0, PORT), Order::DATA),
            room: room / 4,
            session: None,
            connected: false,
            lines: Vec::new(),
            network_changed: false,
            handled: BTreeMap::new(),
            synced: false,
        }
    }

    pub(super) const fn own(&self) -> DomId {
        self.own
    }

    pub(super) fn on_store(&mut self, event: &store::Event) {
        self.channel.on_store(event);
    }

    pub(super) fn event(&self) -> Option<EvtPort> {
        self.channel.event()
    }

    /// Whether there is or was a QubesDB: this is Qubes.
    pub(super) const fn is_there(&self) -> bool {
        self.session.is_some() || self.channel.is_told()
    }

    /// Whether everything has been read, and changes come as they are made.
    pub(super) const fn is_live(&self) -> bool {
        self.connected && self.synced
    }

    /// Moves bytes both ways.
    pub(super) fn turn<M: Memory>(
        &mut self,
        h: &mut H,
        store: &mut store::Client<M>,
        now: Instant,
    ) -> Done {
        let due = self.channel.tick(h, store, now);
        if self.channel.is_up() != self.connected {
            self.connected = !self.connected;
            self.reconnect();
        }
        let Some(session) = self.session.as_mut().filter(|_| self.connected) else {
            return Done { more: false, due };
        };
        let mut bytes = [0; READ];
        let mut read = 0;
        if session.wants_input() {
            read = self.channel.read(h, &mut bytes);
            if let Err(error) = session.receive(bytes.get(..read).unwrap_or_default()) {
                self.lines.push(format!("{error}; connecting anew"));
                self.channel.give_up();
            }
        }
        let written = self.channel.write(h, session.outgoing());
        session.sent(written);
        // A channel that has come down is let go of in the next turn.
        let more = read > 0 || !self.channel.is_up();
        Done { more, due }
    }

    /// Whether there is news nobody has taken.
    pub(super) fn has_news(&self) -> bool {
        self.session.as_ref().is_some_and(Session::has_events)
    }

    /// Tells the firewall what has changed; returns lines worth saying.
    pub(super) fn tell(
        &mut self,
        firewall: &mut Firewall,
        given: &Given,
        now: Instant,
    ) -> Vec<String> {
        for _ in 0..NEWS {
            let Some(event) = self.session.as_mut().and_then(Session::next_event) else { break };
            match event {
                Event::Synced => self.synced(firewall, given),
                Event::Written(path) if path.as_str() == SEED => self.stir(firewall),
                Event::Written(path) => self.network_changed |= network::is_part(path.as_str()),
                Event::Removed(_) => self.network_changed = true,
                Event::Rules(client, tree) => {
                    self.rules(firewall, client, tree);
                    // Compiling takes a while: the rest in the next turn.
                    break;
                }
            }
        }
        if core::mem::take(&mut self.network_changed)
            && let Some(session) = &self.session
        {
            firewall.set_network(now, network::network(given, session.store()));
        }
        self.tell_handled();
        core::mem::take(&mut self.lines)
    }

    /// Writes a key of ours. Whether it could be.
    pub(super) fn write(&mut self, path: &str, value: &str) -> bool {
        let (Some(path), Some(session)) = (Path::new(path), &mut self.session) else {
            return false;
        };
        session.write(&path, value.as_bytes()).is_ok()
    }

    /// A key's value as text.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        core::str::from_utf8(self.session.as_ref()?.store().get(path)?).ok()
    }

    fn reconnect(&mut self) {
        let before = self.session.take();
        if self.connected {
            self.session = Some(match before {
                Some(session) => session.reconnected(),
                None => Session::connected(self.room),
            });
        } else {
            self.session = before;
            self.lines.push("QubesDB is gone: rules and addresses stay as they are".to_string());
        }
    }

    fn synced(&mut self, firewall: &mut Firewall, given: &Given) {
        self.network_changed = true;
        let first = !core::mem::replace(&mut self.synced, true);
        if first && given.no_policy && firewall.policy().is_none() {
            firewall.set_policy(policy::qubes());
            self.lines.push("no policy given: what qvm-firewall says counts".to_string());
        }
        let name = self.text("/name").unwrap_or("without a name").escape_debug().to_string();
        self.lines.push(format!("QubesDB of {name} read"));
        self.stir(firewall);
    }

    /// Mixes in dom0's entropy, and keeps no copy.
    fn stir(&mut self, firewall: &mut Firewall) {
        let Some(session) = &mut self.session else { return };
        let Some(path) = Path::new(SEED) else { return };
        if let Some(text) = session.store().get(SEED) {
            firewall.stir(&seed(text));
            session.forget(&path);
        }
    }

    fn rules(
        &mut self,
        firewall: &mut Firewall,
        client: IpAddr,
        tree: Result<rules::qubes::Tree, rules::qubes::TreeError>,
    ) {
        let changed = firewall.set_rules(client, tree);
        let (count, untold) = self.handled.entry(client).or_default();
        (*count, *untold) = (count.saturating_add(1), true);
        if !changed {
            return;
        }
        self.lines.push(match firewall.own_rules().state(client) {
            Some(Ok(rules)) => format!("rules of {client}: {rules}"),
            Some(Err(why)) => format!("rules of {client}: {why}: it is blocked"),
            None => return,
        });
    }

    /// Counts up `/qubes-firewall-handled/ADDRESS`, as the Linux agent does.
    fn tell_handled(&mut self) {
        let Some(session) = self.session.as_mut().filter(|_| self.connected && self.synced) else {
            return;
        };
        for (client, (count, untold)) in self.handled.iter_mut().filter(|(_, (_, untold))| *untold)
        {
            let Some(path) = Path::new(&format!("/qubes-firewall-handled/{client}")) else {
                continue;
            };
            if session.write(&path, count.to_string().as_bytes()).is_err() {
                return;
            }
            *untold = false;
        }
    }
}
