//! Mounting and unmounting for ordinary users, through the set-user-id program `fusermount3`.
//!
//! `fusermount3` opens `/dev/fuse`, mounts it, and sends the descriptor back as SCM_RIGHTS over a socket whose
//! number it finds in `_FUSE_COMMFD` (libfuse, `util/fusermount.c`).

use std::ffi::OsStr;
use std::io::{self, Read};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::MountError;

/// Mounts with these options and returns the session's descriptor.
pub(crate) fn mount(mountpoint: &Path, options: &OsStr) -> Result<OwnedFd, MountError> {
    let (ours, theirs) =
        UnixStream::pair().map_err(|error| MountError::io("make a socket for", mountpoint, error))?;
    let number = theirs.as_raw_fd();
    let mut command = Command::new("fusermount3");
    command.arg("-o").arg(options).arg("--").arg(mountpoint);
    command.env("_FUSE_COMMFD", number.to_string()).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::piped());
    // SAFETY: fcntl is async-signal-safe, and the descriptor is open until after the spawn.
    unsafe {
        command.pre_exec(move || match libc::fcntl(number, libc::F_SETFD, 0) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let mut child = command.spawn().map_err(MountError::NoFusermount)?;
    drop(theirs);
    let received = receive_descriptor(&ours);
    let message = read_all(child.stderr.take());
    let status =
        child.wait().map_err(|error| MountError::io("wait for fusermount3 on", mountpoint, error))?;
    match received {
        Ok(Some(descriptor)) => Ok(descriptor),
        Ok(None) => Err(refusal("mount on", mountpoint, &message, &status.to_string())),
        Err(error) => Err(MountError::io("take over the mount on", mountpoint, error)),
    }
}

/// Unmounts; `lazy` detaches the mount from its place while it is still in use. `Ok(false)`: it is busy.
pub(crate) fn unmount(mountpoint: &Path, lazy: bool) -> Result<bool, MountError> {
    let mut command = Command::new("fusermount3");
    command.arg("-u").args(lazy.then_some("-z")).arg("--").arg(mountpoint);
    // Its words are looked at, so they must be English.
    let output =
        command.env("LC_ALL", "C").stdin(Stdio::null()).output().map_err(MountError::NoFusermount)?;
    let message = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(true)
    } else if message.contains("busy") {
        Ok(false)
    } else {
        Err(refusal("unmount", mountpoint, &message, &output.status.to_string()))
    }
}

fn refusal(action: &'static str, mountpoint: &Path, message: &str, status: &str) -> MountError {
    let message = message.trim().trim_start_matches("fusermount3: ");
    let message = if message.is_empty() { status.to_owned() } else { message.to_owned() };
    let advice = message
        .contains("/etc/mtab: No such file")
        .then_some("make it, as root, with `ln -s /proc/self/mounts /etc/mtab`");
    MountError::Fusermount { action, mountpoint: mountpoint.to_owned(), message, advice }
}

fn read_all(stream: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream
        && let Err(error) = stream.read_to_end(&mut bytes)
    {
        return format!("(its message could not be read: {error})");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The descriptor that the other side sends; `None` if it closes the socket without sending one.
fn receive_descriptor(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    // Room for one descriptor, aligned as a control message's header must be.
    let mut control = [MaybeUninit::<libc::cmsghdr>::zeroed(); 2];
    let mut byte = 0u8;
    let mut vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: all zeros is a valid msghdr.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let received = loop {
        // SAFETY: the message points to buffers that live until after the call.
        match unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) } {
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            received => break received,
        }
    };
    // SAFETY: the kernel filled the message in; the CMSG functions stay within its control buffer.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if received == 0 || header.is_null() {
            return Ok(None);
        }
        let wanted = libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
        if (*header).cmsg_level != libc::SOL_SOCKET
            || (*header).cmsg_type != libc::SCM_RIGHTS
            || ((*header).cmsg_len as usize) < wanted
        {
            return Ok(None);
        }
        let descriptor = libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned();
        Ok(Some(OwnedFd::from_raw_fd(descriptor)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_closed_without_a_descriptor_gives_none() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(receive_descriptor(&ours).unwrap().is_none());
    }
}
