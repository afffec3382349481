//! A tree of unpacked packages: finding the libraries programs need, and kernel modules.
//!
//! Nothing of the host leaks in: the tree's own loader resolves libraries, inside the tree.

use crate::error::{Context as _, Error, Result, ensure};
use crate::host::run;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tree and an index of what is looked up by name.
pub(crate) struct Tree {
    root: PathBuf,
    library_directories: OsString,
    /// Kernel modules by name, with `_` for `-`.
    modules: BTreeMap<String, PathBuf>,
    /// libgcc, which the toolstack loads by name at run time and no header lists.
    libgcc: PathBuf,
}

impl Tree {
    /// Looks through a tree.
    ///
    /// # Errors
    /// When it cannot be read or lacks libgcc.
    pub(crate) fn new(root: PathBuf) -> Result<Self> {
        let mut files = Vec::new();
        walk(&root, &mut files)?;
        let mut directories = BTreeSet::new();
        let mut modules = BTreeMap::new();
        let mut libgcc = None;
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if let Some(module) = name.strip_suffix(".ko") {
                modules.insert(module.replace('-', "_"), file);
            } else if name.contains(".so") {
                if name == "libgcc_s.so.1" {
                    libgcc = Some(file.clone());
                }
                directories.extend(file.parent().map(Path::to_owned));
            }
        }
        Ok(Self {
            library_directories: std::env::join_paths(directories).context("library path")?,
            modules,
            libgcc: libgcc.ok_or_else(|| Error::new("no libgcc_s.so.1 in the packages"))?,
            root,
        })
    }

    /// A file of the tree.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside)
    }

    /// The dynamic loader.
    pub(crate) fn loader(&self) -> PathBuf {
        self.path("lib64/ld-linux-x86-64.so.2")
    }

    /// Linux.
    pub(crate) fn kernel(&self) -> Result<PathBuf> {
        let boot = self.path("boot");
        let mut files = Vec::new();
        walk(&boot, &mut files)?;
        files
            .into_iter()
            .find(|file| {
                file.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz"))
            })
            .ok_or_else(|| Error::new(format!("no kernel in {}", boot.display())))
    }

    /// All libraries these programs load, as the tree's own loader lists them.
    pub(crate) fn libraries(&self, programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
        let mut libraries = BTreeSet::from([self.libgcc.clone()]);
        for program in programs {
            let listed = run(Command::new(self.loader())
                .arg("--library-path")
                .arg(&self.library_directories)
                .arg("--list")
                .arg(program))?;
            for line in listed.lines() {
                // name => path (address); the loader and the vdso have no arrow
                let Some((name, found)) = line.split_once(" => ") else { continue };
                let path = found.split(" (").next().unwrap_or_default();
                ensure(path.starts_with('/'), || {
                    format!("{} needs {}, which no package brings", program.display(), name.trim())
                })?;
                if !path.ends_with("/ld-linux-x86-64.so.2") {
                    libraries.insert(PathBuf::from(path));
                }
            }
        }
        Ok(libraries)
    }

    /// These modules and all they depend on, in an order that loads.
    pub(crate) fn modules(&self, wanted: &[&str]) -> Result<Vec<PathBuf>> {
        let mut order = Vec::new();
        for name in wanted {
            self.module(name, &mut order)?;
        }
        Ok(order)
    }

    fn module(&self, name: &str, order: &mut Vec<PathBuf>) -> Result<()> {
        let file = self
            .modules
            .get(&name.replace('-', "_"))
            .ok_or_else(|| Error::new(format!("no kernel module {name}")))?;
        if order.contains(file) {
            return Ok(());
        }
        for dependency in dependencies(&fs::read(file).map_err(Error::file(file))?) {
            self.module(&dependency, order)?;
        }
        order.push(file.clone());
        Ok(())
    }
}

/// What a module says it depends on: `depends=a,b` in its .modinfo section.
fn dependencies(module: &[u8]) -> Vec<String> {
    module
        .split(|byte| *byte == 0)
        .find_map(|text| text.strip_prefix(b"depends="))
        .map(|list| String::from_utf8_lossy(list).into_owned())
        .into_iter()
        .flat_map(|list| list.split(',').map(str::to_owned).collect::<Vec<_>>())
        .filter(|name| !name.is_empty())
        .collect()
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).map_err(Error::file(directory))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_dependencies_come_from_modinfo() {
        let module = b"\x7fELF\0license=GPL\0depends=nf_tables,nft-x\0name=y\0";
        assert_eq!(dependencies(module), ["nf_tables", "nft-x"]);
        assert!(dependencies(b"\0depends=\0").is_empty());
    }
}
