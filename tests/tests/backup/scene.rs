//! A source with a store, some of whose versions came in a pack and some one by one.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use pond_tests::{Random, TestPond, wait_until};
use serde_json::Value;

/// A source that has shipped to a directory.
pub struct Scene {
    pub source: TestPond,
    pub store: PathBuf,
    pub yaml: String,
}

impl Scene {
    /// So many versions before the store is there, and so many after that.
    pub fn new(seed: u64, before: u64, after: u64) -> Self {
        let source = TestPond::new();
        let store = source.host_directory("store");
        let yaml = write_yaml(&source, "remote.yaml", &store);
        source.mount_with(&["-o", "commit=3600"]);
        let mut random = Random::new(seed);
        for _ in 0..before {
            make_version(&source, &mut random);
        }
        source.pond(["mknod", "remote", "/etc/system.d/10-remote", "--config-path", &yaml]);
        source.sync();
        for _ in 0..after {
            make_version(&source, &mut random);
        }
        let scene = Scene { source, store, yaml };
        scene.wait_for_store();
        scene
    }

    /// Waits until the store has all that the source has.
    pub fn wait_for_store(&self) {
        let newest = self.source.version();
        wait_until("the store has the newest version", std::time::Duration::from_secs(60), || {
            let text = fs::read_to_string(self.store.join("backups/HEAD.json")).ok()?;
            let head: Value = serde_json::from_str(&text).ok()?;
            (head["version"].as_u64() == Some(newest)).then_some(())
        });
    }

    /// Another place with the same objects, and its configuration.
    pub fn copy(&self, name: &str) -> (PathBuf, String) {
        let copy = self.source.host(name);
        pond_tests::succeed(self.source.marked("cp").arg("-a").arg(&self.store).arg(&copy));
        let yaml = write_yaml(&self.source, &format!("{name}.yaml"), &copy);
        (copy, yaml)
    }
}

fn write_yaml(pond: &TestPond, name: &str, store: &Path) -> String {
    let yaml = pond.host(name);
    fs::write(&yaml, format!("storage_type: local\npath: {}\n", store.display())).unwrap();
    yaml.to_str().unwrap().to_owned()
}

/// Changes something of each kind now and then, and commits it.
pub fn make_version(pond: &TestPond, random: &mut Random) {
    let directory = pond.path(format!("dir-{}", random.below(3)));
    fs::create_dir_all(&directory).unwrap();
    for _ in 0..random.below(3) + 1 {
        let path = directory.join(format!("file-{}", random.below(6)));
        let other = directory.join(format!("other-{}", random.below(4)));
        match random.below(9) {
            0 => drop(fs::remove_file(&path)),
            1 => drop(symlink(format!("file-{}", random.below(6)), &other)),
            2 if !other.exists() => drop(fs::hard_link(&path, &other)),
            3 => {
                let file = fs::File::create(&path).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, &random.bytes(500), 1 << 20).unwrap();
            }
            4 if path.exists() => {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600 + random.below(64) as u32))
                    .unwrap();
                std::os::unix::fs::chown(&path, Some(random.below(3000) as u32), Some(7)).unwrap();
            }
            5 if path.exists() => set_xattr(&path, &random.bytes(20)),
            _ => {
                let length = random.below(20_000) as usize;
                fs::write(&path, random.bytes(length)).unwrap();
            }
        }
    }
    pond.sync();
}

fn set_xattr(path: &Path, value: &[u8]) {
    if path.symlink_metadata().unwrap().mode() & libc::S_IFMT == libc::S_IFREG {
        let path = pond_tests::tree::c_path(path);
        // SAFETY: path and name end with NUL, and the value has the length that goes with it.
        let result = unsafe {
            libc::lsetxattr(path.as_ptr(), c"user.test".as_ptr(), value.as_ptr().cast(), value.len(), 0)
        };
        assert_eq!(result, 0);
    }
}
