//! How the code is laid out: no file needs, by way of others, one that needs it, and every file says in its first line what it is.
//!
//! `cargo test --test architecture -- --nocapture table_of_contents` prints each crate's tree, three levels deep.

mod modules;
mod rings;

use std::path::{Path, PathBuf};

use modules::read_crate;

/// Every crate of the workspace, by its folder.
fn crates() -> Vec<String> {
    let manifest = std::fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let members = manifest.lines().find(|line| line.starts_with("members")).expect("a line of members");
    members.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[test]
fn no_files_of_a_crate_use_each_other_in_a_ring() {
    let mut told = String::new();
    for name in crates() {
        let rings = rings::rings(&read_crate(&workspace().join(&name)));
        rings.iter().for_each(|ring| told += &format!("{name}: {ring}"));
    }
    assert!(
        told.is_empty(),
        "files use each other in a ring; move what both need into a file of its own below them:\n{told}"
    );
}

#[test]
fn a_ring_is_named_in_order_with_the_uses_that_make_it() {
    let dir = tempfile::tempdir().unwrap();
    let src = dir.path().join("src");
    std::fs::create_dir_all(src.join("room")).unwrap();
    for (file, text) in [
        ("lib.rs", "mod a; mod b; mod room; pub use room::c::Thing;"),
        // By a path within a macro, and by the name that the root gives it.
        ("a.rs", "pub struct A; fn f() { assert!(crate::b::yes()); }"),
        ("b.rs", "use crate::Thing; pub fn yes() -> bool { true }"),
        ("room.rs", "pub mod c; pub mod d; #[cfg(test)] mod tests;"),
        // By way of a parent, and of an import.
        ("room/c.rs", "use super::super::a; pub struct Thing(a::A);"),
        // What only tests use counts for nothing, nor does what is a module's own.
        (
            "room/d.rs",
            "mod inner { use super::D; } pub struct D; #[cfg(test)] mod tests { use super::super::c; }",
        ),
    ] {
        std::fs::write(src.join(file), text).unwrap();
    }
    let rings = rings::rings(&read_crate(dir.path()));
    assert_eq!(
        rings,
        [
            "a.rs → b.rs → room/c.rs → a.rs\n  a.rs: crate::b::yes\n  b.rs: crate::Thing\n  room/c.rs: a::A, super::super::a\n"
        ]
    );
}

#[test]
fn table_of_contents_has_a_line_for_each_file() {
    let mut without = Vec::new();
    for name in crates() {
        println!("{name}/src");
        for (path, file) in read_crate(&workspace().join(&name)) {
            if file.about.is_empty() {
                without.push(format!("{name}/src/{path}"));
            }
            let depth = path.matches('/').count();
            if depth < 3 {
                let file_name = path.rsplit('/').next().expect("split gives one at least");
                println!("{:width$}{file_name:22}{}", "", file.about, width = 2 * depth + 2);
            }
        }
    }
    assert!(without.is_empty(), "these files do not begin with a line `//! What it is`: {without:#?}");
}
