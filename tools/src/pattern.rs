//! Patterns of paths as they are typed; what they match is the same in every command and in queries.

use std::ffi::OsStr;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;

pub use pond_query::{Positions, is_pattern};

use crate::path::{GivenPath, TreePath};

/// A pattern, taken apart.
pub struct Pattern {
    /// The directory below which all matches lie.
    pub start: GivenPath,
    names: pond_query::Pattern,
}

impl Pattern {
    /// From what was typed; fails with what is wrong with it.
    pub fn new(given: &GivenPath) -> Result<Self, String> {
        let names = pond_query::Pattern::new(given.components())?;
        let mut start = b"/".to_vec();
        start.extend(given.components()[..names.plain].join(&b'/'));
        Ok(Pattern { start: GivenPath::new(&start)?, names })
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

impl Deref for Pattern {
    type Target = pond_query::Pattern;

    fn deref(&self) -> &pond_query::Pattern {
        &self.names
    }
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
            assert!(positions.count() <= 101, "{}", positions.count());
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
