//! Patterns of paths: `*`, `?`, `[…]`, `{…}` within a name, and `**` for any number of directories.
//!
//! A pattern is taken apart into names, and what has been matched of it is a set of positions in it. So a search visits each
//! directory once, whatever many `**` there are, and never looks at a path as a whole.

use globset::{GlobBuilder, GlobMatcher};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::path::{GivenPath, TreePath};

/// Most patterns that braces which hold a `/` may stand for.
const MOST_ALTERNATIVES: usize = 256;

/// Whether a text has the looks of a pattern.
pub fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| b"*?[{".contains(byte))
}

/// One name of a pattern.
enum Part {
    /// Directories, also none; at the end anything that is below.
    AnyDepth,
    Name(GlobMatcher),
}

/// A pattern, taken apart.
pub struct Pattern {
    /// The directory below which all matches lie.
    pub start: GivenPath,
    /// Of each alternative its names.
    alternatives: Vec<Vec<Part>>,
}

/// What may come next: positions in the alternatives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions(Vec<(usize, usize)>);

impl Positions {
    /// Whether anything below can match.
    pub fn go_on(&self) -> bool {
        !self.0.is_empty()
    }
}

impl Pattern {
    /// From what was typed; fails with what is wrong with it.
    pub fn new(given: &GivenPath) -> Result<Self, String> {
        let components = given.components();
        let plain = components.iter().take_while(|name| !is_pattern(name)).count();
        let mut start = b"/".to_vec();
        start.extend(components[..plain].join(&b'/'));
        let rest = components[plain..].join(&b'/');
        let text = std::str::from_utf8(&rest).map_err(|_| "a pattern must be UTF-8")?;
        let mut alternatives = Vec::new();
        for alternative in without_slashes_in_braces(text)? {
            let names = alternative.split('/').filter(|name| !name.is_empty());
            alternatives.push(names.map(part).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(Pattern { start: GivenPath::new(&start)?, alternatives })
    }

    /// Where a search begins.
    pub fn begin(&self) -> Positions {
        let mut positions = Positions(Vec::new());
        (0..self.alternatives.len()).for_each(|alternative| self.reach(&mut positions, alternative, 0));
        positions
    }

    /// Goes on with a name: what may come below it, and whether the path that ends with it matches.
    pub fn step(&self, from: &Positions, name: &[u8]) -> (Positions, bool) {
        let mut next = Positions(Vec::new());
        let mut matches = false;
        for &(alternative, position) in &from.0 {
            let parts = &self.alternatives[alternative];
            let is_last = position + 1 == parts.len();
            match &parts[position] {
                Part::AnyDepth => {
                    matches |= is_last;
                    self.reach(&mut next, alternative, position);
                }
                Part::Name(matcher) if matcher.is_match(OsStr::from_bytes(name)) => {
                    matches |= is_last;
                    self.reach(&mut next, alternative, position + 1);
                }
                Part::Name(_) => {}
            }
        }
        (next, matches)
    }

    /// Adds a position, and those that it stands for as well: `**` may be no directory at all, but at the end.
    fn reach(&self, positions: &mut Positions, alternative: usize, mut position: usize) {
        let parts = &self.alternatives[alternative];
        while position < parts.len() && !positions.0.contains(&(alternative, position)) {
            positions.0.push((alternative, position));
            match &parts[position] {
                Part::AnyDepth => position += 1,
                Part::Name(_) => break,
            }
        }
    }
}

/// A pattern, or a path and what is below it.
pub struct Matching {
    pattern: Pattern,
    start: TreePath,
    is_plain: bool,
}

impl Matching {
    /// From what was typed; fails with what is wrong with it.
    pub fn new(glob: &OsStr) -> Result<Self, String> {
        let given = GivenPath::new(glob.as_bytes())?;
        let pattern = Pattern::new(&given)?;
        let start = TreePath::of_names(&pattern.start)?;
        Ok(Matching { is_plain: !is_pattern(glob.as_bytes()), pattern, start })
    }

    /// Whether it matches, or lies below what is named.
    pub fn matches(&self, path: &[u8]) -> bool {
        let path = TreePath::from_bytes(path);
        if !path.starts_with(&self.start) {
            return false;
        }
        if self.is_plain {
            return true;
        }
        let (mut at, mut matched) = (self.pattern.begin(), false);
        for name in path.names_below(&self.start) {
            (at, matched) = self.pattern.step(&at, name);
        }
        matched
    }
}

fn part(name: &str) -> Result<Part, String> {
    if name == "**" {
        return Ok(Part::AnyDepth);
    }
    let glob = GlobBuilder::new(name).literal_separator(true).build();
    Ok(Part::Name(glob.map_err(|error| error.kind().to_string())?.compile_matcher()))
}

/// The pattern with each brace that holds a `/` replaced by each of what it stands for: what is left of them concerns
/// single names.
fn without_slashes_in_braces(text: &str) -> Result<Vec<String>, String> {
    let mut todo = vec![text.to_owned()];
    let mut done = Vec::new();
    while let Some(text) = todo.pop() {
        let Some((open, close, commas)) = outermost_brace(&text) else {
            done.push(text);
            continue;
        };
        let mut from = open + 1;
        for end in commas.into_iter().chain([close]) {
            todo.push(format!("{}{}{}", &text[..open], &text[from..end], &text[close + 1..]));
            from = end + 1;
        }
        if todo.len() + done.len() > MOST_ALTERNATIVES {
            return Err(format!("its braces stand for more than {MOST_ALTERNATIVES} patterns"));
        }
    }
    Ok(done)
}

/// The first outermost brace that holds a `/`: its ends, and the commas that part it.
fn outermost_brace(text: &str) -> Option<(usize, usize, Vec<usize>)> {
    let (mut depth, mut open, mut commas, mut in_class, mut escaped) = (0usize, 0, Vec::new(), false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'[' => in_class = true,
            b']' => in_class = false,
            _ if in_class => {}
            b'{' => {
                depth += 1;
                if depth == 1 {
                    (open, commas) = (at, Vec::new());
                }
            }
            b',' if depth == 1 => commas.push(at),
            b'}' if depth > 0 => {
                depth -= 1;
                if depth == 0 && text[open..at].contains('/') {
                    return Some((open, at, commas));
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(pattern: &str, path: &str) -> bool {
        let pattern = Pattern::new(&GivenPath::new(pattern.as_bytes()).unwrap()).unwrap();
        let start = pattern.start.to_string();
        let Some(relative) = path.strip_prefix(start.trim_end_matches('/')) else { return false };
        let (mut positions, mut matches) = (pattern.begin(), false);
        for name in relative.split('/').filter(|name| !name.is_empty()) {
            (positions, matches) = pattern.step(&positions, name.as_bytes());
        }
        matches
    }

    #[test]
    fn a_star_stays_within_a_name_and_two_cross_directories() {
        assert!(matching("*.txt", "/a.txt"));
        assert!(!matching("*.txt", "/d/a.txt"));
        assert!(matching("**/*.txt", "/a.txt") && matching("**/*.txt", "/d/e/a.txt"));
        assert!(matching("/d/*/a", "/d/e/a") && !matching("/d/*/a", "/d/e/f/a"));
        assert!(matching("d/**", "/d/e/f") && matching("d/**", "/d/e") && !matching("d/**", "/d"));
        assert!(matching("d/{a,b}/[xy]", "/d/b/y"));
        assert!(matching("*", "/.hidden"));
        assert!(matching("d/**/**/a/**/b", "/d/a/b") && matching("d/**/**/a/**/b", "/d/x/a/y/a/z/b"));
        assert!(!matching("d/**/**/a/**/b", "/d/x/b"));
    }

    #[test]
    fn braces_may_hold_directories() {
        let pattern = "{a/b,c}/{x,y/z}";
        for path in ["/a/b/x", "/a/b/y/z", "/c/x", "/c/y/z"] {
            assert!(matching(pattern, path), "{path}");
        }
        assert!(!matching(pattern, "/a/x") && !matching(pattern, "/c/z"));
        assert!(matching("{[{],x/y}", "/{") && matching("{[{],x/y}", "/x/y"));
        let many = "{a/b,c}".repeat(20);
        assert!(Pattern::new(&GivenPath::new(many.as_bytes()).unwrap()).is_err());
    }

    #[test]
    fn names_that_are_not_text_match() {
        let pattern = Pattern::new(&GivenPath::new(b"d/*").unwrap()).unwrap();
        assert!(pattern.step(&pattern.begin(), b"a\xff").1);
    }

    #[test]
    fn a_pattern_that_is_none_says_why() {
        assert!(Pattern::new(&GivenPath::new(b"a[").unwrap()).is_err());
    }

    #[test]
    fn many_double_stars_keep_few_positions() {
        let pattern = "**/a/".repeat(50) + "bottom";
        let pattern = Pattern::new(&GivenPath::new(pattern.as_bytes()).unwrap()).unwrap();
        let mut positions = pattern.begin();
        for _ in 0..10_000 {
            positions = pattern.step(&positions, b"a").0;
            assert!(positions.0.len() <= 101, "{}", positions.0.len());
        }
        assert!(pattern.step(&positions, b"bottom").1);
    }

    #[test]
    fn a_pattern_matches_whole_paths_and_a_plain_path_what_is_below() {
        let matches =
            |glob: &str, path: &str| Matching::new(OsStr::new(glob)).unwrap().matches(path.as_bytes());
        assert!(matches("/a", "/a") && matches("a", "/a/b/c") && !matches("/a", "/ab"));
        assert!(matches("/a/*.txt", "/a/x.txt") && !matches("/a/*.txt", "/a/b/x.txt"));
        assert!(matches("**/*.txt", "/a/b/x.txt") && matches("**/*.txt", "/x.txt"));
        assert!(!matches("/a/*", "/a"));
    }
}
