//! What a statement sees: versions that are open as long as it runs, and tables over them.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, Session};
use datafusion::datasource::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use parking_lot::RwLock;
use pond_oplog::{At, View, Views};

use crate::content::files::{Files, Listed};
use crate::content::format::Format;
use crate::content::store::PondStore;
use crate::content::{glob, host};
use crate::error::{QueryError, Result};
use crate::sql::references::{HOST, Reference, Source, TABLES, Wanted};
use crate::tables::changes::ChangesTable;
use crate::tables::control::ControlTable;
use crate::tables::entries::EntriesTable;
use crate::tables::files::FilesTable;
use crate::tables::history::HistoryTable;
use crate::tables::oplog;
use crate::tables::rows::RowsTable;
use crate::tables::versions::VersionsTable;

/// Reads the pond's settings, by name, as they are now.
pub type Settings = Box<dyn Fn() -> Result<Vec<(String, String)>> + Send + Sync>;

/// The pond that is asked.
pub struct Pond {
    /// `$POND`.
    pub directory: PathBuf,
    /// Its versions.
    pub views: Views,
    /// Its settings.
    pub settings: Settings,
}

/// What statements see.
pub(crate) struct World {
    directory: PathBuf,
    views: Arc<Views>,
    settings: Settings,
    /// The version of what is named without one.
    at: At,
    /// Whether `host:` may be named.
    host: bool,
    pub(crate) store: Arc<PondStore>,
    /// The version that the running statement sees where none is named.
    now: tokio::sync::Mutex<Option<Arc<View>>>,
    /// What the running statement's own names stand for.
    bound: RwLock<HashMap<String, Arc<dyn TableProvider>>>,
}

impl World {
    pub(crate) fn new(pond: Pond, at: At, host: bool, store: Arc<PondStore>) -> Self {
        let Pond { directory, views, settings } = pond;
        let (now, bound) = (tokio::sync::Mutex::default(), RwLock::default());
        World { directory, views: Arc::new(views), settings, at, host, store, now, bound }
    }

    /// Lets go of what the last statement saw.
    pub(crate) async fn let_go(&self) {
        self.now.lock().await.take();
        self.bound.write().clear();
        self.store.let_go();
        self.views.let_go_of_unused();
    }

    /// Opens the version of what is named without one, if it is another than the newest.
    pub(crate) async fn open_named(&self) -> Result<()> {
        match self.at {
            At::Tip => Ok(()),
            _ => self.open(None).await.map(drop),
        }
    }

    /// Opens a version for as long as the statement runs.
    async fn open(&self, at: Option<At>) -> Result<Arc<View>> {
        let Some(at) = at else {
            let mut now = self.now.lock().await;
            if let Some(view) = &*now {
                return Ok(view.clone());
            }
            let view = self.read(self.at).await?;
            return Ok(now.insert(view).clone());
        };
        self.read(at).await
    }

    async fn read(&self, at: At) -> Result<Arc<View>> {
        let views = self.views.clone();
        let opened = tokio::task::spawn_blocking(move || -> Result<Arc<View>> {
            if let At::Timestamp(time) = at
                && time > chrono::Utc::now().timestamp_micros()
                // A source's clock may be ahead of this one.
                && time > views.open(At::Tip)?.position().timestamp
            {
                return Err(QueryError::new(format!(
                    "there is no version of {at} yet: that is in the future"
                )));
            }
            Ok(views.open(at)?)
        });
        let view = opened.await.map_err(|error| QueryError::new(error.to_string()))??;
        self.store.hold(&view);
        Ok(view)
    }

    /// Makes a name stand for what was named.
    pub(crate) async fn bind(&self, session: &dyn Session, reference: &Reference) -> Result<()> {
        let at = reference.at;
        let table = match &reference.source {
            Source::Table(name) => self.own(session, name, at).await?,
            Source::Files(wanted) => self.files(session, wanted, at).await?,
            Source::Changes(from, to) => {
                // A version that is not there is an error even where nothing is asked of it.
                let (from, to) = (self.read(*from).await?, self.read(*to).await?);
                let at = |view: &View| At::Version(view.position().version);
                RowsTable::provider(ChangesTable { views: self.views.clone(), from: at(&from), to: at(&to) })
            }
            Source::History(path) => {
                RowsTable::provider(HistoryTable { views: self.views.clone(), path: path.clone() })
            }
        };
        self.bound.write().insert(reference.name.clone(), table);
        Ok(())
    }

    async fn own(&self, session: &dyn Session, name: &str, at: Option<At>) -> Result<Arc<dyn TableProvider>> {
        if name == "control" {
            return Ok(RowsTable::provider(ControlTable { settings: (self.settings)()? }));
        }
        let view = self.open(at).await?;
        let last = view.position().version;
        match name {
            "files" => Ok(RowsTable::provider(FilesTable { view })),
            "entries" => Ok(RowsTable::provider(EntriesTable { view })),
            "versions" => Ok(RowsTable::provider(VersionsTable { pond: self.directory.clone(), last })),
            "oplog" => oplog::table(session, &self.directory, last).await,
            other => Err(QueryError::new(format!("there is no table {other}"))),
        }
    }

    async fn files(
        &self,
        session: &dyn Session,
        wanted: &Wanted,
        at: Option<At>,
    ) -> Result<Arc<dyn TableProvider>> {
        let is_outside = wanted.paths.iter().any(|path| path.starts_with(HOST));
        let (store, listed) = match is_outside {
            true if !self.host => return Err(QueryError::new("files of the host cannot be read here")),
            true => (ObjectStoreUrl::local_filesystem(), outside(&wanted.paths)?),
            false => {
                let view = self.open(at).await?;
                (self.store.url().clone(), inside(&view, &wanted.paths)?)
            }
        };
        let format = match wanted.format {
            Some(format) => format,
            None => of_names(&listed)?,
        };
        Ok(Arc::new(Files::open(session, store, format, listed, &wanted.shape).await?))
    }
}

fn inside(view: &Arc<View>, paths: &[String]) -> Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for path in paths {
        listed.extend(glob::find(view, path)?.into_iter().map(|file| Listed {
            object: PondStore::meta(view, &file.path, &file.attributes),
            path: file.path,
        }));
    }
    Ok(listed)
}

fn outside(paths: &[String]) -> Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for path in paths {
        let found = host::find(path.strip_prefix(HOST).unwrap_or(path))?;
        listed.extend(found.into_iter().map(|(path, object)| Listed { path, object }));
    }
    Ok(listed)
}

/// The format that the names of all these files say.
fn of_names(listed: &[Listed]) -> Result<Format> {
    let mut formats = listed.iter().map(|file| {
        let name = String::from_utf8_lossy(&file.path).into_owned();
        Format::of_name(&name).map(|format| (format, name))
    });
    let (format, first) = formats.next().ok_or_else(|| QueryError::new("there is no file to read"))??;
    for found in formats {
        let (other, name) = found?;
        if other != format {
            return Err(QueryError::new(format!(
                "one table cannot be made of {first}, which is {}, and {name}, which is {}",
                format.name(),
                other.name()
            )));
        }
    }
    Ok(format)
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// The tables that statements may name.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) world: Arc<World>,
    /// For what a table reads when it is made.
    pub(crate) session: std::sync::OnceLock<std::sync::Weak<RwLock<datafusion::execution::SessionState>>>,
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        TABLES.map(str::to_owned).to_vec()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let bound = self.world.bound.read().get(name).cloned();
        if bound.is_some() || !TABLES.contains(&name) {
            return Ok(bound);
        }
        let session = self.session.get().and_then(std::sync::Weak::upgrade);
        let session = session.ok_or_else(|| QueryError::new("the session has ended"))?;
        let state = session.read().clone();
        Ok(Some(self.world.own(&state, name, None).await?))
    }

    fn table_exist(&self, name: &str) -> bool {
        TABLES.contains(&name) || self.world.bound.read().contains_key(name)
    }
}
