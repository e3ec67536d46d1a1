//! `pond sql`: which statements, where their answers go, and how.

mod copy_to;
mod prompt;
mod running;
mod writing;

use std::io::{self, IsTerminal, Read};
use std::path::Path;

use pond_query::{OutputFormat, OutputOptions, Statement};

use crate::cli::{AnswerFormat, SqlArgs};
use crate::context::Context;
use crate::error::{During, Failure, Result};
use running::{Asking, to_failure};
use writing::{into_file, to_output};

/// Asks a pond in SQL.
pub fn sql(args: &SqlArgs, context: &mut Context) -> Result {
    let format = format(args, context);
    if let Some(text) = text(args)? {
        let statements = pond_query::parse(&text).map_err(|error| to_failure(&error))?;
        refuse_mixed(args, format, &statements, context)?;
        let asking = Asking::begin(args, context)?;
        let ran = statements.iter().try_for_each(|statement| one(statement, args, format, &asking, context));
        asking.end();
        return ran;
    }
    if args.output.is_some() {
        return Err(Failure::usage("cannot write the answer", "there is no query")
            .next("name it, or the file that holds it with -f"));
    }
    let asking = Asking::begin(args, context)?;
    let ran = prompt::prompt(format, &asking, context);
    asking.end();
    ran
}

/// The statements; none where they are to be prompted for.
fn text(args: &SqlArgs) -> Result<Option<String>> {
    let stdin = || {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).during(|| "cannot read standard input".to_owned())?;
        Ok(Some(text))
    };
    match (&args.query, &args.file) {
        (Some(query), _) => Ok(Some(query.clone())),
        (None, Some(file)) if file == Path::new("-") => stdin(),
        (None, Some(file)) => {
            std::fs::read_to_string(file).map(Some).during(|| format!("cannot read {}", file.display()))
        }
        (None, None) if io::stdin().is_terminal() => Ok(None),
        (None, None) => stdin(),
    }
}

fn format(args: &SqlArgs, context: &Context) -> OutputFormat {
    let named = args.output.as_ref().and_then(|file| OutputFormat::of_name(&file.to_string_lossy()));
    match args.format {
        Some(AnswerFormat::Table) => OutputFormat::Table,
        Some(AnswerFormat::Csv) => OutputFormat::Csv,
        Some(AnswerFormat::Json) => OutputFormat::Json,
        Some(AnswerFormat::Jsonl) => OutputFormat::JsonLines,
        Some(AnswerFormat::Parquet) => OutputFormat::Parquet,
        Some(AnswerFormat::Arrow) => OutputFormat::Arrow,
        None => named.unwrap_or(match context.out.is_json() {
            true => OutputFormat::JsonLines,
            false => OutputFormat::Table,
        }),
    }
}

/// One file holds one answer, and what no person can read does not go to a terminal.
fn refuse_mixed(args: &SqlArgs, format: OutputFormat, statements: &[Statement], context: &Context) -> Result {
    let answers = statements.iter().filter(|statement| matches!(statement, Statement::Rows(_))).count();
    let is_binary = matches!(format, OutputFormat::Parquet | OutputFormat::Arrow);
    let is_one = is_binary || format == OutputFormat::Json || args.output.is_some();
    if statements.is_empty() {
        return Err(
            Failure::usage("cannot ask", "there is no statement").next("see `pond sql --help` for examples")
        );
    }
    if is_one && answers > 1 {
        let why = format!("there are {answers} statements that give rows, and one file holds one answer");
        return Err(Failure::usage("cannot write the answers", why).next("give them one by one"));
    }
    if is_binary && args.output.is_none() && answers > 0 && context.out.is_terminal() {
        return Err(Failure::usage("cannot write the answer", "standard output is a terminal")
            .next("name a file with --output"));
    }
    Ok(())
}

/// Runs one statement, and writes what it gives.
fn one(
    statement: &Statement,
    args: &SqlArgs,
    format: OutputFormat,
    asking: &Asking,
    context: &mut Context,
) -> Result {
    match (statement, &args.output) {
        (Statement::Copy(copy), _) => copy_to::copy_to(statement, copy, asking, context),
        (Statement::Rows(_), Some(file)) => into_file(file, |sink| {
            asking.answer(statement, format, &OutputOptions::default(), Box::new(sink))
        }),
        (Statement::Rows(_), None) => to_output(statement, format, asking, context),
    }
}
