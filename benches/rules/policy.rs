//! Rules as firewalls have them, the same every time: in our language, and in nft's.

use rules::qubes::Trees;
use rules::{Action, Header, HostTable, Policy, Query, Transport, Uplink, Zone};
use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant as Clock;

/// Clients there are.
pub(crate) const CLIENTS: u32 = 64;

/// Packets that are asked about, each aimed at some rule.
const AIMED: usize = 4096;

/// One rule, `accept udp PORT from CLIENT to SERVER/PREFIX`; what is left out holds for all.
struct Line {
    client: Option<u32>,
    /// First address and how many leading bits count.
    server: Option<(u32, u32)>,
    ports: (u16, u16),
}

/// A list of rules.
pub(crate) struct Written {
    lines: Vec<Line>,
    /// Client, server and port of packets that some rule is about.
    pub(crate) aimed: Vec<(IpAddr, IpAddr, u16)>,
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        u32::try_from(self.0 >> 33).unwrap() % sides
    }

    fn port(&mut self) -> u16 {
        u16::try_from(1 + self.roll(30_000)).unwrap()
    }
}

impl Written {
    pub(crate) fn new(count: usize) -> Self {
        let mut dice = Dice(3);
        let lines: Vec<_> = (1..count)
            .map(|_| {
                let bits = [32, 32, 32, 24, 20][dice.roll(5) as usize];
                let server = (0xc000_0000 + dice.roll(1 << 28)) & (u32::MAX << (32 - bits));
                let (client, server) = match dice.roll(8) {
                    0 => (Some(dice.roll(CLIENTS)), None),
                    1 | 2 => (None, Some((server, bits))),
                    _ => (Some(dice.roll(CLIENTS)), Some((server, bits))),
                };
                let port = dice.port();
                let ports = if dice.roll(6) == 0 { (port, port + 99) } else { (port, port) };
                Line { client, server, ports }
            })
            .collect();
        let aimed = (0..AIMED).map(|_| {
            let line = &lines[dice.roll(u32::try_from(lines.len()).unwrap()) as usize];
            let client = line.client.unwrap_or(dice.roll(CLIENTS));
            let server = line.server.map_or(0xc000_0000 + dice.roll(1 << 28), |(first, _)| first);
            (address(client), Ipv4Addr::from_bits(server | 1).into(), line.ports.0)
        });
        let aimed = aimed.collect();
        Self { lines, aimed }
    }

    /// In our language; what no rule is about passes too, so that the way of a packet is the same.
    pub(crate) fn tide(&self) -> String {
        let mut text = String::from(
            "zone uplink = netfront 0\nzone clients = netback\nnat clients -> uplink masquerade\n\
             policy clients -> uplink {\n",
        );
        for Line { client, server, ports: (first, last) } in &self.lines {
            let _ = write!(text, "accept udp {first}-{last}");
            if let Some(client) = client {
                let _ = write!(text, " from {}", address(*client));
            }
            if let Some((first, bits)) = server {
                let _ = write!(text, " to {}/{bits}", Ipv4Addr::from_bits(*first));
            }
            text.push('\n');
        }
        text + "accept\n}\n"
    }

    /// For nft, one rule each, on the way of what this machine sends.
    pub(crate) fn nft_plain(&self) -> String {
        let mut text = String::from(
            "table inet bench {\nchain out {\ntype filter hook output priority 0; policy accept;\n",
        );
        for Line { client, server, ports: (first, last) } in &self.lines {
            if let Some(client) = client {
                let _ = write!(text, "ip saddr {} ", address(*client));
            }
            if let Some((first, bits)) = server {
                let _ = write!(text, "ip daddr {}/{bits} ", Ipv4Addr::from_bits(*first));
            }
            let _ = writeln!(text, "udp dport {first}-{last} accept");
        }
        text + "}\n}\n"
    }

    /// The same as one set of client, server and port.
    pub(crate) fn nft_sets(&self) -> String {
        let mut text = String::from(
            "table inet bench {\nset rules {\ntype ipv4_addr . ipv4_addr . inet_service\n\
             flags interval\nauto-merge\nelements = {\n",
        );
        for (n, Line { client, server, ports: (first, last) }) in self.lines.iter().enumerate() {
            let client =
                client.map_or("0.0.0.0/0".to_owned(), |client| address(client).to_string());
            let (server, bits) = server.unwrap_or((0, 0));
            let comma = if n == 0 { "" } else { ",\n" };
            let server = Ipv4Addr::from_bits(server);
            let _ = write!(text, "{comma}{client} . {server}/{bits} . {first}-{last}");
        }
        text + "\n}\n}\nchain out {\ntype filter hook output priority 0; policy accept;\n\
                ip saddr . ip daddr . udp dport @rules accept\n}\n}\n"
    }

    /// What it takes the rules alone to decide about a new flow.
    pub(crate) fn nanos_to_match(&self, policy: &Policy) -> f64 {
        let own = Trees::default();
        let query = |&(src, dst, dport): &(IpAddr, IpAddr, u16)| Query {
            from: Zone::Clients,
            to: Zone::Uplink(Uplink::FIRST),
            src,
            dst,
            transport: Transport::Udp { sport: 40_000, dport },
            header: Header::PLAIN,
        };
        let queries: Vec<_> = self.aimed.iter().map(query).collect();
        let start = Clock::now();
        for query in &queries {
            assert_eq!(
                black_box(policy.decide(query, &own, &HostTable::new())).action,
                Action::Accept
            );
        }
        start.elapsed().as_nanos() as f64 / queries.len() as f64
    }
}

/// The address of a client.
pub(crate) fn address(client: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a89_0000 + client).into()
}
