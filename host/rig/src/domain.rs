//! A domain with an agent in it: dom0 or a Linux guest. Everything a test does there goes through
//! these methods; each has a deadline, and each failure names the domain and what was tried.

use crate::error::{Context as _, Error, Result, ensure};
use crate::machine::Machine;
use agent::probe::{Connect, DnsAnswer, Echoes, Fetched};
use agent::{Answer, Condition, Exit, Op};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// What one command may take, unless said otherwise.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// How long a probe waits for one packet before it calls it lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same, where the packet is expected not to come.
const SILENCE: Duration = Duration::from_secs(2);

/// A running domain and the way to its agent.
#[derive(Clone)]
pub struct Domain {
    machine: Arc<Machine>,
    /// Its number in this boot.
    pub id: u16,
    /// Its name.
    pub name: String,
}

/// What `ping` saw.
#[derive(Debug, Clone, PartialEq)]
pub struct Ping {
    /// Echo requests sent.
    pub sent: u32,
    /// Replies that came.
    pub received: u32,
    /// Average round trip in milliseconds, if any came.
    pub millis: Option<f64>,
}

/// Which way iperf3 sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the client.
    Up,
    /// To the client.
    Down,
}

impl Domain {
    pub(crate) fn new(machine: Arc<Machine>, id: u16, name: &str) -> Self {
        Self { machine, id, name: name.to_owned() }
    }

    /// The machine it runs on.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(crate) fn machine_handle(&self) -> Arc<Machine> {
        Arc::clone(&self.machine)
    }

    /// Whether its agent answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn hello(&self) -> Result<()> {
        self.ask(Op::Hello).map(drop)
    }

    /// Runs a program to its end.
    ///
    /// # Errors
    /// When it cannot be started or does not end in time; its exit code is not looked at.
    pub fn exec(&self, argv: &[&str]) -> Result<Exit> {
        self.exec_within(argv, DEADLINE)
    }

    /// As [`Domain::exec`], with a deadline of its own.
    ///
    /// # Errors
    /// As [`Domain::exec`].
    pub fn exec_within(&self, argv: &[&str], deadline: Duration) -> Result<Exit> {
        self.exited(Op::Exec {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            stdin: String::new(),
            deadline_ms: millis(deadline),
            exclusive: false,
        })
    }

    /// Runs a shell command that must succeed, and returns what it printed.
    ///
    /// # Errors
    /// When it fails; both outputs are in the message.
    pub fn sh(&self, script: &str) -> Result<String> {
        let exit = self.exec(&["sh", "-c", script])?;
        ensure(exit.success(), || format!("{}: `{script}`: {exit:?}", self.name))?;
        Ok(exit.stdout)
    }

    /// Starts a program and leaves it running under a name.
    ///
    /// # Errors
    /// When it cannot be started, or the name is taken.
    pub fn spawn(&self, name: &str, argv: &[&str]) -> Result<()> {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        self.ask(Op::Spawn { name: name.to_owned(), argv }).map(drop)
    }

    /// Ends what was spawned and returns what it printed and how it ended.
    ///
    /// # Errors
    /// When nothing was spawned under this name.
    pub fn stop(&self, name: &str) -> Result<Exit> {
        self.exited(Op::Stop { name: name.to_owned() })
    }

    /// What a spawned program has printed so far.
    ///
    /// # Errors
    /// When nothing was spawned under this name.
    pub fn printed(&self, name: &str) -> Result<String> {
        self.read_file(&format!("/run/{name}.log"), 0)
    }

    /// Waits until something is so.
    ///
    /// # Errors
    /// At the deadline, with what was awaited and what was seen last.
    pub fn wait(&self, until: Condition, deadline: Duration) -> Result<()> {
        self.ask(Op::Wait { until, deadline_ms: millis(deadline) }).map(drop)
    }

    /// Reads a file from a byte on.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_file(&self, path: &str, offset: u64) -> Result<String> {
        match self.ask(Op::ReadFile { path: path.to_owned(), offset })? {
            Answer::Text(text) => Ok(text),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Creates or replaces a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_file(&self, path: &str, text: &str) -> Result<()> {
        self.ask(Op::WriteFile { path: path.to_owned(), text: text.to_owned() }).map(drop)
    }

    /// Starts one of the agent's servers and waits until it listens. Its name is `what` and the
    /// port, such as `http-80`.
    ///
    /// # Errors
    /// When it does not come to listen.
    pub fn serve(&self, what: &str, address: Ipv4Addr, port: u16) -> Result<String> {
        let name = format!("{what}-{address}-{port}");
        let at = SocketAddr::from((address, port)).to_string();
        self.spawn(&name, &["tidegate-agent", "serve", what, &at])?;
        let udp = what == "udp-echo";
        self.wait(Condition::Listening { port, udp }, DEADLINE).context(&name)?;
        Ok(name)
    }

    /// Sends `count` echo requests; the last answer is awaited for some seconds.
    ///
    /// # Errors
    /// When ping itself cannot run; lost replies are no error.
    pub fn ping(&self, to: Ipv4Addr, count: u32) -> Result<Ping> {
        let count = count.to_string();
        let to = to.to_string();
        let exit = self.exec(&["ping", "-c", &count, "-i", "0.1", "-W", "5", &to])?;
        parse_ping(&exit.stdout)
            .ok_or_else(|| Error::new(format!("{}: ping printed {exit:?}", self.name)))
    }

    /// Round trips of `count` echo requests, in milliseconds, in the order they were sent; those that
    /// are not answered within seconds are not among them.
    ///
    /// # Errors
    /// When ping itself cannot run.
    pub fn round_trips(&self, to: Ipv4Addr, count: u32) -> Result<Vec<f64>> {
        let (count, to) = (count.to_string(), to.to_string());
        let exit = self.exec(&["ping", "-c", &count, "-i", "0.03", "-W", "3", &to])?;
        Ok(exit.stdout.lines().filter_map(round_trip).collect())
    }

    /// Tries to open a TCP connection.
    ///
    /// # Errors
    /// When the probe itself fails; a refused connection is an answer.
    pub fn connect(&self, to: Ipv4Addr, port: u16) -> Result<Connect> {
        self.probe(PATIENCE, &["connect", &endpoint(to, port)])
    }

    /// As [`Domain::connect`], where nothing is expected to come back.
    ///
    /// # Errors
    /// As [`Domain::connect`].
    pub fn connect_unanswered(&self, to: Ipv4Addr, port: u16) -> Result<Connect> {
        self.probe(SILENCE, &["connect", &endpoint(to, port)])
    }

    /// Sends datagrams to an echo server and checks what comes back.
    ///
    /// # Errors
    /// When the probe itself fails; lost datagrams are an answer.
    pub fn udp(&self, to: Ipv4Addr, port: u16, count: u32, size: usize) -> Result<Echoes> {
        let (count, size) = (count.to_string(), size.to_string());
        self.probe(PATIENCE, &["udp", &endpoint(to, port), &count, &size])
    }

    /// Sends one datagram from an address that may be another's; no answer is expected.
    ///
    /// # Errors
    /// When the probe itself fails.
    pub fn udp_from(&self, from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Result<Echoes> {
        let from = from.to_string();
        self.probe(SILENCE, &["udp", &endpoint(to, port), "1", "100", "--from", &from])
    }

    /// Fetches a document of `size` bytes from the agent's web server.
    ///
    /// # Errors
    /// When it cannot be fetched.
    pub fn fetch(&self, from: Ipv4Addr, port: u16, size: u64) -> Result<Fetched> {
        self.probe(PATIENCE, &["http", &endpoint(from, port), &size.to_string()])
    }

    /// Asks a resolver for A and AAAA on one socket.
    ///
    /// # Errors
    /// When not both answers come.
    pub fn resolve(&self, resolver: Ipv4Addr, name: &str, tcp: bool) -> Result<Vec<DnsAnswer>> {
        let resolver = endpoint(resolver, 53);
        let mut words = vec!["dns", &resolver, name];
        if tcp {
            words.push("--tcp");
        }
        self.probe(PATIENCE, &words)
    }

    /// Bits per second of TCP that reach the receiver of an iperf3 run.
    ///
    /// # Errors
    /// When iperf3 fails; its message is passed on.
    pub fn iperf(&self, server: Ipv4Addr, way: Way, seconds: u32) -> Result<f64> {
        self.iperf_streams(server, way, 1, seconds)
    }

    /// As [`Domain::iperf`], all of so many streams together.
    ///
    /// # Errors
    /// As [`Domain::iperf`].
    pub fn iperf_streams(
        &self,
        server: Ipv4Addr,
        way: Way,
        streams: u32,
        seconds: u32,
    ) -> Result<f64> {
        let (server, seconds_word) = (server.to_string(), seconds.to_string());
        let streams = streams.to_string();
        let mut argv = vec!["iperf3", "-J", "-c", &server, "-t", &seconds_word, "-P", &streams];
        if way == Way::Down {
            argv.push("-R");
        }
        let deadline = DEADLINE + Duration::from_secs(u64::from(seconds));
        let exit = self.exec_within(&argv, deadline)?;
        let report: serde_json::Value = serde_json::from_str(&exit.stdout)
            .context(format!("iperf3 in {} printed {exit:?}", self.name))?;
        report
            .pointer("/end/sum_received/bits_per_second")
            .and_then(serde_json::Value::as_f64)
            .filter(|rate| *rate > 0.0)
            .ok_or_else(|| {
                Error::new({
                    let why = report.pointer("/error");
                    format!("iperf3 in {}: {why:?}", self.name)
                })
            })
    }

    /// Starts and names of the functions, of Xen and of Linux, that these addresses lie in (dom0 only).
    ///
    /// # Errors
    /// When the agent cannot read the kernels' tables.
    pub fn functions(&self, addresses: &[u64]) -> Result<BTreeMap<u64, String>> {
        let words: Vec<_> = addresses.iter().map(|address| format!("{address:x}")).collect();
        let argv = ["tidegate-agent", "ask", "names"].map(str::to_owned).to_vec();
        let deadline_ms = millis(DEADLINE);
        let exit =
            self.exited(Op::Exec { argv, stdin: words.join(" "), deadline_ms, exclusive: false })?;
        ensure(exit.success(), || format!("{}: names: {}", self.name, exit.stderr.trim_end()))?;
        let found: BTreeMap<String, String> =
            serde_json::from_str(&exit.stdout).context("names")?;
        let parsed = found.into_iter().map(|(at, name)| Ok((u64::from_str_radix(&at, 16)?, name)));
        parsed.collect::<std::result::Result<_, std::num::ParseIntError>>().context("names")
    }

    fn probe<T: DeserializeOwned>(&self, patience: Duration, words: &[&str]) -> Result<T> {
        let patience = millis(patience).to_string();
        let mut argv = vec!["tidegate-agent", "ask", "--patience", &patience];
        argv.extend(words);
        let exit = self.exec(&argv)?;
        let what = || format!("{}: {}", self.name, words.join(" "));
        ensure(exit.success(), || format!("{}: {}", what(), exit.stderr.trim_end()))?;
        serde_json::from_str(&exit.stdout).context(what())
    }

    fn exited(&self, op: Op) -> Result<Exit> {
        match self.ask(op)? {
            Answer::Exited(exit) => Ok(exit),
            other => Err(self.unexpected(&other)),
        }
    }

    pub(crate) fn unexpected(&self, answer: &Answer) -> Error {
        Error::new(format!("{}: an answer of the wrong kind: {answer:?}", self.name))
    }

    pub(crate) fn ask(&self, op: Op) -> Result<Answer> {
        self.machine.link().call(self.id, op).context(&self.name)
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn endpoint(address: Ipv4Addr, port: u16) -> String {
    SocketAddr::from((IpAddr::from(address), port)).to_string()
}

/// Reads busybox ping's last lines:
/// `3 packets transmitted, 3 packets received, 0% packet loss` and
/// `round-trip min/avg/max = 0.1/0.2/0.3 ms`.
fn parse_ping(text: &str) -> Option<Ping> {
    let counts = text.lines().find(|line| line.contains("packets transmitted"))?;
    let mut numbers = counts.split(", ").map(|part| part.split(' ').next()?.parse().ok());
    let sent = numbers.next()??;
    let received = numbers.next()??;
    let average = |line: &str| line.split('=').nth(1)?.split('/').nth(1)?.parse().ok();
    let millis = text.lines().find(|line| line.contains("min/avg/max")).and_then(average);
    Some(Ping { sent, received, millis })
}

/// `64 bytes from 1.2.3.4: seq=0 ttl=63 time=0.512 ms`
fn round_trip(line: &str) -> Option<f64> {
    line.split_once("time=")?.1.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ping_is_read_with_and_without_replies() {
        let good = "3 packets transmitted, 2 packets received, 33% packet loss\n\
                    round-trip min/avg/max = 0.100/0.250/0.400 ms\n";
        assert_eq!(parse_ping(good), Some(Ping { sent: 3, received: 2, millis: Some(0.25) }));
        let none = "1 packets transmitted, 0 packets received, 100% packet loss\n";
        assert_eq!(parse_ping(none), Some(Ping { sent: 1, received: 0, millis: None }));
        assert_eq!(parse_ping("ping: sendto: Network unreachable"), None);
        assert_eq!(round_trip("64 bytes from 1.2.3.4: seq=0 ttl=63 time=0.512 ms"), Some(0.512));
        assert_eq!(round_trip("PING 1.2.3.4 (1.2.3.4): 56 data bytes"), None);
    }
}
