//! A TAP device: frames of one network interface of the machine, with what was left undone in them.
//!
//! In: its name, frames to send. Out: frames received. Never: waits for a frame, or makes more of the
//! machine's network than the device itself: it is brought up and given addresses by its owner.
#![allow(unsafe_code, reason = "ioctls")]

use crate::error::{Error, Tried};
use crate::vnet;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl, opcode};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use wire::{DropReason, Frame, Mac, Offload};

/// Longest frame: 64 KiB of IP and its Ethernet header.
pub(crate) const FRAME_MAX: usize = 65_535 + 14;

/// Longest name of an interface (IFNAMSIZ with its zero).
const NAME_MAX: usize = 15;

/// linux/if_tun.h.
const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
const TUNSETOFFLOAD: Opcode = opcode::write::<u32>(b'T', 208);
const TUNSETVNETHDRSZ: Opcode = opcode::write::<i32>(b'T', 216);
const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;
/// Blank checksums and TCP segmentation in both families, but not those with ECN bits that differ
/// from segment to segment: the kernel cuts these itself.
const TUN_F_CSUM_TSO4_TSO6: usize = 1 | 2 | 4;

/// `struct ifreq` of linux/if.h, as TUNSETIFF reads it.
#[repr(C)]
struct Request {
    name: [u8; NAME_MAX + 1],
    flags: i16,
    rest: [u8; 22],
}

/// A TAP that this program holds.
#[derive(Debug)]
pub(crate) struct Tap {
    name: String,
    file: File,
}

/// What is known of a TAP's interface.
#[derive(Debug)]
pub(crate) struct Interface {
    /// The machine's own address on it.
    pub(crate) mac: Mac,
    /// Longest IP packet in bytes.
    pub(crate) mtu: u16,
}

/// A frame received, or why there is none.
pub(crate) enum Received {
    /// The first so many bytes of the buffer.
    Frame(usize, Offload),
    /// One that nothing can be done with.
    Bad(DropReason),
    /// None is waiting.
    Nothing,
}

impl Tap {
    /// Takes the TAP `name`, and makes it first if there is none.
    pub(crate) fn open(name: &str) -> Result<Self, Error> {
        let mut request = Request {
            name: [0; NAME_MAX + 1],
            flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR,
            rest: [0; 22],
        };
        let is_name = !name.is_empty() && name.len() <= NAME_MAX && !name.contains(['/', '%']);
        let place = request.name.get_mut(..name.len()).filter(|_| is_name);
        place.ok_or_else(|| Error::Name(name.to_owned()))?.copy_from_slice(name.as_bytes());
        let failed = |tried| move |why: io::Error| Error::Tap { name: name.to_owned(), tried, why };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open("/dev/net/tun")
            .map_err(failed(Tried::Open))?;
        attach(&file, request).map_err(|why| failed(Tried::Attach)(why.into()))?;
        header_len(&file)
            .and_then(|()| offloads(&file))
            .map_err(|why| failed(Tried::Offload)(why.into()))?;
        Ok(Self { name: name.to_owned(), file })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What the machine says about its interface.
    pub(crate) fn interface(&self) -> Result<Interface, Error> {
        let read = |key: &str| {
            fs::read_to_string(format!("/sys/class/net/{}/{key}", self.name))
                .map_err(|why| self.error(Tried::Read, why))
        };
        let odd = || Error::Interface(self.name.clone());
        let mac = Mac::parse(read("address")?.trim()).ok_or_else(odd)?;
        let mtu = read("mtu")?.trim().parse().map_err(|_| odd())?;
        Ok(Interface { mac, mtu })
    }

    /// Takes the next frame, if there is one.
    pub(crate) fn receive(&self, buffer: &mut Buffer) -> Result<Received, Error> {
        let len = match (&self.file).read(&mut buffer.0) {
            Ok(len) => len,
            Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(Received::Nothing),
            Err(why) => return Err(self.error(Tried::Receive, why)),
        };
        let header = buffer.0.first_chunk().filter(|_| len > vnet::LEN);
        Ok(match header.map(|header| vnet::read(*header)) {
            Some(Ok(offload)) => Received::Frame(len - vnet::LEN, offload),
            Some(Err(reason)) => Received::Bad(reason),
            None => Received::Bad(DropReason::BadHeader),
        })
    }

    fn error(&self, tried: Tried, why: io::Error) -> Error {
        Error::Tap { name: self.name.clone(), tried, why }
    }

    /// Sends a frame: its head, then `body`. It is lost if the interface is down or does not take it.
    pub(crate) fn send(&self, head: &Frame<'_>, body: &[u8]) -> Result<(), DropReason> {
        let header = vnet::write(head).ok_or(DropReason::EgressOffload)?;
        let pieces = [&header, head.head, body].map(IoSlice::new);
        (&self.file).write_vectored(&pieces).map(drop).map_err(|_| DropReason::EgressDown)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Room for one frame and what stands before it.
pub(crate) struct Buffer(Box<[u8]>);

impl Buffer {
    pub(crate) fn new() -> Self {
        Self(vec![0; vnet::LEN + FRAME_MAX].into())
    }

    /// The first `len` bytes of the frame.
    pub(crate) fn frame(&self, len: usize) -> &[u8] {
        self.0.get(vnet::LEN..).and_then(|frame| frame.get(..len)).unwrap_or_default()
    }
}

fn attach(file: &File, mut request: Request) -> rustix::io::Result<()> {
    // SAFETY: TUNSETIFF reads, and writes back, a `struct ifreq`, of which `Request` has the layout
    // and the 40 bytes. Any bytes are a valid `Request`.
    unsafe { ioctl(file, Updater::<TUNSETIFF, Request>::new(&mut request)) }
}

fn header_len(file: &File) -> rustix::io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    unsafe { ioctl(file, Setter::<TUNSETVNETHDRSZ, i32>::new(vnet::LEN as i32)) }
}

fn offloads(file: &File) -> rustix::io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its flags as the argument itself, and follows no pointer.
    unsafe { ioctl(file, IntegerSetter::<TUNSETOFFLOAD>::new_usize(TUN_F_CSUM_TSO4_TSO6)) }
}
