//! The line to the agents: requests out, replies in, matched by number.
//!
//! Any thread may call; a call that is not answered in time is an error that says what was asked.

use crate::error::{Error, Result};
use agent::{Answer, Op, Reply, Request, decode, encode};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How much longer than its own deadline a request may take to be answered.
const GRACE: Duration = Duration::from_secs(30);
/// What a request without a deadline of its own may take.
const PROMPT: Duration = Duration::from_secs(120);

type Waiting = Arc<Mutex<HashMap<u64, Sender<Reply>>>>;

/// One end of the line.
pub(crate) struct Link {
    out: Mutex<Box<dyn Write + Send>>,
    waiting: Waiting,
    next: AtomicU64,
    greeting: Mutex<Receiver<Reply>>,
}

impl Link {
    /// Talks over these two pipes.
    pub(crate) fn new(to: impl Write + Send + 'static, from: impl Read + Send + 'static) -> Self {
        let (sender, greeting) = channel();
        let waiting = Waiting::default();
        waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(0, sender);
        let table = Arc::clone(&waiting);
        thread::spawn(move || listen(BufReader::new(from), &table));
        let out = Mutex::new(Box::new(to) as Box<dyn Write + Send>);
        Self { out, waiting, next: AtomicU64::new(1), greeting: Mutex::new(greeting) }
    }

    /// Waits for the first agent to say that it is there.
    pub(crate) fn greeting(&self, deadline: Duration) -> Result<()> {
        let greeting = self.greeting.lock().unwrap_or_else(PoisonError::into_inner);
        match greeting.recv_timeout(deadline) {
            Ok(_) => Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                Err(Error::new(format!("waited {deadline:?} for dom0's agent to greet")))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error::new("the machine ended before dom0's agent greeted"))
            }
        }
    }

    /// Asks the agent of a domain and waits for its answer.
    pub(crate) fn call(&self, to: u16, op: Op) -> Result<Answer> {
        self.call_within(to, op.clone(), allowance(&op))
    }

    /// As [`Link::call`], with a limit of its own.
    pub(crate) fn call_within(&self, to: u16, op: Op, limit: Duration) -> Result<Answer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, replies) = channel();
        self.table().insert(id, sender);
        let what = format!("{op:?}");
        let line = encode(&Request { id, to, op })?;
        {
            let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
            out.write_all(line.as_bytes()).and_then(|()| out.flush())?;
        }
        let reply = replies.recv_timeout(limit);
        self.table().remove(&id);
        match reply {
            Ok(reply) => reply.outcome.map_err(Error::new),
            Err(RecvTimeoutError::Timeout) => {
                Err(Error::new(format!("domain {to} did not answer within {limit:?}: {what}")))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error::new(format!("the machine ended during {what}")))
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<u64, Sender<Reply>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn allowance(op: &Op) -> Duration {
    match op {
        Op::Exec { deadline_ms, .. } | Op::Wait { deadline_ms, .. } => {
            Duration::from_millis(*deadline_ms) + GRACE
        }
        _ => PROMPT,
    }
}

/// Gives each reply to who waits for it. At the line's end everybody is let go.
fn listen(mut lines: impl BufRead, waiting: &Waiting) {
    let mut line = Vec::new();
    while matches!(lines.read_until(b'\n', &mut line), Ok(n) if n > 0) {
        if let Some(reply) = decode::<Reply>(&String::from_utf8_lossy(&line)) {
            let table = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(sender) = table.get(&reply.id) {
                let _ = sender.send(reply);
            }
        }
        line.clear();
    }
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn replies_find_their_requests_in_any_order() {
        let (host, agent) = UnixStream::pair().unwrap();
        let link = Arc::new(Link::new(host.try_clone().unwrap(), host));
        let asker = Arc::clone(&link);
        let first = thread::spawn(move || asker.call(0, Op::XsRead { path: "/a".into() }));
        let mut lines = BufReader::new(agent.try_clone().unwrap());
        let mut take = || {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            decode::<Request>(&line).unwrap().id
        };
        let one = take();
        let asker = Arc::clone(&link);
        let second = thread::spawn(move || asker.call(3, Op::XsRead { path: "/b".into() }));
        let two = take();
        let mut out = agent;
        for id in [two, one] {
            let reply = Reply { id, outcome: Ok(Answer::Text(id.to_string())) };
            out.write_all(format!("noise\n{}", encode(&reply).unwrap()).as_bytes()).unwrap();
        }
        for (thread, id) in [(first, one), (second, two)] {
            let Ok(Answer::Text(text)) = thread.join().unwrap() else { panic!("no text") };
            assert_eq!(text, id.to_string());
        }
    }

    #[test]
    fn a_machine_that_ends_is_an_error_not_a_wait() {
        let (host, agent) = UnixStream::pair().unwrap();
        let link = Link::new(host.try_clone().unwrap(), host);
        drop(agent);
        assert!(link.greeting(Duration::from_secs(60)).is_err());
        assert!(link.call(0, Op::Hello).is_err());
    }
}
