//! Making a pond, and telling what lies at a place.
//!
//! A pond is made in its own directory, which may be a mountpoint or in a directory that is not ours to write to, so
//! there is no renaming into place. Instead the first thing made is the file `init-unfinished` and the last thing
//! done is to remove it, both under the writer lock: while it is there, nobody has written to the pond, and `init`
//! may begin anew.

use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pond_oplog::{At, Forked, Layout, OpLog, Origin, durable, exclusive_names};
use pond_tinyfs::{Timestamp, root_row};

use crate::control::keys::ROLE_KEY;
use crate::control::table::Control;
use crate::factories::host_path::own_place;
use crate::host::lock::{LOCK_FILE, WriterLock};
use crate::paths::owner;
use crate::{Role, StewardError};

/// While this file is there, the pond is being made.
const UNFINISHED: &str = "init-unfinished";

/// While this file is there, the pond is being made from a backup. Unlike one that is being made empty, it is worth
/// keeping: init goes on where it stopped.
const REPLICA_UNFINISHED: &str = "init-from-backup-unfinished";

/// What lies at the place of a pond.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// Nothing or an empty directory: `init` makes a pond.
    Nothing,
    /// A pond whose `init` was cut off: `init` makes it anew.
    Unfinished,
    /// A pond.
    Pond,
    /// Something else.
    Other,
}

/// The file that says that a replica is not whole yet.
pub(crate) struct Marker {
    path: PathBuf,
}

impl Marker {
    pub(crate) fn of_replica(pond: &Path) -> Self {
        Marker { path: pond.join(REPLICA_UNFINISHED) }
    }

    pub(crate) fn exists(&self) -> Result<bool, StewardError> {
        self.path.try_exists().map_err(|error| StewardError::io("look at", &self.path, error))
    }

    pub(crate) fn make(&self) -> Result<(), StewardError> {
        make_file(&self.path)?;
        sync_directory(self.directory())
    }

    /// Also durably, since what it stands for is.
    pub(crate) fn remove(&self) -> Result<(), StewardError> {
        durable::remove(&self.path).map_err(|error| StewardError::io("remove", &self.path, error))?;
        sync_directory(self.directory())
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }
}

/// Whether the journal has segments: a clean end leaves none.
pub(crate) fn holds_segments(journal: &Path) -> Result<bool, StewardError> {
    let failed = |error| StewardError::io("list", journal, error);
    for entry in std::fs::read_dir(journal).map_err(failed)? {
        if Path::new(&entry.map_err(failed)?.file_name()).extension().is_some_and(|kind| kind == "segment") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What lies at `pond`.
pub(crate) fn probe(pond: &Path) -> Result<Found, StewardError> {
    let failed = |error| StewardError::io("look at", pond, error);
    let (mut empty, mut unfinished, mut replica) = (true, false, false);
    match fs::read_dir(pond) {
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(failed)?.file_name();
                unfinished |= name == UNFINISHED;
                replica |= name == REPLICA_UNFINISHED;
                // What a lock on a pond that was never made leaves behind.
                empty &= name == LOCK_FILE;
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) if error.kind() == ErrorKind::NotADirectory => return Ok(Found::Other),
        Err(error) => return Err(failed(error)),
    }
    if empty {
        return Ok(Found::Nothing);
    }
    if replica {
        return Ok(Found::Pond);
    }
    let log = Layout::new(pond).data().join("_delta_log");
    // Whatever the marker says: a pond that has been written to is never made anew.
    let written = ["00000000000000000001.json", "_last_checkpoint"].map(|name| log.join(name).try_exists());
    if unfinished && !written.into_iter().collect::<Result<Vec<_>, _>>().map_err(failed)?.contains(&true) {
        return Ok(Found::Unfinished);
    }
    Ok(if log.try_exists().map_err(failed)? { Found::Pond } else { Found::Other })
}

/// Makes an empty pond where there is nothing yet, or an empty directory.
pub(crate) fn init(pond: &Path) -> Result<(), StewardError> {
    let owner = owner();
    let origin = Origin::of("init");
    let root = root_row(Timestamp::now(), owner.uid, owner.gid);
    init_with(pond, || Ok(Some(OpLog::create(pond, root, &origin)?))).map(drop)
}

/// Makes a pond, there, that has what a version of another one has. No factory runs in it until somebody says so. `tell` is told of
/// bytes of data files as they are done, and ends it by saying false: `None`, and nothing is left of it.
pub(crate) fn fork(
    from: &Path,
    at: At,
    pond: &Path,
    origin: &Origin,
    tell: &dyn Fn(u64) -> bool,
) -> Result<Option<Forked>, StewardError> {
    refuse_unless_pond(from)?;
    match own_place(from, pond) {
        Ok(None) => {}
        Ok(Some(why)) => return Err(StewardError::OwnPlace { path: pond.to_owned(), why }),
        Err(error) => return Err(StewardError::io("look at", pond, error)),
    }
    let was_there = pond.exists();
    let made = init_with(pond, || Ok(OpLog::fork(from, at, pond, origin, tell)?));
    // In a directory that was there, an unfinished pond is left, which the next one takes away.
    if !matches!(made, Ok(Some(_))) && !was_there && probe(pond).is_ok_and(|found| found == Found::Unfinished)
    {
        durable::remove_tree(pond).map_err(|error| StewardError::io("remove", pond, error))?;
    }
    made
}

/// Makes a pond whose table `make` makes; where that makes none the pond stays unfinished.
fn init_with<T>(
    pond: &Path,
    make: impl FnOnce() -> Result<Option<T>, StewardError>,
) -> Result<Option<T>, StewardError> {
    refuse_unless_free(pond)?;
    refuse_unless_suitable(pond)?;
    let changed = make_pond_directory(pond)?;
    let _lock = WriterLock::acquire(pond, None)?;
    // Somebody else may have made it meanwhile. Only under the lock may what lies there be called unfinished.
    refuse_unless_free(pond)?;
    let marker = pond.join(UNFINISHED);
    make_file(&marker)?;
    sync_directory(pond)?;

    let layout = Layout::new(pond);
    for leftover in [layout.data(), layout.control(), layout.journal(), layout.mirror()] {
        match durable::remove_tree(&leftover) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(StewardError::io("remove", &leftover, error)),
        }
    }
    make_directory(&layout.mirror())?;
    Control::create(pond, Role::Source)?;
    let Some(made) = make()? else { return Ok(None) };
    if !layout
        .journal()
        .try_exists()
        .map_err(|error| StewardError::io("look at", &layout.journal(), error))?
    {
        make_directory(&layout.journal())?;
    }
    sync_directory(pond)?;

    durable::remove(&marker).map_err(|error| StewardError::io("remove", &marker, error))?;
    sync_directory(pond)?;
    changed.iter().try_for_each(|directory| sync_directory(directory))?;
    Ok(Some(made))
}

/// Fails on a filesystem on which no pond can be, before anything is made there.
pub(crate) fn refuse_unless_suitable(pond: &Path) -> Result<(), StewardError> {
    exclusive_names::probe(pond).map_err(|error| StewardError::io("make a pond in", pond, error))
}

/// Makes the directory of a pond, private, and those above it that are missing. Gives the directories that have a new
/// entry: once these are synced, the pond is found again.
pub(crate) fn make_pond_directory(pond: &Path) -> Result<Vec<PathBuf>, StewardError> {
    let failed = |action| move |error| StewardError::io(action, pond, error);
    let absolute = std::path::absolute(pond).map_err(failed("find the directory of"))?;
    let missing = |path: &&Path| !path.exists();
    // The directories that get a new entry, which must be durable for the pond to be found again.
    let changed = absolute.ancestors().take_while(missing).filter_map(Path::parent).map(Path::to_owned);
    let changed: Vec<PathBuf> = changed.collect();
    if let Some(parent) = changed.first() {
        fs::create_dir_all(parent).map_err(|error| StewardError::io("make the directory", parent, error))?;
    }
    match DirBuilder::new().mode(0o700).create(pond) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            fs::set_permissions(pond, Permissions::from_mode(0o700)).map_err(failed("set the mode of"))?;
        }
        Err(error) => return Err(failed("make the directory")(error)),
    }
    Ok(changed)
}

/// Gives a pond that lost its settings its role again.
pub(crate) fn restore_control(pond: &Path, role: Role) -> Result<(), StewardError> {
    refuse_unless_pond(pond)?;
    let _lock = WriterLock::acquire(pond, None)?;
    match Control::open(pond, false) {
        Err(StewardError::ControlMissing { .. }) => Control::create(pond, role),
        Err(error) => Err(error),
        Ok(_) => Err(StewardError::BadSetting {
            key: ROLE_KEY.to_owned(),
            value: role.setting().to_owned(),
            why: "the control table is there and has it already",
            advice: None,
        }),
    }
}

/// Fails where there is no pond that can be opened.
pub(crate) fn refuse_unless_pond(pond: &Path) -> Result<(), StewardError> {
    let not_a_pond = |why| Err(StewardError::NotAPond { path: pond.to_owned(), why });
    match probe(pond)? {
        Found::Pond if Marker::of_replica(pond).exists()? => {
            Err(StewardError::ReplicaUnfinished { path: pond.to_owned() })
        }
        Found::Pond => Ok(()),
        Found::Unfinished => Err(StewardError::InitUnfinished { path: pond.to_owned() }),
        Found::Nothing => Err(StewardError::NoPond(pond.to_owned())),
        Found::Other if pond.is_dir() => not_a_pond("it has no data/_delta_log"),
        Found::Other => not_a_pond("it is not a directory"),
    }
}

fn refuse_unless_free(pond: &Path) -> Result<(), StewardError> {
    match probe(pond)? {
        Found::Nothing | Found::Unfinished => Ok(()),
        Found::Pond if Marker::of_replica(pond).exists()? => {
            Err(StewardError::ReplicaUnfinished { path: pond.to_owned() })
        }
        Found::Pond => Err(StewardError::AlreadyAPond { path: pond.to_owned() }),
        Found::Other => refuse_other(pond),
    }
}

/// Says what else than a pond is there.
pub(crate) fn refuse_other(pond: &Path) -> Result<(), StewardError> {
    if probe(pond)? == Found::Unfinished {
        return Err(StewardError::InitUnfinished { path: pond.to_owned() });
    }
    let mut names = fs::read_dir(pond)
        .map_err(|error| StewardError::io("list", pond, error))?
        .filter_map(|entry| entry.ok().map(|entry| entry.file_name()))
        .filter(|name| name != LOCK_FILE);
    let found = names.next().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Err(StewardError::NotEmpty { path: pond.to_owned(), found })
}

fn make_file(path: &Path) -> Result<(), StewardError> {
    durable::make_empty_file(path).map(drop).map_err(|error| StewardError::io("make", path, error))
}

pub(crate) fn make_directory(path: &Path) -> Result<(), StewardError> {
    durable::create_directory(path).map_err(|error| StewardError::io("make the directory", path, error))
}

pub(crate) fn sync_directory(path: &Path) -> Result<(), StewardError> {
    durable::sync_directory(path).map_err(|error| StewardError::io("fsync the directory", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pond_is_made_only_where_nothing_is() {
        let dir = tempfile::tempdir().unwrap();
        let pond = dir.path().join("pond");
        assert_eq!(probe(&pond).unwrap(), Found::Nothing);
        init(&pond).unwrap();
        assert_eq!(probe(&pond).unwrap(), Found::Pond);
        assert_eq!(fs::metadata(&pond).unwrap().permissions().mode() & 0o7777, 0o700);
        assert!(matches!(init(&pond), Err(StewardError::AlreadyAPond { .. })));

        init(&dir.path().join("some/where/pond")).unwrap();

        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        init(&empty).unwrap();

        let full = dir.path().join("full");
        fs::create_dir(&full).unwrap();
        fs::write(full.join("letter"), "x").unwrap();
        let Err(StewardError::NotEmpty { found, .. }) = init(&full) else { panic!("made a pond") };
        assert_eq!(found, "letter");
        assert_eq!(fs::read_dir(&full).unwrap().count(), 1);
    }

    #[test]
    fn init_that_was_cut_off_is_told_apart_and_done_anew() {
        let dir = tempfile::tempdir().unwrap();
        let pond = dir.path().join("pond");
        init(&pond).unwrap();
        make_file(&pond.join(UNFINISHED)).unwrap();
        fs::remove_dir_all(pond.join("data/_delta_log")).unwrap();
        assert_eq!(probe(&pond).unwrap(), Found::Unfinished);
        assert!(matches!(refuse_unless_pond(&pond), Err(StewardError::InitUnfinished { .. })));
        init(&pond).unwrap();
        assert_eq!(probe(&pond).unwrap(), Found::Pond);
    }

    #[test]
    fn a_pond_that_was_written_to_is_never_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let pond = dir.path().join("pond");
        init(&pond).unwrap();
        fs::write(pond.join("data/_delta_log/00000000000000000001.json"), "{}").unwrap();
        make_file(&pond.join(UNFINISHED)).unwrap();
        assert_eq!(probe(&pond).unwrap(), Found::Pond);
        assert!(matches!(init(&pond), Err(StewardError::AlreadyAPond { .. })));
    }

    #[test]
    fn init_beside_another_leaves_no_mark_on_the_pond() {
        let dir = tempfile::tempdir().unwrap();
        let pond = dir.path().join("pond");
        fs::create_dir(&pond).unwrap();
        let lock = WriterLock::acquire(&pond, None).unwrap();
        assert!(matches!(init(&pond), Err(StewardError::LockHeld { .. })));
        drop(lock);
        assert_eq!(probe(&pond).unwrap(), Found::Nothing);
    }

    #[test]
    fn a_lost_control_table_is_restored_once_the_role_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let pond = dir.path().join("pond");
        init(&pond).unwrap();
        assert!(restore_control(&pond, Role::Replica).is_err());
        fs::remove_dir_all(pond.join("control")).unwrap();
        assert!(matches!(Control::open(&pond, true), Err(StewardError::ControlMissing { .. })));
        restore_control(&pond, Role::Replica).unwrap();
        assert_eq!(Control::open(&pond, true).unwrap().role(), Role::Replica);
    }
}
