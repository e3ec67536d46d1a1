//! `pond promote`.

use serde_json::json;

use super::Context;
use crate::error::{During, Failure, Result};
use crate::target::State;

/// Makes a replica writable, on a timeline of its own.
pub fn promote(context: &mut Context) -> Result {
    const WHAT: &str = "cannot promote the pond";
    if let State::Mounted(mut daemon) = context.pond.state()? {
        let status = daemon.status()?;
        if status["mode"] == "source" {
            return Err(Failure::new(WHAT, "it is a source already, not a replica").next(
                match status["read_only_because"].as_str() {
                    Some(why) => format!("it takes no writes: {why}"),
                    None => "it is writable as it is".to_owned(),
                },
            ));
        }
        let mountpoint = status["mountpoint"].as_str().unwrap_or("MOUNTPOINT").to_owned();
        let pond = context.command();
        return Err(Failure::new(WHAT, format!("it is mounted on {mountpoint}")).next(format!(
            "`pond umount {mountpoint} && {pond} promote && {pond} mount {mountpoint}` does it"
        )));
    }
    let steward = context.pond.open()?;
    let promoted = (|| {
        let setting = steward.control_get(Some(pond_steward::REMOTE_CONFIG_KEY)).into_iter().next();
        let (_, configuration) = setting.ok_or_else(|| {
            Failure::new(WHAT, "it is not a replica that was made from a backup store")
                .next("a pond that was made with `pond init` is writable already")
        })?;
        // The store's word comes first: should this process end here, a timeline is left that nobody uses, and
        // promoting again claims the next one.
        let claimed =
            pond_replicate::promote(steward.pond(), configuration.as_bytes()).during(|| WHAT.into())?;
        let position = steward.promote(claimed.timeline, &claimed.id.to_string()).during(|| WHAT.into())?;
        Ok((claimed, position))
    })();
    let closed = steward.close().during(|| "cannot close the pond".to_owned());
    let (claimed, position) = promoted?;
    closed?;
    context.out.json(&json!({
        "path": steward.pond(), "timeline": claimed.timeline, "version": position.version,
        "digest": position.digest,
    }))?;
    context.out.line(&format!(
        "The pond is a source now, on timeline {}, from version {} on. `{} mount MOUNTPOINT` mounts it.",
        claimed.timeline,
        position.version,
        context.command()
    ))
}
