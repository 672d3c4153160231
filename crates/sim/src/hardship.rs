//! How hard the world is. Every figure is a chance in 1000 unless it says otherwise.

use std::time::Duration;

use crate::marks::Level;

/// The faults of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardship {
    /// The calmest level that has all of these faults.
    pub level: Level,
    /// A webhook is never delivered.
    pub webhook_lost: u32,
    /// A webhook is delivered twice.
    pub webhook_doubled: u32,
    /// A webhook comes days late.
    pub webhook_ages: u32,
    /// A delay is far longer than every constant of the core that concerns calls.
    pub delay_huge: u32,
    /// A call fails without an effect.
    pub call_fails: u32,
    /// A call has its effect and its answer is lost.
    pub answer_lost: u32,
    /// A launch may land after its deadline: nobody at the provider enforces it.
    pub lands_late: u32,
    /// The leader is killed, in one of its turns. If ever, then once more at some instant.
    pub crash: u32,
    /// The leader is stopped in one of its turns, for up to an hour, and goes on as if nothing had been.
    pub pause: u32,
    /// Whether a commit was applied is not known to who made it.
    pub commit_unknown: u32,
    /// How far each controller's clock may be off the database's, in milliseconds.
    pub skew: u64,
    /// The database's clock jumps, as a job arrives.
    pub clock_jumps: u32,
    /// An instance never comes online.
    pub boot_hangs: u32,
    /// An instance ends before it is online.
    pub boot_dies: u32,
    /// A runner ends after it came online, if it has no job by then.
    pub dies_idle: u32,
    /// An idle runner's registration is used up and it goes on listening.
    pub goes_deaf: u32,
    /// A runner dies with its job, which the forge then puts back or fails.
    pub dies_busy: u32,
    /// A job hangs for hours.
    pub job_hangs: u32,
    /// The forge puts a started job back although nothing died.
    pub put_back: u32,
    /// A job is cancelled, at some instant.
    pub cancelled: u32,
    /// The forge answers 404 to a read of a job it has.
    pub job_denied: u32,
    /// The forge loses a queued job for good and answers 404 from then on.
    pub job_vanishes: u32,
    /// `busy` is told wrongly: an idle runner's removal is refused, a listing has it the wrong way round.
    pub busy_lies: u32,
    /// The provider says that it is full although it is not.
    pub full: u32,
    /// A destroyed instance does not go away before it has been destroyed again, some hours on.
    pub leaks: u32,
    /// The provider lists what is not ours, and things twice.
    pub garbage: u32,
    /// A listing comes back empty by surprise; not twice within an hour, apart from `lies_last`.
    pub listing_empty: u32,
    /// A listing comes back in part by surprise, as rarely in a row.
    pub listing_partial: u32,
    /// How long listings of one kind go on coming back empty once they have; zero is one listing.
    pub lies_last: Duration,
    /// A job or a listing is told of as it was up to a minute before it was asked for: a replica lags.
    pub stale: u32,
    /// As a job arrives, something outside stops working for a while: registrations, the forge, an
    /// owner's budget of calls, a provider.
    pub outage: u32,
    /// The longest such while, in minutes.
    pub outage_longest: u64,
    /// As a job arrives, every runner of a pool, an image or a node begins to die in its boot, for up to
    /// two hours.
    pub goes_bad: u32,
    /// As a job arrives, a person drains a pool, a provider or a node, for up to an hour.
    pub drained: u32,
    /// Nothing but redelivery tells of a job whose webhook was lost: jobs are not listed.
    pub unswept: u32,
}

impl Hardship {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        level: Level::None,
        webhook_lost: 0,
        webhook_doubled: 0,
        webhook_ages: 0,
        delay_huge: 0,
        call_fails: 0,
        answer_lost: 0,
        lands_late: 0,
        crash: 0,
        pause: 0,
        commit_unknown: 0,
        skew: 0,
        clock_jumps: 0,
        boot_hangs: 0,
        boot_dies: 0,
        dies_idle: 0,
        goes_deaf: 0,
        dies_busy: 0,
        job_hangs: 0,
        put_back: 0,
        cancelled: 0,
        job_denied: 0,
        job_vanishes: 0,
        busy_lies: 0,
        full: 0,
        leaks: 0,
        garbage: 0,
        listing_empty: 0,
        listing_partial: 0,
        lies_last: Duration::ZERO,
        stale: 0,
        outage: 0,
        outage_longest: 0,
        goes_bad: 0,
        drained: 0,
        unswept: 0,
    };

    /// Jobs are cancelled now and then, webhooks doubled; nothing else.
    pub const LOW: Self =
        Self { level: Level::Low, cancelled: 50, webhook_doubled: 20, ..Self::NONE };

    /// A bad week.
    pub const NORMAL: Self = Self {
        level: Level::Normal,
        webhook_lost: 50,
        webhook_doubled: 50,
        delay_huge: 10,
        call_fails: 50,
        answer_lost: 20,
        crash: 2,
        pause: 1,
        commit_unknown: 5,
        skew: 500,
        boot_hangs: 20,
        boot_dies: 20,
        dies_idle: 20,
        goes_deaf: 20,
        dies_busy: 20,
        put_back: 20,
        cancelled: 50,
        job_denied: 20,
        busy_lies: 20,
        full: 20,
        listing_empty: 5,
        listing_partial: 5,
        stale: 20,
        outage: 20,
        outage_longest: 60,
        goes_bad: 5,
        drained: 10,
        unswept: 200,
        ..Self::NONE
    };

    /// Everything at once, often.
    pub const HIGH: Self = Self {
        level: Level::High,
        webhook_lost: 250,
        webhook_doubled: 200,
        webhook_ages: 1,
        delay_huge: 50,
        call_fails: 150,
        answer_lost: 100,
        lands_late: 300,
        crash: 10,
        pause: 5,
        commit_unknown: 20,
        skew: 2000,
        clock_jumps: 10,
        boot_hangs: 100,
        boot_dies: 100,
        dies_idle: 80,
        goes_deaf: 80,
        dies_busy: 80,
        job_hangs: 20,
        put_back: 80,
        cancelled: 120,
        job_denied: 100,
        job_vanishes: 1,
        busy_lies: 100,
        full: 80,
        leaks: 50,
        garbage: 50,
        listing_empty: 30,
        listing_partial: 30,
        lies_last: Duration::ZERO,
        stale: 100,
        outage: 60,
        outage_longest: 360,
        goes_bad: 15,
        drained: 20,
        unswept: 200,
    };

    /// The worst, and listings that go on lying for longer than every grace.
    pub const LYING: Self =
        Self { level: Level::Lying, lies_last: Duration::from_hours(3), ..Self::HIGH };

    /// The level of that name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::NONE),
            "low" => Some(Self::LOW),
            "normal" => Some(Self::NORMAL),
            "high" => Some(Self::HIGH),
            "lying" => Some(Self::LYING),
            _ => None,
        }
    }

    /// The longest that a call or an answer is under way.
    pub const LONGEST_DELAY: Duration = Duration::from_hours(30);
    /// The latest that a webhook comes.
    pub const LONGEST_AGE: Duration = Duration::from_hours(10 * 24);
    /// The longest that a leader is stopped.
    pub const LONGEST_PAUSE: Duration = Duration::from_hours(1);
    /// The longest that a job runs by itself.
    pub const LONGEST_JOB: Duration = Duration::from_hours(5);
}
