//! From a configuration to a store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use pond_oplog::DurableStore;
use pond_steward::FactoryError;

use super::Store;
use super::bucket::Bucket;
use super::words::plain;
use crate::config::{RemoteConfig, S3Config, Storage};
use crate::error::StoreErrorKind;
use crate::{ReplicateError, StoreError};

/// No such file or directory.
const NO_ENTRY: i32 = 2;

/// A directory's objects are read in pieces, since each is in memory as a whole.
const LOCAL_PIECE: u64 = 8 << 20;

/// A server that does not take the connection by then is not there.
const CONNECT: Duration = Duration::from_secs(10);

impl Store {
    /// The store of a configuration. Nothing is asked of an S3 server yet; a directory must be there.
    pub fn open(config: &RemoteConfig) -> Result<Store, ReplicateError> {
        match &config.storage {
            Storage::Local { path } => {
                let store = Store::of_directory(path);
                if !path.is_dir() {
                    return Err(store.no_such_place(std::io::Error::from_raw_os_error(NO_ENTRY)).into());
                }
                Ok(store)
            }
            Storage::S3(config) => open_s3(config),
        }
    }

    /// The store in a directory, whether that is there or not.
    fn of_directory(path: &Path) -> Self {
        let store = Store::new(Arc::new(DurableStore::new(path)), path.display().to_string(), "");
        Store { piece: LOCAL_PIECE, directory: Some(path.into()), ..store }
    }

    /// Makes the directory of a configuration where only its last component is missing. A store elsewhere has no such thing.
    pub fn create_place(config: &RemoteConfig) -> Result<(), ReplicateError> {
        let Storage::Local { path } = &config.storage else { return Ok(()) };
        if let Err(error) = pond_oplog::exclusive_names::probe(path) {
            let store = Store::of_directory(path);
            return Err(store.failure("put", "", StoreErrorKind::Unsuitable, plain(&error)).into());
        }
        match std::fs::create_dir(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(Store::of_directory(path).no_such_place(error).into())
            }
            _ => Ok(()),
        }
    }

    fn no_such_place(&self, error: std::io::Error) -> StoreError {
        let kind = match error.kind() {
            std::io::ErrorKind::PermissionDenied => StoreErrorKind::Denied,
            _ => StoreErrorKind::NoSuchPlace,
        };
        self.failure("open", "", kind, plain(&error))
    }
}

fn open_s3(config: &S3Config) -> Result<Store, ReplicateError> {
    let mut place = format!("s3://{}", config.bucket);
    if !config.prefix.is_empty() {
        place = format!("{place}/{}", config.prefix);
    }
    if let Some(endpoint) = &config.endpoint {
        place = format!("{place} at {endpoint}");
    }
    // Retries are the wrapper's, so that there is one place for them; the time that a request may take as well.
    let retry = RetryConfig { max_retries: 0, retry_timeout: CONNECT, backoff: BackoffConfig::default() };
    let client = ClientOptions::new()
        .with_allow_http(config.allow_http)
        .with_connect_timeout(CONNECT)
        .with_timeout_disabled();
    let builder = match &config.credentials {
        Some((key, secret)) => {
            AmazonS3Builder::new().with_access_key_id(key).with_secret_access_key(secret.reveal())
        }
        None => {
            check_environment(&|name| std::env::var(name).ok())?;
            AmazonS3Builder::from_env()
        }
    };
    let mut builder = builder
        .with_bucket_name(&config.bucket)
        .with_region(&config.region)
        .with_virtual_hosted_style_request(false)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_client_options(client.clone())
        .with_retry(retry);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| StoreError {
        place: place.clone(),
        key: String::new(),
        operation: "open",
        kind: StoreErrorKind::Refused,
        advice: "check endpoint, region and credentials",
        cause: source.to_string(),
    };
    // The environment may name one as well.
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{}.amazonaws.com", config.region));
    let inner = Arc::new(builder.build().map_err(|source| failed(source.into()))?);
    let bucket =
        Bucket::new(inner.clone(), &endpoint, &config.bucket, &config.region, &client).map_err(failed)?;
    Ok(Store { bucket: Some(Arc::new(bucket)), ..Store::new(inner, place.clone(), &config.prefix) })
}

/// Refuses what cannot be part of a header: it would end the process where a request is signed.
fn check_environment(variable: &dyn Fn(&str) -> Option<String>) -> Result<(), ReplicateError> {
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        let unfit = |text: String| !text.bytes().all(|byte| byte.is_ascii_graphic());
        if variable(name).is_some_and(unfit) {
            let why = format!(
                "the environment variable {name} has a line end, a space or a character in it that is not ASCII"
            );
            return Err(ReplicateError::Configuration(FactoryError::new(why).advise("set it without")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_with_a_line_end_in_the_environment_are_refused_by_name() {
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
            let error = check_environment(&|asked| (asked == name).then(|| "hush\n".to_owned()));
            let error = error.unwrap_err().to_string();
            assert!(error.contains(name) && !error.contains("hush"), "{error}");
        }
        check_environment(&|_| Some("AKIA+/=".to_owned())).unwrap();
        check_environment(&|_| None).unwrap();
    }
}
