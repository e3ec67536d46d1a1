//! How files of versions are called as objects.

use std::fmt::Write;

use object_store::path::Path;
use pond_oplog::Version;

/// The object's name: `VERSION/PATH`. Bytes that an object's name cannot have, or that are no text, are written `%FF`.
pub(crate) fn of(version: Version, path: &[u8]) -> Path {
    let mut text = version.to_string();
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        text.push('/');
        for &byte in name {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'=' => text.push(byte.into()),
                // Writing to a String cannot fail.
                _ => drop(write!(text, "%{byte:02X}")),
            }
        }
    }
    // Nothing is left that would have to be escaped, and no name is empty, `.` or `..`.
    Path::parse(&text).unwrap_or_else(|_| Path::from(text))
}

/// The version and the path from the root that an object's name stands for.
pub(crate) fn parse(location: &Path) -> Option<(Version, Vec<u8>)> {
    let (version, rest) = match location.as_ref().split_once('/') {
        Some((version, rest)) => (version, rest),
        None => (location.as_ref(), ""),
    };
    let mut path = b"/".to_vec();
    let mut bytes = rest.bytes();
    while let Some(byte) = bytes.next() {
        path.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    Some((Version(version.parse().ok()?), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_file_is_one_of_an_object_and_comes_back() {
        for path in [&b"/a/b.parquet"[..], b"/k=1/a b%2F#?*", b"/\xff\xfe/gr\xc3\xbcn", b"/..a/.b", b"/"] {
            let object = of(Version(42), path);
            assert!(object.as_ref().starts_with("42"), "{object}");
            assert_eq!(parse(&object), Some((Version(42), path.to_vec())), "{object}");
        }
        assert_eq!(parse(&Path::from("a/b")), None);
    }
}
