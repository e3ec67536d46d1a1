//! Running statements: on threads of their own, so that a signal or a time limit ends them whatever they are at.

use std::cell::Cell;
use std::io::Write;
use std::time::{Duration, Instant};

use futures::StreamExt;
use pond_query::{Options, OutputFormat, OutputOptions, QueryError, Session, Statement, WriteError, Writer};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::cli::SqlArgs;
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::interrupt;
use crate::output::{Notices, count, size};
use crate::target::State;

/// How often it is looked whether a signal came.
const LOOK: Duration = Duration::from_millis(50);
/// Batches that wait to be written.
const WAITING: usize = 4;
/// A thread's stack: plans are gone through by recursion.
const STACK: usize = 8 << 20;
/// Queries take one part in so many of the memory there is.
const MEMORY_SHARE: u64 = 4;
/// As much as may go to disk, bytes.
const MOST_SPILLED: u64 = 1 << 40;

/// A session, and what it runs on.
pub struct Asking {
    runtime: Runtime,
    session: std::sync::Arc<Session>,
    spill: TempDir,
    notices: Notices,
    timeout: Option<Duration>,
    /// Whether something is still running that was given up.
    left: Cell<bool>,
}

/// What the query's thread hands over.
enum Step {
    Begun(Box<Writer>),
    Rows(pond_query::Batch),
    Failed(QueryError),
    CannotWrite(WriteError),
}

/// The query failed, in pond's form.
pub fn to_failure(error: &QueryError) -> Failure {
    let failure = Failure::new("cannot answer the query", error.why.clone());
    match &error.advice {
        Some(advice) => failure.next(advice.clone()),
        None => failure,
    }
}

fn not_written(error: WriteError) -> Failure {
    match error {
        WriteError::Sink(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        WriteError::Sink(error) => Failure::because("cannot write the answer", &error),
        WriteError::Format(error) => Failure::new("cannot write the answer", error.why),
    }
}

impl Asking {
    /// Begins a session over the pond.
    pub fn begin(args: &SqlArgs, context: &Context) -> Result<Self> {
        let views = context.pond.versions()?;
        if args.at() == pond_oplog::At::Tip {
            tell_of_uncommitted(context)?;
        }
        let directory = context.pond.directory().to_path_buf();
        let settings = {
            let directory = directory.clone();
            Box::new(move || {
                pond_steward::settings_of(&directory).map_err(|error| QueryError::new(error.to_string()))
            })
        };
        let parent = args.temp_dir.clone().unwrap_or_else(temporary);
        std::fs::read_dir(&parent)
            .during(|| format!("cannot use the directory {}", parent.display()))
            .map_err(|failure| failure.next("name another with --temp-dir"))?;
        let spill = tempfile::Builder::new()
            .prefix("pond-sql-")
            .tempdir_in(&parent)
            .during(|| format!("cannot make a directory in {}", parent.display()))
            .map_err(|failure| failure.next("name another with --temp-dir"))?;
        let memory = args.memory_limit.unwrap_or_else(|| pond_steward::memory_limit() / MEMORY_SHARE);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let options = Options {
            at: args.at(),
            memory: usize::try_from(memory).unwrap_or(usize::MAX),
            threads: args.threads.unwrap_or(processors),
            spill: spill.path().to_path_buf(),
            spill_limit: MOST_SPILLED,
            host: true,
        };
        let pond = pond_query::Pond { directory, views, settings };
        let session = Session::new(pond, &options).map_err(|error| to_failure(&error))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(processors.max(2))
            .thread_stack_size(STACK)
            .enable_all()
            .build()
            .during(|| "cannot start threads".to_owned())?;
        let session = std::sync::Arc::new(session);
        let notices = context.notices;
        Ok(Asking { runtime, session, spill, notices, timeout: args.timeout, left: Cell::new(false) })
    }

    /// A directory of one's own, for what is made on the way; it goes with the session.
    pub fn directory(&self) -> &std::path::Path {
        self.spill.path()
    }

    /// Runs a statement and writes its rows, of which it says the number. A signal, or the time limit, ends it.
    pub fn answer(
        &self,
        statement: &Statement,
        format: OutputFormat,
        options: &OutputOptions,
        sink: Box<dyn Write + Send>,
    ) -> Result<u64> {
        interrupt::catch();
        let (tx, mut rx) = mpsc::channel(WAITING);
        let (session, statement, options) = (self.session.clone(), statement.clone(), options.clone());
        let running = self.runtime.spawn(async move {
            let mut answer = match session.run(&statement).await {
                Ok(answer) => answer,
                Err(error) => return drop(tx.send(Step::Failed(error)).await),
            };
            let begun = match Writer::new(format, &options, &answer.schema, sink) {
                Ok(writer) => Step::Begun(Box::new(writer)),
                Err(error) => Step::CannotWrite(error),
            };
            if tx.send(begun).await.is_err() {
                return;
            }
            while let Some(batch) = answer.rows.next().await {
                let step = match batch {
                    Ok(batch) => Step::Rows(batch),
                    Err(error) => Step::Failed(error.into()),
                };
                // Whoever asked may have given up.
                if tx.send(step).await.is_err() {
                    return;
                }
            }
        });
        let (began, read_before) = (Instant::now(), self.session.bytes_read());
        let written = self.write(&mut rx);
        if let Ok(rows) = written {
            let (took, read) = (began.elapsed(), self.session.bytes_read() - read_before);
            let event =
                json!({"event": "answered", "rows": rows, "bytes_read": read, "seconds": took.as_secs_f64()});
            let text = || {
                format!("{}, {} of files read, {:.3} s", count(rows, "row"), size(read), took.as_secs_f64())
            };
            self.notices.detail(event, text);
        }
        if written.is_err() {
            running.abort();
            self.left.set(true);
        } else {
            // Its pins end with it.
            self.runtime.block_on(self.session.done());
        }
        written
    }

    fn write(&self, rx: &mut mpsc::Receiver<Step>) -> Result<u64> {
        let begun = Instant::now();
        let (mut writer, mut rows) = (None, 0);
        loop {
            interrupt::check()?;
            if let Some(limit) = self.timeout.filter(|limit| begun.elapsed() >= *limit) {
                let why = format!("it was not done after {limit:?}");
                return Err(
                    Failure::new("cannot answer the query", why).next("--timeout says how long it may take")
                );
            }
            let step = self.runtime.block_on(async { tokio::time::timeout(LOOK, rx.recv()).await });
            match step {
                Err(_) => {}
                Ok(Some(Step::Begun(begun))) => writer = Some(*begun),
                Ok(Some(Step::Rows(batch))) => {
                    rows += batch.num_rows() as u64;
                    if let Some(writer) = &mut writer {
                        writer.write(&batch).map_err(not_written)?;
                    }
                }
                Ok(Some(Step::Failed(error))) => return Err(to_failure(&error)),
                Ok(Some(Step::CannotWrite(error))) => return Err(not_written(error)),
                Ok(None) => break,
            }
        }
        match writer {
            Some(writer) => writer.finish().map_err(not_written).map(|()| rows),
            // Its thread ended without a word.
            None => Err(Failure::new("cannot answer the query", "it ended before its time")),
        }
    }

    /// Ends the session, and removes what it put on disk.
    pub fn end(self) {
        let Asking { runtime, session, spill, left, .. } = self;
        drop(session);
        // What was given up may be in the middle of something; nobody waits for it.
        if left.get() {
            runtime.shutdown_background()
        } else {
            drop(runtime)
        }
        drop(spill);
    }
}

/// Where large files go that are there for a while.
fn temporary() -> std::path::PathBuf {
    match std::env::var_os("TMPDIR") {
        Some(directory) if !directory.is_empty() => directory.into(),
        _ if std::path::Path::new("/var/tmp").is_dir() => "/var/tmp".into(),
        _ => std::env::temp_dir(),
    }
}

/// What a mount has not committed is in no version.
fn tell_of_uncommitted(context: &Context) -> Result {
    if let State::Mounted(mut daemon) = context.pond.state()?
        && let Ok(status) = daemon.try_status()
        && let Some(rows) = status["uncommitted"]["rows"].as_u64().filter(|rows| *rows > 0)
    {
        let text = "changes that no version holds yet are not seen: `pond sync` commits them";
        context.notices.detail(json!({"event": "uncommitted", "rows": rows}), || format!("pond: {text}"));
    }
    Ok(())
}
