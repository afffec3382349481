//! Qubes' daemons for the firewall, played by the agent in dom0 over real channels.
//!
//! In: orders. Out: what the daemons say, and waits for what they see.

use crate::domain::{DEADLINE, Domain};
use crate::error::{Context as _, Error, Result, ensure};
use agent::Condition;
use agent::dom0::{Order, Said, State, socket};

/// Under which name they run.
const NAME: &str = "qubes";

/// The daemons of one domain.
pub struct Peers {
    dom0: Domain,
    domain: u16,
}

impl Peers {
    /// Starts them for a domain, which may be paused, with this in its database.
    ///
    /// # Errors
    /// When they do not come up.
    pub fn start(dom0: &Domain, domain: u16, entries: &[(&str, &str)]) -> Result<Self> {
        dom0.spawn(NAME, &["tidegate-agent", "qubes", &domain.to_string()])?;
        let peers = Self { dom0: dom0.clone(), domain };
        let started = peers.fill(entries);
        started.map_err(|e| Error::new(format!("{e}\n{}", peers.printed())))?;
        Ok(peers)
    }

    fn fill(&self, entries: &[(&str, &str)]) -> Result<()> {
        self.dom0.wait(Condition::Exists { path: socket(self.domain) }, DEADLINE)?;
        entries.iter().try_for_each(|(path, value)| self.write(path, value))
    }

    /// `qubesdb-write`.
    ///
    /// # Errors
    /// When the peers do not answer.
    pub fn write(&self, path: &str, value: &str) -> Result<()> {
        self.done(&Order::Write { path: path.into(), value: value.into() })
    }

    /// What qubesd does when the rules of a client change; with `commit` it waits as
    /// [`commit`](Self::commit) does.
    ///
    /// # Errors
    /// When the firewall does not obey, in time.
    pub fn rules(&self, client: &str, rules: &[&str], commit: bool) -> Result<()> {
        let numbered =
            (0..).zip(rules).map(|(number, rule)| (number, (*rule).to_owned())).collect();
        self.done(&Order::Rules { client: client.into(), rules: numbered, commit: false })?;
        if commit { self.commit(client) } else { Ok(()) }
    }

    /// Commits the rules of a client and waits until the firewall says that it has obeyed.
    ///
    /// # Errors
    /// When it does not, in time.
    pub fn commit(&self, client: &str) -> Result<()> {
        let mark = self.printed().len() as u64;
        let path = format!("/qubes-firewall-handled/{client}");
        let before: u32 = match self.order(&Order::Read { path: path.clone() })? {
            Said::Value(value) => value.and_then(|value| value.parse().ok()).unwrap_or(0),
            other => return Err(Error::new(format!("{path}: {other:?}"))),
        };
        self.write(&format!("/qubes-firewall/{client}"), "")?;
        self.wait_printed(mark, &format!("wrote {path}={}\n", before + 1))
    }

    /// Calls a service of the domain: what it printed, and its exit code.
    ///
    /// # Errors
    /// When the call never ends.
    pub fn call(&self, service: &str, input: &str) -> Result<(String, Option<i32>)> {
        self.ended(&Order::Call { service: service.into(), input: input.into() })
    }

    /// Serves the first call the domain asked for.
    ///
    /// # Errors
    /// When there is none, or it never ends.
    pub fn serve(&self) -> Result<(String, Option<i32>)> {
        self.ended(&Order::Serve)
    }

    /// Gives an order that needs no answer.
    ///
    /// # Errors
    /// When the peers refuse.
    pub fn done(&self, order: &Order) -> Result<()> {
        match self.order(order)? {
            Said::Done => Ok(()),
            other => Err(Error::new(format!("{order:?}: {other:?}"))),
        }
    }

    /// How the daemons are.
    ///
    /// # Errors
    /// When the peers do not answer.
    pub fn state(&self) -> Result<State> {
        match self.order(&Order::State)? {
            Said::State(state) => Ok(state),
            other => Err(Error::new(format!("{other:?}"))),
        }
    }

    /// Everything they have printed: a line for each thing that happened.
    pub fn printed(&self) -> String {
        self.dom0.printed(NAME).unwrap_or_default()
    }

    /// Waits until they print something, after so many bytes.
    ///
    /// # Errors
    /// At the deadline.
    pub fn wait_printed(&self, mark: u64, text: &str) -> Result<()> {
        let path = format!("/run/{NAME}.log");
        self.dom0.wait(Condition::FileHas { path, offset: mark, text: text.into() }, DEADLINE)
    }

    /// Ends them, as a crash of all of dom0's daemons.
    ///
    /// # Errors
    /// When they do not run.
    pub fn stop(self) -> Result<()> {
        self.dom0.stop(NAME).map(drop)
    }

    fn ended(&self, order: &Order) -> Result<(String, Option<i32>)> {
        match self.order(order)? {
            Said::Ended { output, exit } => Ok((output, exit)),
            other => Err(Error::new(format!("{order:?}: {other:?}"))),
        }
    }

    fn order(&self, order: &Order) -> Result<Said> {
        let json = serde_json::to_string(order).context("an order")?;
        let domain = self.domain.to_string();
        let exit = self.dom0.exec(&["tidegate-agent", "order", &domain, &json])?;
        ensure(exit.success(), || format!("order {json}: {}", exit.stderr.trim_end()))?;
        serde_json::from_str(&exit.stdout).context(exit.stdout)
    }
}
