//! Writing large objects in parts.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use object_store::{MultipartUpload, PutMultipartOptions, PutPayload};
use tokio::runtime::Handle;

use super::Store;
use crate::ReplicateError;

/// Objects of more than this go in parts.
pub(crate) const SINGLE_PUT: u64 = 32 << 20;

/// Bytes of a part. S3 takes at most 10,000, so an object may have 156 GiB.
const PART: u64 = 16 << 20;

/// Parts on their way at a time: what bounds the memory of an upload.
const PARTS: usize = 2;

impl Store {
    /// Writes an object from a local file in place of any that is there. In memory are never more than two parts.
    ///
    /// A part that fails fails the upload, which is then tried again as a whole; nobody sees an object until the last
    /// part is there.
    pub(crate) async fn put_file(
        &self,
        key: &str,
        file: Arc<File>,
        length: u64,
    ) -> Result<(), ReplicateError> {
        if length <= SINGLE_PUT {
            let bytes = read(file, 0, length).await.map_err(ReplicateError::io("read a bundle back"))?;
            return Ok(self.put(key, bytes).await?);
        }
        self.attempt("put", key, length, async || self.put_parts(key, &file, length).await).await?;
        Ok(())
    }

    async fn put_parts(&self, key: &str, file: &Arc<File>, length: u64) -> object_store::Result<()> {
        let location = self.location(key);
        let upload = self.inner.put_multipart_opts(&location, PutMultipartOptions::default()).await?;
        let mut parts = Parts { key: key.to_owned(), upload: Some(upload) };
        let Some(upload) = &mut parts.upload else { return Ok(()) };
        send(&mut **upload, file, length).await?;
        upload.complete().await?;
        parts.upload = None;
        Ok(())
    }
}

/// An upload whose parts are taken back unless it is completed: where a part or the end fails, where it takes too long, and
/// where the process wants to end. Only a kill leaves them.
struct Parts {
    key: String,
    upload: Option<Box<dyn MultipartUpload>>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        let (Some(mut upload), Ok(runtime)) = (self.upload.take(), Handle::try_current()) else { return };
        let key = std::mem::take(&mut self.key);
        // Nobody waits for it: what is told is the failure, and parts that stay only cost room.
        runtime.spawn(async move {
            if let Err(error) = upload.abort().await {
                tracing::warn!(key, %error, "the parts of an upload that failed may still lie in the store");
            }
        });
    }
}

async fn send(upload: &mut dyn MultipartUpload, file: &Arc<File>, length: u64) -> object_store::Result<()> {
    let mut under_way = FuturesUnordered::new();
    let mut offset = 0;
    while offset < length {
        let part = PART.min(length - offset);
        let bytes = read(file.clone(), offset, part).await.map_err(|source| {
            object_store::Error::Generic { store: "a local file", source: Box::new(source) }
        })?;
        under_way.push(upload.put_part(PutPayload::from_bytes(bytes)));
        offset += part;
        if under_way.len() >= PARTS {
            under_way.next().await.transpose()?;
        }
    }
    while let Some(result) = under_way.next().await {
        result?;
    }
    Ok(())
}

/// Reads a range of a file off the async threads.
async fn read(file: Arc<File>, offset: u64, length: u64) -> std::io::Result<Bytes> {
    let read = move || {
        let mut bytes = vec![0; usize::try_from(length).map_err(std::io::Error::other)?];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    };
    tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)?
}
