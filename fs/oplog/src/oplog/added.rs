//! The data files that a commit adds: written and moved into place, and named by its log entry.

use pond_tinyfs::Row;

use crate::disk::durable;
use crate::files::data_file::{self, Effort, Written};
use crate::log::action::{Action, Add, metric};
use crate::log::next_version::{NextVersion, Operation};
use crate::{Layout, OpLogError, Origin, PondId, TxnSeq};

/// What a commit adds.
pub(crate) struct Added<'a> {
    pub(crate) written: &'a [Written<'a>],
    /// Files that were written before.
    pub(crate) drained: &'a [Add],
    /// Rows in those.
    pub(crate) drained_rows: u64,
}

impl Added<'_> {
    /// The files.
    pub(crate) fn adds(&self) -> impl Iterator<Item = &Add> {
        self.written.iter().map(|file| &file.add).chain(self.drained)
    }

    /// Bytes of the files.
    pub(crate) fn bytes(&self) -> u64 {
        self.adds().map(|add| add.size).sum()
    }

    /// The bytes of the log entry that adds them; `start` is what makes a table of it, in a first version.
    pub(crate) fn entry(
        &self,
        next: &NextVersion,
        pond_id: PondId,
        origin: &Origin,
        start: Vec<Action>,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let metrics = [
            (metric::ROWS, self.written.iter().map(|file| file.rows).sum::<u64>() + self.drained_rows),
            (metric::FILES, self.adds().count() as u64),
            (metric::BYTES, self.bytes()),
        ];
        let operation = Operation {
            name: if start.is_empty() { "WRITE" } else { "CREATE TABLE" },
            parameter: ("mode", "Append".to_string()),
            metrics: &metrics,
            origin,
        };
        let mut actions = start;
        actions.push(next.cut_action(pond_id));
        actions.extend(self.adds().cloned().map(Action::from));
        next.entry(pond_id, operation, actions)
    }
}

/// Writes all rows into data files and moves them into place; all names are durable.
pub(crate) fn write_files<'a>(
    layout: &Layout,
    rows: &[&'a [Row]],
    txn_seq: TxnSeq,
    now: i64,
    effort: Effort<'_>,
) -> Result<Vec<Written<'a>>, OpLogError> {
    let mut written: Vec<Written<'_>> = Vec::new();
    let result = data_file::plan(rows).into_iter().try_for_each(|plan| {
        written.push(data_file::write(&layout.inflight(), plan, txn_seq, now, effort)?);
        Ok(())
    });
    if let Err(error) = result {
        discard(&written);
        return Err(error);
    }
    let data = layout.data();
    let moved = written.iter_mut().try_for_each(|file| {
        let target = data.join(&file.add.path);
        durable::rename(&file.path, &target).map_err(OpLogError::io("move", &file.path))?;
        file.path = target;
        Ok(())
    });
    let moved = moved.and_then(|()| match written.is_empty() {
        true => Ok(()),
        false => durable::sync_directory(&data).map_err(OpLogError::io("fsync", &data)),
    });
    if let Err(error) = moved {
        discard(&written);
        return Err(error);
    }
    Ok(written)
}

/// Removes what a commit has written that failed.
pub(crate) fn discard(written: &[Written<'_>]) {
    durable::discard(written.iter().map(|file| file.path.as_path()));
}
