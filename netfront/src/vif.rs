//! What one device has to do with XenStore: look at both directories, watch the backend, write.
//!
//! In: replies and the news that something changed. Out: a [`Look`] at the whole device, and how a
//! change of ours ended. Never: does two things at once, waits, or decides what is to be done.

use crate::bucket::Bucket;
use crate::life::Seen;
use crate::seen::{self, BACK, Back, Backend, Device, FRONT, Front, Problem};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use wire::Instant;
use xen::hypervisor::Memory;
use xen::store::{
    Change, Client, Gather, Key, Op, Outcome, Publish, Reply, RequestId, Step, StoreError, Tag,
    TxId,
};
use xen::xenbus::XenbusState;

/// Looks at once, and the interval of further ones, so that a backend that flips its state keeps
/// XenStore no busier than this.
const LOOKS: (u32, Duration) = (32, Duration::from_millis(10));
/// The same for messages about one device.
const MESSAGES: (u32, Duration) = (8, Duration::from_secs(2));
/// The same for links that did not last.
const LINKS: (u32, Duration) = (4, Duration::from_millis(500));
/// How long to leave XenStore alone when it refused something.
pub(crate) const REFUSED: Duration = Duration::from_secs(2);

/// One device as XenStore shows it.
pub(crate) struct Look {
    pub(crate) front: Front,
    pub(crate) back: Option<Back>,
}

impl Look {
    /// What the life table asks for; `linked` is the backend our rings are granted to.
    pub(crate) fn seen(&self, linked: Option<&Backend>) -> Seen {
        let device = self.device();
        let back = self.back.as_ref();
        Seen {
            exists: true,
            front: self.front.state,
            back: back.and_then(|back| back.state),
            online: back.is_none_or(|back| back.online),
            same: linked.is_none_or(|linked| device.is_some_and(|d| d.backend == *linked)),
            fit: device.is_some() && back.is_some_and(|back| back.unfit.is_none()),
        }
    }

    pub(crate) fn device(&self) -> Option<&Device> {
        self.front.device.as_ref()?.as_ref().ok()
    }

    /// The worst that is wrong with it.
    pub(crate) fn problem(&self) -> Option<&Problem> {
        if let Some(Err(problem)) = &self.front.device {
            return Some(problem);
        }
        let back = self.back.as_ref()?;
        back.unfit.as_ref().or(back.odd.as_ref())
    }
}

/// What a change of ours was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// State 1.
    Init,
    /// The rings and state 4.
    Offer,
    /// State 6.
    Close,
}

enum Doing {
    Nothing,
    ReadingFront(Gather),
    ReadingBack(Gather, Front),
    Writing(Publish, Wrote),
}

/// What came of a reply.
pub(crate) enum Heard {
    /// It was to somebody else.
    NotMine,
    /// More is awaited.
    Pending,
    /// The device was looked at: see [`Vif::look`].
    Looked,
    /// A change ended.
    Wrote(Wrote, Outcome),
    /// XenStore refused to be read or watched.
    Refused(&'static str, StoreError),
}

struct Watch {
    path: String,
    asked: Option<RequestId>,
}

/// One device under `device/vif`.
pub(crate) struct Vif {
    pub(crate) index: u32,
    pub(crate) dir: String,
    /// The last list of devices had it.
    pub(crate) listed: bool,
    /// What was seen last; `None` before the first look.
    pub(crate) look: Option<Look>,
    /// When to look again without being told.
    pub(crate) again: Option<Instant>,
    /// What may still be tried.
    pub(crate) links: Bucket,
    dirty: bool,
    doing: Doing,
    watch: Option<Watch>,
    looks: Bucket,
    messages: Bucket,
    reported: Option<Problem>,
}

impl Vif {
    pub(crate) fn new(index: u32) -> Self {
        let bucket = |(burst, every)| Bucket::new(burst, every);
        Self {
            index,
            dir: format!("device/vif/{index}"),
            listed: true,
            look: None,
            again: None,
            links: bucket(LINKS),
            dirty: true,
            doing: Doing::Nothing,
            watch: None,
            looks: bucket(LOOKS),
            messages: bucket(MESSAGES),
            reported: None,
        }
    }

    /// Something may have changed.
    pub(crate) const fn touch(&mut self) {
        self.dirty = true;
    }

    /// Looks again at `at` at the latest.
    pub(crate) fn again_at(&mut self, at: Instant) {
        self.again = Some(self.again.map_or(at, |before| before.min(at)));
    }

    /// Whether what was seen last is all that is known, and nothing is under way.
    pub(crate) const fn is_settled(&self) -> bool {
        matches!(self.doing, Doing::Nothing) && !self.dirty
    }

    /// Whether a change is under way: it must be driven to its end.
    pub(crate) const fn is_writing(&self) -> bool {
        matches!(self.doing, Doing::Writing(..))
    }

    /// Begins to look, if there is reason to and nothing else is under way.
    pub(crate) fn work<M: Memory>(&mut self, store: &mut Client<M>, tag: Tag, now: Instant) {
        if self.again.is_some_and(|at| at <= now) {
            self.again = None;
            self.dirty = true;
        }
        if !self.dirty || !self.listed || !matches!(self.doing, Doing::Nothing) {
            return;
        }
        if let Err(later) = self.looks.take(now) {
            self.again_at(later);
            return;
        }
        match read(store, tag, &self.dir, &FRONT) {
            Some(gather) => {
                self.dirty = false;
                self.doing = Doing::ReadingFront(gather);
            }
            None => self.again_at(now + REFUSED),
        }
    }

    /// Begins a change.
    pub(crate) fn write<M: Memory>(
        &mut self,
        store: &mut Client<M>,
        tag: Tag,
        wrote: Wrote,
        nodes: &[(&str, String)],
        state: XenbusState,
    ) -> Outcome {
        let dir = &self.dir;
        let mut changes: Vec<Change> = nodes
            .iter()
            .map(|(name, value)| Change::write(format!("{dir}/{name}"), value.as_bytes()))
            .collect();
        changes.push(Change::write(format!("{dir}/state"), state.as_str()));
        match Publish::start(store, tag, changes) {
            Ok(publish) => {
                self.doing = Doing::Writing(publish, wrote);
                Outcome::Done
            }
            Err(error) => Outcome::NotSubmitted(error),
        }
    }

    /// Takes a reply.
    pub(crate) fn hear<M: Memory>(
        &mut self,
        store: &mut Client<M>,
        tag: Tag,
        id: RequestId,
        result: &Result<Reply, StoreError>,
    ) -> Heard {
        if self.watch.as_ref().is_some_and(|watch| watch.asked == Some(id)) {
            return self.watched(result);
        }
        match core::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Nothing => Heard::NotMine,
            Doing::ReadingFront(mut gather) => match gather.on(id, result) {
                Step::NotMine => self.still(Doing::ReadingFront(gather), Heard::NotMine),
                Step::Pending => self.still(Doing::ReadingFront(gather), Heard::Pending),
                Step::Done(Ok(found)) => {
                    let front = seen::front(&self.dir, &found);
                    self.read_back(store, tag, front)
                }
                Step::Done(Err(error)) => Heard::Refused("be read", error.error),
            },
            Doing::ReadingBack(mut gather, front) => match gather.on(id, result) {
                Step::NotMine => self.still(Doing::ReadingBack(gather, front), Heard::NotMine),
                Step::Pending => self.still(Doing::ReadingBack(gather, front), Heard::Pending),
                Step::Done(Ok(found)) => {
                    let path = front.device.as_ref().and_then(|device| device.as_ref().ok());
                    let back = path.map(|device| seen::back(&device.backend.path, &found));
                    self.looked(front, back)
                }
                Step::Done(Err(error)) => Heard::Refused("read its backend", error.error),
            },
            Doing::Writing(mut publish, wrote) => match publish.on(store, id, result) {
                Step::NotMine => self.still(Doing::Writing(publish, wrote), Heard::NotMine),
                Step::Pending => self.still(Doing::Writing(publish, wrote), Heard::Pending),
                Step::Done(outcome) => Heard::Wrote(wrote, outcome),
            },
        }
    }

    fn still(&mut self, doing: Doing, heard: Heard) -> Heard {
        self.doing = doing;
        heard
    }

    fn read_back<M: Memory>(&mut self, store: &mut Client<M>, tag: Tag, front: Front) -> Heard {
        let Some(Ok(Device { backend: Backend { path, .. }, .. })) = &front.device else {
            return self.looked(front, None);
        };
        // Watched before it is read: no change goes by between the two.
        let following = self.follow(store, tag, path);
        match read(store, tag, path, &BACK) {
            Some(gather) if following => {
                self.doing = Doing::ReadingBack(gather, front);
                Heard::Pending
            }
            _ => Heard::Refused("read its backend", StoreError::Ebusy),
        }
    }

    fn looked(&mut self, front: Front, back: Option<Back>) -> Heard {
        self.look = Some(Look { front, back });
        Heard::Looked
    }

    /// Watches the state of the backend at `path`, and no other any more.
    fn follow<M: Memory>(&mut self, store: &mut Client<M>, tag: Tag, path: &str) -> bool {
        let path = format!("{path}/state");
        if self.watch.as_ref().is_some_and(|watch| watch.path == path) {
            return true;
        }
        if !self.unwatch(store, tag) {
            return false;
        }
        let asked = store.submit(tag, TxId::NONE, &Op::Watch(&path)).ok();
        self.watch = asked.map(|id| Watch { path, asked: Some(id) });
        self.watch.is_some()
    }

    fn watched(&mut self, result: &Result<Reply, StoreError>) -> Heard {
        match result {
            Ok(_) => {
                if let Some(watch) = &mut self.watch {
                    watch.asked = None;
                }
                Heard::Pending
            }
            Err(error) => {
                self.watch = None;
                Heard::Refused("watch its backend", *error)
            }
        }
    }

    /// Stops watching. `false` if that has to be tried again.
    pub(crate) fn unwatch<M: Memory>(&mut self, store: &mut Client<M>, tag: Tag) -> bool {
        let Some(watch) = &self.watch else { return true };
        let done = store.submit(tag, TxId::NONE, &Op::Unwatch(&watch.path)).is_ok();
        if done {
            self.watch = None;
        }
        done
    }

    /// Whether `problem` is to be told: not twice in a row, and not too many in a short time.
    pub(crate) fn is_news(&mut self, problem: &Problem, now: Instant) -> bool {
        let news = self.reported.as_ref() != Some(problem) && self.messages.take(now).is_ok();
        if news {
            self.reported = Some(problem.clone());
        }
        news
    }

    /// Whatever goes wrong from now on is news.
    pub(crate) fn all_well(&mut self) {
        self.reported = None;
    }
}

fn read<M: Memory>(store: &mut Client<M>, tag: Tag, dir: &str, names: &[&str]) -> Option<Gather> {
    let paths: Vec<String> = names.iter().map(|name| format!("{dir}/{name}")).collect();
    let keys = paths.iter().map(|path| Key::Value(path));
    Gather::start(store, tag, TxId::NONE, keys).ok()
}

/// The values that come with an offer of rings `refs`, without the state.
pub(crate) fn offer(refs: [(&'static str, u32); 3]) -> Vec<(&'static str, String)> {
    const CAN: [&str; 6] = [
        "request-rx-copy",
        "feature-rx-notify",
        "feature-sg",
        "feature-gso-tcpv4",
        "feature-gso-tcpv6",
        "feature-ipv6-csum-offload",
    ];
    let refs = refs.into_iter().map(|(name, number)| (name, number.to_string()));
    refs.chain(CAN.map(|name| (name, "1".to_string()))).collect()
}
