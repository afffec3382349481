//! What is measured on one firewall in one round.
//!
//! In: a world with that firewall and its client. Out: figures by name. Rates are taken at the
//! receiver; processor time is the hypervisor's own account, to the nanosecond.

use rig::plan::{DISCARD, SERVER, WORK};
use rig::{Error, FIREWALL, Firewall, Load, Report, Result, Way, World, ensure, step};
use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

/// Echo requests of one measurement.
const PINGS: u32 = 100;
/// Seconds without traffic.
const IDLE: u32 = 3;
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
    /// CPU seconds of the firewall for 10^9 bytes.
    FirewallPerGb(Way, u32),
    /// CPU seconds of all domains for 10^9 bytes.
    AllPerGb(Way, u32),
    /// Datagrams in frames of 64 bytes that arrived, in a second.
    Datagrams,
    /// Of those that the load guest's ring took, in percent.
    DatagramsLost,
    /// CPU microseconds of the firewall for a datagram that arrived.
    FirewallPerDatagram,
    /// CPU microseconds of all domains for a datagram that arrived.
    AllPerDatagram,
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
    /// MiB.
    Memory,
    /// Seconds from `xl unpause` to the first ping that is answered through it.
    FirstPing,
}

impl Figure {
    /// For people, unit included.
    pub(crate) fn title(self) -> String {
        let tcp = |way, streams: u32| {
            let way = if way == Way::Up { "up" } else { "down" };
            format!("TCP {way}, {streams} stream{}", if streams == 1 { "" } else { "s" })
        };
        match self {
            Self::Tcp(way, n) => format!("{}, Mbit/s", tcp(way, n)),
            Self::FirewallPerGb(way, n) => format!("{}: firewall, CPU s/GB", tcp(way, n)),
            Self::AllPerGb(way, n) => format!("{}: all domains, CPU s/GB", tcp(way, n)),
            Self::Datagrams => "64-byte UDP delivered, 1/s".into(),
            Self::DatagramsLost => "64-byte UDP lost, %".into(),
            Self::FirewallPerDatagram => "64-byte UDP: firewall, CPU µs each".into(),
            Self::AllPerDatagram => "64-byte UDP: all domains, CPU µs each".into(),
            Self::Connections => "new TCP connections, 1/s".into(),
            Self::FirewallPerConnection => "new TCP connection: firewall, CPU µs each".into(),
            Self::PingAlone => "ping alone, p50, ms".into(),
            Self::PingAloneSlow => "ping alone, p99, ms".into(),
            Self::PingLoaded => "ping under 16 streams, p50, ms".into(),
            Self::PingLoadedSlow => "ping under 16 streams, p99, ms".into(),
            Self::IdleCpu => "idle: firewall, CPU ms/s".into(),
            Self::Memory => "memory, MiB".into(),
            Self::FirstPing => "unpause to first forwarded ping, s".into(),
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

/// Runs one load, and says what came of it.
pub(crate) fn job(world: &World, job: Job, seconds: u32) -> Result<String> {
    let mut figures = Figures::new();
    match job {
        Job::Up => tcp(world, Way::Up, 1, seconds, &mut figures)?,
        Job::Down => tcp(world, Way::Down, 1, seconds, &mut figures)?,
        Job::Udp => datagrams(world, &mut Load::start(world)?, seconds, &mut figures)?,
        Job::Connect => connections(world, &mut Load::start(world)?, seconds, &mut figures)?,
    }
    Ok(line(&figures))
}

/// All in one line.
pub(crate) fn line(figures: &Figures) -> String {
    let each = figures.iter().map(|(name, value)| format!("{}: {value:.2}", name.title()));
    each.collect::<Vec<_>>().join("; ")
}

fn guarded(world: &World) -> bool {
    !matches!(world.firewall, Firewall::None)
}

/// Seconds of processor time that some work cost the firewall, and all domains together.
struct Cost {
    firewall: Option<f64>,
    all: f64,
}

fn cost<T>(world: &World, work: impl FnOnce() -> Result<T>) -> Result<(T, Cost)> {
    let firewall = if guarded(world) { Some(world.fw()?.id) } else { None };
    let before = world.xen.cpu_times()?;
    let done = work()?;
    let after = world.xen.cpu_times()?;
    let used = |id: &u16, time: &Duration| {
        time.saturating_sub(before.get(id).copied().unwrap_or_default()).as_secs_f64()
    };
    let all = after.iter().map(|(id, time)| used(id, time)).sum();
    let firewall = firewall.and_then(|id| after.get(&id).map(|time| used(&id, time)));
    Ok((done, Cost { firewall, all }))
}

fn tcp(world: &World, way: Way, streams: u32, seconds: u32, figures: &mut Figures) -> Result<()> {
    let work = world.client(WORK)?;
    let (bits, cost) = cost(world, || work.iperf_streams(SERVER, way, streams, seconds))?;
    let gigabytes = bits * f64::from(seconds) / 8e9;
    figures.insert(Figure::Tcp(way, streams), bits / 1e6);
    figures.insert(Figure::AllPerGb(way, streams), cost.all / gigabytes);
    if let Some(firewall) = cost.firewall {
        figures.insert(Figure::FirewallPerGb(way, streams), firewall / gigabytes);
    }
    Ok(())
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
    figures.insert(Figure::AllPerDatagram, cost.all * 1e6 / arrived);
    if let Some(firewall) = cost.firewall {
        figures.insert(Figure::FirewallPerDatagram, firewall * 1e6 / arrived);
    }
    Ok(())
}

fn connections(world: &World, load: &mut Load, seconds: u32, figures: &mut Figures) -> Result<()> {
    let words = format!("do=connect to={SERVER}:{CLOSER}");
    let (report, cost) = cost(world, || load.run(world, &words, seconds))?;
    ensure(report.opened > 0, || format!("no connection opened: {report:?}"))?;
    let opened = report.opened as f64;
    figures.insert(Figure::Connections, opened / of_a_second(&report));
    if let Some(firewall) = cost.firewall {
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
    if let Some(firewall) = idle.firewall {
        figures.insert(Figure::IdleCpu, firewall * 1e3 / f64::from(IDLE));
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
