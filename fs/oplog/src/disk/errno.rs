//! Error numbers of the operating system that mean something passing.

/// Whether the process, or the system, has too many files open.
pub(crate) fn is_out_of_files(errno: i32) -> bool {
    matches!(errno, libc::EMFILE | libc::ENFILE)
}
