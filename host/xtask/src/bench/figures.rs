//! What is measured on one firewall in one round.
//!
//! In: a world with that firewall and its client. Out: figures by name. Rates are taken at the
//! receiver; processor time is the hypervisor's own account, to the nanosecond.

use rig::plan::{DISCARD, SERVER, WORK};
use rig::{Domain, Error, FIREWALL, Firewall, Load, Report, Result, Way, World, ensure, step};
use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

/// Echo requests of one measurement.
const PINGS: u32 = 100;
/// Seconds without traffic.
const IDLE: u32 = 3;
/// Seconds without traffic in which wake-ups are counted: some come every few seconds only.
const COUNTED: u32 = 10;
/// Seconds of load under which pings are sent: longer than they take.
const LOADED: u32 = 5;
/// The server that accepts and closes.
const CLOSER: u16 = 9;
const DATAGRAM_FRAME: u32 = 64;

/// A figure's name; the order is that of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    /// Mbit/s at the receiver.
    Tcp(Way, u32),
    /// CPU seconds for 10^9 bytes.
    PerGb(Whose, Way, u32),
    /// Datagrams in frames of 64 bytes that arrived, in a second.
    Datagrams,
    /// Of those that the load guest's ring took, in percent.
    DatagramsLost,
    /// CPU microseconds for a datagram that arrived.
    PerDatagram(Whose),
    /// TCP connections opened in a second.
    Connections,
    /// CPU microseconds of the firewall for a connection opened and closed.
    FirewallPerConnection,
    /// Milliseconds; half of all pings are faster.
    PingAlone,
    /// Milliseconds; 99 of 100 pings are faster.
    PingAloneSlow,
    /// As [`Figure::PingAlone`], under 16 streams.
    PingLoaded,
    /// As [`Figure::PingAloneSlow`], under 16 streams.
    PingLoadedSlow,
    /// CPU milliseconds of the firewall in a second without traffic.
    IdleCpu,
    /// How often the firewall is woken up in a second without traffic.
    WakeUps,
    /// MiB.
    Memory,
    /// Seconds from `xl unpause` to the first ping that is answered through it.
    FirstPing,
    /// Seconds from `xl network-attach` of the uplink to the first ping that is answered through it.
    UplinkBack,
}

/// Whose processor time a figure is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whose {
    /// What stands between the client and the uplink.
    Firewall,
    /// Who makes the load: a Linux client, or the load guest.
    Client,
    /// The domain that serves the uplink, and the servers in it.
    Uplink,
    /// Everybody's.
    All,
}

impl Whose {
    const fn name(self) -> &'static str {
        match self {
            Self::Firewall => "firewall",
            Self::Client => "client",
            Self::Uplink => "uplink's domain",
            Self::All => "all domains",
        }
    }
}

impl Figure {
    /// Whether it is the processor time of the firewall for something carried.
    pub(crate) const fn is_cost_of_firewall(self) -> bool {
        matches!(
            self,
            Self::PerGb(Whose::Firewall, ..)
                | Self::PerDatagram(Whose::Firewall)
                | Self::FirewallPerConnection
        )
    }

    /// For people, unit included.
    pub(crate) fn title(self) -> String {
        let tcp = |way, streams: u32| {
            let way = if way == Way::Up { "up" } else { "down" };
            format!("TCP {way}, {streams} stream{}", if streams == 1 { "" } else { "s" })
        };
        match self {
            Self::Tcp(way, n) => format!("{}, Mbit/s", tcp(way, n)),
            Self::PerGb(whose, way, n) => format!("{}: {}, CPU s/GB", tcp(way, n), whose.name()),
            Self::Datagrams => "64-byte UDP delivered, 1/s".into(),
            Self::DatagramsLost => "64-byte UDP lost, %".into(),
            Self::PerDatagram(whose) => format!("64-byte UDP: {}, CPU µs each", whose.name()),
            Self::Connections => "new TCP connections, 1/s".into(),
            Self::FirewallPerConnection => "new TCP connection: firewall, CPU µs each".into(),
            Self::PingAlone => "ping alone, p50, ms".into(),
            Self::PingAloneSlow => "ping alone, p99, ms".into(),
            Self::PingLoaded => "ping under 16 streams, p50, ms".into(),
            Self::PingLoadedSlow => "ping under 16 streams, p99, ms".into(),
            Self::IdleCpu => "idle: firewall, CPU ms/s".into(),
            Self::WakeUps => "idle: firewall, wake-ups, 1/s".into(),
            Self::Memory => "memory, MiB".into(),
            Self::FirstPing => "unpause to first forwarded ping, s".into(),
            Self::UplinkBack => "uplink attached again to first forwarded ping, s".into(),
        }
    }
}

/// Figures of one firewall in one round.
pub(crate) type Figures = BTreeMap<Figure, f64>;

/// Loads that can be run alone, as for a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Job {
    /// TCP from the client
    Up,
    /// TCP to the client
    Down,
    /// 64-byte UDP of the load guest
    Udp,
    /// New TCP connections of the load guest
    Connect,
}

/// Makes what the loads need in the uplink's domain, once in a boot.
pub(crate) fn prepare(world: &World) -> Result<()> {
    world.xen.dom0.sh(&format!("/bin/ip route add blackhole {DISCARD}/32"))?;
    world.xen.dom0.serve("tcp-close", SERVER, CLOSER).map(drop)
}

/// Everything, on a world whose firewall and client have just been started.
pub(crate) fn all(world: &World, seconds: u32) -> Result<Figures> {
    let mut figures = Figures::new();
    step("ping", || latency(world, &mut figures))?;
    for way in [Way::Up, Way::Down] {
        for streams in [1, 16] {
            let what = Figure::Tcp(way, streams).title();
            step(&what, || tcp(world, way, streams, seconds, &mut figures))?;
        }
    }
    let mut load = step("start the load guest", || Load::start(world))?;
    step("datagrams", || datagrams(world, &mut load, seconds, &mut figures))?;
    step("connections", || connections(world, &mut load, seconds, &mut figures))?;
    if guarded(world) {
        let usage = world.xen.usage_of(FIREWALL)?;
        figures.insert(Figure::Memory, f64::from(usage.memory));
    }
    Ok(figures)
}

/// Runs one load; TCP is of so many streams.
pub(crate) fn job(world: &World, job: Job, streams: u32, seconds: u32) -> Result<Figures> {
    let mut figures = Figures::new();
    match job {
        Job::Up => tcp(world, Way::Up, streams, seconds, &mut figures)?,
        Job::Down => tcp(world, Way::Down, streams, seconds, &mut figures)?,
        Job::Udp => datagrams(world, &mut Load::start(world)?, seconds, &mut figures)?,
        Job::Connect => connections(world, &mut Load::start(world)?, seconds, &mut figures)?,
    }
    Ok(figures)
}

/// All in one line.
pub(crate) fn line(figures: &Figures) -> String {
    let each = figures.iter().map(|(name, value)| format!("{}: {value:.2}", name.title()));
    each.collect::<Vec<_>>().join("; ")
}

fn guarded(world: &World) -> bool {
    !matches!(world.firewall, Firewall::None)
}

/// Processor time that some work cost each domain, by its number.
struct Cost(BTreeMap<u16, Duration>);

impl Cost {
    /// Seconds that whoever is meant used while `client` made the load; `None` if there is none.
    fn of(&self, world: &World, client: &Domain, whose: Whose) -> Result<Option<f64>> {
        let id = match whose {
            Whose::Firewall if !guarded(world) => return Ok(None),
            Whose::Firewall => world.fw()?.id,
            Whose::Client => client.id,
            Whose::Uplink => world.xen.dom0.id,
            Whose::All => return Ok(Some(self.0.values().sum::<Duration>().as_secs_f64())),
        };
        Ok(self.0.get(&id).map(Duration::as_secs_f64))
    }

    /// Enters what each of them used, by the amount of work done.
    fn enter(
        &self,
        (world, client): (&World, &Domain),
        figures: &mut Figures,
        amount: f64,
        name: impl Fn(Whose) -> Figure,
    ) -> Result<()> {
        for whose in [Whose::Firewall, Whose::Client, Whose::Uplink, Whose::All] {
            if let Some(seconds) = self.of(world, client, whose)? {
                figures.insert(name(whose), seconds / amount);
            }
        }
        Ok(())
    }
}

fn cost<T>(world: &World, work: impl FnOnce() -> Result<T>) -> Result<(T, Cost)> {
    let before = world.xen.cpu_times()?;
    let done = work()?;
    let used = |(id, time): (u16, Duration)| {
        (id, time.saturating_sub(before.get(&id).copied().unwrap_or_default()))
    };
    Ok((done, Cost(world.xen.cpu_times()?.into_iter().map(used).collect())))
}

fn tcp(world: &World, way: Way, streams: u32, seconds: u32, figures: &mut Figures) -> Result<()> {
    let work = world.client(WORK)?;
    let (bits, cost) = cost(world, || work.iperf_streams(SERVER, way, streams, seconds))?;
    let gigabytes = bits * f64::from(seconds) / 8e9;
    figures.insert(Figure::Tcp(way, streams), bits / 1e6);
    cost.enter((world, &work), figures, gigabytes, |whose| Figure::PerGb(whose, way, streams))
}

fn datagrams(world: &World, load: &mut Load, seconds: u32, figures: &mut Figures) -> Result<()> {
    let vif = if guarded(world) { world.fw()?.id } else { load.domain.id };
    let counter = format!("/sys/class/net/vif{vif}.0/statistics/rx_packets");
    let delivered = || -> Result<f64> {
        let text = world.xen.dom0.read_file(&counter, 0)?;
        text.trim().parse().map_err(|e| Error::new(format!("{counter}: {e}")))
    };
    let before = delivered()?;
    let words = format!("do=udp to={DISCARD}:9 frame={DATAGRAM_FRAME}");
    let (report, cost) = cost(world, || load.run(world, &words, seconds))?;
    let arrived = delivered()? - before;
    ensure(arrived > 0.0, || format!("no datagram arrived: {report:?}"))?;
    figures.insert(Figure::Datagrams, arrived / of_a_second(&report));
    figures.insert(Figure::DatagramsLost, (100.0 * (1.0 - arrived / report.sent as f64)).max(0.0));
    cost.enter((world, &load.domain), figures, arrived / 1e6, Figure::PerDatagram)
}

fn connections(world: &World, load: &mut Load, seconds: u32, figures: &mut Figures) -> Result<()> {
    let words = format!("do=connect to={SERVER}:{CLOSER}");
    let (report, cost) = cost(world, || load.run(world, &words, seconds))?;
    ensure(report.opened > 0, || format!("no connection opened: {report:?}"))?;
    let opened = report.opened as f64;
    figures.insert(Figure::Connections, opened / of_a_second(&report));
    if let Some(firewall) = cost.of(world, &load.domain, Whose::Firewall)? {
        figures.insert(Figure::FirewallPerConnection, firewall * 1e6 / opened);
    }
    Ok(())
}

fn of_a_second(report: &Report) -> f64 {
    report.micros as f64 / 1e6
}

fn latency(world: &World, figures: &mut Figures) -> Result<()> {
    let work = world.client(WORK)?;
    // The first packet of a flow is another thing than its latency.
    work.round_trips(SERVER, 3)?;
    let ((), idle) = cost(world, || world.xen.dom0.sh(&format!("sleep {IDLE}")).map(drop))?;
    if let Some(firewall) = idle.of(world, &work, Whose::Firewall)? {
        figures.insert(Figure::IdleCpu, firewall * 1e3 / f64::from(IDLE));
        // Counting costs a little of the firewall's time: it is done apart.
        let woken = world.xen.wake_ups(COUNTED)?.get(&world.fw()?.id).copied().unwrap_or(0);
        figures.insert(Figure::WakeUps, woken as f64 / f64::from(COUNTED));
    }
    let alone = work.round_trips(SERVER, PINGS)?;
    insert(figures, alone, Figure::PingAlone, Figure::PingAloneSlow)?;
    let loaded = thread::scope(|scope| {
        // What it carries is measured elsewhere.
        let streams = scope.spawn(|| work.iperf_streams(SERVER, Way::Up, 16, LOADED));
        let pings = work.round_trips(SERVER, PINGS);
        let broke = |_| Err(Error::new("iperf's thread broke"));
        streams.join().unwrap_or_else(broke).and(pings)
    })?;
    insert(figures, loaded, Figure::PingLoaded, Figure::PingLoadedSlow)
}

fn insert(figures: &mut Figures, mut trips: Vec<f64>, half: Figure, slow: Figure) -> Result<()> {
    trips.sort_by(f64::total_cmp);
    let at = |share: f64| trips.get((trips.len() as f64 * share) as usize).copied();
    let none = || Error::new("no ping was answered");
    figures.insert(half, at(0.5).ok_or_else(none)?);
    figures.insert(slow, at(0.99).ok_or_else(none)?);
    Ok(())
}
