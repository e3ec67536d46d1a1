//! Which object stores a query may read from: those that it was given, and no others.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreRegistry;
use object_store::ObjectStore;
use parking_lot::RwLock;
use url::{Position, Url};

use crate::error::QueryError;

/// The stores that were given. None is made because its address is named, and the host's files are among them only where they are to be.
#[derive(Debug, Default)]
pub(crate) struct Stores(RwLock<HashMap<String, Arc<dyn ObjectStore>>>);

fn key(url: &Url) -> String {
    url[..Position::AfterPort].to_owned()
}

impl ObjectStoreRegistry for Stores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.0.write().insert(key(url), store)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let found = self.0.read().get(&key(url)).cloned();
        Ok(found.ok_or_else(|| QueryError::new(format!("nothing may be read from {url}")))?)
    }
}
