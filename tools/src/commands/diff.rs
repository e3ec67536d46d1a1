//! `pond diff`: what differs between two versions; the lines, of text.

use std::ops::Range;
use std::time::Duration;

use pond_oplog::{At, Change, Side, View};
use pond_tinyfs::{FileType, TinyFs};
use serde_json::json;
use similar::{ChangeTag, DiffTag, TextDiff};

use super::changes::{COLUMNS, Shown, What};
use crate::cli::DiffArgs;
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::output::{Column, count, size};
use crate::path::{TreePath, escape};
use crate::target::State;

/// Larger files are only said to differ, bytes.
const LARGEST_TEXT: u64 = 16 << 20;
/// For so long the shortest difference of two files is looked for; then any does.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shows what differs between two versions.
pub fn diff(args: &DiffArgs, context: &mut Context) -> Result {
    let what = || format!("cannot compare version {}", args.from);
    let (to, path) = args.to_and_path().map_err(|why| Failure::usage(what(), why))?;
    let within = match &path {
        Some(path) => Some(TreePath::of_names(path).map_err(|why| Failure::usage(what(), why))?),
        None => None,
    };
    let views = context.pond.versions()?;
    let (from, to) = (views.open(args.from).during(what)?, views.open(to).during(what)?);
    if let Some(path) = &within {
        let is_in = |view: &View| view.fs().resolve(&path.to_bytes()).is_ok();
        if !is_in(&from) && !is_in(&to) {
            let why =
                format!("neither version {} nor {} has it", from.position().version, to.position().version);
            return Err(Failure::new(format!("cannot compare {path}"), why)
                .next("`pond log --deleted` lists what is gone"));
        }
    }
    if args.to.is_none() || args.path.is_none() && path.is_some() {
        tell_of_uncommitted(context)?;
    }
    let at = |view: &View| At::Version(view.position().version);
    let difference = views.difference(at(&from), at(&to));
    let difference = difference.and_then(|all| all.by_paths(&from, &to)).during(what)?;
    let changes = difference.changes.iter();
    let changes: Vec<&Change> = changes
        .filter(|change| !change.is_by_entries_alone())
        .filter(|change| within.as_ref().is_none_or(|path| concerns(change, path)))
        .collect();
    let sides = Sides { from: from.fs(), to: to.fs() };
    match (args.stat, args.content) {
        (false, false) => {
            let shown: Vec<Shown> = changes.into_iter().map(Shown::of).collect();
            shown.iter().try_for_each(|change| context.out.json(change))?;
            context.out.table(&COLUMNS, shown.iter().map(Shown::row))
        }
        (true, _) => stat(&changes, &sides, context),
        (_, true) => content(&changes, &sides, context),
    }
}

/// What a mount has not committed is in no version.
fn tell_of_uncommitted(context: &Context) -> Result {
    if let State::Mounted(mut daemon) = context.pond.state()?
        && daemon.status()?["uncommitted"]["rows"].as_u64().is_some_and(|rows| rows > 0)
    {
        context.notices.warn("changes that no version holds yet are not compared: `pond sync` commits them");
    }
    Ok(())
}

/// Whether a change is one of this path: of what is below it, or of a directory above it that moved.
fn concerns(change: &Change, path: &TreePath) -> bool {
    let is_named_anew = !change.names_gone().is_empty() || !change.names_come().is_empty();
    let mut links = change.before.iter().chain(&change.after).flat_map(|side| &side.links);
    links.any(|link| {
        let at = TreePath::from_bytes(&link.path);
        at.starts_with(path) || is_named_anew && path.starts_with(&at)
    })
}

/// The trees of the two versions.
struct Sides<'a> {
    from: &'a TinyFs,
    to: &'a TinyFs,
}

/// The bytes of a node in both versions.
enum Bytes {
    /// Text, or nothing.
    Text(Vec<u8>, Vec<u8>),
    /// Not to be shown as lines: how many there were, and are.
    Binary(u64, u64),
}

impl Sides<'_> {
    /// The bytes of what has some; none if they are the same, or it has none.
    fn bytes(&self, change: &Change) -> Result<Option<Bytes>> {
        let has_bytes = matches!(change.kind(), Some(FileType::File | FileType::Symlink | FileType::Dynamic));
        let is_whole = change.before.is_none() || change.after.is_none();
        if !has_bytes || !change.content && !is_whole {
            return Ok(None);
        }
        let (before, after) = (change.before.as_ref(), change.after.as_ref());
        let length = |side: Option<&Side>| side.map_or(0, |side| side.attributes.size);
        let binary = || Ok(Some(Bytes::Binary(length(before), length(after))));
        if length(before).max(length(after)) > LARGEST_TEXT {
            return binary();
        }
        let (old, new) = (read(self.from, before)?, read(self.to, after)?);
        match old.contains(&0) || new.contains(&0) {
            true => binary(),
            false => Ok(Some(Bytes::Text(old, new))),
        }
    }
}

fn read(fs: &TinyFs, side: Option<&Side>) -> Result<Vec<u8>> {
    let Some(side) = side else { return Ok(Vec::new()) };
    let (node, length) = (side.attributes.id, side.attributes.size);
    let bytes = match side.attributes.kind {
        FileType::Symlink => fs.readlink(node).map(|target| [&target[..], b"\n"].concat()),
        FileType::Dynamic => fs.dynamic(node).map(|(_, configuration)| configuration.to_vec()),
        // No larger than LARGEST_TEXT.
        _ => fs
            .read(node, 0, length as usize)
            .and_then(|plan| plan.fill(fs.persistence().as_ref()).map_err(pond_tinyfs::Error::from)),
    };
    bytes.during(|| format!("cannot read {}", escape(first(side))))
}

fn first(side: &Side) -> &[u8] {
    side.links.first().map_or(b"", |link| link.path.as_slice())
}

fn lines<'a>(old: &'a [u8], new: &'a [u8]) -> TextDiff<'a, 'a, 'a, [u8]> {
    TextDiff::configure().timeout(PATIENCE).diff_lines(old, new)
}

/// Lines that came, and that went.
fn counted(old: &[u8], new: &[u8]) -> (u64, u64) {
    let diff = lines(old, new);
    let count = |range: Range<usize>| range.len() as u64;
    diff.ops()
        .iter()
        .filter(|op| op.tag() != DiffTag::Equal)
        .fold((0, 0), |(come, gone), op| (come + count(op.new_range()), gone + count(op.old_range())))
}

fn stat(changes: &[&Change], sides: &Sides<'_>, context: &mut Context) -> Result {
    let (mut rows, mut all_come, mut all_gone) = (Vec::new(), 0, 0);
    for change in changes {
        let shown = Shown::of(change);
        let mut facts = json!(shown);
        let told = match sides.bytes(change)? {
            None => What::of(change).name().to_owned(),
            Some(Bytes::Binary(old, new)) => format!("{} -> {}", size(old), size(new)),
            Some(Bytes::Text(old, new)) => {
                let (come, gone) = counted(&old, &new);
                (facts["lines_added"], facts["lines_removed"]) = (json!(come), json!(gone));
                (all_come, all_gone) = (all_come + come, all_gone + gone);
                format!("+{come} -{gone}")
            }
        };
        context.out.json(&facts)?;
        rows.push(vec![told, shown.row().pop().unwrap_or_default()]);
    }
    let paths = rows.len() as u64;
    context.out.table(&[Column::number("LINES"), Column::text("PATH")], rows)?;
    context.out.line(&format!(
        "{}, {} added, {all_gone} removed",
        count(paths, "path"),
        count(all_come, "line")
    ))
}

fn content(changes: &[&Change], sides: &Sides<'_>, context: &mut Context) -> Result {
    for change in changes {
        let shown = Shown::of(change);
        let bytes = sides.bytes(change)?;
        let names = [("a", &change.before), ("b", &change.after)].map(|(letter, side)| match side {
            Some(side) => format!("{letter}{}", escape(first(side))),
            None => "/dev/null".to_owned(),
        });
        let text = bytes.map(|bytes| match bytes {
            Bytes::Text(old, new) => unified(&old, &new, &names),
            Bytes::Binary(..) => format!("Binary files {} and {} differ\n", names[0], names[1]).into_bytes(),
        });
        if context.out.is_json() {
            let mut facts = json!(shown);
            facts["diff"] = json!(text.map(|text| String::from_utf8_lossy(&text).into_owned()));
            context.out.json(&facts)?;
            continue;
        }
        match text {
            Some(text) => context.out.bytes(&text)?,
            // `patch` passes over what begins neither with a sign nor a blank.
            None => {
                let row = shown.row();
                context.out.line(&format!("# {}: {}", row[0], row[3]))?;
            }
        }
    }
    Ok(())
}

/// So many lines are shown around what differs.
const AROUND: usize = 3;

/// A unified diff. Where each hunk lies is counted from the lines that are written: those that the differ tells do not always fit.
fn unified(old: &[u8], new: &[u8], names: &[String; 2]) -> Vec<u8> {
    let diff = lines(old, new);
    let changes: Vec<(ChangeTag, &[u8])> =
        diff.iter_all_changes().map(|change| (change.tag(), change.value())).collect();
    let mut text = format!("--- {}\n+++ {}\n", names[0], names[1]).into_bytes();
    // Lines of both files before the place that was reached.
    let (mut place, mut old_lines, mut new_lines) = (0, 0, 0);
    for hunk in hunks(&changes) {
        let equal = hunk.start - place;
        (old_lines, new_lines) = (old_lines + equal, new_lines + equal);
        let has =
            |left_out: ChangeTag| changes[hunk.clone()].iter().filter(|(tag, _)| *tag != left_out).count();
        let (of_old, of_new) = (has(ChangeTag::Insert), has(ChangeTag::Delete));
        let range = |before: usize, count: usize| match count {
            0 => format!("{before},0"),
            1 => (before + 1).to_string(),
            _ => format!("{},{count}", before + 1),
        };
        let header = format!("@@ -{} +{} @@\n", range(old_lines, of_old), range(new_lines, of_new));
        text.extend_from_slice(header.as_bytes());
        for (tag, line) in &changes[hunk.clone()] {
            text.push(match tag {
                ChangeTag::Equal => b' ',
                ChangeTag::Delete => b'-',
                ChangeTag::Insert => b'+',
            });
            text.extend_from_slice(line);
            if !line.ends_with(b"\n") {
                text.extend_from_slice(b"\n\\ No newline at end of file\n");
            }
        }
        (place, old_lines, new_lines) = (hunk.end, old_lines + of_old, new_lines + of_new);
    }
    text
}

/// The lines that are shown, of all: those that differ and some around them.
fn hunks(changes: &[(ChangeTag, &[u8])]) -> Vec<Range<usize>> {
    let mut hunks: Vec<Range<usize>> = Vec::new();
    let differs = (0..changes.len()).filter(|&line| changes[line].0 != ChangeTag::Equal);
    for line in differs {
        let (start, end) = (line.saturating_sub(AROUND), (line + 1 + AROUND).min(changes.len()));
        match hunks.last_mut().filter(|last| start <= last.end) {
            Some(last) => last.end = end,
            None => hunks.push(start..end),
        }
    }
    hunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_and_shown_as_patch_reads_them() {
        let (old, new) = (b"a\nb\nc\n".as_slice(), b"a\nx\ny\nc".as_slice());
        assert_eq!(counted(old, new), (3, 2));
        let names = ["a/f".to_owned(), "b/f".to_owned()];
        let text = String::from_utf8(unified(old, new, &names)).unwrap();
        assert_eq!(
            text,
            "--- a/f\n+++ b/f\n@@ -1,3 +1,4 @@\n a\n-b\n-c\n+x\n+y\n+c\n\\ No newline at end of file\n"
        );
    }

    /// Applies a diff as `patch` does, without looking for lines elsewhere than where it says.
    fn patched(old: &[u8], diff: &str) -> Vec<u8> {
        let lines: Vec<&[u8]> = old.split_inclusive(|byte| *byte == b'\n').collect();
        let (mut new, mut place) = (Vec::new(), 0);
        let mut rest = diff.lines().skip(2).peekable();
        while let Some(header) = rest.next() {
            let numbers = |sign: char| {
                let range = header.split(' ').find(|word| word.starts_with(sign)).unwrap();
                let (start, count) = range[1..].split_once(',').unwrap_or((&range[1..], "1"));
                (start.parse::<usize>().unwrap(), count.parse::<usize>().unwrap())
            };
            let ((start, mut of_old), (_, mut of_new)) = (numbers('-'), numbers('+'));
            let begin = if of_old == 0 { start } else { start - 1 };
            lines[place..begin].iter().for_each(|line| new.extend_from_slice(line));
            place = begin;
            while of_old > 0 || of_new > 0 {
                let line = rest.next().unwrap();
                if !line.starts_with('+') {
                    assert_eq!(&line.as_bytes()[1..], lines[place].strip_suffix(b"\n").unwrap());
                    (place, of_old) = (place + 1, of_old - 1);
                }
                if !line.starts_with('-') {
                    new.extend_from_slice(format!("{}\n", &line[1..]).as_bytes());
                    of_new -= 1;
                }
            }
            assert!(rest.peek().is_none_or(|next| next.starts_with("@@ ")), "{diff}");
        }
        lines[place..].iter().for_each(|line| new.extend_from_slice(line));
        new
    }

    #[test]
    fn each_hunk_lies_where_it_says() {
        let mut state = 1u64;
        let mut below = |bound: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % bound
        };
        let names = ["a/f".to_owned(), "b/f".to_owned()];
        for _ in 0..2000 {
            let mut file =
                || -> Vec<u8> { (0..below(30)).flat_map(|_| [b'a' + below(2) as u8, b'\n']).collect() };
            let (old, new) = (file(), file());
            let diff = String::from_utf8(unified(&old, &new, &names)).unwrap();
            assert_eq!(patched(&old, &diff), new, "{diff}");
        }
    }
}
