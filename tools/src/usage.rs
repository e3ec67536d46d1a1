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
    if error.kind() == ErrorKind::UnknownArgument && !given.starts_with('-') {
        let command = command(arguments);
        if WITHOUT_PATHS.contains(&command.get_name()) {
            let tip = format!(
                "which pond is meant is said by --pond, as in `pond --pond DIR {} …`",
                command.get_name()
            );
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
        }
    }
    error.insert(ContextKind::Usage, ContextValue::StyledStr(usage(arguments)));
    error
}

/// The commands that are about the whole pond, which people who know other programs name behind them.
const WITHOUT_PATHS: [&str; 8] = ["init", "mount", "sync", "status", "log", "promote", "fsck", "maintain"];

/// The usage of the command that is meant.
fn usage(arguments: &[OsString]) -> StyledStr {
    command(arguments).render_usage()
}

/// The command that is meant.
fn command(arguments: &[OsString]) -> clap::Command {
    let mut program = Cli::command();
    program.build();
    let mut command = program;
    for argument in arguments.iter().skip(1) {
        if let Some(found) = command.find_subcommand(argument) {
            command = found.clone();
        }
    }
    command
}
