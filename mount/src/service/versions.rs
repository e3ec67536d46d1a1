//! `.pond/versions`: every version that is kept as a tree, by its number, a time or its tag.
//!
//! A version is opened when it is looked up, and held for as long as the kernel knows anything of it. The kernel does not let go by
//! itself of what nobody uses: once nobody has asked for a version for a while, it is told to.
//!
//! A time or a tag means one version to each process for as long as that goes on asking, reckoned from when it first did: what copies
//! a tree path by path would else get several versions mixed.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Once, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use pond_oplog::{At, Version};
use pond_tinyfs::{Errno, Error, NodeId};

use crate::coherence::Coherence;
use crate::inodes::old::{OldKey, OldNode, OldVersion};
use crate::inodes::table::Inodes;
use crate::service::answer::Outcome;
use crate::service::backing::Backing;
use crate::service::processes;

/// So many of the newest versions are listed.
pub(crate) const LISTED: usize = 1000;

/// What a name meant to a process is kept for so long after it asked last.
const MEANT: Duration = Duration::from_secs(600);

/// A name in `.pond/versions`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Named {
    /// `42`
    Number(u64),
    /// `@2026-11-20T18:00`, `@-10m`, `@start`, of which this is what follows the `@`; `tag:NAME`.
    Other(String),
}

impl Named {
    /// Reads a name; a version has one number, and no other leads to it.
    pub(crate) fn read(name: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(name).ok()?;
        match text.strip_prefix('@') {
            Some(time) => match At::parse(time) {
                Ok(At::Timestamp(_) | At::Start) => Some(Named::Other(time.to_owned())),
                Ok(At::Version(_) | At::Tip | At::Tag(_)) | Err(_) => None,
            },
            None => match At::parse(text) {
                Ok(At::Version(version)) if version.to_string() == text => Some(Named::Number(version.0)),
                Ok(At::Tag(_)) => Some(Named::Other(text.to_owned())),
                _ => None,
            },
        }
    }
}

/// The versions of a pond that a mount shows beside its own.
pub(crate) struct Versions<B> {
    backing: Arc<B>,
    inodes: Arc<Inodes>,
    coherence: Arc<Coherence>,
    /// Once nobody has asked for a version for so long, the kernel lets go of it.
    idle: Duration,
    open: Mutex<HashMap<u64, Weak<OldVersion>>>,
    /// What names other than numbers meant to processes, and when they asked last.
    meant: Mutex<HashMap<(u32, String), (u64, Instant)>>,
    letting_go: Once,
}

impl<B: Backing> Versions<B> {
    pub(crate) fn new(
        backing: Arc<B>,
        inodes: Arc<Inodes>,
        coherence: Arc<Coherence>,
        idle: Duration,
    ) -> Arc<Self> {
        Arc::new(Versions {
            backing,
            inodes,
            coherence,
            idle,
            open: Mutex::default(),
            meant: Mutex::default(),
            letting_go: Once::new(),
        })
    }

    /// The root of the version that a thread means by a name. May block.
    pub(crate) fn find(self: &Arc<Self>, thread: u32, named: &Named) -> Outcome<OldNode> {
        let version = match named {
            Named::Number(number) => self.open(At::Version(Version(*number)))?,
            Named::Other(name) => self.find_meant(thread, name)?,
        };
        Ok(OldNode { version, id: NodeId::ROOT })
    }

    fn find_meant(self: &Arc<Self>, thread: u32, name: &str) -> Outcome<Arc<OldVersion>> {
        let key = (processes::process_of(thread), name.to_owned());
        let meant = self.meant.lock().get(&key).map(|(number, _)| *number);
        let version = match meant {
            Some(number) => self.open(At::Version(Version(number)))?,
            None => {
                let at = At::parse(name).map_err(|_| Errno::NOENT)?;
                if is_to_come(at) {
                    return Err(Errno::NOENT.into());
                }
                self.open(at)?
            }
        };
        let mut all = self.meant.lock();
        all.retain(|_, (_, asked)| asked.elapsed() < MEANT);
        all.insert(key, (version.number, Instant::now()));
        Ok(version)
    }

    fn open(self: &Arc<Self>, at: At) -> Outcome<Arc<OldVersion>> {
        if let At::Version(version) = at
            && let Some(open) = self.open.lock().get(&version.0).and_then(Weak::upgrade)
        {
            return Ok(open);
        }
        let (number, fs) = self.backing.version(at)?;
        self.let_go_of_what_is_idle()?;
        let mut open = self.open.lock();
        if let Some(known) = open.get(&number).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let version = Arc::new(OldVersion::new(number, fs));
        open.insert(number, Arc::downgrade(&version));
        Ok(version)
    }

    /// The versions to list, oldest first: the newest, and those that are open. May block.
    pub(crate) fn list(&self) -> Outcome<Vec<u64>> {
        let mut versions = self.backing.versions(LISTED)?;
        versions.extend(self.open.lock().iter().filter(|(_, open)| open.strong_count() > 0).map(|(n, _)| n));
        versions.sort_unstable();
        versions.dedup();
        Ok(versions)
    }

    /// Has a thread see to it that versions are let go of, from the first one on.
    fn let_go_of_what_is_idle(self: &Arc<Self>) -> Result<(), Error> {
        let mut started = Ok(());
        self.letting_go.call_once(|| {
            let (pause, versions) = ((self.idle / 4).min(Duration::from_secs(5)), Arc::downgrade(self));
            let thread = thread::Builder::new().name("pond-versions".into()).spawn(move || {
                loop {
                    thread::sleep(pause);
                    match versions.upgrade() {
                        Some(versions) => versions.let_go(),
                        None => return,
                    }
                }
            });
            started = thread.map(drop);
        });
        started.map_err(|error| {
            tracing::error!(%error, "cannot start the thread that lets go of old versions");
            Errno::NOMEM.into()
        })
    }

    fn let_go(&self) {
        let open: Vec<Arc<OldVersion>> = self.open.lock().values().filter_map(Weak::upgrade).collect();
        for version in open {
            if u128::from(version.idle()) < self.idle.as_millis() {
                continue;
            }
            let names = version.names();
            // It would be held all the same, and whoever works there could not be told where that is any more.
            if processes::is_anybody_in(&names) {
                continue;
            }
            let told = match version.is_told_again() {
                false => {
                    names.iter().try_for_each(|name| self.coherence.drop_name(self.inodes.versions(), name))
                }
                true => self.drop_what_is_left(&version),
            };
            if let Err(error) = told {
                tracing::debug!(%error, version = version.number, "the kernel was not told to let go of a version");
            }
        }
        self.open.lock().retain(|_, open| open.strong_count() > 0);
        self.inodes.retain_old(|number| self.open.lock().contains_key(&number));
        self.backing.let_go_of_versions();
    }

    /// Has the kernel drop each name in a version by itself. What was open when it dropped the version as a whole has stayed since, as
    /// no name leads there any more by which to find it.
    fn drop_what_is_left(&self, version: &OldVersion) -> io::Result<()> {
        let held = self.inodes.held_of(version.number);
        let number = |id| self.inodes.old_number(OldKey { version: version.number, id });
        let mut names = Vec::new();
        for directory in &held {
            // What is no directory has no names in it.
            let _ = version.fs.readdir(*directory, 0, &mut |entry| {
                if held.contains(&entry.id) && entry.name != b"." && entry.name != b".." {
                    names.push((*directory, Box::<[u8]>::from(entry.name)));
                }
                true
            });
        }
        let told =
            names.iter().try_for_each(|(parent, name)| self.coherence.drop_name(number(*parent), name));
        // What is still open is looked at after a while again.
        version.touch();
        told
    }
}

/// Whether a time has not come yet.
fn is_to_come(at: At) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| i64::try_from(now.as_micros()).unwrap_or(i64::MAX));
    matches!(at, At::Timestamp(time) if time > now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_one_number_and_any_time_and_tag() {
        assert_eq!(Named::read(b"42"), Some(Named::Number(42)));
        assert_eq!(Named::read(b"0"), Some(Named::Number(0)));
        for time in ["-10m", "2026-11-20T18:00", "2026-11-20T18:00Z", "2026-11-20", "start"] {
            assert_eq!(Named::read(format!("@{time}").as_bytes()), Some(Named::Other(time.into())));
        }
        assert_eq!(Named::read(b"tag:v1"), Some(Named::Other("tag:v1".into())));
        for other in [
            "",
            "042",
            "00",
            "+1",
            "@",
            "@5",
            "@tip",
            "tip",
            "start",
            "-10m",
            "2026-11-20",
            "@yesterday",
            ".git",
        ] {
            assert_eq!(Named::read(other.as_bytes()), None, "{other}");
        }
        assert_eq!(Named::read(b"\xff"), None);
    }
}
