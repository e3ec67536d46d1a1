//! Python's deltalake, in one process that opens one table after another.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The process.
pub struct Python {
    child: Child,
    tables: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Python {
    pub fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/tests/scripts/open_tables.py");
        let mut command = Command::new("python3");
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 can be run; `tests/run --install` installs it");
        let (tables, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Python { child, tables, answers: BufReader::new(answers) }
    }

    /// Gives it a table to open, and with `rows` to read.
    pub fn ask(&mut self, table: &Path, rows: bool) {
        writeln!(self.tables, "{}{}", table.display(), if rows { " rows" } else { "" }).unwrap();
    }

    /// The version of the table that it was given.
    pub fn answer(&mut self) -> Result<u64, String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().parse().map_err(|_| format!("Python's deltalake cannot open the table: {}", line.trim()))
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
