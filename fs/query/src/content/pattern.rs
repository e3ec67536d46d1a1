//! Patterns of paths: `*`, `?`, `[…]`, `{…}` within a name, and `**` for any number of directories.
//!
//! A pattern is taken apart into names, and what has been matched of it is a set of positions in it. So a search visits each
//! directory once, whatever many `**` there are, and never looks at a path as a whole.

use globset::{GlobBuilder, GlobMatcher};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

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
    /// So many of its first names are plain: all matches lie below the directory that they name.
    pub plain: usize,
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

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl Pattern {
    /// From the names of a path.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn new(components: &[Vec<u8>]) -> Result<Self, String> {
        let plain = components.iter().take_while(|name| !is_pattern(name)).count();
        let rest = components[plain..].join(&b'/');
        let text = std::str::from_utf8(&rest).map_err(|_| "a pattern must be UTF-8")?;
        let mut alternatives = Vec::new();
        for alternative in without_slashes_in_braces(text)? {
            let names = alternative.split('/').filter(|name| !name.is_empty());
            alternatives.push(names.map(part).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(Pattern { plain, alternatives })
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
