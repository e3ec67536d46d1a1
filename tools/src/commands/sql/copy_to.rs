//! `COPY … TO`: an answer becomes a file, in the pond as an ordinary version, or outside it.

use std::path::Path;

use pond_query::{Copy, OutputFormat, OutputOptions, Statement};
use serde_json::json;

use super::running::Asking;
use super::writing::into_file;
use crate::context::Context;
use crate::copier::{Copier, Side};
use crate::error::{During, Failure, Result};
use crate::missing;
use crate::output::count;
use crate::path::{GivenPath, WritePath};
use crate::progress::Progress;
use crate::target::{Destination, HostTree};

/// Runs the query, and puts what it gives where it is to be.
pub fn copy_to(statement: &Statement, copy: &Copy, asking: &Asking, context: &mut Context) -> Result {
    let what = || format!("cannot copy to {}", copy.target);
    let target = WritePath::parse(copy.target.clone().into()).map_err(|why| Failure::new(what(), why))?;
    let (format, options) = how(copy).map_err(|why| Failure::new(what(), why))?;
    let rows = match &target {
        WritePath::Host(path) => {
            let mut rows = 0;
            into_file(path, |sink| {
                rows = asking.answer(statement, format, &options, Box::new(sink))?;
                Ok(())
            })?;
            rows
        }
        WritePath::Pond(path) => {
            // No writer waits while the query runs: what it gives lies beside the pond until it is whole.
            let whole = asking.directory().join("copy");
            let sink = std::fs::File::create(&whole).during(what)?;
            let rows = asking.answer(statement, format, &options, Box::new(std::io::BufWriter::new(sink)))?;
            let put = put(&whole, path, copy, context);
            std::fs::remove_file(&whole).during(what)?;
            put?;
            rows
        }
    };
    context.out.json(&json!({"path": copy.target, "rows": rows}))?;
    context.out.line(&format!("wrote {} to {}", count(rows, "row"), copy.target))
}

/// Copies a file into the pond, as `pond copy` does.
fn put(file: &Path, path: &GivenPath, copy: &Copy, context: &Context) -> Result {
    let what = || format!("cannot copy to {}", copy.target);
    let host = HostTree::host();
    let from = GivenPath::on_host(file).map_err(|why| Failure::new(what(), why))?;
    let access = context.pond.change()?;
    let put = (|| {
        let destination = missing::during(Destination::find(access.tree(), path, false), path, what)?;
        let Destination::Exactly(to) = destination else {
            return Err(Failure::new(what(), "it is a directory").next("name the file in it"));
        };
        let tree: &dyn crate::target::FileTree = &host;
        let from = tree.resolve(&from, true).during(what)?;
        let progress = Progress::new("copy", 0, context.notices);
        let to_side = Side { tree: access.tree(), prefix: "", suffix: "" };
        let mut copier = Copier::new(to_side, None, &progress, context.notices);
        let from_side = Side { tree: &host, prefix: "host:", suffix: "" };
        let (copied, failed) = (copier.copy(from_side, &from, &to), copier.copied().failed);
        progress.finish();
        copied?;
        match failed {
            0 => Ok(()),
            // Why has been told.
            _ => Err(Failure::Reported),
        }
    })();
    access.finish(put)
}

/// The format and its options: as they are named, else as the file is called.
fn how(copy: &Copy) -> Result<(OutputFormat, OutputOptions), String> {
    let by_name = || OutputFormat::of_name(&copy.target);
    let format = match &copy.format {
        Some(word) => {
            OutputFormat::of_word(word).filter(|format| *format != OutputFormat::Table).ok_or_else(|| {
                format!("there is no format {word}; there are csv, json, jsonl, parquet, arrow")
            })?
        }
        None => by_name()
            .ok_or("its name does not say the format; add STORED AS CSV, JSON, JSONL, PARQUET or ARROW")?,
    };
    let mut options = OutputOptions::default();
    for (name, value) in &copy.options {
        let is_csv = format == OutputFormat::Csv;
        match (name.as_str(), value.to_ascii_lowercase().as_str()) {
            ("header" | "has_header", "true") if is_csv => options.header = true,
            ("header" | "has_header", "false") if is_csv => options.header = false,
            ("delimiter" | "delim" | "sep", _) if is_csv && value.len() == 1 && value.is_ascii() => {
                options.delimiter = value.as_bytes()[0];
            }
            _ => {
                return Err(format!(
                    "the option {name} {value} is not understood; CSV has header and delimiter"
                ));
            }
        }
    }
    Ok((format, options))
}
