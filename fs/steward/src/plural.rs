//! How numbers of things are written.

/// "1 file", "2 files", "0 directories".
pub fn count(number: u64, one: &str) -> String {
    match (number, one.strip_suffix('y')) {
        (1, _) => format!("1 {one}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        _ => format!("{number} {one}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_their_plural() {
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(count(0, "directory"), "0 directories");
    }
}
