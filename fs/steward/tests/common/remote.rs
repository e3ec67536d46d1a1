//! A factory `remote` whose store is another pond's directory: it pulls by copying what that pond's log exports.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use pond_oplog::{FileRef, Incoming, IncomingVersion, Version, history, version_files};
use pond_steward::{
    Factory, FactoryContext, FactoryError, OpenOptions, PostCommit, Registry, Replica, ReplicaProgress,
    ReplicaState, Steward, VersionSource,
};

use super::by_hand;

/// What to do at a point of a pull.
pub type Hook = Box<dyn Fn(&Replica) -> Result<(), FactoryError> + Send + Sync>;

/// The factory, and what tests do with it.
#[derive(Default)]
pub struct Remote {
    /// How often a replica pulls by itself.
    pub interval: Option<Duration>,
    /// Pulls begun.
    pub pulls: AtomicU64,
    /// Versions that pulls applied.
    pub applied: AtomicU64,
    /// Fail before anything else.
    pub unreachable: AtomicBool,
    /// Called between applying and showing.
    pub before_publish: Mutex<Option<Hook>>,
    /// Called by a push, with its context.
    #[allow(clippy::type_complexity)]
    pub on_push: Mutex<Option<Box<dyn Fn(&FactoryContext<'_>) -> Result<(), FactoryError> + Send + Sync>>>,
    /// Configurations that runs were given, with their modes.
    pub runs: Mutex<Vec<(String, String)>>,
}

/// As it is registered.
pub struct Handle(pub Arc<Remote>);

fn failed(error: impl ToString) -> FactoryError {
    FactoryError::new(error.to_string())
}

impl Factory for Handle {
    fn name(&self) -> &str {
        "remote"
    }

    fn description(&self) -> &str {
        "copies from another pond"
    }

    fn validate(&self, _configuration: &[u8]) -> Result<(), FactoryError> {
        Ok(())
    }

    fn probe(&self, _configuration: &[u8], _pond_id: pond_oplog::PondId) -> Result<(), FactoryError> {
        match self.0.unreachable.load(Ordering::Relaxed) {
            true => Err(failed("the store cannot be reached")),
            false => Ok(()),
        }
    }

    fn post_commit(&self) -> Option<&dyn PostCommit> {
        Some(self)
    }

    fn version_source(&self) -> Option<&dyn VersionSource> {
        Some(self)
    }
}

impl Handle {
    /// Notes a run; its configuration.
    fn noted(&self, context: &FactoryContext<'_>) -> String {
        let configuration = std::str::from_utf8(context.configuration).unwrap().to_owned();
        self.0.runs.lock().push((context.mode.to_owned(), configuration.clone()));
        configuration
    }
}

impl PostCommit for Handle {
    fn run(&self, context: &FactoryContext<'_>) -> Result<String, FactoryError> {
        self.noted(context);
        if let Some(push) = self.0.on_push.lock().as_ref() {
            push(context)?;
        }
        Ok("pushed".to_owned())
    }
}

impl VersionSource for Handle {
    fn pull(&self, context: &FactoryContext<'_>, replica: &Replica) -> Result<String, FactoryError> {
        self.0.pull(replica, Path::new(self.noted(context).trim()))
    }

    fn interval(&self, _configuration: &[u8]) -> Result<Option<Duration>, FactoryError> {
        Ok(self.0.interval)
    }
}

impl Remote {
    pub fn new(interval: Option<Duration>) -> Arc<Self> {
        Arc::new(Remote { interval, ..Remote::default() })
    }

    pub fn options(self: &Arc<Self>) -> OpenOptions {
        let mut registry = Registry::default();
        registry.register(Arc::new(Handle(self.clone())));
        OpenOptions { registry, ..by_hand() }
    }

    fn pull(&self, replica: &Replica, source: &Path) -> Result<String, FactoryError> {
        self.pulls.fetch_add(1, Ordering::Relaxed);
        if self.unreachable.load(Ordering::Relaxed) {
            return Err(failed("the store cannot be reached"));
        }
        let head = history(source, Some(1)).map_err(failed)?.remove(0).position;
        let ours = replica.position().unwrap();
        let missing: Vec<u64> = (ours.version.0 + 1..=head.version.0).collect();
        let progress = ReplicaProgress {
            state: ReplicaState::CatchingUp,
            timeline: Some(head.timeline),
            target_version: Some(head.version),
            versions_total: missing.len() as u64,
            ..ReplicaProgress::default()
        };
        if let Some(&first) = missing.first() {
            let timestamp = version_files(source, Version(first)).map_err(failed)?.position.timestamp;
            replica.report(ReplicaProgress { first_missing_timestamp: Some(timestamp), ..progress.clone() });
        }
        for &version in &missing {
            if replica.stopping() {
                return Err(failed("stopped"));
            }
            apply(replica.incoming(), source, Version(version)).map_err(failed)?;
            self.applied.fetch_add(1, Ordering::Relaxed);
        }
        if !missing.is_empty()
            && let Some(hook) = self.before_publish.lock().as_ref()
        {
            hook(replica)?;
        }
        replica.publish().map_err(failed)?;
        replica.set_last_manifest(head.version, &head.digest).map_err(failed)?;
        replica.report(ReplicaProgress { state: ReplicaState::Synchronized, ..progress });
        Ok(format!("at version {}", head.version))
    }
}

/// Brings one version over.
pub fn apply(incoming: &Incoming, source: &Path, version: Version) -> Result<(), Box<dyn std::error::Error>> {
    let files = version_files(source, version)?;
    for FileRef { name, .. } in files.added.iter().filter(|file| !incoming.is_staged(&file.name)) {
        let mut staged = incoming.stage(name)?;
        staged.write_all(&std::fs::read(source.join("data").join(name))?)?;
        staged.finish()?;
    }
    incoming.apply(&[IncomingVersion { version, entry: files.entry, files: files.added }])?;
    Ok(())
}

/// Makes a replica of `source` as an init from a backup does, up to `version`.
pub fn init(pond: &Path, source: &Path, version: Version) {
    let replica = Replica::init(pond, source.to_str().unwrap().as_bytes()).unwrap();
    let first = replica.position().map_or(0, |position| position.version.0 + 1);
    for number in first..=version.0 {
        apply(replica.incoming(), source, Version(number)).unwrap();
    }
    replica.finish_init().unwrap();
}

/// A source with a remote node, and a replica of its present version.
pub struct Pair {
    pub source: Arc<Steward>,
    pub replica: PathBuf,
    pub place: super::Place,
}

impl Pair {
    pub fn new() -> Self {
        let place = super::Place::with_pond();
        let source = super::open(&place.pond, super::by_hand());
        super::write(&source, "a", b"one").unwrap();
        source.commit_now().unwrap();
        let replica = place.dir.path().join("replica");
        init(&replica, &place.pond, source.position().version);
        Pair { source, replica, place }
    }

    pub fn commit(&self, name: &str, content: &[u8]) -> Version {
        super::write(&self.source, name, content).unwrap();
        self.source.commit_now().unwrap().version
    }
}

/// A door that a thread waits at.
#[derive(Default)]
pub struct Gate {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    /// Says that somebody has come, and waits for it to be opened.
    pub fn pass(&self) {
        let mut state = self.state.lock();
        state.0 = true;
        self.changed.notify_all();
        while !state.1 {
            self.changed.wait(&mut state);
        }
    }

    pub fn wait_for_somebody(&self) {
        let mut state = self.state.lock();
        while !state.0 {
            self.changed.wait(&mut state);
        }
    }

    pub fn open(&self) {
        self.state.lock().1 = true;
        self.changed.notify_all();
    }
}

/// Waits until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
