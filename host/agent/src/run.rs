//! Programs: run to the end, or left running under a name.

use agent::Exit;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Held by whoever runs `xl`: two at once make each other fail.
static EXCLUSIVE: Mutex<()> = Mutex::new(());

static RUNNING: LazyLock<Mutex<HashMap<String, Child>>> = LazyLock::new(Mutex::default);

/// How often a running program is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Runs a program to its end or the deadline.
pub(crate) fn exec(
    argv: &[String],
    stdin: &str,
    deadline: Duration,
    exclusive: bool,
) -> io::Result<Exit> {
    let _turn = exclusive.then(|| EXCLUSIVE.lock().unwrap_or_else(PoisonError::into_inner));
    let started = Instant::now();
    let mut child = command(argv)?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| named(argv, &e))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program may end without reading its input: that is its own affair.
        let _ = pipe.write_all(stdin.as_bytes());
    }
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let mut killed = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() >= deadline {
            child.kill()?;
            killed = true;
            break child.wait()?;
        }
        thread::sleep(LOOK);
    };
    if killed {
        return Err(io::Error::other(format!("{argv:?} did not end within {deadline:?}")));
    }
    Ok(Exit { code: status.code(), stdout: join(stdout), stderr: join(stderr) })
}

/// Starts a program and leaves it running.
pub(crate) fn spawn(name: &str, argv: &[String]) -> io::Result<()> {
    let log = File::create(log_path(name))?;
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(old) = running.get_mut(name)
        && old.try_wait()?.is_none()
    {
        return Err(io::Error::other(format!("{name} is running already")));
    }
    let child = command(argv)?
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|e| named(argv, &e))?;
    running.insert(name.to_owned(), child);
    Ok(())
}

/// Ends what was spawned under a name; tells how it ended and what it printed.
pub(crate) fn stop(name: &str) -> io::Result<Exit> {
    let child = RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    let mut child = child.ok_or_else(|| io::Error::other(format!("{name} was not spawned")))?;
    let code = match child.try_wait()? {
        Some(status) => status.code(),
        None => {
            child.kill()?;
            child.wait()?.code()
        }
    };
    let printed = fs::read(log_path(name))?;
    let stdout = String::from_utf8_lossy(&printed).into_owned();
    Ok(Exit { code, stdout, stderr: String::new() })
}

fn log_path(name: &str) -> String {
    format!("/run/{name}.log")
}

fn command(argv: &[String]) -> io::Result<Command> {
    let (program, arguments) =
        argv.split_first().ok_or_else(|| io::Error::other("no program named"))?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

fn named(argv: &[String], e: &io::Error) -> io::Error {
    io::Error::other(format!("{}: {e}", argv.first().map_or("", String::as_str)))
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn join(reader: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}
