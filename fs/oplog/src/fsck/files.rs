//! Data files: there, whole, and each extent as its row says.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use arrow::array::{Array, AsArray};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use pond_tinyfs::{ExtentContent, ExtentRecord, NodeId, Record, Row};

use super::log::{Table, what};
use super::paths::Names;
use super::report::{Finding, Part, Report, Watch};
use crate::disk::{durable, listing};
use crate::files::content::DataFiles;
use crate::files::decoder_panics::unpanicked;
use crate::files::digests::{self, Digests};
use crate::files::file_name;
use crate::files::load::{self, Source};
use crate::log::delta::Log;
use crate::parallel::{parallel, threads};
use crate::rows::schema::col;
use crate::{Layout, OpLogError, Version};

/// Bytes read at a time.
const PIECE: usize = 1 << 20;
/// Extents decoded at a time.
const BATCH: usize = 64;

/// The rows of one file.
pub(super) struct ReadFile {
    pub(super) name: String,
    /// In the file's order; their locations carry the file's index.
    pub(super) rows: Vec<Row>,
}

/// What was read of the files that are live at the newest version.
#[derive(Default)]
pub(super) struct ReadFiles {
    pub(super) files: Vec<ReadFile>,
    /// Whether these are all of them, verified.
    pub(super) whole: bool,
}

/// One file's check.
struct Checked {
    problems: Vec<String>,
    /// The file is not there.
    missing: bool,
    /// Verified rows.
    rows: Option<Vec<Row>>,
    /// Rows of a damaged file, for telling what it concerns.
    unverified: Vec<Row>,
    groups: usize,
}

struct Item<'a> {
    index: usize,
    name: &'a str,
    file: &'a super::log::Named,
    source: Source,
}

/// Checks all files that entries name: those live at the newest version must be there; others must be whole if they are.
pub(super) fn check(
    log: &Log,
    table: &Table,
    names: &mut Names,
    watch: &dyn Watch,
    report: &mut Report,
) -> ReadFiles {
    let items: Vec<Item<'_>> = table
        .files
        .iter()
        .enumerate()
        .map(|(index, (name, file))| Item {
            index,
            name,
            file,
            source: Source {
                file: index as u32,
                path: log.table().join(name),
                size: file.add.size,
                digests: Digests::of(&file.add),
            },
        })
        .collect();
    watch.begin("data files", items.iter().map(|item| item.source.size).sum());
    let checked = parallel(&items, threads(), |item| check_file(item, watch));
    let groups: Vec<(usize, usize)> = items
        .iter()
        .zip(&checked)
        .filter(|(_, checked)| checked.rows.is_some())
        .flat_map(|(item, checked)| (0..checked.groups).map(|group| (item.index, group)))
        .collect();
    watch.begin("extents", checked.iter().filter_map(|checked| checked.rows.as_deref()).map(content).sum());
    let decoded = parallel(&groups, threads(), |&(index, group)| match watch.cancelled() {
        true => Ok(0),
        false => check_group(&items[index].source.path, group, watch),
    });
    let mut bad_extents = vec![None; items.len()];
    for ((index, _), decoded) in groups.into_iter().zip(decoded) {
        match decoded {
            Ok(extents) => report.extents += extents,
            Err(why) => {
                bad_extents[index].get_or_insert(why);
            }
        }
    }
    let mut read = ReadFiles { whole: table.certain && !watch.cancelled(), ..ReadFiles::default() };
    let mut unknown = Vec::new();
    for ((item, checked), bad) in items.into_iter().zip(checked).zip(bad_extents) {
        let live = item.file.removed.is_none();
        let Item { name, file, .. } = item;
        let mut problems = checked.problems;
        let mut nodes = BTreeSet::new();
        if let Some(why) = bad {
            let rows = checked.rows.as_deref().unwrap_or_default();
            let (failed, first) = bad_rows(log, table, rows);
            nodes.extend(failed);
            problems.push(first.unwrap_or(why));
        } else if let (Some(rows), false) = (&checked.rows, problems.is_empty()) {
            // What is damaged is nothing that a check of all rows looks at; readers of single ones may, such as a page index.
            nodes.extend(bad_rows(log, table, rows).0);
        } else {
            nodes.extend(checked.unverified.iter().map(|row| row.node));
        }
        report.bytes += if checked.missing { 0 } else { file.add.size };
        report.files += u64::from(!checked.missing);
        if let Some(rows) = &checked.rows {
            report.rows += rows.len() as u64;
            rows.iter().for_each(|row| names.push(row));
        } else {
            checked.unverified.iter().for_each(|row| names.push(row));
        }
        if !problems.is_empty() && (live || !checked.missing) {
            let finding = Finding::damage(Part::Data, table.file(name), problems.join("; "));
            report.push(finding.versions(file.added, file.last()).nodes(nodes.iter().copied()));
            if nodes.is_empty() && live {
                unknown.push(report.findings.len() - 1);
            }
        }
        if live {
            read.whole &= checked.rows.is_some();
            read.files.extend(checked.rows.map(|rows| ReadFile { name: name.to_owned(), rows }));
        }
    }
    // Of files that are gone only this can be told: whose attributes are nowhere else.
    let nameless = names.nameless();
    for finding in unknown {
        report.findings[finding].nodes.clone_from(&nameless);
    }
    read
}

fn content(rows: &[Row]) -> u64 {
    rows.iter()
        .map(|row| match &row.record {
            Record::Extent(extent) => u64::from(extent.length),
            _ => 0,
        })
        .sum()
}

fn check_file(item: &Item<'_>, watch: &dyn Watch) -> Checked {
    let mut checked =
        Checked { problems: Vec::new(), missing: false, rows: None, unverified: Vec::new(), groups: 0 };
    if watch.cancelled() {
        return checked;
    }
    let path = &item.source.path;
    let mut problem = |problem: String| {
        // The parts of a file fail together mostly.
        if !checked.problems.contains(&problem) {
            checked.problems.push(problem);
        }
    };
    match digest(path, watch) {
        Ok(None) => return checked,
        Ok(Some((size, _))) if size != item.source.size => {
            problem(format!("it has {size} bytes and the log says {}", item.source.size));
        }
        Ok(Some((_, digest))) => match digests::file_tag(&item.file.add) {
            Some(said) if said == digest => {}
            Some(_) => problem("its bytes do not match the digest in the log".into()),
            None => problem("the log has no digest for it".into()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            problem("it is missing".into());
            checked.missing = true;
            return checked;
        }
        Err(error) => problem(format!("cannot read it: {error}")),
    }
    match rows(&item.source, item.file.added) {
        Ok((rows, groups)) => {
            checked.groups = groups;
            checked.rows = Some(rows);
        }
        Err(why) => {
            problem(why);
            checked.unverified = unverified(&item.source, item.file.added).unwrap_or_default();
        }
    }
    checked
}

/// Size and BLAKE3-256 of a file; `None` if it was cancelled.
fn digest(path: &PathBuf, watch: &dyn Watch) -> io::Result<Option<(u64, String)>> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE];
    let mut size = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if watch.cancelled() {
            return Ok(None);
        }
        if count == 0 {
            return Ok(Some((size, hasher.finalize().to_hex().to_string())));
        }
        hasher.update(&buffer[..count]);
        size += count as u64;
        watch.advance(count as u64);
    }
}

/// The rows of a file whose footer and footprint match their digests, and its row groups.
fn rows(source: &Source, version: Version) -> Result<(Vec<Row>, usize), String> {
    // The bytes were verified, so the decoder should not panic; here nothing depends on that.
    unpanicked(|| {
        let rows = load::read_rows(source, version).map_err(|error| what(&error))?;
        let file = File::open(&source.path).map_err(|error| error.to_string())?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
        Ok((rows, builder.metadata().num_row_groups()))
    })
    .and_then(|rows| rows)
}

/// What rows a damaged file seems to have: only to tell what it concerns.
fn unverified(source: &Source, version: Version) -> Option<Vec<Row>> {
    unpanicked(|| {
        let digests = digests::digests_of(&source.path).ok()?;
        load::read_rows(&Source { digests: Some(digests), ..source.clone() }, version).ok()
    })
    .ok()
    .flatten()
}

/// Decodes the extents of a row group and compares them with their digests; gives their number.
fn check_group(path: &PathBuf, group: usize, watch: &dyn Watch) -> Result<u64, String> {
    unpanicked(|| {
        let text = |error: &dyn std::error::Error| error.to_string();
        let file = File::open(path).map_err(|error| text(&error))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| text(&error))?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), [col::CHECKSUM, col::CONTENT]);
        let batches = builder
            .with_projection(mask)
            .with_row_groups(vec![group])
            .with_batch_size(BATCH)
            .build()
            .map_err(|error| text(&error))?;
        let mut extents = 0;
        for batch in batches {
            let batch = batch.map_err(|error| text(&error))?;
            let column =
                |name: &str| batch.column_by_name(name).and_then(|column| column.as_binary_opt::<i32>());
            let (Some(checksums), Some(contents)) = (column(col::CHECKSUM), column(col::CONTENT)) else {
                return Err("checksum or content is not binary".to_owned());
            };
            for i in (0..batch.num_rows()).filter(|&i| checksums.is_valid(i)) {
                let content = if contents.is_valid(i) { contents.value(i) } else { &[] };
                if blake3::hash(content).as_bytes() != checksums.value(i) {
                    return Err("the bytes of an extent do not match their checksum".to_owned());
                }
                extents += 1;
                watch.advance(content.len() as u64);
            }
        }
        Ok(extents)
    })
    .and_then(|extents| extents)
}

/// The nodes of the extents that a reader would not get, and how many there are.
fn bad_rows(log: &Log, table: &Table, rows: &[Row]) -> (BTreeSet<NodeId>, Option<String>) {
    let files = DataFiles::new(log.table(), 0, 4);
    for (name, file) in &table.files {
        files.add(name, Digests::of(&file.add).as_ref());
    }
    let mut nodes = BTreeSet::new();
    let (mut count, mut first) = (0, None);
    for row in rows {
        let Record::Extent(ExtentRecord { content: ExtentContent::Stored(location), length, .. }) =
            &row.record
        else {
            continue;
        };
        if files.read(*location, 0, *length).is_err() {
            nodes.insert(row.node);
            count += 1;
            first.get_or_insert(location.row);
        }
    }
    let said = first.map(|first| {
        format!(
            "the bytes of {count} extents cannot be read as they were written, that of row {first} the first"
        )
    });
    (nodes, said)
}

/// Checks the live files of a small table, whose digests cover the whole file.
pub(super) fn check_small(log: &Log, table: &Table, watch: &dyn Watch, report: &mut Report) {
    for (name, file) in table.files.iter().filter(|(_, file)| file.removed.is_none()) {
        let problem = match digest(&log.table().join(name), watch) {
            Ok(None) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => "it is missing".into(),
            Err(error) => format!("cannot read it: {error}"),
            Ok(Some((size, _))) if size != file.add.size => {
                format!("it has {size} bytes and the log says {}", file.add.size)
            }
            Ok(Some((size, digest))) => {
                report.files += 1;
                report.bytes += size;
                let said = file.add.tags.as_ref().and_then(|tags| tags.get(digests::DIGEST_TAG)?.as_ref());
                if said == Some(&digest) {
                    continue;
                }
                "its bytes do not match the digest in the log".into()
            }
        };
        report.push(Finding::damage(Part::Data, table.file(name), problem).versions(file.added, file.last()));
    }
}

/// Files in `data/` that nothing names.
pub(super) fn leftovers(
    layout: &Layout,
    table: &Table,
    exclusive: bool,
    report: &mut Report,
) -> Result<(), OpLogError> {
    let leftover = |name: &str, problem: &str| Finding::notice(Part::Leftover, name, problem);
    for name in listing::names(&layout.data())? {
        let last = table.tip.as_ref().map(|tip| tip.txn_seq);
        let problem = match file_name::txn_seq(&name) {
            _ if table.files.contains_key(&name) => continue,
            _ if name.contains(".damaged-") => "a damaged file, kept aside",
            // A commit may be on its way.
            Some(txn) if !exclusive && last.is_none_or(|last| txn > last) => continue,
            Some(_) => {
                "no log entry names it; the next opening removes it if its transaction never committed"
            }
            None if durable::is_temporary(&name) && !exclusive => continue,
            None if durable::is_temporary(&name) => "it was being written when a process ended",
            None => "nothing here is called so",
        };
        report.push(leftover(&table.file(&name), problem));
    }
    if exclusive && fs::exists(layout.inflight()).unwrap_or(false) {
        for name in listing::names(&layout.inflight())? {
            let name = format!("data/_inflight/{name}");
            report.push(leftover(&name, "it was being written, or fetched, when a process ended"));
        }
    }
    Ok(())
}
