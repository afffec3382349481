//! The load guest (`src/load`): our own netfront as a client, which is not itself what is measured.
//!
//! In: a world, and jobs in words. Out: what the guest says it sent and received.

use crate::config::{Config, Mode};
use crate::domain::{DEADLINE, Domain};
use crate::error::{Context as _, Error, Result};
use crate::plan::LOAD;
use crate::world::World;
use serde::Deserialize;
use std::time::Duration;

/// A running load guest.
pub struct Load {
    /// Its domain, without an agent in it.
    pub domain: Domain,
    jobs: u32,
}

/// What came of a job.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    /// How long it sent, in microseconds.
    pub micros: u64,
    /// Frames its ring took.
    pub sent: u64,
    /// Frames that came.
    pub received: u64,
    /// Connections that were accepted.
    pub opened: u64,
    /// Connections that were closed by both ends.
    pub closed: u64,
    /// Connections that were given up.
    pub lost: u64,
}

impl Load {
    /// Creates the guest, whose kernel must be among [`crate::Layout::guests`], and waits until its
    /// interface is connected.
    ///
    /// # Errors
    /// When it is not, in time.
    pub fn start(world: &World) -> Result<Self> {
        let config = Config {
            name: LOAD.name.into(),
            mode: Mode::Pv,
            kernel: format!("/guest/{}", LOAD.name),
            ramdisk: None,
            extra: format!("ip={}", LOAD.ip),
            memory: 16,
            vifs: vec![world.client_vif(LOAD)],
            driver_domain: false,
        };
        let mark = world.xen.console_mark(LOAD.name);
        let domain = world.xen.create(&config)?;
        world.xen.wait_console(LOAD.name, mark, "load: up", DEADLINE)?;
        Ok(Self { domain, jobs: 0 })
    }

    /// Gives the guest a job, such as `do=udp to=198.51.100.9:9`, and waits for its report.
    ///
    /// # Errors
    /// When it does not report in time, or not in words that are known.
    pub fn run(&mut self, world: &World, job: &str, seconds: u32) -> Result<Report> {
        self.jobs += 1;
        let mark = world.xen.console_mark(LOAD.name);
        let node = format!("/local/domain/{}/data/load", self.domain.id);
        world.xen.write(&node, &format!("id={} seconds={seconds} {job}", self.jobs))?;
        let start = format!("load: {{\"id\":{},", self.jobs);
        let deadline = DEADLINE + Duration::from_secs(u64::from(seconds));
        world.xen.wait_console(LOAD.name, mark, &format!("{start}\"micros\""), deadline)?;
        let console = world.xen.console(LOAD.name);
        let line = console.lines().rfind(|line| line.contains(&start));
        let json = line.and_then(|line| line.split_once("load: ")).map(|(_, json)| json);
        let json = json.ok_or_else(|| Error::new(format!("no report of {job}")))?;
        serde_json::from_str(json).context(json)
    }
}
