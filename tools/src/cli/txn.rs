//! Arguments and help of `pond txn`.

use std::ffi::OsString;

use clap::Args;

/// Run a command, all of whose changes become one version, or nothing
///
/// COMMAND runs where the pond's mountpoint shows a copy of the newest version that only COMMAND and what it begins can see. When the
/// last of these processes has ended and COMMAND exited with 0, all that they did becomes one version, durable when this command returns;
/// `pond log` shows COMMAND and the message. If COMMAND exits with anything else, or a signal ends it, nothing has happened, and what it
/// has left running is ended. Others go on working in the pond meanwhile: where they changed the same file or took the same name,
/// removed what COMMAND changed, or changed what it removed, nothing happens either, and the paths are listed. What COMMAND only read
/// may have changed.
///
/// COMMAND begins in the current directory, as the copy has it. On a pond that is not mounted the tree is where $POND_TXN says,
/// as it does on one that is. Nothing may be open in the mount that COMMAND would get, such as `>file`. What is written takes room in the
/// pond's directory, twice while it is taken over. Ordinary users need to be allowed user namespaces.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Exit codes: 0 all that COMMAND did is in the pond, or it did nothing; 75 others changed the same meanwhile; 125 `pond txn` itself \
failed; 126 COMMAND cannot be run; 127 it is not found; 128+N signal N ended it; else COMMAND's own. But for 0 nothing has \
happened, unless the message says so.

Examples:
  pond txn -- make -j2 install              all of it or nothing
  pond txn -m 'Rename to the new scheme' -- ./migrate.sh
  pond txn --retry 3 -- sh -c 'sed -i s/old/new/ *.conf && ./check'
  pond txn -- bash                          look around, then `exit 0` to keep it, `exit 1` not to
  pond txn -- sh -c 'cp -r /srv/new \"$POND_TXN\"/www'      also where the pond is not mounted")]
pub struct TxnArgs {
    /// What the history shall say of it
    #[arg(short, long, value_name = "MESSAGE")]
    pub message: Option<String>,

    /// Run COMMAND again, on what is there then, if others changed the same; so many times
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = times)]
    pub retry: u32,

    /// What to run, and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

fn times(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "how many times, such as 3".to_owned())
}
