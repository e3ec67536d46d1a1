//! Making a pond of its own from a version of another one, which shares data files with it.
//!
//! Data files never change, so both ponds may have names for the same ones: whatever either merges, prunes or removes takes away
//! names of its own only. Files that hold rows of later operations are written anew without them. The new pond's history begins
//! with version 0, whose entry names all files; no entry of the other one is part of it.

use std::path::Path;

use pond_tinyfs::{Location, Lsn};
use serde::Serialize;

use crate::clock::now_ms;
use crate::disk::durable;
use crate::files::digests::Digests;
use crate::files::file_name;
use crate::files::load::{Opened, Source};
use crate::log::action::property::{ORIGIN, POND_ID};
use crate::log::action::{Action, Add, Metadata, Protocol};
use crate::log::delta::{Log, Put};
use crate::log::next_version::NextVersion;
use crate::log::snapshot::Snapshot;
use crate::log::{format, reading, retained, snapshot};
use crate::oplog::added::Added;
use crate::oplog::create::lay_out;
use crate::parallel::threads;
use crate::rows::encode;
use crate::upkeep::rewrite::{Collected, Kind, Output};
use crate::{At, Layout, OpLog, OpLogError, Origin, Pin, PondId, Position, Timeline, TxnSeq, Version};

/// So many bytes of rows are in memory at a time.
const MEMORY: u64 = 64 << 20;

/// A pond that was made from another one.
#[derive(Clone, Debug, Serialize)]
pub struct Forked {
    /// The new pond.
    pub pond_id: PondId,
    /// From which version of the other one it was made.
    pub from: Position,
    /// Data files that both have, and their bytes.
    pub shared: Amount,
    /// Data files that were copied, since they lie on another filesystem or on one without hard links.
    pub copied: Amount,
    /// Data files that were written anew without later rows.
    pub rewritten: Amount,
}

/// Files, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

impl OpLog {
    /// Bytes of the data files that a fork of a version of the pond at `pond` gets.
    pub fn fork_bytes(pond: &Path, at: At) -> Result<u64, OpLogError> {
        let from = From::open(pond, at)?;
        Ok(from.files().map(|add| add.size).sum())
    }

    /// Makes a pond at `to`, as [`OpLog::create`] does, that has what a version of the pond at `from` has, and goes on from there by
    /// itself. `tell` is told of bytes as they are done, and ends it by saying false: `None`, and what was made by then is of no use.
    ///
    /// # Errors
    ///
    /// For a version that there is not, or that this program cannot write to; [`OpLogError::Exists`]; damage, and the disk's.
    pub fn fork(
        from: &Path,
        at: At,
        to: &Path,
        origin: &Origin,
        tell: &dyn Fn(u64) -> bool,
    ) -> Result<Option<Forked>, OpLogError> {
        let from = From::open(from, at)?;
        let (layout, log) = lay_out(to)?;
        let mut fork = Fork {
            from: &from,
            layout: &layout,
            shared: Amount::default(),
            copied: Amount::default(),
            outputs: Vec::new(),
            adds: Vec::new(),
        };
        for add in from.files() {
            if !tell(0) {
                return Ok(None);
            }
            match reading::last_lsn(add).is_some_and(|last| last <= from.cut()) {
                true => fork.share(add)?,
                false => fork.write_anew(add)?,
            }
            tell(add.size);
        }
        fork.finish(&log, origin).map(Some)
    }
}

/// What a fork is made from.
struct From {
    log: Log,
    position: Position,
    pond_id: PondId,
    /// Whose files hold the version's rows.
    holder: Snapshot,
    /// As long as it is held, the files stay.
    _pin: Pin,
}

impl From {
    fn open(pond: &Path, at: At) -> Result<Self, OpLogError> {
        let log = Log::new(&Layout::new(pond).data());
        let version = snapshot::resolve(&log, &log.list()?, at)?;
        let pin = Pin::hold(pond, version)?;
        let snapshot = snapshot::load(&log, At::Version(version))?;
        let identity = format::identity(&log, &snapshot)?;
        format::check_writable(&log, &identity)?;
        let position = snapshot.position(&log)?;
        let holder = reading::holder(&log, snapshot)?;
        Ok(From { log, position, pond_id: identity.pond_id, holder, _pin: pin })
    }

    fn cut(&self) -> Lsn {
        self.position.cut_lsn
    }

    /// The files that hold its rows, and perhaps later ones.
    fn files(&self) -> impl Iterator<Item = &Add> {
        reading::files_between(&self.holder, Lsn(0), self.cut())
    }

    /// The table of a pond with this id.
    fn metadata(&self, pond_id: PondId, now: i64) -> Metadata {
        let Position { version, digest, .. } = &self.position;
        let mut configuration = self.holder.metadata.configuration.clone();
        configuration.remove(retained::PROPERTY);
        configuration.insert(POND_ID.into(), pond_id.to_string());
        configuration.insert(ORIGIN.into(), format!("{} {version} {digest}", self.pond_id));
        let id = uuid::Uuid::new_v4().to_string();
        Metadata { id, configuration, created_time: Some(now), ..self.holder.metadata.clone() }
    }

    /// A transaction after all that the files' names carry, so that none is taken for one that was never committed.
    fn next_txn_seq(&self) -> TxnSeq {
        let names = self.files().filter_map(|add| file_name::txn_seq(&add.path));
        names.fold(self.position.txn_seq, TxnSeq::max).next()
    }
}

/// A pond in the making.
struct Fork<'a> {
    from: &'a From,
    layout: &'a Layout,
    shared: Amount,
    copied: Amount,
    outputs: Vec<Output>,
    adds: Vec<Add>,
}

impl Fork<'_> {
    fn share(&mut self, add: &Add) -> Result<(), OpLogError> {
        let (there, here) = (self.from.log.table().join(&add.path), self.layout.data().join(&add.path));
        match durable::link_or_copy(&there, &here).map_err(OpLogError::io("link or copy", &there))? {
            durable::Second::Link => self.shared.add(add.size),
            durable::Second::Copy => self.copied.add(add.size),
        }
        self.adds.push(add.clone());
        Ok(())
    }

    /// Writes the rows of a file that the version has.
    fn write_anew(&mut self, add: &Add) -> Result<(), OpLogError> {
        let path = self.from.log.table().join(&add.path);
        let source = Source { file: 0, path, size: add.size, digests: Digests::of(add) };
        let opened = Opened::new(&source, self.from.position.version)?;
        opened.check_columns()?;
        let (mut collected, mut bytes, mut number) = (Collected::default(), 0, 0);
        for group in 0..opened.groups() {
            let whole = opened.decode_group(group)?;
            for (row, txn_seq) in whole.rows.into_iter().zip(whole.txns) {
                let location = Location { file: 0, row: number };
                number += 1;
                if row.lsn <= self.from.cut() {
                    bytes += encode::content_length(&row) as u64 + 256;
                    collected.push(row, txn_seq, location);
                }
            }
            if bytes >= MEMORY {
                self.write(std::mem::take(&mut collected), add.level())?;
                bytes = 0;
            }
        }
        self.write(collected, add.level())
    }

    fn write(&mut self, collected: Collected, level: u32) -> Result<(), OpLogError> {
        if collected.is_empty() {
            return Ok(());
        }
        collected.write(&self.layout.inflight(), Kind::Fork, level, threads(), &mut self.outputs)
    }

    /// Gives all files their names, and puts the entry that makes a pond of them.
    fn finish(mut self, log: &Log, origin: &Origin) -> Result<Forked, OpLogError> {
        let (data, pond_id, now) = (self.layout.data(), PondId::random(), now_ms());
        let txn_seq = self.from.next_txn_seq();
        let mut rewritten = Amount::default();
        for output in &mut self.outputs {
            let add = output.name(&data, txn_seq)?;
            rewritten.add(add.size);
            self.adds.push(add.clone());
        }
        durable::sync_directory(&data).map_err(OpLogError::io("fsync", &data))?;
        let (version, cut_lsn) = (Version(0), self.from.cut());
        let next = NextVersion { version, timestamp: now, txn_seq, cut_lsn, timeline: Timeline::FIRST };
        let start = vec![Action::from(Protocol::pond()), Action::from(self.from.metadata(pond_id, now))];
        let added = Added { written: &[], drained: &self.adds, drained_rows: 0 };
        let bytes = added
            .entry(&next, pond_id, origin, start)
            .map_err(|error| OpLogError::Encode { path: log.entry_path(version), why: error.to_string() })?;
        match log.put(version, &bytes)? {
            Put::Done => {}
            Put::SomeoneElse => return Err(OpLogError::Exists { path: data }),
        }
        let from = self.from.position.clone();
        Ok(Forked { pond_id, from, shared: self.shared, copied: self.copied, rewritten })
    }
}
