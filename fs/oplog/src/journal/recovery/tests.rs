use super::*;
use crate::rows::samples::{self, all_kinds, extent, file};
use crate::{Journal, Position, Timeline, TxnSeq, Version};

const BASE: Base = Base { version: 7, digest: [9; 32] };

struct Scene {
    dir: tempfile::TempDir,
    pond_id: PondId,
}

impl Scene {
    fn new() -> Self {
        Scene { dir: samples::fast_directory(), pond_id: PondId::random() }
    }

    fn journal(&self, segments: Vec<Segment>) -> Journal {
        Journal::new(self.dir.path(), self.pond_id, segments, BASE).unwrap()
    }

    fn try_recover(&self, cut: u64) -> Result<Recovered, JournalError> {
        recover(self.dir.path(), self.pond_id, Lsn(cut), 7, &|version| Ok((version == 7).then_some([9; 32])))
    }

    fn recover(&self, cut: u64) -> Recovered {
        self.try_recover(cut).unwrap()
    }

    fn segment(&self, number: u64) -> PathBuf {
        self.dir.path().join(segment::segment_name(number))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn position(cut: u64) -> Position {
    Position {
        version: Version(7),
        digest: blake3::Hash::from([9; 32]).to_hex().to_string(),
        timestamp: 0,
        txn_seq: TxnSeq(8),
        cut_lsn: Lsn(cut),
        timeline: Timeline::FIRST,
    }
}

/// Frames of one file each, and where each ends.
fn three_frames(scene: &Scene) -> Vec<usize> {
    let journal = scene.journal(Vec::new());
    let mut ends = Vec::new();
    for lsn in 2..5 {
        journal.append(&[&file("f", 100 + lsn, lsn)]).unwrap();
        ends.push(journal.size().bytes as usize);
    }
    // Cuts the segment to its frames.
    journal.rotate().unwrap();
    ends
}

#[test]
fn every_kind_of_row_comes_back_in_order_and_once() {
    let scene = Scene::new();
    let journal = scene.journal(Vec::new());
    let rows = all_kinds();
    journal.append(&[&rows[..3], &rows[3..5]]).unwrap();
    journal.append(&[]).unwrap();
    journal.rotate().unwrap();
    journal.rotate().unwrap();
    journal.append(&[&rows[5..]]).unwrap();
    assert_eq!((journal.size().segments, journal.size().frames), (2, 2));
    let recovered = scene.recover(0);
    assert_eq!(recovered.rows, rows);
    assert!(recovered.notes.is_empty() && recovered.damage.is_none() && recovered.foreign.is_none());
    assert_eq!(scene.recover(4).rows, rows[4..], "what the table has is skipped");
    // A journal that goes on keeps what was there, and counts on.
    let journal = scene.journal(recovered.segments);
    let more = extent(2, 99, 0, vec![5]);
    journal.append(&[std::slice::from_ref(&more)]).unwrap();
    assert_eq!(scene.recover(98).rows, [more]);
    assert_eq!(scene.recover(0).rows.len(), rows.len() + 1);
}

#[test]
fn segments_go_once_a_commit_covers_them_and_not_before() {
    let scene = Scene::new();
    let journal = scene.journal(Vec::new());
    for lsn in 2..6 {
        journal.append(&[&file("f", 100 + lsn, lsn)]).unwrap();
        journal.rotate().unwrap();
    }
    journal.release(&position(3)).unwrap();
    assert_eq!(scene.names(), ["0000000000000003.segment", "0000000000000004.segment", "spare"]);
    journal.append(&[&file("f", 200, 6)]).unwrap();
    journal.release(&position(6)).unwrap();
    assert_eq!(scene.names(), ["0000000000000005.segment", "spare"], "the current segment stays");
    assert!(scene.recover(6).rows.is_empty());
}

#[test]
fn a_tail_torn_at_any_byte_loses_that_frame_only() {
    let scene = Scene::new();
    let ends = three_frames(&scene);
    let whole = fs::read(scene.segment(1)).unwrap();
    assert_eq!(ends[2], whole.len());
    for length in 0..whole.len() {
        fs::write(scene.segment(1), &whole[..length]).unwrap();
        let recovered = scene.recover(0);
        let frames = ends.iter().filter(|&&end| end <= length).count();
        assert_eq!(recovered.rows.len(), 4 * frames - frames, "cut off at byte {length}");
        assert_eq!(recovered.damage, None, "cut off at byte {length}");
        let header_end = whole.len().min(ends[0]);
        let kept: Vec<_> = scene.names().into_iter().filter(|name| name.starts_with("torn-")).collect();
        if ends.contains(&length) || length == 0 {
            assert!(kept.is_empty() && recovered.notes.is_empty());
        } else if length > header_end || frames > 0 {
            assert_eq!(kept.len(), 1);
            let start = ends.iter().copied().filter(|&end| end < length).max().unwrap();
            assert_eq!(fs::read(scene.dir.path().join(&kept[0])).unwrap(), whole[start..length]);
        }
        // What is left is whole: opening again finds nothing torn.
        assert!(scene.recover(0).notes.is_empty());
        for name in scene.names() {
            fs::remove_file(scene.dir.path().join(name)).unwrap();
        }
    }
}

#[test]
fn a_flipped_byte_in_the_last_frame_is_torn_and_anywhere_before_is_damage() {
    let scene = Scene::new();
    let ends = three_frames(&scene);
    let whole = fs::read(scene.segment(1)).unwrap();
    for at in (0..whole.len()).step_by(3) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x04;
        fs::write(scene.segment(1), &damaged).unwrap();
        if at >= ends[1] && (8..16).contains(&(at - ends[1])) {
            // Another length, and all else as its digest says: nothing that a torn write leaves.
            let recovered = scene.recover(0);
            assert_eq!(recovered.rows.len(), 6, "byte {at}");
            assert!(recovered.damage.is_some_and(|why| why.contains("length")), "byte {at}");
            assert_eq!(fs::read(scene.segment(1)).unwrap(), damaged, "nothing was changed");
        } else if at >= ends[1] {
            let recovered = scene.recover(0);
            assert_eq!((recovered.rows.len(), &recovered.damage), (6, &None), "byte {at}");
            assert_eq!(recovered.notes.len(), 1);
            fs::remove_file(scene.dir.path().join(scene.names().pop().unwrap())).unwrap();
        } else {
            // In the header it takes the whole segment with it, and a format that is not ours is refused.
            match scene.try_recover(0) {
                Ok(recovered) => {
                    let frames = ends.iter().filter(|&&end| end <= at).count();
                    assert_eq!(recovered.rows.len(), 3 * frames, "byte {at}");
                    assert!(recovered.damage.is_some(), "byte {at}");
                    assert_eq!(fs::read(scene.segment(1)).unwrap(), damaged, "nothing was changed");
                }
                Err(JournalError::OtherFormat { .. }) => assert!((8..12).contains(&at)),
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
    }
}

#[test]
fn a_torn_frame_before_another_segment_is_damage() {
    let scene = Scene::new();
    let journal = scene.journal(Vec::new());
    journal.append(&[&file("a", 100, 2)]).unwrap();
    journal.append(&[&file("b", 101, 3)]).unwrap();
    journal.rotate().unwrap();
    journal.append(&[&file("c", 102, 4)]).unwrap();
    let first = fs::read(scene.segment(1)).unwrap();
    fs::write(scene.segment(1), &first[..first.len() - 1]).unwrap();
    let recovered = scene.recover(0);
    assert!(recovered.damage.unwrap().contains("0000000000000001.segment"));
    assert_eq!(recovered.rows, file("a", 100, 2), "the tree stays a prefix");
    assert_eq!(scene.names().len(), 2, "nothing was set aside");
}

#[test]
fn bytes_that_look_like_a_frame_within_a_torn_one_are_not_taken_for_one() {
    let scene = Scene::new();
    three_frames(&scene);
    let stored = fs::read(scene.segment(1)).unwrap();
    let journal = scene.journal(scene.recover(0).segments);
    journal.rotate().unwrap();
    journal.append(&[&[extent(5, 9, 0, stored)]]).unwrap();
    journal.rotate().unwrap();
    let second = fs::read(scene.segment(2)).unwrap();
    fs::write(scene.segment(2), &second[..second.len() - 3]).unwrap();
    let recovered = scene.recover(0);
    assert_eq!((recovered.rows.len(), recovered.damage), (9, None));
}

#[test]
fn a_journal_of_another_pond_or_format_is_refused() {
    let scene = Scene::new();
    three_frames(&scene);
    let other = recover(scene.dir.path(), PondId::random(), Lsn(0), 7, &|_| Ok(Some([9; 32])));
    assert!(matches!(other, Err(JournalError::OtherPond { found, .. }) if found == scene.pond_id));
    let mut bytes = fs::read(scene.segment(1)).unwrap();
    bytes[8] = 1;
    fs::write(scene.segment(1), bytes).unwrap();
    assert!(matches!(scene.try_recover(0), Err(JournalError::OtherFormat { found: 1, known: 3, .. })));
}

#[test]
fn a_journal_of_another_history_is_told_apart() {
    let scene = Scene::new();
    three_frames(&scene);
    for digest in [None, Some([8; 32])] {
        let recovered = recover(scene.dir.path(), scene.pond_id, Lsn(0), 7, &|_| Ok(digest)).unwrap();
        assert!(recovered.foreign.unwrap().contains("version 7"));
        assert!(recovered.rows.is_empty());
    }
}

#[test]
fn a_log_that_cannot_be_read_is_not_called_another_history() {
    let scene = Scene::new();
    three_frames(&scene);
    let failing = |version| {
        let source = std::io::Error::from_raw_os_error(libc::EIO);
        Err(OpLogError::io("read", Path::new(&format!("{version}.json")))(source))
    };
    let why = recover(scene.dir.path(), scene.pond_id, Lsn(0), 7, &failing).unwrap().foreign.unwrap();
    assert!(why.contains("7.json") && why.contains("nothing is lost"), "{why}");
    assert_eq!(scene.recover(0).rows.len(), 9);
}

#[test]
fn after_a_failed_fsync_everything_is_written_again_to_a_new_segment() {
    let scene = Scene::new();
    let journal = scene.journal(Vec::new());
    let (a, b, c) = (file("a", 100, 2), file("b", 101, 3), file("c", 102, 4));
    journal.append(&[&a]).unwrap();
    let synced = journal.size().bytes as usize;
    journal.fail_next_sync();
    assert!(matches!(journal.append(&[&b]), Err(JournalError::Io { action: "fsync", .. })));
    assert!(journal.must_restart());
    assert!(matches!(journal.append(&[&c]), Err(JournalError::MustRestart { .. })));
    journal.restart(&[&a, &b, &c]).unwrap();
    assert!(!journal.must_restart());
    journal.append(&[&file("d", 103, 5)]).unwrap();
    // The disk kept half of what could not be synced.
    let first = fs::read(scene.segment(1)).unwrap();
    fs::write(scene.segment(1), &first[..synced + 300]).unwrap();
    let recovered = scene.recover(0);
    assert_eq!(recovered.damage, None);
    assert_eq!(recovered.rows, [a, b, c, file("d", 103, 5)].concat());
    // And once all of it is in the table, it goes.
    let journal = scene.journal(recovered.segments);
    journal.release(&position(5)).unwrap();
    assert!(!scene.names().iter().any(|name| name.ends_with(".segment")));
}

#[test]
fn a_crash_while_writing_again_loses_nothing_that_was_promised() {
    let scene = Scene::new();
    let journal = scene.journal(Vec::new());
    let (a, b) = (file("a", 100, 2), file("b", 101, 3));
    journal.append(&[&a]).unwrap();
    let synced = journal.size().bytes as usize;
    journal.fail_next_sync();
    assert!(journal.append(&[&b]).is_err());
    journal.restart(&[&a, &b]).unwrap();
    journal.rotate().unwrap();
    let first = fs::read(scene.segment(1)).unwrap();
    let second = fs::read(scene.segment(2)).unwrap();
    for length in 0..second.len() {
        fs::write(scene.segment(1), &first[..synced + 300]).unwrap();
        fs::write(scene.segment(2), &second[..length]).unwrap();
        let recovered = scene.recover(0);
        assert_eq!((&recovered.rows, recovered.damage), (&a, None), "cut off at byte {length}");
        for name in scene.names() {
            fs::remove_file(scene.dir.path().join(name)).unwrap();
        }
    }
}

/// A journal whose current segment, the second, was written over the first: one with longer frames.
fn reused(scene: &Scene) -> Journal {
    let journal = scene.journal(Vec::new());
    journal.append(&[&[extent(5, 2, 0, vec![1; 5000])], &file("old", 100, 3)]).unwrap();
    journal.append(&[&file("old too", 101, 4)]).unwrap();
    journal.rotate().unwrap();
    journal.release(&position(4)).unwrap();
    assert_eq!(scene.names(), ["spare"]);
    journal.append(&[&file("a", 110, 5)]).unwrap();
    journal.append(&[&file("b", 111, 6)]).unwrap();
    assert_eq!(scene.names(), ["0000000000000002.segment"]);
    assert!(fs::metadata(scene.segment(2)).unwrap().len() > journal.size().bytes);
    journal
}

#[test]
fn a_segment_that_is_written_over_an_old_one_holds_its_own_frames_only() {
    let scene = Scene::new();
    let journal = reused(&scene);
    let both = [file("a", 110, 5), file("b", 111, 6)].concat();
    drop(journal);
    let recovered = scene.recover(4);
    assert_eq!((&recovered.rows, &recovered.damage), (&both, &None));
    assert!(recovered.notes.is_empty(), "{:?}", recovered.notes);
    assert_eq!(scene.names(), ["0000000000000002.segment"]);
    // It is cut to its frames, so that another may follow.
    let journal = scene.journal(recovered.segments);
    journal.append(&[&file("c", 112, 7)]).unwrap();
    let recovered = scene.recover(4);
    assert_eq!((recovered.rows.len(), recovered.damage), (9, None));
}

#[test]
fn a_segment_that_ends_is_cut_to_its_frames() {
    let scene = Scene::new();
    let journal = reused(&scene);
    let bytes = journal.size().bytes;
    journal.rotate().unwrap();
    assert_eq!(fs::metadata(scene.segment(2)).unwrap().len(), bytes);
    journal.append(&[&file("c", 112, 7)]).unwrap();
    // A frame of it that turned into zeros is damage: another segment follows.
    let mut whole = fs::read(scene.segment(2)).unwrap();
    let tail = whole.len() - 600;
    whole[tail..].fill(0);
    fs::write(scene.segment(2), whole).unwrap();
    assert!(scene.recover(4).damage.is_some());
}

#[test]
fn a_frame_torn_over_old_bytes_loses_that_frame_only() {
    let scene = Scene::new();
    let journal = reused(&scene);
    let before = fs::read(scene.segment(2)).unwrap();
    let start = journal.size().bytes as usize;
    journal.append(&[&file("c", 112, 7)]).unwrap();
    let end = journal.size().bytes as usize;
    let after = fs::read(scene.segment(2)).unwrap();
    drop(journal);
    for kept in (start..end).step_by(5) {
        // The first bytes reached the disk and the rest did not, or the other way round.
        for (first, second) in [(&after, &before), (&before, &after)] {
            let torn = [&first[..kept], &second[kept..]].concat();
            let whole = torn[start..end] == after[start..end];
            fs::write(scene.segment(2), torn).unwrap();
            let recovered = scene.recover(4);
            assert_eq!(recovered.damage, None, "torn at byte {kept}");
            assert_eq!(recovered.rows.len(), if whole { 9 } else { 6 }, "torn at byte {kept}");
            assert!(scene.recover(4).notes.is_empty());
            for name in scene.names().iter().filter(|name| name.starts_with("torn-")) {
                fs::remove_file(scene.dir.path().join(name)).unwrap();
            }
        }
    }
}

#[test]
fn a_spare_that_was_being_overwritten_is_no_segment() {
    let scene = Scene::new();
    let journal = scene.journal(Vec::new());
    journal.append(&[&file("old", 100, 3)]).unwrap();
    journal.rotate().unwrap();
    journal.release(&position(3)).unwrap();
    drop(journal);
    let recovered = scene.recover(3);
    assert!(recovered.rows.is_empty() && recovered.segments.is_empty() && recovered.notes.is_empty());
    // The next journal takes it.
    let journal = scene.journal(recovered.segments);
    journal.append(&[&file("a", 110, 5)]).unwrap();
    assert_eq!(scene.names(), ["0000000000000001.segment"]);
    assert_eq!(scene.recover(3).rows, file("a", 110, 5));
}

#[test]
fn a_segment_grows_ahead_of_its_frames() {
    let scene = Scene::new();
    let journal = scene.journal(Vec::new());
    let (mut rows, mut lengths) = (Vec::new(), std::collections::BTreeSet::new());
    for lsn in 2..200 {
        let row = extent(5, lsn, lsn * 4096, vec![lsn as u8; 4096]);
        journal.append(&[std::slice::from_ref(&row)]).unwrap();
        rows.push(row);
        let length = fs::metadata(scene.segment(1)).unwrap().len();
        assert!(length >= journal.size().bytes);
        lengths.insert(length);
    }
    // Of so many frames only a few changed the file's length.
    assert!(lengths.len() < 15, "{lengths:?}");
    let start = journal.size().bytes as usize;
    drop(journal);
    // What lies behind the frames is no torn tail, however much of it reached the disk.
    let whole = fs::read(scene.segment(1)).unwrap();
    assert!(whole.len() > start + TERMINATOR && whole[start..].iter().all(|byte| *byte == 0));
    for length in [start, start + 1, start + TERMINATOR, start + 5000, whole.len()] {
        fs::write(scene.segment(1), &whole[..length]).unwrap();
        let recovered = scene.recover(0);
        assert_eq!((&recovered.rows, &recovered.damage), (&rows, &None), "{length} bytes");
        assert!(recovered.notes.is_empty(), "{:?}", recovered.notes);
        assert_eq!(fs::metadata(scene.segment(1)).unwrap().len(), start as u64);
    }
}

#[test]
fn a_large_frame_takes_what_it_needs() {
    let scene = Scene::new();
    let journal = scene.journal(Vec::new());
    journal.append(&[&[extent(5, 2, 0, vec![7; 100_000])]]).unwrap();
    assert_eq!(fs::metadata(scene.segment(1)).unwrap().len(), journal.size().bytes);
}
