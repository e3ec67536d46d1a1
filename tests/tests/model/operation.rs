//! What a random sequence consists of, and how often each of it comes.

use proptest::prelude::*;

/// Names that paths are made of; few, so that operations meet.
const NAMES: [&str; 4] = ["a", "b", "c", "d\u{301} \u{fffd}"];

/// Open files that a sequence can hold.
pub const SLOTS: usize = 3;

/// Users that do something: root and two others.
pub const USERS: [u32; 3] = [0, 12_345, 23_456];

/// A path below the root of a sequence.
#[derive(Clone, Debug)]
pub struct Where(pub String);

/// One system call, or one that is repeated until it is done.
#[derive(Clone, Debug)]
pub enum Call {
    Open { slot: usize, path: Where, flags: i32, mode: u32 },
    Close { slot: usize },
    Write { slot: usize, offset: u64, length: usize, byte: u8 },
    Read { slot: usize, offset: u64, length: usize },
    ResizeOpen { slot: usize, size: u64 },
    Allocate { slot: usize, mode: i32, offset: u64, length: u64 },
    CopyRange { from: usize, at: u64, to: usize, put: u64, length: usize },
    StatOpen { slot: usize },
    Fsync { slot: usize },
    Resize { path: Where, size: u64 },
    Stat { path: Where },
    List { path: Where },
    ReadLink { path: Where },
    Access { path: Where, mode: i32 },
    Mkdir { path: Where, mode: u32 },
    Mknod { path: Where, mode: u32 },
    Symlink { path: Where, target: Where },
    Link { path: Where, new: Where },
    Unlink { path: Where },
    Rmdir { path: Where },
    Rename { path: Where, new: Where, flags: u32 },
    Chmod { path: Where, mode: u32 },
    Chown { path: Where, uid: Option<u32>, gid: Option<u32> },
    Utimens { path: Where, seconds: i64, nanoseconds: i64 },
    SetXattr { path: Where, name: u8, length: usize, flags: i32 },
    GetXattr { path: Where, name: u8 },
    RemoveXattr { path: Where, name: u8 },
}

/// A call and who makes it.
#[derive(Clone, Debug)]
pub struct Step {
    pub user: u32,
    pub call: Call,
}

/// A random sequence.
pub fn sequence() -> impl Strategy<Value = Vec<Step>> {
    let user = prop_oneof![4 => Just(USERS[0]), 1 => Just(USERS[1]), 1 => Just(USERS[2])];
    let step = (user, call()).prop_map(|(user, call)| Step { user, call });
    // First something to work on, or most calls would only find out that nothing is there.
    let begin = beginning().prop_map(|call| Step { user: USERS[0], call });
    let (begin, rest) = (prop::collection::vec(begin, 0..10), prop::collection::vec(step, 1..80));
    (begin, rest).prop_map(|(begin, rest)| begin.into_iter().chain(rest).collect())
}

fn beginning() -> impl Strategy<Value = Call> {
    let flags = libc::O_RDWR | libc::O_CREAT;
    prop_oneof![
        3 => (slot(), path()).prop_map(move |(slot, path)| Call::Open { slot, path, flags, mode: 0o666 }),
        2 => path().prop_map(|path| Call::Mkdir { path, mode: 0o777 }),
        1 => (slot(), offset(), length(), any::<u8>())
            .prop_map(|(slot, offset, length, byte)| Call::Write { slot, offset, length, byte }),
    ]
}

fn path() -> impl Strategy<Value = Where> {
    let depth = prop_oneof![12 => Just(1usize), 4 => Just(2), 1 => Just(3)];
    depth
        .prop_flat_map(|depth| prop::collection::vec(prop::sample::select(&NAMES[..]), depth))
        .prop_map(|names| Where(names.join("/")))
}

/// All permissions, mostly such that something can be done. Setgid comes with execution by the group only: without,
/// newer kernels clear it for strangers who write, and FUSE's protocol (fuse.h, KILLPRIV_V2) says not to.
fn mode() -> impl Strategy<Value = u32> {
    let any = (0u32..0o10000).prop_map(|mode| if mode & 0o2000 == 0 { mode } else { mode | 0o010 });
    prop_oneof![3 => Just(0o777u32), 2 => Just(0o644u32), 2 => any]
}

/// Positions within some extents, near their borders, and far apart.
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0u64..5_000, 2 => 130_000u64..132_500, 2 => 0u64..600_000]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 1usize..100, 2 => 1usize..10_000, 1 => 1usize..300_000]
}

fn flags() -> impl Strategy<Value = i32> {
    let access = prop_oneof![4 => Just(libc::O_RDWR), 1 => Just(libc::O_RDONLY), 1 => Just(libc::O_WRONLY)];
    let create = prop_oneof![4 => Just(libc::O_CREAT), 1 => Just(libc::O_CREAT | libc::O_EXCL), 2 => Just(0)];
    let more = prop_oneof![
        5 => Just(0),
        1 => Just(libc::O_TRUNC),
        1 => Just(libc::O_APPEND),
        1 => Just(libc::O_NOFOLLOW),
        1 => Just(libc::O_DIRECTORY)
    ];
    (access, create, more).prop_map(|(access, create, more)| access | create | more)
}

fn allocation() -> impl Strategy<Value = i32> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    prop::sample::select(vec![
        0,
        KEEP,
        libc::FALLOC_FL_PUNCH_HOLE | KEEP,
        libc::FALLOC_FL_ZERO_RANGE,
        libc::FALLOC_FL_ZERO_RANGE | KEEP,
    ])
}

fn slot() -> impl Strategy<Value = usize> {
    0..SLOTS
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        12 => (slot(), path(), flags(), mode())
            .prop_map(|(slot, path, flags, mode)| Call::Open { slot, path, flags, mode }),
        2 => slot().prop_map(|slot| Call::Close { slot }),
        32 => content().boxed(),
        27 => names().boxed(),
        14 => attributes().boxed(),
    ]
}

fn content() -> impl Strategy<Value = Call> {
    prop_oneof![
        10 => (slot(), offset(), length(), any::<u8>())
            .prop_map(|(slot, offset, length, byte)| Call::Write { slot, offset, length, byte }),
        4 => (slot(), offset(), length()).prop_map(|(slot, offset, length)| Call::Read { slot, offset, length }),
        3 => (slot(), offset()).prop_map(|(slot, size)| Call::ResizeOpen { slot, size }),
        1 => (path(), offset()).prop_map(|(path, size)| Call::Resize { path, size }),
        5 => (slot(), allocation(), offset(), 1u64..200_000)
            .prop_map(|(slot, mode, offset, length)| Call::Allocate { slot, mode, offset, length }),
        3 => (slot(), offset(), slot(), offset(), length())
            .prop_map(|(from, at, to, put, length)| Call::CopyRange { from, at, to, put, length }),
        2 => slot().prop_map(|slot| Call::StatOpen { slot }),
        1 => slot().prop_map(|slot| Call::Fsync { slot }),
    ]
}

fn names() -> impl Strategy<Value = Call> {
    let kind = prop::sample::select(vec![libc::S_IFIFO, libc::S_IFSOCK, libc::S_IFCHR, libc::S_IFREG]);
    prop_oneof![
        6 => (path(), mode()).prop_map(|(path, mode)| Call::Mkdir { path, mode }),
        1 => (path(), kind, mode()).prop_map(|(path, kind, mode)| Call::Mknod { path, mode: kind | mode }),
        2 => (path(), path()).prop_map(|(path, target)| Call::Symlink { path, target }),
        3 => (path(), path()).prop_map(|(path, new)| Call::Link { path, new }),
        3 => path().prop_map(|path| Call::Unlink { path }),
        2 => path().prop_map(|path| Call::Rmdir { path }),
        6 => (path(), path(), prop_oneof![4 => Just(0), 1 => Just(libc::RENAME_NOREPLACE), 2 => Just(libc::RENAME_EXCHANGE)])
            .prop_map(|(path, new, flags)| Call::Rename { path, new, flags }),
        2 => path().prop_map(|path| Call::Stat { path }),
        2 => path().prop_map(|path| Call::List { path }),
        1 => path().prop_map(|path| Call::ReadLink { path }),
    ]
}

fn attributes() -> impl Strategy<Value = Call> {
    let owner = || prop::option::of(prop::sample::select(&USERS[..]));
    // chown(-1, -1) is left out: the kernel asks a FUSE server for nothing then, and setuid bits stay.
    let owners = (owner(), owner()).prop_filter("someone", |(uid, gid)| uid.is_some() || gid.is_some());
    // What both can hold: ext4 begins in 1901, and a pond, which counts nanoseconds, ends in 2262.
    let seconds = -2_000_000_000i64..9_200_000_000;
    let replace = prop::sample::select(vec![0, libc::XATTR_CREATE, libc::XATTR_REPLACE]);
    prop_oneof![
        4 => (path(), mode()).prop_map(|(path, mode)| Call::Chmod { path, mode }),
        3 => (path(), owners).prop_map(|(path, (uid, gid))| Call::Chown { path, uid, gid }),
        2 => (path(), seconds, 0i64..1_000_000_000)
            .prop_map(|(path, seconds, nanoseconds)| Call::Utimens { path, seconds, nanoseconds }),
        3 => (path(), 0u8..3, 0usize..200, replace)
            .prop_map(|(path, name, length, flags)| Call::SetXattr { path, name, length, flags }),
        1 => (path(), 0u8..3).prop_map(|(path, name)| Call::GetXattr { path, name }),
        1 => (path(), 0u8..3).prop_map(|(path, name)| Call::RemoveXattr { path, name }),
        1 => (path(), 0i32..8).prop_map(|(path, mode)| Call::Access { path, mode }),
    ]
}
