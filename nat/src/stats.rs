//! What the translator counts.

use crate::clients::PerProto;

/// Counters since the start, and sizes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Flows now, those included whose time is over but that were not looked at yet.
    pub flows: u32,
    /// Most flows there can be.
    pub capacity: u32,
    /// Mappings now.
    pub mappings: u32,
    /// External ports that no mapping has.
    pub ports_free: PerProto<u32>,
    /// Flows opened.
    pub opened: u64,
    /// Flows ended because their time was over.
    pub expired: u64,
    /// Half-open flows ended because their client was over its share.
    pub lost_half_open: u64,
    /// Idle flows ended because their client was over its share.
    pub lost_idle: u64,
    /// How often all flows were ended because there was no room, though no client was over its
    /// share.
    pub flushes: u64,
}
