//! `pond space`: what history costs.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::changes::Name;
use crate::cli::SpaceArgs;
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::output::{Column, size};
use crate::path::{TreePath, escape};

/// Ages, each with its word as `retention` takes it, and in seconds; ascending.
const AGES: [(&str, i64); 4] = [("1h", 3600), ("1d", 86_400), ("7d", 7 * 86_400), ("30d", 30 * 86_400)];

/// Shows what history costs, by age and by path.
pub fn space(args: &SpaceArgs, context: &mut Context) -> Result {
    let what = || "cannot tell what history costs".to_owned();
    let within = match &args.path {
        Some(path) => TreePath::of_names(path).map_err(|why| Failure::usage(what(), why))?,
        None => TreePath::root(),
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
    let times = AGES.map(|(_, seconds)| now - seconds * 1_000_000);
    let views = context.pond.versions()?;
    let cost = views.cost(&times, &within.to_bytes()).during(what)?;
    if cost.paths.is_empty() && args.path.is_some() {
        let failure = Failure::new(what(), format!("no version that is kept has a directory {within}"));
        return Err(failure.next("`pond list` shows what is there"));
    }
    let history: u64 = cost.by_age.iter().sum();
    // What keeping versions of this age alone would free.
    let freed = |age: usize| cost.by_age.iter().skip(age).sum::<u64>();

    let paths = cost.paths.iter().map(|path| {
        let name = Name::new(&path.path);
        name.with(json!({ "needed": path.needed, "history": path.history }))
    });
    context.out.json(&json!({
        "live": cost.live,
        "needed": cost.needed,
        "history": history,
        "by_age": { "hour": cost.by_age[0], "day": cost.by_age[1], "week": cost.by_age[2],
            "month": cost.by_age[3], "older": cost.by_age[4] },
        "retention_would_free": AGES.iter().enumerate()
            .map(|(number, (age, _))| (*age, freed(number + 1))).collect::<std::collections::BTreeMap<_, _>>(),
        "replaced": cost.replaced,
        "log": cost.log,
        "paths": paths.collect::<Vec<_>>(),
    }))?;
    context.out.facts(&[
        ("data files", size(cost.live)),
        ("the newest version needs", format!("{}, about", size(cost.needed))),
        ("history alone needs", format!("{}, about", size(history))),
        ("waiting to be removed", size(cost.replaced)),
        ("log", size(cost.log)),
    ])?;
    context.out.line("")?;
    let words = ["the last hour", "the last day", "the last week", "the last 30 days", "before that"];
    let columns = [
        Column::text("REPLACED IN"),
        Column::number("BYTES"),
        Column::text("RETENTION"),
        Column::number("WOULD FREE"),
    ];
    let rows = words.iter().enumerate().map(|(number, words)| {
        let (retention, would) = match AGES.get(number) {
            Some((age, _)) => ((*age).to_owned(), size(freed(number + 1))),
            None => (String::new(), String::new()),
        };
        vec![(*words).to_owned(), size(cost.by_age[number]), retention, would]
    });
    context.out.table(&columns, rows)?;
    context.out.line("")?;
    let columns = [Column::number("HISTORY"), Column::number("NEEDED NOW"), Column::text("PATH")];
    let rows = cost.paths.iter().map(|path| vec![size(path.history), size(path.needed), escape(&path.path)]);
    context.out.table(&columns, rows)
}
