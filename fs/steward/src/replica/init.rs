//! Making a replica: the empty pond into which an init from a backup brings versions, and taking up one that was cut
//! off.

use std::path::Path;

use pond_oplog::{Incoming, Layout};

use crate::control::keys::REMOTE_CONFIG_KEY;
use crate::control::table::Control;
use crate::host::lock::WriterLock;
use crate::init::{self, Found, Marker};
use crate::{Replica, Role, StewardError};

impl Replica {
    /// For `pond init --from-backup`: makes `pond` (mode 0700) with lock, control table in mode `pull` and the remote's
    /// configuration as setting `remote_config`, or takes up one whose init was cut off. Holds the writer lock until
    /// it is dropped. Until [`finish_init`](Replica::finish_init) nothing else opens the pond.
    ///
    /// # Errors
    ///
    /// [`StewardError::AlreadyAPond`] for a source, [`StewardError::AlreadyAReplica`] for a replica that is whole,
    /// [`StewardError::LockHeld`] while another init runs. Whether what is there belongs to the same pond as the
    /// backup is for the caller to check, by [`Incoming::apply`], which refuses versions of another.
    pub fn init(pond: &Path, remote_config: &[u8]) -> Result<Replica, StewardError> {
        let configuration = std::str::from_utf8(remote_config).map_err(|_| StewardError::BadSetting {
            key: REMOTE_CONFIG_KEY.to_owned(),
            value: String::from_utf8_lossy(remote_config).into_owned(),
            why: "a configuration is UTF-8 text",
            advice: None,
        })?;
        refuse_unless_free(pond)?;
        init::refuse_unless_suitable(pond)?;
        let changed = init::make_pond_directory(pond)?;
        let lock = WriterLock::acquire(pond, None)?;
        // Somebody else may have made it meanwhile.
        refuse_unless_free(pond)?;
        let marker = Marker::of_replica(pond);
        if !marker.exists()? {
            marker.make()?;
        }
        changed.iter().try_for_each(|directory| init::sync_directory(directory))?;

        let mirror = Layout::new(pond).mirror();
        if !mirror.try_exists().map_err(|error| StewardError::io("look at", &mirror, error))? {
            init::make_directory(&mirror)?;
        }
        match Control::open(pond, true) {
            Err(StewardError::ControlMissing { .. }) => Control::create(pond, Role::Replica)?,
            Err(error) => return Err(error),
            Ok(control) if control.role() == Role::Source => {
                return Err(StewardError::AlreadyAPond { path: pond.to_owned() });
            }
            Ok(_) => {}
        }
        let control = Control::open(pond, true)?;
        // It may have been mended since init was cut off.
        if control.get(REMOTE_CONFIG_KEY).as_deref() != Some(configuration) {
            control.set(REMOTE_CONFIG_KEY, configuration)?;
        }
        control.close()?;
        let (incoming, _) = Incoming::open(pond)?;
        init::sync_directory(pond)?;
        Replica::new(pond, incoming, None, Some((marker, lock)))
    }

    /// For giving a replica that is whole what is missing before its oldest version. Holds the writer lock until it is
    /// dropped; nothing is shown, and the pond may be opened again whatever comes of it.
    ///
    /// # Errors
    ///
    /// [`StewardError::AlreadyAPond`] for a source, [`StewardError::LockHeld`] while the replica is mounted.
    pub fn take_up(pond: &Path) -> Result<Replica, StewardError> {
        let lock = WriterLock::acquire(pond, None)?;
        if Control::open(pond, false)?.role() == Role::Source {
            return Err(StewardError::AlreadyAPond { path: pond.to_owned() });
        }
        let (incoming, _) = Incoming::open(pond)?;
        Replica::new(pond, incoming, None, None).map(|replica| replica.holding(lock))
    }
}

/// Fails where there is anything but nothing or a replica whose init was cut off.
fn refuse_unless_free(pond: &Path) -> Result<(), StewardError> {
    match init::probe(pond)? {
        Found::Nothing => Ok(()),
        Found::Pond if Marker::of_replica(pond).exists()? => Ok(()),
        Found::Pond => match Control::open(pond, false)?.role() {
            Role::Source => Err(StewardError::AlreadyAPond { path: pond.to_owned() }),
            Role::Replica => Err(StewardError::AlreadyAReplica { path: pond.to_owned() }),
        },
        Found::Unfinished | Found::Other => init::refuse_other(pond),
    }
}

#[cfg(test)]
mod tests {
    use pond_tinyfs::Advise;

    use super::*;
    use crate::Steward;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_replica_is_made_only_where_nothing_is_and_is_taken_up_where_it_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let pond = dir.path().join("some/pond");
        let replica = Replica::init(&pond, b"path: /a\n").unwrap();
        assert_eq!(std::fs::metadata(&pond).unwrap().permissions().mode() & 0o7777, 0o700);
        assert!(replica.position().is_none());
        assert!(matches!(Replica::init(&pond, b""), Err(StewardError::LockHeld { .. })));
        // Without a version it is not whole, and cannot be declared so.
        assert!(matches!(replica.finish_init(), Err(StewardError::NotAPond { .. })));
        drop(replica);

        let refused = Steward::open(&pond, Default::default()).map(drop).unwrap_err();
        assert!(matches!(refused, StewardError::ReplicaUnfinished { .. }));
        assert!(refused.in_full().contains("pond init --from-backup"));
        assert!(matches!(Steward::init(&pond), Err(StewardError::ReplicaUnfinished { .. })));

        drop(Replica::init(&pond, b"path: /b\n").unwrap());
        let control = Control::open(&pond, false).unwrap();
        assert_eq!(control.get(REMOTE_CONFIG_KEY).as_deref(), Some("path: /b\n"));
        assert_eq!(control.role(), Role::Replica);

        let source = dir.path().join("source");
        Steward::init(&source).unwrap();
        assert!(matches!(Replica::init(&source, b""), Err(StewardError::AlreadyAPond { .. })));
        let full = dir.path().join("full");
        std::fs::create_dir(&full).unwrap();
        std::fs::write(full.join("letter"), "x").unwrap();
        assert!(matches!(Replica::init(&full, b""), Err(StewardError::NotEmpty { .. })));
        assert!(matches!(
            Replica::init(&dir.path().join("x"), b"\xff"),
            Err(StewardError::BadSetting { .. })
        ));
    }

    #[test]
    fn init_that_was_cut_off_at_any_step_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let pond = dir.path().join("pond");
        drop(Replica::init(&pond, b"path: /a\n").unwrap());
        for missing in ["control", "mirror", "data", "journal"] {
            std::fs::remove_dir_all(pond.join(missing)).unwrap();
            drop(Replica::init(&pond, b"path: /a\n").unwrap());
            assert!(pond.join(missing).is_dir());
        }
    }
}
