//! DNS messages (RFC 1035 section 4): one question, addresses in the answer. Nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Question types.
pub(crate) const A: u16 = 1;
/// IPv6 address (RFC 3596).
pub(crate) const AAAA: u16 = 28;
const IN: u16 = 1;
const RESPONSE: u8 = 0x80;

/// A question as it stands in a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) id: u16,
    /// With dots, without the last one.
    pub(crate) name: String,
    pub(crate) kind: u16,
}

/// A query for a name.
pub(crate) fn query(question: &Question) -> Vec<u8> {
    // flags: recursion desired; one question
    message(question, [0x01, 0x00], 0, &[])
}

/// The answer to a question: one record.
pub(crate) fn response(question: &Question, address: IpAddr) -> Vec<u8> {
    let (kind, data) = match address {
        IpAddr::V4(v4) => (A, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AAAA, v6.octets().to_vec()),
    };
    let mut record = vec![0xc0, 12]; // the name of the question, at offset 12
    record.extend(kind.to_be_bytes());
    record.extend(IN.to_be_bytes());
    record.extend(60_u32.to_be_bytes());
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(data);
    message(question, [RESPONSE | 0x05, 0x80], 1, &record)
}

fn message(question: &Question, flags: [u8; 2], answers: u16, records: &[u8]) -> Vec<u8> {
    let mut bytes = question.id.to_be_bytes().to_vec();
    bytes.extend(flags);
    for count in [1, answers, 0, 0] {
        bytes.extend(count.to_be_bytes());
    }
    for label in question.name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(question.kind.to_be_bytes());
    bytes.extend(IN.to_be_bytes());
    bytes.extend(records);
    bytes
}

/// Reads the question of a message, and where its records begin.
pub(crate) fn question(bytes: &[u8]) -> Option<(Question, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(bytes.get(at..at + length)?).into_owned());
        at += length;
    }
    let question = Question { id: word(bytes, 0)?, name: labels.join("."), kind: word(bytes, at)? };
    Some((question, at + 4))
}

/// Reads the addresses of a response whose records all name the question.
pub(crate) fn addresses(bytes: &[u8]) -> Option<(u16, Vec<IpAddr>)> {
    let (question, mut at) = question(bytes)?;
    let mut found = Vec::new();
    for _ in 0..word(bytes, 6)? {
        let length = usize::from(word(bytes, at + 10)?);
        let data = bytes.get(at + 12..at + 12 + length)?;
        match word(bytes, at + 2)? {
            A => found.push(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into()),
            AAAA => found.push(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into()),
            _ => {}
        }
        at += 12 + length;
    }
    Some((question.id, found))
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_carries_the_question_and_the_address() {
        let asked = Question { id: 0xbeef, name: "www.example.test".into(), kind: AAAA };
        assert_eq!(question(&query(&asked)).unwrap().0, asked);
        let address: IpAddr = "2001:db8::34".parse().unwrap();
        assert_eq!(addresses(&response(&asked, address)).unwrap(), (0xbeef, vec![address]));
    }

    #[test]
    fn a_cut_message_is_none() {
        let asked = Question { id: 1, name: "a.test".into(), kind: A };
        let whole = response(&asked, Ipv4Addr::LOCALHOST.into());
        assert!((0..whole.len()).all(|end| addresses(&whole[..end]).is_none()));
    }
}
