//! What was measured: medians, and ratios to what a group of rows is compared with.

use std::fmt;

use serde_json::json;

/// Rows that belong together and are compared with the same.
#[derive(Debug, PartialEq)]
pub struct Group {
    /// Heading.
    pub title: &'static str,
    /// Name of the contender whose rates are 1.
    pub baseline: &'static str,
}

/// Something that is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Where it stands.
    pub group: &'static Group,
    /// What is done.
    pub name: &'static str,
    /// Of its rate: `/s` or `MiB/s`.
    pub unit: &'static str,
}

/// One measurement of a row: the rate in the row's unit. More is better.
pub type Figure = (Row, f64);

/// All measurements, in the order in which rows first came.
#[derive(Debug, Default)]
pub struct Table {
    cells: Vec<Cell>,
}

#[derive(Debug)]
struct Cell {
    row: Row,
    contender: String,
    rates: Vec<f64>,
}

impl Table {
    /// Notes what one contender did.
    pub fn note(&mut self, contender: &str, figures: impl IntoIterator<Item = Figure>) {
        for (row, rate) in figures {
            let found = self.cells.iter_mut().find(|cell| cell.row == row && cell.contender == contender);
            match found {
                Some(cell) => cell.rates.push(rate),
                None => self.cells.push(Cell { row, contender: contender.into(), rates: vec![rate] }),
            }
        }
    }

    /// The groups.
    pub fn groups(&self) -> Vec<&'static Group> {
        let mut groups: Vec<&'static Group> = Vec::new();
        for cell in &self.cells {
            if !groups.contains(&cell.row.group) {
                groups.push(cell.row.group);
            }
        }
        groups
    }

    /// The rows of a group.
    pub fn rows(&self, group: &Group) -> Vec<Row> {
        let mut rows = Vec::new();
        for cell in self.cells.iter().filter(|cell| cell.row.group == group) {
            if !rows.contains(&cell.row) {
                rows.push(cell.row);
            }
        }
        rows
    }

    /// Who was measured in a group: pond first, the baseline second.
    pub fn contenders(&self, group: &Group) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for cell in self.cells.iter().filter(|cell| cell.row.group == group) {
            if !names.contains(&cell.contender.as_str()) {
                names.push(&cell.contender);
            }
        }
        // Stable, so that the others stay in the order in which they came.
        names.sort_by_key(|name| (name == &group.baseline, *name != "pond"));
        let baseline = names.iter().position(|name| *name == group.baseline);
        if let Some(baseline) = baseline {
            let name = names.remove(baseline);
            names.insert(names.len().min(1), name);
        }
        names
    }

    /// The median of a contender's rates; `None` where it was not measured.
    pub fn median(&self, row: Row, contender: &str) -> Option<f64> {
        Some(median_of(self.rates(row, contender)?.to_vec()))
    }

    /// A contender's rates as multiples of the baseline's, round by round, as the machine's speed changes between rounds: the
    /// median of these. The ratio of the medians where one has more rounds than the other.
    pub fn ratio(&self, row: Row, contender: &str) -> Option<f64> {
        let (rates, baseline) = (self.rates(row, contender)?, self.rates(row, row.group.baseline)?);
        if rates.len() != baseline.len() {
            return Some(self.median(row, contender)? / self.median(row, row.group.baseline)?);
        }
        Some(median_of(rates.iter().zip(baseline).map(|(rate, baseline)| rate / baseline).collect()))
    }

    fn rates(&self, row: Row, contender: &str) -> Option<&[f64]> {
        let cell = self.cells.iter().find(|cell| cell.row == row && cell.contender == contender)?;
        Some(&cell.rates)
    }

    /// Every single rate, medians and ratios.
    pub fn to_json(&self) -> serde_json::Value {
        let cells = self.cells.iter().map(|cell| {
            json!({
                "group": cell.row.group.title,
                "baseline": cell.row.group.baseline,
                "row": cell.row.name,
                "unit": cell.row.unit,
                "contender": cell.contender,
                "rates": cell.rates,
                "median": self.median(cell.row, &cell.contender),
                "ratio": self.ratio(cell.row, &cell.contender),
            })
        });
        cells.collect()
    }
}

/// A rate with its unit, to three digits or more.
pub fn rate_text(rate: f64, unit: &str) -> String {
    match rate {
        _ if rate >= 99_950.0 && unit == "/s" => format!("{:.0}k{unit}", rate / 1000.0),
        _ if rate >= 999.5 && unit == "/s" => format!("{:.1}k{unit}", rate / 1000.0),
        _ if rate >= 99.5 => format!("{rate:.0}{unit}"),
        _ => format!("{rate:.1}{unit}"),
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for group in self.groups() {
            let names = self.contenders(group);
            write!(f, "\n{:34}", group.title)?;
            for name in &names {
                write!(f, " {name:>16}")?;
            }
            for name in names.iter().filter(|name| **name != group.baseline) {
                write!(f, "  {name}/{}", group.baseline)?;
            }
            writeln!(f)?;
            for row in self.rows(group) {
                write!(f, "  {:32}", row.name)?;
                for name in &names {
                    let rate = self.median(row, name).map_or("-".into(), |rate| rate_text(rate, row.unit));
                    write!(f, " {rate:>16}")?;
                }
                for name in names.iter().filter(|name| **name != group.baseline) {
                    let width = name.len() + 1 + group.baseline.len();
                    let ratio = self.ratio(row, name).map_or("-".into(), |ratio| format!("{ratio:.2}"));
                    write!(f, "  {ratio:>width$}")?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

fn median_of(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Group = Group { title: "group", baseline: "other" };
    const ROW: Row = Row { group: &GROUP, name: "row", unit: "/s" };

    #[test]
    fn medians_and_ratios_are_those_of_the_rates_noted() {
        let mut table = Table::default();
        // The machine is fast in one round and slow in another.
        for (rate, ratio) in [(1.0, 4.0), (100.0, 5.0), (8.0, 3.0)] {
            table.note("pond", [(ROW, rate)]);
            table.note("other", [(ROW, rate / ratio)]);
        }
        table.note("third", [(ROW, 6.0)]);
        assert_eq!(table.median(ROW, "pond"), Some(8.0));
        assert_eq!(table.ratio(ROW, "pond"), Some(4.0));
        assert_eq!(table.ratio(ROW, "third"), Some(6.0 / (8.0 / 3.0)));
        assert_eq!(table.median(ROW, "nobody"), None);
        assert_eq!(table.contenders(&GROUP), ["pond", "other", "third"]);
        assert_eq!(table.to_json()[0]["rates"], json!([1.0, 100.0, 8.0]));
    }

    #[test]
    fn rates_have_three_digits_at_least() {
        assert_eq!(rate_text(64_123.0, "/s"), "64.1k/s");
        assert_eq!(rate_text(1_165_000.0, "/s"), "1165k/s");
        assert_eq!(rate_text(3_990.3, " MiB/s"), "3990 MiB/s");
        assert_eq!(rate_text(7.04, "/s"), "7.0/s");
    }
}
