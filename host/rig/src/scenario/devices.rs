//! Interfaces that come, go, and break in the middle.

use super::Where::{Everywhere, Full};
use super::traffic::fetch;
use super::{Scenario, scenario};
use crate::config::Vif;
use crate::domain::{DEADLINE, Domain};
use crate::error::{Context as _, Result};
use crate::plan::{self, Client, PERSONAL, SERVER, WORK};
use crate::world::{self, World};
use agent::Condition;

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("detach-attach", "a client's interface goes and comes back", Everywhere, reattach),
    scenario("destroyed", "a client that dies in mid-transfer harms nobody", Everywhere, destroyed),
    scenario("uplink-again", "the uplink goes and comes back", Everywhere, uplink),
    scenario("paused", "a pause of the firewall is survived", Full, paused),
];

fn reattach(world: &mut World) -> Result<()> {
    let vif = world.client_vif(WORK);
    for _ in 0..2 {
        move_to(world, WORK, &vif)?;
        fetch(&world.client(WORK)?, 200_000)?;
    }
    Ok(())
}

/// Takes a client's interface away and gives it another one.
pub(super) fn move_to(world: &World, client: Client, vif: &Vif) -> Result<()> {
    let domain = world.client(client)?;
    let front = format!("/local/domain/{}/device/vif/0", domain.id);
    let back = world.xen.read(&format!("{front}/backend"))?;
    world.xen.network_detach(client.name, 0)?;
    let eth0 = "/sys/class/net/eth0".to_owned();
    domain.wait(Condition::Absent { path: eth0 }, DEADLINE)?;
    let path = format!("{back}/state");
    world.xen.dom0.wait(Condition::XsGone { path }, DEADLINE).context("the old backend")?;
    world.xen.network_attach(client.name, vif)?;
    domain.sh("client-up")?;
    world.wait_network(&domain, 0)
}

fn destroyed(world: &mut World) -> Result<()> {
    let dom0 = world.xen.dom0.clone();
    dom0.spawn("iperf3-victim", &["iperf3", "-s", "-p", "5202", "--forceflush"])?;
    dom0.wait(Condition::Listening { port: 5202, udp: false }, DEADLINE)?;
    let result = destroy_midway(world, &dom0);
    dom0.stop("iperf3-victim")?;
    result?;
    fetch(&world.client(WORK)?, 500_000).context("the other client")?;
    world.start_client(PERSONAL)?;
    fetch(&world.client(PERSONAL)?, 500_000).context("the client, anew")
}

fn destroy_midway(world: &mut World, dom0: &Domain) -> Result<()> {
    let victim = world.client(PERSONAL)?;
    let server = SERVER.to_string();
    victim.spawn("iperf3", &["iperf3", "-c", &server, "-p", "5202", "-t", "600", "-R"])?;
    let moving = Condition::FileHas {
        path: "/run/iperf3-victim.log".into(),
        offset: 0,
        text: "bits/sec".into(),
    };
    dom0.wait(moving, DEADLINE)?;
    world.destroy_client(PERSONAL)
}

fn uplink(world: &mut World) -> Result<()> {
    let fw = world.fw()?;
    let Some(vif) = world.firewall_config().vifs.into_iter().next() else { return Ok(()) };
    world.xen.network_detach(world::FIREWALL, 0)?;
    world.xen.network_attach(world::FIREWALL, &vif)?;
    world.wait_uplink(&fw)?;
    if matches!(world.firewall, crate::Firewall::Linux) {
        fw.sh("client-up")?; // Linux has to be told its address again
    }
    fetch(&world.client(WORK)?, 500_000)?;
    super::same("ping", &world.client(PERSONAL)?.ping(plan::SERVER, 3)?.received, &3)
}

fn paused(world: &mut World) -> Result<()> {
    world.xen.pause(world::FIREWALL)?;
    let lost = world.client(WORK)?.connect_unanswered(SERVER, 80);
    world.xen.unpause(world::FIREWALL)?;
    lost?;
    fetch(&world.client(WORK)?, 200_000)
}
