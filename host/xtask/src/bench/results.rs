//! The figures of all rounds, beside each other.
//!
//! In: figures of each firewall in each round. Out: medians with their spread as a table, and the aims
//! with what was reached. Never: a mean, which one disturbed round would move.

use super::figures::{Figure, Figures, Whose};
use super::table::Table;
use rig::Way;
use serde_json::{Value, json};

/// What one firewall showed.
pub(crate) struct Shown {
    /// Which one.
    pub(crate) name: String,
    /// One for each round.
    pub(crate) rounds: Vec<Figures>,
}

/// Everything of one run.
pub(crate) struct Results {
    /// The first is the one that is measured against the others.
    pub(crate) firewalls: Vec<Shown>,
}

/// The middle one of some values, and the ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let median = *values.get(values.len() / 2)?;
        Some(Self { least: *values.first()?, median, most: *values.last()? })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { least, median, most } = *self;
        f.write_str(&number(median))?;
        if least < most { write!(f, " ({}–{})", number(least), number(most)) } else { Ok(()) }
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    digits(value, 0)
}

/// Three digits that count, and some more.
fn digits(value: f64, more: usize) -> String {
    let places = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 || v == 0.0 => 2,
        _ => 3,
    };
    format!("{value:.0$}", places + more)
}

/// Two numbers that are compared: with one digit more if they look the same otherwise.
fn compared(one: f64, other: f64) -> (String, String) {
    let more = usize::from(number(one) == number(other));
    (digits(one, more), digits(other, more))
}

impl Shown {
    pub(crate) fn spread(&self, figure: Figure) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| round.get(&figure).copied()).collect())
    }

    fn median(&self, figure: Figure) -> Option<f64> {
        self.spread(figure).map(|spread| spread.median)
    }
}

impl Results {
    /// Every figure that any firewall has.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let rounds = self.firewalls.iter().flat_map(|shown| &shown.rounds);
        let mut figures: Vec<_> = rounds.flat_map(|round| round.keys().copied()).collect();
        figures.sort_unstable();
        figures.dedup();
        figures
    }

    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new(&["figure"]);
        table.columns.extend(self.firewalls.iter().map(|shown| shown.name.clone()));
        for figure in self.figures() {
            let cell = |shown: &Shown| {
                shown.spread(figure).map_or_else(|| "–".to_owned(), |spread| spread.to_string())
            };
            let mut row = vec![figure.title()];
            row.extend(self.firewalls.iter().map(cell));
            table.rows.push(row);
        }
        table
    }

    pub(crate) fn json(&self) -> Value {
        let round = |figures: &Figures| -> serde_json::Map<String, Value> {
            figures.iter().map(|(figure, value)| (figure.title(), json!(value))).collect()
        };
        let shown = |shown: &Shown| json!({ "name": shown.name, "rounds": shown.rounds.iter().map(round).collect::<Vec<_>>() });
        self.firewalls.iter().map(shown).collect()
    }

    fn of(&self, name: &str) -> Option<&Shown> {
        self.firewalls.iter().find(|shown| shown.name == name)
    }

    /// What was aimed at, and what was reached. Aims whose figures were not measured are left out.
    pub(crate) fn aims(&self) -> Table {
        let mut table = Table::new(&["aim", "bound", "reached", "met"]);
        for aim in aims() {
            if let Some(reached) = self.reached(&aim) {
                let met = if reached <= aim.bound { "yes" } else { "no" };
                let (reached, bound) = compared(reached, aim.bound);
                let times = |value| format!("{value} × Linux");
                let row = [aim.figure.title(), times(bound), times(reached), met.to_owned()];
                table.rows.push(row.to_vec());
            }
        }
        table.rows.extend(self.wake_ups_aim());
        for way in [Way::Up, Way::Down] {
            for streams in [1, 16] {
                table.rows.extend(self.rate_aim(Figure::Tcp(way, streams)));
            }
        }
        table
    }

    fn reached(&self, aim: &Aim) -> Option<f64> {
        let (own, linux) = (self.own()?, self.of(LINUX)?);
        Some(own.median(aim.figure)? / linux.median(aim.figure)?)
    }

    /// Tidegate, or what is in its place.
    fn own(&self) -> Option<&Shown> {
        self.firewalls.iter().find(|shown| ![LINUX, NONE].contains(&shown.name.as_str()))
    }

    fn wake_ups_aim(&self) -> Option<Vec<String>> {
        let figure = Figure::WakeUps;
        let own = self.own()?.median(figure)?;
        let (reached, bound) = compared(own, WAKE_UPS);
        let met = if own <= WAKE_UPS { "yes" } else { "no" };
        Some(vec![figure.title(), format!("≤ {bound}"), reached, met.to_owned()])
    }

    /// 1.3 × Linux, or 80 % of the run without a firewall, whichever is lower.
    fn rate_aim(&self, figure: Figure) -> Option<Vec<String>> {
        let own = self.own()?.median(figure)?;
        let linux = self.of(LINUX)?.median(figure)?;
        let none = self.of(NONE)?.median(figure)?;
        let bound = (1.3 * linux).min(0.8 * none);
        let (times, _) = compared(own / linux, 1.3);
        let share = number(100.0 * own / none);
        let met = if own >= bound { "yes" } else { "no" };
        let (own, bound) = compared(own, bound);
        let reached = format!("{own} ({times} × Linux, {share} % of none)");
        Some(vec![figure.title(), format!("≥ {bound}"), reached, met.to_owned()])
    }
}

/// As [`rig::Firewall::name`] calls them.
const LINUX: &str = "Linux";
const NONE: &str = "no firewall";

/// A figure that shall be so many times that of Linux at most.
struct Aim {
    figure: Figure,
    bound: f64,
}

/// In a second without traffic, at most.
const WAKE_UPS: f64 = 2.0;

fn aims() -> Vec<Aim> {
    let aim = |figure: Figure, bound| Aim { figure, bound };
    let mut aims: Vec<_> = [Way::Up, Way::Down]
        .into_iter()
        .flat_map(|way| [1, 16].map(|n| aim(Figure::PerGb(Whose::Firewall, way, n), 1.0 / 6.0)))
        .collect();
    aims.extend([
        aim(Figure::PerDatagram(Whose::Firewall), 1.0 / 8.0),
        aim(Figure::PingAlone, 0.5),
        aim(Figure::PingLoadedSlow, 1.0),
        aim(Figure::FirstPing, 0.1),
    ]);
    aims
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str, values: &[f64], figure: Figure) -> Shown {
        let round = |value: &f64| Figures::from([(figure, *value)]);
        Shown { name: name.into(), rounds: values.iter().map(round).collect() }
    }

    #[test]
    fn a_cell_is_the_median_with_the_ends() {
        let own = shown("Tidegate", &[3.0, 1.0, 200.0], Figure::PingAlone);
        let results = Results { firewalls: vec![own] };
        assert_eq!(results.table().rows, [["ping alone, p50, ms", "3.00 (1.00–200)"]]);
        assert!(results.aims().rows.is_empty(), "nothing to be compared with");
    }

    #[test]
    fn an_aim_is_met_at_its_bound_and_not_beyond() {
        for (value, met) in [(5.0, "yes"), (5.1, "no")] {
            let own = shown("Tidegate", &[value], Figure::PingAlone);
            let linux = shown(LINUX, &[10.0], Figure::PingAlone);
            // Linux is what is compared with, wherever it stands.
            let rows = Results { firewalls: vec![linux, own] }.aims().rows;
            assert_eq!(rows.len(), 1);
            assert_eq!(rows[0][3], met);
        }
    }

    #[test]
    fn what_is_compared_has_the_digit_that_decides() {
        assert_eq!(compared(163.2, 163.4), ("163.2".into(), "163.4".into()));
        assert_eq!(compared(162.0, 163.4), ("162".into(), "163".into()));
        assert_eq!(compared(1.299, 1.3), ("1.299".into(), "1.300".into()));
    }

    #[test]
    fn wake_ups_have_a_bound_of_their_own() {
        for (value, met) in [(2.0, "yes"), (2.05, "no")] {
            let own = shown("Tidegate", &[value], Figure::WakeUps);
            let rows = Results { firewalls: vec![own] }.aims().rows;
            assert_eq!(rows.len(), 1);
            assert_eq!(rows[0][3], met);
        }
    }

    #[test]
    fn the_lower_of_two_rates_is_the_bound() {
        let figure = Figure::Tcp(Way::Up, 1);
        for (own, none, met) in [(80.0, 100.0, "yes"), (79.0, 100.0, "no"), (130.0, 900.0, "yes")] {
            let firewalls = [("Tidegate", own), (LINUX, 100.0), (NONE, none)]
                .map(|(name, value)| shown(name, &[value], figure));
            let rows = Results { firewalls: firewalls.into() }.aims().rows;
            assert_eq!(rows[0][3], met, "{own} of {none}");
        }
    }
}
