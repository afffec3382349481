//! dom0's XenStore, through xenstored's socket.

use std::io;
use xenstore_rs::Xs as _;
use xenstore_rs::unix::XsUnix;

/// The value of a node.
pub(crate) fn read(path: &str) -> io::Result<String> {
    connect()?.read(path).map(String::from).map_err(|e| named(path, &e))
}

/// Sets a node.
pub(crate) fn write(path: &str, value: &str) -> io::Result<()> {
    connect()?.write(path, value).map_err(|e| named(path, &e))
}

/// Names of a node's children.
pub(crate) fn list(path: &str) -> io::Result<Vec<String>> {
    let names = connect()?.directory(path).map_err(|e| named(path, &e))?;
    Ok(names.into_iter().map(String::from).collect())
}

fn connect() -> io::Result<XsUnix> {
    XsUnix::new().map_err(|e| io::Error::new(e.kind(), format!("xenstored: {e}")))
}

fn named(path: &str, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("XenStore {path}: {e}"))
}

/// Removes a node and all below it, if it is there.
pub(crate) fn remove(path: &str) -> io::Result<()> {
    match connect()?.rm(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(named(path, &e)),
        _ => Ok(()),
    }
}
