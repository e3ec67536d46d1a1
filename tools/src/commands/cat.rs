//! `pond cat`.

use crate::cli::CatArgs;
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::missing;
use crate::path::ReadPath;
use crate::target::FileTree;

/// How much is read at once.
const CHUNK: usize = 1 << 20;

/// Writes files to standard output.
pub fn cat(args: &CatArgs, context: &mut Context) -> Result {
    for path in &args.paths {
        let ReadPath::Pond(inside, when) = path else {
            return Err(
                Failure::usage(format!("cannot read {path}"), "it is outside the pond").next("use cat")
            );
        };
        let access = context.pond.read(*when)?;
        let tree = access.tree();
        let what = || format!("cannot read {path}");
        let found = tree.resolve(inside, true).and_then(|place| Ok((tree.stat(&place)?, place)));
        let (stat, place) = missing::during(found, inside, what)?;
        if stat.is_directory() {
            return Err(
                Failure::new(what(), "it is a directory").next(format!("`pond list {path}` lists it"))
            );
        }
        if !stat.is_file() {
            return Err(Failure::new(what(), format!("it is no file but a {}", stat.kind.name())));
        }
        write_file(tree, &place, &what, context)?;
    }
    Ok(())
}

fn write_file(
    tree: &dyn FileTree,
    path: &crate::path::TreePath,
    what: &dyn Fn() -> String,
    context: &mut Context,
) -> Result {
    let source = tree.open(path).during(what)?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    loop {
        let length = source.read_at(at, &mut buffer).during(|| format!("{}, from byte {at} on", what()))?;
        if length == 0 {
            return Ok(());
        }
        context.out.bytes(&buffer[..length])?;
        at += length as u64;
    }
}
