//! What reaches the disk through `durable.rs`, for those who want to know: tests that lose the power or the process
//! between any two steps.
//!
//! A [`Recording`] keeps every step below one directory in the order in which the steps took effect. Steps
//! below it are taken one at a time while it runs, so that the order is certain.
//!
//! The environment variable `POND_FAILPOINT=N` makes a process kill itself (SIGKILL) instead of taking its N-th step,
//! counted over all ponds. It says on standard error which step that was.
//!
//! Both exist only where debug assertions are on (`CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true` for a fast build that
//! has them). Without, [`step`] is the step itself.

use std::io;
use std::path::{Path, PathBuf};

/// One step on its way to the disk. Paths are as the program named them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new, empty file; one that was there was made empty.
    Create {
        /// The file.
        path: PathBuf,
    },
    /// Bytes written.
    Write {
        /// The file, by the name under which it was created.
        path: PathBuf,
        /// Where they begin.
        offset: u64,
        /// They.
        bytes: Vec<u8>,
    },
    /// A new size; what lies beyond it is gone.
    Truncate {
        /// The file.
        path: PathBuf,
        /// Its size.
        length: u64,
    },
    /// Bytes and size of a file are durable.
    SyncFile {
        /// The file.
        path: PathBuf,
    },
    /// The names in a directory are durable.
    SyncDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Another name in place of the old one, and of what had that name.
    Rename {
        /// The old name.
        from: PathBuf,
        /// The new name.
        to: PathBuf,
    },
    /// A second name for a file.
    Link {
        /// The file.
        from: PathBuf,
        /// Its second name.
        to: PathBuf,
    },
    /// A name is gone.
    Remove {
        /// The name.
        path: PathBuf,
    },
    /// A new directory.
    MakeDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// A directory and everything in it is gone.
    RemoveTree {
        /// The directory.
        path: PathBuf,
    },
    /// Something that whoever records wants to find again.
    Mark {
        /// What it stands for is theirs to know.
        number: u64,
    },
}

/// Takes a step on a path. `told` gives an account of it, and is asked for one only after the step succeeded and only
/// where somebody records.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn step<T>(
    _path: &Path,
    take: impl FnOnce() -> io::Result<T>,
    _told: impl FnOnce(&T) -> Step,
) -> io::Result<T> {
    take()
}

#[cfg(debug_assertions)]
pub(crate) use watched::step;
#[cfg(debug_assertions)]
pub use watched::{FAILPOINT, Recording};

#[cfg(debug_assertions)]
mod watched {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use parking_lot::Mutex;

    use super::*;

    /// Variable that names the step which a process does not survive.
    pub const FAILPOINT: &str = "POND_FAILPOINT";

    /// Whether there is a recording: asked at each step, without a lock.
    static RECORDS: AtomicBool = AtomicBool::new(false);
    static STEPS: Mutex<Option<Steps>> = Mutex::new(None);

    struct Steps {
        root: PathBuf,
        steps: Vec<Step>,
    }

    /// The steps below a directory from [`Recording::start`] to [`Recording::finish`]; one at a time in a process.
    pub struct Recording(());

    impl Recording {
        /// Begins to record what happens below `root`, an absolute path. Nothing, if there is a recording already.
        pub fn start(root: &Path) -> Option<Self> {
            let mut steps = STEPS.lock();
            if steps.is_some() {
                return None;
            }
            *steps = Some(Steps { root: root.to_path_buf(), steps: Vec::new() });
            RECORDS.store(true, Ordering::SeqCst);
            Some(Recording(()))
        }

        /// Adds a mark after the steps so far; gives its place.
        pub fn mark(&self, number: u64) -> usize {
            let mut steps = STEPS.lock();
            steps.as_mut().map_or(0, |steps| {
                steps.steps.push(Step::Mark { number });
                steps.steps.len() - 1
            })
        }

        /// Ends it and gives the steps, in the order in which they took effect.
        pub fn finish(self) -> Vec<Step> {
            RECORDS.store(false, Ordering::SeqCst);
            STEPS.lock().take().map(|steps| steps.steps).unwrap_or_default()
        }
    }

    impl Drop for Recording {
        fn drop(&mut self) {
            RECORDS.store(false, Ordering::SeqCst);
            *STEPS.lock() = None;
        }
    }

    /// See above.
    pub(crate) fn step<T>(
        path: &Path,
        take: impl FnOnce() -> io::Result<T>,
        told: impl FnOnce(&T) -> Step,
    ) -> io::Result<T> {
        die_at_failpoint(path);
        if !RECORDS.load(Ordering::Relaxed) {
            return take();
        }
        let mut recorded = STEPS.lock();
        match recorded.as_mut().filter(|steps| path.starts_with(&steps.root)) {
            // Under the lock, so that the order of the account is that of the steps.
            Some(steps) => {
                let taken = take()?;
                steps.steps.push(told(&taken));
                Ok(taken)
            }
            None => {
                drop(recorded);
                take()
            }
        }
    }

    fn die_at_failpoint(path: &Path) {
        static FATAL: OnceLock<Option<u64>> = OnceLock::new();
        static TAKEN: AtomicU64 = AtomicU64::new(0);
        let fatal =
            FATAL.get_or_init(|| std::env::var(FAILPOINT).ok().and_then(|number| number.parse().ok()));
        let Some(fatal) = fatal else { return };
        if TAKEN.fetch_add(1, Ordering::SeqCst) + 1 == *fatal {
            eprintln!("{FAILPOINT}: killed before step {fatal}, on {}", path.display());
            // SAFETY: a signal to ourselves; the process ends here.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            // The signal may reach another thread first; this one must not take the step.
            loop {
                std::thread::park();
            }
        }
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::durable::{self, Existing};

    /// Steps as words, with the names of the files that they are on.
    fn told(steps: &[Step]) -> Vec<String> {
        let name = |path: &Path| match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if durable::is_temporary(name) => "temporary".to_owned(),
            name => name.unwrap_or_default().to_owned(),
        };
        let told = steps.iter().map(|step| match step {
            Step::Create { path } => format!("create {}", name(path)),
            Step::Write { path, offset, bytes } => {
                format!("write {} at {offset} of {}", bytes.len(), name(path))
            }
            Step::Truncate { path, length } => format!("truncate {} to {length}", name(path)),
            Step::SyncFile { path } => format!("sync {}", name(path)),
            Step::SyncDirectory { path } => format!("sync directory {}", name(path)),
            Step::Rename { from, to } => format!("rename {} to {}", name(from), name(to)),
            Step::Link { from, to } => format!("link {} to {}", name(from), name(to)),
            Step::Remove { path } => format!("remove {}", name(path)),
            Step::MakeDirectory { path } => format!("make directory {}", name(path)),
            Step::RemoveTree { path } => format!("remove tree {}", name(path)),
            Step::Mark { number } => format!("mark {number}"),
        });
        told.collect()
    }

    #[test]
    fn bytes_are_synced_before_they_have_a_name_and_the_name_before_anybody_hears_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let watched = dir.path().join("watched");
        fs::create_dir(&watched).unwrap();
        let recording = Recording::start(&watched).unwrap();
        assert!(Recording::start(dir.path()).is_none(), "one at a time");
        durable::write_durably(&dir.path().join("elsewhere"), b"x", Existing::Refuse).unwrap();
        durable::write_durably(&watched.join("new"), b"abc", Existing::Refuse).unwrap();
        assert_eq!(recording.mark(7), 6);
        durable::write_durably(&watched.join("new"), b"abcd", Existing::Replace).unwrap();
        durable::write_durably(&watched.join("new"), b"refused", Existing::Refuse).unwrap_err();
        durable::truncate_durably(&watched.join("new"), 1).unwrap();
        let expected = [
            "create temporary",
            "write 3 at 0 of temporary",
            "sync temporary",
            "link temporary to new",
            "remove temporary",
            "sync directory watched",
            "mark 7",
            "create temporary",
            "write 4 at 0 of temporary",
            "sync temporary",
            "rename temporary to new",
            "sync directory watched",
            "create temporary",
            "write 7 at 0 of temporary",
            "sync temporary",
            "remove temporary",
            "truncate new to 1",
            "sync new",
        ];
        assert_eq!(told(&recording.finish()), expected);
        assert_eq!(fs::read(watched.join("new")).unwrap(), b"a");
    }
}
