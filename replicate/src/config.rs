//! The remote's configuration: the same YAML on a source and its replicas.
//!
//! ```yaml
//! storage_type: local          # or s3
//! path: /srv/pond-backups      # local
//! # bucket, region, endpoint, key, secret, prefix, allow_http: s3; ${env:NAME} anywhere
//! compression_level: 3
//! sync_interval: 1             # seconds between checks when pulling
//! ```

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pond_steward::{FactoryError, configuration};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

use crate::ReplicateError;

/// What a variable's reference begins with; it stands for itself while a configuration is only checked.
const VARIABLE: &str = "${env:";
const COMPRESSION_LEVELS: std::ops::RangeInclusive<i32> = 1..=22;
const DEFAULT_LEVEL: i32 = 3;
const DEFAULT_INTERVAL: f64 = 1.0;
/// Seconds: less often than once a day is no following, and more often than this only burns requests.
const INTERVALS: std::ops::RangeInclusive<f64> = 0.05..=86_400.0;

/// Where a pond is backed up to, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteConfig {
    /// The place.
    pub storage: Storage,
    /// zstd level of bundles, 1 to 22.
    pub compression_level: i32,
    /// Time between two checks when pulling.
    pub sync_interval: Duration,
}

/// A kind of place.
#[derive(Clone, Debug, PartialEq)]
pub enum Storage {
    /// A directory on this machine, or on one that is mounted here.
    Local {
        /// Absolute.
        path: PathBuf,
    },
    /// A bucket of a server that speaks S3.
    S3(S3Config),
}

/// A bucket and how to reach it.
#[derive(Clone, Debug, PartialEq)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// URL of the server; AWS itself if none.
    pub endpoint: Option<String>,
    /// Access key and secret; from the environment (`AWS_…`) or the machine's role if none.
    pub credentials: Option<(String, Secret)>,
    /// What all keys begin with, without slashes at its ends.
    pub prefix: String,
    /// Whether the endpoint may be `http://`.
    pub allow_http: bool,
}

/// A text that no log shows.
#[derive(Clone, PartialEq)]
pub struct Secret(String);

/// By hand, because the derived one tells in its error what it found.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

/// Leading zeros and the like are lost by the time it is a number, so that cannot be made a text again.
const NO_TEXT: &str = "secret: it is not a text; put it in quotes";

impl Visitor<'_> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text in quotes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Secret, E> {
        Ok(Secret(text))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
        Err(E::custom(NO_TEXT))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
        Err(E::custom(NO_TEXT))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
        Err(E::custom(NO_TEXT))
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<Secret, E> {
        Err(E::custom(NO_TEXT))
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<Secret, E> {
        Err(E::custom(NO_TEXT))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
        Err(E::custom(NO_TEXT))
    }
}

impl Secret {
    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl RemoteConfig {
    /// Reads a configuration for use, with the environment's variables put in.
    pub fn parse(yaml: &[u8]) -> Result<Self, ReplicateError> {
        configuration::parse::<Raw>(yaml).and_then(Raw::check).map_err(ReplicateError::Configuration)
    }

    /// Reads a configuration to see whether it is valid; the environment's variables need not be set.
    pub fn check(yaml: &[u8]) -> Result<Self, ReplicateError> {
        configuration::check::<Raw>(yaml).and_then(Raw::check).map_err(ReplicateError::Configuration)
    }
}

/// The YAML as it stands. Numbers may come from variables, and so as text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    storage_type: String,
    path: Option<String>,
    bucket: Option<String>,
    region: Option<String>,
    endpoint: Option<String>,
    key: Option<String>,
    secret: Option<Secret>,
    prefix: Option<String>,
    allow_http: Option<Scalar>,
    compression_level: Option<Scalar>,
    sync_interval: Option<Scalar>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
}

/// What a scalar says; `default` where there is none or it is a variable that is not put in.
fn scalar<T: FromStr>(name: &str, scalar: Option<Scalar>, default: T) -> Result<T, FactoryError> {
    let text = match scalar {
        None => return Ok(default),
        Some(Scalar::Bool(value)) => value.to_string(),
        Some(Scalar::Number(value)) => value.to_string(),
        Some(Scalar::Text(text)) if text.contains(VARIABLE) => return Ok(default),
        Some(Scalar::Text(text)) => text,
    };
    text.trim()
        .parse()
        .map_err(|_| FactoryError::new(format!("{name}: {text:?} is not a {}", std::any::type_name::<T>())))
}

impl Raw {
    fn check(self) -> Result<RemoteConfig, FactoryError> {
        let compression_level = scalar("compression_level", self.compression_level, DEFAULT_LEVEL)?;
        if !COMPRESSION_LEVELS.contains(&compression_level) {
            return Err(FactoryError::new(format!(
                "compression_level: {compression_level} is not from {} to {}",
                COMPRESSION_LEVELS.start(),
                COMPRESSION_LEVELS.end()
            )));
        }
        let interval: f64 = scalar("sync_interval", self.sync_interval, DEFAULT_INTERVAL)?;
        if !INTERVALS.contains(&interval) {
            return Err(FactoryError::new(format!(
                "sync_interval: {interval} is not from {} to {} seconds",
                INTERVALS.start(),
                INTERVALS.end()
            )));
        }
        let s3_only = [
            ("bucket", self.bucket.is_some()),
            ("region", self.region.is_some()),
            ("endpoint", self.endpoint.is_some()),
            ("key", self.key.is_some()),
            ("secret", self.secret.is_some()),
            ("prefix", self.prefix.is_some()),
            ("allow_http", self.allow_http.is_some()),
        ];
        let storage = match self.storage_type.as_str() {
            "local" => {
                if let Some((name, _)) = s3_only.iter().find(|(_, given)| *given) {
                    return Err(FactoryError::new(format!(
                        "{name} belongs to storage_type: s3, and this is local"
                    )));
                }
                local(self.path)?
            }
            "s3" => {
                if self.path.is_some() {
                    return Err(FactoryError::new("path belongs to storage_type: local, and this is s3")
                        .advise("say prefix"));
                }
                let allow_http = scalar("allow_http", self.allow_http, false)?;
                s3(self.bucket, self.region, self.endpoint, (self.key, self.secret), self.prefix, allow_http)?
            }
            other => {
                return Err(FactoryError::new(format!("storage_type: {other:?} is neither local nor s3")));
            }
        };
        let sync_interval = Duration::from_secs_f64(interval);
        Ok(RemoteConfig { storage, compression_level, sync_interval })
    }
}

fn local(path: Option<String>) -> Result<Storage, FactoryError> {
    let path = path.ok_or_else(|| FactoryError::new("path is missing: the directory to back up to"))?;
    if !path.starts_with('/') && !path.starts_with(VARIABLE) {
        return Err(FactoryError::new(format!("path: {path:?} is not absolute")));
    }
    Ok(Storage::Local { path: path.into() })
}

fn s3(
    bucket: Option<String>,
    region: Option<String>,
    endpoint: Option<String>,
    credentials: (Option<String>, Option<Secret>),
    prefix: Option<String>,
    allow_http: bool,
) -> Result<Storage, FactoryError> {
    let bucket = bucket.ok_or_else(|| FactoryError::new("bucket is missing"))?;
    let endpoint = endpoint.map(|endpoint| endpoint.trim_end_matches('/').to_owned());
    if let Some(endpoint) = &endpoint {
        let known = ["http://", "https://", VARIABLE].iter().any(|start| endpoint.starts_with(start));
        if !known {
            return Err(FactoryError::new(format!(
                "endpoint: {endpoint:?} begins with neither https:// nor http://"
            )));
        }
        if endpoint.starts_with("http://") && !allow_http {
            return Err(FactoryError::new(format!("endpoint: {endpoint:?} is not encrypted"))
                .advise("say allow_http: true if that is meant"));
        }
    }
    let credentials = match credentials {
        (Some(key), Some(secret)) => Some((key, secret)),
        (None, None) => None,
        (Some(_), None) => return Err(FactoryError::new("key is there and secret is missing")),
        (None, Some(_)) => return Err(FactoryError::new("secret is there and key is missing")),
    };
    // They become parts of URLs and of headers.
    let texts = [
        ("bucket", Some(&bucket)),
        ("region", region.as_ref()),
        ("endpoint", endpoint.as_ref()),
        ("key", credentials.as_ref().map(|(key, _)| key)),
    ];
    for (name, text) in texts {
        if text.is_some_and(|text| text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(FactoryError::new(format!(
                "{name}: it is empty, or has a space or a character in it that is not ASCII"
            )));
        }
    }
    let prefix = prefix.unwrap_or_default().trim_matches('/').to_owned();
    if prefix.split('/').any(|part| matches!(part, "." | "..")) {
        return Err(FactoryError::new(format!("prefix: {prefix:?} has a part that is . or ..")));
    }
    let region = region.unwrap_or_else(|| "us-east-1".to_owned());
    Ok(Storage::S3(S3Config { bucket, region, endpoint, credentials, prefix, allow_http }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pond_tinyfs::Advise;

    fn error(yaml: &str) -> String {
        RemoteConfig::check(yaml.as_bytes()).unwrap_err().in_full()
    }

    #[test]
    fn the_two_kinds_and_what_they_leave_out() {
        let config = RemoteConfig::check(b"storage_type: local\npath: /srv/backups\n").unwrap();
        assert_eq!(config.storage, Storage::Local { path: "/srv/backups".into() });
        assert_eq!((config.compression_level, config.sync_interval), (3, Duration::from_secs(1)));

        let yaml = "storage_type: s3\nbucket: b\nendpoint: http://localhost:5000/\nallow_http: true\nkey: k\n\
                    secret: s\nprefix: /a/b/\ncompression_level: 9\nsync_interval: 0.25\n";
        let config = RemoteConfig::check(yaml.as_bytes()).unwrap();
        let Storage::S3(s3) = &config.storage else { panic!("not s3") };
        assert_eq!((s3.bucket.as_str(), s3.prefix.as_str(), s3.region.as_str()), ("b", "a/b", "us-east-1"));
        assert_eq!(s3.endpoint.as_deref(), Some("http://localhost:5000"));
        assert_eq!((config.compression_level, config.sync_interval), (9, Duration::from_millis(250)));
    }

    #[test]
    fn a_secret_is_not_shown() {
        let yaml = b"storage_type: s3\nbucket: b\nkey: k\nsecret: very-secret\n";
        let shown = format!("{:?}", RemoteConfig::check(yaml).unwrap());
        assert!(!shown.contains("very-secret"), "{shown}");
        // Nor where it is taken for something else than a text.
        for secret in ["123456789", "-12345", "18446744073709551615", "1.2345e6", "true", "[12345]"] {
            let told = error(&format!("storage_type: s3\nbucket: b\nkey: k\nsecret: {secret}\n"));
            assert!(told.contains("quotes") && !told.contains(secret) && !told.contains("2345"), "{told}");
        }
        for digits in ["123456789012345678901234567890123456789012", "0123"] {
            let yaml = format!("storage_type: s3\nbucket: b\nkey: k\nsecret: {digits}\n");
            if let Err(told) = RemoteConfig::check(yaml.as_bytes()) {
                assert!(!told.to_string().contains("123"), "{told}");
            }
        }
    }

    #[test]
    fn variables_stand_for_themselves_until_it_is_used_also_as_numbers() {
        let yaml =
            b"storage_type: local\npath: ${env:POND_NO_SUCH_PATH}\ncompression_level: ${env:POND_NO_LEVEL}\n";
        assert_eq!(RemoteConfig::check(yaml).unwrap().compression_level, 3);
        assert!(RemoteConfig::parse(yaml).unwrap_err().to_string().contains("POND_NO_"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (yaml, word) in [
            ("storage_type: local\npath: /a\nspeed: 3", "speed"),
            ("storage_type: ftp", "ftp"),
            ("storage_type: local", "path"),
            ("storage_type: local\npath: a/b", "absolute"),
            ("storage_type: local\npath: /a\nbucket: b", "bucket"),
            ("storage_type: s3\nbucket: b\npath: /a", "path"),
            ("storage_type: s3", "bucket"),
            ("storage_type: s3\nbucket: b\nkey: k", "secret"),
            ("storage_type: s3\nbucket: b\nkey: 'k '\nsecret: s", "key"),
            ("storage_type: s3\nbucket: b\nkey: \"k\\n\"\nsecret: s", "key: its text ends with a line end"),
            ("storage_type: s3\nbucket: b\nkey: k\u{fc}\nsecret: s", "key"),
            ("storage_type: s3\nbucket: b\nregion: ''", "region"),
            ("storage_type: s3\nbucket: b\nendpoint: http://x", "allow_http"),
            ("storage_type: s3\nbucket: b\nendpoint: x:5000", "endpoint"),
            ("storage_type: s3\nbucket: b\nprefix: a/../b", "prefix"),
            ("storage_type: local\npath: /a\ncompression_level: 99", "compression_level"),
            ("storage_type: local\npath: /a\ncompression_level: fast", "compression_level"),
            ("storage_type: local\npath: /a\nsync_interval: 0", "sync_interval"),
            ("- a", "storage_type"),
        ] {
            let told = error(yaml);
            assert!(told.contains(word) || yaml.starts_with('-'), "{yaml:?}: {told}");
        }
    }
}
