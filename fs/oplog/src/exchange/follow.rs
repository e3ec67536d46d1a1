//! Following: rows of versions that were applied to the log after this process had opened it.

use pond_tinyfs::Row;

use crate::files::digests::Digests;
use crate::files::load::{self, Source};
use crate::log::commits::{self, commit_info, position_of};
use crate::log::format::check_readable;
use crate::parallel::threads;
use crate::{OpLog, OpLogError, Position, Version};

/// What came after the current position.
#[derive(Debug)]
pub struct Ahead {
    /// Its rows in `(lsn, seq)` order. Extents are stored and can be read at once.
    pub rows: Vec<Row>,
    /// Where history stands with it: for [`OpLog::advance`], once the rows are folded.
    pub receipt: ReadAhead,
}

/// Says that the rows up to a position were read. Only [`OpLog::read_ahead`] gives one.
#[derive(Debug)]
pub struct ReadAhead(Position);

impl ReadAhead {
    /// Where history stands with the rows.
    pub fn position(&self) -> &Position {
        &self.0
    }
}

impl OpLog {
    /// Rows of the versions after the current position up to `to`, their data files registered so that extents can
    /// be read. Changes nothing that a reader sees: once the rows are folded, call [`OpLog::advance`]. Meant for a
    /// log that was opened for reading only; may be called again after an error.
    ///
    /// # Errors
    ///
    /// [`OpLogError::MissingEntry`] if the log does not reach `to`, [`OpLogError::TooNew`], and damage.
    pub fn read_ahead(&self, to: Version) -> Result<Ahead, OpLogError> {
        let mut position = self.position();
        let versions: Vec<u64> = (position.version.0 + 1..=to.0).collect();
        let mut sources = Vec::new();
        let mut ahead = self.ahead().lock();
        self.followed().begin();
        for (&version, entry) in versions.iter().zip(commits::read_entries(self.log(), &versions)?) {
            let version = Version(version);
            let info = commit_info(self.log(), version, &entry)?;
            position = position_of(self.log(), version, &entry.digest, info)?;
            for action in entry.actions {
                check_readable(self.log(), action.meta_data.as_ref(), action.protocol.as_ref())?;
                self.followed().note(&action);
                // Files that only hold old rows anew say nothing new. The rows' old places stay readable: a file
                // that a version removes stays on disk, and nobody here forgets its number.
                let Some(add) = action.add.filter(|add| !add.is_rewritten()) else { continue };
                let file = *ahead
                    .entry(add.path.clone())
                    .or_insert_with(|| self.files().add(&add.path, Digests::of(&add).as_ref()));
                sources.push(Source {
                    file,
                    path: self.log().table().join(&add.path),
                    size: add.size,
                    digests: Digests::of(&add),
                });
            }
        }
        let mut rows = Vec::new();
        load::load(&sources, to, threads(), |row| rows.push(row))?;
        rows.sort_unstable_by_key(|row| (row.lsn, row.seq));
        Ok(Ahead { rows, receipt: ReadAhead(position) })
    }

    /// From now on [`OpLog::position`] is the one that was read up to, whose rows are folded.
    pub fn advance(&self, read: ReadAhead) {
        self.advance_to(read.0);
    }

    /// As [`advance`](Self::advance), to a version without rows that this process made by another log of the pond.
    pub fn advance_without_rows(&self, position: Position) {
        self.advance_to(position);
    }

    fn advance_to(&self, position: Position) {
        // Under the lock that guards reading ahead, so that no file keeps a number of a range that is over.
        let mut ahead = self.ahead().lock();
        ahead.clear();
        self.followed().advance(self.live(), self.identity().pond_id);
        self.set_position(position);
    }
}
