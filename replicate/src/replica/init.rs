//! Making a replica from a backup.

use std::path::Path;

use pond_oplog::{At, Position, Version};
use pond_steward::{Replica, ReplicaProgress, ReplicaState};

use crate::config::RemoteConfig;
use crate::fetch::meter::until;
use crate::history::tip::{self, Shortfall};
use crate::replica::pull::{Pull, Reached};
use crate::store::Store;
use crate::{Progress, ReplicateError};

/// How far, and from where on.
#[derive(Clone, Debug, Default)]
pub struct InitOptions {
    /// The version to stop at; the newest if none is given.
    pub at: Option<At>,
    /// Begin with the newest base that is not above the version to stop at: older history is left out.
    pub tip: bool,
}

/// A replica that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The version that it is at.
    pub position: Position,
    /// What was asked for and is not in the store.
    pub shortfall: Option<Shortfall>,
}

/// Makes the pond at `pond` a replica of what the store of `config` (YAML) holds, or goes on where an earlier call was cut
/// off. While the source goes on, so does this. HEAD is taken for a hint: it may be missing, or name too much or too little. Where
/// the store lacks its newest versions the replica ends before them, and the result says so. Blocks; not to be called from a thread that runs async tasks.
///
/// # Errors
///
/// Each says what failed and on what; nothing is half-applied then. [`ReplicateError::Stopped`] if `progress` was
/// cancelled. Calling it again goes on, without fetching again what was verified.
pub fn init_from_backup(
    pond: &Path,
    config: &[u8],
    options: &InitOptions,
    progress: &dyn Progress,
) -> Result<Restored, ReplicateError> {
    let store = Store::open(&RemoteConfig::parse(config)?)?;
    init_from_store(pond, config, &store, options, progress)
}

/// [`init_from_backup`] with a store that is open already.
///
/// # Errors
///
/// As there.
pub fn init_from_store(
    pond: &Path,
    config: &[u8],
    store: &Store,
    options: &InitOptions,
    progress: &dyn Progress,
) -> Result<Restored, ReplicateError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ReplicateError::io("start a runtime"))?;
    // Before anything is made: a wrong bucket leaves no half-made pond behind.
    runtime.block_on(async {
        tokio::select! {
            head = tip::head(store) => head.map(drop),
            () = until(|| progress.cancelled()) => Err(ReplicateError::Stopped { at: "none yet".into() }),
        }
    })?;
    let replica = Replica::init(pond, config)?;
    let at = options.at.unwrap_or(At::Tip);
    let pull = |newest_base| Pull::new(&runtime, store, &replica, progress).restoring().to(at, newest_base);
    // One that was cut off after it began anew goes on from there.
    let Reached { position, shortfall } = match pull(options.tip || replica.status().note.is_some()) {
        Err(error @ ReplicateError::OnlyFromBase { base, .. }) if is_reached_from(at, base) => {
            begin_at(&replica, base, &error)?;
            pull(true)
        }
        result => result,
    }?;
    replica.finish_init()?;
    Ok(Restored { position, shortfall })
}

/// Whether a history that begins with this base has what is wanted. Of a time that is not known.
fn is_reached_from(at: At, base: Version) -> bool {
    match at {
        At::Tip | At::Start => true,
        At::Version(version) => version >= base,
        At::Tag(_) | At::Timestamp(_) => false,
    }
}

/// Gives up what was applied below a version that is missing in the store. Nobody has seen it: the replica is not whole yet,
/// and a replica that was is never given up.
fn begin_at(replica: &Replica, base: Version, why: &ReplicateError) -> Result<(), ReplicateError> {
    let note = match why {
        ReplicateError::OnlyFromBase { version, place, .. } => format!(
            "its history begins at the base of version {base}: version {version} is missing from {place}, and with it \
             what connects the versions before"
        ),
        other => other.to_string(),
    };
    tracing::warn!(
        event = "replica_reinitializing",
        base = base.0,
        note,
        "the replica begins anew from a base"
    );
    replica.report(ReplicaProgress {
        state: ReplicaState::Reinitializing,
        error: Some(note.clone()),
        ..ReplicaProgress::default()
    });
    replica.set_note(&note)?;
    Ok(replica.incoming().begin_anew()?)
}
