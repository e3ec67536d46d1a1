//! A store that fails on demand, and a check that a store holds a pond's whole history.

use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path as Location;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use parking_lot::Mutex;
use pond_oplog::{Layout, Timeline, Version};
use pond_steward::{OpenOptions, Steward};
use pond_tinyfs::{Caller, Make, NodeId, WriteFlags};

use super::Source;
use crate::NoProgress;
use crate::format::pack::read_index;
use crate::format::{self, Head, Kind, Manifest, TimelineDocument};
use crate::store::{Retries, Store};

/// A pond with versions, made by a real Steward.
pub(crate) struct TestPond {
    _dir: tempfile::TempDir,
    pub(crate) path: PathBuf,
    pub(crate) steward: Arc<Steward>,
}

pub(crate) fn by_hand() -> OpenOptions {
    OpenOptions { commit_interval: Duration::from_secs(3600), maintenance: false, ..OpenOptions::default() }
}

impl TestPond {
    /// A pond whose newest version is `tip`.
    pub(crate) fn with_versions(tip: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pond");
        Steward::init(&path).unwrap();
        let steward = Steward::open(&path, by_hand()).unwrap();
        let pond = TestPond { _dir: dir, path, steward };
        pond.commit_up_to(tip);
        pond
    }

    /// Another pond that is a copy of this one as it is now (`cp -a`).
    pub(crate) fn copy(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pond");
        let status = std::process::Command::new("cp").arg("-a").args([&self.path, &path]).status().unwrap();
        assert!(status.success());
        let steward = Steward::open(&path, by_hand()).unwrap();
        TestPond { _dir: dir, path, steward }
    }

    pub(crate) fn tip(&self) -> Version {
        self.steward.position().version
    }

    pub(crate) fn commit_up_to(&self, tip: u64) {
        while self.tip().0 < tip {
            let name = format!("file-{}", self.tip().next());
            self.write(&name, name.as_bytes());
        }
    }

    /// Makes a file and commits it.
    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        let (fs, caller) = (self.steward.fs(), Caller::root());
        let file = fs.make(&caller, NodeId::ROOT, name.as_bytes(), Make::File { mode: 0o644 }).unwrap().id;
        for (i, piece) in content.chunks(128 << 10).enumerate() {
            if !self.steward.has_room() {
                self.steward.wait_for_room().unwrap();
            }
            fs.write(&caller, file, (i * (128 << 10)) as u64, piece, WriteFlags::default()).unwrap();
        }
        fs.forget(file, 1);
        self.steward.commit_now().unwrap();
    }

    pub(crate) fn source(&self, store: &Store) -> Source {
        let oplog = self.steward.oplog().clone();
        Source {
            store: store.clone(),
            pond: self.path.clone(),
            pond_id: oplog.identity().pond_id,
            timeline: oplog.position().timeline,
            timeline_id: None,
            level: 1,
            newest: Arc::new(move || oplog.position().version),
            progress: Arc::new(NoProgress),
        }
    }
}

/// Asserts that a store holds a pond's history up to a version, as a reader would find it: chain of manifests, packs, bundles,
/// and in them the pond's own bytes. Each range that is complete has a pack that is verbatim. The number of versions whose bundles lie by
/// themselves.
pub(crate) async fn assert_complete(store: &Store, pond: &TestPond, tip: Version) -> usize {
    let oplog = pond.steward.oplog();
    let head: Head = read(store, format::HEAD_KEY).await.0;
    assert_eq!((head.version, head.pond_id), (tip.0, oplog.identity().pond_id));
    let timeline: TimelineDocument = read(store, &format::timeline_key(head.timeline)).await.0;
    assert_eq!(timeline.timeline, head.timeline);
    let root = Version(head.root);
    let (base, mut parent) = manifest(store, &format::base_manifest_key(head.root_timeline, root)).await;
    base.check("base", Kind::Base, root).unwrap();
    assert_eq!(base.parent, None);
    assert!(assert_bundles(store, &base, pond, &[]).await);
    let packs = read_packs(store, head.timeline).await;
    let mut packed: Vec<Option<u64>> = packs.iter().map(|(range, _)| Some(range.start)).collect();
    let mut singles = 0;
    for version in (root.0 + 1..=tip.0).map(Version) {
        let key = format::manifest_key(head.timeline, version);
        let bytes = store.get(&key).await.unwrap().unwrap_or_else(|| panic!("{key} is not there"));
        let manifest: Manifest = format::decode(&key, &bytes).unwrap();
        manifest.check(&key, Kind::Delta, version).unwrap();
        assert_eq!(manifest.parent.as_ref(), Some(&parent), "{key}");
        parent = format::digest(&bytes);
        singles += usize::from(assert_bundles(store, &manifest, pond, &packs).await);
        let relative = format!("{}/manifest.json", format::version_folder(version));
        for ((range, objects), packed) in packs.iter().zip(&mut packed) {
            let has = |key: &str| objects.iter().find(|(found, _)| found == key).map(|(_, bytes)| bytes);
            let small = manifest.bundles.iter().filter(|bundle| bundle.length < format::PACKED_BUNDLE);
            let whole = has(&relative) == Some(&bytes)
                && small.clone().all(|bundle| {
                    has(&bundle.key).is_some_and(|bytes| format::digest(bytes) == bundle.blake3)
                });
            if *packed == Some(version.0) {
                *packed = whole.then_some(version.0 + 1);
            }
            if range.end == version.0 + 1 && *packed != Some(range.end) {
                *packed = None;
            }
        }
        if version == format::pack_end(version) && root.0 + 1 < version.0 {
            let whole = packs
                .iter()
                .zip(&packed)
                .any(|((range, _), packed)| range.end == version.0 + 1 && *packed == Some(range.end));
            assert!(whole, "the range up to {version} has no pack");
        }
    }
    assert_eq!(store.get(&format::manifest_key(head.timeline, tip.next())).await.unwrap(), None);
    assert_eq!(head.manifest, parent, "HEAD names the tip's manifest");
    if head.newest_base != head.root {
        let key = format::base_manifest_key(head.newest_base_timeline, Version(head.newest_base));
        let (base, _) = manifest(store, &key).await;
        base.check(&key, Kind::Base, Version(head.newest_base)).unwrap();
        assert!(base.parent.is_some());
        assert!(assert_bundles(store, &base, pond, &[]).await);
    }
    singles
}

async fn read<T: serde::de::DeserializeOwned>(store: &Store, key: &str) -> (T, Bytes) {
    let bytes = store.get(key).await.unwrap().unwrap_or_else(|| panic!("{key} is not there"));
    (format::decode(key, &bytes).unwrap(), bytes)
}

async fn manifest(store: &Store, key: &str) -> (Manifest, String) {
    let (manifest, bytes) = read(store, key).await;
    (manifest, format::digest(&bytes))
}

type Objects = Vec<(String, Bytes)>;

/// Versions of each pack, and its objects.
async fn read_packs(store: &Store, timeline: Timeline) -> Vec<(Range<u64>, Objects)> {
    let mut packs = Vec::new();
    for object in store.list(&format::packs_folder(timeline)).await.unwrap() {
        let (first, last, digest) = format::parse_pack_key(&object.key).unwrap();
        let bytes = store.get(&object.key).await.unwrap().unwrap();
        assert_eq!(format::digest(&bytes), digest, "{}", object.key);
        let index = read_index(&object.key, object.length, &bytes).unwrap();
        assert_eq!((index.first, index.last), (first.0, last.0));
        let slice = |object: &crate::format::pack::PackedObject| {
            let bytes = bytes.slice(object.offset as usize..(object.offset + object.length) as usize);
            assert_eq!(format::digest(&bytes), object.blake3);
            (object.key.clone(), bytes)
        };
        packs.push((first.0..last.0 + 1, index.objects.iter().map(slice).collect()));
    }
    packs
}

/// The bundles of a manifest, by themselves or else in a pack, hold the pond's own files. Whether all lie by themselves.
async fn assert_bundles(
    store: &Store,
    manifest: &Manifest,
    pond: &TestPond,
    packs: &[(Range<u64>, Objects)],
) -> bool {
    let data = Layout::new(&pond.path).data();
    if manifest.kind == Kind::Base {
        // A copy of the pond may have begun the chain, and have made the checkpoint for it.
        let (path, version) = (pond.path.clone(), Version(manifest.version));
        let made = tokio::task::spawn_blocking(move || pond_oplog::checkpoint_bytes(&path, version));
        made.await.unwrap().unwrap();
    }
    let mut by_itself = true;
    for bundle in &manifest.bundles {
        let key = format::in_timeline(manifest.timeline, &bundle.key);
        let single = store.get(&key).await.unwrap();
        by_itself &= single.is_some();
        let packed = packs.iter().flat_map(|(_, objects)| objects).find(|(key, _)| *key == bundle.key);
        let bytes = single.or(packed.map(|(_, bytes)| bytes.clone()));
        let bytes = bytes.unwrap_or_else(|| panic!("{key} is nowhere"));
        assert_eq!((bytes.len() as u64, format::digest(&bytes)), (bundle.length, bundle.blake3.clone()));
        let mut archive = tar::Archive::new(zstd::Decoder::new(&bytes[..]).unwrap());
        let mut files = manifest.contents().skip(bundle.first).take(bundle.count);
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let file = files.next().expect("no file that the manifest does not list");
            assert_eq!(entry.path().unwrap().to_str(), Some(&*file.name));
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            assert_eq!((content.len() as u64, format::digest(&content)), (file.length, file.blake3.clone()));
            let local = [data.join(&file.name), data.join("_delta_log").join(&file.name)];
            let local = local.iter().find(|path| path.exists());
            let local = local.unwrap_or_else(|| panic!("{key} has {}, the pond has not", file.name));
            assert!(std::fs::read(local).unwrap() == content, "{} is the pond's", file.name);
        }
        assert!(files.next().is_none());
    }
    by_itself
}

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 503, nothing done.
    Unavailable,
    /// It takes effect, and its answer is lost.
    LostAnswer,
    /// 409: on a conditional put although nothing is there, else as `Unavailable`.
    Conflict,
    /// The body ends early; requests without one are as `LostAnswer`.
    CutOff,
    /// Nothing is done and no answer comes: the process was killed while it waited.
    KilledBefore,
    /// It takes effect and no answer comes.
    KilledAfter,
}

/// Those after which a request may be tried again.
pub(crate) const FAULTS: [Fault; 4] = [Fault::Unavailable, Fault::LostAnswer, Fault::Conflict, Fault::CutOff];

pub(crate) const KILLS: [Fault; 2] = [Fault::KilledBefore, Fault::KilledAfter];

#[derive(Default)]
struct Plan {
    requests: u64,
    /// Which request fails, how, and how many after it.
    fail: Option<(Range<u64>, Fault)>,
}

/// A store in memory that counts requests and fails at one of them.
#[derive(Clone)]
pub(crate) struct Faulty {
    inner: Arc<InMemory>,
    plan: Arc<Mutex<Plan>>,
    killed: Arc<tokio::sync::Notify>,
    /// Uploads in parts that were taken back.
    pub(crate) aborted: Arc<std::sync::atomic::AtomicUsize>,
    /// Whether conditional puts are taken for plain ones.
    pub(crate) ignores_conditions: bool,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl Faulty {
    pub(crate) fn new() -> Self {
        Faulty {
            inner: Arc::default(),
            plan: Arc::default(),
            killed: Arc::default(),
            aborted: Arc::default(),
            ignores_conditions: false,
        }
    }

    /// The store, with so many retries.
    pub(crate) fn store(&self, times: usize) -> Store {
        let retries = Retries { times, first: Duration::from_millis(1), longest: Duration::from_millis(2) };
        Store::new(Arc::new(self.clone()), "memory", "some/prefix").with_retries(retries)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.plan.lock().requests
    }

    /// From now on the `at`th request (and those after it, `count` in all) fails.
    pub(crate) fn fail(&self, at: u64, count: u64, fault: Fault) {
        *self.plan.lock() = Plan { requests: 0, fail: Some((at..at + count, fault)) };
    }

    /// Does this, unless a request is one of those that kill: none then, and what it waited for is dropped where it was.
    pub(crate) async fn unless_killed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            result = work => Some(result),
            () = self.killed.notified() => None,
        }
    }

    async fn kill<T>(&self) -> Result<T> {
        self.killed.notify_one();
        std::future::pending().await
    }

    pub(crate) fn heal(&self) {
        *self.plan.lock() = Plan::default();
    }

    /// Counts a request; the fault that it meets.
    fn request(&self) -> Option<Fault> {
        let mut plan = self.plan.lock();
        let number = plan.requests;
        plan.requests += 1;
        plan.fail.as_ref().filter(|(range, _)| range.contains(&number)).map(|(_, fault)| *fault)
    }
}

fn unavailable() -> Error {
    Error::Generic { store: "Faulty", source: "Server returned non-2xx status code: 503 Slow Down".into() }
}

fn conflict(location: &Location) -> Error {
    Error::AlreadyExists { path: location.to_string(), source: "409 Conflict".into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Location,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> Result<PutResult> {
        let create = opts.mode == PutMode::Create;
        if self.ignores_conditions {
            opts.mode = PutMode::Overwrite;
        }
        match self.request() {
            None => self.inner.put_opts(location, payload, opts).await,
            Some(Fault::Conflict) if create => Err(conflict(location)),
            Some(Fault::Unavailable | Fault::Conflict) => Err(unavailable()),
            Some(Fault::LostAnswer | Fault::CutOff) => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(unavailable())
            }
            Some(Fault::KilledBefore) => self.kill().await,
            Some(Fault::KilledAfter) => {
                self.inner.put_opts(location, payload, opts).await?;
                self.kill().await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Location,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        match self.request() {
            None => {
                let inner = self.inner.put_multipart_opts(location, opts).await?;
                Ok(Box::new(FaultyUpload { store: self.clone(), inner }))
            }
            Some(Fault::KilledBefore | Fault::KilledAfter) => self.kill().await,
            Some(_) => Err(unavailable()),
        }
    }

    async fn get_opts(&self, location: &Location, options: GetOptions) -> Result<GetResult> {
        match self.request() {
            None => self.inner.get_opts(location, options).await,
            Some(Fault::CutOff) => {
                let mut got = self.inner.get_opts(location, options).await?;
                let (meta, range, attributes) = (got.meta.clone(), got.range.clone(), got.attributes.clone());
                got.range = range.clone();
                let bytes = got.bytes().await?;
                let half = bytes.slice(..bytes.len() / 2);
                let body = futures::stream::iter([Ok(half), Err(unavailable())]).boxed();
                Ok(GetResult {
                    payload: object_store::GetResultPayload::Stream(body),
                    meta,
                    range,
                    attributes,
                })
            }
            Some(Fault::KilledBefore | Fault::KilledAfter) => self.kill().await,
            Some(_) => Err(unavailable()),
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Location>>,
    ) -> BoxStream<'static, Result<Location>> {
        match self.request() {
            None => self.inner.delete_stream(locations),
            Some(_) => futures::stream::iter([Err(unavailable())]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Location>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.request() {
            None => self.inner.list(prefix),
            Some(_) => futures::stream::iter([Err(unavailable())]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Location>) -> Result<ListResult> {
        match self.request() {
            None => self.inner.list_with_delimiter(prefix).await,
            Some(_) => Err(unavailable()),
        }
    }

    async fn copy_opts(&self, from: &Location, to: &Location, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    store: Faulty,
    inner: Box<dyn MultipartUpload>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match self.store.request() {
            None => self.inner.put_part(data),
            Some(_) => Box::pin(async { Err(unavailable()) }),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        match self.store.request() {
            None => self.inner.complete().await,
            Some(Fault::LostAnswer | Fault::CutOff) => {
                self.inner.complete().await?;
                Err(unavailable())
            }
            Some(Fault::KilledBefore) => self.store.kill().await,
            Some(Fault::KilledAfter) => {
                self.inner.complete().await?;
                self.store.kill().await
            }
            Some(_) => Err(unavailable()),
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.store.aborted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.inner.abort().await
    }
}
