use super::*;
use pond_oplog::Timeline;

fn build(lengths: &[u64], stop: bool) -> Result<Bundle, ReplicateError> {
    build_said(lengths, None, stop)
}

/// The log says this digest of each file.
fn build_said(lengths: &[u64], blake3: Option<&str>, stop: bool) -> Result<Bundle, ReplicateError> {
    let dir = tempfile::tempdir().unwrap();
    let position = Position {
        version: Version(7),
        digest: String::new(),
        timestamp: 0,
        txn_seq: pond_oplog::TxnSeq(1),
        cut_lsn: pond_tinyfs::Lsn(1),
        timeline: Timeline::FIRST,
    };
    let data = Layout::new(dir.path()).data();
    std::fs::create_dir_all(&data).unwrap();
    let files = lengths.iter().enumerate().map(|(i, &length)| {
        let name = format!("part-{i}.parquet");
        std::fs::write(data.join(&name), vec![i as u8; 1000]).unwrap();
        FileRef { name, length, blake3: blake3.map(str::to_owned) }
    });
    let entry = Bytes::from_static(b"{}\n");
    let contents = Contents::new(dir.path(), Kind::Delta, position, entry, None, files.collect());
    contents.build(0, 3, dir.path(), &AtomicBool::new(stop))
}

#[test]
fn the_same_files_make_the_same_bytes() {
    let (one, two) = (build(&[1000, 1000], false).unwrap(), build(&[1000, 1000], false).unwrap());
    assert_eq!(one.reference, two.reference);
    assert_eq!(one.reference.unpacked, 2003);
    assert_eq!(one.reference.key, format!("version-000007/bundle-{}.tar.zst", one.object.blake3));
    assert_eq!(format::digest(one.object.bytes().unwrap()), one.object.blake3);
    let mut archive = tar::Archive::new(zstd::Decoder::new(&one.object.bytes().unwrap()[..]).unwrap());
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["00000000000000000007.json", "part-0.parquet", "part-1.parquet"]);
}

#[test]
fn of_a_file_that_is_shorter_than_the_log_says_the_rest_is_zeros_and_it_is_marked() {
    let bundle = build(&[1000, 1001], false).unwrap();
    let marks: Vec<_> = bundle.files.iter().map(|file| (file.length, file.damaged)).collect();
    assert_eq!(marks, [(3, false), (1000, false), (1001, true)]);
}

#[test]
fn a_file_that_is_not_what_was_written_is_marked() {
    let good = format::digest(&[0; 1000]);
    assert!(!build_said(&[1000], Some(&good), false).unwrap().files[1].damaged);
    let bundle = build_said(&[1000], Some(&format::digest(b"other")), false).unwrap();
    assert!(bundle.files[1].damaged);
    assert_eq!(bundle.files[1].blake3, good, "its bytes are shipped as they are");
}

#[test]
fn it_ends_when_the_process_wants_to() {
    assert!(matches!(build(&[1000], true), Err(ReplicateError::Stopped { .. })));
}

#[test]
fn bundles_begin_anew_at_file_borders() {
    let mib = 1 << 20;
    let split = |lengths: &[u64]| split(lengths.iter().copied());
    assert_eq!(split(&[1]).first(), Some(&(0..1)));
    assert_eq!(split(&[1, 100 * mib, 100 * mib]), [0..2, 2..3]);
    assert_eq!(split(&[1, 1000 * mib, 1]), [0..1, 1..2, 2..3]);
    assert_eq!(split(&[1, 64 * mib, 63 * mib, 2 * mib]), [0..3, 3..4]);
}

#[test]
fn what_does_not_fit_in_memory_is_in_a_file_without_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::new(dir.path());
    let piece = vec![7; 1 << 20];
    for _ in 0..=IN_MEMORY / piece.len() {
        spool.write_all(&piece).unwrap();
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let object = spool.finish().unwrap();
    assert_eq!(object.length, (IN_MEMORY + piece.len()) as u64);
    assert!(object.bytes().is_none());
}
