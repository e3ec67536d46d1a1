//! Opening versions: the one way to read a pond's history.
//!
//! A version is loaded from its data files, or made from the tree of one before it that is open, onto which only the rows between
//! the two are folded. Either way its tree shares with that of a neighbour what is the same in both.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pond_tinyfs::{Fold, Later, Lsn, Row, TinyFs, Tree};

use crate::log::delta::Log;
use crate::log::format::identity;
use crate::log::history::{self, CommitInfo};
use crate::log::reading;
use crate::log::snapshot::{self, Snapshot};
use crate::versions::stored::{PinnedContent, Pins, StoredContent};
use crate::versions::view::View;
use crate::{At, HistoryFigures, Kept, Layout, OpLogError, Options, Pin, Position, Retained, Version};

/// Trees of versions may take one part in so many of the cache's budget, as long as nobody uses them.
const UNUSED_SHARE: u64 = 4;
/// A version that nobody has used for so long is let go when the next one is opened, and its pin with it.
const UNUSED: Duration = Duration::from_secs(60);

/// A tree is made with nodes of versions that are no more than so many before it.
const NEAR: u64 = 1024;

/// What a node costs each tree that has it, bytes: its place in the table of nodes.
const SLOT: u64 = 24;
/// What an entry of a directory costs a tree that has the directory alone, bytes, about.
const ENTRY: u64 = 96;
/// What a row leaves in a tree that shares it with no other, bytes, about.
const ROW: u64 = 256;

/// The versions of one pond, opened as they are asked for. Those that are open share a cache, and of their trees what is the same.
/// Reads only: nothing is written but pins.
pub struct Views {
    pond: PathBuf,
    log: Log,
    content: Arc<StoredContent>,
    /// Bytes that trees may take which nobody uses.
    budget: u64,
    /// Those that are open, and when each was last asked for. The lock is held while one is opened: the next may be made from it.
    open: Mutex<Vec<(Instant, Arc<View>)>>,
}

impl Views {
    /// The versions of the pond at `pond`; none is open yet.
    pub fn new(pond: &Path, options: &Options) -> Self {
        let layout = Layout::new(pond);
        Views {
            pond: pond.to_path_buf(),
            log: Log::new(&layout.data()),
            content: Arc::new(StoredContent::new(&layout, options)),
            budget: options.cache_bytes / UNUSED_SHARE,
            open: Mutex::default(),
        }
    }

    /// Opens a version, or finds it open.
    ///
    /// # Errors
    ///
    /// [`OpLogError::NoSuchVersion`], [`OpLogError::NoLongerKept`] and [`OpLogError::NothingYet`] for what there is not;
    /// [`OpLogError::TooNew`] if this program cannot read it; [`OpLogError::NoPin`]; and damage.
    pub fn open(&self, at: At) -> Result<Arc<View>, OpLogError> {
        let mut open = self.open.lock();
        let view = match self.open_at(at, &mut open) {
            // What was the newest version a moment ago may be gone before it is pinned.
            Err(OpLogError::NoLongerKept { .. } | OpLogError::Thinned { .. })
                if !matches!(at, At::Version(_)) =>
            {
                self.open_at(at, &mut open)?
            }
            opened => opened?,
        };
        self.let_go(&mut open);
        Ok(view)
    }

    /// So many of the newest versions that are kept, oldest first.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn newest(&self, count: usize) -> Result<Vec<Version>, OpLogError> {
        let listing = self.log.list()?;
        let (first, below) = match snapshot::retained(&self.log)? {
            Some(Retained { floor, below }) if !below.is_empty() => (floor.version, below),
            _ => (snapshot::resolve(&self.log, &listing, At::Start)?, Vec::new()),
        };
        let whole = listing.entries.into_iter().map(Version).filter(|version| *version >= first);
        let mut versions: Vec<Version> = below.iter().map(Kept::version).chain(whole).collect();
        versions.drain(..versions.len().saturating_sub(count));
        Ok(versions)
    }

    /// Lets go of versions that nobody has used for a minute, and of their pins: without this it is done when the next is opened.
    pub fn let_go_of_unused(&self) {
        self.let_go(&mut self.open.lock());
    }

    fn open_at(&self, at: At, open: &mut Vec<(Instant, Arc<View>)>) -> Result<Arc<View>, OpLogError> {
        let mut find = |version| {
            let (asked, view) = open.iter_mut().find(|(_, view)| view.position.version == version)?;
            *asked = Instant::now();
            Some(view.clone())
        };
        // One that is open is pinned, so it is there: nothing has to be looked for.
        if let At::Version(version) = at
            && let Some(view) = find(version)
        {
            return Ok(view);
        }
        let version = snapshot::resolve(&self.log, &self.log.list()?, at)?;
        if let Some(view) = find(version) {
            return Ok(view);
        }
        let view = Arc::new(self.read(version, open)?);
        open.push((Instant::now(), view.clone()));
        Ok(view)
    }

    /// Lets go of versions that nobody has used for a while, and of those for which there is no room.
    fn let_go(&self, open: &mut Vec<(Instant, Arc<View>)>) {
        let is_unused = |view: &Arc<View>| Arc::strong_count(view) == 1 && Arc::strong_count(&view.fs) == 1;
        open.retain(|(asked, view)| !is_unused(view) || asked.elapsed() < UNUSED);
        let mut unused: u64 =
            open.iter().filter(|(_, view)| is_unused(view)).map(|(_, view)| view.memory).sum();
        // The ones that were asked for least lately go first.
        open.sort_by_key(|(asked, _)| *asked);
        open.retain(|(_, view)| {
            let goes = unused > self.budget && is_unused(view);
            unused -= if goes { view.memory } else { 0 };
            !goes
        });
    }

    fn read(&self, version: Version, open: &[(Instant, Arc<View>)]) -> Result<View, OpLogError> {
        // Before the version's files are looked for: cleaning spares what a pinned version needs.
        let pins = Pins::of(version, Pin::hold(&self.pond, version)?);
        let snapshot = snapshot::load(&self.log, At::Version(version))?;
        let identity = identity(&self.log, &snapshot)?;
        let position = snapshot.position(&self.log)?;
        let (floor, notes) = (snapshot.floor(), snapshot.notes.clone());
        let holder = reading::holder(&self.log, snapshot)?;
        let wanted = Wanted { kept: holder.kept(&self.log)?, holder, position: &position };
        let distance = |view: &View| view.position.version.0.abs_diff(version.0);
        // Its own content stays for as long as it is pinned, so what is shared must not pin what is long past.
        let near = |view: &&Arc<View>| version.0.saturating_sub(view.pins.oldest().0) <= NEAR;
        let neighbours = || open.iter().map(|(_, view)| view).filter(near);
        let before = neighbours().filter(|view| wanted.can_follow(view)).min_by_key(|view| distance(view));
        let made = match before {
            Some(before) => self.later(before, &wanted)?.map(|made| (made, Some(before))),
            None => None,
        };
        let ((tree, own), neighbour) = match made {
            Some(made) => made,
            None => {
                let nearest = neighbours().min_by_key(|view| distance(view));
                (self.load(&wanted, nearest)?, nearest)
            }
        };
        let pins = neighbour.iter().fold(pins, |pins, neighbour| pins.with(&neighbour.pins));
        let files = || reading::files_between(&wanted.holder, Lsn(0), position.cut_lsn);
        let figures =
            HistoryFigures { files: files().count() as u64, bytes: files().map(|add| add.size).sum(), floor };
        let content = PinnedContent { stored: self.content.clone(), _pins: pins.clone() };
        let fs = Arc::new(TinyFs::read_only(tree, Arc::new(content)));
        let memory = fs.node_count() * SLOT + own;
        let content = self.content.clone();
        Ok(View { identity, position, fs, content, figures, notes, pins, memory })
    }

    /// The tree of a version, made from that of one before it, and the bytes that it does not share; none if the rows between do not
    /// fit, of which loading the whole tells more.
    fn later(&self, before: &View, wanted: &Wanted<'_>) -> Result<Option<(Tree, u64)>, OpLogError> {
        let mut rows = Vec::new();
        self.each_row(wanted, before.position.cut_lsn, |row| rows.push(row))?;
        rows.sort_unstable_by_key(|row| (row.lsn, row.seq));
        let count = rows.len() as u64;
        match before.fs.later(rows, wanted.position.cut_lsn) {
            Ok(Later { tree, entries }) => Ok(Some((tree, count * ROW + entries * ENTRY))),
            Err(error) => {
                let (version, before) = (wanted.position.version, before.position.version);
                tracing::warn!(%version, %before, %error, "a version cannot be made from one before; it is loaded");
                Ok(None)
            }
        }
    }

    /// The tree of a version, loaded from its files, and the bytes that it does not share with a neighbour.
    fn load(&self, wanted: &Wanted<'_>, neighbour: Option<&Arc<View>>) -> Result<(Tree, u64), OpLogError> {
        let mut fold = Fold::starting_at(wanted.position.cut_lsn);
        let mut rows = 0;
        self.each_row(wanted, Lsn(0), |row| {
            rows += 1;
            fold.push(row);
        })?;
        let failed = |why: String| OpLogError::Fold { version: wanted.position.version, why };
        let mut tree = fold.finish().map_err(|error| failed(error.to_string()))?;
        let shared = neighbour.map_or(0, |view| view.fs.share_with(&mut tree)) as u64;
        let own = rows * (tree.node_count() - shared) / tree.node_count().max(1);
        Ok((tree, own * ROW))
    }

    /// Hands out the rows between two versions of which both are open, in no particular order.
    pub(crate) fn rows_between(
        &self,
        older: &View,
        newer: &View,
        each: impl FnMut(Row),
    ) -> Result<(), OpLogError> {
        let snapshot = snapshot::load(&self.log, At::Version(newer.position.version))?;
        let holder = reading::holder(&self.log, snapshot)?;
        let wanted = Wanted { kept: Vec::new(), holder, position: &newer.position };
        self.each_row(&wanted, older.position.cut_lsn, each)
    }

    /// `$POND`.
    pub(crate) fn pond(&self) -> &Path {
        &self.pond
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Which version is meant.
    pub(crate) fn resolve(&self, at: At) -> Result<Version, OpLogError> {
        snapshot::resolve(&self.log, &self.log.list()?, at)
    }

    /// The table at the newest version, and what keeps its files.
    pub(crate) fn newest_table(&self) -> Result<(Snapshot, Pin), OpLogError> {
        let version = self.resolve(At::Tip)?;
        let pin = Pin::hold(&self.pond, version)?;
        let snapshot = snapshot::load(&self.log, At::Version(version))?;
        identity(&self.log, &snapshot)?;
        Ok((snapshot, pin))
    }

    /// Bytes of data files that are not part of the table, and of the log.
    pub(crate) fn beside(&self, snapshot: &Snapshot) -> Result<(u64, u64), OpLogError> {
        let is_live = |name: &str| snapshot.files.contains_key(name);
        let table = self.log.table();
        let replaced = bytes_in(table, |name| name.ends_with(".parquet") && !is_live(name))?;
        Ok((replaced, bytes_in(&table.join("_delta_log"), |_| true)?))
    }

    /// Hands out all rows up to the newest version, in no particular order, without a tree of it. The cuts of the floor and
    /// of the kept versions below it, ascending: of what lies between those only what they show is there.
    pub(crate) fn each_row_there_is(&self, each: impl FnMut(Row)) -> Result<Vec<Lsn>, OpLogError> {
        let (snapshot, _pin) = self.newest_table()?;
        let (position, floor) = (snapshot.position(&self.log)?, snapshot.floor());
        let holder = reading::holder(&self.log, snapshot)?;
        let kept = holder.kept(&self.log)?;
        let cuts = kept.iter().map(|kept| kept.position().cut_lsn).chain(floor.map(|floor| floor.cut_lsn));
        let cuts = cuts.collect();
        self.each_row(&Wanted { kept, holder, position: &position }, Lsn(0), each)?;
        Ok(cuts)
    }

    /// The commits of these operations, which ascend, and the kept version before each.
    pub(crate) fn commits_with(
        &self,
        lsns: &[Lsn],
    ) -> Result<Vec<(CommitInfo, Option<Version>)>, OpLogError> {
        history::commits_with(&self.log, lsns)
    }

    fn each_row(&self, wanted: &Wanted<'_>, above: Lsn, each: impl FnMut(Row)) -> Result<(), OpLogError> {
        let Wanted { holder, position, .. } = wanted;
        let between = (above, position.cut_lsn);
        reading::read(&self.log, holder, position.version, between, &mut |add| self.content.number(add), each)
    }
}

/// Bytes of the files of these names in a directory.
fn bytes_in(directory: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<u64, OpLogError> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory).map_err(OpLogError::io("list", directory))? {
        let entry = entry.map_err(OpLogError::io("list", directory))?;
        // What was removed meanwhile takes nothing.
        if let (true, Ok(metadata)) = (entry.file_name().to_str().is_some_and(&is_wanted), entry.metadata()) {
            bytes += if metadata.is_file() { metadata.len() } else { 0 };
        }
    }
    Ok(bytes)
}

/// A version that is to be read.
struct Wanted<'a> {
    /// Whose files hold its rows.
    holder: Snapshot,
    /// Versions below the holder's floor that it keeps.
    kept: Vec<Kept>,
    position: &'a Position,
}

impl Wanted<'_> {
    /// Whether its tree can be made from this one: of versions that the files which are read do not keep rows may be gone that say
    /// what ended there.
    fn can_follow(&self, view: &View) -> bool {
        let before = view.position.version;
        before < self.position.version
            && (self.holder.floor().is_none_or(|floor| floor.version <= before)
                || self.kept.iter().any(|kept| kept.version() == before))
    }
}
