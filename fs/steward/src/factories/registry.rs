//! The factories that a program knows, by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::control::keys::{REMOTE_CONFIG_KEY, ROLE_KEY};
use crate::control::settings::FACTORY_MODE;
use crate::{ExecLog, Factory, StewardError, VersionSource};

/// The factories that a program knows.
#[derive(Clone)]
pub struct Registry(BTreeMap<String, Arc<dyn Factory>>);

impl Registry {
    /// No factories at all.
    pub fn empty() -> Self {
        Registry(BTreeMap::new())
    }

    /// Adds a factory, in place of any of the same name.
    pub fn register(&mut self, factory: Arc<dyn Factory>) {
        self.0.insert(factory.name().to_owned(), factory);
    }

    /// The factory of that name.
    pub fn get(&self, name: &str) -> Result<&Arc<dyn Factory>, StewardError> {
        self.0.get(name).ok_or_else(|| StewardError::UnknownFactory {
            name: name.to_owned(),
            known: self.0.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }

    /// Whether the factory of that name is a remote: ships versions to where replicas bring them in from.
    pub fn is_remote(&self, name: &str) -> bool {
        self.get(name).is_ok_and(|factory| factory.version_source().is_some())
    }

    /// The factory that brings versions in, and its name.
    pub fn version_source(&self) -> Option<(&str, &dyn VersionSource)> {
        self.iter().find_map(|factory| Some((factory.name(), factory.version_source()?)))
    }

    /// Refuses a setting that is about a factory and makes no sense to it.
    pub(crate) fn check_setting(&self, key: &str, value: &str) -> Result<(), StewardError> {
        if let Some(name) = key.strip_prefix(FACTORY_MODE).filter(|name| !name.is_empty() && key != ROLE_KEY)
        {
            let modes = self.get(name)?.modes();
            if !modes.is_empty() && !modes.contains(&value) {
                let (factory, mode, modes) = (name.to_owned(), value.to_owned(), modes.join(" or "));
                return Err(StewardError::UnknownMode { factory, mode, modes });
            }
        }
        if key == REMOTE_CONFIG_KEY
            && !value.is_empty()
            && let Some((name, _)) = self.version_source()
        {
            let factory = name.to_owned();
            self.get(name)?
                .validate(value.as_bytes())
                .map_err(|reason| StewardError::BadConfiguration { factory, reason })?;
        }
        Ok(())
    }

    /// All factories, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Factory>> {
        self.0.values()
    }
}

impl Default for Registry {
    /// The built-in factories.
    fn default() -> Self {
        let mut registry = Registry::empty();
        registry.register(Arc::new(ExecLog));
        registry
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
