//! What a store said, in words for people: the cause, without the layers that it came through and without markup.

use std::error::Error;

/// The cause of an error: what a server answered, or else what lies deepest.
pub(super) fn plain(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    loop {
        if let Some(answer) = answer(&deepest.to_string()) {
            return answer;
        }
        match deepest.source() {
            Some(cause) => deepest = cause,
            None => return without_number(&deepest.to_string()),
        }
    }
}

/// What an answer of an S3 server says, of which `object_store` gives the status and the body as text.
fn answer(text: &str) -> Option<String> {
    let (_, answer) = text.split_once("non-2xx status code: ")?;
    let (status, body) = answer.split_once(": ").unwrap_or((answer, ""));
    let words: Vec<&str> = [element(body, "Code"), element(body, "Message")].into_iter().flatten().collect();
    let status = status.trim();
    Some(match words.is_empty() {
        true => format!("the server answered {status}"),
        false => format!("the server answered {status} ({})", words.join(": ").trim_end_matches('.')),
    })
}

/// Text of the first element of this name.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.trim()).filter(|text| !text.is_empty())
}

/// The system's words without the " (os error N)" that Rust adds to them.
fn without_number(text: &str) -> String {
    match text.rsplit_once(" (os error ") {
        Some((words, number)) if number.ends_with(')') => words.to_owned(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn generic(source: impl Into<Box<dyn Error + Send + Sync>>) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: source.into() }
    }

    #[test]
    fn an_answer_is_told_without_its_markup() {
        let text = "Error performing PUT http://127.0.0.1:1/b/x in 2ms - Server returned non-2xx status code: 403 Forbidden: \
                    <?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>The signature is wrong.</Message></Error>";
        let said = "the server answered 403 Forbidden (SignatureDoesNotMatch: The signature is wrong)";
        assert_eq!(plain(&generic(text)), said);
        let short = "Server returned non-2xx status code: 503 Slow Down";
        assert_eq!(plain(&generic(short)), "the server answered 503 Slow Down");
        let missing = object_store::Error::NotFound { path: "x".into(), source: text.into() };
        assert_eq!(plain(&missing), said);
    }

    #[test]
    fn of_a_disk_or_a_network_the_systems_words_are_told() {
        let full = || io::Error::from_raw_os_error(28);
        assert_eq!(plain(&generic(full())), "No space left on device");
        assert_eq!(plain(&full()), "No space left on device");
        assert_eq!(plain(&generic("the line is cut")), "the line is cut");
    }
}
