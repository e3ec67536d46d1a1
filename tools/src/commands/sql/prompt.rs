//! The prompt of `pond sql`: statements as they are typed, each run when its `;` comes.

use std::path::PathBuf;

use pond_query::{OutputFormat, Statement};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};

use super::copy_to::copy_to;
use super::running::{Asking, to_failure};
use super::writing::{say, to_output};
use crate::context::{Context, data_directory};
use crate::error::{Failure, Result};
use crate::interrupt;

/// Lines that are remembered.
const REMEMBERED: usize = 10_000;

const HELP: &str = "\
Statements end with ;
  SELECT * FROM files LIMIT 10;               the tree
  SELECT * FROM '/data/*.parquet' LIMIT 10;   files; also .csv .json .jsonl .arrow, and read_csv(…) and its like
  SELECT * FROM versions;                     the history; also entries, oplog, control, changes(A, B), history('/path')
  … FROM files VERSION AS OF 42               as it was
  SHOW TABLES;  DESCRIBE files;               which tables there are, and their columns
\\q or Ctrl-D ends, Ctrl-C cancels what is typed or running, \\? shows this.";

/// Asks for statements until the input ends.
pub fn prompt(format: OutputFormat, asking: &Asking, context: &mut Context) -> Result {
    let failed = |error: &ReadlineError| Failure::because("cannot read what is typed", error);
    let config = Config::builder()
        .max_history_size(REMEMBERED)
        .and_then(|config| config.history_ignore_dups(true))
        .map_err(|error| failed(&error))?
        .auto_add_history(false)
        .build();
    let mut editor: Editor<(), FileHistory> = Editor::with_config(config).map_err(|error| failed(&error))?;
    let history = history_file();
    if let Some(file) = &history {
        // There is none before the first time.
        editor.load_history(file).ok();
    }
    say("Statements end with ;   \\? for help, \\q to leave");
    let mut typed = String::new();
    loop {
        let line = match editor.readline(if typed.is_empty() { "pond> " } else { "  ...> " }) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                typed.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(failed(&error)),
        };
        match line.trim() {
            "" if typed.is_empty() => continue,
            "\\q" | "exit" | "quit" | "exit;" | "quit;" if typed.is_empty() => break,
            "\\?" | "\\h" | "help" | "help;" if typed.is_empty() => {
                say(HELP);
                continue;
            }
            "\\d" if typed.is_empty() => typed.push_str("SHOW TABLES;"),
            line if typed.is_empty() && line.starts_with("\\d ") => {
                typed = format!("DESCRIBE {};", line[3..].trim_end_matches(';'));
            }
            _ => {
                typed.push_str(&line);
                typed.push('\n');
            }
        }
        if !typed.trim_end().ends_with(';') {
            continue;
        }
        editor.add_history_entry(typed.trim_end().replace('\n', " ")).ok();
        // After each, so that nothing is lost however this ends.
        history.as_ref().map(|file| editor.save_history(file));
        let ran = run(&std::mem::take(&mut typed), format, asking, context);
        match (ran, interrupt::release()) {
            (Err(Failure::OutputClosed), _) => return Err(Failure::OutputClosed),
            (_, true) | (Err(Failure::Interrupted(_)), _) => say("cancelled"),
            (Err(Failure::Failed(report) | Failure::Usage(report)), _) => context.notices.failure(&report),
            // Why has been told, or there is nothing to tell.
            _ => {}
        }
        context.out.flush()?;
    }
    Ok(())
}

fn run(text: &str, format: OutputFormat, asking: &Asking, context: &mut Context) -> Result {
    let statements = pond_query::parse(text).map_err(|error| to_failure(&error))?;
    statements.iter().try_for_each(|statement| match statement {
        Statement::Copy(copy) => copy_to(statement, copy, asking, context),
        Statement::Rows(_) => to_output(statement, format, asking, context),
    })
}

/// Where what was typed is kept.
fn history_file() -> Option<PathBuf> {
    let directory = data_directory()?;
    std::fs::create_dir_all(&directory).ok()?;
    Some(directory.join("pond-sql-history"))
}
