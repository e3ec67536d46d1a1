//! Reading an object as it comes.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::{GetOptions, GetRange};

use super::Store;
use super::patience::{late, patience};
use super::words::plain;
use crate::StoreError;
use crate::error::StoreErrorKind;

/// An object being read. Every byte comes once, also where the connection broke in between.
pub struct ObjectStream {
    store: Store,
    key: Arc<str>,
    length: u64,
    /// Of the object that was opened: a piece of another one must not be appended.
    e_tag: Option<String>,
    position: u64,
    /// Where the body begins that is being read.
    begun: u64,
    body: Option<BoxStream<'static, object_store::Result<Bytes>>>,
    failures: usize,
}

impl Store {
    /// An object as a stream, taken up again where it breaks off; none if it is not there.
    pub async fn get_stream(&self, key: &str) -> Result<Option<ObjectStream>, StoreError> {
        let mut stream = ObjectStream {
            store: self.clone(),
            key: key.into(),
            length: u64::MAX,
            e_tag: None,
            position: 0,
            begun: 0,
            body: None,
            failures: 0,
        };
        match stream.request().await {
            Ok(()) => Ok(Some(stream)),
            Err(error) if error.kind == StoreErrorKind::Missing => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl ObjectStream {
    /// Bytes of the whole object.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The next bytes; none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        while self.position < self.length {
            if self.body.is_none() {
                self.request().await?;
            }
            let Some(body) = &mut self.body else { continue };
            let next = tokio::time::timeout(patience(0), body.next()).await;
            match next {
                Ok(Some(Ok(bytes))) if bytes.is_empty() => {}
                Ok(Some(Ok(mut bytes))) => {
                    let left = self.length - self.position;
                    bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                    self.position += bytes.len() as u64;
                    self.failures = 0;
                    return Ok(Some(bytes));
                }
                // The end of a piece, or of a body that was cut off: one without a byte is no piece.
                Ok(None) if self.position > self.begun && self.position.is_multiple_of(self.store.piece) => {
                    self.body = None;
                }
                Ok(None) => self.broken("the body ended early".into())?,
                Ok(Some(Err(error))) => self.broken(Box::new(error))?,
                Err(_) => self.broken(late(0).into())?,
            }
        }
        Ok(None)
    }

    /// Notes a break; an error once there were too many in a row without a byte in between.
    fn broken(&mut self, source: Box<dyn std::error::Error + Send + Sync>) -> Result<(), StoreError> {
        self.body = None;
        self.failures += 1;
        if self.failures > self.store.retries.times {
            return Err(self.store.failure("get", &self.key, StoreErrorKind::Unavailable, plain(&*source)));
        }
        tracing::debug!(key = &*self.key, at = self.position, error = %source, "a download broke off, taking it up again");
        Ok(())
    }

    /// Asks for the rest, or for the next piece of it.
    async fn request(&mut self) -> Result<(), StoreError> {
        let start = self.position;
        let end = start.saturating_add(self.store.piece).min(self.length);
        // A first request for the whole object has no range, since a range of an empty object is an error.
        let range = (start > 0 || self.store.piece != u64::MAX).then_some(GetRange::Bounded(start..end));
        let options = GetOptions { range, if_match: self.e_tag.clone(), ..GetOptions::default() };
        let got = self
            .store
            .attempt("get", &self.key, 0, async || {
                let location = self.store.location(&self.key);
                match self.store.inner.get_opts(&location, options.clone()).await {
                    // An empty object has no range.
                    Err(_) if start == 0 && options.range.is_some() => {
                        self.store.inner.get_opts(&location, GetOptions::default()).await
                    }
                    other => other,
                }
            })
            .await?;
        self.length = got.meta.size;
        self.e_tag = got.meta.e_tag.clone();
        self.begun = start;
        self.body = Some(got.into_stream());
        Ok(())
    }
}
