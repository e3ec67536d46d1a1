//! Pushing a pond of which a data file was damaged, or lost, before it was shipped.

mod restore_common;

use std::fs;
use std::path::PathBuf;

use pond_oplog::{At, Version, version_files};
use pond_replicate::InitOptions;
use pond_steward::Steward;
use restore_common::{Place, assert_identical, commit_up_to, history, open, read, write};

/// Bytes that no codec makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// A source with nothing pushed yet; the data file of its version 7, in which is the content of `hurt`.
fn source() -> (Place, std::sync::Arc<Steward>, PathBuf) {
    let place = Place::new();
    let source = place.open();
    commit_up_to(&source, 6);
    write(&source, "hurt", &noise(100_000));
    source.commit_now().unwrap();
    assert_eq!(source.position().version, Version(7));
    commit_up_to(&source, 20);
    let added = version_files(&place.source, Version(7)).unwrap().added;
    let file = place.source.join("data").join(&added[0].name);
    (place, source, file)
}

/// What the push said, which must have come to its end.
fn pushed(source: &Steward) -> String {
    let report = source.sync().unwrap();
    let factory = &report.factories[0];
    let message = factory.last_message.clone().unwrap_or_default();
    assert!(!factory.failed, "{message}");
    assert_eq!(factory.watermark, Some(report.position.version), "{message}");
    message
}

fn before() -> InitOptions {
    InitOptions { at: Some(At::Version(Version(6))), tip: false }
}

#[test]
fn a_push_goes_on_past_a_damaged_file_and_says_so_for_as_long_as_it_matters() {
    let (place, source, file) = source();
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    place.add_remote(&source);
    let said = |message: &str| {
        for part in [&*name, "version 7", "damaged", "up to version 6", "pond fsck"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    };
    said(&pushed(&source));
    commit_up_to(&source, 25);
    said(&pushed(&source));
    source.close().unwrap();
    drop(source);
    // Another process knows it from the store.
    let source = place.open();
    commit_up_to(&source, 26);
    said(&pushed(&source));

    // A replica has the very same bytes, and the file that was not concerned; what is damaged is not taken for whole.
    let replica = place.replica("replica");
    place.init(&replica).unwrap();
    assert_identical(&replica, &place.source);
    let opened = open(&replica);
    let note = opened.status().replica.unwrap().note.unwrap();
    assert!(note.contains(&name) && note.contains("version 7"), "{note}");
    assert_eq!(read(&opened, "file-6"), read(&source, "file-6"));
    let hurt = opened.fs().resolve(b"/hurt").unwrap();
    let plan = opened.fs().read(hurt.id, 0, 1 << 20).unwrap();
    assert!(plan.fill(&**opened.fs().persistence()).is_err(), "damage was read as content");
    opened.close().unwrap();

    place.init_from(&place.store(), &place.replica("before"), &before()).unwrap();
    let opened = open(&place.replica("before"));
    assert_eq!(opened.status().replica.unwrap().note, None);
}

#[test]
fn a_push_goes_on_past_a_file_that_is_gone_or_cut_off() {
    for cut in [None, Some(1000)] {
        let (place, source, file) = source();
        match cut {
            None => fs::remove_file(&file).unwrap(),
            Some(length) => fs::File::options().write(true).open(&file).unwrap().set_len(length).unwrap(),
        }
        place.add_remote(&source);
        let message = pushed(&source);
        assert!(message.contains("damaged") && message.contains("version 7"), "{message}");
        commit_up_to(&source, 30);
        pushed(&source);
        place.init_from(&place.store(), &place.replica("before"), &before()).unwrap();
        let (ours, theirs) = (history(&place.replica("before")), history(&place.source));
        assert!(ours.iter().all(|(name, digest)| theirs.get(name) == Some(digest)));
        assert_eq!(open(&place.replica("before")).position().version, Version(6));
    }
}
