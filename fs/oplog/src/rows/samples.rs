//! Rows of every kind, for tests.

use bytes::Bytes;
use pond_tinyfs::{
    EntryChange, EntryOp, ExtentContent, ExtentRecord, FileType, Lsn, NodeId, NodeRecord, Record, Row,
    Timestamp,
};

/// A directory where an fsync costs nothing, if the machine has one: for tests that make thousands.
pub(crate) fn fast_directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(crate) fn id(raw: u64) -> NodeId {
    NodeId::new(raw).unwrap()
}

pub(crate) fn row(node: u64, lsn: u64, seq: u32, record: Record) -> Row {
    Row {
        part: NodeId::ROOT,
        node: id(node),
        lsn: Lsn(lsn),
        seq,
        version: lsn,
        timestamp: 1_700_000_000_000_000,
        record,
    }
}

pub(crate) fn node(kind: FileType) -> NodeRecord {
    NodeRecord {
        mode: 0o6755,
        uid: u32::MAX - 1,
        gid: 7,
        nlink: 1,
        atime: Timestamp(-1),
        mtime: Timestamp(i64::MAX),
        ctime: Timestamp(3),
        ..NodeRecord::new(kind, Timestamp(i64::MIN))
    }
}

pub(crate) fn extent(node: u64, lsn: u64, offset: u64, bytes: impl Into<Bytes>) -> Row {
    let bytes = bytes.into();
    let length = bytes.len() as u32;
    row(node, lsn, 0, Record::Extent(ExtentRecord { offset, length, content: ExtentContent::Memory(bytes) }))
}

pub(crate) fn root() -> Row {
    let record = NodeRecord { mode: 0o755, nlink: 2, next_cookie: 3, ..node(FileType::Directory) };
    row(1, 1, 0, Record::Node(Box::new(record)))
}

/// A file of this name in the root directory, made by operation `lsn`.
pub(crate) fn file(name: &str, raw: u64, lsn: u64) -> Vec<Row> {
    let change = EntryChange {
        name: name.as_bytes().into(),
        child: id(raw),
        kind: FileType::File,
        cookie: lsn + 10,
        op: EntryOp::Insert,
    };
    let directory = NodeRecord { mode: 0o755, nlink: 2, next_cookie: lsn + 11, ..node(FileType::Directory) };
    vec![
        row(raw, lsn, 0, Record::Node(Box::new(node(FileType::File)))),
        row(1, lsn, 1, Record::Entries(vec![change])),
        row(1, lsn, 2, Record::Node(Box::new(directory))),
    ]
}

/// The attributes of a file after its size changed.
pub(crate) fn file_size(raw: u64, lsn: u64, size: u64) -> Row {
    row(raw, lsn, 0, Record::Node(Box::new(NodeRecord { size, ..node(FileType::File) })))
}

/// Every kind of row, with every optional member both there and not.
pub(crate) fn all_kinds() -> Vec<Row> {
    let xattrs = [(b"user.a".as_slice(), b"\0\xff".as_slice()), (b"user.\xfe".as_slice(), b"".as_slice())];
    let change = |name: &[u8], op| EntryChange {
        name: name.into(),
        child: id(9),
        kind: FileType::Fifo,
        cookie: 5,
        op,
    };
    vec![
        root(),
        row(
            2,
            2,
            0,
            Record::Node(Box::new(NodeRecord {
                xattrs: Some(xattrs.iter().map(|(k, v)| (Box::from(*k), Box::from(*v))).collect()),
                size: i64::MAX as u64,
                ..node(FileType::File)
            })),
        ),
        row(
            3,
            3,
            0,
            Record::Node(Box::new(NodeRecord {
                content: Some(Bytes::from_static(b"\xff/target")),
                xattrs: Some(Default::default()),
                ..node(FileType::Symlink)
            })),
        ),
        row(
            4,
            4,
            0,
            Record::Node(Box::new(NodeRecord {
                factory: Some("exec-log".into()),
                content: Some(Bytes::from_static(b"a: b\n")),
                ..node(FileType::Dynamic)
            })),
        ),
        row(
            5,
            5,
            3,
            Record::Node(Box::new(NodeRecord { rdev: u32::MAX, nlink: 0, ..node(FileType::CharDevice) })),
        ),
        row(
            1,
            6,
            0,
            Record::Entries(vec![
                change(b"", EntryOp::Reset),
                change(b"\xff\xfe name", EntryOp::Insert),
                change(&[b'x'; 255], EntryOp::Remove),
            ]),
        ),
        row(2, 7, 0, Record::Hole { offset: 5, length: Some(6) }),
        row(2, 8, 0, Record::Hole { offset: 0, length: None }),
        extent(2, 9, 1 << 40, vec![1, 2, 3]),
        extent(2, 10, 0, vec![7; pond_tinyfs::MAX_EXTENT]),
    ]
}

/// A log entry that was changed, with the digest that it must carry then.
pub(crate) fn resealed(entry: &str) -> String {
    const MEMBER: &str = "\"digest\":\"";
    let at = entry.find(MEMBER).unwrap() + MEMBER.len();
    let with = |digest: &str| [&entry[..at], digest, &entry[at + 64..]].concat();
    with(blake3::hash(with(&"0".repeat(64)).as_bytes()).to_hex().as_str())
}
