//! How much a suite does: little by default, so that all of them together stay a matter of minutes, and as much as one
//! asks for through environment variables (listed in this package's README).

use std::env;
use std::str::FromStr;

/// The number in an environment variable, or `default` if it is not set.
pub fn scaled<T: FromStr>(variable: &str, default: T) -> T {
    match env::var(variable) {
        Err(env::VarError::NotPresent) => default,
        Err(error) => panic!("{variable}: {error}"),
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
    }
}
