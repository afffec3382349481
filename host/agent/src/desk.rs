//! Where orders arrive: each is done on its own thread, replies go out whole, one at a time.

use crate::relay::Relay;
use crate::{run, store, wait};
use agent::{Answer, DOM0, Op, Reply, Request, decode, encode};
use std::io::{self, BufRead, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, thread};

/// The one way out, shared by all threads.
#[derive(Clone)]
pub(crate) struct Out(Arc<Mutex<Box<dyn Write + Send>>>);

impl Out {
    fn reply(&self, reply: &Reply) {
        if let Ok(line) = encode(reply) {
            self.line(&line);
        }
    }

    /// Writes a line that is already a message. A broken way out ends nothing: the host sees
    /// a missing reply and names it.
    pub(crate) fn line(&self, line: &str) {
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}

/// Serves until the line ends. With a relay this is dom0, which hands on other domains' orders.
pub(crate) fn serve(
    mut orders: impl BufRead,
    out: impl Write + Send + 'static,
    relay: Option<Relay>,
) -> io::Result<()> {
    let out = Out(Arc::new(Mutex::new(Box::new(out))));
    out.reply(&Reply { id: 0, outcome: Ok(Answer::Done) });
    let mut line = Vec::new();
    while orders.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line).into_owned();
        line.clear();
        let Some(order) = decode::<Request>(&text) else { continue };
        match &relay {
            Some(relay) if order.to != DOM0 => {
                if let Err(e) = relay.hand_on(&order, &text, &out) {
                    out.reply(&Reply { id: order.id, outcome: Err(e.to_string()) });
                }
            }
            _ => {
                let out = out.clone();
                thread::spawn(move || {
                    let outcome = perform(order.op).map_err(|e| e.to_string());
                    out.reply(&Reply { id: order.id, outcome });
                });
            }
        }
    }
    Ok(())
}

fn perform(op: Op) -> io::Result<Answer> {
    match op {
        Op::Hello => Ok(Answer::Done),
        Op::Exec { argv, stdin, deadline_ms, exclusive } => {
            run::exec(&argv, &stdin, Duration::from_millis(deadline_ms), exclusive)
                .map(Answer::Exited)
        }
        Op::Spawn { name, argv } => run::spawn(&name, &argv).map(|()| Answer::Done),
        Op::Stop { name } => run::stop(&name).map(Answer::Exited),
        Op::ReadFile { path, offset } => read_from(&path, offset).map(Answer::Text),
        Op::WriteFile { path, text } => fs::write(&path, text).map(|()| Answer::Done),
        Op::XsRead { path } => store::read(&path).map(Answer::Text),
        Op::XsWrite { path, value } => store::write(&path, &value).map(|()| Answer::Done),
        Op::XsList { path } => store::list(&path).map(Answer::Names),
        Op::Wait { until, deadline_ms } => {
            wait::until(&until, Duration::from_millis(deadline_ms)).map(|()| Answer::Done)
        }
    }
}

/// The text of a file from a byte on; what is not UTF-8 is replaced.
pub(crate) fn read_from(path: &str, offset: u64) -> io::Result<String> {
    let bytes = fs::read(path).map_err(|e| io::Error::other(format!("{path}: {e}")))?;
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    Ok(String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned())
}
