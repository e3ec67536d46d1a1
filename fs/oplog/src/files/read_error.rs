//! Why a row of a data file could not be read, until it is known of which file and which row that is said.

use std::io;
use std::path::Path;

use parquet::errors::ParquetError;
use pond_tinyfs::{Advise, StorageError};

/// What to do about a data file that is damaged or gone.
const RESTORE: &str = "restore the file from a backup";

/// Why a row could not be read.
pub(crate) enum ReadError {
    Io(io::Error),
    Corrupt(String),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        ReadError::Io(error)
    }
}

impl From<ParquetError> for ReadError {
    fn from(error: ParquetError) -> Self {
        match error {
            ParquetError::External(cause) => match cause.downcast::<io::Error>() {
                Ok(error) => ReadError::Io(*error),
                Err(cause) => ReadError::Corrupt(cause.to_string()),
            },
            other => ReadError::Corrupt(other.to_string()),
        }
    }
}

impl ReadError {
    /// Names the file and the row.
    pub(crate) fn on(self, path: &Path, row: u32) -> StorageError {
        let path = path.display();
        match self {
            ReadError::Io(error) => {
                let advice = (error.kind() == io::ErrorKind::NotFound).then_some(RESTORE);
                let message = format!("cannot read row {row} of data file {path}: {error}");
                storage_error(message, advice, libc::EIO)
            }
            ReadError::Corrupt(why) => storage_error(
                format!("data file {path} is corrupt at row {row}: {why}"),
                Some(RESTORE),
                libc::EIO,
            ),
        }
    }
}

pub(crate) fn storage_error(message: String, advice: Option<&str>, errno: i32) -> StorageError {
    let error = StorageError { message: message.into(), advice: advice.map(Into::into), errno };
    tracing::error!("{}", error.in_full());
    error
}
