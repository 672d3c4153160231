//! The section that says how a forge's jobs are found.

use std::time::Duration;

use super::read::{Field, Item, Reader};
use super::schema::Absent::Means;
use super::schema::{Section, key};
use super::takes::Takes;
use super::value::{self, quote};
use super::{Allowance, Demand};

pub(super) static DEMAND: Section = Section {
    path: "forge.NAME.demand",
    about: "How jobs are found. Each source is enough by itself; together a lost one costs seconds.",
    keys: &[
        key(
            "webhooks",
            Takes::Flag,
            "false",
            Means("true"),
            "Whether deliveries are taken; without them, a server needs no address the forge can reach.",
            &["deliveries", "hooks"],
        ),
        key(
            "redelivery",
            Takes::DurationOrOff,
            "\"5m\"",
            Means("\"5m\""),
            "How often failed deliveries are looked for, to have them sent again.",
            &["redeliveries", "redeliver"],
        ),
        key(
            "sweep",
            Takes::DurationOrOff,
            "\"2m\"",
            Means("\"2m\""),
            "How often open jobs are listed, to find those nobody told of.",
            &["jobs", "poll", "reconcile"],
        ),
        key(
            "budget",
            Takes::Share,
            "\"25%\"",
            Means("\"50%\""),
            "What sweeps may use of the calls that the forge admits to each owner's credentials.",
            &["calls", "limit", "share"],
        ),
    ],
};

pub(super) fn read(r: &mut Reader, item: Item<'_>) -> Option<Demand> {
    let table = r.table(&DEMAND, item)?;
    let default = Demand::default();
    let webhooks = table.get("webhooks").map_or(Some(default.webhooks), |field| flag(r, field));
    let sweep = table.get("sweep").map_or(Some(default.sweep.into()), |field| pace(r, field));
    let budget = table.get("budget").map_or(Some(default.budget), |field| allowance(r, field));
    let redelivery = match table.get("redelivery") {
        None => Some(default.redelivery.filter(|_| webhooks != Some(false)).into()),
        Some(field) => pace(r, field),
    };
    if webhooks == Some(false) && matches!(redelivery, Some(Pace::Every(_))) {
        let message = "deliveries that are not taken cannot be sent again";
        r.note(table.place("redelivery"), message, Some("leave \"redelivery\" out".into()));
    }
    let redelivery = redelivery.map(Pace::every);
    let demand = Demand {
        webhooks: webhooks?,
        redelivery: redelivery?,
        sweep: sweep?.every(),
        budget: budget?,
    };
    if !demand.webhooks && demand.sweep.is_none() {
        let message = "without webhooks and sweeps, nothing tells of jobs";
        r.note(table.place("sweep"), message, Some("leave \"sweep\" out".into()));
    }
    Some(demand)
}

fn flag(r: &mut Reader, field: Field<'_>) -> Option<bool> {
    let flag = field.value().as_bool();
    if flag.is_none() {
        r.refuse(field);
    }
    flag
}

/// How often something is done.
enum Pace {
    Off,
    Every(Duration),
}

impl From<Option<Duration>> for Pace {
    fn from(every: Option<Duration>) -> Self {
        every.map_or(Self::Off, Self::Every)
    }
}

impl Pace {
    fn every(self) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::Every(span) => Some(span),
        }
    }
}

/// A duration or `"off"`.
fn pace(r: &mut Reader, field: Field<'_>) -> Option<Pace> {
    r.parsed(field, |text| {
        if text == "off" { Ok(Pace::Off) } else { value::duration(text).map(Pace::Every) }
    })
}

fn allowance(r: &mut Reader, field: Field<'_>) -> Option<Allowance> {
    if field.value().is_integer() {
        let calls = r.number(field)?;
        return u32::try_from(calls).ok().map(Allowance::Calls);
    }
    r.parsed(field, |text| {
        let percent = text.strip_suffix('%').and_then(|number| number.parse().ok());
        let share = percent.filter(|percent| (1..=100).contains(percent)).map(Allowance::Share);
        share.ok_or_else(|| format!("{} is not a share from \"1%\" to \"100%\"", quote(text)))
    })
}
