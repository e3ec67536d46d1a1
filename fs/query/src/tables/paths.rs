//! Which paths a query asks for, so that no more of the tree is gone through.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, Like, Operator};
use pond_oplog::View;
use pond_tinyfs::{Attributes, FileType, NodeId};

use crate::content::walk::{Found, Walk};
use crate::error::Result;

/// What conditions on a column of paths leave to look at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Places {
    /// The whole tree.
    All,
    /// Only these.
    These(Vec<String>),
    /// What begins with this.
    Beginning(String),
}

impl Places {
    /// What a condition on this column leaves; none if it says nothing of it.
    pub(crate) fn of(condition: &Expr, column: &str) -> Option<Places> {
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
                match (is(left, column), is(right, column)) {
                    (true, _) => text(right).map(|path| Places::These(vec![path])),
                    (_, true) => text(left).map(|path| Places::These(vec![path])),
                    _ => None,
                }
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
                match (Places::of(left, column)?, Places::of(right, column)?) {
                    (Places::These(mut some), Places::These(others)) => {
                        some.extend(others);
                        Some(Places::These(some))
                    }
                    _ => None,
                }
            }
            Expr::InList(InList { expr, list, negated: false }) if is(expr, column) => {
                list.iter().map(text).collect::<Option<Vec<_>>>().map(Places::These)
            }
            Expr::Like(Like {
                negated: false,
                expr,
                pattern,
                escape_char: None,
                case_insensitive: false,
            }) if is(expr, column) => {
                let pattern = text(pattern)?;
                let plain = pattern.find(['%', '_', '\\']).unwrap_or(pattern.len());
                Some(Places::Beginning(pattern[..plain].to_owned()))
            }
            Expr::ScalarFunction(call) if call.func.name() == "starts_with" => match &call.args[..] {
                [path, beginning] if is(path, column) => text(beginning).map(Places::Beginning),
                _ => None,
            },
            _ => None,
        }
    }

    /// What all these conditions leave.
    pub(crate) fn of_all(conditions: &[Expr], column: &str) -> Places {
        let left = conditions.iter().filter_map(|condition| Places::of(condition, column));
        // The least; that all of them hold is looked at later.
        left.min_by_key(|places| match places {
            Places::These(paths) => paths.len(),
            Places::Beginning(_) => usize::MAX - 1,
            Places::All => usize::MAX,
        })
        .unwrap_or(Places::All)
    }

    /// Goes through what is left of a version's tree, the root included.
    pub(crate) fn each(&self, view: &Arc<View>, mut each: impl FnMut(Found) -> Result<bool>) -> Result<()> {
        match self {
            Places::These(paths) => {
                let mut paths = paths.clone();
                paths.sort();
                paths.dedup();
                for path in paths {
                    if let Some(found) = find(view, path.as_bytes())
                        && !each(found)?
                    {
                        break;
                    }
                }
                Ok(())
            }
            Places::Beginning(beginning) => {
                let end = beginning.rfind('/').unwrap_or(0);
                let directory = if end == 0 { "/" } else { &beginning[..end] };
                match find(view, directory.as_bytes()) {
                    Some(start) => below(view, start, each),
                    None => Ok(()),
                }
            }
            Places::All => match find(view, b"/") {
                Some(root) => below(view, root, each),
                None => Ok(()),
            },
        }
    }
}

fn below(view: &Arc<View>, start: Found, mut each: impl FnMut(Found) -> Result<bool>) -> Result<()> {
    let (path, attributes) = (start.path.clone(), start.attributes);
    if !each(start)? || attributes.kind != FileType::Directory {
        return Ok(());
    }
    for found in Walk::below(view.clone(), path, attributes.id) {
        if !each(found?)? {
            break;
        }
    }
    Ok(())
}

/// What lies at a path that is written as the table writes it: from the root, and through no symlink.
fn find(view: &View, path: &[u8]) -> Option<Found> {
    let (fs, mut directory) = (view.fs(), NodeId::ROOT);
    let root = fs.getattr(directory).ok()?;
    if path == b"/" {
        return Some(Found { path: path.to_vec(), parent: directory, name_at: 1, attributes: root });
    }
    let mut names = path.strip_prefix(b"/")?.split(|byte| *byte == b'/').peekable();
    while let Some(name) = names.next() {
        if matches!(name, b"" | b"." | b"..") {
            return None;
        }
        let attributes: Attributes = fs.lookup(directory, name).ok()?;
        fs.forget(attributes.id, 1);
        match names.peek() {
            None => {
                let name_at = path.len() - name.len();
                return Some(Found { path: path.to_vec(), parent: directory, name_at, attributes });
            }
            Some(_) => directory = attributes.id,
        }
    }
    None
}

fn is(expression: &Expr, name: &str) -> bool {
    match expression {
        Expr::Column(column) => column.name == name,
        Expr::Cast(cast) => is(&cast.expr, name),
        _ => false,
    }
}

fn text(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Literal(
            ScalarValue::Utf8(text) | ScalarValue::Utf8View(text) | ScalarValue::LargeUtf8(text),
            _,
        ) => text.clone(),
        Expr::Cast(cast) => text(&cast.expr),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{col, lit};

    fn of(condition: Expr) -> Option<Places> {
        Places::of(&condition, "path")
    }

    #[test]
    fn conditions_on_a_path_say_where_to_look() {
        let these =
            |paths: &[&str]| Some(Places::These(paths.iter().map(|path| (*path).to_owned()).collect()));
        assert_eq!(of(col("path").eq(lit("/a"))), these(&["/a"]));
        assert_eq!(of(lit("/a").eq(col("path"))), these(&["/a"]));
        assert_eq!(of(col("path").in_list(vec![lit("/a"), lit("/b")], false)), these(&["/a", "/b"]));
        assert_eq!(of(col("path").eq(lit("/a")).or(col("path").eq(lit("/b")))), these(&["/a", "/b"]));
        assert_eq!(of(col("path").like(lit("/a/b%"))), Some(Places::Beginning("/a/b".into())));
        assert_eq!(of(col("path").like(lit("%b"))), Some(Places::Beginning(String::new())));
        for condition in [
            col("name").eq(lit("/a")),
            col("path").not_eq(lit("/a")),
            col("path").in_list(vec![lit("/a")], true),
            col("path").eq(lit("/a")).or(col("size").gt(lit(1))),
        ] {
            assert_eq!(of(condition.clone()), None, "{condition}");
        }
        let both = [col("path").like(lit("/a/%")), col("path").eq(lit("/a/b"))];
        assert_eq!(Some(Places::of_all(&both, "path")), these(&["/a/b"]));
        assert_eq!(Places::of_all(&[], "path"), Places::All);
    }
}
