//! What is to be expected of a firewall between two qubes, by what dom0 has said: without a firewall.

use crate::machine::SERVER;
use std::net::{IpAddr, Ipv4Addr};

/// Both qubes' addresses; the first may have a fake one.
pub(crate) const QUBES: [IpAddr; 2] = [v4(10, 137, 0, 10), v4(10, 137, 0, 11)];
pub(crate) const FAKE: IpAddr = v4(192, 168, 7, 20);
pub(crate) const GATEWAY: IpAddr = v4(192, 168, 7, 1);
/// A qube that is not there, but may be listed.
pub(crate) const ABSENT: IpAddr = v4(10, 137, 0, 77);
/// Nobody ever says by right that the name stands for these.
pub(crate) const OTHER: IpAddr = v4(198, 51, 100, 1);
pub(crate) const POISON: IpAddr = v4(203, 0, 113, 66);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

/// What may become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum May {
    Pass,
    NotPass,
    /// It depends on when a name was told last.
    Either,
}

/// The rules of a qube.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    Missing,
    Open,
    Shut,
    Seven,
    Named,
    NotNamed,
    Broken,
}

impl Rules {
    /// Those that dom0 may write.
    pub(crate) const ALL: [Self; 6] =
        [Self::Open, Self::Shut, Self::Seven, Self::Named, Self::NotNamed, Self::Broken];

    /// As they stand in the database, their numbers with gaps.
    pub(crate) const fn text(self) -> &'static [(u16, &'static str)] {
        match self {
            Self::Missing => &[],
            Self::Open => &[(0, "action=accept")],
            Self::Shut => &[(3, "action=drop")],
            Self::Seven => &[(1, "action=accept proto=udp dstports=7-7"), (9, "action=drop")],
            Self::Named => &[(0, "action=accept dsthost=www.example.org proto=udp")],
            Self::NotNamed => &[(0, "action=drop dsthost=www.example.org"), (7, "action=accept")],
            Self::Broken => &[(0, "action=accept"), (1, "action=accept dpi=NO")],
        }
    }

    /// `told`: whether it was ever said, by right, that the name stands for [`SERVER`].
    fn lets(self, dst: IpAddr, port: u16, told: bool) -> May {
        let named = dst == SERVER;
        match self {
            Self::Open => May::Pass,
            Self::Seven if port == 7 => May::Pass,
            Self::Named if named && told => May::Either,
            Self::NotNamed if !named && told => May::Either,
            _ => May::NotPass,
        }
    }
}

/// What dom0 says, or what counts of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word {
    pub(crate) rules: [Rules; 2],
    /// Whether the keys are there that give the first qube a fake address.
    pub(crate) visible: bool,
    pub(crate) gateway: bool,
    /// The last byte of our own address.
    pub(crate) own: u8,
    pub(crate) lists_absent: bool,
}

impl Word {
    pub(crate) const fn own(&self) -> IpAddr {
        v4(10, 137, 255, self.own)
    }

    /// The address by which a qube knows itself.
    pub(crate) const fn visible(&self, qube: usize) -> IpAddr {
        if qube == 0 && self.visible && self.gateway { FAKE } else { QUBES[qube] }
    }

    /// What may become of a datagram of a qube, if there is an uplink.
    pub(crate) fn may(&self, told: bool, qube: usize, src: IpAddr, dst: (IpAddr, u16)) -> May {
        let qubes_own = QUBES.contains(&dst.0) || (dst.0 == ABSENT && self.lists_absent);
        if src != self.visible(qube) || qubes_own {
            return May::NotPass;
        }
        self.rules[qube].lets(dst.0, dst.1, told)
    }
}
