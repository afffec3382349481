//! What netback tells its owner about vifs.
//!
//! Never: grows without bound; what is told too fast for its owner is lost, except for links.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use wire::{Mac, Port};
use xen::hypervisor::DomId;

/// Problems kept until they are taken.
const PROBLEMS_MAX: usize = 256;

/// Something that happened to a vif.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A client is connected: frames can pass from now on.
    Up {
        /// The firewall's name for it.
        port: Port,
        /// The client.
        dom: DomId,
        /// Its number for this vif.
        handle: u32,
        /// Its Ethernet address.
        mac: Mac,
        /// Its own IP addresses, in the order the toolstack gave them; may be empty.
        addrs: Vec<IpAddr>,
        /// Bytes an IP packet can have on this vif.
        mtu: u16,
    },
    /// It is not any more. May be up again later under the same port.
    Down {
        /// The firewall's name for it.
        port: Port,
    },
    /// To be told to whoever runs this machine, as it is.
    Problem {
        /// One line that names the vif.
        text: String,
    },
}

/// Notices not yet taken.
#[derive(Debug, Default)]
pub(crate) struct Notices(VecDeque<Notice>);

impl Notices {
    /// Ups and downs always find room: there are no more than changes of links.
    pub(crate) fn push(&mut self, notice: Notice) {
        let problem = matches!(notice, Notice::Problem { .. });
        if !problem || self.0.len() < PROBLEMS_MAX {
            self.0.push_back(notice);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Notice> {
        self.0.pop_front()
    }
}
