//! One version as a value.

use std::sync::Arc;

use pond_tinyfs::TinyFs;

use crate::versions::stored::{Pins, StoredContent};
use crate::{CacheUse, DamageMet, HistoryFigures, Identity, Position};

/// One version of a pond: its tree, its content, where it stands in history, and the pin that keeps all of it from being
/// cleaned away. Without a pin there is no view. It never changes.
///
/// [`Views`](crate::Views) opens it.
pub struct View {
    pub(super) identity: Identity,
    pub(super) position: Position,
    pub(super) fs: Arc<TinyFs>,
    pub(super) content: Arc<StoredContent>,
    pub(super) figures: HistoryFigures,
    pub(super) notes: Vec<String>,
    pub(super) pins: Pins,
    /// What the tree takes beside what it shares with others, bytes, about.
    pub(super) memory: u64,
}

impl View {
    /// The tree; changing it answers `EROFS`.
    pub fn fs(&self) -> &Arc<TinyFs> {
        &self.fs
    }

    /// The version, and what its log entry says of it.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Who the pond is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How much history the version has.
    pub fn history_figures(&self) -> HistoryFigures {
        self.figures
    }

    /// What opening it passed over, such as a damaged checkpoint.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Memory that is taken by what is kept for readers, of this version and all others that were opened with it.
    pub fn cache_use(&self) -> CacheUse {
        self.content.cache_use()
    }

    /// Damaged content that readers met, of this version and all others that were opened with it.
    pub fn damage_met(&self) -> DamageMet {
        self.content.damage_met()
    }
}
