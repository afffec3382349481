//! Puts declarations into an order in which each comes after those it uses.

use crate::ast::Name;
use std::collections::{HashMap, HashSet, VecDeque};

/// The order, and what has none.
pub(super) struct Order<'a> {
    /// Indices of the declarations. Those that wait for a cycle come last.
    pub(super) sorted: Vec<usize>,
    /// For each cycle the uses that make it, in order.
    pub(super) cycles: Vec<Vec<Name<'a>>>,
}

/// Orders declarations, each given by its name and the names it uses. Names that are not declared
/// here do not matter.
pub(super) fn in_order<'a>(
    decls: impl IntoIterator<Item = (Name<'a>, Vec<Name<'a>>)>,
) -> Order<'a> {
    let decls: Vec<_> = decls.into_iter().collect();
    let index: HashMap<_, _> = decls.iter().enumerate().map(|(i, (n, _))| (n.text, i)).collect();
    let used = |i: usize| {
        let uses = decls.get(i).map_or(&[][..], |(_, uses)| uses);
        uses.iter().filter_map(|name| Some((index.get(name.text).copied()?, *name)))
    };
    let mut waits: Vec<usize> = (0..decls.len()).map(|i| used(i).count()).collect();
    let mut users: HashMap<usize, Vec<usize>> = HashMap::new();
    for user in 0..decls.len() {
        used(user).for_each(|(target, _)| users.entry(target).or_default().push(user));
    }
    let mut ready: VecDeque<usize> =
        (0..decls.len()).filter(|&i| waits.get(i) == Some(&0)).collect();
    let mut sorted = Vec::with_capacity(decls.len());
    while let Some(done) = ready.pop_front() {
        sorted.push(done);
        for &user in users.get(&done).into_iter().flatten() {
            let Some(left) = waits.get_mut(user) else { continue };
            *left = left.saturating_sub(1);
            if *left == 0 {
                ready.push_back(user);
            }
        }
    }
    let settled: HashSet<usize> = sorted.iter().copied().collect();
    let stuck: Vec<usize> = (0..decls.len()).filter(|i| !settled.contains(i)).collect();
    let next_stuck = |i: usize| used(i).find(|(target, _)| !settled.contains(target));
    let cycles = cycles(&stuck, next_stuck);
    sorted.extend(stuck);
    Order { sorted, cycles }
}

/// Each stuck declaration uses another stuck one, so following them ends in a cycle.
fn cycles<'a>(
    stuck: &[usize],
    next: impl Fn(usize) -> Option<(usize, Name<'a>)>,
) -> Vec<Vec<Name<'a>>> {
    let mut cycles = Vec::new();
    let mut visited = HashSet::new();
    for &start in stuck {
        let mut path: Vec<(usize, Name<'a>)> = Vec::new();
        let mut at = start;
        while visited.insert(at) {
            let Some((target, name)) = next(at) else { break };
            path.push((at, name));
            at = target;
        }
        // The end of the path lies on it only if this walk has closed a cycle of its own.
        if let Some(entry) = path.iter().position(|(i, _)| *i == at) {
            cycles.push(path.into_iter().skip(entry).map(|(_, name)| name).collect());
        }
    }
    cycles
}
