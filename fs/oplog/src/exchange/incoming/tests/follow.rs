use pond_tinyfs::{
    Caller, ExtentContent, Make, PersistenceLayer, Record, RenameFlags, Row, SetAttributes, WriteFlags,
};

use super::*;

/// The same rows with locations that can be compared.
fn nowhere(rows: &[Row]) -> Vec<Row> {
    let mut rows = rows.to_vec();
    for row in &mut rows {
        if let Record::Extent(extent) = &mut row.record {
            extent.content = ExtentContent::Memory(Bytes::new());
        }
    }
    rows
}

#[test]
fn rows_read_ahead_are_those_of_the_versions_and_their_bytes_can_be_read() {
    let ponds = ponds(3);
    let incoming = ponds.open();
    incoming.apply(&ponds.fetch(&incoming, 0..=3)).unwrap();
    let oplog = OpLog::open_read_only(&ponds.replica, At::Tip, &Options::default()).unwrap().oplog;
    let nothing = oplog.read_ahead(Version(3)).unwrap();
    assert_eq!((nothing.receipt.position(), nothing.rows), (&oplog.position(), Vec::new()));
    assert!(matches!(
        oplog.read_ahead(Version(4)),
        Err(OpLogError::MissingEntry { version: Version(4), .. })
    ));
    ponds.commit(20);
    incoming.apply(&ponds.fetch(&incoming, 4..=23)).unwrap();
    for (to, first) in [(Version(10), 4), (Version(23), 11)] {
        oplog.read_ahead(to).unwrap();
        let files = oplog.files().names().len();
        let ahead = oplog.read_ahead(to).unwrap();
        assert_eq!(oplog.files().names().len(), files, "reading again registers nothing again");
        let expected: Vec<Row> =
            (first..=to.0).flat_map(|version| changes(&ponds.source, Version(version)).unwrap()).collect();
        assert_eq!(nowhere(&ahead.rows), nowhere(&expected));
        let mut extents = 0;
        for row in &ahead.rows {
            if let Record::Extent(extent) = &row.record
                && let ExtentContent::Stored(location) = extent.content
            {
                let version = row.node.get() - 100;
                let bytes = oplog.read(location, 0, extent.length).unwrap();
                assert_eq!(bytes, vec![version as u8; 3000 + version as usize]);
                extents += 1;
            }
        }
        assert_eq!(extents, to.0 - first + 1);
        let position = ahead.receipt.position().clone();
        assert_eq!(position, version_files(&ponds.source, to).unwrap().position);
        assert_ne!(oplog.position(), position);
        oplog.advance(ahead.receipt);
        assert_eq!(oplog.position(), position);
    }
}

#[test]
fn a_version_that_only_rewrites_files_has_nothing_to_fold() {
    let ponds = ponds(3);
    let incoming = ponds.open();
    incoming.apply(&ponds.fetch(&incoming, 0..=1)).unwrap();
    let oplog = OpLog::open_read_only(&ponds.replica, At::Tip, &Options::default()).unwrap().oplog;
    incoming.apply(&ponds.fetch(&incoming, 2..=2)).unwrap();
    // As merging does: version 3 holds version 2's rows in its own file.
    let mut merged = ponds.export(3);
    let text = String::from_utf8(merged.entry.to_vec())
        .unwrap()
        .replace("\"dataChange\":true", "\"dataChange\":false")
        .replace("\"tags\":{", "\"tags\":{\"pond.rewritten\":\"merge\",");
    let old = &ponds.export(2).files[0].name;
    let removing = format!("{text}{{\"remove\":{{\"path\":\"{old}\",\"dataChange\":false}}}}\n");
    merged.entry = resealed(&removing).into();
    ponds.fetch(&incoming, 3..=3);
    incoming.apply(&[merged]).unwrap();
    assert_eq!(version_files(&ponds.replica, Version(3)).unwrap().removed, std::slice::from_ref(old));
    assert!(!live_files(&ponds.replica, Version(3)).unwrap().files.iter().any(|file| file.name == *old));
    let ahead = oplog.read_ahead(Version(3)).unwrap();
    assert_eq!(ahead.receipt.position().version, Version(3));
    assert_eq!(nowhere(&ahead.rows), nowhere(&changes(&ponds.source, Version(2)).unwrap()));
}

/// A source's tree with random operations on it, and versions of what they did.
struct Busy {
    fs: TinyFs,
    oplog: std::sync::Arc<OpLog>,
    seed: u64,
}

impl Busy {
    fn random(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.seed >> 33) % below
    }

    fn operation(&mut self) {
        let (name, other) = (format!("n{}", self.random(8)), format!("n{}", self.random(8)));
        let (name, other, root) = (name.as_bytes(), other.as_bytes(), Caller::root());
        let directory = match self.fs.lookup(NodeId::ROOT, b"d") {
            Ok(directory) => directory.id,
            Err(_) => self.fs.make(&root, NodeId::ROOT, b"d", Make::Directory { mode: 0o755 }).unwrap().id,
        };
        let here = if self.random(2) == 0 { directory } else { NodeId::ROOT };
        let found = self.fs.lookup(here, name).ok();
        let data = vec![self.random(256) as u8; self.random(5000) as usize + 1];
        let offset = self.random(4000);
        match (self.random(6), found) {
            (_, None) => drop(self.fs.make(&root, here, name, Make::File { mode: 0o644 }).unwrap()),
            (0, Some(_)) => drop(self.fs.unlink(&root, here, name).unwrap()),
            (1, Some(_)) => {
                let to = if here == directory { NodeId::ROOT } else { directory };
                self.fs.rename(&root, here, name, to, other, RenameFlags::default()).unwrap();
            }
            (2, Some(file)) => {
                let size = SetAttributes { size: Some(offset), ..SetAttributes::default() };
                self.fs.setattr(&root, file.id, &size).unwrap();
            }
            (_, Some(file)) => {
                self.fs.write(&root, file.id, offset, &data, WriteFlags::default()).unwrap();
            }
        }
    }

    fn commit(&mut self) {
        let cut = self.fs.cut();
        let committed = self.oplog.commit(&[&cut.rows], cut.cut_lsn, &Origin::mount()).unwrap();
        self.fs.stored(&committed.placed);
    }
}

#[test]
fn a_tree_that_follows_equals_one_that_is_loaded() {
    let ponds = ponds(0);
    let opened = OpLog::open(&ponds.source, &Options::default()).unwrap();
    let fs = TinyFs::new(opened.tree, opened.oplog.clone());
    let mut busy = Busy { fs, oplog: opened.oplog, seed: 7 };
    let incoming = ponds.open();
    incoming.apply(&ponds.fetch(&incoming, 0..=0)).unwrap();
    let follower = OpLog::open_read_only(&ponds.replica, At::Tip, &Options::default()).unwrap();
    let (oplog, tree_of) = (follower.oplog.clone(), TinyFs::following(follower.tree, follower.oplog));
    for _ in 0..40 {
        for _ in 0..busy.random(4) + 1 {
            for _ in 0..busy.random(12) {
                busy.operation();
            }
            busy.commit();
        }
        let (from, to) = (oplog.position().version, busy.oplog.position().version);
        incoming.apply(&ponds.fetch(&incoming, from.0 + 1..=to.0)).unwrap();
        let ahead = oplog.read_ahead(to).unwrap();
        tree_of.publish(ahead.rows, ahead.receipt.position().cut_lsn).unwrap();
        oplog.advance(ahead.receipt);
        assert_eq!(oplog.position(), busy.oplog.position());
        let loaded = tree(&ponds.replica, to.0);
        assert_eq!(walk(&tree_of), loaded, "version {to}");
        assert_eq!(walk(&busy.fs), loaded, "version {to}");
    }
    ponds.assert_identical(0, busy.oplog.position().version.0);
}
