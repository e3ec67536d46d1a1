//! How a factory fails.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use pond_tinyfs::Advise;

/// What a factory says when it cannot do what it was asked: a sentence for the user, what to do next, and the error that it
/// comes from, where there is one.
#[derive(Clone, Debug)]
pub struct FactoryError {
    message: Arc<str>,
    advice: Option<Arc<str>>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

impl FactoryError {
    /// From a sentence that names the thing.
    pub fn new(message: impl Into<Arc<str>>) -> Self {
        FactoryError { message: message.into(), advice: None, cause: None }
    }

    /// Adds the error that it comes from, of which the message tells already.
    pub fn caused_by(self, cause: impl Error + Send + Sync + 'static) -> Self {
        FactoryError { cause: Some(Arc::new(cause)), ..self }
    }

    /// Says what the error says, and keeps it as the cause.
    pub fn because(error: impl Advise + Send + Sync + 'static) -> Self {
        FactoryError {
            message: error.to_string().into(),
            advice: error.advice().map(Into::into),
            cause: Some(Arc::new(error)),
        }
    }

    /// Adds what to do next.
    pub fn advise(self, advice: impl Into<Arc<str>>) -> Self {
        FactoryError { advice: Some(advice.into()), ..self }
    }
}

impl Advise for FactoryError {
    fn advice(&self) -> Option<String> {
        self.advice.as_deref().map(str::to_owned)
    }
}

impl fmt::Display for FactoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for FactoryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}
