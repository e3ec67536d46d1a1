//! A tree in memory under a real kernel, for system calls to be made on it.
//!
//! Needs root and `/dev/fuse`.

use std::cell::Cell;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use pond_tinyfs::{MemoryPersistence, TinyFs};

use crate::adapter::session::{self, Session};
use crate::coherence::Coherence;
use crate::mounting::mount_point;
use crate::mounting::options::MountOptions;
use crate::service::guard::ShownTo;
use crate::service::memory::{self, Memory};
use crate::service::{Service, Settings};

thread_local! {
    /// Whether mounts that this thread makes have inode numbers of 32 bits.
    static INODE32: Cell<bool> = const { Cell::new(false) };
}

/// Does this where all mounts have inode numbers of 32 bits.
pub(crate) fn with_inode32<T>(work: impl FnOnce() -> T) -> T {
    INODE32.set(true);
    let done = work();
    INODE32.set(false);
    done
}

/// A mount that goes away with this value, also when a test fails.
pub(crate) struct TestMount {
    pub(crate) root: PathBuf,
    pub(crate) backing: Arc<Memory>,
    pub(crate) coherence: Arc<Coherence>,
    session: Option<thread::JoinHandle<io::Result<()>>>,
    _runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

impl TestMount {
    pub(crate) fn new() -> TestMount {
        Self::over(memory::tree(Arc::new(MemoryPersistence::default())), false)
    }

    pub(crate) fn over(fs: TinyFs, follows: bool) -> TestMount {
        assert!(mount_point::is_root(), "mounting is tested as root");
        mount_point::open_fuse().unwrap();
        let directory = tempfile::Builder::new().prefix("pond-mount-test-").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = mount_point::absolute(&directory.path().join("mnt")).unwrap();
        mount_point::make(&root).unwrap();
        let backing = Memory::over(fs, follows);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let options = MountOptions { inode32: INODE32.get(), ..MountOptions::default() };
        let descriptor = mount_point::mount(directory.path(), &root, follows, &options).unwrap();
        let settings = Settings {
            owner: (0, 0),
            inode32: options.inode32,
            askers: session::threads(),
            versions: Some(ShownTo::default()),
            idle: Duration::from_millis(400),
        };
        let service = Service::new(backing.clone(), runtime.handle().clone(), settings).unwrap();
        let coherence = service.coherence().clone();
        let mut mount =
            TestMount { root, backing, coherence, session: None, _runtime: runtime, _directory: directory };
        mount.session = Some(Session::start(Arc::new(service), descriptor, &mount.root).unwrap().thread);
        mount
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for TestMount {
    fn drop(&mut self) {
        self.backing.room.store(true, Ordering::SeqCst);
        mount_point::unmount(&self.root, true).unwrap();
        if let Some(session) = self.session.take().filter(|_| !thread::panicking()) {
            session.join().unwrap().unwrap();
        }
    }
}

pub(crate) fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

pub(crate) fn ok(result: i32) {
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

pub(crate) fn errno(result: i32) -> i32 {
    assert_eq!(result, -1);
    io::Error::last_os_error().raw_os_error().unwrap()
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// As nobody, in a shell.
pub(crate) fn as_nobody(script: &str) -> std::process::Output {
    Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script])
        .output()
        .unwrap()
}
