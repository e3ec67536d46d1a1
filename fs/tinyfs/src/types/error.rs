//! Errors of the tree: an errno where POSIX names one, the storage's own words where bytes could not be had.

use std::fmt;

use super::advice::Advise;
use crate::StorageError;

/// A POSIX error number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident = $value:ident),* $(,)?) => {
        #[allow(missing_docs)]
        impl Errno {
            $(pub const $name: Errno = Errno(libc::$value);)*

            /// The symbolic name, as in `errno.h`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Errno::$name => stringify!($value),)*
                    _ => "errno",
                }
            }
        }
    };
}

errnos! {
    PERM = EPERM, NOENT = ENOENT, IO = EIO, ACCES = EACCES, EXIST = EEXIST, NOTDIR = ENOTDIR,
    ISDIR = EISDIR, INVAL = EINVAL, FBIG = EFBIG, NOSPC = ENOSPC, ROFS = EROFS, MLINK = EMLINK,
    RANGE = ERANGE, NAMETOOLONG = ENAMETOOLONG, NOTEMPTY = ENOTEMPTY, LOOP = ELOOP,
    NODATA = ENODATA, OPNOTSUPP = EOPNOTSUPP, NXIO = ENXIO, STALE = ESTALE, TOOBIG = E2BIG,
    BUSY = EBUSY, XDEV = EXDEV, NOMEM = ENOMEM, NODEV = ENODEV, AGAIN = EAGAIN,
}

impl Errno {
    /// Whether it says that the disk, or the quota, is full: the same call may succeed once there is room.
    pub fn is_full(self) -> bool {
        matches!(self.0, libc::ENOSPC | libc::EDQUOT)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

/// Why an operation on the tree failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// An error that POSIX names.
    #[error("{0}")]
    Errno(Errno),
    /// Stored bytes could not be had.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Error {
    /// The error number for the caller of the system call.
    pub fn errno(&self) -> i32 {
        match self {
            Error::Errno(errno) => errno.0,
            Error::Storage(error) => error.errno,
        }
    }
}

impl Advise for Error {
    fn advice(&self) -> Option<String> {
        match self {
            Error::Errno(_) => None,
            Error::Storage(error) => error.advice(),
        }
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Error::Errno(errno)
    }
}
