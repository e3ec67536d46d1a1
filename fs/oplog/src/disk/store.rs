//! Our own local object store: what object_store's does, but durable.
//!
//! `object_store` never fsyncs local files, and links or renames them into place before anyone
//! could. Here put and multipart alike go temporary file → fsync → link (put-if-absent) or rename
//! → fsync of the directory. deltalake gets it as its root store, so that checkpoints pass through it.
//!
//! It blocks the calling task: give it a runtime of its own. It does not encode names: a location
//! is the path below the root as it is.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::{fmt, io};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path as Location;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};

use crate::disk::durable::{self, Existing, Unnamed};

/// A store whose puts survive power loss once they return.
#[derive(Clone, Debug)]
pub struct DurableStore {
    root: PathBuf,
}

impl DurableStore {
    /// A store of the files below `root`; `/` for one whose locations are absolute paths.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        DurableStore { root: root.into() }
    }

    fn path(&self, location: &Location) -> PathBuf {
        self.root.join(location.as_ref())
    }

    fn put(&self, location: &Location, payload: &PutPayload, existing: Existing) -> Result<PutResult> {
        let path = self.path(location);
        make_parent(&path).map_err(|e| store_error(&path, e))?;
        let mut parts: Vec<io::IoSlice<'_>> = payload.iter().map(|part| io::IoSlice::new(part)).collect();
        durable::write_parts_durably(&path, &mut parts, existing).map_err(|e| store_error(&path, e))?;
        let metadata = fs::metadata(&path).map_err(|e| store_error(&path, e))?;
        Ok(PutResult { e_tag: Some(e_tag(&metadata)), version: None })
    }

    fn walk(
        &self,
        directory: &Path,
        after: Option<&Location>,
        recursive: bool,
        out: &mut Found,
    ) -> io::Result<()> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            // An object store has no directories: nothing there is nothing found.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            // Names that are not UTF-8 cannot be locations; nobody here makes them.
            let Some(name) = name.to_str() else { continue };
            if durable::is_temporary(name) {
                continue;
            }
            let path = entry.path();
            let Some(location) = self.location(&path) else { continue };
            // Who lists a log from its last checkpoint on is spared a look at every older entry.
            if after.is_some_and(|after| location <= *after) && entry.file_type()?.is_file() {
                continue;
            }
            let metadata = match fs::metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if !metadata.is_dir() {
                out.objects.push(object_meta(location, &metadata));
            } else if recursive {
                self.walk(&path, after, true, out)?;
            } else {
                out.directories.push(location);
            }
        }
        Ok(())
    }

    fn location(&self, path: &Path) -> Option<Location> {
        path.strip_prefix(&self.root).ok()?.to_str().and_then(|text| Location::parse(text).ok())
    }

    fn found(&self, prefix: Option<&Location>, after: Option<&Location>, recursive: bool) -> Result<Found> {
        let directory = prefix.map_or_else(|| self.root.clone(), |prefix| self.path(prefix));
        let mut found = Found::default();
        self.walk(&directory, after, recursive, &mut found).map_err(|e| store_error(&directory, e))?;
        // The kernel relies on ascending order of a log's listing.
        found.objects.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }
}

#[derive(Default)]
struct Found {
    objects: Vec<ObjectMeta>,
    directories: Vec<Location>,
}

impl fmt::Display for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableStore({})", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(
        &self,
        location: &Location,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let existing = match opts.mode {
            PutMode::Overwrite => Existing::Replace,
            PutMode::Create => Existing::Refuse,
            PutMode::Update(_) => return Err(self.not_implemented("a put that compares versions")),
        };
        self.put(location, &payload, existing)
    }

    async fn put_multipart_opts(
        &self,
        location: &Location,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let target = self.path(location);
        make_parent(&target).map_err(|e| store_error(&target, e))?;
        let directory = target.parent().unwrap_or(&self.root).to_path_buf();
        let unnamed = Unnamed::create(&directory).map_err(|e| store_error(&target, e))?;
        Ok(Box::new(Upload { target, unnamed: Some(unnamed), failed: None }))
    }

    async fn get_opts(&self, location: &Location, options: GetOptions) -> Result<GetResult> {
        let path = self.path(location);
        let file = File::open(&path).map_err(|e| store_error(&path, e))?;
        let metadata = file.metadata().map_err(|e| store_error(&path, e))?;
        if metadata.is_dir() {
            return Err(store_error(&path, io::ErrorKind::NotFound.into()));
        }
        let meta = object_meta(location.clone(), &metadata);
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            Some(range) => range
                .as_range(meta.size)
                .map_err(|source| Error::Generic { store: "local disk", source: Box::new(source) })?,
            None => 0..meta.size,
        };
        let bytes = if options.head {
            Bytes::new()
        } else {
            read(&file, range.clone()).map_err(|e| store_error(&path, e))?
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::once(async move { Ok(bytes) }).boxed()),
            meta,
            range,
            attributes: Default::default(),
        })
    }

    async fn get_ranges(&self, location: &Location, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let path = self.path(location);
        let file = File::open(&path).map_err(|e| store_error(&path, e))?;
        ranges.iter().map(|range| read(&file, range.clone()).map_err(|e| store_error(&path, e))).collect()
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Location>>,
    ) -> BoxStream<'static, Result<Location>> {
        let store = self.clone();
        locations
            .map(move |location| {
                let location = location?;
                let path = store.path(&location);
                durable::remove(&path).map_err(|e| store_error(&path, e))?;
                Ok(location)
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Location>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.found(prefix, None, true) {
            Ok(found) => stream::iter(found.objects.into_iter().map(Ok)).boxed(),
            Err(error) => stream::once(async move { Err(error) }).boxed(),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Location>,
        offset: &Location,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.found(prefix, Some(offset), true) {
            Ok(found) => stream::iter(found.objects.into_iter().map(Ok)).boxed(),
            Err(error) => stream::once(async move { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Location>) -> Result<ListResult> {
        let found = self.found(prefix, None, false)?;
        Ok(ListResult { common_prefixes: found.directories, objects: found.objects })
    }

    async fn copy_opts(&self, from: &Location, to: &Location, options: CopyOptions) -> Result<()> {
        let source = self.path(from);
        let bytes = fs::read(&source).map_err(|e| store_error(&source, e))?;
        let existing = match options.mode {
            CopyMode::Overwrite => Existing::Replace,
            CopyMode::Create => Existing::Refuse,
        };
        self.put(to, &bytes.into(), existing).map(|_| ())
    }
}

impl DurableStore {
    fn not_implemented(&self, operation: &str) -> Error {
        Error::NotImplemented { operation: operation.into(), implementer: self.to_string() }
    }
}

/// Parts of one file, written as they come; the name appears with `complete`.
#[derive(Debug)]
struct Upload {
    target: PathBuf,
    unnamed: Option<Unnamed>,
    failed: Option<String>,
}

impl fmt::Debug for Unnamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unnamed")
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let mut parts: Vec<io::IoSlice<'_>> = data.iter().map(|part| io::IoSlice::new(part)).collect();
        let written = match &mut self.unnamed {
            Some(unnamed) => unnamed.file().write_all_vectored(&mut parts),
            None => Err(io::Error::other("the upload has ended")),
        };
        let result = written.map_err(|error| {
            self.failed = Some(error.to_string());
            store_error(&self.target, error)
        });
        Box::pin(async move { result })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        if let Some(failed) = self.failed.take() {
            return Err(store_error(&self.target, io::Error::other(failed)));
        }
        let Some(unnamed) = self.unnamed.take() else {
            return Err(store_error(&self.target, io::Error::other("the upload has ended")));
        };
        unnamed.name(&self.target, Existing::Replace).map_err(|e| store_error(&self.target, e))?;
        let metadata = fs::metadata(&self.target).map_err(|e| store_error(&self.target, e))?;
        Ok(PutResult { e_tag: Some(e_tag(&metadata)), version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        self.unnamed = None;
        Ok(())
    }
}

fn make_parent(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    if parent.exists() {
        return Ok(());
    }
    make_parent(parent)?;
    durable::ensure_directory(parent)
}

fn read(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let length = usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

fn e_tag(metadata: &fs::Metadata) -> String {
    format!("{:x}-{:x}-{:x}-{:x}", metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len())
}

fn object_meta(location: Location, metadata: &fs::Metadata) -> ObjectMeta {
    let last_modified =
        DateTime::<Utc>::from_timestamp(metadata.mtime(), metadata.mtime_nsec() as u32).unwrap_or_default();
    ObjectMeta { location, last_modified, size: metadata.len(), e_tag: Some(e_tag(metadata)), version: None }
}

fn store_error(path: &Path, error: io::Error) -> Error {
    let path = path.display().to_string();
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path, source: Box::new(error) },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: Box::new(error) },
        io::ErrorKind::Unsupported => Error::NotSupported { source: Box::new(error) },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied { path, source: Box::new(error) },
        _ => Error::Generic { store: "local disk", source: Box::new(AtPath { path, source: error }) },
    }
}

/// What the system said, and of what: `object_store` keeps a path only with some of its errors.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
struct AtPath {
    path: String,
    source: io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::ObjectStoreExt;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn puts_gets_ranges_lists_and_deletes() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableStore::new(dir.path());
        block_on(async {
            let a = Location::from("x/y/a");
            let b = Location::from("x/b");
            store.put_opts(&a, "hello".into(), PutMode::Create.into()).await.unwrap();
            store.put_opts(&b, "world".into(), PutOptions::default()).await.unwrap();
            let again = store.put_opts(&a, "other".into(), PutMode::Create.into()).await;
            assert!(matches!(again, Err(Error::AlreadyExists { .. })));
            assert_eq!(store.get(&a).await.unwrap().bytes().await.unwrap(), "hello");
            assert_eq!(store.get_range(&a, 1..3).await.unwrap(), "el");
            assert_eq!(store.head(&b).await.unwrap().size, 5);
            let all: Vec<_> = store.list(None).map(|meta| meta.unwrap().location.to_string()).collect().await;
            assert_eq!(all, ["x/b", "x/y/a"]);
            let offset = Location::from(all[0].as_str());
            let later = store.list_with_offset(None, &offset).map(|meta| meta.unwrap().location.to_string());
            assert_eq!(later.collect::<Vec<_>>().await, all[1..]);
            let level = store.list_with_delimiter(Some(&Location::from("x"))).await.unwrap();
            assert_eq!(level.objects.len(), 1);
            assert_eq!(level.common_prefixes, [Location::from("x/y")]);
            store.delete(&a).await.unwrap();
            assert!(matches!(store.get(&a).await, Err(Error::NotFound { .. })));
        });
    }

    #[test]
    fn a_multipart_upload_has_no_name_until_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableStore::new(dir.path());
        block_on(async {
            let location = Location::from("big");
            let mut upload = store.put_multipart(&location).await.unwrap();
            upload.put_part("abc".into()).await.unwrap();
            upload.put_part("def".into()).await.unwrap();
            assert!(matches!(store.head(&location).await, Err(Error::NotFound { .. })));
            assert_eq!(store.list(None).count().await, 0);
            upload.complete().await.unwrap();
            assert_eq!(store.get(&location).await.unwrap().bytes().await.unwrap(), "abcdef");

            let mut aborted = store.put_multipart(&Location::from("none")).await.unwrap();
            aborted.put_part("abc".into()).await.unwrap();
            aborted.abort().await.unwrap();
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        });
    }
}
