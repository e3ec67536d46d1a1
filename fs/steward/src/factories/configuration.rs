//! Configurations of factories: YAML, unknown keys are errors, and secrets are written `${env:NAME}`.
//!
//! What is stored, and so replicated and shown by `pond cat`, is the text with the names. The values are put in when a
//! factory runs, after the YAML was parsed, so that no value can change its structure. No text, from the file or from a
//! variable, has a line end or another control character in it: `BK=$(cat file)` and `BK` from a file of variables differ by
//! one, and libraries below may end the process for it.

use std::env::VarError;

use serde::de::DeserializeOwned;
use serde_yaml_ng::Value;

use crate::FactoryError;

const OPEN: &str = "${";
const ENV: &str = "env:";

/// What the name of a key has in it whose value is a secret.
const SECRETS: [&str; 4] = ["secret", "password", "passwd", "token"];

/// Reads a configuration for a run. `T` should say `#[serde(deny_unknown_fields)]`.
pub fn parse<T: DeserializeOwned>(configuration: &[u8]) -> Result<T, FactoryError> {
    parse_with(configuration, &|name| {
        std::env::var(name).map_err(|error| {
            FactoryError::new(match error {
                VarError::NotPresent => format!(
                    "the environment variable {name}, which the configuration names, is not set (a mounted pond has the \
                     environment of its `pond mount`)"
                ),
                VarError::NotUnicode(_) => {
                    format!("the environment variable {name}, which the configuration names, is not UTF-8")
                }
            })
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
    let mut value: Value = serde_yaml_ng::from_slice(without_mark(configuration)).map_err(unreadable)?;
    if !value.is_mapping() {
        return Err(FactoryError::new("it is not a list of settings, a line `name: value` each"));
    }
    substitute("", &mut value, lookup)?;
    serde_yaml_ng::from_value(value).map_err(invalid)
}

/// Without the byte order mark that some editors begin a file with.
fn without_mark(configuration: &[u8]) -> &[u8] {
    configuration.strip_prefix("\u{feff}".as_bytes()).unwrap_or(configuration)
}

/// Keys whose names say that they hold a secret and whose values are written down as they are, instead of as
/// `${env:NAME}`: they stay in the history, and in every backup of it.
pub fn written_secrets(configuration: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    if let Ok(value) = serde_yaml_ng::from_slice(without_mark(configuration)) {
        find_secrets(&value, &mut found);
    }
    found
}

fn find_secrets(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Mapping(map) => {
            for (key, value) in map {
                let name = key.as_str().unwrap_or_default();
                let is_secret = SECRETS.iter().any(|secret| name.to_ascii_lowercase().contains(secret));
                match value {
                    Value::String(text) if is_secret && !text.is_empty() && !text.contains(OPEN) => {
                        found.push(name.to_owned());
                    }
                    Value::Number(_) if is_secret => found.push(name.to_owned()),
                    _ => find_secrets(value, found),
                }
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| find_secrets(item, found)),
        Value::Tagged(tagged) => find_secrets(&tagged.value, found),
        _ => {}
    }
}

/// Any value is a `Value`, but for a number of more than 64 bits, which the error would repeat: it may be a secret.
fn unreadable(error: serde_yaml_ng::Error) -> FactoryError {
    let text = error.to_string();
    if !text.contains("invalid type") && !text.contains("invalid value") {
        return FactoryError::new(text);
    }
    let line = error.location().map_or_else(String::new, |place| format!(" in line {}", place.line()));
    FactoryError::new(format!("there is a number{line} with too many digits"))
        .advise("a text is put in quotes")
}

fn substitute(key: &str, value: &mut Value, lookup: &Lookup<'_>) -> Result<(), FactoryError> {
    match value {
        Value::String(text) => {
            refuse_control(text, || format!("{key}: its text"))?;
            if text.contains(OPEN) {
                *text = expand(key, text, lookup)?;
            }
        }
        Value::Sequence(items) => items.iter_mut().try_for_each(|item| substitute(key, item, lookup))?,
        Value::Mapping(map) => {
            for (name, item) in map.iter_mut() {
                substitute(name.as_str().unwrap_or(key), item, lookup)?;
            }
        }
        Value::Tagged(tagged) => substitute(key, &mut tagged.value, lookup)?,
        _ => {}
    }
    Ok(())
}

/// Does not repeat the text, which may be a secret.
fn refuse_control(text: &str, whose: impl Fn() -> String) -> Result<(), FactoryError> {
    let Some(at) = text.find(char::is_control) else { return Ok(()) };
    let whose = whose();
    Err(match &text[at..] {
        "\n" | "\r\n" | "\r" => {
            FactoryError::new(format!("{whose} ends with a line end")).advise("set it without one")
        }
        rest if rest.starts_with(['\n', '\r']) => {
            FactoryError::new(format!("{whose} has more than one line"))
        }
        _ => FactoryError::new(format!("{whose} has a control character in it")),
    })
}

fn expand(key: &str, text: &str, lookup: &Lookup<'_>) -> Result<String, FactoryError> {
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
        let found = lookup(name)?;
        refuse_control(&found, || format!("{key}: the environment variable {name}, which it names,"))?;
        out.push_str(&found);
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
        let parsed: Example = parse_with(b"url: '${env:X}'", &|_| Ok("a, speed: 3".to_owned())).unwrap();
        assert_eq!(parsed.url, "a, speed: 3");
    }

    #[test]
    fn control_characters_are_refused_naming_key_and_variable_and_never_the_value() {
        for (value, word) in [
            ("hush\n", "line end"),
            ("hush\r\n", "line end"),
            ("hush\nx: y", "one line"),
            ("hush\u{7f}", "control"),
        ] {
            let error = parse_with::<Example>(b"url: x\nkeys: ['${env:BK}']", &|_| Ok(value.to_owned()));
            let error = error.unwrap_err().to_string();
            assert!(["keys", "BK", word].iter().all(|word| error.contains(word)), "{error}");
            assert!(!error.contains("hush"), "{error}");
            let quoted = serde_json::json!(value).to_string().replace('\u{7f}', "\\x7f");
            let yaml = format!("url: {quoted}\n");
            let error = check::<Example>(yaml.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("url") && error.contains(word) && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        let parsed: Example = check("\u{feff}url: x\n".as_bytes()).unwrap();
        assert_eq!(parsed.url, "x");
    }

    #[test]
    fn secrets_that_are_written_down_are_found() {
        let yaml = b"key: k\nsecret: hush\nmore:\n- api_token: '12'\n- Password: 17\n";
        assert_eq!(written_secrets(yaml), ["secret", "api_token", "Password"]);
        assert!(written_secrets(b"secret: ${env:S}\nurl: x\npassword: ''\n").is_empty());
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
