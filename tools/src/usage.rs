//! Wrong usage: clap's own errors, less what would mislead.
//!
//! It takes for meant whatever looks alike (`--version` and `--verbose`), and shows as usage only what was given, with the
//! variables of the environment.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};

use crate::cli::Cli;

/// The command line; ends the process where it is wrong, or asks for help.
pub fn parse(arguments: &[OsString]) -> Cli {
    Cli::try_parse_from(arguments).unwrap_or_else(|error| mended(error, arguments).exit())
}

fn mended(mut error: clap::Error, arguments: &[OsString]) -> clap::Error {
    if !matches!(
        error.kind(),
        ErrorKind::UnknownArgument | ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict
    ) {
        return error;
    }
    let text = |value: Option<&ContextValue>| value.map(ToString::to_string).unwrap_or_default();
    let given = text(error.get(ContextKind::InvalidArg));
    if text(error.get(ContextKind::SuggestedArg)) == "--verbose" && !given.starts_with("--verb") {
        error.remove(ContextKind::SuggestedArg);
    }
    if error.kind() == ErrorKind::UnknownArgument && given == "--version" {
        let tip =
            "a path as version V had it is written PATH@V, and `pond --version` tells the program's version";
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    }
    error.insert(ContextKind::Usage, ContextValue::StyledStr(usage(arguments)));
    error
}

/// The usage of the command that is meant.
fn usage(arguments: &[OsString]) -> StyledStr {
    let mut program = Cli::command();
    program.build();
    let mut command = program;
    for argument in arguments.iter().skip(1) {
        if let Some(found) = command.find_subcommand(argument) {
            command = found.clone();
        }
    }
    command.render_usage()
}
