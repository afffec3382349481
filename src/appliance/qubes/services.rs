//! What can be called here.
//!
//! | service | what it does | exit code |
//! |---|---|---|
//! | `qubes.WaitForSession`, `qubes.Suspend*`, `qubes.WaitForNetworkUplink` | nothing: there is no session, and the network finds itself again | 0 |
//! | `qubes.SetDateTime` | nothing: the clock is Xen's | 0 |
//! | `tidegate.Status`, `tidegate.Stats`, `tidegate.Log` | a [report](super::report) | 0 |
//! | `tidegate.Explain` | for each line of input, what the rules say about it | 0 |
//! | `tidegate.Load` | takes the policy that is its input, as `tidegate compile` writes it | 0, or 1 if it is none |
//! | any `tidegate.` service for another VM than dom0 | nothing | 126 |
//! | anything else | nothing | 127 |

use super::{View, report};
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use qubes::qrexec::{Call, Command};
use rules::Policy;

/// Codes of a call that came to nothing (QREXEC_EXIT_*, qrexec.h).
const REFUSED: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Bytes of input a service takes.
const INPUT_MAX: usize = 4096;

/// A service that was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// Says yes when it has heard everything.
    Nod,
    Status,
    Stats,
    Log,
    /// With what was asked so far.
    Explain(Vec<u8>),
    /// With what has come so far.
    Load(Vec<u8>),
    Refused,
    Unknown,
}

/// What came of a look at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    Waits,
    Worked,
}

impl Service {
    /// The service a command line names.
    pub(super) fn named(command: &Command) -> Self {
        let Command::Service { name, source, .. } = command else { return Self::Unknown };
        let dom0 = source == "dom0" || source == "@adminvm";
        match name.as_str() {
            own if own.starts_with("tidegate.") && !dom0 => Self::Refused,
            "tidegate.Status" => Self::Status,
            "tidegate.Stats" => Self::Stats,
            "tidegate.Log" => Self::Log,
            "tidegate.Explain" => Self::Explain(Vec::new()),
            "tidegate.Load" => Self::Load(Vec::new()),
            "qubes.WaitForSession"
            | "qubes.SetDateTime"
            | "qubes.SuspendPre"
            | "qubes.SuspendPost"
            | "qubes.SuspendPreAll"
            | "qubes.SuspendPostAll"
            | "qubes.WaitForNetworkUplink" => Self::Nod,
            _ => Self::Unknown,
        }
    }

    /// Whether it brings a policy.
    pub(super) const fn is_load(&self) -> bool {
        matches!(self, Self::Load(_))
    }

    /// Goes on with the call, as far as its input allows.
    pub(super) fn turn(&mut self, call: &mut Call, view: &View<'_>) -> Turned {
        let input = call.take_input();
        if !call.may_print() {
            return Turned::Waits;
        }
        match self {
            Self::Status => finish(call, report::status(view).as_bytes()),
            Self::Stats => finish(call, report::stats(view).as_bytes()),
            Self::Log => finish(call, (view.log)().as_bytes()),
            Self::Refused => call.exit(REFUSED),
            Self::Unknown => call.exit(NOT_FOUND),
            Self::Nod if !call.input_ended() => return Turned::Waits,
            Self::Nod => call.exit(0),
            Self::Explain(asked) => {
                let room = INPUT_MAX.saturating_sub(asked.len());
                asked.extend(input.into_iter().take(room));
                if !call.input_ended() {
                    return Turned::Waits;
                }
                let answer = report::explain(view, &core::mem::take(asked));
                finish(call, answer.as_bytes());
            }
            Self::Load(blob) => {
                // One byte too many is enough to see that they are too many.
                let room = view.most.saturating_add(1).saturating_sub(blob.len());
                blob.extend(input.into_iter().take(room));
                if !call.input_ended() {
                    return Turned::Waits;
                }
                load(call, &core::mem::take(blob), view);
            }
        }
        Turned::Worked
    }
}

/// Puts a policy in force, or says why not; then the one before stays.
fn load(call: &mut Call, blob: &[u8], view: &View<'_>) {
    let policy = match blob.len() > view.most {
        true => Err(format!("more than {} bytes", view.most)),
        false => Policy::decode(blob).map_err(|why| format!("{why}")),
    };
    match policy {
        Ok(policy) => {
            let said = format!("loaded {} {}\n", policy.digest(), policy.name().escape_debug());
            view.brought.set(Some(Box::new(policy)));
            finish(call, said.as_bytes());
        }
        Err(why) => {
            call.print(format!("refused: {why}\n").as_bytes());
            call.exit(1);
        }
    }
}

fn finish(call: &mut Call, output: &[u8]) {
    call.print(output);
    call.exit(0);
}
