//! A daemon and its end of a channel: what the process does when its channel wakes it.
//!
//! In: ways to open a channel, and the channel. Out: bytes both ways, and the last words of a daemon that
//! dies. Never: reads before the other end is seen to be there, or misses what it sent before it went.

use crate::{Daemon, Death};

/// Bytes taken at once.
const ROOM: usize = 4096;

/// What an end says of the other one (libxenvchan_is_open).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// It has not come yet.
    NotYet,
    /// It is there.
    There,
    /// It has gone.
    Gone,
}

/// An end of a channel, as libxenvchan has it.
pub trait Channel: Sized {
    /// Why it cannot be opened, or hidden.
    type Error;

    /// The other end.
    fn other(&self) -> Other;

    /// Takes what has come, as far as it fits; how many bytes.
    fn read(&mut self, into: &mut [u8]) -> usize;

    /// Sends as much as there is room for; how many bytes.
    fn write(&mut self, from: &[u8]) -> usize;

    /// Removes what this end told in XenStore: nobody else is to find it.
    ///
    /// # Errors
    /// When XenStore refuses.
    fn hide(&mut self) -> Result<(), Self::Error>;

    /// Ends it.
    fn close(self);
}

/// A daemon and its channel.
pub struct Served<D, C> {
    /// The daemon.
    pub daemon: D,
    channel: Option<C>,
    /// Whether it makes its channel anew when that has ended.
    lasts: bool,
    met: bool,
    /// It does not run, or has died.
    stopped: bool,
}

impl<D: Daemon, C: Channel> Served<D, C> {
    /// A process that makes its channel anew whenever that has ended.
    pub const fn lasting(daemon: D) -> Self {
        Self { daemon, channel: None, lasts: true, met: false, stopped: false }
    }

    /// One for a single channel.
    pub const fn once(daemon: D) -> Self {
        Self { daemon, channel: None, lasts: false, met: false, stopped: false }
    }

    /// Its channel, while it has one.
    pub const fn channel(&self) -> Option<&C> {
        self.channel.as_ref()
    }

    /// The same, to be used.
    pub const fn channel_mut(&mut self) -> Option<&mut C> {
        self.channel.as_mut()
    }

    /// Whether the other end came and went.
    pub const fn has_ended(&self) -> bool {
        self.met && self.channel.is_none()
    }

    /// Whether it is without the channel it wants: [`turn`](Self::turn) tries to open it.
    pub const fn looks(&self) -> bool {
        !self.stopped && self.channel.is_none() && (self.lasts || !self.met)
    }

    /// Does what the process does when it is woken; what it says if it dies of that.
    ///
    /// # Errors
    /// Those of [`Channel`].
    pub fn turn(
        &mut self,
        open: impl FnOnce() -> Result<Option<C>, C::Error>,
    ) -> Result<Option<Death>, C::Error> {
        if self.looks() {
            self.met = false;
            self.channel = open()?;
        }
        let Some(channel) = &mut self.channel else { return Ok(None) };
        if !self.met {
            // Who comes while we look may have sent something already: it waits until it is met.
            if channel.other() == Other::NotYet {
                return Ok(None);
            }
            self.met = true;
            channel.hide()?;
            self.daemon.connected();
        }
        match exchange(&mut self.daemon, channel) {
            Ok(Other::Gone) => self.disconnect(),
            Ok(_) => {}
            Err(death) => {
                self.stop();
                return Ok(Some(death));
            }
        }
        Ok(None)
    }

    /// Ends the process, and with it the channel.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.disconnect();
    }

    /// Starts it again.
    pub const fn start(&mut self) {
        (self.stopped, self.met) = (false, false);
    }

    fn disconnect(&mut self) {
        self.daemon.disconnected();
        self.channel.take().into_iter().for_each(Channel::close);
    }
}

/// Moves bytes until none can be moved; what the other end was then.
fn exchange<C: Channel>(daemon: &mut impl Daemon, channel: &mut C) -> Result<Other, Death> {
    loop {
        // Looked at before reading: what it sent before it went is still there to be read.
        let other = channel.other();
        let mut bytes = [0; ROOM];
        let read = channel.read(&mut bytes);
        daemon.receive(bytes.get(..read).unwrap_or_default())?;
        let written = match other {
            Other::Gone => 0,
            Other::NotYet | Other::There => channel.write(daemon.outgoing()),
        };
        daemon.sent(written);
        if read < ROOM && written == 0 && other == channel.other() {
            return Ok(other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Call;
    use std::cell::{Cell, RefCell};
    use std::convert::Infallible;
    use std::rc::Rc;

    /// A machine that serves a call by itself: it comes at one look of ours and has ended at another,
    /// whatever we do between.
    #[derive(Default)]
    struct Machine {
        looks: Cell<usize>,
        comes: usize,
        goes: usize,
        sent: RefCell<Vec<u8>>,
        got: RefCell<Vec<u8>>,
    }

    struct End(Rc<Machine>);

    impl End {
        fn look(&self) {
            let look = self.0.looks.get();
            let mut sent = self.0.sent.borrow_mut();
            if look == self.0.comes {
                sent.extend(message(0x300, &3_u32.to_le_bytes()));
            }
            if look == self.0.goes {
                for (kind, body) in [(0x191, &b"out"[..]), (0x191, &[]), (0x193, &[0; 4])] {
                    sent.extend(message(kind, body));
                }
            }
            self.0.looks.set(look + 1);
        }
    }

    impl Channel for End {
        type Error = Infallible;

        fn other(&self) -> Other {
            self.look();
            match self.0.looks.get() {
                looks if looks <= self.0.comes => Other::NotYet,
                looks if looks <= self.0.goes => Other::There,
                _ => Other::Gone,
            }
        }

        fn read(&mut self, into: &mut [u8]) -> usize {
            self.look();
            let mut sent = self.0.sent.borrow_mut();
            let len = sent.len().min(into.len());
            into.iter_mut().zip(sent.drain(..len)).for_each(|(to, from)| *to = from);
            len
        }

        fn write(&mut self, from: &[u8]) -> usize {
            self.look();
            self.0.got.borrow_mut().extend(from);
            from.len()
        }

        fn hide(&mut self) -> Result<(), Infallible> {
            Ok(())
        }

        fn close(self) {}
    }

    fn message(kind: u32, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len()).unwrap();
        [&kind.to_le_bytes(), &len.to_le_bytes(), body].concat()
    }

    #[test]
    fn a_call_is_greeted_first_and_heard_to_its_end_whenever_the_machine_comes_and_goes() {
        let hello = message(0x300, &3_u32.to_le_bytes());
        for comes in 0..12 {
            for goes in comes + 1..24 {
                let machine = Rc::new(Machine { comes, goes, ..Machine::default() });
                let mut served = Served::once(Call::caller(b"input"));
                for _turn in 0..24 {
                    served.turn(|| Ok(Some(End(Rc::clone(&machine))))).unwrap();
                }
                let outcome = served.daemon.outcome();
                let seen = (served.has_ended(), outcome.exit, outcome.output.as_slice());
                assert_eq!(seen, (true, Some(0), &b"out"[..]), "came at {comes}, went at {goes}");
                let got = machine.got.borrow();
                assert!(got.is_empty() || got.starts_with(&hello), "came at {comes}: {got:?}");
            }
        }
    }
}
