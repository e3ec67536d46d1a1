use std::sync::Arc;
use std::time::Duration;

use pond_oplog::DurableStore;
use pond_tinyfs::Advise;

use super::*;
use crate::config::RemoteConfig;
use crate::push::testing::{FAULTS, Fault, Faulty};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    crate::remote::runtime().unwrap().block_on(future)
}

fn local(directory: &std::path::Path) -> Store {
    let yaml = format!("storage_type: local\npath: {}\n", directory.display());
    Store::open(&RemoteConfig::parse(yaml.as_bytes()).unwrap()).unwrap()
}

async fn collect(store: &Store, key: &str) -> Option<Vec<u8>> {
    let mut stream = store.get_stream(key).await.unwrap()?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(bytes.len() as u64, stream.length());
    Some(bytes)
}

#[test]
fn a_directory_puts_gets_lists_and_removes() {
    let dir = tempfile::tempdir().unwrap();
    let store = local(dir.path());
    block_on(async {
        store.probe().await.unwrap();
        assert_eq!(store.get("1/a").await.unwrap(), None);
        assert_eq!(store.length("1/a").await.unwrap(), None);
        assert!(store.get_stream("1/a").await.unwrap().is_none());
        store.put("1/b/x", Bytes::from_static(b"old")).await.unwrap();
        store.put("1/b/x", Bytes::from_static(b"hello")).await.unwrap();
        assert_eq!(std::fs::read(dir.path().join("backups/1/b/x")).unwrap(), b"hello");
        let first = store.put_if_absent("1/a", Bytes::from_static(b"1")).await.unwrap();
        assert_eq!(first, PutIfAbsent::Created);
        let second = store.put_if_absent("1/a", Bytes::from_static(b"2")).await.unwrap();
        assert_eq!(second, PutIfAbsent::Exists(Bytes::from_static(b"1")));
        assert_eq!(store.get_range("1/b/x", 1..3).await.unwrap(), "el");
        assert_eq!(store.get_tail("1/b/x", 2).await.unwrap().unwrap(), "lo");
        assert_eq!(store.get_tail("1/b/x", 20).await.unwrap().unwrap(), "hello");
        let found: Vec<_> =
            store.list("1").await.unwrap().into_iter().map(|info| (info.key, info.length)).collect();
        assert_eq!(found, [("1/a".to_owned(), 1), ("1/b/x".to_owned(), 5)]);
        assert_eq!(store.list_folders("1").await.unwrap(), ["b"]);
        store.delete("1/a").await.unwrap();
        store.delete("1/a").await.unwrap();
        assert_eq!(store.get("1/a").await.unwrap(), None);
    });
}

#[test]
fn a_stream_gives_every_byte_once_in_pieces_and_whatever_breaks_off() {
    let dir = tempfile::tempdir().unwrap();
    let store = local(dir.path());
    let faulty = Faulty::new();
    block_on(async {
        let mut content = vec![0; (17 << 20) + 5];
        blake3::Hasher::new().finalize_xof().fill(&mut content);
        for length in [0, 1, 8 << 20, (8 << 20) + 1, content.len()] {
            let bytes = Bytes::copy_from_slice(&content[..length]);
            store.put("x", bytes.clone()).await.unwrap();
            assert!(collect(&store, "x").await.unwrap() == content[..length], "{length}");
            faulty.heal();
            faulty.store(0).put("x", bytes).await.unwrap();
            for fault in FAULTS {
                faulty.fail(0, 3, fault);
                assert!(
                    collect(&faulty.store(4), "x").await.unwrap() == content[..length],
                    "{fault:?} {length}"
                );
            }
        }
        faulty.fail(0, 100, Fault::CutOff);
        let mut stream = faulty.store(2).get_stream("x").await.unwrap().unwrap();
        let error = loop {
            match stream.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it is not whole"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind, StoreErrorKind::Unavailable);
    });
}

/// Bodies end as they should, without a byte of what was announced.
#[derive(Debug)]
struct Empty(object_store::memory::InMemory);

impl std::fmt::Display for Empty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Empty")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Empty {
    async fn put_opts(
        &self,
        location: &Location,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<object_store::PutResult> {
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Location,
        options: object_store::PutMultipartOptions,
    ) -> object_store::Result<Box<dyn object_store::MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(
        &self,
        location: &Location,
        options: GetOptions,
    ) -> object_store::Result<object_store::GetResult> {
        let got = self.0.get_opts(location, options).await?;
        let payload = object_store::GetResultPayload::Stream(Box::pin(futures::stream::empty()));
        Ok(object_store::GetResult { payload, ..got })
    }

    fn delete_stream(
        &self,
        locations: futures::stream::BoxStream<'static, object_store::Result<Location>>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<Location>> {
        self.0.delete_stream(locations)
    }

    fn list(
        &self,
        prefix: Option<&Location>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<object_store::ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(
        &self,
        prefix: Option<&Location>,
    ) -> object_store::Result<object_store::ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Location,
        to: &Location,
        options: object_store::CopyOptions,
    ) -> object_store::Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[test]
fn a_body_that_ends_before_it_begins_is_not_asked_for_for_ever() {
    let inner = Empty(object_store::memory::InMemory::new());
    let retries = Retries { times: 2, first: Duration::from_millis(1), longest: Duration::from_millis(2) };
    let store = Store::new(Arc::new(inner), "memory", "").with_retries(retries);
    block_on(async {
        store.put("x", Bytes::from_static(b"hello")).await.unwrap();
        let mut stream = store.get_stream("x").await.unwrap().unwrap();
        assert_eq!(stream.next().await.unwrap_err().kind, StoreErrorKind::Unavailable);
        assert_eq!(store.get("x").await.unwrap_err().kind, StoreErrorKind::Unavailable);
    });
}

#[test]
fn a_prefix_of_any_characters_lists_as_it_puts() {
    block_on(async {
        for prefix in ["a", "a~b", "a//b", "/a/", "a%20#[1]{2}*?", "a b"] {
            let store = Store::new(Arc::new(object_store::memory::InMemory::new()), "memory", prefix);
            for key in ["1/version-000001/manifest.json", "timelines/1.json"] {
                store.put(key, Bytes::from_static(b"x")).await.unwrap();
                assert_eq!(store.get(key).await.unwrap().unwrap(), "x", "{prefix}");
            }
            let keys: Vec<_> = store.list("").await.unwrap().into_iter().map(|info| info.key).collect();
            assert_eq!(keys, ["1/version-000001/manifest.json", "timelines/1.json"], "{prefix}");
            let keys: Vec<_> = store.list("1").await.unwrap().into_iter().map(|info| info.key).collect();
            assert_eq!(keys, ["1/version-000001/manifest.json"], "{prefix}");
            assert_eq!(store.list_folders("1").await.unwrap(), ["version-000001"], "{prefix}");
        }
    });
}

#[test]
fn a_conflict_where_nothing_landed_is_tried_again_and_a_lost_answer_is_read_back() {
    let faulty = Faulty::new();
    block_on(async {
        let ours = Bytes::from_static(b"ours");
        // 409 twice, although nothing is there: after each the wrapper looks.
        faulty.fail(0, 1, Fault::Conflict);
        let put = faulty.store(2).put_if_absent("a", ours.clone()).await.unwrap();
        assert_eq!(put, PutIfAbsent::Created);
        faulty.fail(0, 1, Fault::LostAnswer);
        let put = faulty.store(2).put_if_absent("b", ours.clone()).await.unwrap();
        assert_eq!(put, PutIfAbsent::Exists(ours));
    });
}

#[test]
fn a_directory_that_is_not_there_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("not-mounted/backups");
    let yaml = format!("storage_type: local\npath: {}\n", path.display());
    let config = RemoteConfig::parse(yaml.as_bytes()).unwrap();
    let error = Store::open(&config).unwrap_err().to_string();
    assert!(error.contains("not-mounted") && error.contains("mounted"), "{error}");
    assert!(Store::create_place(&config).is_err(), "only the last component is made");
    std::fs::create_dir(dir.path().join("not-mounted")).unwrap();
    Store::create_place(&config).unwrap();
    Store::create_place(&config).unwrap();
    Store::open(&config).unwrap();
}

#[test]
fn an_error_names_store_key_and_operation_and_says_what_to_check() {
    let faulty = Faulty::new();
    faulty.fail(0, 100, Fault::Unavailable);
    let error = block_on(faulty.store(1).put("1/x", Bytes::new())).unwrap_err().in_full();
    for part in ["put", "backups/1/x", "memory", "503", "check"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(faulty.requests(), 2, "tried once more");
    let store = Store::new(Arc::new(DurableStore::new("/proc/1/nothing")), "proc", "");
    assert!(block_on(store.put("x", Bytes::new())).is_err());
}

#[test]
fn an_upload_in_parts_is_taken_back_unless_it_comes_to_its_end() {
    use std::sync::atomic::Ordering;
    let file = tempfile::tempfile().unwrap();
    let length = upload::SINGLE_PUT + 1;
    file.set_len(length).unwrap();
    let file = Arc::new(file);
    // Beginning it, three parts, and the end.
    for (at, fault, aborted) in [
        (9, Fault::Unavailable, 0),
        (0, Fault::Unavailable, 0),
        (1, Fault::Unavailable, 1),
        (3, Fault::Unavailable, 1),
        (4, Fault::Unavailable, 1),
        // As where the process wants to end.
        (4, Fault::KilledBefore, 1),
    ] {
        let faulty = Faulty::new();
        faulty.fail(at, 1, fault);
        block_on(async {
            let store = faulty.store(0);
            let sent = faulty.unless_killed(store.put_file("x", file.clone(), length)).await;
            assert_eq!(matches!(sent, Some(Ok(()))), at == 9, "{at} {fault:?}");
            for _ in 0..1000 {
                if faulty.aborted.load(Ordering::SeqCst) >= aborted {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            assert_eq!(faulty.aborted.load(Ordering::SeqCst), aborted, "{at} {fault:?}");
            assert_eq!(store.length("x").await.unwrap().is_some(), at == 9);
        });
    }
}
