//! The same with a bucket.

use pond_tests::TestPond;
use pond_tests::s3::S3Server;
use pond_tests::tree::{self, Also};

use crate::scene::make_version;

#[test]
fn a_bucket_is_looked_at_verified_and_restored_from_with_the_right_to_read() {
    let server = S3Server::start();
    let mut source = TestPond::new();
    source.set_environment(&server.writer.environment());
    let yaml = source.host("remote.yaml");
    std::fs::write(&yaml, S3Server::yaml(server.endpoint())).unwrap();
    let yaml = yaml.to_str().unwrap();
    source.mount_with(&["-o", "commit=3600"]);
    let mut random = pond_tests::Random::new(7);
    (0..12).for_each(|_| make_version(&source, &mut random));
    source.pond(["mknod", "remote", "/etc/system.d/10-remote", "--config-path", yaml]);
    make_version(&source, &mut random);
    let newest = source.version();

    let mut reader = TestPond::new();
    reader.set_environment(&server.reader.environment());
    let listed = reader.json(["backup", "list", "-n", "1", "--remote", yaml]);
    assert_eq!(listed[0]["version"].as_u64(), Some(newest));
    reader.pond(["backup", "describe", "start", "--remote", yaml]);
    reader.pond(["backup", "verify", "--level", "data", "--remote", yaml]);
    let to = reader.host("to");
    reader.pond(["backup", "restore", "--to", to.to_str().unwrap(), "--path", "/dir-*", "--remote", yaml]);
    let (mut was, mut is) =
        (tree::look_at(&source.path(format!(".pond/versions/{newest}"))), tree::look_at(&to));
    for tree in [&mut was, &mut is] {
        tree.retain(|path, _| path.starts_with(b"dir-"));
        tree.values_mut().filter(|node| node.size == 0).for_each(|node| node.nlink = 0);
    }
    tree::assert_same("from a bucket", &was, &is, Also { mtime: true, ..Also::default() });
}
