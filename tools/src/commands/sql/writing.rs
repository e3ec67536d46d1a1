//! Where answers go: to standard output, and into files on the host.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pond_query::{OutputFormat, OutputOptions, Statement};

use super::running::Asking;
use crate::context::Context;
use crate::error::{During, Failure, Result};

/// Writes an answer to standard output.
pub fn to_output(
    statement: &Statement,
    format: OutputFormat,
    asking: &Asking,
    context: &mut Context,
) -> Result {
    // What was said before comes before.
    context.out.flush()?;
    let sink = io::BufWriter::with_capacity(64 << 10, io::stdout());
    asking.answer(statement, format, &OutputOptions::default(), Box::new(sink)).map(drop)
}

/// Writes a file on the host, whole or not at all: under another name beside it, which it then takes off. What is no ordinary file is
/// written to as it is.
pub fn into_file<T>(file: &Path, write: impl FnOnce(std::fs::File) -> Result<T>) -> Result {
    let what = || format!("cannot write {}", file.display());
    if file.metadata().is_ok_and(|meta| !meta.is_file()) {
        let sink = std::fs::OpenOptions::new().write(true).open(file).during(what)?;
        return write(sink).map(drop);
    }
    let name = file.file_name().ok_or_else(|| Failure::usage(what(), "it has no name"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".pond-{}", std::process::id()));
    let beside: PathBuf = file.with_file_name(hidden);
    let sink = std::fs::File::create(&beside).during(what)?;
    let written = write(sink).and_then(|_| std::fs::rename(&beside, file).during(what));
    if written.is_err() {
        // It is not there any more, or nothing can be done.
        std::fs::remove_file(&beside).ok();
    }
    written
}

/// Says something for people on standard error.
pub fn say(text: &str) {
    // Nothing can be told to anyone once standard error is gone.
    writeln!(io::stderr(), "{text}").ok();
}
