//! HTTP, as little as a fetch needs: `GET /N` brings N bytes of the pattern.

use super::{at, pattern};
use agent::probe::Fetched;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const CHUNK: u64 = 16_384;

/// Serves until killed.
pub(crate) fn serve(address: SocketAddr) -> io::Result<()> {
    for stream in TcpListener::bind(address).map_err(at(address))?.incoming() {
        let stream = stream?;
        println!("http from {}", stream.peer_addr()?);
        thread::spawn(move || answer(&stream));
    }
    Ok(())
}

fn answer(mut stream: &TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    let mut request = String::new();
    lines.read_line(&mut request)?;
    let mut header = String::new();
    while lines.read_line(&mut header)? > 2 {
        header.clear();
    }
    let size: Option<u64> =
        request.strip_prefix("GET /").and_then(|rest| rest.split(' ').next()?.parse().ok());
    let Some(size) = size else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut at = 0;
    while at < size {
        let end = size.min(at + CHUNK);
        stream.write_all(&(at..end).map(pattern).collect::<Vec<_>>())?;
        at = end;
    }
    Ok(())
}

/// Fetches `size` bytes and checks each of them.
pub(crate) fn fetch(to: SocketAddr, size: u64, patience: Duration) -> io::Result<Fetched> {
    let started = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, patience).map_err(at(to))?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(format!("GET /{size} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no HTTP status in {line:?}")))?;
    line.clear();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut body = Vec::new();
    reader.read_to_end(&mut body)?;
    let bytes = body.len() as u64;
    let intact = bytes == size && body.iter().zip(0..).all(|(byte, at)| *byte == pattern(at));
    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Fetched { status, bytes, intact, millis })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_brings_every_byte_in_place() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || answer(&listener.accept().unwrap().0));
        let got = fetch(address, 40_000, Duration::from_secs(30)).unwrap();
        assert_eq!((got.status, got.bytes, got.intact), (200, 40_000, true));
    }
}
