//! A daemon and its end of a channel.

use super::vchan::{LibXenVchan, Vchan};
use daemons::Daemon;
use std::io;
use std::rc::Rc;

/// Bytes a ring is to hold at least.
const ROOM: usize = 4096;

/// With whom, where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) domain: u16,
    pub(super) port: u32,
    /// Whether this end makes the channel.
    pub(super) serves: bool,
}

/// A daemon and its channel.
pub(super) struct Served<D> {
    pub(super) daemon: D,
    pub(super) vchan: Option<Vchan>,
    place: Place,
    met: bool,
    stopped: bool,
}

impl<D: Daemon> Served<D> {
    pub(super) fn new(daemon: D, place: Place) -> Self {
        Self { daemon, vchan: None, place, met: false, stopped: false }
    }

    /// Does what the process does when its channel wakes it; its last words if it dies. One that
    /// lost its channel makes it `again`.
    pub(super) fn turn(
        &mut self,
        library: &Rc<LibXenVchan>,
        again: bool,
    ) -> io::Result<Option<String>> {
        if self.stopped {
            return Ok(None);
        }
        if self.vchan.is_none() && (again || !self.met) {
            self.met = false;
            self.vchan = self.open(library)?;
        }
        let Some(vchan) = &mut self.vchan else { return Ok(None) };
        if !self.met && vchan.is_open() == 1 {
            self.met = true;
            if self.place.serves {
                crate::store::remove(&self.place.path())?;
            }
            self.daemon.connected();
        }
        let mut open = true;
        let gone = loop {
            // Looked at before reading: what it sent before it went is still there to be read.
            let gone = vchan.is_open() != 1;
            let mut bytes = vec![0; ROOM];
            let read = vchan.read(&mut bytes);
            open &= read.is_ok();
            let read = read.unwrap_or(0);
            if let Err(death) = self.daemon.receive(bytes.get(..read).unwrap_or_default()) {
                self.stop();
                return Ok(Some(death.0));
            }
            let out = if self.met && open { self.daemon.outgoing() } else { &[] };
            let written = vchan.write(out).unwrap_or(0);
            self.daemon.sent(written);
            if read < ROOM && written == 0 && (gone || vchan.is_open() == 1) {
                break gone;
            }
        };
        if self.met && gone {
            self.daemon.disconnected();
            self.vchan = None;
        }
        Ok(None)
    }

    /// Whether the other end came and went.
    pub(super) const fn has_ended(&self) -> bool {
        self.met && self.vchan.is_none()
    }

    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.daemon.disconnected();
        self.vchan = None;
    }

    pub(super) const fn start(&mut self) {
        (self.stopped, self.met) = (false, false);
    }

    fn open(&self, library: &Rc<LibXenVchan>) -> io::Result<Option<Vchan>> {
        let path = self.place.path();
        if self.place.serves {
            return library.server(self.place.domain, &path, ROOM).map(Some);
        }
        // Who is not there yet is looked for again.
        Ok(library.client(self.place.domain, &path).ok())
    }
}

impl Place {
    fn path(&self) -> String {
        let (server, client) = if self.serves { (0, self.domain) } else { (self.domain, 0) };
        format!("/local/domain/{server}/data/vchan/{client}/{}", self.port)
    }
}
