//! `pond sql`: files and history, asked with the real program, beside a mount and without one; answers are compared with those that
//! DuckDB gives of the same files outside, and with the tree.

mod agreement;
mod answers;
mod limits;
mod own_tables;
mod tpch;
mod versions;
