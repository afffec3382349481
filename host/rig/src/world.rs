//! The whole topology: sys-net in dom0, a firewall of some kind, clients behind it.

use crate::config::{Config, Mode, Vif};
use crate::domain::Domain;
use crate::error::{Context as _, Error, Result};
use crate::host::{Layout, step};
use crate::image;
use crate::machine::{Machine, Options};
use crate::plan::{self, Client};
use crate::xen::Xen;
use agent::Condition;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Name of the firewall's domain, whichever kind it is.
pub const FIREWALL: &str = "fw";

/// What a Linux guest needs to its agent's first answer, with much to spare.
const GUEST_BOOT: Duration = Duration::from_secs(600);

/// What a device needs to connect, with much to spare.
const CONNECT: Duration = Duration::from_secs(300);

/// What stands between sys-net and the clients.
#[derive(Debug, Clone)]
pub enum Firewall {
    /// Nothing: clients sit on dom0's backend. The ceiling for measurements.
    None,
    /// Linux with nftables, as a driver domain: what Tidegate is compared with.
    Linux,
    /// Tidegate.
    Tidegate {
        /// The kernel, on the host.
        image: PathBuf,
        /// Its command line.
        extra: String,
        /// Its memory in MiB.
        memory: u32,
    },
}

impl Firewall {
    /// Tidegate with the command line that fits the rig's network plan.
    pub fn tidegate(image: PathBuf, memory: u32) -> Self {
        let [first, second] = plan::VIRTUAL_DNS;
        let extra = format!(
            "ip={} gw={} dns={first},{second} dnsto={}",
            plan::FIREWALL,
            plan::SYS_NET,
            plan::RESOLVER
        );
        Self::Tidegate { image, extra, memory }
    }

    /// Memory in MiB it is given.
    pub fn memory(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Linux => 256,
            Self::Tidegate { memory, .. } => *memory,
        }
    }

    /// For headings.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "no firewall",
            Self::Linux => "Linux",
            Self::Tidegate { .. } => "Tidegate",
        }
    }
}

/// A running topology.
pub struct World {
    /// The host.
    pub xen: Xen,
    /// What the firewall is.
    pub firewall: Firewall,
    /// How the firewall is virtualised; clients are always PV.
    pub mode: Mode,
    /// From the firewall's creation to its uplink being connected, last time.
    pub firewall_boot: Duration,
    clients: Vec<(Client, Domain)>,
}

impl World {
    /// Boots Xen, starts the internet's servers, the firewall and these clients.
    ///
    /// # Errors
    /// When any of them does not come up.
    pub fn boot(
        layout: &Layout,
        firewall: Firewall,
        mode: Mode,
        clients: &[Client],
        options: Options,
    ) -> Result<Self> {
        let mut files = guests(layout)?;
        if let Firewall::Tidegate { image, .. } = &firewall {
            files.push(("guest/tidegate".to_owned(), image.clone()));
        }
        let images = step("prepare Xen and Linux", || image::provide(layout))?;
        let machine =
            step("boot Xen and dom0", || Machine::start(layout, &images, &files, mode, options))?;
        let xen = Xen::new(machine);
        let mut world =
            Self { xen, firewall, mode, firewall_boot: Duration::ZERO, clients: Vec::new() };
        let started = world.start(clients);
        started.map_err(|e| Error::new(format!("{e}\n{}", world.last_words())))?;
        Ok(world)
    }

    fn start(&mut self, clients: &[Client]) -> Result<()> {
        step("start the internet's servers", || self.serve_internet())?;
        if !matches!(self.firewall, Firewall::None) {
            self.start_firewall()?;
        }
        clients.iter().try_for_each(|client| self.start_client(*client))
    }

    /// The firewall's domain, found by name.
    ///
    /// # Errors
    /// When it is not running.
    pub fn fw(&self) -> Result<Domain> {
        self.xen.find(FIREWALL)
    }

    /// A running client.
    ///
    /// # Errors
    /// When it was not started.
    pub fn client(&self, client: Client) -> Result<Domain> {
        let found = self.clients.iter().find(|(known, _)| *known == client);
        let missing = || Error::new(format!("client {} is not running", client.name));
        found.map(|(_, domain)| domain.clone()).ok_or_else(missing)
    }

    /// What clients use as their gateway.
    pub fn gateway(&self) -> Ipv4Addr {
        match self.firewall {
            Firewall::None => plan::SYS_NET,
            _ => plan::FIREWALL,
        }
    }

    /// How the firewall is created.
    pub fn firewall_config(&self) -> Config {
        let uplink = Vif {
            backend: None,
            mac: plan::UPLINK_MAC.into(),
            ip: plan::FIREWALL,
            untrusted: false,
        };
        let base = Config {
            name: FIREWALL.into(),
            mode: self.mode,
            kernel: "/guest/vmlinux".into(),
            ramdisk: None,
            extra: String::new(),
            memory: self.firewall.memory(),
            vifs: vec![uplink],
            driver_domain: false,
        };
        match &self.firewall {
            Firewall::Tidegate { extra, .. } => {
                Config { kernel: "/guest/tidegate".into(), extra: extra.clone(), ..base }
            }
            _ => Config {
                ramdisk: Some("/guest/initramfs".into()),
                extra: linux_words("firewall", FIREWALL, plan::FIREWALL, plan::SYS_NET),
                driver_domain: true,
                ..base
            },
        }
    }

    /// A Linux driver domain with this uplink, which forwards and translates for whom it serves.
    pub fn driver_domain(&self, name: &str, ip: Ipv4Addr, uplink: Vif) -> Config {
        Config {
            name: name.into(),
            mode: Mode::Pv,
            kernel: "/guest/vmlinux".into(),
            ramdisk: Some("/guest/initramfs".into()),
            extra: linux_words("firewall", name, ip, plan::SYS_NET),
            memory: Firewall::Linux.memory(),
            vifs: vec![uplink],
            driver_domain: true,
        }
    }

    /// How a client is created.
    pub fn client_config(&self, client: Client) -> Config {
        Config {
            name: client.name.into(),
            mode: Mode::Pv,
            kernel: "/guest/vmlinux".into(),
            ramdisk: Some("/guest/initramfs".into()),
            extra: linux_words("client", client.name, client.ip, self.gateway()),
            memory: 192,
            vifs: vec![self.client_vif(client)],
            driver_domain: false,
        }
    }

    /// A client's interface.
    pub fn client_vif(&self, client: Client) -> Vif {
        let backend = match self.firewall {
            Firewall::None => None,
            _ => Some(FIREWALL.to_owned()),
        };
        let untrusted = client == plan::UNTRUSTED;
        Vif { backend, mac: client.mac.into(), ip: client.ip, untrusted }
    }

    /// Creates the firewall and waits until its uplink is connected.
    ///
    /// # Errors
    /// When it is not, in time.
    pub fn start_firewall(&mut self) -> Result<()> {
        let what = format!("start the firewall ({}, {})", self.firewall.name(), self.mode);
        step(&what, || self.create_firewall())
    }

    fn create_firewall(&mut self) -> Result<()> {
        let mark = self.xen.console_mark(FIREWALL);
        let started = Instant::now();
        let fw = self.xen.create(&self.firewall_config())?;
        self.wait_uplink(&fw)?;
        self.firewall_boot = started.elapsed();
        if matches!(self.firewall, Firewall::Linux) {
            self.wait_linux(&fw, mark)?;
        }
        Ok(())
    }

    /// Ends every guest and starts another firewall with these clients.
    ///
    /// # Errors
    /// When one of them does not come up, or Tidegate's image was not part of the boot.
    pub fn replace_firewall(&mut self, firewall: Firewall, clients: &[Client]) -> Result<()> {
        self.clients.clear();
        for guest in self.xen.usage()?.into_iter().filter(|usage| usage.id != agent::DOM0) {
            let domain = self.xen.find(&guest.name)?;
            self.xen.destroy(&guest.name)?;
            self.xen.wait_gone(&domain, CONNECT)?;
        }
        self.firewall = firewall;
        if !matches!(self.firewall, Firewall::None) {
            self.start_firewall()?;
        }
        clients.iter().try_for_each(|client| self.start_client(*client))
    }

    /// From `xl unpause` of a firewall to its client's first ping that is answered from beyond it.
    /// The client is up before; its interface waits for the paused firewall to take it.
    ///
    /// # Errors
    /// When no ping is ever answered.
    pub fn first_ping(&mut self, firewall: Firewall) -> Result<Duration> {
        self.replace_firewall(firewall, &[])?;
        self.xen.destroy(FIREWALL)?;
        let client = plan::WORK;
        let mark = self.xen.console_mark(client.name);
        let bare = Config { vifs: vec![], ..self.client_config(client) };
        let domain = self.xen.create(&bare)?;
        self.wait_linux(&domain, mark)?;
        let fw = self.xen.create_paused(&self.firewall_config())?;
        let vif = self.client_vif(client);
        begin_pinging(&domain)?;
        self.xen.plug(&domain, &fw, &vif)?;
        let started = Instant::now();
        self.xen.unpause_beside(FIREWALL)?;
        domain.wait(Condition::Exists { path: ANSWERED.into() }, GUEST_BOOT)?;
        Ok(started.elapsed())
    }

    /// From `xl network-attach` of the uplink, which was away, to a client's first ping that is answered
    /// from beyond it. Of Tidegate: a Linux firewall has to be told its address there by somebody.
    ///
    /// # Errors
    /// When no ping is ever answered.
    pub fn uplink_back(&self) -> Result<Duration> {
        let client = self.client(plan::WORK)?;
        let vif = self.firewall_config().vifs.into_iter().next();
        let vif = vif.ok_or_else(|| Error::new("the firewall has no uplink"))?;
        self.xen.network_detach(FIREWALL, 0)?;
        begin_pinging(&client)?;
        let started = Instant::now();
        self.xen.network_attach(FIREWALL, &vif)?;
        client.wait(Condition::Exists { path: ANSWERED.into() }, CONNECT)?;
        Ok(started.elapsed())
    }

    /// Waits until the firewall's first uplink interface is connected on both sides.
    ///
    /// # Errors
    /// At the deadline.
    pub fn wait_uplink(&self, fw: &Domain) -> Result<()> {
        let path = format!("/local/domain/0/backend/vif/{}/0/state", fw.id);
        self.xen.wait_for(&path, "4", CONNECT).context("the firewall's uplink")
    }

    /// Creates a client and waits until it has its network.
    ///
    /// # Errors
    /// When it has not, in time.
    pub fn start_client(&mut self, client: Client) -> Result<()> {
        step(&format!("start client {}", client.name), || self.create_client(client))
    }

    fn create_client(&mut self, client: Client) -> Result<()> {
        let mark = self.xen.console_mark(client.name);
        let domain = self.xen.create(&self.client_config(client))?;
        self.wait_linux(&domain, mark)?;
        self.wait_network(&domain, 0)?;
        self.clients.retain(|(known, _)| *known != client);
        self.clients.push((client, domain));
        Ok(())
    }

    /// Destroys a client.
    ///
    /// # Errors
    /// When `xl` fails or the domain stays.
    pub fn destroy_client(&mut self, client: Client) -> Result<()> {
        let domain = self.client(client)?;
        self.clients.retain(|(known, _)| *known != client);
        step(&format!("destroy client {}", client.name), || {
            self.xen.destroy(client.name)?;
            self.xen.wait_gone(&domain, CONNECT)
        })
    }

    /// Waits until a client's interface is connected and has its address.
    ///
    /// # Errors
    /// At the deadline.
    pub fn wait_network(&self, client: &Domain, handle: u32) -> Result<()> {
        let front = format!("/local/domain/{}/device/vif/{handle}", client.id);
        let back = self.xen.read(&format!("{front}/backend"))?;
        self.xen.wait_for(&format!("{back}/state"), "4", CONNECT)?;
        self.xen.wait_for(&format!("{front}/state"), "4", CONNECT)?;
        client.wait(Condition::Exists { path: "/run/network-up".into() }, CONNECT)
    }

    pub(crate) fn wait_linux(&self, domain: &Domain, mark: u64) -> Result<()> {
        let up = format!("{}: up", domain.name);
        self.xen.wait_console(&domain.name, mark, &up, GUEST_BOOT)?;
        domain.hello()
    }

    /// Everything clients may talk to. The rejected and the dropped address have a server too, so
    /// that only policy can be why nobody reaches it.
    fn serve_internet(&self) -> Result<()> {
        let dom0 = &self.xen.dom0;
        for address in [plan::SERVER, plan::REJECTED, plan::DROPPED] {
            dom0.serve("http", address, 80)?;
        }
        dom0.serve("udp-echo", plan::SERVER, 7)?;
        dom0.serve("tcp-echo", plan::SERVER, 7)?;
        dom0.serve("dns", plan::RESOLVER, 53)?;
        dom0.spawn("iperf3", &["iperf3", "-s"])?;
        dom0.wait(Condition::Listening { port: 5201, udp: false }, CONNECT)
    }

    /// What helps to understand a failure: the ends of all consoles.
    pub fn last_words(&self) -> String {
        let mut words = format!("  console of {FIREWALL}:\n");
        words += &self.xen.console_tail(FIREWALL, 30);
        words += "  hotplug script in dom0:\n";
        words += &self.xen.dom0.sh("tail -5 /var/log/xen/vif-sysnet.log").unwrap_or_default();
        words += "  Xen and dom0:\n";
        words + &self.xen.dom0.machine().console_tail(8)
    }
}

/// A client pings a server until that answers, and makes this file then.
const ANSWERED: &str = "/run/answered";

fn begin_pinging(client: &Domain) -> Result<()> {
    // Where there is no way it fails at once: the rest leaves the processor to who is starting.
    let ping = format!(
        "rm -f {ANSWERED}; until ping -c 1 -W 1 {}; do sleep 0.05; done; touch {ANSWERED}",
        plan::SERVER
    );
    client.spawn("first-ping", &["sh", "-c", &ping])
}

/// Kernels of ours for guests, with their place in dom0.
fn guests(layout: &Layout) -> Result<Vec<(String, PathBuf)>> {
    let directory = layout.guests();
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let place = |file: std::io::Result<fs::DirEntry>| {
        let file = file?;
        Ok((format!("guest/{}", file.file_name().to_string_lossy()), file.path()))
    };
    fs::read_dir(&directory).map_err(Error::file(&directory))?.map(place).collect()
}

fn linux_words(role: &str, name: &str, ip: Ipv4Addr, gateway: Ipv4Addr) -> String {
    let [first, second] = plan::VIRTUAL_DNS;
    format!(
        "console=hvc0 quiet panic=-1 tidegate.role={role} tidegate.name={name} tidegate.ip={ip} \
         tidegate.gw={gateway} tidegate.dns={first},{second}"
    )
}
