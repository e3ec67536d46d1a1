//! Which store is meant: a configuration on the host, or a node of the pond.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pond_oplog::At;
use pond_replicate::Inspector;
use pond_steward::REMOTE_CONFIG_KEY;

use super::super::factories::{read_configuration, shown};
use super::failed::failed;
use crate::cli::StoreArgs;
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::path::{GivenPath, When};
use crate::target::FileTree;

/// A configuration is no longer than this, bytes.
const LONGEST: usize = 1 << 20;

/// The configuration that is meant, as it is written.
pub fn configuration(args: &StoreArgs, what: &str, context: &Context) -> Result<Vec<u8>> {
    match &args.remote {
        Some(remote) => named(remote, what, context),
        None => only(what, context),
    }
}

/// The store that is meant, and its configuration.
pub fn open(args: &StoreArgs, what: &str, context: &Context) -> Result<(Inspector, Vec<u8>)> {
    let configuration = configuration(args, what, context)?;
    let inspector = Inspector::open(&configuration).map_err(|error| failed(what, &error))?;
    Ok((inspector, configuration))
}

fn named(remote: &OsStr, what: &str, context: &Context) -> Result<Vec<u8>> {
    let path = Path::new(remote);
    let missing = match read_configuration(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => error,
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            let failure =
                Failure::because(format!("{what}: cannot read the configuration {}", shown(path)), &error);
            return Err(failure.next(format!(
                "--remote names a configuration, not the store: write the lines `storage_type: local` and `path: {}` into a file, and name that",
                path.display()
            )));
        }
        read => return read.during(|| format!("{what}: cannot read the configuration {}", shown(path))),
    };
    let inside = || {
        let given = GivenPath::new(remote.as_bytes()).map_err(io::Error::other)?;
        let access = context.pond.read(When::Now).map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
        let path = access.tree().resolve(&given, true)?;
        content(access.tree(), &path)
    };
    inside().map_err(|error| {
        let why = format!("{}: {}", path.display(), crate::error::chain(&missing));
        let failure = match error.kind() {
            io::ErrorKind::NotFound => Failure::new(what, why),
            _ => Failure::because(format!("{what}: cannot read {}", path.display()), &error),
        };
        failure.next(
            "--remote names a remote's configuration, a file on the host, or the remote's node in the pond, as /etc/system.d/10-remote",
        )
    })
}

/// The configuration of the pond's only remote.
fn only(what: &str, context: &Context) -> Result<Vec<u8>> {
    const NEXT: &str = "say which store with --remote: a remote's configuration, a file on the host, or the remote's node in the pond";
    let reader = context.pond.open_at(At::Tip).map_err(|failure| match failure {
        Failure::Failed(report) => Failure::new(
            what,
            format!("without --remote it is the pond's remote, and {}: {}", report.what, report.why),
        )
        .next(NEXT),
        other => other,
    })?;
    if let Some((_, setting)) = reader.control_get(Some(REMOTE_CONFIG_KEY)).into_iter().next() {
        return Ok(setting.into_bytes());
    }
    let remotes: Vec<String> =
        reader.status().factories.into_iter().filter(|node| node.remote).map(|node| node.path).collect();
    match remotes.as_slice() {
        [] => Err(Failure::new(what, "the pond has no remote").next(NEXT)),
        [only] => named(OsStr::new(only), what, context),
        several => {
            let next = format!("name one of them with --remote: {}", several.join(", "));
            Err(Failure::new(what, "the pond has several remotes").next(next))
        }
    }
}

fn content(tree: &dyn FileTree, path: &crate::path::TreePath) -> io::Result<Vec<u8>> {
    let source = tree.open(path)?;
    let mut content = vec![0; LONGEST];
    let mut length = 0;
    while length < content.len() {
        match source.read_at(length as u64, &mut content[length..])? {
            0 => break,
            more => length += more,
        }
    }
    content.truncate(length);
    Ok(content)
}
