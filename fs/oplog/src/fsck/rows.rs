//! Rows: what holds of each, among them, and whether they make a tree.

use std::collections::HashMap;

use pond_tinyfs::{EntryOp, ExtentRecord, Fold, LARGEST_EXTENT, Lsn, NodeId, Record, Row};

use super::files::ReadFiles;
use super::log::Table;
use super::report::{Finding, Part, Report};

/// Findings of one kind that are listed one by one.
const MOST: usize = 20;

/// Checks the rows of all files that are live at the newest version, and folds them with what the journal has beyond it.
pub(super) fn check(table: &Table, read: &mut ReadFiles, journal: Vec<Row>, report: &mut Report) {
    let mut found = Found { report, count: 0 };
    let mut order: Vec<(Lsn, u32, NodeId, u32)> = Vec::new();
    let mut nodes: HashMap<NodeId, Known> = HashMap::new();
    for (index, file) in read.files.iter().enumerate() {
        let name = table.file(&file.name);
        let lsns = table.files.get(&file.name).and_then(|named| named.lsns);
        for row in &file.rows {
            order.push((row.lsn, row.seq, row.node, index as u32));
            if let Some((above, to)) = lsns
                && (row.lsn <= above || row.lsn > to)
            {
                let problem = format!(
                    "a row of operation {} is in a file of which all are above {above} and up to {to}",
                    row.lsn
                );
                found.push(&name, problem, row.node);
            }
            if let Some(problem) = wrong(row) {
                found.push(&name, problem, row.node);
            }
            nodes
                .entry(row.node)
                .or_insert(Known { part: row.part, ended: None })
                .see(row, &name, &mut found);
        }
    }
    // Of one node: nothing after its end, versions in the order of operations.
    for file in &read.files {
        let name = table.file(&file.name);
        for row in &file.rows {
            if let Some(ended) = nodes.get(&row.node).and_then(|known| known.ended)
                && row.lsn > ended
            {
                let problem =
                    format!("a row of operation {} is later than the end of its node, {ended}", row.lsn);
                found.push(&name, problem, row.node);
            }
        }
    }
    order.sort_unstable();
    for pair in order.windows(2) {
        let [(lsn, seq, node, file), (other_lsn, other_seq, other, other_file)] = pair else { continue };
        if (lsn, seq) == (other_lsn, other_seq) {
            let name = table.file(&read.files[*file as usize].name);
            let other_name = &read.files[*other_file as usize].name;
            let problem = format!("operation {lsn} has two rows of number {seq}, the other in {other_name}");
            found.push(&name, problem, *node);
            found.push(&name, "the same row twice".into(), *other);
        }
    }
    if !read.whole {
        found.report.push(Finding::notice(
            Part::Rows,
            "data",
            "whether the rows make a tree was not checked, since not all of them could be read",
        ));
        return;
    }
    let mut fold = Fold::starting_at(table.tip.as_ref().map_or(Lsn(0), |tip| tip.cut_lsn));
    for file in read.files.drain(..) {
        file.rows.into_iter().for_each(|row| fold.push(row));
    }
    journal.into_iter().for_each(|row| fold.push(row));
    if let Err(error) = fold.finish() {
        let problem = format!("the rows do not make a tree: {error}");
        let tip = table.tip.as_ref().map(|tip| tip.version);
        let mut damage = Finding::damage(Part::Rows, "data", problem).nodes([error.node]);
        damage.first_version = tip;
        found.report.push(damage);
    }
}

struct Known {
    part: NodeId,
    ended: Option<Lsn>,
}

impl Known {
    fn see(&mut self, row: &Row, name: &str, found: &mut Found<'_>) {
        if row.part != self.part {
            let problem = format!("its node has the parts {} and {}", row.part, self.part);
            found.push(name, problem, row.node);
        }
        if let Record::Node(record) = &row.record
            && record.nlink == 0
        {
            self.ended = Some(self.ended.map_or(row.lsn, |ended| ended.min(row.lsn)));
        }
    }
}

struct Found<'a> {
    report: &'a mut Report,
    count: usize,
}

impl Found<'_> {
    fn push(&mut self, file: &str, problem: String, node: NodeId) {
        self.count += 1;
        match self.count {
            1..=MOST => self.report.push(Finding::damage(Part::Rows, file, problem).nodes([node])),
            // One flaw of a program can make very many.
            _ if self.count == MOST + 1 => {
                self.report.push(Finding::damage(Part::Rows, file, "and more rows are wrong").nodes([node]));
            }
            _ => {}
        }
    }
}

/// What is wrong with a row by itself.
fn wrong(row: &Row) -> Option<String> {
    match &row.record {
        Record::Extent(ExtentRecord { offset, length, .. }) => {
            let window = LARGEST_EXTENT as u64;
            let end = offset.saturating_add(u64::from(*length));
            (*length == 0 || offset / window != (end - 1) / window).then(|| {
                format!("an extent of {length} bytes at {offset} does not lie within one window of {window}")
            })
        }
        Record::Entries(changes) => changes.iter().find_map(|change| {
            let name = &change.name;
            let bad = name.is_empty()
                || name.len() > 255
                || matches!(&name[..], b"." | b"..")
                || name.iter().any(|byte| matches!(byte, 0 | b'/'));
            (bad && change.op != EntryOp::Reset)
                .then(|| format!("an entry has the name {:?}", String::from_utf8_lossy(name)))
        }),
        Record::Node(record) => {
            (record.mode > 0o7777).then(|| format!("a node has the mode {:o}", record.mode))
        }
        Record::Hole { length, .. } => (*length == Some(0)).then(|| "a hole has no length".to_owned()),
    }
}
