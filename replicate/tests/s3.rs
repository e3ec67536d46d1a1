//! Pushing to a real S3 server, which checks signatures and rights: moto, in a Python process of its own.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::AmazonS3Builder;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{PutPayload, RetryConfig};
use pond_oplog::Timeline;
use pond_replicate::Remote;
use pond_replicate::config::RemoteConfig;
use pond_replicate::format::{self, Head, Manifest};
use pond_replicate::store::{PutIfAbsent, Retries, Store};
use pond_steward::{OpenOptions, Registry, Steward};
use pond_tinyfs::{Advise, Caller, Make, NodeId, WriteFlags};

const BUCKET: &str = "ponds";

/// A server with a bucket and two users. It ends when its standard input does.
struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    facts: serde_json::Value,
}

impl Server {
    fn start() -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/tests/scripts/s3_server.py");
        let mut child = Command::new("python3")
            .arg(script)
            .arg(BUCKET)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 can be run");
        let stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let facts = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("the S3 server needs moto[server] and boto3 ({error}): {line}"));
        Server { child, stdin, facts }
    }

    fn yaml(&self, bucket: &str, user: &str, prefix: &str) -> String {
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let user = &self.facts[user];
        format!(
            "storage_type: s3\nbucket: {bucket}\nregion: us-east-1\nendpoint: {}\nallow_http: true\nkey: {}\nsecret: {}\n\
             prefix: {prefix}\n",
            text(&self.facts["endpoint"]),
            text(&user["key"]),
            text(&user["secret"])
        )
    }

    fn store(&self, bucket: &str, user: &str, prefix: &str) -> Store {
        let config = RemoteConfig::parse(self.yaml(bucket, user, prefix).as_bytes()).unwrap();
        let retries =
            Retries { times: 2, first: Duration::from_millis(1), longest: Duration::from_millis(10) };
        Store::open(&config).unwrap().with_retries(retries)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stdin.take());
        drop(self.child.wait());
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

fn open(pond: &std::path::Path) -> Arc<Steward> {
    let mut registry = Registry::default();
    registry.register(Arc::new(Remote::default()));
    let commit_interval = Duration::from_secs(3600);
    Steward::open(
        pond,
        OpenOptions { registry, commit_interval, maintenance: false, ..OpenOptions::default() },
    )
    .unwrap()
}

fn write(steward: &Steward, name: &str, content: &[u8]) {
    let (fs, caller) = (steward.fs(), Caller::root());
    let file = fs.make(&caller, NodeId::ROOT, name.as_bytes(), Make::File { mode: 0o644 }).unwrap().id;
    for (i, piece) in content.chunks(128 << 10).enumerate() {
        if !steward.has_room() {
            steward.wait_for_room().unwrap();
        }
        fs.write(&caller, file, (i * (128 << 10)) as u64, piece, WriteFlags::default()).unwrap();
    }
    fs.forget(file, 1);
    steward.commit_now().unwrap();
}

#[test]
fn a_pond_is_pushed_also_in_parts_and_in_packs_and_a_reader_finds_all_of_it() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let pond = dir.path().join("pond");
    Steward::init(&pond).unwrap();
    let steward = open(&pond);
    for i in 0..70 {
        write(&steward, &format!("file-{i}"), b"x");
    }
    let mut large = vec![0; 40 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut large);
    write(&steward, "large", &large);
    let yaml = server.yaml(BUCKET, "writer", "one/two");
    steward.mknod("remote", "/etc/system.d/10-remote", yaml.as_bytes()).unwrap();
    let report = steward.sync().unwrap();
    let factory = &report.factories[0];
    assert!(!factory.failed, "{:?}", factory.last_message);
    let place = format!("s3://{BUCKET}/one/two at http");
    assert!(
        factory.last_message.as_ref().is_some_and(|told| told.contains(&place)),
        "{:?}",
        factory.last_message
    );
    assert_eq!(factory.watermark, Some(report.position.version));
    write(&steward, "one more", b"x");
    let report = steward.sync().unwrap();
    assert!(!report.factories[0].failed, "{:?}", report.factories[0].last_message);
    let tip = report.position.version;
    steward.close().unwrap();

    let store = server.store(BUCKET, "reader", "one/two");
    block_on(async {
        let head = store.get(format::HEAD_KEY).await.unwrap().unwrap();
        let head: Head = format::decode(format::HEAD_KEY, &head).unwrap();
        assert_eq!((head.version, head.timeline, head.root), (tip.0, Timeline(1), 0));
        let key = format::manifest_key(Timeline(1), tip);
        let bytes = store.get(&key).await.unwrap().unwrap();
        assert_eq!(format::digest(&bytes), head.manifest);
        let manifest: Manifest = format::decode(&key, &bytes).unwrap();
        manifest.check(&key, format::Kind::Delta, tip).unwrap();
        assert_eq!(manifest.entry.blake3, report.position.digest);
        // Every bundle, that which went in parts included, arrives whole.
        let objects = store.list("1").await.unwrap();
        assert!(objects.iter().any(|object| object.length > 32 << 20));
        assert_eq!(objects.iter().filter(|object| object.key.ends_with(".pack")).count(), 1);
        for object in &objects {
            let mut hasher = blake3::Hasher::new();
            let mut stream = store.get_stream(&object.key).await.unwrap().unwrap();
            while let Some(piece) = stream.next().await.unwrap() {
                hasher.update(&piece);
            }
            let digest = hasher.finalize().to_hex();
            let named = object.key.ends_with("manifest.json") || object.key.contains(digest.as_str());
            assert!(named, "{} has the digest {digest}", object.key);
        }
        let error = store.put("1/x", Bytes::from_static(b"x")).await.unwrap_err().in_full();
        assert!(error.contains("secret") && error.contains("1/x"), "{error}");
    });
}

#[test]
fn what_is_wrong_is_told_when_the_node_is_made() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let pond = dir.path().join("pond");
    Steward::init(&pond).unwrap();
    let steward = open(&pond);
    let good = server.yaml(BUCKET, "writer", "");
    let wrong_secret = good.replace("secret: ", "secret: no");
    let cases = [
        (wrong_secret, "key and secret"),
        (server.yaml("no-such-bucket", "writer", ""), "bucket"),
        (server.yaml(BUCKET, "reader", ""), "may do this"),
    ];
    for (yaml, word) in cases {
        let error =
            steward.mknod("remote", "/etc/system.d/10-remote", yaml.as_bytes()).unwrap_err().in_full();
        assert!(error.contains(word), "{word}: {error}");
        assert!(error.contains("s3://") && error.contains("backups/"), "{error}");
        for raw in ["Generic", "<", "Error performing", "os error"] {
            assert!(!error.contains(raw), "{raw}: {error}");
        }
    }
    let error =
        steward.mknod("remote", "/etc/system.d/10-remote", b"storage_type: tape\n").unwrap_err().to_string();
    assert_eq!(error.matches("is not valid").count(), 1, "{error}");
    steward.mknod("remote", "/etc/system.d/10-remote", good.as_bytes()).unwrap();
    steward.close().unwrap();
}

#[test]
fn a_conditional_put_has_one_winner() {
    let server = Server::start();
    let store = server.store(BUCKET, "writer", "");
    block_on(async {
        let puts = (0..8u8).map(|i| {
            let store = store.clone();
            async move { store.put_if_absent("x", Bytes::from(vec![i])).await.unwrap() }
        });
        let results = futures::future::join_all(puts).await;
        let winner = results.iter().position(|result| *result == PutIfAbsent::Created).unwrap() as u8;
        for (i, result) in results.iter().enumerate() {
            match result {
                PutIfAbsent::Created => assert_eq!(i as u8, winner),
                PutIfAbsent::Exists(found) => assert_eq!(found[..], [winner]),
            }
        }
    });
}

/// The server says of each upload that it was begun years ago.
#[test]
fn uploads_that_a_killed_push_left_are_ended_by_the_next_and_nobody_elses_are() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let pond = dir.path().join("pond");
    Steward::init(&pond).unwrap();
    let push = |name: &str| {
        let steward = open(&pond);
        write(&steward, name, b"x");
        if name == "first" {
            let yaml = server.yaml(BUCKET, "writer", "one/two");
            steward.mknod("remote", "/etc/system.d/10-remote", yaml.as_bytes()).unwrap();
        }
        let report = steward.sync().unwrap();
        assert!(!report.factories[0].failed, "{:?}", report.factories[0].last_message);
        steward.close().unwrap();
    };
    push("first");
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let bucket = AmazonS3Builder::new()
        .with_endpoint(text(&server.facts["endpoint"]))
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name(BUCKET)
        .with_access_key_id(text(&server.facts["writer"]["key"]))
        .with_secret_access_key(text(&server.facts["writer"]["secret"]))
        // Of an upload that is not there this server says that it is broken.
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        .build()
        .unwrap();
    let (ours, theirs) = (Path::from("one/two/backups/1/left"), Path::from("one/other/backups/1/left"));
    let begin = |path: &Path| block_on(bucket.create_multipart(path)).unwrap();
    let goes_on = |path: &Path, id: &String| {
        block_on(bucket.put_part(path, id, 0, PutPayload::from_static(b"part"))).is_ok()
    };
    let (our_id, their_id) = (begin(&ours), begin(&theirs));
    assert!(goes_on(&ours, &our_id));
    push("second");
    assert!(!goes_on(&ours, &our_id), "the upload is still there");
    assert!(goes_on(&theirs, &their_id), "somebody else's upload was ended");
}
