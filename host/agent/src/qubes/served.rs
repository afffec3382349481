//! A daemon, where its channel is, and the channel.

use super::vchan::{LibXenVchan, Vchan};
use daemons::{Daemon, Served};
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

/// A daemon with its place.
pub(super) struct Placed<D> {
    pub(super) served: Served<D, Vchan>,
    place: Place,
}

impl<D: Daemon> Placed<D> {
    /// One that makes its channel anew whenever that has ended.
    pub(super) const fn lasting(daemon: D, place: Place) -> Self {
        Self { served: Served::lasting(daemon), place }
    }

    /// One for a single channel.
    pub(super) const fn once(daemon: D, place: Place) -> Self {
        Self { served: Served::once(daemon), place }
    }

    /// Does what the process does when its channel wakes it; its last words if it dies.
    pub(super) fn turn(&mut self, library: &Rc<LibXenVchan>) -> io::Result<Option<String>> {
        let place = self.place;
        Ok(self.served.turn(|| place.open(library))?.map(|death| death.0))
    }
}

impl Place {
    fn open(self, library: &Rc<LibXenVchan>) -> io::Result<Option<Vchan>> {
        let (server, client) = if self.serves { (0, self.domain) } else { (self.domain, 0) };
        let path = format!("/local/domain/{server}/data/vchan/{client}/{}", self.port);
        if self.serves {
            return library.server(self.domain, &path, ROOM).map(Some);
        }
        // Who is not there yet is looked for again.
        Ok(library.client(self.domain, &path).ok())
    }
}
