//! The files of versions as an object store.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attributes as StoreAttributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::RwLock;
use pond_oplog::{Version, View};
use pond_tinyfs::{Attributes, FileType, NodeId};

use crate::content::name;

/// Bytes that are read at a time where a file is read from end to end.
const CHUNK: u64 = 1 << 20;
/// Chunks, or ranges, of one file that are read side by side.
const AT_ONCE: usize = 4;

/// What the store's errors call it.
const STORE: &str = "pond";

/// The files of a pond, read-only: the object `42/data/a.parquet` is `/data/a.parquet` as version 42 has it. Versions are there as long
/// as they are [held](Self::hold).
///
/// What a name stands for never changes, so whatever is kept by name never goes stale. Bytes come by extents, verified, through the
/// cache that all versions share; no mount is needed.
pub struct PondStore {
    url: ObjectStoreUrl,
    held: RwLock<HashMap<Version, Arc<View>>>,
    read: AtomicU64,
}

impl PondStore {
    /// The store of the pond that has this identity; it holds no version yet.
    pub fn new(pond_id: &str) -> datafusion::error::Result<Self> {
        let url = ObjectStoreUrl::parse(format!("{STORE}://{pond_id}"))?;
        Ok(PondStore { url, held: RwLock::default(), read: AtomicU64::new(0) })
    }

    /// Where DataFusion finds it.
    pub fn url(&self) -> &ObjectStoreUrl {
        &self.url
    }

    /// Holds a version, which is pinned by that.
    pub fn hold(&self, view: &Arc<View>) {
        self.held.write().insert(view.position().version, view.clone());
    }

    /// Lets go of all versions.
    pub fn let_go(&self) {
        self.held.write().clear();
    }

    /// Bytes of files that were asked for.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// What the store says of a file, given its path from the root.
    pub fn meta(view: &View, path: &[u8], attributes: &Attributes) -> ObjectMeta {
        let version = view.position().version;
        ObjectMeta {
            location: name::of(version, path),
            last_modified: DateTime::from_timestamp_nanos(attributes.mtime.0),
            size: attributes.size,
            e_tag: Some(format!("{}-{version}", attributes.id)),
            version: None,
        }
    }

    fn find(&self, location: &Path) -> Result<(Arc<View>, Vec<u8>, Attributes)> {
        let missing = |why: String| Error::NotFound { path: location.to_string(), source: why.into() };
        let (version, path) =
            name::parse(location).ok_or_else(|| missing("its name has no version".to_owned()))?;
        let view = self.held.read().get(&version).cloned();
        let view = view.ok_or_else(|| missing(format!("version {version} is not open")))?;
        let attributes = view.fs().resolve(&path).map_err(|error| missing(error.to_string()))?;
        Ok((view, path, attributes))
    }

    fn find_file(&self, location: &Path) -> Result<(Arc<View>, ObjectMeta, NodeId)> {
        let (view, path, attributes) = self.find(location)?;
        match attributes.kind {
            FileType::File => {
                let meta = PondStore::meta(&view, &path, &attributes);
                Ok((view, ObjectMeta { location: location.clone(), ..meta }, attributes.id))
            }
            kind => Err(Error::NotFound {
                path: location.to_string(),
                source: format!("it is no file, but a {}", kind.name()).into(),
            }),
        }
    }
}

/// Bytes of a file. What the cache has comes at once; the rest on a thread that may wait.
async fn read(view: Arc<View>, node: NodeId, range: Range<u64>) -> Result<Bytes> {
    let length = usize::try_from(range.end.saturating_sub(range.start)).map_err(failed)?;
    let mut plan = view.fs().read(node, range.start, length).map_err(failed)?;
    if let Some(bytes) = plan.fill_cached(view.fs().persistence().as_ref()) {
        return Ok(bytes.into());
    }
    let read = move || plan.fill(view.fs().persistence().as_ref()).map(Bytes::from);
    tokio::task::spawn_blocking(read).await.map_err(failed)?.map_err(failed)
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Generic { store: STORE, source: Box::new(error) }
}

fn read_only(what: &'static str) -> Error {
    Error::NotSupported { source: format!("{what}: a version never changes").into() }
}

impl fmt::Debug for PondStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PondStore").field("url", &self.url).finish_non_exhaustive()
    }
}

impl fmt::Display for PondStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.url)
    }
}

#[async_trait]
impl ObjectStore for PondStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (view, meta, node) = self.find_file(location)?;
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            Some(range) => range.as_range(meta.size).map_err(failed)?,
            None => 0..meta.size,
        };
        let wanted = if options.head { range.start..range.start } else { range.clone() };
        self.read.fetch_add(wanted.end - wanted.start, Ordering::Relaxed);
        let chunks = (wanted.start..wanted.end).step_by(CHUNK as usize);
        let chunks = chunks.map(move |start| start..(start + CHUNK).min(wanted.end));
        let bytes = stream::iter(chunks).map(move |chunk| read(view.clone(), node, chunk)).buffered(AT_ONCE);
        Ok(GetResult {
            payload: GetResultPayload::Stream(bytes.boxed()),
            meta,
            range,
            attributes: StoreAttributes::default(),
        })
    }

    /// Each range by itself: nothing is gained here by reading what lies between them.
    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (view, meta, node) = self.find_file(location)?;
        let mut wanted = Vec::with_capacity(ranges.len());
        for range in ranges {
            let range = range.start..range.end.min(meta.size);
            self.read.fetch_add(range.end.saturating_sub(range.start), Ordering::Relaxed);
            wanted.push(read(view.clone(), node, range));
        }
        stream::iter(wanted).buffered(AT_ONCE).try_collect().await
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let start =
            prefix.ok_or_else(|| failed(std::io::Error::other("name a version"))).and_then(|prefix| {
                let (view, path, attributes) = self.find(prefix)?;
                Ok((view, path, attributes.id))
            });
        let (view, path, directory) = match start {
            Ok(start) => start,
            Err(Error::NotFound { .. }) => return stream::empty().boxed(),
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let walk = crate::content::walk::Walk::below(view.clone(), path, directory);
        let files = walk.filter_map(move |found| match found {
            Ok(found) if found.attributes.kind == FileType::File => {
                Some(Ok(PondStore::meta(&view, &found.path, &found.attributes)))
            }
            Ok(_) => None,
            Err(error) => Some(Err(failed(error))),
        });
        stream::iter(files).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.ok_or_else(|| failed(std::io::Error::other("name a version")))?;
        let (view, path, attributes) = self.find(prefix)?;
        let version = view.position().version;
        let mut listed = ListResult { common_prefixes: Vec::new(), objects: Vec::new() };
        for entry in crate::content::walk::entries(&view, attributes.id).map_err(failed)? {
            let below = [&path[..], b"/", &entry.name].concat();
            match entry.attributes.kind {
                FileType::Directory => listed.common_prefixes.push(name::of(version, &below)),
                FileType::File => listed.objects.push(PondStore::meta(&view, &below, &entry.attributes)),
                _ => {}
            }
        }
        Ok(listed)
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only("writing"))
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only("writing"))
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::once(async { Err(read_only("deleting")) }).boxed()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only("copying"))
    }
}
