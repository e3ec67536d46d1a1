//! Errors of the tree: an errno where POSIX names one, the storage's own words where bytes could not be had.

use std::fmt;

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

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Error::Errno(errno)
    }
}
