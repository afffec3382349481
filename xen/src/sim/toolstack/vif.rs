//! A network device as the toolstack creates it.

use super::WHO;
use crate::hypervisor::DomId;
use crate::sim::xenstored::Store;
use crate::store::StoreError;
use crate::store::wire::{Perm, PermLetter};
use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;
use wire::Mac;

/// A vif: what stands in a domain's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VifSpec {
    /// The domain that gets the interface.
    pub front: DomId,
    /// The domain that serves it.
    pub back: DomId,
    /// Its number among the vifs of `front`.
    pub handle: u32,
    /// The MAC of the frontend.
    pub mac: Mac,
    /// Addresses, blank separated; empty for none.
    pub ip: String,
    /// Whether the frontend may trust its backend.
    pub trusted: bool,
    /// Whether the backend is not in the toolstack's own domain and removes its directory itself.
    pub driver_domain: bool,
    /// Further nodes of the backend directory.
    pub more: Vec<(String, String)>,
}

impl VifSpec {
    /// A vif of `front` served by `back`, a driver domain.
    #[must_use]
    pub fn new(front: DomId, back: DomId, handle: u32, mac: Mac) -> Self {
        Self {
            front,
            back,
            handle,
            mac,
            ip: String::new(),
            trusted: true,
            driver_domain: true,
            more: Vec::new(),
        }
    }

    /// With addresses.
    #[must_use]
    pub fn with_ip(self, ip: &str) -> Self {
        Self { ip: ip.to_string(), ..self }
    }

    /// The backend's directory.
    #[must_use]
    pub fn backend(&self) -> String {
        format!("/local/domain/{}/backend/vif/{}/{}", self.back.0, self.front.0, self.handle)
    }

    /// The frontend's directory.
    #[must_use]
    pub fn frontend(&self) -> String {
        format!("/local/domain/{}/device/vif/{}", self.front.0, self.handle)
    }

    /// The toolstack's own notes.
    #[must_use]
    pub fn libxl(&self) -> String {
        format!("/libxl/{}/device/vif/{}", self.front.0, self.handle)
    }

    /// Creates the directories as libxl does.
    pub(super) fn create(&self, store: &mut Store) -> Result<(), StoreError> {
        let id = store.begin(WHO)?;
        let tx = Some(id);
        let none = |dom| Perm { letter: PermLetter::None, dom };
        let read = |dom| Perm { letter: PermLetter::Read, dom };
        let (front, back) = (self.frontend(), self.backend());
        store.mkdir(WHO, tx, &front)?;
        store.set_perms(WHO, tx, &front, vec![none(self.front), read(self.back)])?;
        store.mkdir(WHO, tx, &back)?;
        store.set_perms(WHO, tx, &back, vec![none(self.back), read(self.front)])?;
        for (name, value) in self.front_nodes() {
            store.write(WHO, tx, &format!("{front}/{name}"), value.as_bytes())?;
        }
        for (name, value) in self.back_nodes() {
            store.write(WHO, tx, &format!("{back}/{name}"), value.as_bytes())?;
        }
        for (name, value) in [("frontend", &front), ("backend", &back)] {
            store.write(WHO, tx, &format!("{}/{name}", self.libxl()), value.as_bytes())?;
        }
        store.end(WHO, id, true)
    }

    fn front_nodes(&self) -> Vec<(&'static str, String)> {
        vec![
            ("backend", self.backend()),
            ("backend-id", self.back.0.to_string()),
            ("state", "1".into()),
            ("handle", self.handle.to_string()),
            ("mac", self.mac.to_string()),
            ("trusted", u8::from(self.trusted).to_string()),
        ]
    }

    fn back_nodes(&self) -> Vec<(&str, String)> {
        let mut nodes = vec![
            ("frontend", self.frontend()),
            ("frontend-id", self.front.0.to_string()),
            ("online", "1".into()),
            ("state", "1".into()),
            ("script", "/etc/xen/scripts/vif-bridge".into()),
            ("mac", self.mac.to_string()),
            ("bridge", "xenbr0".into()),
            ("handle", self.handle.to_string()),
            ("type", "vif".into()),
            ("hotplug-status", String::new()),
        ];
        if !self.ip.is_empty() {
            nodes.push(("ip", self.ip.clone()));
        }
        nodes.extend(self.more.iter().map(|(name, value)| (name.as_str(), value.clone())));
        nodes
    }
}
