//! `tidegate run`: the firewall itself, between TAP devices of this machine.

use crate::{Unusable, count, read, tell, unusable};
use hosted::{Client, Plan};
use std::net::IpAddr;
use std::path::Path;
use tidegate::config::Settings;

pub(crate) const EXAMPLES: &str = "\
Examples:
  tidegate run --policy examples/open.tide --uplink tg0 --client tg1=10.137.0.10 \\
      ip=192.0.2.2/24 gw=192.0.2.1
  tidegate run --policy my.tide --uplink tg0 --client tg1=10.137.0.10,fd09::a --client tg2=10.137.0.11 \\
      ip=192.0.2.2/24 gw=192.0.2.1 ip6=fd00::2/64 gw6=fd00::1 dns=10.139.1.1 dnsto=192.0.2.1 log=all
  tidegate run --policy examples/two-uplinks.tide --uplink tg0 --uplink tg9 --client tg1=10.137.0.10 \\
      ip=192.0.2.2/24 gw=192.0.2.1 ip.1=10.20.0.2/24 gw.1=10.20.0.1

The machine's own end of a TAP, here one in a namespace that is the client:
  ip netns add work && ip link set tg1 netns work
  ip -n work address add 10.137.0.10/24 dev tg1 && ip -n work link set tg1 up
  ip -n work route add default via 10.137.0.1";

/// Reads `tap=ADDR[,ADDR]`.
pub(crate) fn client(text: &str) -> Result<Client, String> {
    let (tap, addrs) = text.split_once('=').ok_or("an address is missing: TAP=ADDR[,ADDR]")?;
    let addr = |addr: &str| addr.parse::<IpAddr>().map_err(|_| format!("{addr} is no address"));
    Ok(Client { tap: tap.to_owned(), addrs: addrs.split(',').map(addr).collect::<Result<_, _>>()? })
}

/// Runs the firewall with the policy in `file`; returns only if it cannot run.
pub(crate) fn run(
    file: &Path,
    uplinks: Vec<String>,
    clients: Vec<Client>,
    words: &str,
) -> Result<bool, Unusable> {
    let settings = match Settings::parse(words) {
        Ok(settings) => settings,
        Err(mistake) => {
            eprintln!("error: {mistake}");
            return Ok(false);
        }
    };
    let name = file.to_string_lossy();
    let policy = match lang::compile(&name, &read(file)?) {
        Ok(compiled) => compiled.policy,
        Err(mistakes) => {
            tell(&mistakes);
            eprintln!("{name}: {}, not run", count(mistakes.len(), "mistake"));
            return Ok(false);
        }
    };
    println!("policy {}: {}", policy.name(), policy.digest());
    let plan = Plan { uplinks, clients, config: settings.firewall(Some(policy)) };
    match hosted::run(plan, |line| println!("{line}")) {
        Ok(never) => match never {},
        Err(error) => Err(unusable(Path::new("the firewall"), "run", std::io::Error::other(error))),
    }
}
