//! The jobs the rig writes into XenStore.
//!
//! In: events of XenStore. Out: jobs, each once. Never: a job that was not understood; that is told.

#![forbid(unsafe_code)]

use crate::boot::say;
use crate::job::Job;
use alloc::string::String;
use xen::hypervisor::Memory;
use xen::store::{Client, Event, Op, Reply, RequestId, SubmitError, Tag, TxId};

const TAG: Tag = Tag(7);
/// Of this domain, writable by dom0; libxl makes `data`.
const NODE: &str = "data/load";

/// What the rig wants.
pub(crate) struct Orders {
    reading: Option<RequestId>,
    /// The last text, done or not.
    seen: String,
    next: Option<Job>,
}

impl Orders {
    pub(crate) fn new<M: Memory>(store: &mut Client<M>) -> Result<Self, SubmitError> {
        store.submit(TAG, TxId::NONE, &Op::Watch(NODE))?;
        Ok(Self { reading: None, seen: String::new(), next: None })
    }

    pub(crate) fn on_store<M: Memory>(&mut self, store: &mut Client<M>, event: &Event) {
        match event {
            Event::Watch { tag, .. } if *tag == TAG => {
                self.reading = store.submit(TAG, TxId::NONE, &Op::Read(NODE)).ok();
            }
            Event::Reply { tag, id, result: Ok(Reply::Value(value)) }
                if *tag == TAG && self.reading == Some(*id) =>
            {
                self.read(&String::from_utf8_lossy(value));
            }
            _ => {}
        }
    }

    /// A job differs from the one before at least in its number.
    fn read(&mut self, text: &str) {
        if text.is_empty() || text == self.seen {
            return;
        }
        self.seen = String::from(text);
        match Job::parse(text) {
            Ok(job) => self.next = Some(job),
            Err(word) => say(format_args!("load: {word:?} makes no sense in {text:?}")),
        }
    }

    pub(crate) fn next(&mut self) -> Option<Job> {
        self.next.take()
    }
}
