//! Answers: there at once, or once what must wait has been done on another thread.

use pond_tinyfs::Error;

/// What comes of a request.
pub(crate) type Outcome<T> = Result<T, Error>;

/// Takes an outcome to whoever waits for it; called once, from whatever thread.
pub(crate) type Deliver<T> = Box<dyn FnOnce(Outcome<T>) + Send>;

/// The answer to a request that may have to wait.
#[must_use]
pub(crate) enum Answer<T> {
    /// It is there.
    Now(Outcome<T>),
    /// It will be.
    Later(Later<T>),
}

/// Work that waits for something, and yields an answer. Nothing is done before it is begun.
#[must_use]
pub(crate) struct Later<T>(Box<dyn FnOnce(Deliver<T>) + Send>);

impl<T: 'static> Later<T> {
    /// `begin` has the work done by a thread that may wait, and the outcome delivered. Only where a small wait costs less than
    /// another thread's help does it do so itself.
    pub(crate) fn new(begin: impl FnOnce(Deliver<T>) + Send + 'static) -> Self {
        Later(Box::new(begin))
    }

    /// Begins the work.
    pub(crate) fn begin(self, deliver: impl FnOnce(Outcome<T>) + Send + 'static) {
        (self.0)(Box::new(deliver));
    }
}

impl<T: 'static> Answer<T> {
    /// Delivers the answer, now or when it is there.
    #[inline]
    pub(crate) fn deliver(self, deliver: impl FnOnce(Outcome<T>) + Send + 'static) {
        match self {
            Answer::Now(outcome) => deliver(outcome),
            Answer::Later(later) => later.begin(deliver),
        }
    }
}

#[cfg(test)]
impl<T: Send + 'static> Answer<T> {
    /// The outcome; it must be there.
    #[track_caller]
    pub(crate) fn now(self) -> Outcome<T> {
        match self {
            Answer::Now(outcome) => outcome,
            Answer::Later(_) => panic!("the answer must wait"),
        }
    }

    /// Begins what must wait.
    #[track_caller]
    pub(crate) fn later(self) -> std::sync::mpsc::Receiver<Outcome<T>> {
        let (sender, receiver) = std::sync::mpsc::channel();
        match self {
            Answer::Now(_) => panic!("the answer does not wait"),
            Answer::Later(later) => later.begin(move |outcome| sender.send(outcome).unwrap()),
        }
        receiver
    }
}
