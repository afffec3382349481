//! Guests as `xl` knows them: the typed form of an `xl.cfg(5)` file.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// How a guest is virtualised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Paravirtualised.
    Pv,
    /// Hardware-assisted without emulated devices.
    Pvh,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pv => "pv",
            Self::Pvh => "pvh",
        })
    }
}

/// A network interface of a guest.
#[derive(Debug, Clone)]
pub struct Vif {
    /// Domain that serves it; None is dom0, with the sys-net hotplug script.
    pub backend: Option<String>,
    /// Of the guest's side.
    pub mac: String,
    /// What the backend is told the guest's address is.
    pub ip: Ipv4Addr,
    /// The guest does not trust its backend (`trusted=0` in its directory).
    pub untrusted: bool,
}

impl Vif {
    /// In the words of xl-network-configuration(5), as `xl network-attach` takes them.
    pub fn words(&self) -> Vec<String> {
        let mut words = vec![format!("mac={}", self.mac), format!("ip={}", self.ip)];
        match &self.backend {
            Some(backend) => words.push(format!("backend={backend}")),
            None => words.push("script=vif-sysnet".into()),
        }
        if self.untrusted {
            words.push("untrusted".into());
        }
        words
    }
}

/// A guest to create.
#[derive(Debug, Clone)]
pub struct Config {
    /// Domain name.
    pub name: String,
    /// PV or PVH.
    pub mode: Mode,
    /// Kernel, a path in dom0.
    pub kernel: String,
    /// Initramfs, a path in dom0.
    pub ramdisk: Option<String>,
    /// Command line.
    pub extra: String,
    /// Memory in MiB.
    pub memory: u32,
    /// Interfaces, in order.
    pub vifs: Vec<Vif>,
    /// A Linux guest that serves others; Tidegate needs no such permission.
    pub driver_domain: bool,
}

impl Config {
    /// The text of the file.
    pub fn text(&self) -> String {
        let mut text = format!(
            "name = \"{}\"\ntype = \"{}\"\nkernel = \"{}\"\n",
            self.name, self.mode, self.kernel
        );
        if let Some(ramdisk) = &self.ramdisk {
            let _ = writeln!(text, "ramdisk = \"{ramdisk}\"");
        }
        let _ = writeln!(text, "extra = \"{}\"", self.extra);
        let _ = writeln!(text, "memory = {0}\nmaxmem = {0}\nvcpus = 1", self.memory);
        let vifs: Vec<_> = self.vifs.iter().map(|v| format!("'{}'", v.words().join(","))).collect();
        let _ = writeln!(text, "vif = [ {} ]", vifs.join(", "));
        if self.driver_domain {
            text.push_str("driver_domain = 1\n");
        }
        // As on hardware, whose counter is invariant: on an emulated processor the default would have
        // Xen emulate each read of a PV guest, and trap RDTSCP of a PVH guest, over which emulated SVM
        // cannot step.
        text.push_str("tsc_mode = \"native\"\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_of_a_firewall_names_its_backend_and_no_script() {
        let vif = Vif {
            backend: Some("fw".into()),
            mac: "00:16:3e:00:00:01".into(),
            ip: Ipv4Addr::new(10, 137, 0, 10),
            untrusted: true,
        };
        let words = vif.words().join(",");
        assert_eq!(words, "mac=00:16:3e:00:00:01,ip=10.137.0.10,backend=fw,untrusted");
    }

    #[test]
    fn a_guest_reads_the_counter_natively() {
        let config = Config {
            name: "fw".into(),
            mode: Mode::Pvh,
            kernel: "/guest/tidegate".into(),
            ramdisk: None,
            extra: "ip=10.0.0.1".into(),
            memory: 32,
            vifs: vec![],
            driver_domain: false,
        };
        let text = config.text();
        assert!(text.contains("type = \"pvh\"") && text.contains("tsc_mode = \"native\""));
        assert!(!text.contains("ramdisk") && !text.contains("driver_domain"));
    }
}
