//! A factory `remote` whose store is the source's own directory: a pull copies what its log exports.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pond_oplog::{Incoming, IncomingVersion, Version, history, version_files};
use pond_steward::{
    Factory, FactoryContext, FactoryError, PostCommit, Registry, Replica, ReplicaProgress, ReplicaState,
    VersionSource,
};

struct Copies;

/// The factories known, this one among them.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register(Arc::new(Copies));
    registry
}

fn failed(error: impl ToString) -> FactoryError {
    FactoryError::new(error.to_string())
}

impl Factory for Copies {
    fn name(&self) -> &str {
        "remote"
    }

    fn description(&self) -> &str {
        "copies from another pond"
    }

    fn validate(&self, _configuration: &[u8]) -> Result<(), FactoryError> {
        Ok(())
    }

    fn post_commit(&self) -> Option<&dyn PostCommit> {
        Some(self)
    }

    fn version_source(&self) -> Option<&dyn VersionSource> {
        Some(self)
    }
}

impl PostCommit for Copies {
    fn run(&self, _context: &FactoryContext<'_>) -> Result<String, FactoryError> {
        Ok("nothing to do".to_owned())
    }
}

impl VersionSource for Copies {
    fn interval(&self, _configuration: &[u8]) -> Result<Option<Duration>, FactoryError> {
        Ok(Some(Duration::from_millis(10)))
    }

    fn pull(&self, context: &FactoryContext<'_>, replica: &Replica) -> Result<String, FactoryError> {
        let source = Path::new(std::str::from_utf8(context.configuration).map_err(failed)?);
        let head = history(source, Some(1)).map_err(failed)?.remove(0).position.version;
        let next = replica.position().map_or(0, |position| position.version.0 + 1);
        copy(replica.incoming(), source, next..=head.0).map_err(failed)?;
        replica.publish().map_err(failed)?;
        replica.report(ReplicaProgress {
            state: ReplicaState::Synchronized,
            target_version: Some(head),
            ..ReplicaProgress::default()
        });
        Ok(String::new())
    }
}

fn copy(
    incoming: &Incoming,
    source: &Path,
    versions: std::ops::RangeInclusive<u64>,
) -> Result<(), Box<dyn std::error::Error>> {
    for version in versions.map(Version) {
        let files = version_files(source, version)?;
        for file in files.added.iter().filter(|file| !incoming.is_staged(&file.name)) {
            let mut staged = incoming.stage(&file.name)?;
            staged.write_all(&fs::read(source.join("data").join(&file.name))?)?;
            staged.finish()?;
        }
        incoming.apply(&[IncomingVersion { version, entry: files.entry, files: files.added }])?;
    }
    Ok(())
}

/// Makes a replica of what a source has committed.
pub fn replicate(source: &Path, pond: &Path) {
    let replica = Replica::init(pond, source.to_str().unwrap().as_bytes()).unwrap();
    let head = history(source, Some(1)).unwrap().remove(0).position.version;
    copy(replica.incoming(), source, 0..=head.0).unwrap();
    replica.finish_init().unwrap();
}
