//! A resolver that knows one pair of addresses, over UDP and TCP, and a client that asks for both
//! on one socket, as the resolver of libc does.

use super::at;
use super::dns_wire::{A, AAAA, Question, addresses, query, question, response};
use agent::probe::DnsAnswer;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

const V4: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 34);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x34);

/// Answers every A and AAAA question until killed.
pub(crate) fn serve(address: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(address).map_err(at(address))?;
    let listener = TcpListener::bind(address).map_err(at(address))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve_connection(stream));
        }
    });
    let mut buffer = [0; 1500];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer)?;
        if let Some(bytes) = buffer.get(..length).and_then(|bytes| answer(bytes, "udp", peer)) {
            let _ = socket.send_to(&bytes, peer);
        }
    }
}

fn serve_connection(mut stream: TcpStream) -> io::Result<()> {
    let peer = stream.peer_addr()?;
    while let Ok(bytes) = read_framed(&mut stream) {
        if let Some(bytes) = answer(&bytes, "tcp", peer) {
            write_framed(&mut stream, &bytes)?;
        }
    }
    Ok(())
}

fn answer(bytes: &[u8], way: &str, peer: SocketAddr) -> Option<Vec<u8>> {
    let (question, _) = question(bytes)?;
    println!("dns {way} {} type {} from {peer}", question.name, question.kind);
    let address = match question.kind {
        A => IpAddr::V4(V4),
        AAAA => IpAddr::V6(V6),
        _ => return None,
    };
    Some(response(&question, address))
}

/// Sends A and AAAA at once from one socket and gathers both answers.
pub(crate) fn ask(
    resolver: SocketAddr,
    name: &str,
    tcp: bool,
    patience: Duration,
) -> io::Result<Vec<DnsAnswer>> {
    let questions = [(0x1001, A), (0x1002, AAAA)]
        .map(|(id, kind)| query(&Question { id, name: name.to_owned(), kind }));
    let mut answers = Vec::new();
    if tcp {
        let mut stream = TcpStream::connect_timeout(&resolver, patience).map_err(at(resolver))?;
        stream.set_read_timeout(Some(patience))?;
        for question in &questions {
            write_framed(&mut stream, question)?;
        }
        while answers.len() < questions.len() {
            answers.push(parse(&read_framed(&mut stream)?, stream.peer_addr()?)?);
        }
    } else {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(patience))?;
        for question in &questions {
            socket.send_to(question, resolver)?;
        }
        let mut buffer = [0; 1500];
        while answers.len() < questions.len() {
            let (length, from) = socket.recv_from(&mut buffer).map_err(|e| {
                io::Error::new(e.kind(), format!("after {answers:?} from {resolver}: {e}"))
            })?;
            answers.push(parse(buffer.get(..length).unwrap_or_default(), from)?);
        }
    }
    Ok(answers)
}

fn parse(bytes: &[u8], from: SocketAddr) -> io::Result<DnsAnswer> {
    let (_, addresses) = addresses(bytes).ok_or_else(|| io::Error::other("malformed response"))?;
    Ok(DnsAnswer { from, addresses })
}

/// RFC 1035 section 4.2.2: over TCP each message follows its length.
fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.extend(message);
    stream.write_all(&framed)
}

fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}
