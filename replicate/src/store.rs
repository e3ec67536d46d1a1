//! The backup store: keys and bytes, retried, with errors that say what to check.
//!
//! One wrapper over `object_store`: a directory goes through [`pond_oplog::DurableStore`], so that a put is fsync'd when it
//! returns; everything else speaks S3. All retries are here and none below, so that a test can make each request fail. Only
//! what may heal by itself is tried again: not refused credentials, not a missing bucket.

mod abandoned;
mod bucket;
mod open;
mod patience;
mod probe;
mod retry;
pub mod stream;
mod sweep;
mod upload;
mod words;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path as Location;
use object_store::{GetOptions, GetRange, ObjectStore, PutMode, PutOptions, PutPayload};

use crate::StoreError;
use crate::error::StoreErrorKind;
use crate::store::bucket::Bucket;
use crate::store::patience::{late, patience};

pub use patience::Retries;

/// What all keys begin with, below the configured place.
const FOLDER: &str = "backups";

/// Largest object that [`Store::get`] takes into memory: manifests are far smaller, even of large bases.
const WHOLE: u64 = 256 << 20;

/// A backup store. Cheap to clone. Keys are relative to `backups/` in the configured place.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    place: Arc<str>,
    prefix: Arc<str>,
    /// The directory that it is, if it is one.
    directory: Option<Arc<Path>>,
    /// The bucket that it is, if it is one.
    bucket: Option<Arc<Bucket>>,
    /// A stream is read in requests of so many bytes.
    piece: u64,
    retries: Retries,
}

/// What a put-if-absent came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutIfAbsent {
    /// The object is new.
    Created,
    /// It was there, with these bytes. They may be ours, from a put whose answer was lost.
    Exists(Bytes),
}

/// An object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: String,
    /// Bytes.
    pub length: u64,
}

impl Store {
    /// A store over any `object_store`; `place` is what errors call it.
    pub fn new(inner: Arc<dyn ObjectStore>, place: impl Into<Arc<str>>, prefix: &str) -> Self {
        let prefix = match prefix {
            "" => FOLDER.to_owned(),
            prefix => format!("{prefix}/{FOLDER}"),
        };
        let (place, prefix) = (place.into(), prefix.into());
        let (piece, retries) = (u64::MAX, Retries::default());
        Store { inner, place, prefix, directory: None, bucket: None, piece, retries }
    }

    /// The same with other patience.
    pub fn with_retries(self, retries: Retries) -> Self {
        Store { retries, ..self }
    }

    /// Whether it is a directory, which may be another one than a moment ago.
    pub(crate) fn is_local(&self) -> bool {
        self.directory.is_some()
    }

    /// What errors call it.
    pub fn place(&self) -> &str {
        &self.place
    }

    fn location(&self, key: &str) -> Location {
        Location::from(format!("{}/{key}", self.prefix))
    }

    /// The bytes of an object; none if it is not there.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let result = self
            .attempt("get", key, WHOLE, async || {
                let location = self.location(key);
                // An answer comes at once or not at all, however long its body may take.
                let got = in_time(0, self.inner.get_opts(&location, GetOptions::default())).await?;
                body(got).await
            })
            .await;
        optional(result)
    }

    /// A range of an object, which must be there and reach so far.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let length = range.end.saturating_sub(range.start);
        self.attempt("get", key, length, async || {
            let options =
                GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
            let bytes = self.inner.get_opts(&self.location(key), options).await?.bytes().await?;
            whole(length, bytes)
        })
        .await
    }

    /// The last bytes of an object, at most `length`; none if it is not there.
    pub async fn get_tail(&self, key: &str, length: u64) -> Result<Option<Bytes>, StoreError> {
        let result = self
            .attempt("get", key, length, async || {
                let options = GetOptions { range: Some(GetRange::Suffix(length)), ..GetOptions::default() };
                let got = self.inner.get_opts(&self.location(key), options).await?;
                let expected = length.min(got.meta.size);
                let bytes = got.bytes().await?;
                whole(expected, bytes)
            })
            .await;
        optional(result)
    }

    /// Length of an object; none if it is not there.
    pub async fn length(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let result = self
            .attempt("look up", key, 0, async || {
                let options = GetOptions { head: true, ..GetOptions::default() };
                Ok(self.inner.get_opts(&self.location(key), options).await?.meta.size)
            })
            .await;
        optional(result)
    }

    /// Writes an object in place of any that is there.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.attempt("put", key, bytes.len() as u64, async || {
            let payload = PutPayload::from_bytes(bytes.clone());
            self.inner.put_opts(&self.location(key), payload, PutOptions::default()).await.map(drop)
        })
        .await
    }

    /// Writes an object where there is none.
    ///
    /// Stores say "exists" in several ways, one of which (409) can also mean that two puts met and neither landed, so
    /// what is there is read back before anybody is told.
    pub async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<PutIfAbsent, StoreError> {
        // What is there instead may be larger.
        self.attempt("put", key, WHOLE, async || {
            let payload = PutPayload::from_bytes(bytes.clone());
            let options = PutOptions::from(PutMode::Create);
            let location = self.location(key);
            match in_time(bytes.len() as u64, self.inner.put_opts(&location, payload, options)).await {
                Ok(_) => Ok(PutIfAbsent::Created),
                Err(
                    error @ (object_store::Error::AlreadyExists { .. }
                    | object_store::Error::Precondition { .. }),
                ) => {
                    match in_time(0, self.inner.get_opts(&self.location(key), GetOptions::default())).await {
                        Ok(found) => Ok(PutIfAbsent::Exists(body(found).await?)),
                        // Nothing landed: the put is tried again.
                        Err(object_store::Error::NotFound { .. }) => {
                            Err(object_store::Error::Generic { store: "store", source: Box::new(error) })
                        }
                        Err(error) => Err(error),
                    }
                }
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// All objects whose keys begin with this folder, in the order of their keys.
    pub async fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let prefix = if folder.is_empty() { Location::from(&*self.prefix) } else { self.location(folder) };
        let mut found = self
            .attempt("list", folder, 0, async || {
                self.inner
                    .list(Some(&prefix))
                    .map_ok(|meta| (meta.location, meta.size))
                    .try_collect::<Vec<_>>()
                    .await
            })
            .await?;
        found.sort();
        // Some characters of a prefix are other ones, or none, in a location.
        let start = Location::from(&*self.prefix).as_ref().len() + 1;
        let info = |(location, length): (Location, u64)| {
            location.as_ref().get(start..).map(|key| ObjectInfo { key: key.to_owned(), length })
        };
        Ok(found.into_iter().filter_map(info).collect())
    }

    /// Names of the folders within a folder.
    pub async fn list_folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let prefix = if folder.is_empty() { Location::from(&*self.prefix) } else { self.location(folder) };
        let found = self
            .attempt("list", folder, 0, async || self.inner.list_with_delimiter(Some(&prefix)).await)
            .await?;
        let name = |location: &Location| location.filename().map(str::to_owned);
        Ok(found.common_prefixes.iter().filter_map(name).collect())
    }

    /// Removes an object; fine if it is not there.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let result = self
            .attempt("delete", key, 0, async || {
                let location = self.location(key);
                let locations = futures::stream::once(async move { Ok(location) });
                self.inner.delete_stream(Box::pin(locations)).try_collect::<Vec<_>>().await.map(drop)
            })
            .await;
        optional(result).map(drop)
    }
}

/// The body of an object that is taken into memory.
async fn body(got: object_store::GetResult) -> Result<Bytes, object_store::Error> {
    let length = got.meta.size;
    if length > WHOLE {
        return Err(object_store::Error::NotSupported {
            source: format!("it has {length} bytes, far more than such an object has").into(),
        });
    }
    let bytes = in_time(length, got.bytes()).await?;
    whole(length, bytes)
}

/// Fails where a body was cut off.
fn whole(length: u64, bytes: Bytes) -> Result<Bytes, object_store::Error> {
    match bytes.len() as u64 {
        got if got == length => Ok(bytes),
        got => Err(object_store::Error::Generic {
            store: "store",
            source: format!("{got} of {length} bytes arrived").into(),
        }),
    }
}

/// Part of a request, of which `bytes` bytes go over the line.
async fn in_time<T>(
    bytes: u64,
    request: impl Future<Output = Result<T, object_store::Error>>,
) -> Result<T, object_store::Error> {
    match tokio::time::timeout(patience(bytes), request).await {
        Ok(result) => result,
        Err(_) => Err(object_store::Error::Generic { store: "store", source: late(bytes).into() }),
    }
}

/// Not being there is an answer.
fn optional<T>(result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == StoreErrorKind::Missing => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
