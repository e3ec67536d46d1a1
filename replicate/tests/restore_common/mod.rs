//! What the tests of restoring share: a source with a past, a store that counts and fails, and comparing ponds.
#![allow(dead_code)] // Each test binary uses its part.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path as Location;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use pond_oplog::{DurableStore, Position};
use pond_replicate::store::{Retries, Store};
use pond_replicate::{InitOptions, NoProgress, Remote, ReplicateError, Restored, init_from_store};
use pond_steward::{OpenOptions, Registry, Steward};
use pond_tinyfs::{Caller, Errno, Make, NodeId, SetAttributes, WriteFlags};

/// A directory with a source, a place for backups and room for replicas.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub source: PathBuf,
    pub backups: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        // In memory where possible: these tests sync a lot, and none of them is about the disk.
        let memory = Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let (source, backups) = (dir.path().join("source"), dir.path().join("backups"));
        std::fs::create_dir(&backups).unwrap();
        Steward::init(&source).unwrap();
        Place { dir, source, backups }
    }

    /// One with versions up to `versions` that were pushed at once, and so lie in packs but for the last ones.
    pub fn pushed(versions: u64) -> Self {
        let place = Place::new();
        let source = place.open();
        commit_up_to(&source, versions - 1);
        place.add_remote(&source);
        source.sync().unwrap();
        assert_eq!(source.position().version.0, versions);
        source.close().unwrap();
        place
    }

    pub fn config(&self) -> Vec<u8> {
        format!("storage_type: local\npath: {}\nsync_interval: 0.05\n", self.backups.display()).into_bytes()
    }

    pub fn open(&self) -> Arc<Steward> {
        open(&self.source)
    }

    /// The commit of the node is a version, and with it begins the backup.
    pub fn add_remote(&self, source: &Steward) {
        source.mknod("remote", "/etc/system.d/10-remote", &self.config()).unwrap();
    }

    pub fn replica(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn store(&self) -> Arc<Watched> {
        Arc::new(Watched::new(DurableStore::new(&self.backups)))
    }

    pub fn init(&self, replica: &Path) -> std::result::Result<Position, ReplicateError> {
        self.init_from(&self.store(), replica, &InitOptions::default())
    }

    pub fn init_from(
        &self,
        store: &Arc<Watched>,
        replica: &Path,
        options: &InitOptions,
    ) -> std::result::Result<Position, ReplicateError> {
        self.restore(store, replica, options).map(|restored| restored.position)
    }

    /// Likewise, with what was missing.
    pub fn restore(
        &self,
        store: &Arc<Watched>,
        replica: &Path,
        options: &InitOptions,
    ) -> std::result::Result<Restored, ReplicateError> {
        init_from_store(replica, &self.config(), &store.open(), options, &NoProgress)
    }

    /// A file in the store whose key contains all of these.
    pub fn object(&self, parts: &[&str]) -> PathBuf {
        let found = self.objects(parts);
        found.into_iter().next().unwrap_or_else(|| panic!("no object {parts:?}"))
    }

    pub fn objects(&self, parts: &[&str]) -> Vec<PathBuf> {
        let mut found = files(&self.backups);
        found.retain(|path| parts.iter().all(|part| path.to_str().unwrap().contains(part)));
        found
    }
}

pub fn open(pond: &Path) -> Arc<Steward> {
    let mut registry = Registry::default();
    registry.register(Arc::new(Remote::default()));
    let options = OpenOptions {
        registry,
        commit_interval: Duration::from_secs(3600),
        follow: false,
        maintenance: false,
        ..OpenOptions::default()
    };
    Steward::open(pond, options).unwrap()
}

/// Commits one version after the other, each with something else in it.
pub fn commit_up_to(steward: &Steward, version: u64) {
    while steward.position().version.0 < version {
        let next = steward.position().version.0 + 1;
        let content = vec![next as u8; 1000 + next as usize % 7 * 300];
        write(steward, &format!("file-{}", next % 10), &content);
        steward.commit_now().unwrap();
        assert_eq!(steward.position().version.0, next);
    }
}

/// Makes or replaces a file in the root directory.
pub fn write(steward: &Steward, name: &str, content: &[u8]) {
    let (fs, caller) = (steward.fs(), Caller::root());
    let file = match fs.lookup(NodeId::ROOT, name.as_bytes()) {
        Ok(found) => found.id,
        Err(pond_tinyfs::Error::Errno(Errno::NOENT)) => {
            fs.make(&caller, NodeId::ROOT, name.as_bytes(), Make::File { mode: 0o644 }).unwrap().id
        }
        Err(error) => panic!("{error}"),
    };
    fs.setattr(&caller, file, &SetAttributes { size: Some(0), ..SetAttributes::default() }).unwrap();
    for (i, piece) in content.chunks(128 << 10).enumerate() {
        if !steward.has_room() {
            steward.wait_for_room().unwrap();
        }
        fs.write(&caller, file, (i * (128 << 10)) as u64, piece, WriteFlags::default()).unwrap();
    }
    fs.forget(file, 1);
}

pub fn read(steward: &Steward, name: &str) -> Option<Vec<u8>> {
    let fs = steward.fs();
    let found = fs.resolve(format!("/{name}").as_bytes()).ok()?;
    let mut content = Vec::new();
    while (content.len() as u64) < found.size {
        let plan = fs.read(found.id, content.len() as u64, 1 << 20).unwrap();
        content.extend(plan.fill(&**fs.persistence()).unwrap());
    }
    Some(content)
}

/// All files below a directory.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// Log entries and data files by name. Checkpoints are derived and left out.
pub fn history(pond: &Path) -> BTreeMap<String, String> {
    let data = pond.join("data");
    let mut found = BTreeMap::new();
    for path in files(&data) {
        let name = path.strip_prefix(&data).unwrap().to_str().unwrap().to_owned();
        let derived = name.contains("checkpoint") || name.ends_with(".crc");
        if !derived {
            found.insert(name, blake3::hash(&std::fs::read(&path).unwrap()).to_hex().to_string());
        }
    }
    found
}

/// Histories are equal byte for byte, and nothing else lies about.
pub fn assert_identical(ours: &Path, theirs: &Path) {
    let (ours, theirs) = (history(ours), history(theirs));
    let names = |history: &BTreeMap<String, String>| history.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs));
    assert_eq!(ours, theirs);
}

/// A store that counts requests, and can fail from a request on.
pub struct Watched {
    inner: DurableStore,
    requests: AtomicUsize,
    limit: AtomicUsize,
    /// Requests after so many get no answer.
    silent: AtomicUsize,
    /// Objects that were got, with the range, as often as they were got whole or in this part.
    got: Mutex<BTreeMap<String, usize>>,
    /// Bytes of all that was got.
    bytes: AtomicUsize,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

impl Watched {
    pub fn new(inner: DurableStore) -> Self {
        Watched {
            inner,
            requests: AtomicUsize::new(0),
            limit: AtomicUsize::new(usize::MAX),
            silent: AtomicUsize::new(usize::MAX),
            got: Mutex::default(),
            bytes: AtomicUsize::new(0),
        }
    }

    /// The store that asks this one, once for each request.
    pub fn open(self: &Arc<Self>) -> Store {
        let retries =
            Retries { times: 0, first: Duration::from_millis(1), longest: Duration::from_millis(1) };
        Store::new(self.clone() as Arc<dyn ObjectStore>, "the backups", "").with_retries(retries)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Requests after so many more fail.
    pub fn fail_after(&self, more: Option<usize>) {
        let limit = more.map_or(usize::MAX, |more| self.requests() + more);
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Requests after so many more get no answer, and what was asked for then counts as asked.
    pub fn silent_after(&self, more: Option<usize>) {
        let limit = more.map_or(usize::MAX, |more| self.requests() + more);
        self.silent.store(limit, Ordering::Relaxed);
    }

    /// Whether somebody waits for an answer that does not come.
    pub fn is_silent(&self) -> bool {
        self.requests() > self.silent.load(Ordering::Relaxed)
    }

    /// Bytes of all that was got.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn got(&self) -> BTreeMap<String, usize> {
        self.got.lock().clone()
    }

    fn request(&self) -> Result<()> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        match number < self.limit.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(Error::Generic { store: "test", source: "the line is cut".into() }),
        }
    }
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(&self, at: &Location, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.request()?;
        self.inner.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Location,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.request()?;
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Location, options: GetOptions) -> Result<GetResult> {
        self.request()?;
        if self.is_silent() {
            std::future::pending::<()>().await;
        }
        let range = options.range.as_ref().map_or_else(String::new, |range| format!(" {range}"));
        let head = options.head;
        let got = self.inner.get_opts(at, options).await?;
        if head {
            return Ok(got);
        }
        *self.got.lock().entry(format!("{at}{range}")).or_default() += 1;
        self.bytes.fetch_add(got.meta.size as usize, Ordering::Relaxed);
        Ok(got)
    }

    async fn get_ranges(&self, at: &Location, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.request()?;
        self.inner.get_ranges(at, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Location>>,
    ) -> BoxStream<'static, Result<Location>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Location>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.request() {
            Ok(()) if self.is_silent() => Box::pin(futures::stream::pending()),
            Ok(()) => self.inner.list(prefix),
            Err(error) => Box::pin(futures::stream::once(async move { Err(error) })),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Location>) -> Result<ListResult> {
        self.request()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Location, to: &Location, options: CopyOptions) -> Result<()> {
        self.request()?;
        self.inner.copy_opts(from, to, options).await
    }
}
