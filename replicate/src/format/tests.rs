use super::*;
use pond_oplog::Timeline;

fn file(name: &str) -> FileDigest {
    FileDigest {
        name: name.into(),
        length: 10,
        blake3: digest(name.as_bytes()),
        damaged: false,
        written: None,
    }
}

fn manifest() -> Manifest {
    let bundle = |first: usize, count: usize| BundleRef {
        key: format!("version-000042/{}", bundle_name(&digest(&[first as u8]))),
        length: 5,
        blake3: digest(&[first as u8]),
        unpacked: 10 * count as u64,
        first,
        count,
    };
    Manifest {
        format: FORMAT,
        kind: Kind::Delta,
        pond_id: PondId::random(),
        timeline: Timeline::FIRST,
        version: 42,
        txn_seq: 43,
        timestamp: 1,
        parent: Some(digest(b"parent")),
        schema: digest(b"schema"),
        entry: file(&entry_name(Version(42))),
        checkpoint: None,
        files: vec![file("a.parquet"), file("b.parquet")],
        bundles: vec![bundle(0, 2), bundle(2, 1)],
    }
}

fn check(manifest: &Manifest) -> Result<(), ReplicateError> {
    manifest.check("key", Kind::Delta, Version(42))
}

#[test]
fn a_manifest_comes_back_and_later_fields_are_passed_over() {
    let manifest = manifest();
    check(&manifest).unwrap();
    let mut value = serde_json::to_value(&manifest).unwrap();
    value["later"] = serde_json::json!([1]);
    let read: Manifest = decode("key", value.to_string().as_bytes()).unwrap();
    assert_eq!(read, manifest);
    value["format"] = 2.into();
    assert!(matches!(
        decode::<Manifest>("key", value.to_string().as_bytes()),
        Err(ReplicateError::TooNew { format: 2, .. })
    ));
    assert!(matches!(decode::<Manifest>("key", b"{\"format\":1"), Err(ReplicateError::Corrupt { .. })));
}

#[test]
fn a_manifest_that_cannot_be_is_refused() {
    type Change = fn(&mut Manifest);
    let changes: [Change; 17] = [
        |m| m.version = 41,
        |m| m.kind = Kind::Base,
        |m| m.checkpoint = Some(file("c")),
        |m| m.entry.name = "x".into(),
        |m| m.files[0].name = "../x".into(),
        |m| m.files[0].name = "/x".into(),
        |m| m.files[0].name = ".x".into(),
        |m| m.files[0].name = String::new(),
        |m| m.files[0].name = "b.parquet".into(),
        |m| m.files[0].blake3 = "0".into(),
        |m| m.files[0].length = u64::MAX,
        |m| {
            m.entry.length = LARGEST_ENTRY + 1;
            m.bundles[0].unpacked = m.entry.length + 10;
        },
        |m| m.bundles.truncate(1),
        |m| m.bundles[1].first = 1,
        |m| m.bundles[1].count = usize::MAX,
        |m| m.bundles[1].unpacked += 1,
        |m| m.bundles[1].key = "../other".into(),
    ];
    for (i, change) in changes.iter().enumerate() {
        let mut manifest = manifest();
        change(&mut manifest);
        assert!(check(&manifest).is_err(), "change {i}");
    }
}

#[test]
fn numbers_have_six_digits_or_more_and_are_parsed_as_numbers() {
    assert_eq!(manifest_key(Timeline(1), Version(42)), "1/version-000042/manifest.json");
    assert_eq!(manifest_key(Timeline(2), Version(12_345_678)), "2/version-12345678/manifest.json");
    assert_eq!(parse_folder("version-000042"), Some((Kind::Delta, Version(42))));
    assert_eq!(parse_folder("base-1000000"), Some((Kind::Base, Version(1_000_000))));
    for name in
        ["version-", "version-+1", "version--1", "version-1x", "packs", "version-99999999999999999999"]
    {
        assert_eq!(parse_folder(name), None, "{name}");
    }
    let blake3 = digest(b"x");
    let key = format!("1/{}", pack_key(Version(999_936), Version(1_000_000), &blake3));
    assert_eq!(parse_pack_key(&key), Some((Version(999_936), Version(1_000_000), &*blake3)));
    for name in ["1-2.pack", "2-1-x.pack", "packs/000001-000063-zz.pack", "x"] {
        assert_eq!(parse_pack_key(name), None, "{name}");
    }
    assert_eq!(
        (pack_end(Version(0)), pack_end(Version(63)), pack_end(Version(64))),
        (Version(63), Version(63), Version(127))
    );
}
