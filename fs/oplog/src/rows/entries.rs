//! Directory changes ↔ the Arrow IPC stream of `VersionedDirectoryEntry` in an `entries` row's `content`.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryBuilder, Int64Array, Int64Builder, RecordBatch, StringArray,
    StringBuilder,
};
use arrow::buffer::Buffer;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use pond_tinyfs::{EntryChange, EntryOp, FileType, NodeId};

use crate::rows::schema::{self, hex_text, long};

/// The stream that holds these changes.
pub(crate) fn encode(changes: &[EntryChange]) -> Result<Vec<u8>, ArrowError> {
    let names: usize = changes.iter().map(|change| change.name.len()).sum();
    let mut name = BinaryBuilder::with_capacity(changes.len(), names);
    let mut child = StringBuilder::with_capacity(changes.len(), 16 * changes.len());
    let mut kind = StringBuilder::with_capacity(changes.len(), 8 * changes.len());
    let mut cookie = Int64Builder::with_capacity(changes.len());
    let mut op = StringBuilder::with_capacity(changes.len(), 6 * changes.len());
    for change in changes {
        name.append_value(&change.name);
        child.append_value(hex_text(&change.child.hex()));
        kind.append_value(change.kind.name());
        cookie.append_value(long(change.cookie, "cookie")?);
        op.append_value(change.op.name());
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(name.finish()),
        Arc::new(child.finish()),
        Arc::new(kind.finish()),
        Arc::new(cookie.finish()),
        Arc::new(op.finish()),
    ];
    let batch = RecordBatch::try_new(schema::ENTRIES.clone(), columns)?;
    let buffer = Vec::with_capacity(1024 + 64 * changes.len());
    let mut writer = StreamWriter::try_new_with_options(buffer, &schema::ENTRIES, schema::ipc_options()?)?;
    writer.write(&batch)?;
    writer.into_inner()
}

/// The changes in a stream.
pub(crate) fn decode(stream: Bytes) -> Result<Vec<EntryChange>, String> {
    let mut buffer = Buffer::from(stream);
    let mut decoder = StreamDecoder::new();
    let mut changes = Vec::new();
    while !buffer.is_empty() {
        if let Some(batch) = decoder.decode(&mut buffer).map_err(|error| error.to_string())? {
            decode_batch(&batch, &mut changes)?;
        }
    }
    decoder.finish().map_err(|error| error.to_string())?;
    Ok(changes)
}

fn decode_batch(batch: &RecordBatch, changes: &mut Vec<EntryChange>) -> Result<(), String> {
    fn column<'a, A: Array + 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a A, String> {
        let column = batch.column_by_name(name).ok_or_else(|| format!("entries lack the column {name}"))?;
        let array: &A =
            column.as_any().downcast_ref().ok_or_else(|| format!("entries have another type of {name}"))?;
        if array.null_count() > 0 {
            return Err(format!("entries have a null {name}"));
        }
        Ok(array)
    }
    let name: &BinaryArray = column(batch, "name")?;
    let child: &StringArray = column(batch, "child_node_id")?;
    let kind: &StringArray = column(batch, "file_type")?;
    let cookie: &Int64Array = column(batch, "cookie")?;
    let op: &StringArray = column(batch, "op")?;
    changes.reserve(batch.num_rows());
    for i in 0..batch.num_rows() {
        changes.push(EntryChange {
            name: name.value(i).into(),
            child: NodeId::from_hex(child.value(i))
                .ok_or_else(|| format!("{:?} is no node id", child.value(i)))?,
            kind: FileType::from_name(kind.value(i))
                .ok_or_else(|| format!("{:?} is no file type", kind.value(i)))?,
            cookie: u64::try_from(cookie.value(i)).map_err(|_| "a cookie is negative".to_string())?,
            op: EntryOp::from_name(op.value(i))
                .ok_or_else(|| format!("{:?} is no operation", op.value(i)))?,
        });
    }
    Ok(())
}
