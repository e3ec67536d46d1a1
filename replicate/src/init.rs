//! Making a replica from a backup.

use std::path::Path;

use pond_oplog::{At, Position};
use pond_steward::Replica;

use crate::config::RemoteConfig;
use crate::find;
use crate::meter::until;
use crate::pull::Pull;
use crate::store::Store;
use crate::{Progress, ReplicateError};

/// How far, and from where on.
#[derive(Clone, Debug, Default)]
pub struct InitOptions {
    /// The version to stop at; the newest if none is given.
    pub at: Option<At>,
    /// Begin with the newest base: older history is left out.
    pub tip: bool,
}

/// Makes the pond at `pond` a replica of what the store of `config` (YAML) holds, or goes on where an earlier call was cut
/// off. While the source goes on, so does this. Blocks; not to be called from a thread that runs async tasks.
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
) -> Result<Position, ReplicateError> {
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
) -> Result<Position, ReplicateError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ReplicateError::io("start a runtime"))?;
    // Before anything is made: a wrong bucket leaves no half-made pond behind.
    runtime.block_on(async {
        tokio::select! {
            head = find::head(store) => head.map(drop),
            () = until(|| progress.cancelled()) => Err(ReplicateError::Stopped { at: "none yet".into() }),
        }
    })?;
    let replica = Replica::init(pond, config)?;
    let position =
        Pull::new(&runtime, store, &replica, progress).to(options.at.unwrap_or(At::Tip), options.tip)?;
    replica.finish_init()?;
    Ok(position)
}
