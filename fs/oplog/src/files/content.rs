//! Extents by position: the page that holds a row is decoded, every byte is verified, and the result kept within
//! a budget.
//!
//! Three caches stand before the disk: open files, page indexes, decoded pages. Of several readers that miss the same
//! page one decodes it, and the others wait for that. A scan does not push out what is used again and again: the cache takes
//! new pages on trial, and lets a full one go as soon as it was read whole, since the kernel then has its bytes.
//!
//! Where a file keeps digests of parts of extents (`pieces.rs`), a small read of a large extent takes those parts, which the
//! kernel keeps too, and no page is made of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use pond_tinyfs::{Location, MAX_EXTENT, StorageError};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::disk::errno;
use crate::files::damage::{Damage, DamageMet};
use crate::files::decoder_panics::unpanicked;
use crate::files::digests::Digests;
use crate::files::page::Page;
use crate::files::page_index::{self, Column, PageIndex};
use crate::files::read_error::{ReadError, storage_error};

/// Most of the cache's budget that page indexes take, bytes; of small budgets it is an eighth.
const INDEXES: u64 = 32 << 20;
/// Few enough items for the cache to be one shard: of several each takes no item that is larger than itself.
const INDEX_ITEMS: usize = 32;
/// What a cached page costs besides its own memory.
const OVERHEAD: u64 = 96;

/// The data files of a table, by the numbers that locations carry.
pub(crate) struct DataFiles {
    table: PathBuf,
    known: RwLock<Known>,
    open: Cache<u32, Arc<File>>,
    indexes: Cache<u32, Arc<PageIndex>, IndexWeight>,
    pages: Cache<PageKey, Arc<Page>, PageWeight>,
    damage: Damage,
}

/// Memory that is taken by what is kept for readers, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheUse {
    /// Decoded pages.
    pub pages: u64,
    /// Where in their files pages lie.
    pub indexes: u64,
}

/// The files that were taken in and are not forgotten. Numbers are never given out again, as pages of a file that is gone may
/// still be in the cache under its number: at a file a second they last for more than a century.
#[derive(Default)]
struct Known {
    next: u32,
    files: HashMap<u32, KnownFile>,
}

struct KnownFile {
    name: Box<str>,
    /// What the log says of it.
    digest: Option<Box<str>>,
}

/// File, column, first row.
type PageKey = (u32, Column, u32);

impl DataFiles {
    /// No files yet. At most `cache_bytes` of decoded pages and indexes and `open_files` descriptors are kept.
    pub(crate) fn new(table: &Path, cache_bytes: u64, open_files: usize) -> Self {
        let indexes = INDEXES.min(cache_bytes / 8);
        let pages = cache_bytes - indexes;
        DataFiles {
            table: table.to_path_buf(),
            known: RwLock::default(),
            open: Cache::new(open_files.max(1)),
            indexes: Cache::with_weighter(INDEX_ITEMS, indexes, IndexWeight),
            pages: Cache::with_weighter((pages / 16384) as usize, pages, PageWeight),
            damage: Damage::default(),
        }
    }

    /// Takes a file in and gives it a number. Without digests it is not read.
    pub(crate) fn add(&self, name: &str, digests: Option<&Digests>) -> u32 {
        let mut known = self.known.write();
        let number = known.next;
        known.next += 1;
        let digest = digests.map(|digests| digests.footer.as_str().into());
        known.files.insert(number, KnownFile { name: name.into(), digest });
        number
    }

    /// Gives a file another name once `moved` has moved it. Nobody opens it meanwhile, so readers always find it.
    pub(crate) fn rename(
        &self,
        file: u32,
        name: &str,
        moved: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut known = self.known.write();
        moved()?;
        if let Some(known) = known.files.get_mut(&file) {
            known.name = name.into();
        }
        Ok(())
    }

    /// Opens a file by its name as it is now.
    fn open_named(&self, file: u32) -> io::Result<File> {
        let known = self.known.read();
        let name = &known.files.get(&file).ok_or(io::ErrorKind::NotFound)?.name;
        let path = self.table.join(&**name);
        match File::open(&path) {
            // The descriptors that are kept for others are of less use than this one.
            Err(error) if error.raw_os_error().is_some_and(errno::is_out_of_files) => {
                self.open.clear();
                File::open(&path)
            }
            opened => opened,
        }
    }

    /// The names of all files taken in.
    pub(crate) fn names(&self) -> Vec<Box<str>> {
        self.known.read().files.values().map(|file| file.name.clone()).collect()
    }

    /// The numbers of files of these names.
    pub(crate) fn numbers(&self, wanted: &BTreeSet<&String>) -> BTreeMap<String, u32> {
        let wanted: HashSet<&str> = wanted.iter().map(|name| name.as_str()).collect();
        let known = self.known.read();
        let found = known.files.iter().filter(|(_, file)| wanted.contains(&*file.name));
        found.map(|(&number, file)| (file.name.to_string(), number)).collect()
    }

    /// A file is gone, and nobody names it any more.
    pub(crate) fn forget(&self, file: u32) {
        self.known.write().files.remove(&file);
        self.open.remove(&file);
        self.indexes.remove(&file);
    }

    fn path(&self, file: u32) -> Option<PathBuf> {
        self.known.read().files.get(&file).map(|file| self.table.join(&*file.name))
    }

    /// The bytes `[skip, skip + length)` of an extent if they are in memory.
    pub(crate) fn cached(&self, location: Location, skip: u32, length: u32) -> Option<Bytes> {
        let index = self.indexes.get(&location.file)?;
        let place = index.place(Column::Content, location.row)?;
        let key = (location.file, Column::Content, place.first_row);
        let page = self.pages.get(&key)?;
        let bytes = part(&page.share(location.row)?, skip, length)?;
        self.let_go(key, &page, location.row, &bytes);
        Some(bytes)
    }

    /// The bytes `[skip, skip + length)` of an extent, verified.
    pub(crate) fn read(&self, location: Location, skip: u32, length: u32) -> Result<Bytes, StorageError> {
        let Location { file, row } = location;
        let failed = |error: ReadError| match self.path(file) {
            Some(path) => {
                if let (ReadError::Corrupt(_), Some(name)) = (&error, path.file_name()) {
                    self.damage.met(&name.to_string_lossy(), row);
                }
                error.on(&path, row)
            }
            None => storage_error(format!("there is no data file number {file}"), None, libc::EIO),
        };
        if let Some(bytes) = self.pieces(location, skip, length) {
            return Ok(bytes);
        }
        let (key, page) = self.page(file, Column::Content, row).map_err(failed)?;
        let Some(bytes) = page.share(row) else {
            // Another attempt shall look at the disk again: someone may have repaired the file.
            self.pages.remove(&key);
            return Err(failed(ReadError::Corrupt("its bytes do not match their checksum".into())));
        };
        let bytes = part(&bytes, skip, length).ok_or_else(|| {
            failed(ReadError::Corrupt(format!(
                "it has {} bytes and {length} from {skip} were asked for",
                bytes.len()
            )))
        })?;
        self.let_go(key, &page, row, &bytes);
        Ok(bytes)
    }

    /// Damaged content that was met so far.
    pub(crate) fn damage_met(&self) -> DamageMet {
        self.damage.so_far()
    }

    /// Bytes that may be made ready ahead of their readers: a part of the budget of decoded pages.
    pub(crate) fn prefetch_budget(&self) -> u64 {
        self.pages.capacity() / 4
    }

    /// What is in the caches.
    pub(crate) fn cache_use(&self) -> CacheUse {
        CacheUse { pages: self.pages.weight(), indexes: self.indexes.weight() }
    }

    /// Decodes the page of an extent that will soon be read.
    pub(crate) fn prefetch(&self, location: Location) {
        if self.page(location.file, Column::Content, location.row).is_err() {
            tracing::debug!(?location, "cannot be read ahead; whoever reads it hears why");
        }
    }

    /// The bytes `[skip, skip + length)` of an extent, verified, where the pieces they lie in are less than half of it and
    /// have digests of their own. None, too, for whatever is wrong: the whole page tells more.
    fn pieces(&self, location: Location, skip: u32, length: u32) -> Option<Bytes> {
        let Location { file: number, row } = location;
        let (skip, length) = (skip as usize, length as usize);
        if length > MAX_EXTENT / 2 {
            return None;
        }
        let (file, index) = self.opened(number).ok()?;
        // The last value of a page that is not compressed ends with it.
        let place = index.place(Column::Content, row)?;
        if row - place.first_row + 1 != place.rows {
            return None;
        }
        let end = place.offset + u64::from(place.size);
        let pieces = index.pieces(&file, row)?;
        let whole = pieces.covering(skip..skip + length);
        if whole.len() > pieces.length() / 2 || skip + length > whole.end {
            return None;
        }
        let (_, checksums) = self.page(number, Column::Checksum, row).ok()?;
        if checksums.value(row) != Some(pieces.digest().as_bytes()) {
            return None;
        }
        let start = end.checked_sub((pieces.length() - whole.start) as u64)?;
        let bytes = page_index::read_range(&file, start, whole.len()).ok()?;
        index.read_ahead(&file);
        pieces
            .match_bytes(whole.start, &bytes)
            .then(|| bytes.slice(skip - whole.start..skip - whole.start + length))
    }

    /// An open file and its page index.
    fn opened(&self, number: u32) -> Result<(Arc<File>, Arc<PageIndex>), ReadError> {
        let file = self.open.get_or_insert_with(&number, || self.open_named(number).map(Arc::new))?;
        let index = self.indexes.get_or_insert_with(&number, || {
            // A copy, as those who add files wait for the lock, and a disk may take its time.
            let digest = self.known.read().files.get(&number).and_then(|file| file.digest.clone());
            let digest = digest.ok_or_else(|| ReadError::Corrupt("the log has no digests for it".into()))?;
            unpanicked(|| PageIndex::read(&file, &digest).map(Arc::new)).map_err(ReadError::Corrupt)?
        })?;
        Ok((file, index))
    }

    /// The page of a column that holds a row: of content, the rows that fail their checksums are null.
    fn page(&self, number: u32, column: Column, row: u32) -> Result<(PageKey, Arc<Page>), ReadError> {
        let (file, index) = self.opened(number)?;
        let place = index
            .place(column, row)
            .ok_or_else(|| ReadError::Corrupt("no page of it holds the row".into()))?;
        let key = (number, column, place.first_row);
        let page = self.pages.get_or_insert_with(&key, || {
            let page = unpanicked(|| index.page(&file, column, place)).map_err(ReadError::Corrupt)??;
            match column {
                Column::Checksum => Ok(Arc::new(page)),
                Column::Content => self.verified(number, page).map(Arc::new),
            }
        })?;
        Ok((key, page))
    }

    fn verified(&self, number: u32, mut page: Page) -> Result<Page, ReadError> {
        let mut checksums: Option<Arc<Page>> = None;
        for row in page.rows() {
            let Some(content) = page.value(row) else { continue };
            let known = match checksums.take().filter(|checksums| checksums.rows().contains(&row)) {
                Some(known) => known,
                None => self.page(number, Column::Checksum, row)?.1,
            };
            if known.value(row) != Some(blake3::hash(content).as_bytes()) {
                page.forget(row);
            }
            checksums = Some(known);
        }
        Ok(page)
    }

    /// Lets the page of an extent of full size go that was read whole.
    fn let_go(&self, key: PageKey, page: &Page, row: u32, bytes: &Bytes) {
        let whole = page.value(row).is_some_and(|value| value.len() == bytes.len());
        if whole && bytes.len() >= MAX_EXTENT {
            self.pages.remove(&key);
        }
    }
}

fn part(bytes: &Bytes, skip: u32, length: u32) -> Option<Bytes> {
    let end = (skip as usize).checked_add(length as usize)?;
    (end <= bytes.len()).then(|| bytes.slice(skip as usize..end))
}

#[derive(Clone)]
struct IndexWeight;

impl Weighter<u32, Arc<PageIndex>> for IndexWeight {
    fn weight(&self, _: &u32, index: &Arc<PageIndex>) -> u64 {
        index.memory() as u64
    }
}

#[derive(Clone)]
struct PageWeight;

impl Weighter<PageKey, Arc<Page>> for PageWeight {
    fn weight(&self, _: &PageKey, page: &Arc<Page>) -> u64 {
        page.memory() as u64 + OVERHEAD
    }
}

#[cfg(test)]
mod tests;
