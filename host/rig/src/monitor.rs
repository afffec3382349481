//! QEMU's own view of the machine: it can be stopped between two instructions and looked at, without
//! the guests noticing, as their clocks stop too.
//!
//! In: QMP, the emulator's JSON protocol on a socket. Out: registers and words of physical memory.
//! Never: changes anything inside.

use crate::error::{Context as _, Error, Result};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// What any command may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the socket is, in the run's directory.
pub(crate) const SOCKET: &str = "monitor.sock";

/// A connection to the emulator.
pub struct Monitor {
    to: UnixStream,
    from: BufReader<UnixStream>,
}

/// What one emulated processor was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Registers {
    /// Of the next instruction.
    pub rip: u64,
    /// Of the stack.
    pub rsp: u64,
    /// It waits for an interrupt.
    pub halted: bool,
}

impl Monitor {
    /// Connects to the emulator whose files are in `directory`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub(crate) fn connect(directory: &Path) -> Result<Self> {
        let path = directory.join(SOCKET);
        let to = UnixStream::connect(&path).map_err(Error::file(&path))?;
        to.set_read_timeout(Some(PATIENCE))?;
        let from = BufReader::new(to.try_clone()?);
        let mut monitor = Self { to, from };
        monitor.message().context("QMP greeting")?;
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Stops the machine, looks, and lets it go on.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub fn stopped<T>(&mut self, look: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.execute("stop", &json!({}))?;
        let seen = look(self);
        self.execute("cont", &json!({}))?;
        seen
    }

    /// Of every processor, in order.
    ///
    /// # Errors
    /// When the emulator does not answer, or in words of another version.
    pub fn registers(&mut self) -> Result<Vec<Registers>> {
        let text = self.human("info registers -a", 0)?;
        let all: Option<Vec<_>> = text.split("CPU#").skip(1).map(parse_registers).collect();
        all.filter(|all| !all.is_empty())
            .ok_or_else(|| Error::new(format!("no registers in: {text}")))
    }

    /// The physical address of a virtual one, as a processor sees it now.
    ///
    /// # Errors
    /// When it is not mapped.
    pub fn physical(&mut self, cpu: usize, virt: u64) -> Result<u64> {
        let text = self.human(&format!("gva2gpa {virt:#x}"), cpu)?;
        number_after(&text, "gpa:").ok_or_else(|| Error::new(format!("gva2gpa {virt:#x}: {text}")))
    }

    /// A 64-bit word of physical memory.
    ///
    /// # Errors
    /// When there is none.
    pub fn word(&mut self, physical: u64) -> Result<u64> {
        let text = self.human(&format!("xp /1gx {physical:#x}"), 0)?;
        number_after(&text, ":").ok_or_else(|| Error::new(format!("xp {physical:#x}: {text}")))
    }

    fn human(&mut self, command: &str, cpu: usize) -> Result<String> {
        let arguments = json!({ "command-line": command, "cpu-index": cpu });
        let text = self.execute("human-monitor-command", &arguments)?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let order = json!({ "execute": command, "arguments": arguments });
        writeln!(self.to, "{order}").context(command)?;
        loop {
            let mut message = self.message().context(command)?;
            if let Some(result) = message.get_mut("return") {
                return Ok(result.take());
            }
            if let Some(error) = message.get("error") {
                return Err(Error::new(format!("QMP {command}: {error}")));
            }
            // Anything else is an event that nobody asked for.
        }
    }

    fn message(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        serde_json::from_str(&line).context(format!("QMP said {line:?}"))
    }
}

/// Reads what follows `CPU#`: `RIP=… RSP=… HLT=1`.
fn parse_registers(text: &str) -> Option<Registers> {
    let hex = |name: &str| {
        let (_, rest) = text.split_once(name)?;
        u64::from_str_radix(rest.split_whitespace().next()?, 16).ok()
    };
    Some(Registers { rip: hex("RIP=")?, rsp: hex("RSP=")?, halted: hex("HLT=")? == 1 })
}

/// The hexadecimal number behind a word.
fn number_after(text: &str, word: &str) -> Option<u64> {
    let (_, rest) = text.split_once(word)?;
    u64::from_str_radix(rest.split_whitespace().next()?.trim_start_matches("0x"), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_read_for_each_processor() {
        let text = "\r\nCPU#0\r\nRAX=0000000000000000 RBX=1\r\nRSI=0 RDI=0 RBP=0 \
                    RSP=ffff83000009fe28\r\nRIP=ffff82d04022e0f5 RFL=00000246 [---Z-P-] CPL=0 \
                    II=0 A20=1 SMM=0 HLT=1\r\nES =0000";
        let part = text.split("CPU#").nth(1).unwrap();
        let seen = parse_registers(part).unwrap();
        let (rip, rsp) = (0xffff_82d0_4022_e0f5, 0xffff_8300_0009_fe28);
        assert_eq!(seen, Registers { rip, rsp, halted: true });
    }

    #[test]
    fn words_and_addresses_are_read() {
        assert_eq!(
            number_after("0000000000001000: 0x00000000deadbeef\r\n", ":"),
            Some(0xdead_beef)
        );
        assert_eq!(number_after("gpa: 0x1f000\r\n", "gpa:"), Some(0x1f000));
        assert_eq!(number_after("Unmapped\r\n", "gpa:"), None);
    }
}
