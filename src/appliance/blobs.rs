//! Which policy the firewall starts with.
//!
//! In: the blob that was put into the kernel's image, and the boot module. Out: a checked policy and
//! where it came from, none, or why what was given cannot be obeyed. Never: another policy than the one
//! given last: a boot module counts before what is built in, and one that is broken, or is no policy at
//! all, is no reason to obey a policy that somebody meant to replace.

use core::fmt;
use rules::{BlobError, Policy};

/// What a boot brought; any bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blobs<'a> {
    /// Put into the kernel's image on Linux.
    pub built_in: Option<&'a [u8]>,
    /// Given by the toolstack beside the kernel: `ramdisk=` of xl, `initramfs` of Qubes.
    pub module: Option<&'a [u8]>,
}

/// Where a policy came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    BuiltIn,
    Module,
}

/// A policy was given and cannot be obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    source: Source,
    why: BlobError,
}

impl Blobs<'_> {
    /// The policy that counts, if one was given.
    pub(super) fn policy(&self) -> Result<Option<(Policy, Source)>, Broken> {
        let module = self.module.map(|blob| (blob, Source::Module));
        let Some((blob, source)) = module.or(self.built_in.map(|blob| (blob, Source::BuiltIn)))
        else {
            return Ok(None);
        };
        match Policy::decode(blob) {
            Ok(policy) => Ok(Some((policy, source))),
            Err(why) => Err(Broken { source, why }),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BuiltIn => "built in",
            Self::Module => "boot module",
        })
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, why } = self;
        write!(f, "policy ({source}): {why}: everything is dropped")?;
        match (source, why) {
            (Source::Module, BlobError::NotAPolicy) => {
                f.write_str(" (ramdisk= or initramfs must be what `tidegate compile` writes)")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lang::compile;
    use std::vec::Vec;

    const DROPS: &str = "zone a = netback\nzone b = netfront 0\npolicy a -> b { drop }\n";

    fn blob(name: &str) -> Vec<u8> {
        compile(name, DROPS).unwrap().blob
    }

    #[test]
    fn the_module_counts_before_what_is_built_in_and_nothing_is_fallen_back_to() {
        let (ours, module) = (blob("in.tide"), blob("module.tide"));
        let mut cut = module.clone();
        cut.pop();
        let linux: &[u8] = b"\x1f\x8b\x08";
        let (ours, module, cut) = (Some(&*ours), Some(&*module), Some(&*cut));
        for (built_in, module, expected) in [
            (None, None, Ok(None)),
            (ours, None, Ok(Some("in.tide"))),
            (None, module, Ok(Some("module.tide"))),
            (ours, module, Ok(Some("module.tide"))),
            (cut, None, Err(BlobError::Length)),
            (cut, module, Ok(Some("module.tide"))),
            (ours, cut, Err(BlobError::Length)),
            (ours, Some(linux), Err(BlobError::NotAPolicy)),
        ] {
            let got = Blobs { built_in, module }.policy();
            let name = got.as_ref().map(|p| p.as_ref().map(|(policy, _)| policy.name()));
            assert_eq!(name.map_err(|broken| broken.why), expected);
        }
    }
}
