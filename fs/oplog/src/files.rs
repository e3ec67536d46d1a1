//! Parquet data files: written, loaded, and read by position.

pub(crate) mod content;
pub(crate) mod content_column;
pub(crate) mod damage;
pub(crate) mod data_file;
pub(crate) mod decoder_panics;
pub(crate) mod digests;
pub(crate) mod file_name;
pub(crate) mod load;
pub(crate) mod page;
pub(crate) mod page_index;
pub(crate) mod pieces;
pub(crate) mod read_error;
pub(crate) mod row_group;
pub(crate) mod sink;
