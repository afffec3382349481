//! A Qubes machine: sys-net, the firewall without a word on its command line, dom0's daemons.
#![allow(unreachable_pub, reason = "shared by the parts of this test program")]

use crate::machine::dom0::Dom0;
use crate::machine::frames::Spec;
use crate::machine::{CLIENT_MAC, Client, Machine, SERVER, SYS_NET, TIDEGATE, UPLINK_MAC};
use std::net::IpAddr;
use std::time::Duration;
use wire::{Frame, Mac, Offload, Parsed, Port, Tuple, parse};

/// What dom0 keeps for a firewall VM that no client has met.
pub const ENTRIES: &[(&str, &str)] = &[
    ("/name", "sys-tidegate"),
    ("/type", "StandaloneVM"),
    ("/qubes-vm-type", "ProxyVM"),
    ("/qubes-random-seed", "4v3uLQXYV3Wt9Hk2KQ9UeZJ2d2kBkQWlBJ1yY1b7xQk8l0tYwq7JmHn2cA=="),
    ("/qubes-mac", "00:16:3e:5e:6c:01"),
    ("/qubes-ip", "10.137.255.2"),
    ("/qubes-netmask", "255.255.255.255"),
    ("/qubes-gateway", "10.137.0.5"),
    ("/qubes-primary-dns", "10.139.1.1"),
    ("/qubes-secondary-dns", "10.139.1.2"),
    ("/qubes-netvm-gateway", "10.137.255.2"),
    ("/qubes-netvm-primary-dns", "10.139.1.1"),
    ("/qubes-netvm-secondary-dns", "10.139.1.2"),
    ("/connected-ips", "10.137.0.10 10.137.0.11 10.137.0.77"),
    ("/qubes-service/meminfo-writer", "0"),
];

pub const DNS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 139, 1, 1));

pub struct World {
    pub machine: Machine,
    pub dom0: Dom0,
}

impl World {
    /// A firewall without a policy of its own, its uplink connected and its database read.
    pub fn new(seed: u64) -> Self {
        Self::with(seed, "", None, ENTRIES)
    }

    /// With this command line, policy blob and database.
    pub fn with(seed: u64, cmdline: &str, blob: Option<&[u8]>, entries: &[(&str, &str)]) -> Self {
        Self::on(Machine::bare(seed, cmdline, blob), entries)
    }

    /// In a machine whose firewall has just been started.
    pub fn on(mut machine: Machine, entries: &[(&str, &str)]) -> Self {
        let dom0 = Dom0::start(&machine.sim, &machine.xs, TIDEGATE, entries);
        machine.plug(SYS_NET, 0);
        machine.wait("the uplink to be up", || machine.uplink().is_connected());
        machine.wait("the database to be read", || dom0.database(|db| db.is_live()));
        machine.wait("the agent", || dom0.is_greeted());
        machine.settle();
        Self { machine, dom0 }
    }

    /// A connected client for which dom0 has committed these rules.
    pub fn client(&self, dom: u16, rules: &[&str]) -> Client {
        let client = self.machine.client(dom);
        self.set_rules(&client, rules);
        client
    }

    /// dom0 changes a client's rules, and everything that follows happens.
    pub fn set_rules(&self, client: &Client, rules: &[&str]) {
        let rules: Vec<(u16, &str)> = (0..).zip(rules.iter().copied()).collect();
        self.dom0.database(|db| db.set_rules(&client.addr.to_string(), "drop", &rules));
        self.machine.settle();
    }

    /// Whether a datagram of `client` to `dst` reaches the world; if so, how it looks there.
    pub fn out(&self, client: &Client, sport: u16, dst: (IpAddr, u16)) -> Option<Tuple> {
        client.send(self.datagram(client, sport, dst));
        self.machine.settle();
        let sent = self.machine.uplink().received();
        sent.first().map(|frame| tuple(&frame.bytes, frame.offload))
    }

    pub fn datagram(&self, client: &Client, sport: u16, dst: (IpAddr, u16)) -> Vec<u8> {
        Spec::udp((client.addr, sport), dst).macs(Mac::BACKEND, CLIENT_MAC).frame()
    }

    /// Whether a datagram to the server's port 7 reaches the world.
    pub fn passes(&self, client: &Client, sport: u16) -> bool {
        self.out(client, sport, (SERVER, 7)).is_some()
    }

    /// Sends an answer to what the world saw; whether it comes to the client.
    pub fn back(&self, client: &Client, seen: &Tuple) -> bool {
        let answer = Spec::udp((seen.dst, seen.dport), (seen.src, seen.sport));
        let answer = answer.macs(UPLINK_MAC, Mac::BACKEND).frame();
        self.machine.uplink().send(&answer, Offload::NONE);
        self.machine.settle();
        !client.peer.take_received().is_empty()
    }

    /// Whether the client was told that something is prohibited, since last asked.
    pub fn was_told(&self, client: &Client) -> bool {
        let told = client.peer.take_received();
        // Type 3, code 13, behind Ethernet and IPv4.
        told.iter().any(|frame| frame.bytes[23] == 1 && frame.bytes[34..36] == [3, 13])
    }

    pub fn console(&self) -> String {
        self.machine.read_console()
    }

    /// Calls a service and waits for its end.
    pub fn call(&self, service: &str, input: &[u8]) -> (String, Option<i32>) {
        let call = self.dom0.call(service, input);
        self.machine.wait(service, || self.dom0.outcome(call).is_some());
        let outcome = self.dom0.outcome(call).unwrap();
        (String::from_utf8(outcome.output).unwrap(), outcome.exit)
    }

    pub fn run(&self, time: Duration) {
        self.machine.run(time);
    }
}

/// Whatever happened, dom0's daemons have lived through it.
impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.dom0.deaths(), Vec::<String>::new());
        }
    }
}

pub fn tuple(bytes: &[u8], offload: Offload) -> Tuple {
    let len = u32::try_from(bytes.len()).unwrap();
    let Ok(Parsed::Ip(packet)) = parse(&Frame { from: Port::new(0, 0), head: bytes, len, offload })
    else {
        panic!("no packet: {bytes:02x?}")
    };
    packet.tuple().expect("a packet with ports")
}
