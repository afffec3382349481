//! The XenStore side of one vif: looks at the nodes, asks the table of `life`, does the step.
//!
//! In: watch events, replies, time. Out: at most one job under way in XenStore, notices, and the link
//! made or cut. Never: more than a bounded number of looks a second, however often the client changes
//! its state; more than one job at a time; a write to a directory that is gone.

use crate::life::{Ours, Seen, Step, hold, next};
use crate::link::Link;
use crate::nodes::{self, IDENTITY, Identity, TERMS, VifId};
use crate::notice::{Notice, Notices};
use crate::vif::Vif;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;
use core::time::Duration;
use wire::Instant;
use xen::hypervisor::{Hypervisor, Memory};
use xen::store::{
    Change, Client, Found, Gather, GatherError, Key, Op, Outcome, Publish, Reply, RequestId,
    Step as Progress, StoreError, SubmitError, Tag, TxId,
};
use xen::xenbus::XenbusState;

/// How often a frontend is looked at for which XenStore granted no watch.
const POLL: Duration = Duration::from_secs(1);
/// When a request is tried again that our own client of XenStore had no room for.
const NO_ROOM: Duration = Duration::from_millis(150);
/// When a request that XenStore refused is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Looks that may follow each other at once, and the distance of those beyond.
const LOOKS_AT_ONCE: u32 = 16;
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// The same for changes of the frontend's state that XenStore tells us of: beyond, its watch is given up
/// for a while, so that the events of one client do not stand before the answers about all others.
const EVENTS_AT_ONCE: u32 = 64;
const EVENT_EVERY: Duration = LOOK_EVERY;

/// What we offer, where it differs from what a missing node means: nodes count against our quota.
const FEATURES: [&str; 5] = [
    "feature-rx-copy",
    "feature-sg",
    "feature-gso-tcpv4",
    "feature-gso-tcpv6",
    "feature-ipv6-csum-offload",
];

/// What a step is done with.
pub(crate) struct Context<'a, H, M> {
    pub(crate) h: &'a mut H,
    pub(crate) store: &'a mut Client<M>,
    pub(crate) now: Instant,
    pub(crate) notices: &'a mut Notices,
}

/// The watch on the frontend's state.
#[derive(Debug)]
enum Watch {
    None,
    Asked(RequestId),
    Set,
    /// XenStore has no room for it: the state is polled.
    Refused,
    /// Given up until this time, as the frontend was too busy.
    Muted(Instant),
}

/// What is under way in XenStore.
#[derive(Debug)]
enum Job {
    Look(Gather),
    Terms(Gather),
    Offer(Publish),
    /// A state being written, or the directory being removed.
    Write(RequestId, Option<XenbusState>),
}

/// Whether a vif goes on to exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Stays,
    /// Its directory is gone.
    Gone,
    /// Its directory was removed and made anew.
    Reborn,
}

/// One vif with its life.
pub(crate) struct Entry<H: Hypervisor> {
    pub(crate) vif: Vif<H>,
    dir: String,
    tag: Tag,
    identity: Option<Identity>,
    watch: Watch,
    job: Option<Job>,
    /// Something may have changed since the last look.
    dirty: bool,
    /// The frontend broke the protocol, and has not started over since.
    broken: bool,
    /// We have written a state: a new directory would start at 1 again.
    begun: bool,
    /// What the toolstack can read, as last seen or written, and since when: our state, and whether
    /// we are to be online.
    shown: (Option<XenbusState>, bool),
    since: Instant,
    /// When to look even if nothing changes.
    deadline: Option<Instant>,
    /// Each look moves it on; too far ahead of now, looks have to wait.
    looks: Instant,
    /// The same for events.
    events: Instant,
    quiet_until: Instant,
    /// The problem that was told last: it is not told again before something has changed.
    told: Option<String>,
    /// It stands in line for its next job.
    pub(crate) in_line: bool,
    fate: Fate,
}

impl<H: Hypervisor> Entry<H> {
    pub(crate) fn new(vif: Vif<H>, tag: Tag) -> Self {
        Self {
            dir: vif.id().dir(),
            vif,
            tag,
            identity: None,
            watch: Watch::None,
            job: None,
            dirty: true,
            broken: false,
            begun: false,
            shown: (None, true),
            since: Instant::ZERO,
            deadline: None,
            looks: Instant::ZERO,
            events: Instant::ZERO,
            in_line: false,
            quiet_until: Instant::ZERO,
            told: None,
            fate: Fate::Stays,
        }
    }

    pub(crate) const fn id(&self) -> VifId {
        self.vif.id()
    }

    pub(crate) const fn fate(&self) -> Fate {
        self.fate
    }

    /// When [`advance`](Self::advance) is needed at the latest.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The path watched for this vif, if there is one (or will be).
    pub(crate) fn watched(&self) -> Option<String> {
        matches!(self.watch, Watch::Asked(_) | Watch::Set).then(|| self.front_state())?
    }

    pub(crate) const fn tag(&self) -> Tag {
        self.tag
    }

    /// Whether a job is under way in XenStore.
    pub(crate) const fn is_working(&self) -> bool {
        self.job.is_some()
    }

    /// Something has changed, or may have.
    pub(crate) const fn touch(&mut self) {
        self.dirty = true;
    }

    /// XenStore says that the frontend's state was written.
    pub(crate) fn on_watch<M: Memory>(&mut self, cx: &mut Context<'_, H, M>) {
        self.dirty = true;
        self.events = self.events.max(cx.now) + EVENT_EVERY;
        if self.events - EVENT_EVERY * EVENTS_AT_ONCE > cx.now
            && matches!(self.watch, Watch::Set)
            && let Some(path) = self.front_state()
            && cx.store.submit(self.tag, TxId::NONE, &Op::Unwatch(&path)).is_ok()
        {
            self.watch = Watch::Muted(cx.now + POLL);
            self.wake_at(cx.now + POLL);
        }
    }

    /// Starts the next look if one is due.
    pub(crate) fn advance<M: Memory>(&mut self, cx: &mut Context<'_, H, M>) {
        if let Some(fault) = self.vif.fault().filter(|_| !self.broken) {
            self.broken = true;
            self.dirty = true;
            self.complain(cx, format!("{}: the client broke its rings: {fault}", self.dir));
        }
        if self.deadline.is_some_and(|deadline| deadline <= cx.now) {
            self.deadline = None;
            self.dirty = true;
        }
        if self.job.is_some() || !self.dirty || self.fate != Fate::Stays {
            return;
        }
        let allowed = self.looks - LOOK_EVERY * LOOKS_AT_ONCE;
        if allowed > cx.now {
            self.wake_at(allowed);
            return;
        }
        self.looks = self.looks.max(cx.now) + LOOK_EVERY;
        self.dirty = false;
        let own = |name| format!("{}/{name}", self.dir);
        let mut paths = [own("state"), own("online")].to_vec();
        match self.front_state() {
            Some(path) => paths.push(path),
            None => paths.extend(IDENTITY.map(own)),
        }
        self.read(cx, &paths, Job::Look);
    }

    /// Takes the reply to a request with this vif's tag.
    pub(crate) fn on_reply<M: Memory>(
        &mut self,
        cx: &mut Context<'_, H, M>,
        id: RequestId,
        result: &Result<Reply, StoreError>,
    ) {
        if matches!(self.watch, Watch::Asked(asked) if asked == id) {
            self.watch = Watch::Set;
            if let Err(error) = result {
                self.watch = Watch::Refused;
                self.wake_at(cx.now + POLL);
                let text = "so that its client's state is looked at once a second only";
                self.complain(cx, format!("{}: no watch, {}, {text}", self.dir, refusal(*error)));
            }
            return;
        }
        match self.job.take() {
            Some(Job::Look(mut gather)) => match gather.on(id, result) {
                Progress::Done(found) => self.looked(cx, found),
                _ => self.job = Some(Job::Look(gather)),
            },
            Some(Job::Terms(mut gather)) => match gather.on(id, result) {
                Progress::Done(found) => self.read_terms(cx, found),
                _ => self.job = Some(Job::Terms(gather)),
            },
            Some(Job::Offer(mut publish)) => match publish.on(cx.store, id, result) {
                Progress::Done(outcome) => self.offered(cx, outcome),
                _ => self.job = Some(Job::Offer(publish)),
            },
            Some(Job::Write(write, state)) if write == id => self.written(cx, state, result),
            other => self.job = other,
        }
    }

    fn looked<M: Memory>(
        &mut self,
        cx: &mut Context<'_, H, M>,
        found: Result<Vec<Found>, GatherError>,
    ) {
        let found = match found {
            Ok(found) => found,
            Err(e) => return self.refused(cx, "cannot be read", e.error),
        };
        let value = |n: usize| found.get(n).and_then(Found::value);
        let state = |n| value(n).and_then(XenbusState::parse);
        let own = state(0);
        // Linux takes a device without this node for offline; but it would not remove it, as we do.
        let online = value(1) != Some(b"0");
        let front = if self.identity.is_some() {
            state(2)
        } else {
            if own.is_some() {
                self.identify(cx, found.get(2..).unwrap_or_default());
            }
            // Not known yet: the first event of the watch brings the next look.
            Some(XenbusState::Initialising)
        };

        if own == Some(XenbusState::Initialising) && self.begun {
            self.cut(cx);
            self.fate = Fate::Reborn;
            return;
        }
        // Taken offline in state 6 the clock starts again: libxl is yet to look at that state.
        if (own, online) != self.shown {
            self.shown = (own, online);
            self.since = cx.now;
        }
        if front == Some(XenbusState::Initialising) && !self.vif.is_linked() {
            self.broken = false;
        }
        let rested_at = self.since + hold(own);
        let ours = Ours {
            linked: self.vif.is_linked(),
            sound: self.identity.is_some() && !self.broken,
            rested: cx.now >= rested_at,
        };
        let seen = Seen { own, online, front };
        let step = next(ours, seen);
        if step == Step::Wait && next(Ours { rested: true, ..ours }, seen) != Step::Wait {
            self.wake_at(rested_at);
        }
        if step != Step::Forget {
            self.keep_watch(cx);
        }
        self.perform(cx, step);
    }

    fn identify<M: Memory>(&mut self, cx: &mut Context<'_, H, M>, found: &[Found]) {
        match nodes::identity(self.id(), found) {
            Ok(identity) => self.identity = Some(identity),
            Err(malformed) => self.complain(cx, malformed.to_string()),
        }
    }

    fn keep_watch<M: Memory>(&mut self, cx: &mut Context<'_, H, M>) {
        match self.watch {
            Watch::None => {}
            Watch::Muted(until) if until <= cx.now => {}
            Watch::Muted(until) => return self.wake_at(until),
            Watch::Refused => return self.wake_at(cx.now + POLL),
            Watch::Asked(_) | Watch::Set => return,
        }
        if let Some(path) = self.front_state() {
            match cx.store.submit(self.tag, TxId::NONE, &Op::Watch(&path)) {
                Ok(id) => self.watch = Watch::Asked(id),
                Err(error) => self.not_submitted(cx, error),
            }
        }
    }

    fn perform<M: Memory>(&mut self, cx: &mut Context<'_, H, M>, step: Step) {
        match step {
            Step::Wait => {}
            Step::Offer => {
                let write = |name, value| Change::write(format!("{}/{name}", self.dir), value);
                let mut changes: Vec<_> = FEATURES.map(|name| write(name, "1")).to_vec();
                changes.push(write("state", XenbusState::InitWait.as_str()));
                match Publish::start(cx.store, self.tag, changes) {
                    Ok(publish) => self.job = Some(Job::Offer(publish)),
                    Err(error) => self.not_submitted(cx, error),
                }
            }
            Step::Connect => {
                if let Some(identity) = &self.identity {
                    let paths = TERMS.map(|name| format!("{}/{name}", identity.frontend));
                    self.read(cx, &paths, Job::Terms);
                }
            }
            Step::Close => {
                self.cut(cx);
                self.write_state(cx, XenbusState::Closing);
            }
            Step::Finish => self.write_state(cx, XenbusState::Closed),
            Step::Remove => self.submit(cx, &Op::Rm(&self.dir.clone()), None),
            Step::Forget => {
                self.cut(cx);
                self.fate = Fate::Gone;
            }
        }
    }

    fn read_terms<M: Memory>(
        &mut self,
        cx: &mut Context<'_, H, M>,
        found: Result<Vec<Found>, GatherError>,
    ) {
        let found = match found {
            Ok(found) => found,
            Err(e) => return self.refused(cx, "the client's nodes cannot be read", e.error),
        };
        let Some(identity) = &self.identity else { return };
        let linked = nodes::terms(&identity.frontend, &found)
            .map_err(|malformed| malformed.to_string())
            .and_then(|(terms, mtu)| match Link::make(cx.h, self.vif.id().dom, &terms) {
                Ok(link) => Ok((link, mtu)),
                Err(error) => Err(format!("{}: {error}", identity.frontend)),
            });
        match linked {
            Ok((link, mtu)) => {
                let (mac, addrs) = (identity.mac, identity.addrs.clone());
                self.vif.set_link(link);
                let VifId { dom, handle } = self.id();
                let port = self.vif.port();
                cx.notices.push(Notice::Up { port, dom, handle, mac, addrs, mtu });
                self.write_state(cx, XenbusState::Connected);
            }
            Err(text) => {
                self.broken = true;
                self.dirty = true;
                self.complain(cx, text);
            }
        }
    }

    fn offered<M: Memory>(&mut self, cx: &mut Context<'_, H, M>, outcome: Outcome) {
        match outcome {
            Outcome::Done => {
                self.told = None;
                self.stands(cx, XenbusState::InitWait);
            }
            Outcome::Gone => self.dirty = true,
            Outcome::NoSpace(error) | Outcome::Failed(error) => {
                self.refused(cx, "cannot be offered", error);
            }
            Outcome::Contended => self.refused(cx, "cannot be offered", StoreError::Eagain),
            Outcome::NotSubmitted(error) => self.not_submitted(cx, error),
        }
    }

    fn written<M: Memory>(
        &mut self,
        cx: &mut Context<'_, H, M>,
        state: Option<XenbusState>,
        result: &Result<Reply, StoreError>,
    ) {
        match (result, state) {
            (Ok(_), Some(state)) => self.stands(cx, state),
            (Ok(_), None) => self.dirty = true,
            (Err(error), _) if error.is_gone() => self.dirty = true,
            (Err(error), _) => self.refused(cx, "cannot be written", *error),
        }
    }

    /// Our state is now this; look what it led to.
    const fn stands<M: Memory>(&mut self, cx: &Context<'_, H, M>, state: XenbusState) {
        self.begun = true;
        self.shown.0 = Some(state);
        self.since = cx.now;
        self.dirty = true;
    }

    fn cut<M: Memory>(&mut self, cx: &mut Context<'_, H, M>) {
        if let Some(link) = self.vif.take_link() {
            link.cut(cx.h);
            cx.notices.push(Notice::Down { port: self.vif.port() });
        }
    }

    fn front_state(&self) -> Option<String> {
        self.identity.as_ref().map(|identity| format!("{}/state", identity.frontend))
    }

    fn read<M: Memory>(
        &mut self,
        cx: &mut Context<'_, H, M>,
        paths: &[String],
        job: fn(Gather) -> Job,
    ) {
        let keys = paths.iter().map(|path| Key::Value(path));
        match Gather::start(cx.store, self.tag, TxId::NONE, keys) {
            Ok(gather) => self.job = Some(job(gather)),
            Err(error) => self.not_submitted(cx, error),
        }
    }

    fn write_state<M: Memory>(&mut self, cx: &mut Context<'_, H, M>, state: XenbusState) {
        let path = format!("{}/state", self.dir);
        self.submit(cx, &Op::Write(&path, state.as_str().as_bytes()), Some(state));
    }

    fn submit<M: Memory>(
        &mut self,
        cx: &mut Context<'_, H, M>,
        op: &Op<'_>,
        state: Option<XenbusState>,
    ) {
        match cx.store.submit(self.tag, TxId::NONE, op) {
            Ok(id) => self.job = Some(Job::Write(id, state)),
            Err(error) => self.not_submitted(cx, error),
        }
    }

    fn not_submitted<M: Memory>(&mut self, cx: &mut Context<'_, H, M>, error: SubmitError) {
        match error {
            SubmitError::QueueFull => self.wake_at(cx.now + NO_ROOM),
            // Told by the client of XenStore itself, once.
            SubmitError::Broken => {}
            SubmitError::TooLong => {
                self.wake_at(cx.now + RETRY);
                self.complain(cx, format!("{}: a path is too long for XenStore", self.dir));
            }
        }
    }

    fn refused<M: Memory>(&mut self, cx: &mut Context<'_, H, M>, what: &str, error: StoreError) {
        self.wake_at(cx.now + RETRY);
        self.complain(cx, format!("{}: {what}, {}", self.dir, refusal(error)));
    }

    fn wake_at(&mut self, at: Instant) {
        self.deadline = Some(self.deadline.map_or(at, |deadline| deadline.min(at)));
    }

    /// Tells of a problem, unless it is the last one still or this vif told one just now: neither a
    /// client nor a lack that lasts can flood the log.
    fn complain<M: Memory>(&mut self, cx: &mut Context<'_, H, M>, text: String) {
        if cx.now >= self.quiet_until && self.told.as_ref() != Some(&text) {
            self.quiet_until = cx.now + POLL;
            self.told = Some(text.clone());
            cx.notices.push(Notice::Problem { text });
        }
    }
}

fn refusal(error: StoreError) -> impl Display {
    let what = if error.is_no_space() {
        "a quota of XenStore is used up (raise the quotas of xenstored for more vifs)"
    } else {
        "XenStore refused"
    };
    format!("{what}: {error}")
}
