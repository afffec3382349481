//! Tidegate's own life: memory sizes it boots in, and the ways it is asked to end.
//!
//! A second firewall, the spare, is created beside the first; a client moves there and back.

use super::Where::Tidegate;
use super::devices::move_to;
use super::traffic::fetch;
use super::{Scenario, same, scenario};
use crate::config::{Config, Vif};
use crate::domain::{DEADLINE, Domain};
use crate::error::Result;
use crate::plan::{FIREWALL, WORK};
use crate::world::World;
use std::net::Ipv4Addr;

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("16-mib-poweroff", "boots in 16 MiB, `xl shutdown` ends it", Tidegate, poweroff),
    scenario("32-mib-halt", "boots in 32 MiB, control/shutdown=halt ends it", Tidegate, halt),
    scenario("512-mib-reboot", "boots in 512 MiB, `xl reboot` starts it again", Tidegate, reboot),
];

pub(super) const SPARE: &str = "spare";
pub(super) const SPARE_IP: Ipv4Addr = Ipv4Addr::new(10, 137, 255, 3);

fn poweroff(world: &mut World) -> Result<()> {
    let spare = serve_from(world, 16)?;
    world.xen.xl(&["shutdown", "-w", SPARE])?;
    world.xen.wait_gone(&spare, DEADLINE)
}

fn halt(world: &mut World) -> Result<()> {
    let spare = serve_from(world, 32)?;
    world.xen.write(&format!("/local/domain/{}/control/shutdown", spare.id), "halt")?;
    world.xen.wait_gone(&spare, DEADLINE)
}

fn reboot(world: &mut World) -> Result<()> {
    let spare = serve_from(world, 512)?;
    world.xen.xl(&["reboot", SPARE])?;
    world.xen.wait_gone(&spare, DEADLINE)?;
    // xl's own process for this domain creates it anew, with the next number.
    let again = format!("/local/domain/{}/name", spare.id + 1);
    world.xen.wait_for(&again, SPARE, DEADLINE)?;
    let spare = world.xen.find(SPARE)?;
    world.wait_uplink(&spare)?;
    world.xen.destroy(SPARE)?;
    world.xen.wait_gone(&spare, DEADLINE)
}

/// Creates the spare with this much memory, lets a client work through it, and takes the client back.
fn serve_from(world: &World, memory: u32) -> Result<Domain> {
    let spare = create_spare(world, memory)?;
    let there = Vif { backend: Some(SPARE.into()), ..world.client_vif(WORK) };
    move_to(world, WORK, &there)?;
    let served = fetch(&world.client(WORK)?, 1_000_000);
    move_to(world, WORK, &world.client_vif(WORK))?;
    served?;
    Ok(spare)
}

/// How a spare with this much memory is created.
pub(super) fn spare_config(world: &World, memory: u32) -> Config {
    let base = world.firewall_config();
    let uplink =
        Vif { backend: None, mac: "00:16:3e:5e:6c:03".into(), ip: SPARE_IP, untrusted: false };
    let extra = base.extra.replace(&FIREWALL.to_string(), &SPARE_IP.to_string());
    Config { name: SPARE.into(), memory, extra, vifs: vec![uplink], ..base }
}

/// Creates the spare with this much memory and waits for its uplink.
pub(super) fn create_spare(world: &World, memory: u32) -> Result<Domain> {
    let spare = world.xen.create(&spare_config(world, memory))?;
    world.wait_uplink(&spare)?;
    same("its memory", &world.xen.usage_of(SPARE)?.memory, &memory)?;
    Ok(spare)
}
