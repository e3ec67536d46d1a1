//! A follower that publishes version by version shows at each version the tree that a fresh fold of its rows makes, and
//! tells all that a kernel which cached the version before has to be told.

mod kernel;
mod ponds;

use pond_tinyfs::*;

use ponds::*;

fn name(parent: NodeId, name: &str, child: NodeId) -> Stale {
    Stale::Name { parent, name: name.as_bytes().into(), child }
}

#[test]
fn an_open_file_keeps_its_bytes_while_its_name_shows_new_ones() {
    let pond = Pond::new();
    pond.write("f", b"first");
    assert_eq!(pond.publish(), [Stale::Attributes(NodeId::ROOT), Stale::Listing(NodeId::ROOT)]);
    let first = pond.look_up("f");
    pond.write("f", b"second one");
    let stale = pond.publish();
    assert_eq!(stale, [name(NodeId::ROOT, "f", first.id), Stale::Listing(NodeId::ROOT)]);
    let second = pond.look_up("f");
    assert_ne!(second.id, first.id);
    assert_eq!((pond.read(first.id), pond.read(second.id)), (b"first".to_vec(), b"second one".to_vec()));
    assert_eq!(pond.follower.getattr(first.id).unwrap(), first);
    assert!(!pond.follower.has_name(first.id) && pond.follower.has_name(second.id));
    // Twice more, and each version stays.
    pond.write("f", b"3");
    assert_eq!(pond.publish(), [name(NodeId::ROOT, "f", second.id), Stale::Listing(NodeId::ROOT)]);
    assert_eq!(pond.read(second.id), b"second one");
    assert_eq!(pond.follower.frozen_count(), 2);
    pond.follower.forget(first.id, 1);
    pond.follower.forget(second.id, 1);
    assert_eq!(pond.follower.frozen_count(), 0);
    assert!(pond.follower.getattr(first.id).is_err() && pond.follower.getattr(second.id).is_err());
    pond.check();
    // Nobody holds the third: the file keeps its id.
    let third = pond.look_up("f");
    pond.follower.forget(third.id, 1);
    pond.write("f", b"4");
    assert_eq!(pond.publish(), []);
    assert_eq!(pond.look_up("f").id, third.id);
    assert_eq!(pond.read(third.id), b"4");
}

#[test]
fn every_name_of_a_hard_linked_file_is_told_and_all_lead_to_one_id() {
    let pond = Pond::new();
    pond.mkdir("d");
    pond.write("a", b"1");
    pond.link("a", "b");
    pond.link("a", "d/c");
    pond.link("a", "never looked up");
    pond.publish();
    let old = pond.look_up("a").id;
    let d = pond.look_up("d").id;
    assert_eq!((pond.look_up("b").id, pond.look_up("d/c").id), (old, old));
    pond.follower.forget(d, 1);
    let mut parents = vec![NodeId::ROOT, d];
    parents.sort();
    assert_eq!(pond.follower.found_in(old), parents);
    pond.write("a", b"2");
    let stale = pond.publish();
    // The deepest first.
    assert_eq!(stale[..3], [name(d, "c", old), name(NodeId::ROOT, "a", old), name(NodeId::ROOT, "b", old)]);
    let new = pond.look_up("never looked up").id;
    assert_eq!((pond.look_up("b").id, pond.look_up("d/c").id), (new, new));
    assert_eq!((pond.read(old), pond.read(new)), (b"1".to_vec(), b"2".to_vec()));
    pond.check();
}

#[test]
fn a_file_that_moves_and_changes_goes_under_its_old_names() {
    let pond = Pond::new();
    pond.mkdir("d");
    pond.write("f", b"1");
    pond.publish();
    let old = pond.look_up("f").id;
    pond.rename("f", "d/g", RenameFlags::default());
    pond.write("d/g", b"2");
    let stale = pond.publish();
    assert!(stale.contains(&name(NodeId::ROOT, "f", old)), "{stale:?}");
    assert_eq!(pond.read(old), b"1");
    let new = pond.look_up("d/g").id;
    assert_eq!(pond.read(new), b"2");
    // Moved only: the same file.
    pond.rename("d/g", "h", RenameFlags::default());
    let stale = pond.publish();
    assert!(stale.contains(&name(pond.id("d"), "g", new)), "{stale:?}");
    assert!(stale.contains(&Stale::Attributes(new)), "{stale:?}");
    assert!(pond.follower.has_name(new));
    assert_eq!(pond.look_up("h").id, new);
    pond.check();
}

#[test]
fn what_is_removed_with_its_directories_stays_readable_and_is_told_from_below() {
    let pond = Pond::new();
    pond.mkdir("a");
    pond.mkdir("a/b");
    pond.write("a/b/f", b"content");
    pond.publish();
    let f = pond.look_up("a/b/f").id;
    let (a, b) = (pond.id("a"), pond.id("a/b"));
    // Changed, then removed, within one version: the bytes of the last version that had it stay.
    pond.write("a/b/f", b"more content");
    pond.unlink("a/b/f");
    pond.rmdir("a/b");
    pond.rmdir("a");
    pond.write("a", b"a file");
    let stale = pond.publish();
    assert_eq!(stale[..3], [name(b, "f", f), name(a, "b", b), name(NodeId::ROOT, "a", a)]);
    assert_eq!(pond.read(f), b"content");
    assert_eq!(pond.follower.getattr(f).unwrap().nlink, 0);
    assert_eq!(list(&pond.follower, b), []);
    assert!(pond.follower.lookup(b, b"f").is_err());
    assert_eq!(pond.read(pond.look_up("a").id), b"a file");
    pond.check();
    let with = pond.follower.node_count();
    for id in [f, a, b] {
        assert!(!pond.follower.has_name(id));
        pond.follower.forget(id, 1);
    }
    assert_eq!(pond.follower.node_count(), with - 3);
}

#[test]
fn exchanged_names_are_both_told() {
    let pond = Pond::new();
    pond.mkdir("d");
    pond.mkdir("d/in");
    pond.write("f", b"1");
    pond.publish();
    let (d, f) = (pond.look_up("d").id, pond.look_up("f").id);
    pond.rename("d", "f", RenameFlags { exchange: true, ..Default::default() });
    let stale = pond.publish();
    assert_eq!(stale[..2], [name(NodeId::ROOT, "d", d), name(NodeId::ROOT, "f", f)]);
    assert_eq!((pond.look_up("d").id, pond.look_up("f").id), (f, d));
    pond.check();
}

#[test]
fn a_directory_that_moves_is_listed_anew() {
    let pond = Pond::new();
    for path in ["a", "b", "a/moved"] {
        pond.mkdir(path);
    }
    pond.publish();
    let moved = pond.look_up("a/moved").id;
    pond.rename("a/moved", "b/moved", RenameFlags::default());
    // Its `..` is another directory now.
    assert!(pond.publish().contains(&Stale::Listing(moved)));
    pond.check();
}

#[test]
fn attributes_alone_keep_the_id() {
    let pond = Pond::new();
    pond.write("f", b"1");
    pond.publish();
    let f = pond.look_up("f").id;
    let change = SetAttributes { mode: Some(0o600), ..Default::default() };
    pond.source.setattr(&pond.caller, pond.id("f"), &change).unwrap();
    pond.source.setxattr(&pond.caller, pond.id("f"), b"user.x", b"y", SetXattr::Any).unwrap();
    assert_eq!(pond.publish(), [Stale::Attributes(f)]);
    assert_eq!(pond.look_up("f").mode, 0o600);
    assert_eq!(pond.publish(), []);
    pond.check();
}

#[test]
fn several_versions_at_once_are_one_step() {
    let pond = Pond::new();
    pond.write("f", b"1");
    pond.publish();
    let old = pond.look_up("f").id;
    let mut rows = Vec::new();
    let mut last = Lsn(0);
    for n in 0..5u8 {
        pond.write("f", &[n; 3]);
        pond.write(&format!("new{n}"), b"x");
        if n > 0 {
            pond.unlink(&format!("new{}", n - 1));
        }
        let (more, lsn) = pond.version();
        rows.extend(more);
        last = lsn;
    }
    // In any order.
    rows.reverse();
    pond.follower.publish(rows, last).unwrap();
    assert_eq!((pond.read(old), pond.follower.frozen_count()), (b"1".to_vec(), 1));
    assert_eq!(pond.read(pond.look_up("f").id), [4; 3]);
    assert_eq!(pond.follower.last_lsn(), last);
    pond.check();
}

/// Rows that make no tree, each with what the error must say.
#[test]
fn rows_that_fit_nothing_change_nothing() {
    let pond = Pond::new();
    pond.mkdir("d");
    pond.write("d/f", b"1234");
    pond.link("d/f", "other");
    let (rows, lsn) = pond.version();
    pond.follower.publish(rows.clone(), lsn).unwrap();
    let opened = pond.look_up("d/f");
    let before = dump(&pond.follower);

    pond.write("d/f", b"5678");
    pond.mkdir("d/sub");
    pond.unlink("other");
    pond.write("new", b"9");
    let (next, next_lsn) = pond.version();
    let is_node = |row: &Row, id: NodeId| row.node == id && matches!(row.record, Record::Node(_));
    let (f, d, new) = (pond.id("d/f"), pond.id("d"), pond.id("new"));
    let change = |id: NodeId, change: &dyn Fn(&mut NodeRecord)| {
        let mut rows = next.clone();
        for row in rows.iter_mut().filter(|row| is_node(row, id)) {
            let Record::Node(record) = &mut row.record else { unreachable!() };
            change(record);
        }
        rows
    };
    let without =
        |without: &dyn Fn(&Row) -> bool| next.iter().filter(|row| !without(row)).cloned().collect::<Vec<_>>();
    let mut other_kind = next.clone();
    for row in &mut other_kind {
        if let Record::Entries(changes) = &mut row.record {
            changes.iter_mut().filter(|change| change.child == new).for_each(|c| c.kind = FileType::Fifo);
        }
    }
    let bad = [
        ("published before", rows),
        ("names node", without(&|row| row.node == new)),
        ("no attributes", without(&|row| is_node(row, new))),
        ("link count", change(d, &|record| record.nlink = 2)),
        ("should have", change(f, &|record| record.nlink = 2)),
        ("size", change(f, &|record| record.size = 1)),
        ("next cookie", change(d, &|record| record.next_cookie = 3)),
        ("says fifo and its node file", other_kind),
        ("names", without(&|row| row.node == NodeId::ROOT && matches!(row.record, Record::Entries(_)))),
        ("the root is missing", change(NodeId::ROOT, &|record| record.nlink = 0)),
    ];
    for (expected, rows) in bad {
        let error = pond.follower.publish(rows, next_lsn).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        assert_eq!(dump(&pond.follower), before, "{expected}");
        assert_eq!((pond.follower.last_lsn(), pond.follower.frozen_count()), (lsn, 0));
        assert_eq!(pond.follower.getattr(opened.id).unwrap(), opened);
    }
    pond.follower.publish(next, next_lsn).unwrap();
    pond.check();
    assert_eq!(pond.read(opened.id), b"1234");
}

#[test]
fn only_a_tree_that_follows_takes_changes_and_keeps_by_which_names_files_were_found() {
    let pond = Pond::new();
    pond.write("f", b"1");
    let (rows, lsn) = pond.version();
    let fixed = TinyFs::read_only(pond.store.load().unwrap(), pond.store.clone());
    for fs in [&pond.source, &fixed] {
        let error = fs.publish(rows.clone(), lsn).unwrap_err().to_string();
        assert!(error.contains("does not follow"), "{error}");
    }
    let id = fixed.lookup(NodeId::ROOT, b"f").unwrap().id;
    assert_eq!(fixed.found_in(id), []);
}

#[test]
fn a_file_of_very_many_names_was_found_where_it_was_looked_up() {
    let pond = Pond::new();
    pond.write("f", b"1");
    let id = pond.source.lookup(NodeId::ROOT, b"f").unwrap().id;
    let mut directories = Vec::new();
    for d in 0..40 {
        let name = format!("d{d}");
        let make = Make::Directory { mode: 0o755 };
        let directory = pond.source.make(&pond.caller, NodeId::ROOT, name.as_bytes(), make).unwrap().id;
        for n in 0..5 {
            pond.source.link(&pond.caller, id, directory, format!("{n}").as_bytes()).unwrap();
        }
        directories.push(directory);
    }
    pond.publish();
    let fs = &pond.follower;
    // Some twice, none in order.
    for d in (0..40).rev().chain(10..20) {
        for name in ["3", "0", "3", "4"] {
            assert_eq!(fs.lookup(directories[d], name.as_bytes()).unwrap().id, id);
        }
    }
    directories.sort_unstable();
    assert_eq!(fs.found_in(id), directories);
    let gone = directories[7];
    for n in 0..5 {
        pond.source.unlink(&pond.caller, gone, format!("{n}").as_bytes()).unwrap();
    }
    pond.publish();
    assert_eq!(fs.found_in(id), directories.into_iter().filter(|&d| d != gone).collect::<Vec<_>>());
    fs.forget(id, u64::MAX);
    assert_eq!(fs.found_in(id), []);
}

#[test]
fn a_follower_that_becomes_a_source_writes_rows_under_the_nodes_own_ids() {
    let pond = Pond::new();
    pond.write("f", b"1");
    pond.publish();
    let old = pond.look_up("f").id;
    pond.write("f", b"2");
    pond.publish();
    let shown = pond.look_up("f").id;
    assert_ne!(shown, old);
    pond.follower.set_read_only(false);
    let follower = &pond.follower;
    assert_eq!(
        follower.write(&pond.caller, old, 0, b"x", WriteFlags::default()).unwrap_err().errno(),
        libc::ESTALE
    );
    follower.write(&pond.caller, shown, 1, b"3", WriteFlags::default()).unwrap();
    let flags = RenameFlags::default();
    let moved = follower.rename(&pond.caller, NodeId::ROOT, b"f", NodeId::ROOT, b"g", flags).unwrap().moved;
    assert_eq!(moved, shown);
    let cut = follower.cut();
    assert!(cut.rows.iter().all(|row| row.node == NodeId::ROOT || row.node == pond.id("f")));
    pond.store.store(&cut.rows);
    pond.check();
    assert_eq!(follower.unlink(&pond.caller, NodeId::ROOT, b"g").unwrap(), shown);
    assert_eq!(pond.read(shown), b"23");
    let with = follower.node_count();
    follower.forget(shown, 1);
    follower.forget(old, 1);
    assert_eq!((follower.node_count(), follower.frozen_count()), (with - 1, 0));
}

#[test]
fn a_large_directory_is_amended_as_a_fold_would() {
    let pond = Pond::new();
    for n in 0..300 {
        pond.write(&format!("{n}"), b"");
    }
    pond.publish();
    pond.check();
    // The last entry goes, so that new cookies come after one that is not there any more, and many others do.
    for n in (0..300).rev().filter(|n| n % 7 != 0 || *n > 200) {
        pond.unlink(&n.to_string());
    }
    pond.publish();
    pond.check();
    pond.write("new", b"1");
    pond.rename("7", "14", RenameFlags::default());
    pond.publish();
    pond.check();
    pond.unlink("new");
    pond.write("new", b"2");
    pond.mkdir("d");
    pond.publish();
    pond.check();
}
