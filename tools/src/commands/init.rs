//! `pond init`.

use pond_oplog::At;
use pond_steward::Steward;
use serde_json::json;

use super::Context;
use crate::error::{Failure, Result};

/// Makes an empty pond.
pub fn init(context: &mut Context) -> Result {
    let directory = context.pond.directory().to_path_buf();
    Steward::init(&directory).map_err(|error| Failure::because("cannot make a pond", &error))?;
    let pond_id = context.pond.open_at(At::Tip)?.status().pond_id;
    context.out.json(&json!({"path": directory, "pond_id": pond_id}))?;
    context.out.line(&format!("Made the pond {}. `pond mount MOUNTPOINT` mounts it.", directory.display()))
}
