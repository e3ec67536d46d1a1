//! Parquet data files: written, loaded, and read by position.

pub(crate) mod content;
pub(crate) mod content_column;
pub(crate) mod damage;
pub(crate) mod data_file;
pub(crate) mod drain;
pub(crate) mod load;
pub(crate) mod page;
pub(crate) mod page_index;
pub(crate) mod pieces;
pub(crate) mod row_group;
pub(crate) mod sink;
