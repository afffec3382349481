//! `cargo xtask attach`: this terminal as the console of a machine that `demo --keep` left running.
//!
//! In: keys. Out: what dom0's shell prints. Ctrl-Q leaves; the machine goes on.

use rig::{Context as _, Error, Layout, Result, run};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

const CTRL_Q: u8 = 0x11;

/// Attaches to the machine that runs.
pub(crate) fn command(layout: &Layout) -> Result<()> {
    let socket = socket(layout)?;
    let mut console = UnixStream::connect(&socket).context(socket.display())?;
    eprintln!("dom0's shell; Ctrl-Q leaves, `xl console fw` shows the firewall (Ctrl-] back)\r");
    let before = run(Command::new("stty").arg("-g").stdin(terminal()?))?;
    run(Command::new("stty").args(["raw", "-echo"]).stdin(terminal()?))?;
    let mut lines = console.try_clone()?;
    thread::spawn(move || io::copy(&mut lines, &mut io::stdout()));
    let typed = type_into(&mut console);
    run(Command::new("stty").arg(before.trim()).stdin(terminal()?))?;
    typed
}

fn socket(layout: &Layout) -> Result<PathBuf> {
    let cache = layout.cache();
    let runs = fs::read_dir(&cache).map_err(Error::file(&cache))?;
    let sockets = runs.flatten().map(|run| run.path().join("console.sock"));
    let running = sockets.into_iter().find(|socket| UnixStream::connect(socket).is_ok());
    running.ok_or_else(|| Error::new("no machine is running; `cargo xtask demo --keep` leaves one"))
}

fn terminal() -> Result<fs::File> {
    fs::File::open("/dev/tty").context("/dev/tty")
}

fn type_into(console: &mut UnixStream) -> Result<()> {
    console.write_all(b"\n")?;
    let mut keys = [0; 256];
    loop {
        let read = io::stdin().read(&mut keys)?;
        let keys = keys.get(..read).unwrap_or_default();
        if keys.is_empty() || keys.contains(&CTRL_Q) {
            return Ok(());
        }
        console.write_all(keys)?;
    }
}
