//! A small internet in network namespaces of its own, with the firewall in the middle. Nothing of it
//! touches the machine's network, and nothing is left of it when it is dropped.
//!
//! ```text
//! work                  firewall                    isp                         server
//! 10.137.0.10  vif TAP  (in isp)  TAP wan  198.51.100.1  203.0.113.1  far eth0  203.0.113.10, .11
//! fd09::10           198.51.100.2, fd51::2      fd51::1  fd20::1                fd20::10
//!                             TAP lab  office
//!                           10.20.0.2  10.20.0.1, behind a second uplink, if that is asked for
//! ```

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const SERVER: &str = "203.0.113.10";
pub const SERVER6: &str = "fd20::10";
pub const FIREWALL: &str = "198.51.100.2";
pub const OFFICE: &str = "10.20.0.1";
pub const RESOLVER: &str = "10.139.1.1";

const NAMESPACES: [&str; 4] = ["work", "isp", "server", "office"];

/// Longest that anything may take; nothing here waits so long unless it hangs.
const DEADLINE: Duration = Duration::from_secs(40);

/// How long packets may be on each link.
#[derive(Clone, Copy)]
pub struct Mtus {
    /// Between `work` and the firewall.
    pub client: u16,
    /// Between the firewall and `isp`.
    pub uplink: u16,
    /// Between `isp` and `server`.
    pub far: u16,
}

impl Mtus {
    pub const WIDE: Self = Self { client: 1500, uplink: 1500, far: 1500 };
}

/// A program that is ended with the test.
pub struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct World {
    id: String,
    daemons: Vec<Daemon>,
}

impl World {
    /// A world in which `work` can reach `server` through the firewall.
    pub fn new(mtus: Mtus) -> Self {
        Self::with_policy(mtus, concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/open.tide"))
    }

    /// A world whose firewall obeys the policy in this file.
    pub fn with_policy(mtus: Mtus, policy: &str) -> Self {
        Self::build(mtus, policy, false)
    }

    /// The same with a second uplink, which leads to `office`.
    pub fn with_office(policy: &str) -> Self {
        Self::build(Mtus::WIDE, policy, true)
    }

    fn build(mtus: Mtus, policy: &str, office: bool) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut world = Self { id: format!("tg{}-{count}", std::process::id()), daemons: vec![] };
        for name in NAMESPACES {
            ip(&format!("netns add {}", world.ns(name)));
        }
        let (work, isp, server) = (world.ns("work"), world.ns("isp"), world.ns("server"));
        for (tap, mtu) in [("wan", mtus.uplink), ("vif", mtus.client), ("lab", 1500)] {
            ip(&format!("-n {isp} tuntap add dev {tap} mode tap vnet_hdr"));
            ip(&format!("-n {isp} link set {tap} mtu {mtu}"));
        }
        ip(&format!(
            "-n {isp} link add far mtu {0} type veth peer name eth0 mtu {0} netns {server}",
            mtus.far
        ));
        world.exec("isp", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        world.plug("isp", "wan", &["198.51.100.1/24", "fd51::1/64"]);
        world.plug("isp", "far", &["203.0.113.1/24", "fd20::1/64"]);
        world.plug("server", "eth0", &["203.0.113.10/24", "203.0.113.11/24", "fd20::10/64"]);
        let mut lines = world.start_firewall(policy, office);
        // The firewall holds the TAPs, wherever their interfaces are.
        ip(&format!("-n {isp} link set vif netns {work}"));
        if office {
            ip(&format!("-n {isp} link set lab netns {}", world.ns("office")));
            world.plug("office", "lab", &["10.20.0.1/24"]);
        }
        let hops = lines.by_ref().map_while(Result::ok).filter(|line| line.starts_with("next hop"));
        assert_eq!(hops.take(2 + usize::from(office)).count(), 2 + usize::from(office));
        // What it says is read, or it would stand still in the end.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                println!("firewall: {line}");
            }
        });
        world.plug("work", "vif", &["10.137.0.10/24", "fd09::10/64"]);
        for (name, gateways) in
            [("work", ["10.137.0.1", "fd09::1"]), ("server", ["203.0.113.1", "fd20::1"])]
        {
            for gateway in gateways {
                ip(&format!("-n {} route add default via {gateway}", world.ns(name)));
            }
        }
        world
    }

    /// Gives a device its addresses and brings it up.
    fn plug(&self, name: &str, device: &str, addrs: &[&str]) {
        let ns = self.ns(name);
        for addr in addrs {
            let nodad = if addr.contains(':') { "nodad" } else { "" };
            ip(&format!("-n {ns} address add {addr} dev {device} {nodad}"));
        }
        ip(&format!("-n {ns} link set {device} up"));
    }

    /// Starts it, and returns when it has its TAPs; what it says from then on.
    fn start_firewall(&mut self, policy: &str, office: bool) -> Lines<BufReader<ChildStdout>> {
        let second: &[&str] = match office {
            true => &["--uplink", "lab", "ip.1=10.20.0.2/24", "gw.1=10.20.0.1"],
            false => &[],
        };
        let mut child = self
            .command("isp", env!("CARGO_BIN_EXE_tidegate"))
            .args([
                "run",
                "--policy",
                policy,
                "--uplink",
                "wan",
                "--client",
                "vif=10.137.0.10,fd09::10",
            ])
            .args(["ip=198.51.100.2/24", "gw=198.51.100.1", "ip6=fd51::2/64", "gw6=fd51::1"])
            .args(["dns=10.139.1.1", "dnsto=203.0.113.10"])
            .args(second)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        self.daemons.push(Daemon(child));
        let up = lines.by_ref().map_while(Result::ok).any(|line| line.starts_with("vif up"));
        assert!(up, "the firewall ended");
        lines
    }

    /// The name of the namespace that is `name` here.
    fn ns(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    fn command(&self, name: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.ns(name), program]);
        command
    }

    /// Runs a program in a namespace, and gives what it said.
    pub fn run(&self, name: &str, words: &str) -> Output {
        self.spawn(name, words).wait_with_output().unwrap()
    }

    /// The same, while others run.
    pub fn spawn(&self, name: &str, words: &str) -> Child {
        self.command(name, "timeout")
            .arg(DEADLINE.as_secs().to_string())
            .args(words.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs a program that has to succeed.
    pub fn exec(&self, name: &str, words: &str) -> String {
        succeeded(words, self.run(name, words))
    }

    /// Starts a server in a namespace and waits until it listens on `port`.
    pub fn serve(&mut self, words: &str, port: u16) {
        let mut words_of = words.split_whitespace();
        let program = words_of.next().unwrap();
        let child = self
            .command("server", program)
            .args(words_of)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.daemons.push(Daemon(child));
        let listens = || self.exec("server", "ss -Hlntu").contains(&format!(":{port} "));
        wait(&format!("{program} listening on {port}"), listens);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.daemons.clear();
        for name in NAMESPACES {
            let _ = Command::new("ip").args(["netns", "del", &self.ns(name)]).status();
        }
    }
}

/// Waits for something that is named.
pub fn wait(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is() {
        assert!(Instant::now() < end, "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a program said that had to succeed.
pub fn succeeded(words: &str, output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {}\n{said}{wrong}", output.status);
    said
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    succeeded(&format!("ip {words}"), output);
}
