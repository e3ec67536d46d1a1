//! `pond backup list` and `pond backup describe`.

use pond_replicate::{Description, Listed, Place};
use serde_json::{Value, json};

use super::failed::failed;
use super::remote;
use crate::cli::{BackupDescribeArgs, BackupListArgs};
use crate::context::Context;
use crate::error::Result;
use crate::output::{Column, count, size};
use crate::progress::Transfers;
use crate::time;

/// Characters of a digest that people are shown.
const SHORT: usize = 12;
/// Versions of which people are told that something of them is missing.
const MOST: usize = 20;

/// Lists versions.
pub fn list(args: &BackupListArgs, context: &mut Context) -> Result {
    const WHAT: &str = "cannot list the backup store";
    let (inspector, _) = remote::open(&args.store, WHAT, context)?;
    let progress = Transfers::new("list", context.notices);
    let listed = inspector.list(args.limit, &progress).map_err(|error| failed(WHAT, &error))?;
    for row in &listed {
        context.out.json(&facts(row))?;
    }
    const COLUMNS: [Column; 8] = [
        Column::number("VERSION"),
        Column::text("KIND"),
        Column::text("TIME"),
        Column::number("FILES"),
        Column::number("STORED"),
        Column::text("LIES"),
        Column::text("MANIFEST"),
        Column::text("PARENT"),
    ];
    context.out.table(&COLUMNS, listed.iter().map(row))
}

/// A version for programs.
fn facts(listed: &Listed) -> Value {
    let mut facts = json!(listed);
    facts["kind"] = json!(kind(listed));
    if let Some(known) = &listed.facts {
        facts["time"] = json!(time::rfc3339_micros(known.timestamp));
    }
    facts
}

fn kind(listed: &Listed) -> &'static str {
    match listed.is_base() {
        true => "base",
        false => "version",
    }
}

fn short(digest: &str) -> String {
    digest.chars().take(SHORT).collect()
}

fn word(place: Place) -> &'static str {
    match place {
        Place::Alone => "alone",
        Place::Pack => "pack",
        Place::Both => "both",
        Place::Parts => "alone, pack",
        Place::Missing => "missing",
    }
}

fn row(listed: &Listed) -> Vec<String> {
    let (version, kind) = (listed.version.to_string(), kind(listed).to_owned());
    match &listed.facts {
        Some(facts) => vec![
            version,
            kind,
            time::local_micros(facts.timestamp),
            facts.files.to_string(),
            size(facts.stored),
            word(facts.place).to_owned(),
            short(&facts.manifest),
            facts.parent.as_deref().map(short).unwrap_or_default(),
        ],
        None => {
            let blank = String::new;
            let why = listed.problem.clone().unwrap_or_default();
            vec![version, kind, blank(), blank(), blank(), why, blank(), blank()]
        }
    }
}

/// Describes a version.
pub fn describe(args: &BackupDescribeArgs, context: &mut Context) -> Result {
    let what = format!("cannot describe version {} of the backup store", args.version);
    let (inspector, _) = remote::open(&args.store, &what, context)?;
    let progress = Transfers::new("describe", context.notices);
    let described = inspector.describe(args.version, &progress).map_err(|error| failed(&what, &error))?;
    let mut facts_of = json!(described);
    for (name, value) in facts(&described.listed).as_object().into_iter().flatten() {
        facts_of[name] = value.clone();
    }
    context.out.json(&facts_of)?;
    context.out.facts(&about(&described))?;
    const FILES: [Column; 3] = [Column::number("BYTES"), Column::text("DIGEST"), Column::text("FILE")];
    let files = described.contents.iter().map(|file| {
        let damaged = if file.damaged { " (damaged at the source)" } else { "" };
        vec![file.length.to_string(), short(&file.blake3), format!("{}{damaged}", file.name)]
    });
    context.out.line("")?;
    context.out.table(&FILES, files)?;
    const BUNDLES: [Column; 4] =
        [Column::number("STORED"), Column::number("FILES"), Column::text("LIES"), Column::text("BUNDLE")];
    let bundles = described.bundles.iter().map(|bundle| {
        let place = word(bundle.place).to_owned();
        vec![size(bundle.length), bundle.files.to_string(), place, bundle.key.clone()]
    });
    context.out.line("")?;
    context.out.table(&BUNDLES, bundles)
}

fn about(described: &Description) -> Vec<(&'static str, String)> {
    let listed = &described.listed;
    let mut about = vec![
        ("store", described.store.clone()),
        ("pond", described.pond_id.to_string()),
        (
            "version",
            format!("{}{}", listed.version, if described.has_base { ", also as a base" } else { "" }),
        ),
        ("timeline", listed.timeline.to_string()),
    ];
    if let Some(facts) = &listed.facts {
        about.extend([
            ("time", time::local_micros(facts.timestamp)),
            ("transaction", facts.txn_seq.to_string()),
            ("digest", facts.digest.clone()),
            ("manifest", facts.manifest.clone()),
            ("parent", facts.parent.clone().unwrap_or_else(|| "none: history begins here".to_owned())),
            ("key", described.key.clone()),
            ("files", format!("{}, {}", count(facts.files, "data file"), size(facts.bytes))),
            ("stored", size(facts.stored)),
        ]);
    }
    about.push((
        "a restore takes",
        format!(
            "the base of version {} and {} after it, {}",
            described.base,
            count(described.versions, "version"),
            size(described.fetches)
        ),
    ));
    if !described.missing.is_empty() {
        let mut missing: Vec<String> = described.missing.iter().take(MOST).map(ToString::to_string).collect();
        if described.missing.len() > MOST {
            missing.push(format!("and {} more", described.missing.len() - MOST));
        }
        about.push(("of which is missing", missing.join(", ")));
    }
    about
}
