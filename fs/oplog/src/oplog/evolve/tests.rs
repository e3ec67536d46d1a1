use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use deltalake::DeltaTableBuilder;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use pond_tinyfs::{Advise, Lsn, NodeId, TinyFs};
use url::Url;

use super::*;
use crate::files::digests;
use crate::log::delta::{self, Log};
use crate::log::format::{may_write, pretend_to_know};
use crate::rows::samples;
use crate::rows::schema::col;
use crate::{
    DurableStore, FileRef, Incoming, IncomingVersion, MergeLimits, Options, Origin, Version, version_files,
};

/// A column that no program has.
const NOTE: &str = "note";

fn note() -> Field {
    Field::new(NOTE, DataType::Utf8, true)
}

fn with_note() -> Growth {
    Growth { min_writer: 3, columns: vec![note()], ..Growth::default() }
}

fn open(pond: &Path) -> Result<Arc<OpLog>, OpLogError> {
    OpLog::open(pond, &Options::default()).map(|opened| opened.oplog)
}

fn read(pond: &Path, at: At) -> Result<TinyFs, OpLogError> {
    let opened = OpLog::open_read_only(pond, at, &Options::default())?;
    Ok(TinyFs::read_only(opened.tree, opened.oplog))
}

/// A version with the file `name`.
fn commit(oplog: &OpLog, name: &str) {
    let lsn = oplog.position().cut_lsn.0 + 1;
    oplog.commit(&[&samples::file(name, 100 + lsn, lsn)], Lsn(lsn), &Origin::mount()).unwrap();
}

fn pond() -> (tempfile::TempDir, Arc<OpLog>) {
    let dir = samples::fast_directory();
    OpLog::create(dir.path(), samples::root(), &Origin::command("pond init")).unwrap();
    let oplog = open(dir.path()).unwrap();
    (dir, oplog)
}

fn why(growth: &Growth, metadata: &Metadata, known: u32) -> String {
    grow(metadata, growth, known).unwrap_err()
}

#[test]
fn only_what_breaks_nobody_is_added() {
    let (_dir, oplog) = pond();
    let metadata = snapshot::load(oplog.log(), At::Tip).unwrap().metadata;
    let grown = grow(&metadata, &with_note(), 3).unwrap().unwrap();
    assert_eq!(grown.configuration[MIN_WRITER], "3");
    assert_eq!(grown.configuration[MIN_READER], "1");
    assert_eq!((&grown.id, &grown.created_time), (&metadata.id, &metadata.created_time));
    assert_eq!(grow(&grown, &with_note(), 3), Ok(None), "a second time");
    assert_eq!(grow(&metadata, &Growth::default(), 2), Ok(None));
    let as_before: StructType = serde_json::from_str(&metadata.schema_string).unwrap();
    let now: StructType = serde_json::from_str(&grown.schema_string).unwrap();
    assert!(as_before.fields().zip(now.fields()).all(|(before, now)| before == now));
    assert_eq!(now.fields().last().unwrap().name(), NOTE);

    assert!(why(&with_note(), &metadata, 2).contains("this program knows 2"));
    let unraised = Growth { min_writer: 1, ..with_note() };
    assert!(why(&unraised, &metadata, 3).contains("would drop it"));
    let required = Growth { columns: vec![Field::new(NOTE, DataType::Utf8, false)], ..with_note() };
    assert!(why(&required, &metadata, 3).contains("not nullable"));
    let other = Growth { columns: vec![Field::new("SIZE", DataType::Utf8, true)], ..with_note() };
    assert!(why(&other, &metadata, 3).contains("already"));
    for name in [POND_ID, MIN_READER, MIN_WRITER, "delta.columnMapping.mode"] {
        let properties = BTreeMap::from([(name.to_string(), "7".to_string())]);
        assert!(why(&Growth { properties, ..Growth::default() }, &metadata, 3).contains(name));
    }
    let readers = Growth { min_reader: 3, ..Growth::default() };
    let grown = grow(&metadata, &readers, 3).unwrap().unwrap();
    assert_eq!((&*grown.configuration[MIN_READER], &*grown.configuration[MIN_WRITER]), ("3", "3"));
}

#[test]
fn a_program_that_knows_less_reads_and_does_not_write_or_does_neither() {
    let (dir, oplog) = pond();
    commit(&oplog, "before");
    {
        let _newer = pretend_to_know(3);
        assert!(oplog.lacks(&with_note()).unwrap());
        let grown = oplog.evolve(&with_note()).unwrap().unwrap();
        assert_eq!((grown.version, oplog.evolve(&with_note()).unwrap()), (Version(2), None));
        commit(&oplog, "after");
    }
    let refused = open(dir.path()).map(|_| ()).unwrap_err();
    assert!(matches!(refused, OpLogError::TooNew { purpose: "write", needed: 3, known: 2, .. }), "{refused}");
    for words in ["written by a newer pond", "upgrade pond", "until then it can be read"] {
        assert!(refused.in_full().contains(words), "{refused}");
    }
    assert!(may_write(dir.path(), Version(3)).is_err());
    may_write(dir.path(), Version(1)).unwrap();
    let fs = read(dir.path(), At::Tip).unwrap();
    assert!(["before", "after"].iter().all(|name| fs.lookup(NodeId::ROOT, name.as_bytes()).is_ok()));

    let newer = pretend_to_know(3);
    may_write(dir.path(), Version(3)).unwrap();
    let oplog = open(dir.path()).unwrap();
    oplog.evolve(&Growth { min_reader: 3, ..Growth::default() }).unwrap().unwrap();
    drop(newer);
    let refused = read(dir.path(), At::Tip).map(|_| ()).unwrap_err();
    assert!(matches!(refused, OpLogError::TooNew { purpose: "read", needed: 3, .. }), "{refused}");
    assert_eq!(refused.advice().as_deref(), Some("upgrade pond"));
    assert!(matches!(open(dir.path()), Err(OpLogError::TooNew { .. })));
}

fn copy(incoming: &Incoming, pond: &Path, versions: std::ops::RangeInclusive<u64>) -> Vec<IncomingVersion> {
    let exported = versions.map(|version| version_files(pond, Version(version)).unwrap());
    let exported = exported.map(|version| {
        for FileRef { name, .. } in &version.added {
            let mut staged = incoming.stage(name).unwrap();
            std::io::Write::write_all(&mut staged, &fs::read(pond.join("data").join(name)).unwrap()).unwrap();
            staged.finish().unwrap();
        }
        IncomingVersion { version: version.position.version, entry: version.entry, files: version.added }
    });
    exported.collect()
}

#[test]
fn a_replica_goes_through_a_growth_and_stops_before_what_it_cannot_read() {
    let (dir, oplog) = pond();
    commit(&oplog, "before");
    let replica = samples::fast_directory();
    let incoming = Incoming::open(replica.path()).unwrap().0;
    incoming.apply(&copy(&incoming, dir.path(), 0..=1)).unwrap();
    let shown = OpLog::open_read_only(replica.path(), At::Tip, &Options::default()).unwrap().oplog;
    {
        let _newer = pretend_to_know(3);
        oplog.evolve(&with_note()).unwrap().unwrap();
        commit(&oplog, "after");
        oplog.evolve(&Growth { min_reader: 3, ..Growth::default() }).unwrap().unwrap();
        commit(&oplog, "unreadable");
    }
    let refused = incoming.apply(&copy(&incoming, dir.path(), 2..=5)).unwrap_err();
    assert!(matches!(refused, OpLogError::TooNew { purpose: "read", needed: 3, .. }), "{refused}");
    assert_eq!(incoming.position().unwrap().version, Version(3));
    let log = Log::new(&replica.path().join("data"));
    for version in 0..=3 {
        assert_eq!(
            log.read_bytes(Version(version)).unwrap(),
            oplog.log().read_bytes(Version(version)).unwrap()
        );
    }
    let ahead = shown.read_ahead(Version(3)).unwrap();
    assert_eq!(ahead.rows.len(), 3);
    assert!(read(replica.path(), At::Tip).unwrap().lookup(NodeId::ROOT, b"after").is_ok());
    assert!(matches!(
        may_write(replica.path(), Version(3)),
        Err(OpLogError::TooNew { purpose: "write", .. })
    ));

    // The program is upgraded.
    let _newer = pretend_to_know(3);
    incoming.apply(&copy(&incoming, dir.path(), 4..=5)).unwrap();
    assert!(read(replica.path(), At::Tip).unwrap().lookup(NodeId::ROOT, b"unreadable").is_ok());
}

/// Writes the data file of a version anew with a value of the new column in each row, as a program does that knows it.
fn note_in(log: &Log, version: Version) {
    let mut entry = log.read(version).unwrap();
    let add = entry.actions.iter_mut().find_map(|action| action.add.as_mut()).unwrap();
    let path = log.table().join(&add.path);
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    let noted = |batch: &RecordBatch| {
        let (schema, at) = (batch.schema(), batch.schema().index_of(col::CONTENT).unwrap());
        let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
        fields.insert(at, Arc::new(note()));
        let mut columns = batch.columns().to_vec();
        columns.insert(at, Arc::new(StringArray::from(vec!["noted"; batch.num_rows()])) as ArrayRef);
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    };
    let batches: Vec<RecordBatch> = batches.iter().map(noted).collect();
    let properties = WriterProperties::builder().build();
    let file = File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batches[0].schema(), Some(properties)).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.close().unwrap();
    add.size = fs::metadata(&path).unwrap().len();
    add.tags = Some(digests::digests_of(&path).unwrap().into_tags());
    fs::write(log.entry_path(version), delta::encode(&entry.actions).unwrap()).unwrap();
}

#[test]
fn a_file_with_a_column_that_is_not_known_is_read_and_never_written_anew() {
    let _newer = pretend_to_know(3);
    let (dir, oplog) = pond();
    oplog.evolve(&with_note()).unwrap().unwrap();
    commit(&oplog, "noted");
    note_in(oplog.log(), Version(2));
    drop(oplog);
    let oplog = open(dir.path()).unwrap();
    (0..5).for_each(|n| commit(&oplog, &format!("file {n}")));
    assert!(read(dir.path(), At::Tip).unwrap().lookup(NodeId::ROOT, b"noted").is_ok());
    let limits = MergeLimits { fan_in: 2, ..MergeLimits::default() };
    let refused = oplog.prepare_merge(&limits, &|_| true).unwrap_err();
    assert!(matches!(&refused, OpLogError::UnknownColumn { column, .. } if column == NOTE), "{refused}");
}

#[test]
fn delta_readers_and_checkpoints_have_the_new_column() {
    let _newer = pretend_to_know(3);
    let (dir, oplog) = pond();
    commit(&oplog, "before");
    let properties = BTreeMap::from([("pond.test".to_string(), "a \"word\"".to_string())]);
    oplog.evolve(&Growth { properties, ..with_note() }).unwrap().unwrap();
    commit(&oplog, "after");
    let fields = || {
        let url = Url::parse("memory:///").unwrap();
        let store = Arc::new(DurableStore::new(dir.path().join("data")));
        let builder = DeltaTableBuilder::from_url(url.clone()).unwrap().with_storage_backend(store, url);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let table = runtime.block_on(builder.load()).unwrap();
        let schema = table.snapshot().unwrap().schema();
        schema.fields().map(|field| field.name().clone()).collect::<Vec<_>>()
    };
    assert_eq!(fields().last().unwrap(), NOTE);
    oplog.checkpoint().unwrap();
    assert_eq!(fields().last().unwrap(), NOTE);
    let expected = snapshot::load_from(oplog.log(), Version(3), Version(0)).unwrap();
    let found = snapshot::load(oplog.log(), At::Tip).unwrap();
    assert!(snapshot::is_whole(oplog.log(), Version(3)).unwrap());
    assert_eq!(found.metadata, expected.metadata);
    assert_eq!(found.metadata.configuration["pond.test"], "a \"word\"");
}
