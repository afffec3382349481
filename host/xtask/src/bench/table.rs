//! What was measured, as rows and columns: on the terminal, as JSON under target/bench, and in
//! docs/SPECIFICATION.md between `<!-- bench NAME -->` and `<!-- end NAME -->`.

use rig::{Context as _, Error, Layout, Result};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::fs;

/// What was measured, a row each.
pub(crate) struct Table {
    /// Their names, units included.
    pub(crate) columns: Vec<String>,
    /// As many cells as columns in each.
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// Without rows yet.
    pub(crate) fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(|name| (*name).to_owned()).collect(), rows: Vec::new() }
    }

    /// As Markdown.
    pub(crate) fn markdown(&self) -> String {
        let rule = "---|".repeat(self.columns.len());
        let mut text = format!("| {} |\n|{rule}\n", self.columns.join(" | "));
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }

    /// As an array of objects.
    pub(crate) fn json(&self) -> Value {
        let row = |row: &Vec<String>| -> Map<String, Value> {
            self.columns.iter().cloned().zip(row.iter().map(|cell| json!(cell))).collect()
        };
        self.rows.iter().map(row).collect()
    }

    /// Writes it under target/bench; returns its Markdown with the command that shows it.
    pub(crate) fn save(&self, layout: &Layout, name: &str, shown_by: &str) -> Result<String> {
        save_json(layout, name, &json!({ "shown_by": shown_by, "rows": self.json() }))?;
        Ok(format!("{}\nShown by `{shown_by}`.\n", self.markdown()))
    }
}

/// Writes `target/bench/NAME.json`.
pub(crate) fn save_json(layout: &Layout, name: &str, value: &Value) -> Result<()> {
    let directory = layout.target.join("bench");
    fs::create_dir_all(&directory).map_err(Error::file(&directory))?;
    let path = directory.join(format!("{name}.json"));
    fs::write(&path, format!("{value:#}\n")).map_err(Error::file(&path))?;
    eprintln!("{}", path.display());
    Ok(())
}

/// Replaces what docs/SPECIFICATION.md says under a name.
pub(crate) fn specify(layout: &Layout, name: &str, text: &str) -> Result<()> {
    let path = layout.root.join("docs/SPECIFICATION.md");
    let old = fs::read_to_string(&path).map_err(Error::file(&path))?;
    let new = replaced(&old, name, text).context(path.display())?;
    fs::write(&path, new).map_err(Error::file(&path))?;
    eprintln!("written to {}", path.display());
    Ok(())
}

/// The text with something new between the two marks.
fn replaced(text: &str, name: &str, table: &str) -> Result<String> {
    let (first, last) = (format!("<!-- bench {name} -->\n"), format!("<!-- end {name} -->"));
    let missing = || Error::new(format!("no `{}` … `{last}`", first.trim_end()));
    let (before, rest) = text.split_once(&first).ok_or_else(missing)?;
    let (_, after) = rest.split_once(&last).ok_or_else(missing)?;
    Ok(format!("{before}{first}{table}{last}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_replaced_between_its_marks_only() {
        let text = "a\n<!-- bench size -->\nold\n<!-- end size -->\nb\n";
        let new = replaced(text, "size", "new\n").unwrap();
        assert_eq!(new, "a\n<!-- bench size -->\nnew\n<!-- end size -->\nb\n");
        assert!(replaced("nothing here", "size", "new").is_err());
    }
}
