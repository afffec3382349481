//! `tidegate-agent qubes`: plays `qubesdb-daemon`, `qrexec-daemon` and `qrexec-client` for one domain,
//! over the channels the real ones use. What they do is in `daemons`; here is only what moves bytes.
//!
//! In: a domain, and orders over a socket. Out: answers, and a line on its output for each thing that
//! happened. It ends when it is killed.

mod served;
mod vchan;

use agent::dom0::{Order, Said, State, socket};
use daemons::{Asked, Call, Qrexec, QubesDb};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use served::{Place, Placed};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use vchan::LibXenVchan;

const QUBESDB: u32 = 111;
const QREXEC: u32 = 512;
/// Where calls of the domain are served.
const SERVE: u32 = 700;
/// How often who has no channel yet looks for one, in nanoseconds.
const LOOK: i64 = 20_000_000;

/// The daemons of one domain.
struct Dom0 {
    library: Rc<LibXenVchan>,
    database: Placed<QubesDb>,
    qrexec: Placed<Qrexec>,
    calls: Vec<Awaited>,
    asked: Vec<Asked>,
    deaths: Vec<String>,
    /// As it was last printed.
    printed: State,
}

/// A call and who waits for its end.
struct Awaited {
    call: Placed<Call>,
    waiting: Option<UnixStream>,
}

/// Plays the daemons of `domain` until killed.
pub(crate) fn serve(domain: u16) -> io::Result<()> {
    let path = socket(domain);
    let _old = fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    let place = |port, serves| Place { domain, port, serves };
    let mut dom0 = Dom0 {
        library: LibXenVchan::load()?,
        database: Placed::lasting(QubesDb::new(&[]), place(QUBESDB, true)),
        qrexec: Placed::lasting(Qrexec::default(), place(QREXEC, false)),
        calls: Vec::new(),
        asked: Vec::new(),
        deaths: Vec::new(),
        printed: State::default(),
    };
    loop {
        dom0.turn()?;
        if dom0.wait(&listener)? {
            let (stream, _) = listener.accept()?;
            let mut line = String::new();
            BufReader::new(stream.try_clone()?).read_line(&mut line)?;
            match serde_json::from_str(&line) {
                Ok(order) => dom0.obey(domain, order, stream)?,
                Err(e) => say(&stream, &Said::No(e.to_string()))?,
            }
        }
    }
}

/// Gives an order to the daemons of `domain`, in JSON, and returns the answer.
pub(crate) fn order(domain: u16, order: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket(domain))?;
    writeln!(stream, "{order}")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

fn say(mut stream: &UnixStream, said: &Said) -> io::Result<()> {
    let line = serde_json::to_string(said)?;
    // Who has not waited is not to be told.
    let _gone = writeln!(stream, "{line}");
    Ok(())
}

impl Dom0 {
    /// Does what the processes do when their channels wake them.
    fn turn(&mut self) -> io::Result<()> {
        let library = Rc::clone(&self.library);
        self.deaths.extend(self.database.turn(&library)?);
        self.deaths.extend(self.qrexec.turn(&library)?);
        self.asked.extend(self.qrexec.served.daemon.take_asked());
        for awaited in &mut self.calls {
            self.deaths.extend(awaited.call.turn(&library)?);
        }
        for awaited in self.calls.iter_mut().filter(|awaited| awaited.call.served.has_ended()) {
            let Some(stream) = awaited.waiting.take() else { continue };
            let outcome = awaited.call.served.daemon.outcome();
            let output = String::from_utf8_lossy(&outcome.output).into_owned();
            say(&stream, &Said::Ended { output, exit: outcome.exit })?;
        }
        for (path, value) in self.database.served.daemon.take_written() {
            println!("wrote {path}={value}");
        }
        let state = self.state();
        if state != self.printed {
            println!("{}", serde_json::to_string(&state)?);
            self.printed = state;
        }
        self.calls.retain(|awaited| awaited.waiting.is_some() || !awaited.call.served.has_ended());
        Ok(())
    }

    /// Waits for a signal or an order; whether there is an order.
    fn wait(&mut self, listener: &UnixListener) -> io::Result<bool> {
        let vchans = [self.database.served.channel(), self.qrexec.served.channel()];
        let calls = self.calls.iter().map(|awaited| awaited.call.served.channel());
        let vchans: Vec<_> = vchans.into_iter().chain(calls).collect();
        let fds = vchans.iter().flatten().map(|vchan| vchan.fd());
        let fds = [listener.as_fd()].into_iter().chain(fds);
        let mut fds: Vec<PollFd<'_>> =
            fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let look = Timespec { tv_sec: 0, tv_nsec: LOOK };
        let idle = vchans.iter().all(Option::is_some);
        poll(&mut fds, (!idle).then_some(&look))?;
        let mut ready =
            fds.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>().into_iter();
        let order = ready.next().unwrap_or(false);
        let vchans = [self.database.served.channel_mut(), self.qrexec.served.channel_mut()];
        let calls = self.calls.iter_mut().map(|awaited| awaited.call.served.channel_mut());
        for vchan in vchans.into_iter().chain(calls).flatten() {
            if ready.next() == Some(true) {
                vchan.take_signal();
            }
        }
        Ok(order)
    }

    fn obey(&mut self, domain: u16, order: Order, stream: UnixStream) -> io::Result<()> {
        let database = &mut self.database.served.daemon;
        let said = match order {
            Order::State => Said::State(self.state()),
            Order::Write { path, value } => {
                database.write(&path, &value);
                Said::Done
            }
            Order::Read { path } => Said::Value(database.get(&path).map(str::to_owned)),
            Order::Rules { client, rules, commit } => {
                let rules: Vec<(u16, &str)> =
                    rules.iter().map(|(n, rule)| (*n, rule.as_str())).collect();
                match commit {
                    true => database.set_rules(&client, "drop", &rules),
                    false => database.begin_rules(&client, "drop", &rules),
                }
                Said::Done
            }
            Order::Corrupt { bytes } => {
                database.corrupt(&bytes);
                Said::Done
            }
            Order::StopDatabase => {
                self.database.served.stop();
                Said::Done
            }
            Order::StartDatabase => {
                self.database.served.start();
                Said::Done
            }
            Order::RestartQrexec => {
                self.qrexec.served.stop();
                self.qrexec.served.start();
                Said::Done
            }
            Order::Call { service, input } => {
                let port = self.qrexec.served.daemon.exec(&format!("root:QUBESRPC {service} dom0"));
                let call = Call::caller(input.as_bytes());
                let call = Placed::once(call, Place { domain, port, serves: true });
                self.calls.push(Awaited { call, waiting: Some(stream) });
                return Ok(());
            }
            Order::Serve if self.asked.is_empty() => Said::No("nothing was asked for".into()),
            Order::Serve => {
                let asked = self.asked.remove(0);
                self.qrexec.served.daemon.connect(&asked, 0, SERVE);
                let place = Place { domain, port: SERVE, serves: false };
                let call = Placed::once(Call::server(b""), place);
                self.calls.push(Awaited { call, waiting: Some(stream) });
                return Ok(());
            }
        };
        say(&stream, &said)
    }

    fn state(&self) -> State {
        State {
            live: self.database.served.daemon.is_live(),
            acknowledged: self.database.served.daemon.acknowledged(),
            greeted: self.qrexec.served.daemon.is_greeted(),
            asked: self.asked.iter().map(|asked| asked.service.clone()).collect(),
            open_calls: self.qrexec.served.daemon.open_calls(),
            deaths: self.deaths.clone(),
        }
    }
}
