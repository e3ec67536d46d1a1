use std::io::Cursor;

use pond_oplog::Incoming;

use super::*;
use crate::format;

/// What is to be in the bundles of these tests.
fn expected() -> Vec<FileDigest> {
    vec![file("a.parquet", b"one"), file("b.parquet", &[7; 5000]), file("c.parquet", b"")]
}

fn file(name: &str, bytes: &[u8]) -> FileDigest {
    FileDigest {
        name: name.into(),
        length: bytes.len() as u64,
        blake3: format::digest(bytes),
        damaged: false,
        written: None,
    }
}

/// A tar's entry, with whatever a header can say.
struct Item {
    name: Vec<u8>,
    kind: EntryType,
    bytes: Vec<u8>,
}

fn item(name: &str, bytes: &[u8]) -> Item {
    Item { name: name.into(), kind: EntryType::Regular, bytes: bytes.to_vec() }
}

fn good() -> Vec<Item> {
    vec![item("a.parquet", b"one"), item("b.parquet", &[7; 5000]), item("c.parquet", b"")]
}

fn tar(items: &[Item]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_ustar();
        // Not through `set_path`, which has scruples.
        header.as_mut_bytes()[..item.name.len()].copy_from_slice(&item.name);
        header.set_entry_type(item.kind);
        header.set_size(item.bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, item.bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn pack(tar: &[u8]) -> Vec<u8> {
    zstd::encode_all(Cursor::new(tar), 1).unwrap()
}

fn take(bundle: &[u8], expected: &[FileDigest]) -> Result<Vec<Bytes>, UnbundleError> {
    unbundle(bundle, &format::digest(bundle), expected, |_| Ok(Target::Keep))
}

fn why(bundle: &[u8], expected: &[FileDigest]) -> String {
    match take(bundle, expected) {
        Err(UnbundleError::Damaged { file, why }) => format!("{}: {why}", file.unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_listed_comes_out() {
    let bundle = pack(&tar(&good()));
    let files = take(&bundle, &expected()).unwrap();
    assert_eq!(files, [&b"one"[..], &[7; 5000], b""]);
    let some = unbundle(&bundle[..], &format::digest(&bundle), &expected(), |file| {
        Ok(if file.name.starts_with('b') { Target::Keep } else { Target::Pass })
    });
    assert_eq!(some.unwrap(), [&[7; 5000][..]]);
}

#[test]
fn staged_files_are_there_only_if_their_digests_are_right() {
    let pond = tempfile::tempdir().unwrap();
    let (incoming, _) = Incoming::open(pond.path()).unwrap();
    let stage = |file: &FileDigest| incoming.stage(&file.name).map(Target::Stage);
    let bundle = pack(&tar(&good()));
    let mut wrong = expected();
    wrong[1].blake3 = format::digest(b"something else");
    let error = unbundle(&bundle[..], &format::digest(&bundle), &wrong, stage).unwrap_err();
    assert!(matches!(error, UnbundleError::Damaged { file: Some(name), .. } if name == "b.parquet"));
    assert!(incoming.is_staged("a.parquet") && !incoming.is_staged("b.parquet"));
    let left = std::fs::read_dir(pond.path().join("data/_inflight")).unwrap().count();
    assert_eq!(left, 1, "the file that was not finished is still there");
    unbundle(&bundle[..], &format::digest(&bundle), &expected(), stage).unwrap();
    assert_eq!(incoming.read_staged("b.parquet").unwrap().unwrap(), vec![7; 5000]);
}

#[test]
fn names_that_are_not_the_listed_ones_are_refused() {
    for name in ["../a.parquet", "/a.parquet", "./a.parquet", "a.parque", "x/a.parquet", "z.parquet"] {
        let mut items = good();
        items[0].name = name.into();
        let why = why(&pack(&tar(&items)), &expected());
        assert!(why.starts_with("a.parquet") && why.contains(name), "{why}");
    }
}

#[test]
fn one_more_one_less_one_twice_or_another_order_is_refused() {
    let mut more = good();
    more.push(item("d.parquet", b"x"));
    assert!(why(&pack(&tar(&more)), &expected()).contains("d.parquet"));
    let mut twice = good();
    twice.push(item("a.parquet", b"one"));
    assert!(why(&pack(&tar(&twice)), &expected()).contains("does not list"));
    let mut less = good();
    less.pop();
    assert!(why(&pack(&tar(&less)), &expected()).starts_with("c.parquet"));
    let mut order = good();
    order.swap(0, 1);
    assert!(why(&pack(&tar(&order)), &expected()).starts_with("a.parquet"));
}

#[test]
fn only_regular_files_are_taken() {
    use EntryType as E;
    let kinds = [
        E::Symlink,
        E::Link,
        E::Directory,
        E::Char,
        E::Fifo,
        E::GNUSparse,
        E::Continuous,
        E::XHeader,
        E::GNULongName,
    ];
    for kind in kinds {
        let mut items = good();
        items[0].kind = kind;
        let why = why(&pack(&tar(&items)), &expected());
        assert!(why.contains("no regular file"), "{kind:?}: {why}");
    }
    // An extension that would give the next file another name, or a size of its own.
    let mut items = good();
    items.insert(0, Item { name: b"x".into(), kind: E::XHeader, bytes: b"20 path=../../evil\n\n".to_vec() });
    assert!(why(&pack(&tar(&items)), &expected()).starts_with("a.parquet"));
}

#[test]
fn lengths_must_be_the_listed_ones() {
    for bytes in [&b"on"[..], b"ones"] {
        let mut items = good();
        items[0].bytes = bytes.to_vec();
        assert!(why(&pack(&tar(&items)), &expected()).contains("3 in the manifest"));
    }
    let bundle = tar(&good());
    assert!(why(&pack(&bundle[..2000]), &expected()).starts_with("b.parquet"));
}

#[test]
fn decompression_ends_at_what_the_list_allows() {
    // 1 GiB of zeros in some 30 KiB: behind the end, and as a file.
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&tar(&good())).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..1024 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 1 << 20);
    assert!(why(&bomb, &expected()).contains("unpacks to more"));

    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("a.parquet").unwrap();
    header.set_size(1 << 30);
    header.set_cksum();
    encoder.write_all(header.as_bytes()).unwrap();
    for _ in 0..64 {
        encoder.write_all(&zeros).unwrap();
    }
    assert!(why(&encoder.finish().unwrap(), &expected()).contains("in the bundle and 3"));
}

#[test]
fn what_follows_the_end_is_refused_unless_it_fills_up() {
    let mut bundle = tar(&good());
    bundle.extend_from_slice(&[0; 1024]);
    take(&pack(&bundle), &expected()).unwrap();
    bundle.push(1);
    assert!(why(&pack(&bundle), &expected()).contains("follows its end"));
    let mut bundle = pack(&tar(&good()));
    bundle.extend_from_slice(b"rest");
    // Its own digest covers what follows the frame; a reader that knows the right one refuses it.
    let right = format::digest(&pack(&tar(&good())));
    assert!(unbundle(&bundle[..], &right, &expected(), |_| Ok(Target::Keep)).is_err());
}

#[test]
fn every_flipped_bit_and_every_truncation_is_noticed() {
    let bundle = pack(&tar(&good()));
    let digest = format::digest(&bundle);
    for at in 0..bundle.len() {
        for bit in [1, 128] {
            let mut damaged = bundle.clone();
            damaged[at] ^= bit;
            assert!(unbundle(&damaged[..], &digest, &expected(), |_| Ok(Target::Keep)).is_err(), "byte {at}");
        }
        assert!(unbundle(&bundle[..at], &digest, &expected(), |_| Ok(Target::Keep)).is_err(), "cut at {at}");
    }
}

#[test]
fn an_error_of_the_source_is_told_from_damage() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let bundle = pack(&tar(&good()));
    let broken = (&bundle[..20]).chain(Broken);
    let error = unbundle(broken, "x", &expected(), |_| Ok(Target::Keep)).unwrap_err();
    assert!(
        matches!(error, UnbundleError::Unreadable(error) if error.kind() == io::ErrorKind::ConnectionReset)
    );
}
