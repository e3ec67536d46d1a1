//! Configurations of factories: YAML, unknown keys are errors, and secrets are written `${env:NAME}`.
//!
//! What is stored, and so replicated and shown by `pond cat`, is the text with the names. The values are put in when a
//! factory runs, after the YAML was parsed, so that no value can change its structure.

use serde::de::DeserializeOwned;
use serde_yaml_ng::Value;

use crate::FactoryError;

const OPEN: &str = "${";
const ENV: &str = "env:";

/// Reads a configuration for a run. `T` should say `#[serde(deny_unknown_fields)]`.
pub fn parse<T: DeserializeOwned>(configuration: &[u8]) -> Result<T, FactoryError> {
    parse_with(configuration, &|name| {
        std::env::var(name).map_err(|error| {
            FactoryError::new(format!(
                "the environment variable {name}, which the configuration names: {error}"
            ))
        })
    })
}

/// Reads a configuration to see whether it is valid; the environment variables need not be set, and `${env:NAME}`
/// stands for itself.
pub fn check<T: DeserializeOwned>(configuration: &[u8]) -> Result<T, FactoryError> {
    parse_with(configuration, &|name| Ok(format!("{OPEN}{ENV}{name}}}")))
}

type Lookup<'a> = dyn Fn(&str) -> Result<String, FactoryError> + 'a;

fn parse_with<T: DeserializeOwned>(configuration: &[u8], lookup: &Lookup<'_>) -> Result<T, FactoryError> {
    let invalid = |error: serde_yaml_ng::Error| FactoryError::new(error.to_string());
    // First as it stands, because these errors know the line.
    let mut value: Value = serde_yaml_ng::from_slice(configuration).map_err(unreadable)?;
    substitute(&mut value, lookup)?;
    serde_yaml_ng::from_value(value).map_err(invalid)
}

/// Any value is a `Value`, but for a number of more than 64 bits, which the error would repeat: it may be a secret.
fn unreadable(error: serde_yaml_ng::Error) -> FactoryError {
    let text = error.to_string();
    if !text.contains("invalid type") && !text.contains("invalid value") {
        return FactoryError::new(text);
    }
    let line = error.location().map_or_else(String::new, |place| format!(" in line {}", place.line()));
    FactoryError::new(format!("there is a number{line} with too many digits; a text is put in quotes"))
}

fn substitute(value: &mut Value, lookup: &Lookup<'_>) -> Result<(), FactoryError> {
    match value {
        Value::String(text) if text.contains(OPEN) => *text = expand(text, lookup)?,
        Value::Sequence(items) => items.iter_mut().try_for_each(|item| substitute(item, lookup))?,
        Value::Mapping(map) => map.iter_mut().try_for_each(|(_, item)| substitute(item, lookup))?,
        Value::Tagged(tagged) => substitute(&mut tagged.value, lookup)?,
        _ => {}
    }
    Ok(())
}

fn expand(text: &str, lookup: &Lookup<'_>) -> Result<String, FactoryError> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(OPEN) {
        out.push_str(&rest[..start]);
        let inner = &rest[start + OPEN.len()..];
        let name = inner
            .find('}')
            .map(|end| &inner[..end])
            .and_then(|inner| inner.strip_prefix(ENV))
            .filter(|name| !name.is_empty())
            .ok_or_else(|| {
                FactoryError::new(format!(
                    "{text:?}: after `{OPEN}` there must be `{ENV}NAME}}`, and nothing else"
                ))
            })?;
        out.push_str(&lookup(name)?);
        rest = &inner[ENV.len() + name.len() + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        url: String,
        #[serde(default)]
        keys: Vec<String>,
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = check::<Example>(b"url: x\nspeed: 3\n").unwrap_err();
        assert!(error.to_string().contains("speed"), "{error}");
    }

    #[test]
    fn secrets_are_put_in_when_it_runs_and_not_when_it_is_checked() {
        let text = b"url: https://${env:HOME}@host/${env:HOME}\nkeys: ['${env:HOME}']\n";
        let home = std::env::var("HOME").unwrap();
        let run: Example = parse(text).unwrap();
        assert_eq!(run, Example { url: format!("https://{home}@host/{home}"), keys: vec![home] });
        let checked: Example = check(text).unwrap();
        assert_eq!(checked.keys, ["${env:HOME}"]);
    }

    #[test]
    fn no_error_repeats_a_number_that_may_be_a_secret() {
        for digits in
            ["99999999999999999999", "-99999999999999999999", "340282366920938463463374607431768211455"]
        {
            for text in [format!("url: {digits}\n"), format!("keys: [{digits}]\n"), format!("{digits}: x\n")]
            {
                let error = check::<Example>(text.as_bytes()).unwrap_err().to_string();
                assert!(!error.contains("9999") && !error.contains("3402"), "{error}");
            }
        }
    }

    #[test]
    fn a_value_cannot_change_the_structure() {
        let parsed: Example = parse_with(b"url: '${env:X}'", &|_| Ok("a\nspeed: 3".to_owned())).unwrap();
        assert_eq!(parsed.url, "a\nspeed: 3");
    }

    #[test]
    fn a_missing_variable_is_named() {
        let error = parse::<Example>(b"url: ${env:POND_NO_SUCH_VARIABLE}").unwrap_err();
        assert!(error.to_string().contains("POND_NO_SUCH_VARIABLE"), "{error}");
    }

    #[test]
    fn any_other_form_is_an_error() {
        for text in ["url: '${HOME}'", "url: '${env:}'", "url: '${env:HOME'"] {
            assert!(check::<Example>(text.as_bytes()).is_err(), "{text}");
        }
    }
}
