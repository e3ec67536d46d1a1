//! Every message that a user may meet, in one text that people read: `messages.txt` holds command lines as they are typed into a
//! shell, what each says on standard error, and its exit code. `POND_MESSAGES=write cargo test -p pond --test messages` writes it
//! anew; a new case is a line that begins with `$ `.

mod common;

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::Bed;

/// Where they are.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/messages.txt");

/// What is only said where a machine is slow.
const SLOW: [&str; 4] =
    ["waiting for", "waiting until", "get ten seconds for what they owe", "everything is being committed"];

/// What differs from run to run, by its shape (`9` a digit, `f` a hexadecimal digit), and what stands for it.
const SHAPES: [(&str, &str); 7] = [
    ("9999-99-99T99:99:99.999+00:00", "TIME"),
    ("9999-99-99 99:99:99 +99:99", "TIME"),
    ("9999-99-99T99:99:99.999999Z", "TIME"),
    ("ffffffff-ffff-ffff-ffff-ffffffffffff", "UUID"),
    ("ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", "DIGEST"),
    ("ffffffffffffffffffffffffffffffff", "ID"),
    ("127.0.0.1:99999", "127.0.0.1:PORT"),
];

/// A text in which these shapes are replaced.
fn without_shapes(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    'next: while let Some(first) = rest.chars().next() {
        for (shape, with) in SHAPES {
            let fits = |(wanted, found): (u8, u8)| match wanted {
                b'9' => found.is_ascii_digit(),
                b'f' => found.is_ascii_hexdigit(),
                other => found == other,
            };
            if rest.len() >= shape.len() && shape.bytes().zip(rest.bytes()).all(fits) {
                out.push_str(with);
                rest = &rest[shape.len()..];
                continue 'next;
            }
        }
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    out
}

/// A text in which the number after each of these words is `N`.
fn without_numbers_after(text: &str, words: &[&str]) -> String {
    let mut out = text.to_owned();
    for word in words {
        let mut parts = out.split(word);
        let mut changed = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
            let number = if rest.len() < part.len() { "N" } else { "" };
            changed.extend([word, number, rest]);
        }
        out = changed;
    }
    out
}

fn normalized(text: &str, root: &Path) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_pond"));
    let text = text.replace(root.to_str().unwrap(), "$T").replace(program.to_str().unwrap(), "pond");
    let text = text.replace(root.file_name().unwrap().to_str().unwrap(), "T");
    let text = text.replace(env!("CARGO_PKG_VERSION"), "0.0.0");
    without_numbers_after(&without_shapes(&text), &["pid ", "process ", "\n  ", "newest after "])
}

/// What a shell says to a line: with the pond in `$T/pond`, and the program in its path.
fn typed(line: &str, root: &Path) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_pond"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    pond_tests::command::heed_interrupts(&mut shell);
    shell.args(["-c", line]).current_dir(root).stdin(Stdio::null());
    shell.env("PATH", path).env("HOME", root).env("T", root).env("POND", root.join("pond"));
    shell.env("TZ", "UTC").env("LC_ALL", "C").env("COLUMNS", "100");
    shell.env_remove("POND_LOG").env_remove("XDG_DATA_HOME").env_remove("RUST_BACKTRACE");
    // Files, not pipes: a daemon that stays must not keep us waiting for their end.
    let mut said = tempfile::tempfile().unwrap();
    shell.stdout(Stdio::null()).stderr(said.try_clone().unwrap());
    let status = shell.status().unwrap();
    let mut stderr = Vec::new();
    std::io::Seek::rewind(&mut said).unwrap();
    std::io::Read::read_to_end(&mut said, &mut stderr).unwrap();
    Output { status, stdout: Vec::new(), stderr }
}

/// Takes the mounts away that a line may have left, also where the test fails.
struct Mounts<'a>(&'a Path);

impl Drop for Mounts<'_> {
    fn drop(&mut self) {
        typed("for m in mnt other; do pond umount $T/$m; done; true", self.0);
    }
}

#[test]
fn every_message_is_as_it_was_read() {
    let bed = Bed::empty();
    let root = bed.path("").canonicalize().unwrap();
    let _mounts = Mounts(&root);
    let kept = std::fs::read_to_string(FILE).unwrap();
    let mut said = String::new();
    // What a line said before is left out, to be said anew.
    let mut answer = false;
    for line in kept.lines() {
        answer &= !line.is_empty();
        if answer {
            continue;
        }
        writeln!(said, "{line}").unwrap();
        let Some(command) = line.strip_prefix("$ ") else { continue };
        answer = true;
        let output = typed(command, &root);
        let text = normalized(&String::from_utf8_lossy(&output.stderr), &root);
        let is_due = |line: &&str| !line.is_empty() && !SLOW.iter().any(|words| line.contains(words));
        for line in text.lines().filter(is_due) {
            writeln!(said, "{}", line.trim_end()).unwrap();
        }
        match output.status.code() {
            Some(0) => {}
            code => {
                writeln!(said, "[{}]", code.map_or("signal".to_owned(), |code| code.to_string())).unwrap()
            }
        }
        assert!(!text.contains("panicked"), "{line}\n{text}");
    }
    if std::env::var_os("POND_MESSAGES").is_some() {
        std::fs::write(FILE, said).unwrap();
        return;
    }
    for (line, (was, is)) in kept.lines().zip(said.lines()).enumerate() {
        assert_eq!(
            was,
            is,
            "line {} of messages.txt; POND_MESSAGES=write writes it anew, then read it",
            line + 1
        );
    }
    assert_eq!(kept, said);
}
