//! The `tidegate` command: says what is wrong with a policy, what it means, makes it ready for a
//! kernel, and runs the firewall on Linux.
//!
//! Exit codes: 0 done, or the answer is yes; 1 a policy has mistakes, or the answer is no; 2 the
//! command itself or a file could not be used.
#![forbid(unsafe_code)]

mod build;
mod capture;
mod check;
mod codes;
mod compile;
mod diff;
mod engine;
mod expect;
mod explain;
mod format;
mod graph;
mod load;
mod packet;
mod prove;
mod replay;
mod run;
mod shell;
mod store;
mod verify;

use clap::{Parser, Subcommand};
use lang::{Diagnostic, Named};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  tidegate check my.tide                     say whether a policy can be obeyed, and what is odd in it
  tidegate check --json examples/*.tide      the same for programs, several at once
  tidegate explain my.tide tcp from work to 93.184.216.34:443
  tidegate prove my.tide work cannot reach 10.0.0.0/8
  tidegate diff old.tide new.tide            what a new version changes, with packets
  tidegate fmt my.tide                       put it into the one layout
  tidegate graph my.tide -o my.svg           draw what may flow
  tidegate build my.tide -o vmlinuz          put it into a kernel
  tidegate verify vmlinuz                    say what is in one
  tidegate load my.tide --domain fw          give it to a firewall that runs, from dom0
  tidegate compile my.tide -o my.blob        write what a kernel takes as a boot module
  tidegate run --policy my.tide --uplink tg0 --client tg1=10.137.0.10 ip=192.0.2.2/24 gw=192.0.2.1

The language is told in docs/POLICY.md.";

#[derive(Parser)]
#[command(name = "tidegate", version, about = "The Tidegate firewall and its policies", after_help = EXAMPLES)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tell every mistake in policies, what is odd in them, and whether what they expect holds
    #[command(
        after_help = "Examples:\n  tidegate check my.tide\n  tidegate check --deny-warnings --notes *.tide"
    )]
    Check {
        /// The policies
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
        /// Tell notes too, which are no reason to change anything
        #[arg(long)]
        notes: bool,
        /// Exit with 1 if there is a warning
        #[arg(long)]
        deny_warnings: bool,
    },
    /// Put policies into the one layout
    #[command(
        after_help = "Examples:\n  tidegate fmt my.tide\n  tidegate fmt --check *.tide\n  tidegate fmt - < my.tide"
    )]
    Fmt {
        /// The policies; `-` reads standard input and writes standard output
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Change nothing; exit with 1 if something would be changed
        #[arg(long)]
        check: bool,
    },
    /// Tell what becomes of a packet, by which rule, and why the rules before it did not decide
    ///
    /// The answer is the firewall's own: the packet is put to it, from an interface of its sender. Where
    /// it shows an address of its own, that is 192.0.2.2 or 2001:db8::2; one that runs draws other ports.
    /// With a capture, made at a client or between clients and firewall, each packet that opens a flow or
    /// is refused is explained; clients are the VMs of the policy and those named.
    #[command(
        after_help = "Examples:\n  tidegate explain my.tide tcp from work to 93.184.216.34:443\n  tidegate explain my.tide 'clients -> uplink icmp echo-request from 10.137.0.9 to 1.1.1.1'\n  tidegate explain my.tide --pcap work.pcap --client 10.137.0.12"
    )]
    Explain {
        /// The policy
        file: PathBuf,
        /// The packet, in the words of `expect`
        #[arg(required_unless_present = "pcap", value_name = "PACKET", allow_hyphen_values = true)]
        packet: Vec<String>,
        /// Explain the packets of this capture, pcap or pcapng
        #[arg(long, value_name = "FILE", conflicts_with = "packet")]
        pcap: Option<PathBuf>,
        /// The address of a client that is no VM of the policy; may be given more than once
        #[arg(long, value_name = "ADDR", requires = "pcap")]
        client: Vec<std::net::IpAddr>,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Tell what a new version of a policy does differently, with a packet for each change
    #[command(after_help = "Example:\n  tidegate diff old.tide new.tide")]
    Diff {
        /// The policy as it was
        old: PathBuf,
        /// The policy as it is to be
        new: PathBuf,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Prove a claim for every packet it speaks of, or show one that contradicts it
    #[command(
        after_help = "Examples:\n  tidegate prove my.tide work cannot reach 10.0.0.0/8\n  tidegate prove my.tide clients cannot reach [10.0.0.0/8, fc00::/7] tcp 22\n  tidegate prove my.tide work can reach printers tcp 631"
    )]
    Prove {
        /// The policy
        file: PathBuf,
        /// `FROM can|cannot reach TO [KINDS]`, with the names of the policy
        #[arg(required = true, value_name = "CLAIM")]
        claim: Vec<String>,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Put what policies expect of themselves to them, one line for each expectation
    #[command(after_help = "Example:\n  tidegate test my.tide")]
    Test {
        /// The policies
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Draw which VM may reach what, as an SVG image
    #[command(after_help = "Example:\n  tidegate graph my.tide -o my.svg")]
    Graph {
        /// The policy
        file: PathBuf,
        /// Where to write it; without it, to standard output
        #[arg(short, long, value_name = "SVG")]
        output: Option<PathBuf>,
    },
    /// Tell more about the code of a mistake or warning; without one, list them
    #[command(after_help = "Example:\n  tidegate explain-code shadowed")]
    ExplainCode {
        /// What stands in brackets: `error[CODE]`
        code: Option<String>,
    },
    /// Put a policy into a ready kernel
    ///
    /// The same policy and kernel always give the same image. Nothing is written if the policy has a
    /// mistake. A kernel that holds a policy already gets this one instead.
    #[command(
        after_help = "Examples:\n  tidegate build my.tide -o vmlinuz\n  tidegate build my.tide --kernel target/vmlinuz -o /var/lib/xen/tidegate/vmlinuz"
    )]
    Build {
        /// The policy
        file: PathBuf,
        /// Where to write the image
        #[arg(short, long, value_name = "IMAGE")]
        output: PathBuf,
        /// The kernel; without it, /usr/lib/tidegate/vmlinuz
        #[arg(long, value_name = "FILE")]
        kernel: Option<PathBuf>,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Tell which kernel and which policy are in an image, and whether the policy is what its text says
    ///
    /// The digest of the kernel is that of the kernel's file without a policy, as it was published.
    #[command(
        after_help = "Examples:\n  tidegate verify vmlinuz\n  tidegate verify --text vmlinuz > my.tide"
    )]
    Verify {
        /// The image
        image: PathBuf,
        /// Print one JSON object instead of text
        #[arg(long, conflicts_with = "text")]
        json: bool,
        /// Print the policy's text alone
        #[arg(long)]
        text: bool,
    },
    /// Give a policy to a firewall that runs, from dom0
    ///
    /// It takes the place of the old one at once; what was let through before is asked about again. If
    /// anything is wrong with it, or on its way, the firewall says so and keeps what it has. It lasts
    /// until the domain is started again.
    #[command(
        after_help = "Examples:\n  tidegate load my.tide --domain fw\n  tidegate load my.tide --domain fw --dry-run --since old.tide"
    )]
    Load {
        /// The policy
        file: PathBuf,
        /// Name or number of the firewall's domain
        #[arg(long, value_name = "NAME")]
        domain: String,
        /// Say what would be done, and load nothing
        #[arg(long)]
        dry_run: bool,
        /// The policy that runs now: tell what changes, with packets
        #[arg(long, value_name = "FILE")]
        since: Option<PathBuf>,
        /// Seconds to wait for the firewall's answer
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        wait: u64,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Write the blob of a policy, which a kernel takes as a boot module
    #[command(after_help = "Example:\n  tidegate compile my.tide -o my.blob")]
    Compile {
        /// The policy
        file: PathBuf,
        /// Where to write it; nothing is written if the policy has a mistake
        #[arg(short, long, value_name = "BLOB")]
        output: PathBuf,
    },
    /// Run the firewall here, between TAP devices, until it is ended
    ///
    /// TAPs that are not there are made, and go when the firewall ends. Their addresses, routes and
    /// being up are yours to arrange: each is a link on which the machine is the neighbour.
    #[command(after_help = run::EXAMPLES)]
    Run {
        /// The policy
        #[arg(long, value_name = "FILE")]
        policy: PathBuf,
        /// The TAP to the world; given again, those of further uplinks, `netfront 1` and so on
        #[arg(long, value_name = "TAP", required = true)]
        uplink: Vec<String>,
        /// A TAP to a client and the addresses the client may use; may be given more than once
        #[arg(long, value_name = "TAP=ADDR[,ADDR]", required = true, value_parser = run::client)]
        client: Vec<hosted::Client>,
        /// What stands on the command line of a kernel: ip=, gw=, ip6=, gw6= (ip.1= for uplink 1), dns=, dnsto=, log=
        #[arg(value_name = "WORD")]
        words: Vec<String>,
    },
    /// Write completions for a shell to standard output
    #[command(
        after_help = "Example:\n  tidegate completions bash > /etc/bash_completion.d/tidegate"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man page to standard output
    #[command(after_help = "Example:\n  tidegate man > tidegate.1")]
    Man,
}

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Check { files, json, notes, deny_warnings } => {
            check::run(&files, &check::Wanted { json, notes, deny_warnings })
        }
        Command::Fmt { files, check } => format::run(&files, check),
        Command::Explain { file, packet, pcap, client, json } => match pcap {
            Some(pcap) => replay::run(&file, &pcap, &client, json),
            None => explain::run(&file, &packet.join(" "), json),
        },
        Command::Diff { old, new, json } => diff::run(&old, &new, json),
        Command::Prove { file, claim, json } => prove::run(&file, &claim.join(" "), json),
        Command::Test { files, json } => expect::run(&files, json),
        Command::Graph { file, output } => graph::run(&file, output.as_deref()),
        Command::ExplainCode { code } => Ok(codes::run(code.as_deref())),
        Command::Build { file, output, kernel, json } => {
            build::run(&file, &output, kernel.as_deref(), json)
        }
        Command::Verify { image, json, text } => verify::run(&image, verify::Wanted { json, text }),
        Command::Load { file, domain, dry_run, since, wait, json } => {
            load::run(&file, &load::Wanted { domain, dry_run, since, wait, json })
        }
        Command::Compile { file, output } => compile::run(&file, &output),
        Command::Run { policy, uplink, client, words } => {
            run::run(&policy, uplink, client, &words.join(" "))
        }
        Command::Completions { shell } => Ok(shell::completions(shell)),
        Command::Man => shell::man(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(unusable) => {
            eprintln!("error: {unusable}");
            ExitCode::from(2)
        }
    }
}

/// Why a file could not be used.
struct Unusable {
    path: PathBuf,
    tried: &'static str,
    why: std::io::Error,
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {} {}: {}", self.tried, self.path.display(), self.why)
    }
}

fn read(path: &Path) -> Result<String, Unusable> {
    std::fs::read_to_string(path).map_err(|why| unusable(path, "read", why))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Unusable> {
    std::fs::write(path, bytes).map_err(|why| unusable(path, "write", why))
}

fn unusable(path: &Path, tried: &'static str, why: std::io::Error) -> Unusable {
    Unusable { path: path.to_owned(), tried, why }
}

/// Prints what was found to standard error, in colour if somebody looks.
fn tell<'d>(found: impl IntoIterator<Item = &'d Diagnostic>) {
    use std::io::IsTerminal;
    let styled = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for one in found {
        eprintln!("{}\n", if styled { one.render_styled() } else { one.render() });
    }
}

/// Tells mistakes as text, or as the JSON of an answer that is none; whether the answer is yes.
fn refuse(mistakes: &[Diagnostic], json: bool) -> bool {
    if json {
        let mistakes: Vec<_> = mistakes.iter().map(check::diagnostic).collect();
        println!("{:#}", json!({ "ok": false, "mistakes": mistakes }));
    } else {
        tell(mistakes);
    }
    false
}

/// A rule as JSON.
fn rule(named: &Named) -> Value {
    json!({ "line": named.line, "text": named.text, "does": named.does })
}

/// A packet with what rules look at in its header, for programs.
fn packet_text(packet: &rules::Query) -> String {
    format!("{packet}{}", packet.header)
}

/// The host names an example takes to stand for its destination.
fn hosts(example: &lang::Example) -> Vec<&str> {
    example.hosts.iter().map(rules::HostName::as_str).collect()
}

/// `my.tide:7: accept tcp 443`
fn at(file: &Path, named: &Named) -> String {
    match named.line {
        Some(line) => format!("{}:{line}: {}", file.display(), named.text),
        None => format!("{}: {}", file.display(), named.text),
    }
}

/// `1 mistake`, `2 mistakes`.
fn count(n: usize, of: &str) -> String {
    if n == 1 { format!("1 {of}") } else { format!("{n} {of}s") }
}
