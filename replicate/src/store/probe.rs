//! Whether a store is fit for backups, before any is made.

use bytes::Bytes;
use uuid::Uuid;

use super::{PutIfAbsent, Store};
use crate::StoreError;
use crate::error::StoreErrorKind;

impl Store {
    /// Whether the store can be reached and written, and honours put-if-absent, on which everything that arbitrates
    /// between writers rests. Leaves nothing behind.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let key = format!("probe-{}", Uuid::new_v4().simple());
        let result = self.try_out(&key).await;
        // The user is told of the first failure; that the object could not be removed either adds nothing to it.
        let removed = self.delete(&key).await;
        result.and(removed)
    }

    async fn try_out(&self, key: &str) -> Result<(), StoreError> {
        let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
        let unfit = |why: String| self.failure("put", key, StoreErrorKind::Unsuitable, why);
        match self.put_if_absent(key, first.clone()).await? {
            PutIfAbsent::Created => {}
            // An answer was lost and the put tried again.
            PutIfAbsent::Exists(found) if found == first => {}
            PutIfAbsent::Exists(_) => {
                return Err(unfit("a name that was never used is taken".into()));
            }
        }
        match self.put_if_absent(key, second).await? {
            PutIfAbsent::Exists(found) if found == first => {}
            PutIfAbsent::Exists(_) => {
                return Err(unfit("a put-if-absent replaced an object and said that it did not".into()));
            }
            PutIfAbsent::Created => {
                return Err(unfit("it ignores put-if-absent (If-None-Match: *)".into()));
            }
        }
        match self.get(key).await? {
            Some(found) if found == first => Ok(()),
            Some(_) => Err(unfit("it does not return what was written".into())),
            None => Err(unfit("an object that was written is not there".into())),
        }
    }
}
