//! The command line as the history keeps it: without secrets.
//!
//! Configurations hold secrets only as `${env:NAME}`, so what could give one away is an argument: a password in a
//! URL, or the value of something that is named like a secret.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use crate::path::escape;

/// What stands in a secret's place.
const REDACTED: &str = "***";

/// Parts of names whose values are secret.
const SECRET_NAMES: [&str; 6] = ["password", "passwd", "secret", "token", "credential", "key"];

/// Joins the arguments to one line, with this program's name first and secrets blotted out.
pub fn command_line(arguments: &[OsString]) -> String {
    format!("pond {}", words(arguments)).trim_end().to_owned()
}

/// Joins a program's name and its arguments to one line, with secrets blotted out.
pub fn words(arguments: &[OsString]) -> String {
    let mut words = Vec::new();
    let mut value_is_secret = false;
    for argument in arguments {
        let word = escape(argument.as_bytes());
        words.push(if value_is_secret { REDACTED.to_owned() } else { quote(&redact(&word)) });
        // `--token X` as well as `--token=X`.
        value_is_secret = word.starts_with("--") && !word.contains('=') && is_secret(&word);
    }
    words.join(" ")
}

fn redact(word: &str) -> String {
    if let Some((name, _)) = word.split_once('=')
        && is_secret(name)
    {
        return format!("{name}={REDACTED}");
    }
    if let Some((scheme, rest)) = word.split_once("://") {
        let end = rest.find('/').unwrap_or(rest.len());
        if let Some(at) = rest[..end].rfind('@') {
            return format!("{scheme}://{REDACTED}{}", &rest[at..]);
        }
    }
    word.to_owned()
}

fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

fn quote(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@,+%*\\".contains(&byte) || byte >= 0x80;
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arguments: &[&str]) -> String {
        command_line(&arguments.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_command_stays_readable() {
        assert_eq!(line(&["copy", "host:a b", "/c@5"]), "pond copy 'host:a b' /c@5");
        assert_eq!(line(&["rm", "it's", ""]), "pond rm 'it'\\''s' ''");
    }

    #[test]
    fn secrets_do_not_enter_the_history() {
        assert_eq!(line(&["run", "/x", "--token=abc"]), "pond run /x --token=***");
        assert_eq!(line(&["run", "/x", "--password", "abc", "y"]), "pond run /x --password *** y");
        assert_eq!(
            line(&["run", "/x", "AWS_SECRET_ACCESS_KEY=abc"]),
            "pond run /x AWS_SECRET_ACCESS_KEY=***"
        );
        assert_eq!(line(&["run", "/x", "s3://u:p@host/b@c"]), "pond run /x s3://***@host/b@c");
        assert_eq!(line(&["run", "/x", "https://host/a@b"]), "pond run /x https://host/a@b");
    }
}
