//! Trying again, and telling failures apart.

use std::io;

use backon::{ExponentialBuilder, Retryable};

use super::patience::{late, patience};
use super::words::plain;
use super::{FOLDER, Store};
use crate::StoreError;
use crate::error::StoreErrorKind;

/// Input/output error, which has no kind of its own.
const EIO: i32 = 5;

impl Store {
    /// Does one request, of which `bytes` bytes go over the line, until it succeeds or it makes no sense to go on.
    pub(super) async fn attempt<T>(
        &self,
        operation: &'static str,
        key: &str,
        bytes: u64,
        request: impl AsyncFn() -> Result<T, object_store::Error>,
    ) -> Result<T, StoreError> {
        let backoff = ExponentialBuilder::new()
            .with_min_delay(self.retries.first)
            .with_max_delay(self.retries.longest)
            .with_max_times(self.retries.times)
            .with_jitter();
        let once = || async {
            match tokio::time::timeout(patience(bytes), request()).await {
                Ok(result) => result.map_err(|error| self.error(operation, key, error)),
                Err(_) => Err(self.failure(operation, key, StoreErrorKind::Unavailable, late(bytes))),
            }
        };
        once.retry(backoff)
            .when(|error: &StoreError| error.kind == StoreErrorKind::Unavailable)
            .notify(|error, rest| tracing::debug!(%error, ?rest, "a request to the backup store failed, trying again"))
            .await
    }

    /// What a failure of the store means.
    pub(super) fn error(&self, operation: &'static str, key: &str, error: object_store::Error) -> StoreError {
        let kind = classify(&error);
        tracing::debug!(%error, operation, key, "a request to the backup store failed");
        self.failure(operation, key, kind, plain(&error))
    }

    pub(super) fn failure(
        &self,
        operation: &'static str,
        key: &str,
        kind: StoreErrorKind,
        cause: String,
    ) -> StoreError {
        // The place has the prefix that is before it.
        let key = match key {
            "" => FOLDER.to_owned(),
            key => format!("{FOLDER}/{key}"),
        };
        StoreError {
            place: self.place.to_string(),
            key,
            operation,
            kind,
            advice: advice(kind, self.is_local()),
            cause,
        }
    }
}

fn advice(kind: StoreErrorKind, local: bool) -> &'static str {
    match kind {
        StoreErrorKind::Denied if local => {
            "check the directory's owner and mode, and that this user may do this there"
        }
        StoreErrorKind::Denied => "check key and secret, and that they may do this there",
        StoreErrorKind::NoSuchPlace if local => "check the path, and that the disk is mounted that holds it",
        StoreErrorKind::NoSuchPlace => "check the bucket's name and the endpoint",
        StoreErrorKind::Missing => "it should be there: somebody removed it, or the backup is not complete",
        StoreErrorKind::Unsuitable => {
            "use another store: backups need put-if-absent to notice a second writer"
        }
        StoreErrorKind::Refused => "check region, endpoint and bucket, and the room that is left there",
        StoreErrorKind::Disk => {
            "check the room (also inodes and quota) on that disk, whether it is mounted read-only, and the kernel's log"
        }
        StoreErrorKind::Unavailable => "it was tried several times; check the endpoint and the network",
    }
}

/// Sorts an error. `object_store` keeps the status of an answer to itself except in its text.
fn classify(error: &object_store::Error) -> StoreErrorKind {
    use object_store::Error;
    if is_of_disk(error) {
        return StoreErrorKind::Disk;
    }
    match error {
        Error::NotFound { .. } if error.to_string().contains("NoSuchBucket") => StoreErrorKind::NoSuchPlace,
        Error::NotFound { .. } => StoreErrorKind::Missing,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => StoreErrorKind::Denied,
        // What a directory says that lies on a filesystem where no name can be given only if it is free.
        Error::NotSupported { source }
            if source.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::Unsupported) =>
        {
            StoreErrorKind::Unsuitable
        }
        Error::InvalidPath { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::UnknownConfigurationKey { .. } => StoreErrorKind::Refused,
        other => match status(&other.to_string()) {
            Some(408 | 409 | 412 | 429 | 500..) | None => StoreErrorKind::Unavailable,
            Some(_) => StoreErrorKind::Refused,
        },
    }
}

/// Whether somewhere below it is what only a disk says, never a network.
fn is_of_disk(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
        matches!(
            cause.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::QuotaExceeded
        ) || cause.raw_os_error() == Some(EIO)
    })
}

fn status(text: &str) -> Option<u16> {
    let after = text.split("status code: ").nth(1)?;
    after.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_heal_is_told_from_what_may_not() {
        let generic =
            |text: &str| object_store::Error::Generic { store: "S3", source: text.to_owned().into() };
        let missing =
            |text: &str| object_store::Error::NotFound { path: "x".into(), source: text.to_owned().into() };
        assert_eq!(
            classify(&generic("Server returned non-2xx status code: 503 Slow")),
            StoreErrorKind::Unavailable
        );
        assert_eq!(
            classify(&generic("Server returned non-2xx status code: 400 Bad")),
            StoreErrorKind::Refused
        );
        assert_eq!(classify(&generic("connection reset")), StoreErrorKind::Unavailable);
        for (errno, kind) in [
            (5, StoreErrorKind::Disk),
            (28, StoreErrorKind::Disk),
            (30, StoreErrorKind::Disk),
            (104, StoreErrorKind::Unavailable),
        ] {
            let source = io::Error::from_raw_os_error(errno).into();
            let error = object_store::Error::Generic { store: "local disk", source };
            assert_eq!(classify(&error), kind, "{error}");
        }
        assert_eq!(classify(&missing("no such key")), StoreErrorKind::Missing);
        assert_eq!(classify(&missing("<Code>NoSuchBucket</Code>")), StoreErrorKind::NoSuchPlace);
    }
}
