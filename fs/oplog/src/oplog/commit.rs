//! Commits: rows become one version.

use pond_tinyfs::{Lsn, Placed, Row};

use crate::disk::durable;
use crate::files::digests::Digests;
use crate::log::delta::Put;
use crate::log::next_version::NextVersion;
use crate::oplog::added::{Added, discard, write_files};
use crate::oplog::drain::Drained;
use crate::{OpLog, OpLogError, Origin, Position};

/// What a commit did.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The new version.
    pub position: Position,
    /// Where the bytes of each extent row lie now.
    pub placed: Vec<Placed>,
    /// Data files written.
    pub files: u32,
    /// Their bytes.
    pub bytes: u64,
}

impl OpLog {
    /// Makes one version that holds these rows: data files, synced and moved into place, then the log entry.
    /// `cut_lsn` is the last operation that the rows hold.
    ///
    /// # Errors
    ///
    /// After an error nothing was committed and the same commit may be tried again, on a full disk too
    /// ([`OpLogError::is_full`]), but for two: [`OpLogError::SomeoneElse`], when another writer made the version, and the
    /// journal and these rows were moved aside; and [`OpLogError::Unconfirmed`], when syncing the entry failed.
    /// Both end writing for good.
    pub fn commit(&self, rows: &[&[Row]], cut_lsn: Lsn, origin: &Origin) -> Result<Committed, OpLogError> {
        self.commit_drained(rows, &[], cut_lsn, origin)
    }

    /// A [`commit`](Self::commit) that also names files which [`drain`](Self::drain) wrote. After an error they are as good as before.
    pub fn commit_drained(
        &self,
        rows: &[&[Row]],
        drained: &[&Drained],
        cut_lsn: Lsn,
        origin: &Origin,
    ) -> Result<Committed, OpLogError> {
        let mut turn = self.turns.take(&self.log)?;
        let last = self.position();
        let stale =
            rows.iter().flat_map(|rows| rows.iter()).find(|row| row.lsn <= last.cut_lsn || row.lsn > cut_lsn);
        if let Some(row) = stale {
            let why = format!(
                "operation {} of node {} does not lie between the cut of version {}, {}, and that of this commit, {cut_lsn}",
                row.lsn, row.node, last.version, last.cut_lsn
            );
            return Err(OpLogError::Encode { path: self.log.table().to_path_buf(), why });
        }
        let next = NextVersion::after(&last, cut_lsn, self.timeline(), self.clock.now().time);
        let named = self.name_drained(drained, next.txn_seq)?;
        let written = write_files(&self.layout, rows, next.txn_seq, next.timestamp, self.effort())
            .and_then(|written| {
                if written.is_empty() && !named.is_empty() {
                    let data = self.layout.data();
                    durable::sync_directory(&data).map_err(OpLogError::io("fsync", &data))?;
                }
                Ok(written)
            })
            .inspect_err(|_| drained.iter().for_each(|drained| drained.distrust_name()))?;
        let drained_rows = drained.iter().map(|drained| drained.rows()).sum();
        let added = Added { written: &written, drained: &named, drained_rows };
        let put = added
            .entry(&next, self.identity.pond_id, origin, Vec::new())
            .map_err(|error| OpLogError::Encode {
                path: self.log.entry_path(next.version),
                why: error.to_string(),
            })
            .and_then(|bytes| Ok((self.log.put(next.version, &bytes)?, bytes)));
        self.space.refresh();
        let bytes = match put {
            Ok((Put::Done, bytes)) => bytes,
            Ok((Put::SomeoneElse, _)) => {
                let why = format!("another writer made version {}", next.version);
                turn.end_writing(why.clone());
                let kept = self.journal.orphan(rows, &why).and_then(|kept| {
                    self.orphan_drained(drained, &kept)?;
                    Ok(kept)
                });
                let kept = match kept {
                    Ok(kept) => kept.display().to_string(),
                    Err(error) => format!("the journal, which could not be moved ({error})"),
                };
                let path = self.log.entry_path(next.version);
                return Err(OpLogError::SomeoneElse { version: next.version, path, kept });
            }
            // Perhaps the entry names them.
            Err(error @ OpLogError::Unconfirmed { .. }) => return turn.settle(Err(error)),
            Err(error) => {
                discard(&written);
                return Err(error);
            }
        };
        let mut placed = Vec::new();
        for file in &written {
            let number = self.files.add(&file.add.path, Digests::of(&file.add).as_ref());
            self.live.insert(file.add.clone(), number);
            placed.extend(file.placed(number));
        }
        for (add, drained) in named.iter().zip(drained) {
            self.live.insert(add.clone(), drained.number());
        }
        let position = next.position(&bytes);
        self.committed(&position);
        let files = added.adds().count() as u32;
        Ok(Committed { position, placed, files, bytes: added.bytes() })
    }
}
