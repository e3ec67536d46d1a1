//! Data files as those name them who copy versions.

use crate::files::digests;
use crate::log::action::Add;

/// A data file that a version added.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileRef {
    /// Name within `data/`.
    pub name: String,
    /// Bytes.
    pub length: u64,
    /// BLAKE3-256 of them, lowercase hex, where whoever names the file says it.
    pub blake3: Option<String>,
}

impl FileRef {
    /// The file that an entry adds.
    pub(crate) fn of(add: &Add) -> Self {
        FileRef { name: add.path.clone(), length: add.size, blake3: digests::file_tag(add) }
    }

    /// Whether both may mean the same file: nothing that both say differs.
    pub(crate) fn agrees(&self, other: &FileRef) -> bool {
        let digests = self.blake3.as_ref().zip(other.blake3.as_ref());
        self.name == other.name
            && self.length == other.length
            && digests.is_none_or(|(ours, theirs)| ours == theirs)
    }
}
