//! Which vifs there are: the directories below `backend/vif`.
//!
//! In: events of one watch, and time. Out: names of vifs that may have changed, and now and then the
//! whole list. Never: believes an event; it only says where to look.

use crate::nodes::{ROOT, VifId, parse_dom};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use wire::Instant;
use xen::hypervisor::{DomId, Memory};
use xen::store::{
    Client, Found, Gather, GatherError, Key, Op, Reply, RequestId, Step as Progress, StoreError,
    SubmitError, Tag, TxId,
};

/// How often everything is listed although nothing seems to have happened.
const RESCAN: Duration = Duration::from_secs(60);

/// Lists the directories, one list at a time.
#[derive(Debug)]
pub(crate) struct Discovery {
    tag: Tag,
    watch: Watch,
    job: Job,
    /// Another list is wanted.
    again: bool,
    rescan: Instant,
}

#[derive(Debug)]
enum Watch {
    None,
    Asked(RequestId),
    Set,
}

#[derive(Debug)]
enum Job {
    None,
    Domains(Gather),
    Handles(Vec<String>, Gather),
}

/// What an event or a reply said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Nothing yet.
    None,
    /// Something of this vif may have changed.
    Vif(VifId),
    /// Something of the vifs of this domain may have.
    Domain(DomId),
    /// These are all there are.
    All(Vec<VifId>),
    /// XenStore refused.
    Problem(String),
}

impl Discovery {
    pub(crate) const fn new(tag: Tag) -> Self {
        Self { tag, watch: Watch::None, job: Job::None, again: false, rescan: Instant::ZERO }
    }

    pub(crate) const fn tag(&self) -> Tag {
        self.tag
    }

    /// How many watches it has in XenStore, or has asked for.
    pub(crate) const fn watches(&self) -> usize {
        matches!(self.watch, Watch::Asked(_) | Watch::Set) as usize
    }

    /// Does what time demands; returns when it will again.
    pub(crate) fn tick<M: Memory>(&mut self, store: &mut Client<M>, now: Instant) -> Instant {
        if now >= self.rescan {
            self.rescan = now + RESCAN;
            self.again = true;
            if matches!(self.watch, Watch::None)
                && let Ok(id) = store.submit(self.tag, TxId::NONE, &Op::Watch(ROOT))
            {
                self.watch = Watch::Asked(id);
            }
        }
        self.list(store);
        self.rescan
    }

    pub(crate) fn on_watch<M: Memory>(&mut self, store: &mut Client<M>, path: &str) -> News {
        let mut names = path.strip_prefix(ROOT).unwrap_or_default().split('/').skip(1);
        match (names.next(), names.next(), names.next()) {
            // Our own words.
            (_, _, Some(node)) if node.starts_with("feature-") => News::None,
            (Some(dom), Some(handle), _) => VifId::parse(dom, handle).map_or(News::None, News::Vif),
            (Some(dom), None, _) => parse_dom(dom).map_or(News::None, News::Domain),
            (None, ..) => {
                self.again = true;
                self.list(store);
                News::None
            }
        }
    }

    pub(crate) fn on_reply<M: Memory>(
        &mut self,
        store: &mut Client<M>,
        id: RequestId,
        result: &Result<Reply, StoreError>,
    ) -> News {
        if matches!(self.watch, Watch::Asked(asked) if asked == id) {
            self.watch = if result.is_ok() { Watch::Set } else { Watch::None };
            return match result {
                Ok(_) => News::None,
                Err(error) => News::Problem(format!(
                    "{ROOT} cannot be watched, so that new clients are noticed late: {error}"
                )),
            };
        }
        let news = match core::mem::replace(&mut self.job, Job::None) {
            Job::None => News::None,
            Job::Domains(mut gather) => match gather.on(id, result) {
                Progress::Done(Ok(found)) => self.domains(store, &found),
                Progress::Done(Err(error)) => problem(&error),
                _ => self.keep(Job::Domains(gather)),
            },
            Job::Handles(doms, mut gather) => match gather.on(id, result) {
                Progress::Done(Ok(found)) => News::All(all(&doms, &found)),
                Progress::Done(Err(error)) => problem(&error),
                _ => self.keep(Job::Handles(doms, gather)),
            },
        };
        self.list(store);
        news
    }

    fn keep(&mut self, job: Job) -> News {
        self.job = job;
        News::None
    }

    fn list<M: Memory>(&mut self, store: &mut Client<M>) {
        if self.again
            && matches!(self.job, Job::None)
            && let Ok(gather) = Gather::start(store, self.tag, TxId::NONE, [Key::Names(ROOT)])
        {
            self.again = false;
            self.job = Job::Domains(gather);
        }
    }

    fn domains<M: Memory>(&mut self, store: &mut Client<M>, found: &[Found]) -> News {
        let doms = found.first().and_then(Found::names).unwrap_or_default();
        let doms: Vec<_> = doms.iter().filter(|dom| parse_dom(dom).is_some()).cloned().collect();
        if doms.is_empty() {
            return News::All(Vec::new());
        }
        let dirs: Vec<_> = doms.iter().map(|dom| format!("{ROOT}/{dom}")).collect();
        match Gather::start(store, self.tag, TxId::NONE, dirs.iter().map(|dir| Key::Names(dir))) {
            Ok(gather) => self.keep(Job::Handles(doms, gather)),
            Err(SubmitError::QueueFull | SubmitError::TooLong | SubmitError::Broken) => News::None,
        }
    }
}

fn all(doms: &[String], found: &[Found]) -> Vec<VifId> {
    let vifs = |(dom, found): (&String, &Found)| {
        let handles = found.names().unwrap_or_default().iter();
        handles.filter_map(|handle| VifId::parse(dom, handle)).collect::<Vec<_>>()
    };
    doms.iter().zip(found).flat_map(vifs).collect()
}

fn problem(error: &GatherError) -> News {
    News::Problem(format!("{ROOT} cannot be listed: {}", error.error))
}
