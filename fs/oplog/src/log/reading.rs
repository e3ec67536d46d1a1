//! Which data files a version is read from.
//!
//! Merging replaces data files and keeps every row, so a version whose own files were cleaned away is read from those
//! of the newest one: its rows are those up to its cut.

use std::collections::BTreeMap;

use pond_tinyfs::{Lsn, NodeId, Row};
use serde::Deserialize;

use crate::files::digests::Digests;
use crate::files::load::{self, Source};
use crate::log::action::Add;
use crate::log::delta::Log;
use crate::log::format;
use crate::log::snapshot::{self, Snapshot};
use crate::parallel::threads;
use crate::rows::schema::col;
use crate::{At, OpLogError, Version};

/// The table at the version whose files hold all rows of this one, and possibly later ones: at this one itself or, where its files are
/// gone, at the newest.
pub(crate) fn holder(log: &Log, snapshot: Snapshot) -> Result<Snapshot, OpLogError> {
    if are_there(log, &snapshot.files) {
        return Ok(snapshot);
    }
    let tip = snapshot::load(log, At::Tip)?;
    match tip.version > snapshot.version {
        true => {
            // The files may hold what the version itself did not have.
            format::check_readable(log, Some(&tip.metadata), Some(&tip.protocol))?;
            // Or it has been let go of since it was looked up.
            snapshot::check_kept(log, &tip, snapshot.version)?;
            Ok(tip)
        }
        // Its own files are all there can be: loading says which is missing.
        false => Ok(snapshot),
    }
}

/// The files of a table that have rows of operations after `above` up to `cut`.
pub(crate) fn files_between(holder: &Snapshot, above: Lsn, cut: Lsn) -> impl Iterator<Item = &Add> {
    let files = holder.files.values();
    files.filter(move |add| {
        first_lsn(add).is_none_or(|first| first <= cut) && last_lsn(add).is_none_or(|last| last > above)
    })
}

/// Reads the rows of operations after `above` up to `cut`, in no particular order, from the files of `holder`. `version` is the one
/// that is wanted, for messages. `number` gives each file that is read the number that its extents' locations carry.
pub(crate) fn read(
    log: &Log,
    holder: &Snapshot,
    version: Version,
    (above, cut): (Lsn, Lsn),
    number: &mut dyn FnMut(&Add) -> u32,
    mut each: impl FnMut(Row),
) -> Result<(), OpLogError> {
    let sources: Vec<Source> = files_between(holder, above, cut)
        .map(|add| {
            let (path, size, digests) = (log.table().join(&add.path), add.size, Digests::of(add));
            Source { file: number(add), path, size, digests }
        })
        .collect();
    load::load(&sources, version, threads(), |row| {
        if above < row.lsn && row.lsn <= cut {
            each(row);
        }
    })
}

/// Whether none of these files is missing.
pub(crate) fn are_there(log: &Log, files: &BTreeMap<String, Add>) -> bool {
    files.keys().all(|name| log.table().join(name).exists())
}

#[derive(Deserialize)]
struct Statistics {
    #[serde(rename = "minValues", default)]
    min: BTreeMap<String, serde_json::Value>,
    #[serde(rename = "maxValues", default)]
    max: BTreeMap<String, serde_json::Value>,
}

fn statistics(add: &Add) -> Option<Statistics> {
    serde_json::from_str(add.stats.as_deref()?).ok()
}

/// The first operation that a file has rows of, as its statistics say.
pub(crate) fn first_lsn(add: &Add) -> Option<Lsn> {
    statistics(add)?.min.get(col::LSN)?.as_u64().map(Lsn)
}

/// The last operation that a file has rows of, as its statistics say.
pub(crate) fn last_lsn(add: &Add) -> Option<Lsn> {
    statistics(add)?.max.get(col::LSN)?.as_u64().map(Lsn)
}

/// The least and the greatest number of a node that a file has rows of, as its statistics say.
pub(crate) fn nodes(add: &Add) -> Option<(NodeId, NodeId)> {
    let statistics = statistics(add)?;
    let node =
        |values: &BTreeMap<String, serde_json::Value>| NodeId::from_hex(values.get(col::NODE_ID)?.as_str()?);
    Some((node(&statistics.min)?, node(&statistics.max)?))
}
