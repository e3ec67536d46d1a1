//! Removing what a push that was killed left in a directory under names that nobody reads.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::{FOLDER, Store};

/// What is younger may be another process's, which is still writing it.
const ABANDONED: Duration = Duration::from_secs(3600);

impl Store {
    /// Removes abandoned temporary files from these folders of a directory. What cannot be removed only costs room.
    pub(crate) async fn sweep(&self, folders: Vec<String>) {
        let Some(directory) = self.directory.clone() else { return };
        let swept = tokio::task::spawn_blocking(move || {
            for folder in folders {
                let path = directory.join(FOLDER).join(folder);
                if let Err(error) = sweep(&path) {
                    tracing::warn!(path = %path.display(), %error, "cannot look for what a killed push left here");
                }
            }
        });
        if let Err(error) = swept.await {
            tracing::warn!(%error, "the search for what a killed push left ended early");
        }
    }
}

fn sweep(folder: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if !name.to_str().is_some_and(pond_oplog::is_temporary) {
            continue;
        }
        let metadata = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        // A clock that was set back makes it young, which only keeps it longer.
        let age = metadata.modified()?.elapsed().unwrap_or_default();
        if !metadata.is_file() || age < ABANDONED {
            continue;
        }
        let path = entry.path();
        match std::fs::remove_file(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed what a killed push left"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "what a killed push left stays"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::SystemTime;

    use crate::config::RemoteConfig;
    use crate::store::Store;

    #[test]
    fn what_is_abandoned_goes_and_what_may_be_in_use_stays() {
        let dir = tempfile::tempdir().unwrap();
        let yaml = format!("storage_type: local\npath: {}\n", dir.path().display());
        let store = Store::open(&RemoteConfig::parse(yaml.as_bytes()).unwrap()).unwrap();
        let packs = dir.path().join("backups/1/packs");
        fs::create_dir_all(&packs).unwrap();
        for name in [".old.tmp", ".young.tmp", "old.pack", ".hidden"] {
            let file = File::create(packs.join(name)).unwrap();
            if !name.contains("young") {
                file.set_modified(SystemTime::now() - 2 * super::ABANDONED).unwrap();
            }
        }
        let folders = ["1/packs", "1/none"].map(str::to_owned).to_vec();
        crate::remote::runtime().unwrap().block_on(store.sweep(folders));
        let mut left: Vec<_> = fs::read_dir(&packs)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [".hidden", ".young.tmp", "old.pack"]);
    }
}
