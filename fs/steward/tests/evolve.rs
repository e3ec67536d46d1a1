//! A pond that an earlier program made gets a column of a later format, and everything goes on: writing, merging, pruning,
//! checkpoints, a replica made before. A program that does not know the column reads, and neither writes nor promotes.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use common::remote::{Remote, init};
use common::{by_hand, open, read, read_in, write};
use pond_oplog::{At, Growth, Timeline, Version, pretend_to_know};
use pond_steward::{MaintainOptions, OpenOptions, Reader, Role, Steward, StewardError};
use pond_tinyfs::Advise;

/// As a later program would ask for it.
fn growth() -> Growth {
    let properties = BTreeMap::from([("pond.noted".to_string(), "yes".to_string())]);
    let note = arrow::datatypes::Field::new("note", arrow::datatypes::DataType::Utf8, true);
    Growth { min_writer: 3, min_reader: 0, columns: vec![note], properties }
}

/// The pond that the program of format 1 left, journal included.
fn fixture(directory: &Path) -> std::path::PathBuf {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/pond-format-1.tar.gz");
    let unpacked = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(directory).status().unwrap();
    assert!(unpacked.success());
    directory.join("pond")
}

#[test]
fn a_pond_of_format_1_grows_by_a_column_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let pond = fixture(dir.path());
    let manual = || OpenOptions { maintenance: false, ..by_hand() };
    let source = open(&pond, manual());
    source.commit_now().unwrap();
    let before = source.position();
    let replica = dir.path().join("replica");
    init(&replica, &pond, before.version);
    let remote = Remote::new(None);
    let follower = open(&replica, OpenOptions { follow: false, ..remote.options() });
    let ours = read(&source, "journaled");
    assert!(ours.is_some());
    assert!(source.evolve(&growth()).unwrap_err().to_string().contains("this program knows 2"));
    assert_eq!(source.position(), before);

    let newer = pretend_to_know(3);
    let grown = source.evolve(&growth()).unwrap();
    assert_eq!((grown.version, grown.cut_lsn), (before.version.next(), before.cut_lsn));
    assert_eq!(source.evolve(&growth()).unwrap(), grown, "a second time");
    for n in 0..6 {
        write(&source, "written", format!("state {n}").as_bytes()).unwrap();
        write(&source, &format!("file {n}"), &vec![n; 40_000]).unwrap();
        source.commit_now().unwrap();
    }
    // It follows through the growth, up to where files were not yet written anew.
    follower.sync().unwrap();
    assert_eq!(follower.position(), source.position());
    assert_eq!(read(&follower, "written").unwrap(), b"state 5");

    source.control_set("retention", "1 versions").unwrap();
    source.control_set("keep_replaced", "0s").unwrap();
    let report = source.maintain(&MaintainOptions::default(), &|_| {}).unwrap();
    assert!(report.floor.is_some() && report.pruned.files > 0 && report.merged_files > 6, "{report:?}");
    source.oplog().checkpoint().unwrap();
    source.close().unwrap();
    let source = open(&pond, manual());
    assert_eq!(source.evolve(&growth()).unwrap(), source.position(), "it is there already");
    assert_eq!((read(&source, "written").unwrap(), read(&source, "journaled")), (b"state 5".to_vec(), ours));
    let tip = source.position().version;
    assert!((0..6).all(|n| read(&source, &format!("file {n}")).unwrap() == vec![n; 40_000]));
    source.close().unwrap();
    follower.close().unwrap();
    drop(newer);

    // As the program of today.
    for refused in [Steward::open(&pond, by_hand()), Steward::open(&pond, OpenOptions::default())] {
        let refused = refused.map(|_| ()).unwrap_err().in_full();
        assert!(refused.contains("written by a newer pond") && refused.contains("upgrade pond"), "{refused}");
    }
    let reader = Reader::open(&pond, At::Version(tip), OpenOptions::default()).unwrap();
    assert_eq!(read_in(reader.fs(), "written").unwrap(), b"state 5");
}

#[test]
fn a_program_that_could_not_write_is_not_promoted() {
    let pair = common::remote::Pair::new();
    {
        let _newer = pretend_to_know(3);
        pair.source.evolve(&growth()).unwrap();
    }
    let remote = Remote::new(None);
    let replica = open(&pair.replica, OpenOptions { follow: false, ..remote.options() });
    assert_eq!(replica.sync().unwrap().position, pair.source.position());
    let refused = replica.promote(Timeline(2), "claimed").unwrap_err();
    assert_eq!(refused.advice().as_deref(), Some("upgrade pond; until then it can be read"));
    assert!(!matches!(refused, StewardError::PromotedUnfinished { .. }));
    assert_eq!(replica.status().mode, Some(Role::Replica));
    replica.close().unwrap();
    let replica = open(&pair.replica, remote.options());
    assert_eq!((replica.status().mode, replica.position().version), (Some(Role::Replica), Version(2)));
    replica.close().unwrap();
    pair.source.close().unwrap();
}
