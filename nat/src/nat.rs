//! The translator.

use crate::{
    Budget, Config, ConfigError, Direction, ErrorPassage, Facts, FlowId, Hash, NewFlow, Passage,
};
use core::net::IpAddr;
use core::time::Duration;
use wire::{DropReason, Instant, Port, Quote, Transport, Tuple};

/// How long the port of a TCP connection that ended is not given to another one to the same remote.
pub const QUARANTINE: Duration = Duration::from_secs(30);

/// The translator.
#[derive(Debug)]
pub struct Nat {}

impl Nat {
    /// A translator with no flows. All memory is taken here; all its secrecy comes from `secret`.
    ///
    /// # Errors
    /// [`ConfigError`] if a timeout is too short or the budget too small.
    pub fn new(config: Config, budget: Budget, secret: [u8; 32]) -> Result<Self, ConfigError> {
        let _ = (config, budget, secret);
        Ok(Self {})
    }

    /// Hash of a packet's tuple, for either direction.
    #[must_use]
    pub fn hash(&self, tuple: &Tuple) -> Hash {
        let _ = tuple;
        Hash(0)
    }

    /// The live flow of a packet from a client.
    #[must_use]
    pub fn find_out(&self, now: Instant, hash: Hash, tuple: &Tuple) -> Option<FlowId> {
        let _ = (now, hash, tuple);
        None
    }

    /// The live flow of a packet from the world, addressed to an external address.
    #[must_use]
    pub fn find_in(&self, now: Instant, hash: Hash, tuple: &Tuple) -> Option<FlowId> {
        let _ = (now, hash, tuple);
        None
    }

    /// Takes a packet through its flow.
    ///
    /// The caller has verified the checksum of a TCP segment with SYN, FIN or RST.
    ///
    /// # Errors
    /// [`DropReason::InvalidTcp`] if it fits no state of its connection, [`DropReason::Unsolicited`]
    /// if the flow is gone.
    pub fn pass(
        &mut self,
        now: Instant,
        id: FlowId,
        direction: Direction,
        transport: &Transport,
    ) -> Result<Passage, DropReason> {
        let _ = (now, id, direction, transport);
        Err(DropReason::Unsolicited)
    }

    /// Opens a flow for a packet of a client that belongs to none, and takes it through.
    ///
    /// # Errors
    /// [`DropReason::InvalidTcp`] for a segment that opens no connection,
    /// [`DropReason::Untranslatable`] for what is neither TCP, UDP nor an ICMP request,
    /// [`DropReason::QuotaExceeded`], [`DropReason::PortsExhausted`], [`DropReason::FlowTableFull`].
    pub fn open(
        &mut self,
        now: Instant,
        new: &NewFlow<'_>,
    ) -> Result<(FlowId, Passage), DropReason> {
        let _ = (now, new);
        Err(DropReason::FlowTableFull)
    }

    /// Takes an ICMP error from `source` that travels in `direction` to the sender of the packet it
    /// quotes. Changes nothing: no ICMP error ends, refreshes or moves a flow.
    ///
    /// # Errors
    /// [`DropReason::UnrelatedIcmp`] if no live flow sent that packet, or it is a TCP segment that
    /// is not in flight.
    pub fn icmp_error(
        &self,
        now: Instant,
        direction: Direction,
        source: IpAddr,
        quote: &Quote,
    ) -> Result<ErrorPassage, DropReason> {
        let _ = (now, direction, source, quote);
        Err(DropReason::UnrelatedIcmp)
    }

    /// What is known of a flow.
    #[must_use]
    pub fn facts(&self, id: FlowId) -> Option<Facts> {
        let _ = id;
        None
    }

    /// Epoch of the rules that last accepted a flow.
    #[must_use]
    pub fn epoch(&self, id: FlowId) -> Option<u32> {
        let _ = id;
        None
    }

    /// Notes that the rules of `epoch` accept a flow.
    pub fn approve(&mut self, id: FlowId, epoch: u32) {
        let _ = (id, epoch);
    }

    /// Ends a flow.
    pub fn close(&mut self, id: FlowId) {
        let _ = id;
    }

    /// Ends all flows of a client that left.
    pub fn client_gone(&mut self, client: Port) {
        let _ = client;
    }

    /// Ends all flows.
    pub fn flush(&mut self) {}

    /// Ends up to `most` flows whose time is over; says when to call again.
    pub fn tick(&mut self, now: Instant, most: usize) -> Option<Instant> {
        let _ = (now, most);
        None
    }
}
