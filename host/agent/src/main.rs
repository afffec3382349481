//! The agent: started by the init of dom0 and of every Linux guest of the rig.
//!
//! In: orders as JSON lines on a serial line (dom0) or on the console (guests), or a role on the
//! command line (`serve …`, `ask …`). Out: replies, or what the role prints.
//! It never decides anything about a test: it does one thing and reports.

#![deny(unsafe_code)]

mod desk;
mod names;
mod net;
mod qubes;
mod relay;
mod run;
mod store;
mod usage;
mod wait;
mod wakes;

use clap::{Parser, Subcommand, ValueEnum};
use std::fs::{self, OpenOptions};
use std::io::{self, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
#[command(about = "Hands of the rig inside dom0 and the guests")]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Take orders over a serial line, hand on those for other domains
    Dom0 {
        /// Serial line to the host
        #[arg(long, default_value = "/dev/ttyS1")]
        line: String,
    },
    /// Take orders on standard input (the guest's console)
    Guest,
    /// Play Qubes' daemons in dom0 for a domain until killed
    Qubes { domain: u16 },
    /// Give them an order, in JSON, and print what they say
    Order { domain: u16, order: String },
    /// Be a server until killed
    Serve {
        /// What to serve
        what: Server,
        /// Address and port to listen on
        address: SocketAddr,
    },
    /// Be a client once and print what came of it as JSON
    Ask {
        /// Longest wait for one thing, in milliseconds
        #[arg(long, default_value_t = 10_000)]
        patience: u64,
        #[command(subcommand)]
        what: Question,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Server {
    UdpEcho,
    TcpEcho,
    /// Accepts and closes
    TcpClose,
    Http,
    Dns,
}

#[derive(Subcommand)]
enum Question {
    /// Does a TCP connection open?
    Connect { to: SocketAddr },
    /// Do datagrams come back?
    Udp {
        to: SocketAddr,
        count: u32,
        size: usize,
        /// Own address, which may be another's
        #[arg(long, default_value = "0.0.0.0")]
        from: Ipv4Addr,
    },
    /// Does a document arrive?
    Http { to: SocketAddr, size: u64 },
    /// Do A and AAAA answers arrive on one socket?
    Dns {
        resolver: SocketAddr,
        name: String,
        #[arg(long)]
        tcp: bool,
    },
    /// Which functions of Xen and Linux do these addresses, on standard input, lie in?
    Names,
    /// How often was each domain woken up, by this file of xentrace?
    Wakes { trace: PathBuf },
    /// Which processor time has each domain used, in nanoseconds?
    Usage,
}

fn main() -> ExitCode {
    let done = match Cli::parse().role {
        Role::Dom0 { line } => dom0(&line),
        Role::Guest => desk::serve(BufReader::new(io::stdin()), io::stdout(), None),
        Role::Qubes { domain } => qubes::serve(domain),
        Role::Order { domain, order } => {
            qubes::order(domain, &order).map(|said| println!("{said}"))
        }
        Role::Serve { what, address } => match what {
            Server::UdpEcho => net::echo::serve_udp(address),
            Server::TcpEcho => net::echo::serve_tcp(address),
            Server::TcpClose => net::echo::close_tcp(address),
            Server::Http => net::http::serve(address),
            Server::Dns => net::dns::serve(address),
        },
        Role::Ask { patience, what } => ask(what, Duration::from_millis(patience)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("agent: {e}");
            ExitCode::FAILURE
        }
    }
}

fn ask(what: Question, patience: Duration) -> io::Result<()> {
    let answer = match what {
        Question::Connect { to } => serde_json::to_string(&net::connect(to, patience)),
        Question::Udp { to, count, size, from } => {
            serde_json::to_string(&net::echo::ask_udp(from, to, count, size, patience)?)
        }
        Question::Http { to, size } => {
            serde_json::to_string(&net::http::fetch(to, size, patience)?)
        }
        Question::Dns { resolver, name, tcp } => {
            serde_json::to_string(&net::dns::ask(resolver, &name, tcp, patience)?)
        }
        Question::Wakes { trace } => serde_json::to_string(&wakes::of(&fs::read(trace)?)?),
        Question::Usage => serde_json::to_string(&usage::all()?),
        Question::Names => serde_json::to_string(&names::of(&io::read_to_string(io::stdin())?)?),
    };
    println!("{}", answer?);
    Ok(())
}

fn dom0(line: &str) -> io::Result<()> {
    let reader = OpenOptions::new().read(true).open(line)?;
    let writer = OpenOptions::new().write(true).open(line)?;
    desk::serve(BufReader::new(reader), writer, Some(relay::Relay::default()))
}
