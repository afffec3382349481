//! UDP and TCP echo, and a client that checks what comes back.

use super::{at, pattern};
use agent::probe::Echoes;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// Sends every datagram back where it came from.
pub(crate) fn serve_udp(address: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(address).map_err(at(address))?;
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer)?;
        let Some(datagram) = buffer.get(..length) else { continue };
        // A line for each, with what it says if that is text.
        let text = str::from_utf8(datagram).unwrap_or("").split(char::is_control).next();
        println!("udp {length} bytes from {peer} {}", text.unwrap_or(""));
        // An ICMP error for an earlier answer is no reason to stop serving.
        let _ = socket.send_to(datagram, peer);
    }
}

/// Sends every byte of every connection back.
pub(crate) fn serve_tcp(address: SocketAddr) -> io::Result<()> {
    for stream in TcpListener::bind(address).map_err(at(address))?.incoming() {
        let stream = stream?;
        println!("tcp from {}", stream.peer_addr()?);
        thread::spawn(move || io::copy(&mut &stream, &mut &stream));
    }
    Ok(())
}

/// Closes every connection as soon as it is there.
pub(crate) fn close_tcp(address: SocketAddr) -> io::Result<()> {
    for stream in TcpListener::bind(address).map_err(at(address))?.incoming() {
        // One that was reset before it was taken is as good as closed.
        drop(stream);
    }
    Ok(())
}

/// Sends `count` datagrams, one after the other's answer, and checks each answer's bytes and sender.
pub(crate) fn ask_udp(
    from: Ipv4Addr,
    to: SocketAddr,
    count: u32,
    size: usize,
    patience: Duration,
) -> io::Result<Echoes> {
    let socket = UdpSocket::bind((from, 0))?;
    let mut seen = Echoes { sent: 0, right: 0, wrong: 0, errors: 0 };
    let mut buffer = vec![0; 65_536];
    for number in 0..count {
        let start = u64::from(number) * 7919;
        let datagram: Vec<u8> = (start..).take(size).map(pattern).collect();
        match socket.send_to(&datagram, to) {
            Ok(_) => seen.sent += 1,
            Err(_) => seen.errors += 1,
        }
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            match socket.recv_from(&mut buffer) {
                Ok((length, from)) if from == to && buffer.get(..length) == Some(&datagram) => {
                    seen.right += 1;
                    break;
                }
                Ok(_) => seen.wrong += 1,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(_) => seen.errors += 1,
            }
        }
    }
    Ok(seen)
}
