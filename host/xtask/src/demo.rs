//! `cargo xtask demo`: the firewall at work, in a minute.
//!
//! In: a firewall and a mode. Out: a line for each thing shown, with what was seen and how long it
//! took, as text or JSON. Asserts no more than that each thing happened.

use rig::plan::{self, PERSONAL, WORK};
use rig::probe::Connect;
use rig::{Error, FIREWALL, Firewall, Layout, Mode, Options, Result, Way, World, ensure};
use serde::Serialize;
use std::time::{Duration, Instant};

/// One thing shown.
#[derive(Serialize)]
struct Shown {
    what: String,
    saw: String,
    seconds: f64,
    ok: bool,
}

/// A domain's use of the machine.
#[derive(Serialize)]
struct Used {
    name: String,
    memory_mib: u32,
    cpu_seconds: f64,
}

struct Show {
    json: bool,
    shown: Vec<Shown>,
}

impl Show {
    fn tell(&mut self, what: &str, took: Duration, saw: Result<String>) {
        let (saw, ok) = match saw {
            Ok(saw) => (saw, true),
            Err(e) => (e.to_string(), false),
        };
        let seconds = took.as_secs_f64();
        if !self.json {
            let mark = if ok { "ok    " } else { "FAILED" };
            println!("{mark} {what:<34} {seconds:>6.2} s  {saw}");
        }
        self.shown.push(Shown { what: what.to_owned(), saw, seconds, ok });
    }

    fn run(&mut self, what: &str, act: impl FnOnce() -> Result<String>) {
        let started = Instant::now();
        let saw = act();
        self.tell(what, started.elapsed(), saw);
    }
}

/// Runs the demo: true if everything was as it should be.
pub(crate) fn command(
    layout: &Layout,
    firewall: Firewall,
    mode: Mode,
    options: Options,
    json: bool,
) -> Result<bool> {
    let name = firewall.name();
    let world = World::boot(layout, firewall, mode, &[WORK, PERSONAL], options)?;
    let mut show = Show { json, shown: Vec::new() };
    if !json {
        println!("\n{name} ({mode}) between sys-net and two clients, on Xen 4.17:\n");
    }
    let connected = format!("{name}: created, uplink connected");
    show.tell(&connected, world.firewall_boot, Ok(boot_line(&world)));
    traffic(&mut show, &world)?;
    refusals(&mut show, &world)?;
    let used = used(&world)?;
    let ok = show.shown.iter().all(|shown| shown.ok);
    if json {
        let report = serde_json::json!({
            "firewall": name, "mode": mode.to_string(), "shown": show.shown, "domains": used,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("\n{:<12} {:>10} {:>12}", "domain", "memory", "CPU used");
        for Used { name, memory_mib, cpu_seconds } in &used {
            println!("{name:<12} {memory_mib:>6} MiB {cpu_seconds:>10.1} s");
        }
    }
    if options.keep {
        attach_help(&world);
    } else {
        world.xen.save_logs()?;
    }
    Ok(ok)
}

/// The first line the firewall printed about itself.
fn boot_line(world: &World) -> String {
    let console = world.xen.console(FIREWALL);
    console.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
}

fn traffic(show: &mut Show, world: &World) -> Result<()> {
    let (work, personal) = (world.client(WORK)?, world.client(PERSONAL)?);
    for (client, to) in [(&work, world.gateway()), (&work, plan::SERVER), (&personal, plan::SERVER)]
    {
        show.run(&format!("ping {} -> {to}", client.name), || {
            let ping = client.ping(to, 5)?;
            ensure(ping.received == ping.sent, || format!("{ping:?}"))?;
            Ok(format!("{} of {}, {:.2} ms", ping.received, ping.sent, ping.millis.unwrap_or(0.0)))
        });
    }
    for (way, word) in [(Way::Up, "up"), (Way::Down, "down")] {
        show.run(&format!("TCP {word} (iperf3, 5 s)"), || {
            Ok(format!("{:.0} Mbit/s", work.iperf(plan::SERVER, way, 5)? / 1e6))
        });
    }
    show.run("HTTP fetch of 4 MB", || {
        let got = work.fetch(plan::SERVER, 80, 4_000_000)?;
        ensure(got.status == 200 && got.intact, || format!("{got:?}"))?;
        Ok(format!("{} bytes in {} ms, every byte right", got.bytes, got.millis))
    });
    for (tcp, word) in [(false, "UDP"), (true, "TCP")] {
        let [resolver, _] = plan::VIRTUAL_DNS;
        show.run(&format!("DNS through the redirect ({word})"), || {
            let answers = work.resolve(resolver, "www.example.test", tcp)?;
            let addresses: Vec<_> = answers.iter().flat_map(|answer| &answer.addresses).collect();
            Ok(format!("{addresses:?} from {resolver}, answered by {}", plan::RESOLVER))
        });
    }
    Ok(())
}

fn refusals(show: &mut Show, world: &World) -> Result<()> {
    let work = world.client(WORK)?;
    for (what, to) in [("rejected", plan::REJECTED), ("dropped", plan::DROPPED)] {
        let mark = world.xen.console_mark(FIREWALL);
        show.run(&format!("{what}: tcp {to}:80"), || {
            let seen = work.connect_unanswered(to, 80)?;
            let right = match what {
                "rejected" => matches!(seen, Connect::Unreachable(_)),
                _ => seen == Connect::Silent,
            };
            ensure(right, || format!("the client saw {seen:?}"))?;
            Ok(format!("the client saw {seen:?}"))
        });
        if matches!(world.firewall, Firewall::Tidegate { .. }) {
            show.run(&format!("{what}: the rule that did it"), || rule(world, mark, to));
        }
    }
    show.run("inbound: tcp from sys-net", || {
        let server = work.serve("tcp-echo", WORK.ip, 7777)?;
        let (vif, to) = (format!("vif{}.0", world.fw()?.id), WORK.ip);
        let dom0 = &world.xen.dom0;
        dom0.sh(&format!("/bin/ip route replace {to}/32 via {} onlink dev {vif}", plan::FIREWALL))?;
        let seen = dom0.connect_unanswered(to, 7777);
        dom0.sh(&format!("/bin/ip route del {to}/32"))?;
        let reached = work.stop(&server)?.stdout;
        let seen = seen?;
        ensure(seen == Connect::Silent && reached.is_empty(), || format!("{seen:?} {reached:?}"))?;
        Ok("blocked, nothing came back".to_owned())
    });
    Ok(())
}

/// The line on the firewall's console that names a refused address.
fn rule(world: &World, mark: u64, refused: std::net::Ipv4Addr) -> Result<String> {
    world.xen.wait_console(FIREWALL, mark, &refused.to_string(), rig::DEADLINE)?;
    let console = world.xen.console(FIREWALL);
    let line = console.lines().rfind(|line| line.contains(&refused.to_string()));
    line.map(str::to_owned).ok_or_else(|| Error::new("the console does not name it"))
}

fn used(world: &World) -> Result<Vec<Used>> {
    let usage = world.xen.usage()?;
    Ok(usage
        .into_iter()
        .map(|u| Used { name: u.name, memory_mib: u.memory, cpu_seconds: u.cpu_seconds })
        .collect())
}

fn attach_help(world: &World) {
    let machine = world.xen.dom0.machine();
    eprintln!("\nThe machine keeps running (QEMU's process id is {}).", machine.pid());
    eprintln!("A shell in dom0:    cargo xtask attach     (Ctrl-Q leaves it)");
    eprintln!("A guest's console:  xl console {FIREWALL}     in that shell (Ctrl-] leaves it)");
    eprintln!("All domains:        xl list");
    eprintln!("End it:             kill {}", machine.pid());
}
