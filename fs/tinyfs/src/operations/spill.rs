//! Spilling: memory lets go of what unlinked files hold, and the files of a scratch.

use crate::tree::spill::Spilling;
use crate::{Errno, Error, MAX_EXTENT, TinyFs};

/// Where a spill file ends at the latest: rows of locations have 32 bits.
const MAX_SPILL: u64 = (MAX_EXTENT as u64) << 32;

impl TinyFs {
    /// Lets memory go of what unlinked files hold, and all files of a scratch: no row will ever tell of it, so it goes to spill files. Blocks on
    /// I/O; what cannot be written stays in memory, and the first error is returned when all others were tried.
    pub fn spill(&self) -> Result<(), Error> {
        // One at a time: of two writes to the same place in a spill file the later must win.
        let _turn = self.spilling.lock();
        // As much as there is now: whoever waits for this shall not wait for writers who go on and on.
        let mut left = self.unspilled_bytes();
        let mut result = Ok(());
        while left > 0 {
            let Some(spilling) = self.changing().take_for_spill() else { break };
            left = left.saturating_sub(spilling.bytes());
            match self.write_spill(&spilling) {
                Ok(spill) => {
                    if !self.changing().spilled(&spilling, spill) {
                        self.persistence().close_spill(spill);
                    }
                }
                Err(error) => {
                    // A file that went meanwhile took its spill file with it.
                    if self.changing().not_spilled(&spilling) {
                        result = result.and(Err(error));
                    }
                }
            }
        }
        result
    }

    /// The number of the spill file that holds these bytes now.
    pub(crate) fn write_spill(&self, spilling: &Spilling) -> Result<u32, Error> {
        let end = spilling.pieces.iter().map(|(offset, data, _)| offset + data.len() as u64).max();
        if end > Some(MAX_SPILL) {
            return Err(Errno::FBIG.into());
        }
        let spill = spilling.spill.map_or_else(|| self.persistence().open_spill(), Ok)?;
        for (offset, data, _) in &spilling.pieces {
            if let Err(error) = self.persistence().write_spill(spill, *offset, data) {
                if spilling.spill.is_none() {
                    self.persistence().close_spill(spill);
                }
                return Err(error.into());
            }
        }
        Ok(spill)
    }
}
