//! Grace times and quarantine: what they are, their keys, and how they are read.

use std::time::Duration;

use super::read::{Item, Reader};
use super::schema::Absent::Means;
use super::schema::{NONE, Section, key};
use super::takes::{COUNT_MAX, Takes};

/// How long facts that may be a moment's error must last before anything is done on their account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// A registration or an instance that no row explains, until it is removed.
    pub stray: Duration,
    /// How far a forge's listing of registrations may lag behind its own answers.
    pub registration: Duration,
    /// Between two questions about a runner that is busy with a job nobody told of.
    pub unexplained: Duration,
    /// A destroyed instance that is still listed, until it is destroyed again.
    pub destroy: Duration,
}

impl Default for Grace {
    fn default() -> Self {
        Self {
            stray: Duration::from_mins(2),
            registration: Duration::from_mins(1),
            unexplained: Duration::from_mins(2),
            destroy: Duration::from_secs(15),
        }
    }
}

/// When what keeps failing is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// This many failures in a row put a pool, an image or a node in quarantine.
    pub after: u32,
    /// Longest time until it is tried again, with one runner.
    pub longest: Duration,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self { after: 5, longest: Duration::from_hours(1) }
    }
}

const GRACE_SPAN: Takes = Takes::Span(Duration::from_secs(1), Duration::from_hours(24));

pub(super) static GRACE: Section = Section {
    path: "grace",
    about: "How long facts that may be a moment's error must last before anything is done.",
    keys: &[
        key(
            "stray",
            GRACE_SPAN,
            "\"2m\"",
            Means("\"2m\""),
            "A registration or an instance of ours that nothing explains, until it is removed.",
            &["orphan"],
        ),
        key(
            "registration",
            GRACE_SPAN,
            "\"1m\"",
            Means("\"1m\""),
            "How far the forge's listing of runners may lag behind its own answers.",
            &["lag"],
        ),
        key(
            "unexplained",
            GRACE_SPAN,
            "\"2m\"",
            Means("\"2m\""),
            "Between two questions about a runner that is busy with a job nobody told of.",
            NONE,
        ),
        key(
            "destroy",
            GRACE_SPAN,
            "\"15s\"",
            Means("\"15s\""),
            "A destroyed instance that is still listed, until it is destroyed again.",
            NONE,
        ),
    ],
};

pub(super) static QUARANTINE: Section = Section {
    path: "quarantine",
    about: "When a pool, an image or a node whose runners keep dying is left alone.",
    keys: &[
        key(
            "after",
            Takes::Number(2, COUNT_MAX),
            "5",
            Means("5"),
            "So many failures in a row put it in quarantine.",
            &["failures", "threshold"],
        ),
        key(
            "longest",
            Takes::Span(Duration::from_mins(5), Duration::from_hours(7 * 24)),
            "\"1h\"",
            Means("\"1h\""),
            "Longest time until it is tried again, with one runner; it grows from `5m`.",
            &["max"],
        ),
    ],
};

pub(super) fn grace(r: &mut Reader, item: Item<'_>) -> Option<Grace> {
    r.enter("grace");
    let table = r.table(&GRACE, item)?;
    let default = Grace::default();
    let mut span = |key, absent| r.duration_or(&table, key, absent);
    let (stray, registration) =
        (span("stray", default.stray), span("registration", default.registration));
    let (unexplained, destroy) =
        (span("unexplained", default.unexplained), span("destroy", default.destroy));
    Some(Grace {
        stray: stray?,
        registration: registration?,
        unexplained: unexplained?,
        destroy: destroy?,
    })
}

pub(super) fn quarantine(r: &mut Reader, item: Item<'_>) -> Option<Quarantine> {
    r.enter("quarantine");
    let table = r.table(&QUARANTINE, item)?;
    let default = Quarantine::default();
    let after = r.count_or(&table, "after", default.after);
    let longest = r.duration_or(&table, "longest", default.longest);
    Some(Quarantine { after: after?, longest: longest? })
}
