use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Barrier;

use pond_tinyfs::{Caller, ExtentContent, MAX_EXTENT, Record, Row, SetAttributes, TinyFs, WriteFlags};

use super::*;
use crate::files::digests::{TAIL, footer_length};
use crate::files::pieces::PIECE;
use crate::rows::samples::{self, extent};
use crate::{OpLog, Options, Origin};

struct Pond {
    _dir: tempfile::TempDir,
    path: PathBuf,
    rows: Vec<Row>,
    locations: Vec<Location>,
}

/// So many bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// So much of an extent that its whole page is read.
const MUCH: u32 = MAX_EXTENT as u32 / 2 + 900;

/// A pond with one data file that holds one file of these extents, which do not compress.
fn pond(lengths: &[usize]) -> Pond {
    pond_of(lengths.iter().enumerate().map(|(i, length)| noise(i as u64, *length)).collect())
}

/// A pond with one data file that holds one file of these extents.
fn pond_of(extents: Vec<Vec<u8>>) -> Pond {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pond");
    OpLog::create(&path, samples::root(), &Origin::mount()).unwrap();
    let mut rows = samples::file("name", 77, 2);
    let last = 3 + extents.len() as u64;
    let size = (extents.len() * MAX_EXTENT) as u64;
    for (i, bytes) in extents.into_iter().enumerate() {
        rows.push(extent(77, 3 + i as u64, (i * MAX_EXTENT) as u64, bytes));
    }
    rows.push(samples::file_size(77, last, size));
    let opened = OpLog::open(&path, &Options::default()).unwrap();
    let placed = opened.oplog.commit(&[&rows], pond_tinyfs::Lsn(last), &Origin::mount()).unwrap().placed;
    rows.retain(|row| matches!(row.record, Record::Extent(_)));
    let locations = rows
        .iter()
        .map(|row| {
            placed.iter().find(|placed| placed.lsn == row.lsn && placed.seq == row.seq).unwrap().location
        })
        .collect();
    Pond { _dir: dir, path, rows, locations }
}

impl Pond {
    /// The data file, as a cache of its own would have it.
    fn files(&self, cache_bytes: u64) -> (DataFiles, Vec<Location>) {
        let name = self.data_file();
        let files = DataFiles::new(&self.path.join("data"), cache_bytes, 4);
        let bytes = fs::read(&name).unwrap();
        let length = footer_length(bytes.last_chunk::<TAIL>().unwrap()).unwrap() as usize;
        let footer = blake3::hash(&bytes[bytes.len() - length..]).to_hex().to_string();
        let digests = Digests { footer, footprint: String::new(), file: String::new() };
        let file = files.add(name.file_name().unwrap().to_str().unwrap(), Some(&digests));
        (files, self.locations.iter().map(|location| Location { file, row: location.row }).collect())
    }

    fn data_file(&self) -> PathBuf {
        let mut paths = fs::read_dir(self.path.join("data")).unwrap().map(|entry| entry.unwrap().path());
        paths
            .find(|path| {
                let parquet = path.extension().is_some_and(|extension| extension == "parquet");
                parquet && find(&fs::read(path).unwrap(), &self.bytes(0)).is_some()
            })
            .unwrap()
    }

    fn bytes(&self, i: usize) -> Bytes {
        match &self.rows[i].record {
            Record::Extent(extent) => match &extent.content {
                ExtentContent::Memory(bytes) => bytes.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// Flips a bit in the middle of an extent, as it lies in the file.
    fn damage(&self, i: usize) {
        let (path, bytes) = (self.data_file(), self.bytes(i));
        let middle = bytes.len() / 2;
        let at = find(&fs::read(&path).unwrap(), &bytes).unwrap() + middle;
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[bytes[middle] ^ 1], at as u64).unwrap();
    }
}

fn find(all: &[u8], part: &[u8]) -> Option<usize> {
    let head = &part[..part.len().min(32)];
    all.windows(head.len()).position(|window| window == head)
}

#[test]
fn what_is_kept_stays_within_its_budget_and_weighs_what_it_takes() {
    let pond = pond(&[MAX_EXTENT; 64]);
    let budget = 16 * MAX_EXTENT as u64;
    let (files, locations) = pond.files(budget);
    for (i, location) in locations.iter().enumerate() {
        assert_eq!(files.read(*location, 7, MUCH).unwrap(), pond.bytes(i)[7..7 + MUCH as usize]);
        assert!(files.pages.weight() <= budget, "{}", files.pages.weight());
    }
    let pages: Vec<_> = files.pages.iter().map(|(_, page)| page).collect();
    assert!(pages.len() > 8 && pages.len() < 20, "{}", pages.len());
    assert!(files.pages.weight() >= pages.iter().map(|page| page.memory() as u64).sum());
}

#[test]
fn a_scan_does_not_push_out_what_is_used_again() {
    let pond = pond(&[MAX_EXTENT; 64]);
    let (files, locations) = pond.files(24 * MAX_EXTENT as u64);
    let (hot, cold) = locations.split_at(4);
    for _ in 0..4 {
        hot.iter().for_each(|location| drop(files.read(*location, 0, MUCH).unwrap()));
    }
    cold.iter().for_each(|location| drop(files.read(*location, 0, MUCH).unwrap()));
    assert!(hot.iter().all(|location| files.cached(*location, 0, 4096).is_some()));
}

#[test]
fn a_large_extent_goes_when_it_was_read_whole_and_a_small_one_stays() {
    let pond = pond(&[MAX_EXTENT, MAX_EXTENT, 3000]);
    let (files, locations) = pond.files(3 << 20);
    let whole = |i: usize| pond.bytes(i).len() as u32;
    assert_eq!(files.read(locations[0], 0, whole(0)).unwrap(), pond.bytes(0));
    assert!(files.cached(locations[0], 0, 1).is_none());
    files.prefetch(locations[1]);
    assert_eq!(files.cached(locations[1], 0, whole(1)).unwrap(), pond.bytes(1));
    assert!(files.cached(locations[1], 0, 1).is_none());
    assert_eq!(files.read(locations[2], 0, whole(2)).unwrap(), pond.bytes(2));
    assert!(files.cached(locations[2], 0, 1).is_some());
}

#[test]
fn readers_of_one_page_at_the_same_time_share_one_decoding() {
    let pond = pond(&[MAX_EXTENT; 2]);
    for _ in 0..20 {
        let (files, locations) = pond.files(3 << 20);
        let barrier = Barrier::new(8);
        let reads: Vec<Bytes> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        files.read(locations[0], 0, MUCH).unwrap()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(reads.iter().all(|read| read.as_ptr() == reads[0].as_ptr()));
        assert_eq!(reads[0], pond.bytes(0)[..MUCH as usize]);
    }
}

#[test]
fn damage_fails_the_reads_of_its_row_only_and_only_while_it_lasts() {
    // The small ones share a page.
    let pond = pond(&[1000, 1100, 1200, MAX_EXTENT, MAX_EXTENT]);
    let (files, locations) = pond.files(3 << 20);
    // Of large ones as much as includes the damage.
    let length = |i: usize| if i < 3 { 900 } else { MUCH as usize };
    let read = |i: usize| files.read(locations[i], 0, length(i) as u32);
    pond.damage(1);
    pond.damage(3);
    for i in [0, 2, 4] {
        assert_eq!(read(i).unwrap(), pond.bytes(i)[..length(i)]);
    }
    for i in [1, 3] {
        let error = read(i).unwrap_err();
        assert!(error.errno == libc::EIO && error.message.contains("checksum"), "{error}");
        files.prefetch(locations[i]);
        assert!(files.cached(locations[i], 0, 900).is_none());
    }
    let path = pond.data_file();
    let bytes = fs::read(&path).unwrap();
    for i in [1, 3] {
        let whole = pond.bytes(i);
        let at = find(&bytes, &whole).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&whole, at as u64).unwrap();
        // What was found damaged may be in the cache until the next read fails.
        let _ = read(i);
        assert_eq!(read(i).unwrap(), whole[..length(i)]);
    }
}

#[test]
fn a_small_read_takes_the_pieces_it_needs_and_leaves_no_page() {
    let pond = pond(&[MAX_EXTENT, 4000, 9000, MAX_EXTENT - 1, 4097, MAX_EXTENT]);
    let (files, locations) = pond.files(3 << 20);
    for (i, location) in locations.iter().enumerate() {
        let bytes = pond.bytes(i);
        for skip in (0..bytes.len()).step_by(1013) {
            for length in [1, 500, 4096, 8192].map(|length: usize| length.min(bytes.len() - skip)) {
                let pieces = files.pieces(*location, skip as u32, length as u32);
                let covering =
                    ((skip + length).next_multiple_of(PIECE)).min(bytes.len()) - skip / PIECE * PIECE;
                let small = covering <= bytes.len() / 2 && i != 1;
                assert_eq!(pieces.is_some(), small, "{i}: {length} from {skip}");
                assert!(pieces.is_none_or(|read| read == bytes[skip..skip + length]));
                assert_eq!(
                    files.read(*location, skip as u32, length as u32).unwrap(),
                    bytes[skip..skip + length]
                );
            }
        }
        assert!(files.pieces(*location, bytes.len() as u32 - 1, 2).is_none());
        assert!(files.read(*location, bytes.len() as u32 - 1, 2).is_err());
    }
    let (files, locations) = pond.files(3 << 20);
    assert_eq!(files.read(locations[5], 8192, 4096).unwrap(), pond.bytes(5)[8192..12288]);
    assert!(files.cached(locations[5], 8192, 4096).is_none());
    assert!(files.pages.iter().all(|((_, column, _), _)| column == Column::Checksum));
}

#[test]
fn a_damaged_piece_fails_the_reads_that_need_it_and_damaged_digests_fail_none() {
    let pond = pond(&[MAX_EXTENT, MAX_EXTENT]);
    pond.damage(0);
    let (files, locations) = pond.files(3 << 20);
    for piece in [0, 1, 3] {
        let (start, whole) = (piece * PIECE, pond.bytes(0));
        assert_eq!(files.read(locations[0], start as u32, 4096).unwrap(), whole[start..start + PIECE]);
    }
    let error = files.read(locations[0], 2 * PIECE as u32, 1).unwrap_err();
    assert!(error.errno == libc::EIO && error.message.contains("checksum"), "{error}");

    let path = pond.data_file();
    let content = fs::read(&path).unwrap();
    let mut slots = Vec::new();
    crate::files::pieces::digest_with_slot(&pond.bytes(1), &mut slots);
    let at = find(&content, &slots).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for i in 0..slots.len() {
        file.write_all_at(&[slots[i] ^ 0x10], (at + i) as u64).unwrap();
        let (files, locations) = pond.files(3 << 20);
        assert_eq!(files.read(locations[1], 5000, 3000).unwrap(), pond.bytes(1)[5000..8000], "{i}");
        file.write_all_at(&slots[i..=i], (at + i) as u64).unwrap();
    }
}

#[test]
fn pieces_are_kept_of_large_extents_that_do_not_compress() {
    let kept = |extents: Vec<Vec<u8>>| {
        let pond = pond_of(extents);
        find(&fs::read(pond.data_file()).unwrap(), crate::files::pieces::TAG.as_bytes()).is_some()
    };
    assert!(kept(vec![noise(1, MAX_EXTENT)]));
    assert!(kept(vec![noise(1, MAX_EXTENT), noise(2, 100)]));
    assert!(!kept((0..20).map(|i| noise(i, 6000)).collect()));
    // Each different in its first bytes, as their names are in this test.
    assert!(!kept((0..4).map(|i| [noise(i, 64), vec![i as u8; MAX_EXTENT - 64]].concat()).collect()));
}

#[test]
fn what_was_read_ahead_is_never_shown_once_it_was_overwritten_or_cut_off() {
    let pond = pond(&[MAX_EXTENT; 4]);
    let opened = OpLog::open(&pond.path, &Options::default()).unwrap();
    let fs = TinyFs::new(opened.tree, opened.oplog.clone());
    let (id, caller) = (samples::id(77), Caller::root());
    let ahead = fs.locations(id, 0, u64::MAX).unwrap();
    assert_eq!(ahead.len(), 4);
    let content = || fs.read(id, 0, 1 << 20).unwrap().fill(&*opened.oplog).unwrap();
    let mut expected: Vec<u8> = (0..4).flat_map(|i| pond.bytes(i)).collect();

    let before = fs.read(id, 0, 4096).unwrap();
    fs.write(&caller, id, 1000, &[7; 25_000], WriteFlags::default()).unwrap();
    ahead.iter().for_each(|location| pond_tinyfs::PersistenceLayer::prefetch(&*opened.oplog, *location));
    // A plan is of its time.
    assert!(before.fill(&*opened.oplog).unwrap() == expected[..4096]);
    expected[1000..26_000].fill(7);
    assert!(content() == expected);

    let size = SetAttributes { size: Some(37_500), ..SetAttributes::default() };
    fs.setattr(&caller, id, &size).unwrap();
    ahead.iter().for_each(|location| pond_tinyfs::PersistenceLayer::prefetch(&*opened.oplog, *location));
    assert!(content() == expected[..37_500]);
    let size = SetAttributes { size: Some(50_000), ..SetAttributes::default() };
    fs.setattr(&caller, id, &size).unwrap();
    expected.truncate(37_500);
    expected.resize(50_000, 0);
    assert!(content() == expected);
}
