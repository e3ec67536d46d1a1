//! Who asks.

use pond_tinyfs::Caller;

/// Who asks. Permissions were checked by the kernel, as far as they are its to check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The thread, by its id.
    pub(crate) thread: u32,
}

impl Request {
    #[inline]
    pub(crate) fn caller(self) -> Caller {
        Caller::checked(self.uid, self.gid)
    }
}
