//! The host: dom0's toolstack and XenStore, with types.

use crate::config::{Config, Vif};
use crate::domain::{DEADLINE, Domain, millis};
use crate::error::{Context as _, Error, Result, ensure};
use crate::machine::{Machine, tail};
use agent::{Answer, Condition, DOM0, MARK, Op};
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

/// Events of the scheduler that are few (TRC_SCHED_MIN, trace.h): who ran, and who waits.
const SCHEDULING: u32 = 0x0002_1000;

/// Xen with its dom0.
#[derive(Clone)]
pub struct Xen {
    /// dom0 itself, which plays sys-net and the internet.
    pub dom0: Domain,
}

/// A line of `xl list`.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// Domain name.
    pub name: String,
    /// Domain number.
    pub id: u16,
    /// Memory in MiB.
    pub memory: u32,
    /// CPU time used since creation, in seconds.
    pub cpu_seconds: f64,
}

impl Xen {
    pub(crate) fn new(machine: Machine) -> Self {
        Self { dom0: Domain::new(Arc::new(machine), DOM0, "dom0") }
    }

    /// Runs `xl`, one at a time, and returns what it printed.
    ///
    /// # Errors
    /// When it fails; what it said is in the message.
    pub fn xl(&self, words: &[&str]) -> Result<String> {
        let argv = [&["xl"], words].concat().iter().map(|word| (*word).to_owned()).collect();
        let deadline_ms = millis(DEADLINE * 2);
        let op = Op::Exec { argv, stdin: String::new(), deadline_ms, exclusive: true };
        match self.dom0.ask(op)? {
            Answer::Exited(exit) if exit.success() => Ok(exit.stdout),
            Answer::Exited(exit) => Err(Error::new(format!(
                "xl {}: exit {:?}\n{}{}",
                words.join(" "),
                exit.code,
                exit.stdout,
                exit.stderr
            ))),
            other => Err(self.dom0.unexpected(&other)),
        }
    }

    /// Creates a guest, running.
    ///
    /// # Errors
    /// When `xl create` fails, as when a backend does not answer.
    pub fn create(&self, config: &Config) -> Result<Domain> {
        self.create_with(config, &[])
    }

    /// Creates a guest that does not run until [`Xen::unpause`].
    ///
    /// # Errors
    /// As [`Xen::create`].
    pub fn create_paused(&self, config: &Config) -> Result<Domain> {
        self.create_with(config, &["-p"])
    }

    fn create_with(&self, config: &Config, options: &[&str]) -> Result<Domain> {
        let file = format!("/run/{}.cfg", config.name);
        self.dom0.write_file(&file, &config.text())?;
        let words = [&["create", "-q"], options, &[&*file]].concat();
        self.xl(&words)?;
        self.find(&config.name)
    }

    /// A running domain, by name.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, name: &str) -> Result<Domain> {
        let id = self.xl(&["domid", name])?;
        let id = id.trim().parse().context(format!("xl domid {name} printed {id:?}"))?;
        Ok(Domain::new(self.dom0.machine_handle(), id, name))
    }

    /// Lets a paused guest run.
    ///
    /// # Errors
    /// When `xl` fails.
    pub fn unpause(&self, name: &str) -> Result<()> {
        self.xl(&["unpause", name]).map(drop)
    }

    /// As [`Xen::unpause`], while another `xl` is waiting for what this guest will do.
    ///
    /// # Errors
    /// When `xl` fails.
    pub(crate) fn unpause_beside(&self, name: &str) -> Result<()> {
        let exit = self.dom0.exec(&["xl", "unpause", name])?;
        ensure(exit.success(), || format!("xl unpause {name}: {exit:?}"))
    }

    /// Stops a guest from running, for now.
    ///
    /// # Errors
    /// When `xl` fails.
    pub fn pause(&self, name: &str) -> Result<()> {
        self.xl(&["pause", name]).map(drop)
    }

    /// Ends a guest at once.
    ///
    /// # Errors
    /// When `xl` fails.
    pub fn destroy(&self, name: &str) -> Result<()> {
        self.xl(&["destroy", name]).map(drop)
    }

    /// Gives a guest a new interface.
    ///
    /// # Errors
    /// When the backend does not take it up within what libxl waits.
    pub fn network_attach(&self, name: &str, vif: &Vif) -> Result<()> {
        let vif_words = vif.words();
        let mut words = vec!["network-attach", name];
        words.extend(vif_words.iter().map(String::as_str));
        self.xl(&words).map(drop)
    }

    /// Takes a guest's interface away. `xl` gives up after ten seconds, in which a busy host may have run
    /// none of the domains, and when it looks at the backend's directory only after that is gone: if the
    /// backend let go, `xl` is asked once more.
    ///
    /// # Errors
    /// When the backend does not let go.
    pub fn network_detach(&self, name: &str, handle: u32) -> Result<()> {
        let front = format!("/local/domain/{}/device/vif/{handle}", self.find(name)?.id);
        let back = self.read(&format!("{front}/backend"))?;
        let detach = || self.xl(&["network-detach", name, &handle.to_string()]).map(drop);
        let Err(error) = detach() else { return Ok(()) };
        if !error.to_string().contains("unable to remove device") {
            return Err(error);
        }
        eprintln!("  xl gave up detaching from {name}: waiting for the backend");
        let closed = Condition::XsEnds { path: format!("{back}/state"), value: "6".into() };
        self.dom0.wait(closed, DEADLINE).context(error.to_string())?;
        detach()
    }

    /// Writes what `xl network-attach` writes for a guest's interface 0, and waits for nobody: `xl` gives
    /// up after ten seconds, which a backend may need longer than to boot.
    ///
    /// # Errors
    /// When XenStore does not take it.
    pub fn plug(&self, guest: &Domain, backend: &Domain, vif: &Vif) -> Result<()> {
        let front = format!("/local/domain/{}/device/vif/0", guest.id);
        let back = format!("/local/domain/{}/backend/vif/{}/0", backend.id, guest.id);
        // Nodes below have the permissions of the one above: it is made first.
        let owned = |path: &str, owner: u16, reader: u16| {
            format!("xenstore-write {path} '' && xenstore-chmod {path} n{owner} r{reader}")
        };
        let mut words = vec!["xenstore-write".to_owned()];
        let mut write = |dir: &str, name: &str, value: &str| {
            words.extend([format!("{dir}/{name}"), format!("'{value}'")]);
        };
        write(&back, "frontend", &front);
        write(&back, "frontend-id", &guest.id.to_string());
        write(&back, "online", "1");
        write(&back, "handle", "0");
        write(&back, "type", "vif");
        // Linux' netback serves nobody without one, whoever runs it.
        write(&back, "script", "/etc/xen/scripts/vif-bridge");
        write(&back, "mac", &vif.mac);
        write(&back, "ip", &vif.ip.to_string());
        write(&back, "state", "1");
        write(&front, "backend", &back);
        write(&front, "backend-id", &backend.id.to_string());
        write(&front, "handle", "0");
        write(&front, "mac", &vif.mac);
        write(&front, "state", "1");
        let (back, front) =
            (owned(&back, backend.id, guest.id), owned(&front, guest.id, backend.id));
        self.dom0.sh(&format!("{back} && {front} && {}", words.join(" "))).map(drop)
    }

    /// Every domain's memory and CPU time.
    ///
    /// # Errors
    /// When `xl list` fails.
    pub fn usage(&self) -> Result<Vec<Usage>> {
        let listed = self.xl(&["list"])?;
        let parsed = listed.lines().skip(1).map(parse_usage).collect::<Option<Vec<_>>>();
        parsed.ok_or_else(|| Error::new(format!("xl list printed\n{listed}")))
    }

    /// One domain's memory and CPU time.
    ///
    /// # Errors
    /// When it is not there.
    pub fn usage_of(&self, name: &str) -> Result<Usage> {
        let found = self.usage()?.into_iter().find(|usage| usage.name == name);
        found.ok_or_else(|| Error::new(format!("no domain {name}")))
    }

    /// Processor time of every domain since its creation, by its number, to the nanosecond.
    ///
    /// # Errors
    /// When the hypervisor is another one than the rig's.
    pub fn cpu_times(&self) -> Result<BTreeMap<u16, Duration>> {
        let exit = self.dom0.exec(&["tidegate-agent", "ask", "usage"])?;
        ensure(exit.success(), || format!("ask usage: {}", exit.stderr.trim_end()))?;
        let times: BTreeMap<u16, u64> = serde_json::from_str(&exit.stdout).context("ask usage")?;
        Ok(times.into_iter().map(|(id, nanos)| (id, Duration::from_nanos(nanos))).collect())
    }

    /// How often each domain is woken up in the next seconds, by its number, as the hypervisor's own
    /// trace tells.
    ///
    /// # Errors
    /// When dom0 cannot trace.
    pub fn wake_ups(&self, seconds: u32) -> Result<BTreeMap<u16, u64>> {
        let trace = "/run/wakes.trace";
        let script = format!(
            "xentrace -D -e {SCHEDULING:#x} -T {seconds} {trace} && \
             tidegate-agent ask wakes {trace}; rm -f {trace}"
        );
        serde_json::from_str(&self.dom0.sh(&script)?).context("ask wakes")
    }

    /// Waits until a domain number is no more.
    ///
    /// # Errors
    /// At the deadline.
    pub fn wait_gone(&self, domain: &Domain, deadline: Duration) -> Result<()> {
        let path = format!("/local/domain/{}/name", domain.id);
        self.dom0
            .wait(Condition::XsGone { path }, deadline)
            .context(format!("{} to end", domain.name))
    }

    /// Reads a XenStore node.
    ///
    /// # Errors
    /// When it is not there.
    pub fn read(&self, path: &str) -> Result<String> {
        match self.dom0.ask(Op::XsRead { path: path.to_owned() })? {
            Answer::Text(text) => Ok(text),
            other => Err(self.dom0.unexpected(&other)),
        }
    }

    /// Writes a XenStore node.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, value: &str) -> Result<()> {
        let (path, value) = (path.to_owned(), value.to_owned());
        self.dom0.ask(Op::XsWrite { path, value }).map(drop)
    }

    /// Names of a XenStore node's children.
    ///
    /// # Errors
    /// When the node is not there.
    pub fn list(&self, path: &str) -> Result<Vec<String>> {
        match self.dom0.ask(Op::XsList { path: path.to_owned() })? {
            Answer::Names(names) => Ok(names),
            other => Err(self.dom0.unexpected(&other)),
        }
    }

    /// Waits until a XenStore node has a value.
    ///
    /// # Errors
    /// At the deadline, with the value it has instead.
    pub fn wait_for(&self, path: &str, value: &str, deadline: Duration) -> Result<()> {
        let (path, value) = (path.to_owned(), value.to_owned());
        self.dom0.wait(Condition::XsIs { path, value }, deadline)
    }

    /// Everything a guest of this name has printed on its console in this boot.
    pub fn console(&self, name: &str) -> String {
        let text = self.dom0.read_file(&console_log(name), 0).unwrap_or_default();
        readable(&text)
    }

    /// Bytes a guest of this name has printed so far: where to start looking for what comes next.
    pub fn console_mark(&self, name: &str) -> u64 {
        let text = self.dom0.read_file(&console_log(name), 0);
        text.map_or(0, |text| text.len() as u64)
    }

    /// Waits until a guest prints something, after a mark.
    ///
    /// # Errors
    /// At the deadline, with what it printed last.
    pub fn wait_console(
        &self,
        name: &str,
        mark: u64,
        text: &str,
        deadline: Duration,
    ) -> Result<()> {
        let (path, text) = (console_log(name), text.to_owned());
        self.dom0.wait(Condition::FileHas { path, offset: mark, text }, deadline)
    }

    /// The last lines of a guest's console, indented.
    pub fn console_tail(&self, name: &str, lines: usize) -> String {
        tail(&self.console(name), lines)
    }

    /// Copies every log of dom0 to the run's directory on the host.
    ///
    /// # Errors
    /// When dom0 does not answer or the host's disk is full.
    pub fn save_logs(&self) -> Result<()> {
        let files = self.dom0.sh("find /var/log/xen -type f")?;
        for path in files.lines() {
            let name = path.rsplit('/').next().unwrap_or(path);
            let text = readable(&self.dom0.read_file(path, 0)?);
            let to = self.dom0.machine().directory().join(name);
            fs::write(&to, text).map_err(Error::file(&to))?;
        }
        Ok(())
    }

    /// Fails unless exactly these guests are running.
    ///
    /// # Errors
    /// When others are, or some are not.
    pub fn expect_guests(&self, names: &[&str]) -> Result<()> {
        let running: Vec<_> = self.usage()?.into_iter().filter(|u| u.id != DOM0).collect();
        let same =
            running.len() == names.len() && running.iter().all(|u| names.contains(&&*u.name));
        ensure(same, || format!("expected {names:?}, running are {running:?}"))
    }
}

fn console_log(name: &str) -> String {
    format!("/var/log/xen/console/guest-{name}.log")
}

/// A log without the agents' talk.
fn readable(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.contains(MARK));
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}

/// `Name  ID  Mem  VCPUs  State  Time(s)`
fn parse_usage(line: &str) -> Option<Usage> {
    let mut words = line.split_whitespace();
    let name = words.next()?.to_owned();
    let id = words.next()?.parse().ok()?;
    let memory = words.next()?.parse().ok()?;
    let cpu_seconds = words.last()?.parse().ok()?;
    Some(Usage { name, id, memory, cpu_seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xl_list_is_read() {
        let line = "fw                     3    32     1     -b----       0.7";
        let usage = Usage { name: "fw".into(), id: 3, memory: 32, cpu_seconds: 0.7 };
        assert_eq!(parse_usage(line), Some(usage));
        assert_eq!(parse_usage("xl: error"), None);
    }

    #[test]
    fn logs_are_shown_without_the_agents_talk() {
        assert_eq!(readable("a\r\n\u{1e}{\"id\":0}\nb\n"), "a\nb\n");
    }
}
