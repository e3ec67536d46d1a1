//! The first process of a transaction's namespace: it mounts the scratch, runs the program, and ends when no process is left.
//!
//! It is forked off a process whose other threads may have held any lock, so it makes system calls only and takes no memory: all that it
//! needs is made before. It gets SIGKILL when its parent ends, and with it the namespace's others.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::ptr::null;

use crate::control::descriptor;
use crate::mounting::mount_info::SCRATCH_FSTYPE;
use crate::mounting::mount_point::{MAX_REQUEST, is_root};
use crate::transaction::forwarding::{forward_none, forward_to, hold_back, let_come, take_signal};
use crate::transaction::place::{Place, Program, VARIABLE};

/// What the first process says: eight bytes, a word and a number.
#[derive(Debug)]
pub(crate) enum Said {
    /// The scratch is mounted, and its descriptor sent.
    Mounted,
    /// This of the [`STEPS`] was not possible.
    NotMade(usize, io::Error),
    /// The program could not be run.
    NotRun(io::Error),
    /// The program ended, with this status as wait(2) has it.
    Exited(i32),
    /// No process is left.
    Ended,
    /// It has ended itself without a word.
    Gone,
    /// Whoever has the pond open has gone. Others than the first process notice that.
    Closed,
}

const MOUNTED: i32 = 1;
const NOT_MADE: i32 = 2;
const NOT_RUN: i32 = 3;
const EXITED: i32 = 4;
const ENDED: i32 = 5;

/// The steps that may not be possible, after "cannot".
pub(crate) const STEPS: [&str; 6] = [
    "map this user into a user namespace for a transaction at",
    "keep mounts to the transaction at",
    "open /dev/fuse for the transaction at",
    "mount the transaction's scratch on",
    "hand over the scratch of the transaction at",
    "change to the current directory in the transaction at",
];

/// The step of them that opens `/dev/fuse`.
pub(crate) const NO_FUSE: usize = 2;

impl Said {
    pub(crate) fn of(said: [u8; 8]) -> Said {
        let number = |at: usize| i32::from_ne_bytes([said[at], said[at + 1], said[at + 2], said[at + 3]]);
        let value = number(4);
        match number(0) {
            MOUNTED => Said::Mounted,
            NOT_MADE => Said::NotMade((value >> 16) as usize, io::Error::from_raw_os_error(value & 0xffff)),
            NOT_RUN => Said::NotRun(io::Error::from_raw_os_error(value)),
            EXITED => Said::Exited(value),
            ENDED => Said::Ended,
            _ => Said::Gone,
        }
    }
}

/// All that it needs.
pub(crate) struct FirstProcess {
    parents: RawFd,
    status: RawFd,
    host: RawFd,
    /// No descriptor from this number on is open.
    end: RawFd,
    source: CString,
    mountpoint: CString,
    fstype: CString,
    data: CString,
    flags: libc::c_ulong,
    /// What to take away first.
    covers: Vec<CString>,
    directory: Option<CString>,
    /// What maps a user and a group to themselves, where a user namespace is needed.
    maps: Option<(CString, CString)>,
    to_standard_error: bool,
    words: Pointers,
    environment: Pointers,
}

/// Texts, and pointers to them with a null at the end, as execve(2) takes them.
struct Pointers {
    pointers: Vec<*const libc::c_char>,
    _texts: Vec<CString>,
}

impl Pointers {
    fn new(texts: impl Iterator<Item = Vec<u8>>) -> io::Result<Self> {
        let texts = texts.map(text).collect::<io::Result<Vec<CString>>>()?;
        let pointers = texts.iter().map(|text| text.as_ptr()).chain([null()]).collect();
        Ok(Pointers { pointers, _texts: texts })
    }
}

fn text(bytes: impl Into<Vec<u8>>) -> io::Result<CString> {
    Ok(CString::new(bytes)?)
}

impl FirstProcess {
    /// `parents` and `status` are the two ends of one connection; `host` leads to whoever serves the scratch.
    pub(crate) fn new(
        place: &Place,
        program: &Program,
        [parents, status, host]: [&UnixStream; 3],
    ) -> io::Result<Self> {
        let bytes = |path: &OsStr| text(path.as_bytes());
        let numbers = fs::read_dir("/proc/self/fd")?.flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
        // Room for what other threads open just now.
        let end = numbers.max().unwrap_or(0) + 64;
        // SAFETY: neither can fail.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        let map = |id: u32| text(format!("{id} {id} 1\n"));
        let others = std::env::vars_os().filter(|(name, _)| name != VARIABLE);
        let ours = (OsString::from(VARIABLE), place.mountpoint.clone().into_os_string());
        let variables = others.chain([ours]);
        Ok(FirstProcess {
            parents: parents.as_raw_fd(),
            status: status.as_raw_fd(),
            host: host.as_raw_fd(),
            end,
            source: bytes(place.pond.as_os_str())?,
            mountpoint: bytes(place.mountpoint.as_os_str())?,
            fstype: text(SCRATCH_FSTYPE)?,
            data: text(format!(
                "fd={end},rootmode=40000,user_id={uid},group_id={gid},default_permissions,max_read={MAX_REQUEST},allow_other"
            ))?,
            flags: place.flags,
            covers: place.covers.iter().map(|path| bytes(path.as_os_str())).collect::<io::Result<_>>()?,
            directory: place.directory.as_ref().map(|path| bytes(path.as_os_str())).transpose()?,
            maps: if is_root() { None } else { Some((map(uid)?, map(gid)?)) },
            to_standard_error: program.to_standard_error,
            words: Pointers::new(program.words.iter().map(|word| word.as_bytes().to_vec()))?,
            environment: Pointers::new(
                variables.map(|(name, value)| [name.into_vec(), b"=".to_vec(), value.into_vec()].concat()),
            )?,
        })
    }

    /// What it does.
    pub(crate) fn run(&self) -> ! {
        forward_to(0);
        take_signal();
        if let Err((step, errno)) = self.mount() {
            self.say(NOT_MADE, (step << 16) as i32 | errno);
            exit(1);
        }
        self.say(MOUNTED, 0);
        let mut go = [0_u8];
        // SAFETY: the buffer has room for a byte. Without the word to go on nobody wants it any more.
        if unsafe { libc::read(self.status, go.as_mut_ptr().cast(), 1) } != 1 {
            exit(1);
        }
        if let Err((step, errno)) = self.enter() {
            self.say(NOT_MADE, (step << 16) as i32 | errno);
            exit(1);
        }
        let waited = hold_back();
        // SAFETY: a fork by the name of clone; the child calls only what may be called there.
        match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
            -1 => {
                self.say(NOT_RUN, errno());
                exit(1);
            }
            0 => {
                forward_none();
                let_come(&waited);
                self.become_program()
            }
            program => {
                let_come(&waited);
                self.wait_for_all(program as i32)
            }
        }
    }

    /// Mounts the scratch, and sends its descriptor; else which step failed, and why.
    fn mount(&self) -> Result<(), (usize, i32)> {
        // SAFETY: all texts are NUL-terminated and outlive the calls, as do the descriptors.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::prctl(libc::PR_SET_NAME, c"pond-txn".as_ptr());
            libc::close(self.parents);
            if let Some((users, groups)) = &self.maps {
                write_to(c"/proc/self/setgroups", c"deny").map_err(|errno| (0, errno))?;
                write_to(c"/proc/self/uid_map", users).map_err(|errno| (0, errno))?;
                write_to(c"/proc/self/gid_map", groups).map_err(|errno| (0, errno))?;
            }
            let private = libc::MS_REC | libc::MS_PRIVATE;
            if libc::mount(null(), c"/".as_ptr(), null(), private, null()) == -1 {
                return Err((1, errno()));
            }
            // Where it lies outside, the current directory is of this namespace already, and a descriptor of it would not be.
            if self.directory.is_some() {
                libc::chdir(c"/".as_ptr());
            }
            for mountpoint in self.covers.iter().rev() {
                // Else the pond could not be unmounted while this goes on, and what is bound elsewhere would lead past the transaction. In a
                // user namespace that is not allowed, and they stay.
                libc::umount2(mountpoint.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW);
            }
            let fuse = libc::open(c"/dev/fuse".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
            if fuse == -1 || libc::dup3(fuse, self.end, libc::O_CLOEXEC) == -1 {
                return Err((NO_FUSE, errno()));
            }
            let (source, target, data) = (&self.source, &self.mountpoint, &self.data);
            let mounted = libc::mount(
                source.as_ptr(),
                target.as_ptr(),
                self.fstype.as_ptr(),
                self.flags,
                data.as_ptr().cast(),
            );
            if mounted == -1 {
                return Err((3, errno()));
            }
            if descriptor::send(self.host, fuse).is_err() {
                return Err((4, errno()));
            }
            // Without it programs find the processes of the outer namespace in /proc, by other numbers. A container may forbid it.
            let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), flags, null());
        }
        Ok(())
    }

    /// Changes to the program's directory, and closes what is this process's own: a lock that it held, say, would outlive its owner.
    fn enter(&self) -> Result<(), (usize, i32)> {
        // SAFETY: as above.
        unsafe {
            if let Some(directory) = &self.directory
                && libc::chdir(directory.as_ptr()) == -1
            {
                return Err((5, errno()));
            }
            for descriptor in (3..=self.end).filter(|&descriptor| descriptor != self.status) {
                let flags = libc::fcntl(descriptor, libc::F_GETFD);
                // What a shell has left open for the program stays.
                if flags != -1 && flags & libc::FD_CLOEXEC != 0 {
                    libc::close(descriptor);
                }
            }
        }
        Ok(())
    }

    fn become_program(&self) -> ! {
        // SAFETY: signals and descriptors are numbers; the pointers lead to texts, with a null at the end.
        unsafe {
            // Rust ignores it.
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            if self.to_standard_error {
                libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO);
            }
            let words = self.words.pointers.as_ptr();
            libc::execvpe(*words, words, self.environment.pointers.as_ptr());
        }
        self.say(NOT_RUN, errno());
        exit(1)
    }

    /// Waits until no process is left, or the program has failed: then it ends the others.
    fn wait_for_all(&self, program: i32) -> ! {
        forward_to(program);
        if let Some(signal) = take_signal() {
            // SAFETY: takes numbers only.
            unsafe { libc::kill(program, signal) };
        }
        loop {
            let mut status = 0;
            // SAFETY: the status is a live number.
            match unsafe { libc::waitpid(-1, &raw mut status, 0) } {
                -1 if errno() == libc::EINTR => {}
                -1 => {
                    self.say(ENDED, 0);
                    exit(0);
                }
                ended if ended == program => {
                    forward_to(0);
                    self.say(EXITED, status);
                    if status != 0 {
                        exit(0);
                    }
                }
                _ => {}
            }
        }
    }

    fn say(&self, word: i32, value: i32) {
        let mut said = [0; 8];
        said[..4].copy_from_slice(&word.to_ne_bytes());
        said[4..].copy_from_slice(&value.to_ne_bytes());
        // SAFETY: the buffer is live. Where nobody listens any more, this process is about to be killed.
        unsafe { libc::send(self.status, said.as_ptr().cast(), said.len(), libc::MSG_NOSIGNAL) };
    }
}

fn errno() -> i32 {
    // SAFETY: the pointer is this thread's.
    unsafe { *libc::__errno_location() }
}

fn exit(code: i32) -> ! {
    // SAFETY: it takes a number, and runs nothing that others have registered.
    unsafe { libc::_exit(code) }
}

/// Writes a text to a file of the kernel's; else why not.
fn write_to(path: &std::ffi::CStr, text: &std::ffi::CStr) -> Result<(), i32> {
    let bytes = text.to_bytes();
    // SAFETY: the path is NUL-terminated, the buffer live.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file == -1 {
            return Err(errno());
        }
        let written = libc::write(file, bytes.as_ptr().cast(), bytes.len());
        let failed = errno();
        libc::close(file);
        if written == bytes.len() as isize { Ok(()) } else { Err(failed) }
    }
}
