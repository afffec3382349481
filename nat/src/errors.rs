//! ICMP errors, and the packets they quote.
//!
//! In: an error about a packet of a flow. Out: who sent that packet, and how the error is to be
//! rewritten for it. Never: a change of anything: no error ends, refreshes or moves a flow.

use crate::flow::Memory;
use crate::nat::Nat;
use crate::{Direction, ErrorPassage, FlowId, Passage, Sender};
use core::net::IpAddr;
use wire::{DropReason, Instant, Quote, Translation};

/// No link has a smaller MTU: RFC 791 for what hosts must reassemble, RFC 8200 section 5. Who says
/// otherwise wants many small packets (RFC 5927 section 7).
const MTU_MIN: (u32, u32) = (576, 1280);

impl Nat {
    /// Takes an ICMP error that `sender` sent from `source` to the sender of the packet it quotes. Changes nothing: no ICMP error ends, refreshes or moves a flow.
    ///
    /// # Errors
    /// [`DropReason::UnrelatedIcmp`] if no live flow sent that packet, or it is a TCP segment that
    /// is not in flight.
    pub fn icmp_error(
        &self,
        now: Instant,
        sender: Sender,
        source: IpAddr,
        quote: &Quote,
    ) -> Result<ErrorPassage, DropReason> {
        self.error_passage(now, sender, source, quote).ok_or(DropReason::UnrelatedIcmp)
    }

    /// The flow of the packet that an error of `sender` quotes.
    #[must_use]
    pub fn quoted(&self, now: Instant, sender: Sender, quote: &Quote) -> Option<FlowId> {
        // Its answer would travel as the error does.
        let answer = quote.tuple.reversed();
        self.live(now, self.find(self.hash(&answer), sender, &answer)?)
    }

    /// Whether an error that says that only `mtu` bytes pass can be true of the packet it quotes,
    /// which was `len` bytes long: it was longer; no link carries less than the minimum of its
    /// family; and if it is a TCP segment, it carries data that was not acknowledged yet.
    ///
    /// # Errors
    /// [`DropReason::UnrelatedIcmp`] if it cannot.
    pub fn check_too_big(
        &self,
        now: Instant,
        sender: Sender,
        quote: &Quote,
        mtu: u32,
        len: u32,
    ) -> Result<(), DropReason> {
        let least = if quote.tuple.src.is_ipv6() { MTU_MIN.1 } else { MTU_MIN.0 };
        let data = quote.tcp_seq.is_none_or(|seq| self.is_unread(now, sender, quote, seq));
        let believed = mtu >= least && mtu < len && data;
        if believed { Ok(()) } else { Err(DropReason::UnrelatedIcmp) }
    }

    /// Whether the quoted segment starts with data that its receiver has not acknowledged.
    fn is_unread(&self, now: Instant, sender: Sender, quote: &Quote, seq: u32) -> bool {
        let flow = self.quoted(now, sender, quote).and_then(|id| self.get(id));
        flow.is_some_and(|flow| match &flow.memory {
            Memory::Tcp(track) => track.is_unread(flow.side(sender.direction().reversed()), seq),
            Memory::Dns(_) | Memory::None => false,
        })
    }

    fn error_passage(
        &self,
        now: Instant,
        sender: Sender,
        source: IpAddr,
        quote: &Quote,
    ) -> Option<ErrorPassage> {
        let direction = sender.direction();
        let id = self.quoted(now, sender, quote)?;
        let flow = self.flows.get(id.index)?;
        // What it quotes would tell the client which id its query has in the world.
        if matches!(flow.memory, Memory::Dns(_)) {
            return None;
        }
        let (remote, _) = self.remote(flow)?;
        let quoted = flow.side(direction.reversed());
        if let (Memory::Tcp(track), Some(seq)) = (&flow.memory, quote.tcp_seq)
            && !track.in_flight(quoted, seq)
        {
            return None;
        }
        let Passage { client, uplink, tuple, change } = self.passage(id.index, direction)?;
        // What the quoted packet is to its sender is the reverse of what its answer would become.
        let quoted = Translation { src: change.dst, dst: change.src, dns_id: None };
        let src = match direction {
            // The client must not see the remote but under the name it asked for (REQ-4).
            Direction::In => change.src.filter(|_| remote == source.into()),
            // Nor the world any address of the inside (REQ-5).
            Direction::Out => change.src,
        };
        let outer = Translation { src, dst: Some((tuple.dst, 0)), dns_id: None };
        Some(ErrorPassage { client, uplink, to: tuple.dst, outer, quoted })
    }
}
