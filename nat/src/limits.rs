//! How long and how many flows may live, where that is said anew.

use crate::nat::Nat;
use crate::state::Lifetimes;
use crate::{ConfigError, Timeouts};

impl Nat {
    /// Puts other timeouts in place of those it was made with. They count from each flow's last packet
    /// on.
    ///
    /// # Errors
    /// [`ConfigError::Timeout`] if one is too short; then all stay as they were.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), ConfigError> {
        timeouts.check()?;
        self.lifetimes = Lifetimes::new(&timeouts);
        Ok(())
    }

    /// Lets no client open more flows than that, whatever its share. Those it has stay.
    pub fn set_flows_per_client(&mut self, most: Option<u32>) {
        self.clients.set_most(most);
    }
}
