//! `pond completions`.

use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArgs};
use crate::context::Context;
use crate::error::Result;

/// Prints a shell's completion script.
pub fn completions(args: &CompletionsArgs, context: &mut Context) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pond", &mut script);
    context.out.bytes(&script)
}
