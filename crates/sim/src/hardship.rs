//! How hard the world is. Every figure is a chance in 1000 unless it says otherwise.

/// The faults of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardship {
    /// A webhook is never delivered.
    pub webhook_lost: u32,
    /// A webhook is delivered twice.
    pub webhook_doubled: u32,
    /// A delay is far longer than every constant of the core.
    pub delay_huge: u32,
    /// A call fails without an effect.
    pub call_fails: u32,
    /// A call has its effect and its answer is lost.
    pub answer_lost: u32,
    /// The controller is killed, in one of its turns.
    pub crash: u32,
    /// An instance never comes online.
    pub boot_hangs: u32,
    /// An instance ends before it has a job.
    pub boot_dies: u32,
    /// An idle runner's registration is used up and it goes on listening.
    pub goes_deaf: u32,
    /// A runner dies with its job, which the forge then puts back or fails.
    pub dies_busy: u32,
    /// The forge puts a started job back although nothing died.
    pub put_back: u32,
    /// A job is cancelled, at some instant.
    pub cancelled: u32,
    /// The forge answers 404 to a read of a job it has.
    pub job_denied: u32,
    /// The provider says that it is full although it is not.
    pub full: u32,
    /// A listing comes back empty by surprise; not twice within an hour.
    pub listing_empty: u32,
    /// A job is told of as it was up to a minute before it was asked for: a replica lags.
    pub stale: u32,
    /// As a job arrives, the forge begins to refuse every registration for a while.
    pub outage: u32,
}

impl Hardship {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        webhook_lost: 0,
        webhook_doubled: 0,
        delay_huge: 0,
        call_fails: 0,
        answer_lost: 0,
        crash: 0,
        boot_hangs: 0,
        boot_dies: 0,
        goes_deaf: 0,
        dies_busy: 0,
        put_back: 0,
        cancelled: 0,
        job_denied: 0,
        full: 0,
        listing_empty: 0,
        stale: 0,
        outage: 0,
    };

    /// Jobs are cancelled now and then; nothing else.
    pub const LOW: Self = Self { cancelled: 50, webhook_doubled: 20, ..Self::NONE };

    /// A bad week.
    pub const NORMAL: Self = Self {
        webhook_lost: 50,
        webhook_doubled: 50,
        delay_huge: 10,
        call_fails: 50,
        answer_lost: 20,
        crash: 2,
        boot_hangs: 20,
        boot_dies: 20,
        goes_deaf: 20,
        dies_busy: 20,
        put_back: 20,
        cancelled: 50,
        job_denied: 20,
        full: 20,
        listing_empty: 5,
        stale: 20,
        outage: 10,
    };

    /// Everything at once, often.
    pub const HIGH: Self = Self {
        webhook_lost: 250,
        webhook_doubled: 200,
        delay_huge: 50,
        call_fails: 150,
        answer_lost: 100,
        crash: 10,
        boot_hangs: 100,
        boot_dies: 100,
        goes_deaf: 80,
        dies_busy: 80,
        put_back: 80,
        cancelled: 120,
        job_denied: 100,
        full: 80,
        listing_empty: 30,
        stale: 100,
        outage: 50,
    };

    /// The level of that name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::NONE),
            "low" => Some(Self::LOW),
            "normal" => Some(Self::NORMAL),
            "high" => Some(Self::HIGH),
            _ => None,
        }
    }
}
