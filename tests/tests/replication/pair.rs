//! A source and a replica that share a store.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pond_tests::tree::{self, Also};
use pond_tests::{TestPond, wait_until};

/// Where the remote's node is.
pub const NODE: &str = "/etc/system.d/10-remote";

/// How long a replica may take to get what its source has.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a replica has in common with its source. Inode numbers are its own: there they stand for one state of a file.
pub const SAME: Also = Also { mtime: true, ctime: true, inode: false };

/// A source and a replica of it, and the configuration that both use.
pub struct Pair {
    pub source: TestPond,
    pub replica: TestPond,
    yaml: PathBuf,
}

impl Pair {
    /// With a store in a directory, [`Pair::store`].
    pub fn local() -> Self {
        Self::in_directory_of(TestPond::new())
    }

    /// The same for a test that takes long.
    pub fn local_with_patience(patience: Duration) -> Self {
        Self::in_directory_of(TestPond::with_patience(patience))
    }

    /// With ponds and store in this directory, which may lie in memory: for many versions of which none is about the disk.
    pub fn in_directory(directory: &Path, patience: Duration) -> Self {
        let store = directory.join("store");
        fs::create_dir(&store).unwrap();
        let yaml = format!("storage_type: local\npath: {}\nsync_interval: 0.1\n", store.display());
        let mut pair = Self::of(TestPond::with_patience(patience), &yaml);
        pair.replica = TestPond::with_patience(patience);
        pair.source.put_in(directory.join("source"));
        pair.replica.put_in(directory.join("replica"));
        pair
    }

    fn in_directory_of(source: TestPond) -> Self {
        let store = source.host_directory("store");
        let yaml = format!("storage_type: local\npath: {}\nsync_interval: 0.1\n", store.display());
        Self::of(source, &yaml)
    }

    /// With this configuration.
    pub fn with(yaml: &str) -> Self {
        Self::of(TestPond::new(), yaml)
    }

    fn of(source: TestPond, text: &str) -> Self {
        let yaml = source.host("remote.yaml");
        fs::write(&yaml, text).unwrap();
        Pair { source, replica: TestPond::new(), yaml }
    }

    /// The store of [`Pair::local`].
    pub fn store(&self) -> PathBuf {
        self.source.host("store")
    }

    /// The configuration's file.
    pub fn yaml(&self) -> &str {
        self.yaml.to_str().unwrap()
    }

    /// Gives the source its remote.
    #[track_caller]
    pub fn add_remote(&self) {
        self.source.pond(["mknod", "remote", NODE, "--config-path", self.yaml()]);
    }

    /// Makes the source with its remote, mounts it, and commits only when told to.
    #[track_caller]
    pub fn begin(&self) {
        self.source.mount_with(&["-o", "commit=3600"]);
        self.add_remote();
        self.source.sync();
    }

    /// Makes the replica.
    #[track_caller]
    pub fn restore(&self) {
        self.replica.pond(["init", "--from-backup", self.yaml()]);
    }

    /// Another replica.
    #[track_caller]
    pub fn another(&self, arguments: &[&str]) -> TestPond {
        let another = TestPond::new();
        another.pond([&["init", "--from-backup", self.yaml()], arguments].concat());
        another
    }

    /// One version more of the source, with a file that says so; the version.
    #[track_caller]
    pub fn commit(&self, name: &str) -> u64 {
        fs::write(self.source.path(name), name).unwrap();
        self.source.sync();
        self.source.version()
    }

    /// Waits until the mounted replica shows what the source has committed.
    #[track_caller]
    pub fn wait(&self) {
        let wanted = self.source.position().expect("the source is mounted");
        wait_until("the replica shows the source's version", PATIENCE, || {
            // The source may go on by itself: keeping the table small makes versions, too.
            self.replica.position().is_some_and(|shown| shown == wanted || shown.0 > wanted.0).then_some(())
        });
    }

    /// Asserts that both mounts show the same.
    #[track_caller]
    pub fn assert_same_trees(&self) {
        let (source, replica) = (self.source.mountpoint(), self.replica.mountpoint());
        tree::assert_same("source and replica", &tree::look_at(source), &tree::look_at(replica), SAME);
    }

    /// Unmounts the source, after which it makes no more versions, and asserts that the replica gets all that there are.
    #[track_caller]
    pub fn finish(&self) {
        self.source.umount();
        self.replica.sync();
        self.assert_identical();
    }

    /// Asserts that both hold the same log entries and data files. A mounted source may make a version at any time, to keep the
    /// table small.
    #[track_caller]
    pub fn assert_identical(&self) {
        assert_identical(&self.source, &self.replica);
    }
}

/// Name and digest of each log entry and data file. Checkpoints are derived from them.
pub fn table(pond: &Path) -> BTreeMap<String, String> {
    let data = pond.join("data");
    let mut files = BTreeMap::new();
    for directory in [data.clone(), data.join("_delta_log")] {
        for entry in
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let counts = match directory == data {
                true => name.ends_with(".parquet"),
                false => name.strip_suffix(".json").is_some_and(|number| number.parse::<u64>().is_ok()),
            };
            if counts {
                files.insert(name, tree::digest(&path).unwrap());
            }
        }
    }
    files
}

/// Asserts that two ponds hold the same log entries and data files, byte for byte.
#[track_caller]
pub fn assert_identical(source: &TestPond, replica: &TestPond) {
    let (source, replica) = (table(source.directory()), table(replica.directory()));
    assert!(!source.is_empty());
    let differ: Vec<_> =
        source.keys().chain(replica.keys()).filter(|name| source.get(*name) != replica.get(*name)).collect();
    assert!(
        differ.is_empty(),
        "{} of {} files of source and {} of replica differ or are missing: {:?}",
        differ.len(),
        source.len(),
        replica.len(),
        &differ[..differ.len().min(10)]
    );
}

/// Commits over a mounted pond's control socket, which costs no process.
pub struct Commits {
    requests: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Commits {
    /// To the daemon of this pond.
    pub fn of(pond: &TestPond) -> Self {
        let requests = UnixStream::connect(pond.directory().join("socket")).expect("the daemon listens");
        let answers = BufReader::new(requests.try_clone().expect("a second descriptor"));
        Commits { requests, answers }
    }

    /// One version, pushed some time later.
    pub fn commit(&mut self) {
        self.requests.write_all(b"{\"request\":\"commit\"}\n").expect("ask");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("answer");
        assert!(answer.starts_with("{\"ok\""), "the daemon answered {answer}");
    }
}

/// Every object of a store in a directory.
pub fn objects(store: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut queue = vec![store.to_owned()];
    while let Some(directory) = queue.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { queue.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}
