//! DNS messages, as far as names in rules need them (RFC 1035 section 4).
//!
//! In: the payload of a datagram. Out: a query for addresses, or the addresses that an answer gives.
//! Never: belief in a message that is not what its sender had to send, a look behind the answer
//! section, or an allocation.
#![deny(clippy::arithmetic_side_effects)]

use crate::name::{HEADER, NAME_MAX, Name, Spelled};
use arrayvec::ArrayVec;
use core::net::IpAddr;

/// Most addresses taken from one answer: as many as a rule may have.
pub const ADDRS_MAX: usize = 64;

/// Most aliases (CNAME) from a name to its addresses.
pub const ALIASES_MAX: usize = 8;

/// Most records in an answer section that is read.
const RECORDS_MAX: u16 = 128;

/// Longest datagram we ask for (EDNS, RFC 6891): it fits everywhere without fragments.
const DATAGRAM: u16 = 1232;

/// Bytes of the longest question: a name, a type and a class.
pub const QUESTION_MAX: usize = NAME_MAX + 4;

/// Bytes of the longest query we write.
pub const QUERY_MAX: usize = HEADER + QUESTION_MAX + OPT.len();

/// An OPT record without options.
const OPT: [u8; 11] = {
    let [a, b] = DATAGRAM.to_be_bytes();
    [0, 0, 41, a, b, 0, 0, 0, 0, 0, 0]
};

const QR: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const TC: u16 = 0x0200;
const RD: u16 = 0x0100;
const RCODE: u16 = 0x000f;
const NAME_ERROR: u16 = 3;
const IN: u16 = 1;
const CNAME: u16 = 5;

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// IPv4.
    A,
    /// IPv6.
    Aaaa,
}

impl Kind {
    /// The one of the family of `addr`.
    #[must_use]
    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::A,
            IpAddr::V6(_) => Self::Aaaa,
        }
    }

    const fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }

    const fn parse(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::A),
            28 => Some(Self::Aaaa),
            _ => None,
        }
    }
}

/// A query for the addresses of one name.
#[derive(Clone, Copy, Debug)]
pub struct Query<'m> {
    /// Which addresses.
    pub kind: Kind,
    /// The question as it was spelled, without pointers: its answer has to repeat it.
    pub question: &'m [u8],
    name: Spelled<'m>,
}

impl<'m> Query<'m> {
    /// Reads a query. `None` if it is anything but a plain question for A or AAAA.
    #[must_use]
    pub fn read(message: &'m [u8]) -> Option<Self> {
        let [flags, questions, answers, authorities] = [2, 4, 6, 8].map(|at| be16(message, at));
        if flags? & (QR | OPCODE) != 0 || (questions?, answers?, authorities?) != (1, 0, 0) {
            return None;
        }
        question_of(message)
    }

    /// Whether it asks for `host`.
    #[must_use]
    pub fn is_for(&self, host: &Name) -> bool {
        self.name.is_host(host)
    }
}

/// The question that an answer repeats, if it is a plain one for A or AAAA.
pub(crate) fn question_of(message: &[u8]) -> Option<Query<'_>> {
    let (name, end) = Spelled::read(message, HEADER)?;
    let (kind, class) = (Kind::parse(be16(message, end)?)?, be16(message, end.checked_add(2)?)?);
    let question = message.get(HEADER..end.checked_add(4)?)?;
    (class == IN && name.is_plain(end)).then_some(Query { kind, question, name })
}

/// Writes a query for the addresses of `name`; says how many bytes it has. `edns` allows answers longer
/// than 512 bytes, which old resolvers do not understand.
#[must_use]
pub fn write_query(
    id: u16,
    name: &Name,
    kind: Kind,
    edns: bool,
    out: &mut [u8; QUERY_MAX],
) -> Option<usize> {
    let mut query = ArrayVec::<u8, QUERY_MAX>::new();
    for word in [id, RD, 1, 0, 0, u16::from(edns)] {
        query.try_extend_from_slice(&word.to_be_bytes()).ok()?;
    }
    query.try_extend_from_slice(&question(name, kind)).ok()?;
    if edns {
        query.try_extend_from_slice(&OPT).ok()?;
    }
    out.get_mut(..query.len())?.copy_from_slice(&query);
    Some(query.len())
}

/// The question about the addresses of `name`, as a query has it and its answer has to repeat it.
#[must_use]
pub fn question(name: &Name, kind: Kind) -> ArrayVec<u8, QUESTION_MAX> {
    let [k0, k1] = kind.number().to_be_bytes();
    let [c0, c1] = IN.to_be_bytes();
    name.spelled().iter().copied().chain([k0, k1, c0, c1]).take(QUESTION_MAX).collect()
}

/// An address and for how many seconds it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The address.
    pub addr: IpAddr,
    /// The shortest time to live on the way to it.
    pub ttl: u32,
}

/// What an answer says of the name that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its addresses, as many as are taken.
    pub told: ArrayVec<Told, ADDRS_MAX>,
    /// Whether there were more.
    pub more: bool,
}

/// Why nothing is learnt from a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unusable {
    /// It is cut off, contradicts itself, or is no answer.
    Malformed,
    /// It repeats another question than was asked, or none, or several.
    OtherQuestion,
    /// There is more of it than fits a datagram. TCP is not tried: nothing of it counts.
    Truncated,
    /// The resolver could not tell, by its response code.
    Failed(u8),
    /// There is no such name.
    NoSuchName,
    /// More aliases or records than are followed.
    TooLong,
}

/// Reads the answer to `question` ([`Query::question`]), which asked for addresses of `kind`. Only
/// records count that lead from the name asked, by aliases, to addresses; what the answer says of other
/// names is nothing.
///
/// # Errors
/// [`Unusable`].
pub fn read_answer(message: &[u8], question: &[u8], kind: Kind) -> Result<Answer, Unusable> {
    let word = |at| be16(message, at).ok_or(Unusable::Malformed);
    let (flags, questions, records) = (word(2)?, word(4)?, word(6)?);
    if flags & QR == 0 || flags & OPCODE != 0 || message.len() < HEADER {
        return Err(Unusable::Malformed);
    }
    let behind = message.get(HEADER..).unwrap_or_default();
    if questions != 1 || !behind.starts_with(question) {
        return Err(Unusable::OtherQuestion);
    }
    match flags & RCODE {
        _ if flags & TC != 0 => return Err(Unusable::Truncated),
        0 => {}
        NAME_ERROR => return Err(Unusable::NoSuchName),
        code => return Err(Unusable::Failed(u8::try_from(code).unwrap_or(u8::MAX))),
    }
    if records > RECORDS_MAX {
        return Err(Unusable::TooLong);
    }
    let (name, _) = Spelled::read(message, HEADER).ok_or(Unusable::Malformed)?;
    let at = HEADER.saturating_add(question.len());
    let records = Records { message, at, left: records };
    // All of them must be sound before any counts.
    if records.clone().any(|record| record.is_none()) {
        return Err(Unusable::Malformed);
    }
    let (owner, ttl) = follow(name, records.clone().flatten())?;
    let mut answer = Answer::default();
    for record in records.flatten().filter(|record| record.owner.is(&owner)) {
        let Data::Addr(addr) = record.data else { continue };
        if Kind::of(addr) != kind || answer.told.iter().any(|told| told.addr == addr) {
            continue;
        }
        let told = Told { addr, ttl: ttl.min(record.ttl) };
        answer.more |= answer.told.try_push(told).is_err();
    }
    Ok(answer)
}

/// The name at the end of the aliases of `name`, and the shortest time to live on the way.
fn follow<'m>(
    mut name: Spelled<'m>,
    records: impl Iterator<Item = Record<'m>> + Clone,
) -> Result<(Spelled<'m>, u32), Unusable> {
    let mut ttl = u32::MAX;
    for _ in 0..=ALIASES_MAX {
        let mut aliases = records.clone().filter_map(|record| match record.data {
            Data::Alias(target) if record.owner.is(&name) => Some((target, record.ttl)),
            _ => None,
        });
        let Some((target, lives)) = aliases.next() else { return Ok((name, ttl)) };
        // A name is an alias of one other (RFC 2181 section 10.1).
        if aliases.next().is_some() {
            return Err(Unusable::Malformed);
        }
        (name, ttl) = (target, ttl.min(lives));
    }
    Err(Unusable::TooLong)
}

/// The records of an answer section; `None` for one that cannot be read, and then no more.
#[derive(Clone)]
struct Records<'m> {
    message: &'m [u8],
    at: usize,
    left: u16,
}

#[derive(Clone, Copy)]
struct Record<'m> {
    owner: Spelled<'m>,
    ttl: u32,
    data: Data<'m>,
}

#[derive(Clone, Copy)]
enum Data<'m> {
    Addr(IpAddr),
    Alias(Spelled<'m>),
    Other,
}

impl<'m> Iterator for Records<'m> {
    type Item = Option<Record<'m>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let record = self.record();
        if record.is_none() {
            self.left = 0;
        }
        Some(record)
    }
}

impl<'m> Records<'m> {
    fn record(&mut self) -> Option<Record<'m>> {
        let (owner, at) = Spelled::read(self.message, self.at)?;
        let fixed: &[u8; 10] = self.message.get(at..)?.first_chunk()?;
        let [t0, t1, c0, c1, ttl @ .., l0, l1] = *fixed;
        let start = at.checked_add(fixed.len())?;
        let end = start.checked_add(u16::from_be_bytes([l0, l1]).into())?;
        let data = self.message.get(start..end)?;
        self.at = end;
        let data = match (u16::from_be_bytes([c0, c1]), u16::from_be_bytes([t0, t1])) {
            (IN, 1) => Data::Addr(IpAddr::from(<[u8; 4]>::try_from(data).ok()?)),
            (IN, 28) => Data::Addr(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
            (IN, CNAME) => {
                let (target, after) = Spelled::read(self.message, start)?;
                Data::Alias(Some(target).filter(|_| after == end)?)
            }
            _ => Data::Other,
        };
        // A time with its top bit set is none (RFC 2181 section 8).
        let ttl = Some(u32::from_be_bytes(ttl)).filter(|ttl| ttl >> 31 == 0).unwrap_or(0);
        Some(Record { owner, ttl, data })
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}
