//! The paths that commands take, and how they are written.
//!
//! | written | means |
//! |---|---|
//! | `notes/today`, `/notes/today` | a path inside the pond, always from its root |
//! | `notes/today@42` | the same as version 42 had it (where a command only reads) |
//! | `notes/today@-10m` | the same as the version of ten minutes ago had it; `At::parse` knows what may stand there |
//! | `@42` | the root, as version 42 had it |
//! | `notes/a@5@tip` | the file named `a@5`, as it is now |
//! | `host:/tmp/x`, `host:x` | a path outside the pond; relative ones from the current directory |
//!
//! Names are bytes, not text. Nothing here looks at a filesystem.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use pond_oplog::{At, AtError};

/// A path as it was given, from a root: it may hold `..`, and its symlinks are not resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenPath {
    components: Vec<Vec<u8>>,
    ending: Ending,
}

/// How a path was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// `a`
    Name,
    /// `a/`: the name of a directory.
    Slash,
    /// `/`, `.`, `a/.`, `a/..`: a directory, but not by its name.
    Dot,
}

impl GivenPath {
    /// Reads a path as it was typed.
    pub fn new(text: &[u8]) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a path cannot be empty; the pond's root is /".into());
        }
        let names = || text.split(|&byte| byte == b'/').filter(|name| !name.is_empty());
        let ending = match names().next_back() {
            None | Some(b"." | b"..") => Ending::Dot,
            Some(_) if text.ends_with(b"/") => Ending::Slash,
            Some(_) => Ending::Name,
        };
        let components = names().filter(|name| *name != b".").map(<[u8]>::to_vec).collect();
        Ok(GivenPath { components, ending })
    }

    /// A path of the host, from the current directory if it is relative.
    pub fn on_host(path: &Path) -> Result<Self, String> {
        let here = std::env::current_dir().map_err(|error| format!("no current directory: {error}"))?;
        GivenPath::new(here.join(path).as_os_str().as_bytes())
    }

    /// The names from the root down; `..` may be among them.
    pub fn components(&self) -> &[Vec<u8>] {
        &self.components
    }

    /// Whether it was written as a directory: `a/`, `a/.`, `..`, `/`.
    pub fn is_directory_form(&self) -> bool {
        self.ending != Ending::Name
    }

    /// Its last name, if it ends in one: not for `/`, `a/.` and `a/..`.
    pub fn name(&self) -> Option<&[u8]> {
        match self.ending {
            Ending::Dot => None,
            Ending::Name | Ending::Slash => self.components.last().map(Vec::as_slice),
        }
    }

    /// The path of its first name, of its first two, and so on up to itself.
    pub fn prefixes(&self) -> impl Iterator<Item = GivenPath> {
        (1..=self.components.len())
            .map(|end| GivenPath { components: self.components[..end].to_vec(), ending: Ending::Name })
    }

    /// The path to whatever holds the last name.
    pub fn parent(&self) -> GivenPath {
        let end = self.components.len().saturating_sub(1);
        GivenPath { components: self.components[..end].to_vec(), ending: Ending::Dot }
    }
}

impl fmt::Display for GivenPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&join(&self.components)))
    }
}

/// An absolute path without symlinks (but perhaps its last component), `.` or `..`, in a pond
/// or on the host.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct TreePath {
    components: Vec<Vec<u8>>,
}

impl TreePath {
    /// The root.
    pub fn root() -> Self {
        TreePath::default()
    }

    /// From an absolute path without symlinks, `.` and `..`.
    pub fn from_bytes(path: &[u8]) -> Self {
        let components =
            path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
        TreePath { components }
    }

    /// What was typed, where no tree says what `..` and symlinks lead to.
    ///
    /// # Errors
    ///
    /// Why not, if there is a `..` in it.
    pub fn of_names(path: &GivenPath) -> Result<Self, String> {
        match path.components().iter().any(|name| name == b"..") {
            true => {
                Err(format!("{path} holds .., which leads elsewhere in each version; give the path without"))
            }
            false => Ok(TreePath { components: path.components().to_vec() }),
        }
    }

    /// The entry of this name in the directory that this path names.
    pub fn join(&self, name: &[u8]) -> TreePath {
        let mut components = self.components.clone();
        components.push(name.to_vec());
        TreePath { components }
    }

    /// The directory that holds it; the root's is the root.
    pub fn parent(&self) -> TreePath {
        let end = self.components.len().saturating_sub(1);
        TreePath { components: self.components[..end].to_vec() }
    }

    /// The last name; none for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.components.last().map(Vec::as_slice)
    }

    /// As bytes, from the root: `/a/b`.
    pub fn to_bytes(&self) -> Vec<u8> {
        join(&self.components)
    }

    /// As bytes, below some directory: `a/b`; empty for the root.
    pub fn to_relative(&self) -> Vec<u8> {
        self.components.join(&b'/')
    }

    /// Whether it is `other` or lies below it.
    pub fn starts_with(&self, other: &TreePath) -> bool {
        self.components.starts_with(&other.components)
    }

    /// The names that lead from a directory above it to it.
    pub fn names_below(&self, above: &TreePath) -> impl Iterator<Item = &[u8]> {
        self.components.iter().skip(above.components.len()).map(Vec::as_slice)
    }

    /// Takes the last name away.
    pub fn pop(&mut self) {
        self.components.pop();
    }

    /// Adds a name.
    pub fn push(&mut self, name: &[u8]) {
        self.components.push(name.to_vec());
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.to_bytes()))
    }
}

fn join(components: &[Vec<u8>]) -> Vec<u8> {
    if components.is_empty() {
        return b"/".to_vec();
    }
    let mut path = Vec::new();
    for name in components {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    path
}

/// Which state of the pond is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// As it is now, uncommitted changes of a mount included.
    Now,
    /// As a version had it.
    At(At),
}

/// A path to read from: inside the pond, at some version, or outside it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadPath {
    /// `PATH[@V]`
    Pond(GivenPath, When),
    /// `host:PATH`
    Host(PathBuf),
}

/// A path to change: inside the pond or outside it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WritePath {
    /// `PATH`
    Pond(GivenPath),
    /// `host:PATH`
    Host(PathBuf),
}

impl ReadPath {
    /// Reads `PATH[@V]` or `host:PATH`.
    pub fn parse(text: OsString) -> Result<Self, String> {
        match host(&text)? {
            Some(path) => Ok(ReadPath::Host(path)),
            None => {
                let (path, when) = split_version(text.as_bytes())?;
                Ok(ReadPath::Pond(GivenPath::new(path)?, when))
            }
        }
    }
}

impl fmt::Display for ReadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadPath::Pond(path, When::Now) => path.fmt(f),
            ReadPath::Pond(path, When::At(at)) => write!(f, "{path}@{at}"),
            ReadPath::Host(path) => write!(f, "host:{}", escape(path.as_os_str().as_bytes())),
        }
    }
}

impl WritePath {
    /// Reads `PATH` or `host:PATH`. An `@5` at the end is part of the name: history cannot be changed.
    pub fn parse(text: OsString) -> Result<Self, String> {
        match host(&text)? {
            Some(path) => Ok(WritePath::Host(path)),
            None => GivenPath::new(text.as_bytes()).map(WritePath::Pond),
        }
    }
}

impl fmt::Display for WritePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WritePath::Pond(path) => path.fmt(f),
            WritePath::Host(path) => write!(f, "host:{}", escape(path.as_os_str().as_bytes())),
        }
    }
}

/// Reads a path inside the pond that is to be changed; `host:` makes no sense there.
pub fn parse_inside(text: OsString) -> Result<GivenPath, String> {
    match WritePath::parse(text)? {
        WritePath::Pond(path) => Ok(path),
        WritePath::Host(_) => Err("this must be a path inside the pond, not host:".into()),
    }
}

/// A glob of paths inside the pond, and the version that it looks at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GlobPath {
    /// The pattern or plain path.
    pub pattern: Vec<u8>,
    /// When.
    pub when: When,
}

impl GlobPath {
    /// Reads `GLOB[@V]`.
    pub fn parse(text: OsString) -> Result<Self, String> {
        if host(&text)?.is_some() {
            return Err("this must be a path inside the pond; use ls for the host's files".into());
        }
        let (pattern, when) = split_version(text.as_bytes())?;
        GivenPath::new(pattern)?;
        Ok(GlobPath { pattern: pattern.to_vec(), when })
    }
}

fn host(text: &OsStr) -> Result<Option<PathBuf>, String> {
    match text.as_bytes().strip_prefix(b"host:") {
        Some(b"") => Err("host: needs a path after it, as host:/tmp/file".into()),
        Some(path) => Ok(Some(PathBuf::from(OsString::from_vec(path.to_vec())))),
        None => Ok(None),
    }
}

/// Takes `@V` or `@tip` off the end. What is written in no form of a version is part of the name. A version of nothing is
/// one of the root.
fn split_version(text: &[u8]) -> Result<(&[u8], When), String> {
    let Some(at) = text.iter().rposition(|&byte| byte == b'@') else {
        return Ok((text, When::Now));
    };
    let (path, version) = (&text[..at], &text[at + 1..]);
    if version == b"tip" {
        return Ok((path, When::Now));
    }
    let path = if path.is_empty() { &b"/"[..] } else { path };
    match std::str::from_utf8(version).map(At::parse) {
        Ok(Ok(at)) => Ok((path, When::At(at))),
        Ok(Err(error @ AtError::NotOneTime { .. })) => Err(error.to_string()),
        Ok(Err(AtError::NoForm(_) | AtError::BadTag(_))) | Err(_) => Ok((text, When::Now)),
    }
}

/// Bytes for people: text as it is, control characters, backslashes and what is not UTF-8 escaped.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                other if other.is_control() => {
                    let mut buffer = [0; 4];
                    escape_bytes(other.encode_utf8(&mut buffer).as_bytes(), &mut out);
                }
                other => out.push(other),
            }
        }
        escape_bytes(chunk.invalid(), &mut out);
    }
    out
}

fn escape_bytes(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        // Writing to a String cannot fail.
        write!(out, "\\x{byte:02x}").ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pond_oplog::Version;

    fn read(text: &[u8]) -> ReadPath {
        ReadPath::parse(OsString::from_vec(text.to_vec())).unwrap()
    }

    fn inside(text: &str) -> GivenPath {
        GivenPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn paths_start_at_the_root_with_or_without_a_slash() {
        assert_eq!(inside("a/b").components(), inside("//a/./b").components());
        assert_eq!(inside("a/b").to_string(), "/a/b");
        assert_eq!(inside("/").to_string(), "/");
        assert!(GivenPath::new(b"").is_err());
    }

    #[test]
    fn dot_dot_is_left_to_whoever_knows_the_symlinks() {
        assert_eq!(inside("a/../b").components().len(), 3);
        assert_eq!(inside("a/..").name(), None);
        assert_eq!(inside("/").name(), None);
        assert_eq!(inside("a/b").name(), Some(&b"b"[..]));
        assert_eq!(inside("a/").name(), Some(&b"a"[..]));
        assert_eq!(inside("a/.").name(), None);
        assert!(inside("a/").is_directory_form() && !inside("a").is_directory_form());
    }

    #[test]
    fn a_version_is_what_follows_the_last_at_sign_if_it_is_written_as_one() {
        let version = |number| When::At(At::Version(Version(number)));
        assert_eq!(read(b"a@42"), ReadPath::Pond(inside("a"), version(42)));
        assert_eq!(read(b"a@42@tip"), ReadPath::Pond(inside("a@42"), When::Now));
        assert_eq!(read(b"user@host"), ReadPath::Pond(inside("user@host"), When::Now));
        assert_eq!(read(b"a@"), ReadPath::Pond(inside("a@"), When::Now));
        assert_eq!(read(b"a@+1"), ReadPath::Pond(inside("a@+1"), When::Now));
        assert_eq!(read(b"/@0"), ReadPath::Pond(inside("/"), version(0)));
        assert_eq!(read(b"@0"), ReadPath::Pond(inside("/"), version(0)));
        let huge = b"a@99999999999999999999999";
        assert_eq!(read(huge), ReadPath::Pond(GivenPath::new(huge).unwrap(), When::Now));
        assert_eq!(read(b"a@start"), ReadPath::Pond(inside("a"), When::At(At::Start)));
        let time = When::At(At::Timestamp(1_795_199_415_000_000));
        assert_eq!(read(b"a@2026-11-20T18:30:15Z"), ReadPath::Pond(inside("a"), time));
        assert!(matches!(read(b"a@-10m"), ReadPath::Pond(_, When::At(At::Timestamp(_)))));
        assert_eq!(read(b"a@2026-13-01"), ReadPath::Pond(inside("a@2026-13-01"), When::Now));
    }

    #[test]
    fn host_paths_are_outside_and_have_no_versions() {
        assert_eq!(read(b"host:/tmp/a@5"), ReadPath::Host("/tmp/a@5".into()));
        assert_eq!(read(b"host:a"), ReadPath::Host("a".into()));
        assert!(ReadPath::parse("host:".into()).is_err());
        assert!(parse_inside("host:/a".into()).is_err());
    }

    #[test]
    fn a_path_to_change_keeps_its_at_sign() {
        assert_eq!(WritePath::parse("a@5".into()), Ok(WritePath::Pond(inside("a@5"))));
    }

    #[test]
    fn names_that_are_not_text_are_escaped_for_people() {
        assert_eq!(escape("grün/a b".as_bytes()), "grün/a b");
        assert_eq!(escape(b"a\xff\n\\\x1b"), "a\\xff\\n\\\\\\x1b");
        assert_eq!(escape("\u{85}".as_bytes()), "\\xc2\\x85");
    }

    #[test]
    fn a_tree_path_goes_down_and_up() {
        let path = TreePath::root().join(b"a").join(b"b");
        assert_eq!(path.to_bytes(), b"/a/b");
        assert_eq!(path.to_relative(), b"a/b");
        assert_eq!(path.parent().parent(), TreePath::root());
        assert_eq!(TreePath::from_bytes(b"/a/b"), path);
        assert_eq!(TreePath::root().name(), None);
    }
}
