//! Deliveries: webhook requests as received, signed by one of our secrets, not yet understood.

use std::fmt;
use std::sync::Arc;

use crate::name::ForgeName;
use crate::time::Timestamp;

/// One webhook request. Kept as it came, so that a later decoder can read what this one cannot.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Whose secret signed it.
    pub forge: ForgeName,
    /// The forge's id of the delivery; a redelivery bears the same.
    pub id: Arc<str>,
    /// The event's name, such as `workflow_job`.
    pub event: Arc<str>,
    /// When it arrived.
    pub received_at: Timestamp,
    /// The raw body.
    pub body: Arc<[u8]>,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("forge", &self.forge)
            .field("id", &self.id)
            .field("event", &self.event)
            .field("received_at", &self.received_at)
            .field("bytes", &self.body.len())
            .finish()
    }
}
