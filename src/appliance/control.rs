//! What the toolstack asks of the whole domain: `control/shutdown` (xenstore-paths.pandoc).
//!
//! In: XenStore events. Out: the shutdown to do, once its acknowledgement stands in XenStore.
//! Never: acts on a request it has not acknowledged, or offers to suspend: without
//! `control/feature-suspend` the toolstack pauses the domain instead, which loses nothing.

use alloc::string::String;
use core::time::Duration;
use wire::Instant;
use xen::hypervisor::{Memory, Shutdown};
use xen::store::{Client, Event, Op, Reply, RequestId, StoreError, SubmitError, Tag, TxId};

const SHUTDOWN: &str = "control/shutdown";

/// How long the acknowledgement may take before the order is obeyed without it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A value of `control/shutdown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// Nothing is asked; also what an acknowledgement leaves behind.
    Nothing,
    /// End in this way.
    Shutdown(Shutdown),
    /// Known, and not done.
    Suspend,
    /// Anything else.
    Unknown,
}

impl Request {
    /// Reads the node's value. `halt` is taken for `poweroff`, as by Linux.
    #[must_use]
    fn parse(value: &[u8]) -> Self {
        match value {
            b"" => Self::Nothing,
            b"poweroff" | b"halt" => Self::Shutdown(Shutdown::Poweroff),
            b"reboot" => Self::Shutdown(Shutdown::Reboot),
            b"suspend" => Self::Suspend,
            _ => Self::Unknown,
        }
    }
}

/// What [`Control::on_store`] found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A request that was acknowledged and ignored, for the log.
    Ignored(String),
    /// A node that could not be written, for the log.
    Refused(&'static str, StoreError),
}

/// The watch on `control/shutdown` and what is under way for it.
#[derive(Debug)]
pub(super) struct Control {
    tag: Tag,
    reading: Option<RequestId>,
    /// It changed while it was being read.
    again: bool,
    acknowledging: Option<(RequestId, Shutdown, Instant)>,
    /// The domain is to end now.
    due: Option<Shutdown>,
}

impl Control {
    /// Says what this domain can be asked for and watches for it.
    ///
    /// # Errors
    /// [`SubmitError`] if XenStore cannot even be asked.
    pub(super) fn start<M: Memory>(store: &mut Client<M>, tag: Tag) -> Result<Self, SubmitError> {
        for feature in ["control/feature-poweroff", "control/feature-reboot"] {
            store.submit(tag, TxId::NONE, &Op::Write(feature, b"1"))?;
        }
        store.submit(tag, TxId::NONE, &Op::Watch(SHUTDOWN))?;
        Ok(Self { tag, reading: None, again: false, acknowledging: None, due: None })
    }

    /// How the domain is to end, if it is.
    pub(super) fn due(&self, now: Instant) -> Option<Shutdown> {
        match self.acknowledging {
            Some((_, why, since)) if now.since(since) >= PATIENCE => Some(why),
            _ => self.due,
        }
    }

    /// Takes an event with the tag given at the start.
    pub(super) fn on_store<M: Memory>(
        &mut self,
        now: Instant,
        store: &mut Client<M>,
        event: &Event,
    ) -> Option<Found> {
        match event {
            Event::Watch { .. } if self.reading.is_some() => {
                self.again = true;
                None
            }
            Event::Watch { .. } => {
                self.read(store);
                None
            }
            Event::Reply { id, result, .. } if self.reading == Some(*id) => {
                self.reading = None;
                if core::mem::take(&mut self.again) {
                    self.read(store);
                    return None;
                }
                let value = match result {
                    Ok(Reply::Value(value)) => value.as_slice(),
                    _ => b"",
                };
                self.obey(now, store, value)
            }
            Event::Reply { id, result, .. } => {
                if let Some((waited, why, _)) = self.acknowledging
                    && waited == *id
                {
                    self.acknowledging = None;
                    self.due = Some(why);
                }
                result.as_ref().err().map(|error| Found::Refused("control", *error))
            }
            Event::Broken(_) => None,
        }
    }

    fn read<M: Memory>(&mut self, store: &mut Client<M>) {
        self.reading = store.submit(self.tag, TxId::NONE, &Op::Read(SHUTDOWN)).ok();
    }

    fn obey<M: Memory>(
        &mut self,
        now: Instant,
        store: &mut Client<M>,
        value: &[u8],
    ) -> Option<Found> {
        let request = Request::parse(value);
        if request == Request::Nothing {
            return None;
        }
        let sent = store.submit(self.tag, TxId::NONE, &Op::Write(SHUTDOWN, b""));
        match (request, sent) {
            (Request::Shutdown(why), Ok(id)) => {
                self.acknowledging = Some((id, why, now));
                None
            }
            (Request::Shutdown(why), Err(_)) => {
                self.due = Some(why);
                None
            }
            _ => Some(Found::Ignored(value.escape_ascii().take(64).map(char::from).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_known_words_end_the_domain() {
        let table: [(&[u8], Request); 7] = [
            (b"", Request::Nothing),
            (b"poweroff", Request::Shutdown(Shutdown::Poweroff)),
            (b"halt", Request::Shutdown(Shutdown::Poweroff)),
            (b"reboot", Request::Shutdown(Shutdown::Reboot)),
            (b"suspend", Request::Suspend),
            (b"Poweroff", Request::Unknown),
            (b"poweroff\0", Request::Unknown),
        ];
        for (value, request) in table {
            assert_eq!(Request::parse(value), request, "{}", value.escape_ascii());
        }
    }
}
