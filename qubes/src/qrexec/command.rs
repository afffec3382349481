//! The command line of a call: `user:QUBESRPC service+argument source`, or anything for a shell.

use alloc::string::{String, ToString};

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A service.
    Service {
        /// Its name, without the argument.
        name: String,
        /// Its argument; empty if there is none.
        argument: String,
        /// The VM that calls; dom0 has made sure of it.
        source: String,
    },
    /// Something else, such as a shell command. There is nothing to run it with.
    Other,
}

impl Command {
    /// Reads a command line, up to its NUL.
    pub(super) fn parse(line: &[u8]) -> Self {
        let line = line.split(|b| *b == 0).next().unwrap_or_default();
        Self::service(line).unwrap_or(Self::Other)
    }

    fn service(line: &[u8]) -> Option<Self> {
        let line = core::str::from_utf8(line).ok()?;
        let line = line.strip_prefix("nogui:").unwrap_or(line);
        let (_user, rest) = line.split_once(':')?;
        let mut words = rest.strip_prefix("QUBESRPC ")?.split(' ');
        let (service, source) = (words.next()?, words.next()?);
        // What follows tells how the target was named.
        let (name, argument) = service.split_once('+').unwrap_or((service, ""));
        let fine = !name.is_empty() && !source.is_empty();
        fine.then(|| Self::Service {
            name: name.to_string(),
            argument: argument.to_string(),
            source: source.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_told_from_all_else() {
        let service = |name: &str, argument: &str, source: &str| Command::Service {
            name: name.into(),
            argument: argument.into(),
            source: source.into(),
        };
        let table: [(&[u8], Command); 10] = [
            (
                b"user:QUBESRPC qubes.WaitForSession dom0\0",
                service("qubes.WaitForSession", "", "dom0"),
            ),
            (b"nogui:root:QUBESRPC a.B+c+d work\0", service("a.B", "c+d", "work")),
            (b"root:QUBESRPC a.B+ dom0 name fw\0", service("a.B", "", "dom0")),
            (b"root:QUBESRPC a.B dom0", service("a.B", "", "dom0")),
            (b"root:QUBESRPC a.B\0", Command::Other),
            (b"root:QUBESRPC  dom0\0", Command::Other),
            (b"root:poweroff\0", Command::Other),
            (b"QUBESRPC a.B dom0\0", Command::Other),
            (b"root:QUBESRPC \xff dom0\0", Command::Other),
            (b"", Command::Other),
        ];
        for (line, command) in table {
            assert_eq!(Command::parse(line), command, "{}", line.escape_ascii());
        }
    }
}
