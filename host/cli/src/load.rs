//! `tidegate load`: a policy for a firewall that runs, from dom0.
//!
//! Never: writes a policy that is not whole and checked, or leaves anything behind in XenStore.

use crate::diff::print as print_changes;
use crate::store::Store;
use crate::{Unusable, count, read, refuse, unusable};
use lang::{Compiled, Difference};
use rules::Policy;
use serde_json::{Value, json};
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use tidegate::appliance::delivery::offer::{ANSWER, COMMIT, MOST, Offer, PART, RUNNING, hex};

/// What is to be done, and how it is to be told.
pub(crate) struct Wanted {
    /// Name or number of the firewall's domain.
    pub(crate) domain: String,
    /// Load nothing.
    pub(crate) dry_run: bool,
    /// The text of the policy that runs, to compare with.
    pub(crate) since: Option<PathBuf>,
    /// Seconds the firewall may take to answer.
    pub(crate) wait: u64,
    pub(crate) json: bool,
}

/// A firewall that takes policies.
struct Target {
    store: Store,
    /// Its directory in XenStore.
    home: String,
    /// Digest and name of what runs, or `none`.
    running: String,
    most: usize,
}

/// Loads the policy in `file`; whether it is in force now, or would be.
pub(crate) fn run(file: &Path, wanted: &Wanted) -> std::result::Result<bool, Unusable> {
    let (name, text) = (file.to_string_lossy(), read(file)?);
    let compiled = match lang::compile(&name, &text) {
        Ok(compiled) => compiled,
        Err(mistakes) => return Ok(refuse(&mistakes, wanted.json)),
    };
    let domain = Path::new(&wanted.domain);
    let failed = |why| unusable(domain, "load into", why);
    let mut target = Target::find(&wanted.domain).map_err(failed)?;
    let changes = match &wanted.since {
        None => None,
        Some(since) => match target.changes(since, (&name, &text))? {
            Ok(changes) => Some((since, changes)),
            Err(why) => return Ok(tell(wanted, &target, &compiled.policy, Err(&why))),
        },
    };
    if let (Some((since, changes)), false) = (&changes, wanted.json) {
        print_changes((since, file), changes);
    }
    if compiled.blob.len() > target.most {
        let (len, most) = (compiled.blob.len(), target.most);
        let why = format!("{len} bytes, and there is room for {most} in the domain's memory");
        return Ok(tell(wanted, &target, &compiled.policy, Err(&why)));
    }
    if wanted.dry_run {
        return Ok(tell(wanted, &target, &compiled.policy, Ok("would be loaded")));
    }
    let answer = target.load(&compiled, Duration::from_secs(wanted.wait)).map_err(failed)?;
    let answer = if answer == "loaded" { Ok("loaded") } else { Err(&*answer) };
    Ok(tell(wanted, &target, &compiled.policy, answer))
}

/// Says what came of it; whether that is good.
fn tell(
    wanted: &Wanted,
    target: &Target,
    policy: &Policy,
    answer: std::result::Result<&str, &str>,
) -> bool {
    let (domain, was) = (&wanted.domain, target.running.escape_default().to_string());
    let (name, digest) = (policy.name(), policy.digest().to_string());
    // The domain wrote what it runs and answers: nothing of that may command a terminal.
    let said = answer.unwrap_or_else(|why| why).escape_default().to_string();
    if wanted.json {
        let report: Value = json!({
            "ok": answer.is_ok(), "domain": domain, "policy": digest, "was": was, "answer": said,
        });
        println!("{report:#}");
    } else if answer.is_ok() {
        println!("{domain}: {said}: {name} {digest}\n{domain}: was: {was}");
    } else {
        eprintln!("{domain}: {name}: {said}\n{domain}: stays: {was}");
    }
    answer.is_ok()
}

impl Target {
    fn find(domain: &str) -> Result<Self> {
        let mut store = Store::open()?;
        let home = home(&mut store, domain)?;
        let most = store.read(&format!("{home}/{MOST}"))?;
        let most = most.and_then(|most| most.parse().ok()).ok_or_else(|| {
            Error::other(format!("{MOST} is not there: no Tidegate, or one that is not up yet"))
        })?;
        let running = store.read(&format!("{home}/{RUNNING}"))?.unwrap_or_default();
        Ok(Self { store, home, running, most })
    }

    /// What `new` changes about the policy in `since`, which must be the one that runs.
    fn changes(
        &self,
        since: &Path,
        new: (&str, &str),
    ) -> std::result::Result<std::result::Result<Difference, String>, Unusable> {
        let (name, text) = (since.to_string_lossy(), read(since)?);
        let old = lang::compile(&name, &text).map(|compiled| compiled.policy.digest().to_string());
        let runs = |digest: &String| self.running.split(' ').next() == Some(digest);
        if !old.as_ref().is_ok_and(runs) {
            return Ok(Err(format!("{name} is not what runs there")));
        }
        Ok(lang::diff((&name, &text), new).map_err(|mistakes| count(mistakes.len(), "mistake")))
    }

    /// Offers the policy and waits for the answer.
    fn load(&mut self, compiled: &Compiled, patience: Duration) -> Result<String> {
        let since = SystemTime::UNIX_EPOCH.elapsed().map_err(Error::other)?;
        let id = format!("{:x}-{:x}", since.as_nanos(), std::process::id());
        let offer = Offer::new(&id, compiled.blob.len(), compiled.policy.digest());
        let offer = offer.ok_or_else(|| Error::other("no offer can be made"))?;
        let answered = self.offer(&offer, &compiled.blob, patience);
        // Whatever came of it; if XenStore is lost, that is said already.
        for path in [COMMIT, &offer.directory()] {
            let removed = self.store.remove(&format!("{}/{path}", self.home));
            answered.as_ref().ok().map_or(Ok(()), |_| removed)?;
        }
        answered
    }

    fn offer(&mut self, offer: &Offer, blob: &[u8], patience: Duration) -> Result<String> {
        let home = self.home.clone();
        for (n, part) in blob.chunks(PART).enumerate() {
            self.store.write(&format!("{home}/{}", offer.part(n)), &hex(part))?;
        }
        let answer = format!("{home}/{ANSWER}");
        self.store.watch(&answer)?;
        self.store.write(&format!("{home}/{COMMIT}"), &offer.to_string())?;
        let deadline = Instant::now() + patience;
        while self.store.wait(deadline)? {
            let said = self.store.read(&answer)?.unwrap_or_default();
            let ours = said.strip_prefix(offer.id()).and_then(|said| said.strip_prefix(' '));
            if let Some(said) = ours {
                return Ok(said.to_owned());
            }
        }
        Err(Error::other(format!("no answer within {} s", patience.as_secs())))
    }
}

/// The directory of a domain, by number or name.
fn home(store: &mut Store, domain: &str) -> Result<String> {
    let all = store.names("/local/domain")?;
    for id in &all {
        let home = format!("/local/domain/{id}");
        if id == domain || store.read(&format!("{home}/name"))?.as_deref() == Some(domain) {
            return Ok(home);
        }
    }
    Err(Error::other("no such domain is running"))
}
