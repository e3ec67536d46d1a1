//! Filesystems without hard links, as a pond's directory and as a backup store: link(2) is refused by seccomp, as exFAT does.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use pond_tests::{Finished, TestPond, run};

/// Has the program told EPERM by link(2), and by renameat2(2) EINVAL where `and_renames`.
fn without_links(command: &mut Command, and_renames: bool) {
    let refuse = |errno: i32| libc::SECCOMP_RET_ERRNO | errno as u32;
    let mut refused = vec![(libc::SYS_linkat, refuse(libc::EPERM))];
    #[cfg(target_arch = "x86_64")]
    refused.push((libc::SYS_link, refuse(libc::EPERM)));
    if and_renames {
        refused.push((libc::SYS_renameat2, refuse(libc::EINVAL)));
    }
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    // The number of the system call is what the kernel's account of it begins with.
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for (number, answer) in refused {
        let compare = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        filter.push(libc::sock_filter { code: compare, jt: 0, jf: 1, k: number as u32 });
        filter.push(statement(libc::BPF_RET | libc::BPF_K, answer));
    }
    filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    let install = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: prctl(2) may be called between fork and exec, and reads a filter that lives until it returns.
        let installed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
        };
        if installed { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: see above; nothing is allocated there.
    unsafe { command.pre_exec(install) };
}

fn pond(pond: &TestPond, directory: &Path, and_renames: bool, arguments: &[&str]) -> Finished {
    let mut command = pond.marked(pond_tests::pond_binary());
    command.arg("--pond").arg(directory).args(arguments);
    without_links(&mut command, and_renames);
    run(&mut command)
}

/// A configuration that backs up to this directory.
fn remote(scene: &TestPond, store: &Path) -> String {
    let path = scene.host("remote.yaml");
    fs::write(&path, format!("storage_type: local\npath: {}\n", store.display())).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_pond_its_backup_and_a_restore_need_no_hard_links() {
    let scene = TestPond::new();
    let (source, replica) = (scene.host("source"), scene.host("replica"));
    let configuration = remote(&scene, &scene.host_directory("store"));
    let node = "/etc/system.d/10-remote";
    for arguments in [
        &["init"][..],
        &["mkdir", "/made"],
        &["mknod", "remote", node, "--config-path", &configuration],
        &["mkdir", "/made/later"],
        &["sync"],
        &["maintain"],
        &["fsck"],
    ] {
        pond(&scene, &source, false, arguments).success();
    }
    pond(&scene, &replica, false, &["init", "--from-backup", &configuration]).success();
    let listed = pond(&scene, &replica, false, &["list", "/made/*"]).success();
    assert!(listed.contains("later"), "{listed}");
}

#[test]
fn where_no_name_can_be_given_only_if_it_is_free_the_reason_is_told() {
    let scene = TestPond::new();
    let (source, place) = (scene.host_directory("disk").join("source"), scene.host("store"));
    let configuration = remote(&scene, &place);
    let mountpoint = scene.mountpoint().to_str().unwrap();
    for arguments in [&["init"][..], &["mount", mountpoint]] {
        let told = pond(&scene, &source, true, arguments).failure(1);
        assert!(told.contains("neither hard links"), "{told}");
        assert_eq!(fs::read_dir(scene.host("disk")).unwrap().count(), 0, "nothing is left of {arguments:?}");
    }
    fs::create_dir(&source).unwrap();
    pond(&scene, &source, true, &["init"]).failure(1);
    assert_eq!(fs::read_dir(&source).unwrap().count(), 0);
    // It is no obstacle once it can be done.
    pond(&scene, &source, false, &["init"]).success();
    let told = pond(&scene, &source, true, &["mknod", "remote", "/remote", "--config-path", &configuration]);
    let told = told.failure(1);
    assert!(told.contains("neither hard links"), "{told}");
    assert!(!told.contains("secret") && !told.contains("network"), "{told}");
    assert!(!place.exists(), "nor is a store begun");
}
