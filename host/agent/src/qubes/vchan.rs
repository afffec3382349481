//! libxenvchan (libxenvchan.h of Xen 4.17), loaded when it is needed: only dom0 has it.
//!
//! In: domains and bytes. Out: bytes. Never: waits for the other end.

#![allow(unsafe_code, reason = "a C library")]

use daemons::{Channel, Other};
use libloading::Library;
use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;

const NAME: &str = "libxenvchan.so.4.17";

/// `struct libxenvchan`: only where its flags stand matters here.
#[repr(C)]
struct Handle {
    grants: *mut c_void,
    ring: *mut c_void,
    event: *mut c_void,
    event_port: u32,
    /// is_server:1, server_persist:1, blocking:1.
    flags: u32,
}

const SERVER_PERSIST: u32 = 2;
const BLOCKING: u32 = 4;

type ServerInit =
    unsafe extern "C" fn(*mut c_void, c_int, *const c_char, usize, usize) -> *mut Handle;
type ClientInit = unsafe extern "C" fn(*mut c_void, c_int, *const c_char) -> *mut Handle;
type Read = unsafe extern "C" fn(*mut Handle, *mut c_void, usize) -> c_int;
type Write = unsafe extern "C" fn(*mut Handle, *const c_void, usize) -> c_int;
type Ask = unsafe extern "C" fn(*mut Handle) -> c_int;
type Close = unsafe extern "C" fn(*mut Handle);

/// The library.
pub(crate) struct LibXenVchan {
    server_init: ServerInit,
    client_init: ClientInit,
    read: Read,
    write: Write,
    wait: Ask,
    is_open: Ask,
    fd: Ask,
    close: Close,
    _library: Library,
}

/// One end of a channel.
pub(crate) struct Vchan {
    library: Rc<LibXenVchan>,
    handle: *mut Handle,
    /// What a server told in XenStore.
    told: Option<String>,
}

impl LibXenVchan {
    pub(crate) fn load() -> io::Result<Rc<Self>> {
        // SAFETY: the library's constructors do nothing, and each symbol has the type its header says.
        unsafe {
            let library = Library::new(NAME).map_err(io::Error::other)?;
            macro_rules! symbol {
                ($name:literal) => {
                    *library
                        .get(concat!("libxenvchan_", $name, "\0").as_bytes())
                        .map_err(io::Error::other)?
                };
            }
            Ok(Rc::new(Self {
                server_init: symbol!("server_init"),
                client_init: symbol!("client_init"),
                read: symbol!("read"),
                write: symbol!("write"),
                wait: symbol!("wait"),
                is_open: symbol!("is_open"),
                fd: symbol!("fd_for_select"),
                close: symbol!("close"),
                _library: library,
            }))
        }
    }

    /// Serves `path` for `domain`.
    pub(crate) fn server(
        self: &Rc<Self>,
        domain: u16,
        path: &str,
        room: usize,
    ) -> io::Result<Vchan> {
        let name = CString::new(path)?;
        let domain = c_int::from(domain);
        // SAFETY: no logger is given, the path is a C string; the library copies it.
        let handle =
            unsafe { (self.server_init)(std::ptr::null_mut(), domain, name.as_ptr(), room, room) };
        self.opened(handle, Some(path.to_owned()))
    }

    /// Connects to what `domain` serves at `path`.
    pub(crate) fn client(self: &Rc<Self>, domain: u16, path: &str) -> io::Result<Vchan> {
        let path = CString::new(path)?;
        // SAFETY: as above.
        let handle =
            unsafe { (self.client_init)(std::ptr::null_mut(), c_int::from(domain), path.as_ptr()) };
        self.opened(handle, None)
    }

    fn opened(self: &Rc<Self>, handle: *mut Handle, told: Option<String>) -> io::Result<Vchan> {
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the library has made it, and leaves these flags as malloc gave them.
        unsafe { (*handle).flags &= !(SERVER_PERSIST | BLOCKING) };
        Ok(Vchan { library: Rc::clone(self), handle, told })
    }
}

impl Vchan {
    /// Takes the signal that made the descriptor readable, so that the next one can come.
    pub(crate) fn take_signal(&mut self) {
        // SAFETY: the handle is open; it does not wait, as there is a signal.
        unsafe { (self.library.wait)(self.handle) };
    }

    /// Readable when the other end has signalled.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor lives as long as the handle.
        unsafe {
            let fd: RawFd = (self.library.fd)(self.handle);
            BorrowedFd::borrow_raw(fd)
        }
    }
}

impl Channel for Vchan {
    type Error = io::Error;

    fn other(&self) -> Other {
        // SAFETY: the handle is open.
        match unsafe { (self.library.is_open)(self.handle) } {
            1 => Other::There,
            2 => Other::NotYet,
            _ => Other::Gone,
        }
    }

    fn read(&mut self, into: &mut [u8]) -> usize {
        // SAFETY: the buffer is as long as said.
        let read =
            unsafe { (self.library.read)(self.handle, into.as_mut_ptr().cast(), into.len()) };
        // Negative where the other end has gone and left nothing.
        usize::try_from(read).unwrap_or(0)
    }

    fn write(&mut self, from: &[u8]) -> usize {
        if from.is_empty() {
            return 0;
        }
        // SAFETY: as above.
        let written =
            unsafe { (self.library.write)(self.handle, from.as_ptr().cast(), from.len()) };
        // Negative where the other end has gone.
        usize::try_from(written).unwrap_or(0)
    }

    fn hide(&mut self) -> io::Result<()> {
        self.told.take().map_or(Ok(()), |path| crate::store::remove(&path))
    }

    /// By dropping it.
    fn close(self) {}
}

impl Drop for Vchan {
    fn drop(&mut self) {
        // SAFETY: it is not used again.
        unsafe { (self.library.close)(self.handle) };
    }
}
