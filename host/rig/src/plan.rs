//! The network plan: who has which address on the rig.
//!
//! ```text
//!   internet (dummy, in dom0) ── dom0 as sys-net ── firewall ── clients
//!   93.184.216.x, 192.0.2.53     10.137.255.1       .255.2      10.137.0.1x
//! ```

use std::net::Ipv4Addr;

/// dom0's address towards the firewall: the firewall's gateway.
pub const SYS_NET: Ipv4Addr = Ipv4Addr::new(10, 137, 255, 1);
/// The firewall's own address: what clients' traffic is translated to, and their gateway.
pub const FIREWALL: Ipv4Addr = Ipv4Addr::new(10, 137, 255, 2);
/// A server on the internet that policy lets clients reach.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 34);
/// A server on the internet whose connections policy rejects.
pub const REJECTED: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 66);
/// A server on the internet whose connections policy drops.
pub const DROPPED: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 77);
/// The resolver that really answers.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
/// The two resolvers clients are told about.
pub const VIRTUAL_DNS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 139, 1, 1), Ipv4Addr::new(10, 139, 1, 2)];
/// Everything dom0's internet interface answers for.
pub const INTERNET: [Ipv4Addr; 4] = [SERVER, REJECTED, DROPPED, RESOLVER];

/// A client's name, address and MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Domain name.
    pub name: &'static str,
    /// Its only address.
    pub ip: Ipv4Addr,
    /// Of its interface.
    pub mac: &'static str,
}

/// The first client: policy lets it out.
pub const WORK: Client =
    Client { name: "work", ip: Ipv4Addr::new(10, 137, 0, 10), mac: "00:16:3e:5e:6c:10" };
/// The second client.
pub const PERSONAL: Client =
    Client { name: "personal", ip: Ipv4Addr::new(10, 137, 0, 11), mac: "00:16:3e:5e:6c:11" };
/// The client that does not trust its backend (`trusted=0`, as all Qubes clients).
pub const UNTRUSTED: Client =
    Client { name: "untrusted", ip: Ipv4Addr::new(10, 137, 0, 12), mac: "00:16:3e:5e:6c:12" };
/// The client that attacks the firewall; no Linux runs in it.
pub const HOSTILE: Client =
    Client { name: "hostile", ip: Ipv4Addr::new(10, 137, 0, 13), mac: "00:16:3e:5e:6c:13" };
/// The client that makes load; no Linux runs in it.
pub const LOAD: Client =
    Client { name: "load", ip: Ipv4Addr::new(10, 137, 0, 14), mac: "00:16:3e:5e:6c:14" };
/// Where the uplink's domain throws away what comes, without a word.
pub const DISCARD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
/// MAC of the firewall's uplink.
pub const UPLINK_MAC: &str = "00:16:3e:5e:6c:02";
