//! Fragments that came before the first of their datagram.
//!
//! In: whole frames. Out: the same, once their first fragment has passed. Never: more than fit, more
//! of one sender than its share, or one kept for longer than `LIFETIME`.

use crate::DatagramId;
use crate::fragments::LIFETIME;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;
use wire::{Instant, Port, WHOLE_MAX};

/// Frames kept at once.
const PLACES: usize = 24;

/// Of one sender.
const PER_SENDER: usize = 8;

/// A frame that waits.
#[derive(Debug)]
struct Waiting {
    id: DatagramId,
    since: Instant,
    len: usize,
}

impl Waiting {
    const fn sender(&self) -> (Port, IpAddr) {
        (self.id.from, self.id.src)
    }
}

/// Frames that wait. Their senders need not be who they say, so there is one store for clients, who
/// are, and one for the world, whose senders can only cost each other such frames.
#[derive(Debug)]
pub struct Early {
    waiting: Vec<Option<Waiting>>,
    bytes: Box<[[u8; WHOLE_MAX]]>,
}

impl Default for Early {
    /// An empty store; all of its memory is taken here.
    fn default() -> Self {
        let bytes = alloc::vec![[0; WHOLE_MAX]; PLACES].into_boxed_slice();
        Self { waiting: (0..PLACES).map(|_| None).collect(), bytes }
    }
}

impl Early {
    /// Bytes of a store.
    pub const BYTES: usize = PLACES * (WHOLE_MAX + size_of::<Option<Waiting>>());

    /// Keeps a frame of at most [`WHOLE_MAX`] bytes. True if another was lost for it: the oldest of
    /// this sender if it has its share, otherwise the oldest of whoever has most.
    pub fn keep(&mut self, now: Instant, id: DatagramId, frame: &[u8]) -> bool {
        let (at, lost) = self.place(now, (id.from, id.src));
        let (Some(place), Some(waiting)) = (self.bytes.get_mut(at), self.waiting.get_mut(at))
        else {
            return false;
        };
        let len = frame.len().min(WHOLE_MAX);
        for (to, from) in place.iter_mut().zip(frame) {
            *to = *from;
        }
        *waiting = Some(Waiting { id, since: now, len });
        lost
    }

    /// Takes out the next frame of a datagram, in the order they came.
    pub fn next(&mut self, now: Instant, id: &DatagramId) -> Option<&[u8]> {
        let of_datagram =
            self.taken().filter(|(_, w)| w.id == *id && now.since(w.since) < LIFETIME);
        let (at, len) = of_datagram.min_by_key(|(_, w)| w.since).map(|(at, w)| (at, w.len))?;
        *self.waiting.get_mut(at)? = None;
        self.bytes.get(at)?.get(..len)
    }

    /// Forgets what came by an interface that is gone; says how many frames it were.
    pub fn forget(&mut self, from: Port) -> usize {
        let mut lost = 0;
        for place in &mut self.waiting {
            lost += usize::from(place.take_if(|waiting| waiting.id.from == from).is_some());
        }
        lost
    }

    fn taken(&self) -> impl Iterator<Item = (usize, &Waiting)> {
        self.waiting.iter().enumerate().filter_map(|(at, place)| Some((at, place.as_ref()?)))
    }

    /// A place for a frame of `sender`, and whether a frame is lost for it.
    fn place(&self, now: Instant, sender: (Port, IpAddr)) -> (usize, bool) {
        let count = |of| self.taken().filter(|(_, waiting)| waiting.sender() == of).count();
        let oldest = |(_, waiting): &(usize, &Waiting)| waiting.since;
        let own = || self.taken().filter(|(_, waiting)| waiting.sender() == sender);
        if count(sender) >= PER_SENDER {
            return (own().min_by_key(oldest).map_or(0, |(at, _)| at), true);
        }
        if let Some(vacant) = self.waiting.iter().position(Option::is_none) {
            return (vacant, false);
        }
        if let Some((over, _)) = self.taken().find(|(_, w)| now.since(w.since) >= LIFETIME) {
            return (over, true);
        }
        let most = |(_, w): &(usize, &Waiting)| (core::cmp::Reverse(count(w.sender())), w.since);
        (self.taken().min_by_key(most).map_or(0, |(at, _)| at), true)
    }
}
