//! Texts and messages: policies, blobs, Qubes' rules, the command line, XenStore, QubesDB.

use qubes::{Event, Session};
use rules::qubes::Tree;
use rules::{Digest, Family, Policy};
use xen::store::wire::{Header, MsgType, Reply, StoreError, parse_watch_event};

/// A compiled policy. What is read is written the same way again.
///
/// A blob with a wrong digest is only refused, which leaves little to find, so the bytes are taken
/// for the body and given a right one.
pub fn blob(data: &[u8]) {
    let _ = Policy::decode(data);
    let mut blob = b"TIDEGATE".to_vec();
    blob.extend(rules::FORMAT.to_le_bytes());
    blob.extend([0; 2]);
    blob.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    blob.extend(Digest::of(data).0);
    blob.extend(data);
    if let Ok(policy) = Policy::decode(&blob) {
        assert_eq!(policy.encode().unwrap(), blob);
    }
}

/// The policy language. Every mistake can be shown; what compiles survives its blob.
pub fn policy(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    match lang::compile("fuzz.tide", text) {
        Ok(compiled) => assert_eq!(Policy::decode(&compiled.blob).unwrap(), compiled.policy),
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            for mistake in mistakes {
                assert!(!mistake.render().is_empty());
            }
        }
    }
}

/// The rules of a VM, as dom0 writes them: a key and a value on each line, split by a space.
pub fn tree(data: &[u8]) {
    let entries: Vec<(&str, &[u8])> = data
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let space = line.iter().position(|byte| *byte == b' ')?;
            Some((core::str::from_utf8(&line[..space]).ok()?, &line[space + 1..]))
        })
        .collect();
    for family in [Family::V4, Family::V6] {
        if let Ok(tree) = Tree::parse(family, entries.iter().copied()) {
            assert_eq!(tree.rules.len() + 1, entries.len());
        }
    }
}

/// The kernel's command line. The place of a mistake lies in the line.
pub fn cmdline(data: &[u8]) {
    let Ok(line) = core::str::from_utf8(data) else { return };
    match tidegate::config::Settings::parse(line) {
        Ok(settings) => {
            let _ = settings.firewall(None);
        }
        Err(mistake) => assert!(!mistake.to_string().is_empty()),
    }
}

/// Messages of XenStore: a type, then a payload.
pub fn xenstore(data: &[u8]) {
    if let Some(bytes) = data.first_chunk() {
        assert_eq!(Header::decode(bytes).encode(), *bytes);
    }
    let Some((kind, payload)) = data.split_first() else { return };
    let _ = StoreError::parse(payload).name();
    if let Some((path, token)) = parse_watch_event(payload) {
        assert!(path.len() + token.len() < payload.len());
    }
    let Some(kind) = MsgType::parse((*kind).into()) else { return };
    match Reply::parse(kind, payload) {
        Some(Reply::Part { names, next, .. }) => {
            assert!(next as usize <= payload.len() && names.len() <= payload.len());
        }
        Some(Reply::Value(value)) => assert_eq!(value, payload),
        _ => {}
    }
}

/// A QubesDB stream: however it is cut, the outcome is the same.
pub fn qubesdb(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    let whole = played(stream, stream.len().max(1));
    let pieces = played(stream, usize::from(*cut).max(1));
    assert_eq!(whole, pieces);
}

type Outcome = (bool, Vec<Event>, Vec<u8>, usize);

fn played(stream: &[u8], piece: usize) -> Outcome {
    let mut session = Session::connected(1 << 20);
    let (mut events, mut answers, mut failed) = (Vec::new(), Vec::new(), false);
    for bytes in stream.chunks(piece) {
        failed |= session.receive(bytes).is_err();
        if failed {
            break;
        }
        answers.extend_from_slice(session.outgoing());
        session.sent(usize::MAX);
        events.extend(core::iter::from_fn(|| session.next_event()));
    }
    // What was asked and told before a mistake depends on how it was cut; the mistake does not.
    if failed {
        return (true, Vec::new(), Vec::new(), 0);
    }
    (false, events, answers, session.store().below("/").count())
}
