//! Running programs: with a bound on time, and with everything they said in the message when they fail.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::wait::wait_until;

/// How long a program may take unless told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its command line.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Finished {
    /// Panics, with all it said, unless it exited with 0; its standard output.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.status.success(), "{self}");
        self.stdout
    }

    /// Panics, with all it said, unless it exited with this code; its standard error.
    #[track_caller]
    pub fn failure(self, code: i32) -> String {
        assert_eq!(self.status.code(), Some(code), "{self}");
        self.stderr
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "`{}` ended with {} after {:?}", self.command, self.status, self.took)?;
        writeln!(f, "--- stdout\n{}", tail(&self.stdout))?;
        write!(f, "--- stderr\n{}", tail(&self.stderr))
    }
}

/// Has the program heed SIGINT also where the tests were started with it ignored, as `nohup` and scripts' `&` do.
pub fn heed_interrupts(command: &mut Command) {
    let heed = || {
        // SAFETY: signal(2) may be called between fork and exec; the default action needs no handler.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
        Ok(())
    };
    // SAFETY: the closure allocates nothing and takes no locks.
    unsafe { command.pre_exec(heed) };
}

/// The end of a long text.
fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(8 << 10);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// Runs a program to its end, at most [`PATIENCE`].
#[track_caller]
pub fn run(command: &mut Command) -> Finished {
    run_within(command, PATIENCE)
}

/// Runs a program that must exit with 0; its standard output.
#[track_caller]
pub fn succeed(command: &mut Command) -> String {
    run(command).success()
}

/// Runs a program that unmounts something and must exit with 0. A program that another test is starting has our descriptors
/// between its fork and its exec, and keeps the mount busy for that moment.
#[track_caller]
pub fn unmount(command: &mut Command) {
    wait_until("the mount is not busy", Duration::from_secs(10), || {
        let ended = run(command);
        assert!(ended.status.success() || ended.stderr.contains("busy"), "{ended}");
        ended.status.success().then_some(())
    });
}

/// Runs a program to its end. Its output goes through files, not pipes: a daemon that it leaves behind must
/// not keep us waiting for the end of a pipe.
#[track_caller]
pub fn run_within(command: &mut Command, limit: Duration) -> Finished {
    let started = Instant::now();
    let text = format!("{command:?}");
    let mut stdout = tempfile::tempfile().expect("a temporary file");
    let mut stderr = tempfile::tempfile().expect("a temporary file");
    command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().expect("a second descriptor"))
        .stderr(stderr.try_clone().expect("a second descriptor"))
        .process_group(0);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run `{text}`: {error}"));
    let status = wait_for(&mut child, limit);
    let in_time = status.is_some();
    let status = status.unwrap_or_else(|| {
        kill_group(&child);
        child.wait().expect("a killed child can be waited for")
    });
    let took = started.elapsed();
    let (stdout, stderr) = (read_all(&mut stdout), read_all(&mut stderr));
    let finished = Finished { command: text, status, stdout, stderr, took };
    assert!(in_time, "not done within {limit:?}, killed:\n{finished}");
    finished
}

/// Waits for a child; `None` if it still runs after `limit`.
pub fn wait_for(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if started.elapsed() > limit {
            return None;
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn kill_group(child: &Child) {
    // SAFETY: signals our own child, the leader of its group.
    unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
}

fn read_all(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("a temporary file can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}
