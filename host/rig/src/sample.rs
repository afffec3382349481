//! Where the processors' time goes: who runs, and at which instruction, seen from outside.
//!
//! In: the emulator's monitor. Out: one [`Sample`] for each processor and look. The machine stands
//! still while it is looked at, and its clocks with it, so looking costs the guests nothing.

use crate::error::{Error, Result};
use crate::monitor::{Monitor, Registers};

/// Xen's own text and data (XEN_VIRT_START, 1 GiB; asm/config.h): no guest has anything there.
const XEN: std::ops::Range<u64> = 0xffff_82d0_4000_0000..0xffff_82d0_8000_0000;
/// All physical memory, in Xen's eyes (DIRECTMAP_VIRT_START, asm/config.h).
const DIRECT_MAP: u64 = 0xffff_8300_0000_0000;
/// A processor's stack in Xen, and where `struct cpu_info` stands: at its top (asm/current.h).
const STACK: u64 = 8 * 4096;
/// `sizeof(struct cpu_info)`, and in it: the guest's RIP, the processor's number, the current vCPU.
const INFO: u64 = 264;
const INFO_RIP: u64 = 128;
const INFO_CPU: u64 = 200;
const INFO_CURRENT: u64 = 208;
/// In `struct vcpu`: its domain. In `struct domain`: its number comes first (xen/sched.h).
const VCPU_DOMAIN: u64 = 16;
/// DOMID_IDLE (xen.h).
const IDLE: u16 = 0x7fff;

/// What one processor was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Whose time it was; None is nobody's.
    pub domain: Option<u16>,
    /// The next instruction.
    pub rip: u64,
    /// In the hypervisor: where the guest goes on, as it was when it entered.
    pub from: Option<u64>,
}

/// Looks at a machine again and again.
pub struct Sampler {
    monitor: Monitor,
    /// Physical address of each processor's `struct cpu_info`, as soon as it is known.
    info: Vec<Option<u64>>,
}

impl Sampler {
    /// A sampler that knows nothing yet.
    pub fn new(monitor: Monitor) -> Self {
        Self { monitor, info: Vec::new() }
    }

    /// Looks once. A processor that was never seen in Xen is left out: nobody knows yet whose it is.
    ///
    /// # Errors
    /// When the emulator does not answer, or Xen is not laid out as it was expected.
    pub fn look(&mut self) -> Result<Vec<Sample>> {
        let info = &mut self.info;
        self.monitor.stopped(|monitor| {
            let all = monitor.registers()?;
            info.resize(all.len(), None);
            let mut samples = Vec::new();
            for (cpu, (registers, info)) in all.into_iter().zip(info).enumerate() {
                if info.is_none() && XEN.contains(&registers.rip) {
                    *info = Some(cpu_info(monitor, cpu, registers)?);
                }
                if let Some(info) = *info {
                    samples.push(sample(monitor, registers, info)?);
                }
            }
            Ok(samples)
        })
    }
}

fn sample(monitor: &mut Monitor, registers: Registers, info: u64) -> Result<Sample> {
    let Registers { rip, halted, .. } = registers;
    let vcpu = monitor.word(info + INFO_CURRENT)?;
    let domain = monitor.word(directly(vcpu)? + VCPU_DOMAIN)?;
    let number = (monitor.word(directly(domain)?)? & 0xffff) as u16;
    let domain = (number != IDLE && !halted).then_some(number);
    let inside = domain.is_some() && XEN.contains(&rip);
    let from = if inside { Some(monitor.word(info + INFO_RIP)?) } else { None };
    Ok(Sample { domain, rip, from })
}

/// Finds the top of a processor's stack, and believes it only if it tells the processor's number.
fn cpu_info(monitor: &mut Monitor, cpu: usize, registers: Registers) -> Result<u64> {
    let top = (registers.rsp | (STACK - 1)) + 1;
    let info = monitor.physical(cpu, top - INFO)?;
    let number = monitor.word(info + INFO_CPU)? & 0xffff_ffff;
    if number == cpu as u64 {
        return Ok(info);
    }
    Err(Error::new(format!("processor {cpu} calls itself {number}: another Xen than 4.17?")))
}

fn directly(virt: u64) -> Result<u64> {
    let what = || Error::new(format!("{virt:#x} is not in Xen's direct map"));
    virt.checked_sub(DIRECT_MAP).ok_or_else(what)
}
