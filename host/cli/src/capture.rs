//! Captures of network traffic: pcap and pcapng files.
//!
//! In: a file, which may be anything. Out: the IP packets in it, each with its time since the first.
//! Never: more of a packet than was captured, or a guess about what is no IP.

use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};
use std::fs::File;
use std::io::{Error, Result};
use std::path::Path;
use std::time::Duration;

/// Bytes read at a time: a block has to fit.
const BUFFER: usize = 1 << 20;

/// An IP packet.
pub(crate) struct Captured {
    /// Since the first of the file.
    pub(crate) at: Duration,
    /// As much of it as was captured.
    pub(crate) bytes: Vec<u8>,
    /// Bytes it had.
    pub(crate) len: usize,
}

/// What a file holds.
#[derive(Default)]
pub(crate) struct Capture {
    pub(crate) packets: Vec<Captured>,
    /// Frames that carry no IP.
    pub(crate) others: usize,
}

/// Reads a file to its end.
pub(crate) fn read(path: &Path) -> Result<Capture> {
    let file = File::open(path)?;
    let broken = |why: &dyn std::fmt::Debug| Error::other(format!("no pcap file: {why:?}"));
    let mut reader = create_reader(BUFFER, file).map_err(|why| broken(&why))?;
    let (mut capture, mut links, mut first) = (Capture::default(), Vec::new(), None);
    loop {
        match reader.next() {
            Ok((used, block)) => {
                if let Some(frame) = frame(&block, &mut links) {
                    let at = frame.at.saturating_sub(*first.get_or_insert(frame.at));
                    capture.take(at, &frame)?;
                }
                reader.consume(used);
            }
            Err(PcapError::Eof) => return Ok(capture),
            Err(PcapError::Incomplete(_)) => reader.refill().map_err(|why| broken(&why))?,
            Err(why) => return Err(broken(&why)),
        }
    }
}

/// A frame as it stands in the file.
struct Frame<'a> {
    at: Duration,
    link: Linktype,
    bytes: &'a [u8],
    len: usize,
}

/// How frames of one interface are to be read: their kind, and parts of a second.
type Link = (Linktype, u64);

/// The frame in a block, if it is one. `links` are those the file has named so far.
fn frame<'a>(block: &'a PcapBlockOwned<'_>, links: &mut Vec<Link>) -> Option<Frame<'a>> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let parts = if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
            links.push((header.network, parts));
            None
        }
        PcapBlockOwned::Legacy(block) => {
            let (link, parts) = *links.last()?;
            let at = time(block.ts_sec.into(), block.ts_usec.into(), parts);
            Some(Frame { at, link, bytes: block.data, len: block.origlen as usize })
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(link)) => {
            links.push((link.linktype, link.ts_resolution().unwrap_or(1_000_000)));
            None
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(block)) => {
            let (link, parts) = *links.get(block.if_id as usize)?;
            let ticks = u64::from(block.ts_high) << 32 | u64::from(block.ts_low);
            let seconds = ticks.checked_div(parts)?;
            let at = time(seconds, ticks.checked_rem(parts)?, parts);
            let bytes = block.data.get(..block.caplen as usize)?;
            Some(Frame { at, link, bytes, len: block.origlen as usize })
        }
        // It has no time.
        PcapBlockOwned::NG(Block::SimplePacket(block)) => {
            let (link, _) = *links.first()?;
            let len = block.origlen as usize;
            let bytes = block.data.get(..len).unwrap_or(block.data);
            Some(Frame { at: Duration::ZERO, link, bytes, len })
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            links.clear();
            None
        }
        PcapBlockOwned::NG(_) => None,
    }
}

fn time(seconds: u64, part: u64, parts: u64) -> Duration {
    let nanos = u128::from(part) * 1_000_000_000 / u128::from(parts.max(1));
    // A legacy header may hold any number where parts of a second belong.
    let nanos = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
    Duration::from_secs(seconds).saturating_add(nanos)
}

impl Capture {
    fn take(&mut self, at: Duration, frame: &Frame<'_>) -> Result<()> {
        // Where the EtherType stands, if anywhere, and what comes before the packet.
        let (kind_at, skip) = match frame.link {
            Linktype::ETHERNET => (Some(12), 14),
            Linktype::LINUX_SLL => (Some(14), 16),
            Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => (None, 0),
            Linktype(other) => return Err(Error::other(format!("frames of kind {other}"))),
        };
        let kind = kind_at.map(|at| frame.bytes.get(at..at + 2));
        let ip = matches!(kind, None | Some(Some([0x08, 0x00] | [0x86, 0xdd])));
        match frame.bytes.get(skip..).filter(|bytes| ip && !bytes.is_empty()) {
            Some(bytes) => {
                let len = frame.len.saturating_sub(skip);
                self.packets.push(Captured { at, bytes: bytes.to_owned(), len });
            }
            None => self.others += 1,
        }
        Ok(())
    }
}
