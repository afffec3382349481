//! The emulated machine: QEMU with Xen and dom0, and the serial line to dom0's agent.
//!
//! In: images and a memory size. Out: a [`Machine`] whose agent has greeted. Has no network
//! at all. Dropping it ends QEMU, by its own process id.

use crate::config::Mode;
use crate::error::{Context as _, Error, Result};
use crate::host::Layout;
use crate::image::{self, Images};
use crate::link::Link;
use crate::monitor::Monitor;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Emulated memory in MiB: dom0 has [`DOM0_MIB`], the rest is for guests.
const MACHINE_MIB: u32 = 3000;
const DOM0_MIB: u32 = 768;
/// dom0 answers about 10 s after power on; a busy host may need several times that.
const BOOT: Duration = Duration::from_secs(600);

/// How the machine is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Give dom0's console a shell, and leave the machine running when dropped.
    pub keep: bool,
    /// Emulated processors. Two are faster on an idle host; on a busy one they wait for each other.
    pub cpus: u8,
    /// What makes time go by inside.
    pub clock: Clock,
}

/// What makes time go by inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The host's clock: a busy host makes everything seem slower.
    Host,
    /// The instructions that were executed, eight nanoseconds each. A busy host
    /// changes nothing that can be seen inside. For one processor: two would count each other's.
    Instructions,
}

impl Default for Options {
    fn default() -> Self {
        Self { keep: false, cpus: 2, clock: Clock::Host }
    }
}

/// A running machine.
pub struct Machine {
    qemu: Child,
    link: Link,
    directory: PathBuf,
    keep: bool,
}

impl Machine {
    /// Starts QEMU and waits until dom0's agent greets.
    ///
    /// # Errors
    /// When QEMU does not start or dom0 does not answer; carries the console's last lines.
    ///
    /// `files` are put into dom0: the path there, and the path here. `mode` is that of the firewall.
    pub(crate) fn start(
        layout: &Layout,
        images: &Images,
        files: &[(String, PathBuf)],
        mode: Mode,
        options: Options,
    ) -> Result<Self> {
        forget_ended(&layout.cache())?;
        let directory = layout.cache().join(format!("run-{}", std::process::id()));
        fs::create_dir_all(&directory).map_err(Error::file(&directory))?;
        let initramfs = directory.join("dom0.cpio");
        let mut archive = fs::read(&images.dom0).map_err(Error::file(&images.dom0))?;
        archive.extend(image::overlay(files)?);
        fs::write(&initramfs, archive).map_err(Error::file(&initramfs))?;

        let log = File::create(directory.join("qemu.log"))?;
        let mut qemu = Command::new("qemu-system-x86_64")
            .args(arguments(images, mode, options))
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("qemu-system-x86_64")?;
        let link = match (qemu.stdin.take(), qemu.stdout.take()) {
            (Some(to), Some(from)) => Link::new(to, from),
            _ => return Err(Error::new("QEMU has no standard input or output")),
        };
        let machine = Self { qemu, link, directory, keep: options.keep };
        machine.link.greeting(BOOT).map_err(|e| machine.with_console(&e))?;
        Ok(machine)
    }

    /// The line to the agents.
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Where this run's logs are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Process id of QEMU.
    pub fn pid(&self) -> u32 {
        self.qemu.id()
    }

    /// The emulator's own view of the machine.
    ///
    /// # Errors
    /// When the emulator does not listen.
    pub fn monitor(&self) -> Result<Monitor> {
        Monitor::connect(&self.directory)
    }

    /// The last lines Xen and dom0 wrote to the machine's console.
    pub fn console_tail(&self, lines: usize) -> String {
        let bytes = fs::read(self.directory.join("xen.log")).unwrap_or_default();
        tail(&String::from_utf8_lossy(&bytes), lines)
    }

    fn with_console(&self, e: &Error) -> Error {
        let errors = fs::read_to_string(self.directory.join("qemu.log")).unwrap_or_default();
        Error::new(format!("{e}\n{errors}{}", self.console_tail(25)))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !self.keep {
            let _ = self.qemu.kill();
            let _ = self.qemu.wait();
            let _ = fs::remove_file(self.directory.join("dom0.cpio"));
        }
    }
}

/// Removes what earlier runs left behind, unless they are still going on.
fn forget_ended(cache: &Path) -> Result<()> {
    for entry in fs::read_dir(cache).map_err(Error::file(cache))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ours = name.strip_prefix("run-").is_some();
        let used = fs::read_to_string(path.join("qemu.pid"))
            .is_ok_and(|pid| Path::new("/proc").join(pid.trim()).exists());
        if ours && !used {
            fs::remove_dir_all(&path).map_err(Error::file(&path))?;
        }
    }
    Ok(())
}

/// The processor that QEMU emulates. Without -smap,-smep a PV dom0 dies at once, without -monitor Xen
/// faults in an mwait that the emulator does not know. Without -avx and eager-fpu programs in guests
/// crash or compare strings wrongly now and then: the emulator's AVX does not go together with
/// registers that are switched late. EPYC has the SVM that PVH guests need, emulated.
pub const PROCESSOR: &str = "EPYC,-smap,-smep,-monitor,-avx,-avx2,-fma,-f16c";

/// What every Xen here is told: where its console is, and to idle by HLT alone.
pub const XEN_WORDS: &str = "console=com1 com1=115200,8n1 cpuidle=0";

/// QEMU's arguments. With a thread for each processor the emulated SVM ends a PVH guest now and then:
/// the guest faults for no reason at the first instruction after VMRUN, or the hypervisor's registers
/// stand in its VMCB, and Xen reports a triple fault. Seen with QEMU 7.2 and 10.0, never where one
/// thread takes turns.
fn arguments(images: &Images, mode: Mode, options: Options) -> Vec<String> {
    let shell = if options.keep { " tidegate.shell" } else { "" };
    let kernel = images.kernel.display();
    let modules = format!("{kernel} console=hvc0 earlyprintk=xen panic=-1 quiet{shell},dom0.cpio");
    let xen = format!(
        "{XEN_WORDS} loglvl=warning guest_loglvl=all spec-ctrl=eager-fpu dom0_mem={DOM0_MIB}M \
         conring_size=256k"
    );
    let accelerator = match mode {
        Mode::Pv => "tcg",
        Mode::Pvh => "tcg,thread=single",
    };
    let words = [
        "-no-reboot -display none -monitor none -net none -pidfile qemu.pid",
        "-chardev socket,id=console,path=console.sock,server=on,wait=off,logfile=xen.log",
        "-serial chardev:console",
        "-qmp unix:monitor.sock,server=on,wait=off",
        "-chardev stdio,id=agent,signal=off -serial chardev:agent",
    ];
    let mut arguments: Vec<String> =
        words.iter().flat_map(|line| line.split(' ')).map(str::to_owned).collect();
    let kernel = images.xen.display().to_string();
    for (name, value) in [
        ("-accel", accelerator.to_owned()),
        ("-cpu", PROCESSOR.to_owned()),
        ("-smp", options.cpus.to_string()),
        ("-m", MACHINE_MIB.to_string()),
        ("-kernel", kernel),
        ("-initrd", modules),
        ("-append", xen),
    ] {
        arguments.extend([name.to_owned(), value]);
    }
    if options.clock == Clock::Instructions {
        arguments.extend(["-icount", "shift=3"].map(str::to_owned));
    }
    arguments
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.into_iter().skip(from).map(|line| format!("    | {}\n", line.trim_end())).collect()
}
