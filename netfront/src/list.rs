//! Which devices there are: the names under `device/vif`, watched.
//!
//! In: replies and watch events. Out: the indices, ascending. Never: more of them than
//! [`DEVICES_MAX`], whatever the directory holds.

use crate::seen::{Problem, decimal};
use crate::vif::REFUSED;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use wire::Instant;
use xen::hypervisor::Memory;
use xen::store::{Client, Gather, Key, Op, Reply, RequestId, Step, StoreError, Tag, TxId};

/// Devices we look at; the toolstack gives one or two.
pub(crate) const DEVICES_MAX: usize = 8;

/// Where they are, relative to our own domain.
pub(crate) const ROOT: &str = "device/vif";

/// The list of devices.
#[derive(Default)]
pub(crate) struct List {
    watch: Watch,
    dirty: bool,
    reading: Option<Gather>,
    pub(crate) again: Option<Instant>,
}

#[derive(Default)]
enum Watch {
    #[default]
    Wanted,
    Asked(RequestId),
    Set,
}

/// What came of a reply.
pub(crate) enum Listed {
    NotMine,
    Pending,
    Refused(StoreError),
    Devices(Vec<u32>, Option<Problem>),
}

impl List {
    /// Something may have changed.
    pub(crate) const fn touch(&mut self) {
        self.dirty = true;
    }

    /// Asks XenStore what there is to ask.
    pub(crate) fn work<M: Memory>(&mut self, store: &mut Client<M>, tag: Tag, now: Instant) {
        if self.again.is_some_and(|at| now < at) {
            return;
        }
        self.again = None;
        if matches!(self.watch, Watch::Wanted) {
            match store.submit(tag, TxId::NONE, &Op::Watch(ROOT)) {
                // The watch fires once by itself, but not if an older one stands under the same name.
                Ok(id) => (self.watch, self.dirty) = (Watch::Asked(id), true),
                Err(_) => self.again = Some(now + REFUSED),
            }
        }
        if self.dirty && self.reading.is_none() {
            self.reading = Gather::start(store, tag, TxId::NONE, [Key::Names(ROOT)]).ok();
            self.dirty = self.reading.is_none();
            if self.dirty {
                self.again = Some(now + REFUSED);
            }
        }
    }

    /// Takes a reply.
    pub(crate) fn hear(
        &mut self,
        id: RequestId,
        result: &Result<Reply, StoreError>,
        now: Instant,
    ) -> Listed {
        if matches!(self.watch, Watch::Asked(asked) if asked == id) {
            let refused = result.as_ref().err().filter(|error| **error != StoreError::Eexist);
            return match refused {
                None => {
                    self.watch = Watch::Set;
                    Listed::Pending
                }
                Some(error) => {
                    self.watch = Watch::Wanted;
                    self.again = Some(now + REFUSED);
                    Listed::Refused(*error)
                }
            };
        }
        let Some(mut gather) = self.reading.take() else { return Listed::NotMine };
        match gather.on(id, result) {
            Step::Done(Ok(found)) => {
                let names = found.first().and_then(|found| found.names()).unwrap_or_default();
                devices(names)
            }
            Step::Done(Err(error)) => {
                self.dirty = true;
                self.again = Some(now + REFUSED);
                Listed::Refused(error.error)
            }
            step => {
                self.reading = Some(gather);
                if step == Step::NotMine { Listed::NotMine } else { Listed::Pending }
            }
        }
    }
}

fn devices(names: &[String]) -> Listed {
    let bad = names.iter().find(|name| decimal::<u32>(name).is_none());
    let mut devices: Vec<u32> = names.iter().filter_map(|name| decimal(name)).collect();
    devices.sort_unstable();
    devices.dedup();
    let text = match (bad, devices.get(DEVICES_MAX)) {
        (Some(name), _) => {
            let name = name.get(..32).unwrap_or(name).escape_default();
            Some(format!("{ROOT}/{name} is not the number of a device"))
        }
        (None, Some(first)) => {
            Some(format!("{ROOT}/{first} and above are not looked at: too many devices"))
        }
        (None, None) => None,
    };
    devices.truncate(DEVICES_MAX);
    Listed::Devices(devices, text.map(Problem))
}
