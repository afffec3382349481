//! Where a frame enters or leaves the firewall.

use core::fmt;

/// Index of a port in the appliance's table; only meaningful together with a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSlot(pub u16);

/// A network interface of the firewall: an uplink or one client's vif.
///
/// Slots are used again when a client leaves; the generation tells the old interface from the new
/// one, so that nothing decided for the former is ever delivered to the latter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port(
    /// The slot above the generation, in one word: ports are compared several times for each frame.
    u32,
);

impl Port {
    /// The port at `slot` in its `generation`.
    #[must_use]
    pub const fn new(slot: u16, generation: u16) -> Self {
        Self((slot as u32) << 16 | generation as u32)
    }

    /// Where the interface stands in the table.
    #[must_use]
    pub const fn slot(self) -> PortSlot {
        PortSlot((self.0 >> 16) as u16)
    }

    /// How often that slot had been given away before.
    #[must_use]
    pub const fn generation(self) -> u16 {
        self.0 as u16
    }

    /// The slot as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.slot().0 as usize
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}.{}", self.slot().0, self.generation())
    }
}
