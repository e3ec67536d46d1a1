//! The one place that renders: tables and lines for people, JSON for programs.
//!
//! With `--json` a command that states one fact prints one JSON object, and a command that lists
//! prints JSON lines, one object an entry. Facts go to standard output; what merely
//! accompanies the work (progress, warnings, errors) goes to standard error, as text or, with
//! `--log-format json`, as JSON lines that each name their `event`.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use comfy_table::{CellAlignment, Table, presets};
pub use pond_steward::count;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Failure, Report, Result};

/// How what accompanies the work is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people, and a progress bar on a terminal.
    #[default]
    Text,
    /// JSON lines on standard error.
    Json,
}

/// Where facts go.
pub struct Output {
    json: bool,
    stdout: BufWriter<Stdout>,
}

impl Output {
    /// To standard output.
    pub fn new(json: bool) -> Self {
        Output { json, stdout: BufWriter::with_capacity(64 << 10, io::stdout()) }
    }

    /// Whether programs are reading.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether facts go to a terminal.
    pub fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// A line for people; nothing in JSON.
    pub fn line(&mut self, text: &str) -> Result {
        if self.json {
            return Ok(());
        }
        written(writeln!(self.stdout, "{text}"))
    }

    /// A fact for programs; nothing for people.
    pub fn json(&mut self, fact: &impl Serialize) -> Result {
        if !self.json {
            return Ok(());
        }
        match serde_json::to_writer(&mut self.stdout, fact) {
            Ok(()) => written(self.stdout.write_all(b"\n")),
            Err(error) => written(Err(io::Error::from(error))),
        }
    }

    /// A table for people; nothing in JSON and nothing if it has no rows.
    pub fn table(&mut self, columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> Result {
        if self.json {
            return Ok(());
        }
        let text = render(columns, rows);
        written(self.stdout.write_all(text.as_bytes()))
    }

    /// Names and values under each other.
    pub fn facts(&mut self, facts: &[(&str, String)]) -> Result {
        const COLUMNS: [Column; 2] = [Column::bare(), Column::bare()];
        self.table(&COLUMNS, facts.iter().map(|(name, value)| vec![format!("{name}:"), value.clone()]))
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result {
        written(self.stdout.write_all(bytes))
    }

    /// Starts a terminal's screen anew, for what is shown again and again.
    pub fn clear_screen(&mut self) -> Result {
        self.bytes(b"\x1b[H\x1b[2J")
    }

    /// Hands everything to the reader. Must be called at the end: a failure counts.
    pub fn flush(&mut self) -> Result {
        written(self.stdout.flush())
    }
}

/// A reader that has gone is no error; anything else (a full disk behind `>`) is.
fn written(result: io::Result<()>) -> Result {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::because("cannot write to standard output", &error),
    })
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    title: &'static str,
    right: bool,
}

impl Column {
    /// Text.
    pub const fn text(title: &'static str) -> Self {
        Column { title, right: false }
    }

    /// Numbers, aligned to the right.
    pub const fn number(title: &'static str) -> Self {
        Column { title, right: true }
    }

    /// Text under no title.
    pub const fn bare() -> Self {
        Column::text("")
    }
}

fn render(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    for row in rows {
        table.add_row(row);
    }
    if table.row_count() == 0 {
        return String::new();
    }
    if columns.iter().any(|column| !column.title.is_empty()) {
        table.set_header(columns.iter().map(|column| column.title));
    }
    for (cells, column) in table.column_iter_mut().zip(columns) {
        cells.set_padding((0, 2));
        if column.right {
            cells.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Writes what accompanies the work to standard error.
#[derive(Clone, Copy, Debug)]
pub struct Notices {
    format: LogFormat,
    verbose: bool,
}

impl Notices {
    /// In this format; `verbose` shows [`detail`](Notices::detail) off a terminal too.
    pub fn new(format: LogFormat, verbose: bool) -> Self {
        Notices { format, verbose }
    }

    /// The format.
    pub fn format(self) -> LogFormat {
        self.format
    }

    /// Whether to say more.
    pub fn is_verbose(self) -> bool {
        self.verbose
    }

    /// Something the user should know although the work goes on.
    pub fn warn(self, text: &str) {
        self.emit(&json!({"event": "warning", "message": text}), || format!("pond: {text}"));
    }

    /// Something worth saying where a person looks on.
    pub fn detail(self, event: Value, text: impl FnOnce() -> String) {
        match self.format {
            LogFormat::Text if !self.verbose && !io::stderr().is_terminal() => {}
            _ => self.emit(&event, text),
        }
    }

    /// What goes on, for people and programs alike.
    pub fn tell(self, event: &Value, text: impl FnOnce() -> String) {
        self.emit(event, text);
    }

    /// A failure.
    pub fn failure(self, report: &Report) {
        let event = json!({
            "event": "error", "what": report.what, "why": report.why, "next": report.next,
        });
        self.emit(&event, || report.to_string());
    }

    /// An event for programs only.
    pub fn event(self, event: &Value) {
        if self.format == LogFormat::Json {
            self.emit(event, String::new);
        }
    }

    fn emit(self, event: &Value, text: impl FnOnce() -> String) {
        let line = match self.format {
            LogFormat::Json => event.to_string(),
            LogFormat::Text => text(),
        };
        // Nothing can be told to anyone once standard error is gone, and the work must not stop for it.
        writeln!(io::stderr(), "{line}").ok();
    }
}

/// Bytes as JSON has them: text, and, where that loses something, all of them in hexadecimal.
pub fn json_bytes(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => {
            let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            (String::from_utf8_lossy(bytes).into_owned(), Some(hex))
        }
    }
}

/// A number of bytes for people: `17 B`, `4.0 KiB`, `12.3 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.0 KiB");
        assert_eq!(size(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(size(12_345_678_901), "11.5 GiB");
        assert_eq!(size(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn bytes_that_are_not_text_lose_nothing_in_json() {
        assert_eq!(json_bytes(b"a\xff"), ("a\u{fffd}".to_owned(), Some("61ff".to_owned())));
        assert_eq!(json_bytes("ä".as_bytes()), ("ä".to_owned(), None));
    }

    #[test]
    fn a_table_aligns_numbers_right_and_ends_lines_without_blanks() {
        let rows = vec![vec!["1".into(), "a".into()], vec!["100".into(), "bcd".into()]];
        let text = render(&[Column::number("VERSION"), Column::text("NAME")], rows);
        assert_eq!(text, "VERSION  NAME\n      1  a\n    100  bcd\n");
    }

    #[test]
    fn a_table_without_rows_is_nothing() {
        assert_eq!(render(&[Column::text("A")], Vec::new()), "");
    }
}
