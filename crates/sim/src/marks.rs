//! "Sometimes" marks: rare things that a history came upon. A run that never came upon one of those its
//! hardship can produce has not tried what it claims to have tried.

use std::fmt;

/// How hard a world must be for something to happen in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing goes wrong.
    None,
    /// Jobs are cancelled, webhooks doubled.
    Low,
    /// A bad week.
    Normal,
    /// Everything at once.
    High,
    /// Everything at once, and listings that lie for long.
    Lying,
}

macro_rules! marks {
    ($($level:ident { $($name:ident = $text:literal,)+ })+) => {
        /// Something rare.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mark {
            $($(#[doc = $text] $name,)+)+
        }

        impl Mark {
            /// Every mark, those of the calmest worlds first.
            pub const ALL: &[Self] = &[$($(Self::$name,)+)+];

            /// What happened.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($(Self::$name => $text,)+)+
                }
            }

            /// The calmest world in which it can happen.
            pub const fn level(self) -> Level {
                match self {
                    $($(Self::$name)|+ => Level::$level,)+
                }
            }
        }
    };
}

marks! {
    None {
        CameOnline = "a runner came online",
        Surplus = "a runner was sent away as surplus",
        PoolFull = "a job waited for a full pool",
        OwnerAtCap = "a job waited for its owner's cap",
    }
    Low {
        JobCancelled = "a job was cancelled",
        CancelledAtBirth = "a job was cancelled as it arrived",
        CancelledAtStart = "a job was cancelled as it began",
        WebhookDoubled = "a webhook came twice",
        JobOnDraining = "a runner that was to be removed had a job",
    }
    Normal {
        AnswerLost = "an answer was lost",
        BackedOff = "a job waited for a back-off",
        BootDies = "an instance ended before it was online",
        BootHangs = "an instance never came online",
        BusyLied = "a removal was refused as busy although the runner was idle",
        CommitApplied = "a commit of unknown outcome had been applied",
        CommitNotApplied = "a commit of unknown outcome had not been applied",
        DiedIdle = "an online runner died before it had a job",
        Fenced = "a commit was fenced",
        DeliveriesPaged = "a listing of failed deliveries had several pages",
        Drained = "a job waited for the end of a drain",
        HugeDelay = "something was delayed beyond every constant",
        ImageBad = "every runner of an image died for a while",
        JobDenied = "a job was denied by the forge",
        JobPutBack = "a job was put back",
        KilledAfterCommit = "killed between a commit and its calls",
        KilledAmongCalls = "killed between two calls",
        KilledAtRest = "killed between a call and its answer",
        KilledBeforeCommit = "killed before a commit",
        LaunchFailed = "a launch failed",
        LaunchLost = "a launch was never answered and left nothing",
        LeaderChanged = "the other controller took over",
        LeaderPaused = "a leader was stopped for a while",
        ListingEmpty = "a listing came back empty by surprise",
        ListingPartial = "a listing came back in part",
        NeverOnline = "a runner was given up in its boot",
        NewAttempt = "the books noted another attempt of a job",
        NodeBad = "every runner on a node died for a while",
        NodeDrained = "a node was drained",
        OrphanSeen = "an instance without a row was noticed",
        OutageOfAll = "the forge answered nothing for a while",
        OutageOfLaunches = "the forge refused registrations for a while",
        OutageOfProvider = "a provider answered nothing for a while",
        PoolBad = "every runner of a pool died for a while",
        PoolDrained = "a pool was drained",
        ProviderDrained = "a provider was drained",
        ProviderFull = "a job waited for a full provider",
        Proving = "a job waited for a runner that proves a pool",
        QuarantineLeft = "what was in quarantine proved to work",
        Quarantined = "a job waited for the end of a quarantine",
        RateLimited = "the forge limited an owner's calls",
        Redelivered = "a failed delivery was made again",
        RedeliveryLost = "a delivery that was made again failed again",
        RegisteredTooLate = "a registration was made after its caller gave up",
        RunnerDeaf = "a runner went on listening without its registration",
        RunnerDiedBusy = "a runner died with its job",
        StrayRemoved = "a registration without a row was removed",
        Unswept = "no listing told of jobs whose webhook was lost",
        WebhookLost = "a webhook was lost",
    }
    High {
        ClockJumped = "the database's clock jumped",
        DestroyIgnored = "an instance outlived its destruction",
        Expired = "a job was given up after the forge had denied it for a day",
        ImageQuarantined = "an image was put in quarantine",
        NodeQuarantined = "a node was put in quarantine",
        ForeignListed = "a listing told of what is not ours",
        JobHangs = "a job hung for hours",
        Lifetime = "a runner was replaced at the end of its life",
        LandedLate = "a launch landed after the books had given it up",
        LostRunner = "the books noted that a runner was lost with its job",
        TimedOut = "a job ran past its pool's limit",
        WebhookAgesLate = "a webhook came days late",
    }
    Lying {
        TakenForDeaf = "a runner was sent away because every listing left it out",
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A set of marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(u128);

impl Marks {
    /// Notes one.
    pub fn insert(&mut self, mark: Mark) {
        self.0 |= 1 << (mark as u32);
    }

    /// Takes in those of another history.
    pub fn extend(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// True if it was reached.
    pub const fn contains(self, mark: Mark) -> bool {
        self.0 & (1 << (mark as u32)) != 0
    }

    /// Those reached, in order.
    pub fn iter(self) -> impl Iterator<Item = Mark> {
        Mark::ALL.iter().copied().filter(move |mark| self.contains(*mark))
    }
}
