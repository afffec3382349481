//! The firewall as `tidegate run`, against programs that others wrote: in network namespaces that the
//! tests make, so that nothing leaves the machine. Needs root and the programs it names; run it with
//! `cargo xtask test --only hosted`, which brings them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(unreachable_pub, reason = "nothing here is reached from outside")]

mod net;

use net::{FIREWALL, Mtus, OFFICE, RESOLVER, SERVER, SERVER6, World, succeeded, wait};
use std::os::unix::fs::MetadataExt;

/// A world, if we may make one.
fn world(mtus: Mtus) -> Option<World> {
    may_make_one().then(|| World::new(mtus))
}

fn may_make_one() -> bool {
    let may = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !may {
        println!("SKIPPED: only root can make network namespaces");
    }
    may
}

const DNS: &str = "dnsmasq --keep-in-foreground --no-daemon --conf-file=/dev/null --no-resolv \
                   --no-hosts --user=root --address=/test/192.0.2.7";

#[test]
fn a_client_pings_the_world_and_the_firewall() {
    let Some(world) = world(Mtus::WIDE) else { return };
    for whom in [SERVER, SERVER6, FIREWALL, "fd51::2"] {
        let said = world.exec("work", &format!("ping -n -c 3 -i 0.1 -W 5 {whom}"));
        assert!(said.contains(" 0% packet loss"), "{said}");
    }
}

#[test]
fn mapping_is_endpoint_independent_and_filtering_address_and_port_dependent() {
    let Some(mut world) = world(Mtus::WIDE) else { return };
    world.serve(
        "turnserver --stun-only --no-tls --no-dtls --no-cli --log-file=stdout -n \
         --listening-ip=203.0.113.10 --listening-ip=203.0.113.11",
        3478,
    );
    let said = world.exec("work", "turnutils_natdiscovery -m -f 203.0.113.10");
    assert!(said.contains("NAT with Endpoint Independent Mapping!"), "{said}");
    assert!(said.contains("NAT with Address and Port Dependent Filtering!"), "{said}");
    // It tells by its exit code what it found.
    let output = world.run("work", "stun 203.0.113.10");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Independent Mapping, Port Dependent Filter"), "{said}");
    assert!(said.contains("random port"), "{said}");
}

#[test]
fn traceroute_sees_the_firewall_as_one_hop() {
    let Some(world) = world(Mtus::WIDE) else { return };
    for (how, target, hops) in [
        ("-I", SERVER, [FIREWALL, "198.51.100.1", SERVER]),
        ("-U", SERVER, [FIREWALL, "198.51.100.1", SERVER]),
        ("-T", SERVER, [FIREWALL, "198.51.100.1", SERVER]),
        ("-I", SERVER6, ["fd51::2", "fd51::1", SERVER6]),
        ("-U", SERVER6, ["fd51::2", "fd51::1", SERVER6]),
    ] {
        let said = world.exec("work", &format!("traceroute {how} -n -q 1 -N 1 -w 5 -m 5 {target}"));
        let seen: Vec<_> = said
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().nth(1).unwrap_or_default())
            .collect();
        assert_eq!(seen, hops, "{how}\n{said}");
    }
}

#[test]
fn a_sender_learns_of_a_small_link_wherever_it_is() {
    for (mtus, least) in
        [(Mtus { uplink: 1300, ..Mtus::WIDE }, "1300"), (Mtus { far: 1300, ..Mtus::WIDE }, "1300")]
    {
        let Some(mut world) = world(mtus) else { return };
        world.serve("iperf3 -s", 5201);
        for (whom, header) in [(SERVER, 28), (SERVER6, 48)] {
            let size = 1400 - header;
            let output =
                world.run("work", &format!("ping -n -M do -c 2 -i 0.2 -W 1 -s {size} {whom}"));
            let said = String::from_utf8_lossy(&output.stdout);
            let wrong = String::from_utf8_lossy(&output.stderr);
            assert!(format!("{said}{wrong}").contains(least), "{said}{wrong}");
            let route = world.exec("work", &format!("ip route get {whom}"));
            assert!(route.contains("mtu 1300"), "{route}");
            transfer(&world, whom, "");
            transfer(&world, whom, "-R");
        }
    }
}

#[test]
fn the_world_learns_of_a_small_link_to_a_client() {
    let Some(mut world) = world(Mtus { client: 1300, ..Mtus::WIDE }) else { return };
    world.serve("iperf3 -s", 5201);
    // The client claims to take more than its link does.
    world.exec("work", "ip route replace default via 10.137.0.1 advmss 1460");
    world.exec("work", "ip -6 route replace default via fd09::1 advmss 1440");
    for whom in [SERVER, SERVER6] {
        transfer(&world, whom, "-R");
    }
    let route = world.exec("server", "ip route get 198.51.100.2");
    assert!(route.contains("mtu 1300"), "{route}");
    let route = world.exec("server", "ip route get fd51::2");
    assert!(route.contains("mtu 1300"), "{route}");
}

#[test]
fn from_outside_nothing_answers() {
    let Some(mut world) = world(Mtus::WIDE) else { return };
    world.serve("iperf3 -s", 5201);
    // Not even with flows under way.
    world.exec("work", "ping -n -c 1 -W 5 203.0.113.10");
    transfer(&world, SERVER, "");
    let fast = "nmap -n -Pn --min-rate 2000 --max-retries 0 -T5 -oG -";
    let said = world.exec("isp", &format!("{fast} -sS -p 5201 {SERVER}"));
    assert!(said.contains("5201/open/tcp"), "a scan finds what there is: {said}");
    for (how, ports, silent) in [
        ("-sS", "1-2000", "Ports: \tIgnored State: filtered (2000)"),
        ("-sA", "1-500", "Ports: \tIgnored State: filtered (500)"),
        ("-sF", "1-500", "Ports: \tIgnored State: open|filtered (500)"),
        ("-sU", "1-500", "Ports: \tIgnored State: open|filtered (500)"),
    ] {
        let said = world.exec("isp", &format!("{fast} {how} -p {ports} {FIREWALL}"));
        assert!(said.contains(silent), "{how}: {said}");
    }
    let pings = "nmap -n -sn --disable-arp-ping -PE -PP -PS80 -PA80 -PU9";
    let said = world.exec("isp", &format!("{pings} {FIREWALL}"));
    assert!(said.contains("(0 hosts up)"), "{said}");
}

#[test]
fn tcp_flows_up_and_down() {
    let Some(mut world) = world(Mtus::WIDE) else { return };
    world.serve("iperf3 -s", 5201);
    for whom in [SERVER, SERVER6] {
        for direction in ["", "-R"] {
            transfer(&world, whom, direction);
        }
    }
}

#[test]
fn all_kinds_of_traffic_at_once_lose_nothing() {
    let Some(mut world) = world(Mtus::WIDE) else { return };
    world.serve("iperf3 -s -p 5201", 5201);
    world.serve("iperf3 -s -p 5202", 5202);
    world.serve(DNS, 53);
    let tcp = world.spawn("work", &format!("iperf3 -c {SERVER} -p 5201 -t 5 -b 50M --bidir -J"));
    let udp = world.spawn("work", &format!("iperf3 -c {SERVER} -p 5202 -t 5 -u -b 1M -J"));
    let ping = world.spawn("work", &format!("ping -n -c 200 -i 0.02 -W 5 {SERVER}"));
    let ping6 = world.spawn("work", &format!("ping -n -c 200 -i 0.02 -W 5 {SERVER6}"));
    for n in 0..50 {
        let how = if n % 5 == 0 { "+tcp" } else { "+notcp" };
        let asks = format!("dig +short +tries=1 +time=5 {how} @{RESOLVER} n{n}.test");
        assert_eq!(world.exec("work", &asks).trim(), "192.0.2.7", "query {n}");
    }
    for ping in [ping, ping6] {
        let said = succeeded("ping", ping.wait_with_output().unwrap());
        assert!(said.contains("200 received, 0% packet loss"), "{said}");
    }
    succeeded("iperf3 of TCP", tcp.wait_with_output().unwrap());
    let said = succeeded("iperf3 of UDP", udp.wait_with_output().unwrap());
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["end"]["sum"]["lost_packets"], 0, "{said}");
}

/// Whoever is pinged knows no way back but that of its own network.
#[test]
fn each_network_is_reached_by_its_uplink() {
    if !may_make_one() {
        return;
    }
    let policy = format!("{}/two-uplinks.tide", env!("CARGO_TARGET_TMPDIR"));
    let text = "zone uplink = netfront 0 zone office = netfront 1 zone clients = netback
         nat clients -> uplink masquerade nat clients -> office masquerade
         route 10.20.0.0/16 on office
         policy clients -> uplink { accept }
         policy clients -> office { accept icmp to 10.20.0.1; drop }";
    std::fs::write(&policy, text).unwrap();
    let world = World::with_office(&policy);
    for whom in [SERVER, OFFICE] {
        let said = world.exec("work", &format!("ping -n -c 3 -i 0.1 -W 5 {whom}"));
        assert!(said.contains(" 0% packet loss"), "{said}");
    }
    let said = world.run("work", "ping -n -c 1 -W 1 10.20.0.9").stdout;
    assert!(String::from_utf8_lossy(&said).contains("100% packet loss"));
    let sender = world.exec("office", "ip neigh show 10.20.0.2");
    assert!(sender.starts_with("10.20.0.2 dev lab "), "{sender}");
}

/// rsyslogd takes each line apart, as RFC 5424 has it.
#[test]
fn a_receiver_of_the_log_understands_each_line() {
    if !may_make_one() {
        return;
    }
    let place = |name: &str| format!("{}/syslog-{name}", env!("CARGO_TARGET_TMPDIR"));
    let (policy, config, log) = (place("policy.tide"), place("rsyslog.conf"), place("log"));
    let text = format!(
        "zone uplink = netfront 0 zone clients = netback nat clients -> uplink masquerade
         syslog {SERVER} accepted refused
         policy clients -> uplink {{
             accept icmp
             reject port-unreachable udp 4000 log critical
             drop
         }}"
    );
    let parts = "%syslogfacility-text%.%syslogseverity-text% %hostname% %app-name% %procid% %msgid% %structured-data% %msg%\\n";
    let receiver = format!(
        "module(load=\"imudp\") input(type=\"imudp\" port=\"514\")
         template(name=\"parts\" type=\"string\" string=\"{parts}\")
         action(type=\"omfile\" file=\"{log}\" template=\"parts\")\n"
    );
    std::fs::write(&policy, text).unwrap();
    std::fs::write(&config, receiver).unwrap();
    drop(std::fs::remove_file(&log));
    let mut world = World::with_policy(Mtus::WIDE, &policy);
    world.serve(&format!("rsyslogd -n -iNONE -f {config}"), 514);
    world.exec("work", &format!("ping -n -c 1 -W 5 {SERVER}"));
    for port in [4000, 4001] {
        world.run("work", &format!("dig +tries=1 +time=1 -p {port} @{SERVER} example.test"));
    }
    for line in [
        "local0.info 198.51.100.2 tidegate - - - accept clients -> uplink: icmp ",
        "local0.crit 198.51.100.2 tidegate - - - critical: reject clients -> uplink: udp 10.137.0.10:",
        "local0.notice 198.51.100.2 tidegate - - - drop clients -> uplink: udp 10.137.0.10:",
    ] {
        let told = || std::fs::read_to_string(&log).unwrap_or_default();
        wait(line, || told().lines().any(|said| said.replace("  ", " ").starts_with(line)));
    }
}

/// Moves 32 MiB by TCP.
fn transfer(world: &World, whom: &str, direction: &str) {
    let said = world.exec("work", &format!("iperf3 -c {whom} -n 32M -J {direction}"));
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    let received = report["end"]["sum_received"]["bytes"].as_u64().unwrap();
    // What is still on its way when the sender has written it all is not counted.
    assert!(received >= 16 << 20, "{whom} {direction}: {received}\n{said}");
}
