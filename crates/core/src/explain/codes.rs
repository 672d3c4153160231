//! Every code with its cause and cure: the source of the page `docs/codes.md`.

use super::Actor::{Author, Forge, Nobody, Operator};
use super::{About, Actor, Code};

const fn job(name: &'static str, actor: Actor, cause: &'static str, cure: &'static str) -> Code {
    Code { name, about: About::Job, cause, cure, actor }
}

const fn runner(name: &'static str, actor: Actor, cause: &'static str, cure: &'static str) -> Code {
    Code { name, about: About::Runner, cause, cure, actor }
}

const fn pool(name: &'static str, actor: Actor, cause: &'static str, cure: &'static str) -> Code {
    Code { name, about: About::Pool, cause, cure, actor }
}

const fn provider(
    name: &'static str,
    actor: Actor,
    cause: &'static str,
    cure: &'static str,
) -> Code {
    Code { name, about: About::Provider, cause, cure, actor }
}

/// Every code there is, by what it is about.
pub const CODES: &[Code] = &[
    job(
        "held_by_forge",
        Forge,
        "The forge has not released the job: a deployment gate or a wait timer.",
        "Somebody approves it at the forge, or the timer ends.",
    ),
    job(
        "no_pool_has_labels",
        Author,
        "No pool that serves the job's scope offers every label in its runs-on.",
        "Correct runs-on, add the label that lacks to a pool, or add the scope to a pool.",
    ),
    job(
        "pool_full",
        Operator,
        "The pool has as many instances as its max allows.",
        "Runners finish; or raise the pool's max.",
    ),
    job(
        "provider_full",
        Operator,
        "The provider has as many instances as its max allows, or said itself that it has no room.",
        "Runners finish; or raise the provider's max, or give it more room.",
    ),
    job(
        "no_node_has_room",
        Operator,
        "No single node of the provider has what the pool's runners need left.",
        "Runners finish; or add a node, or lower the pool's needs.",
    ),
    job(
        "tenant_at_cap",
        Operator,
        "The tenant has as many runners as it may have.",
        "Its runners finish; or raise its cap.",
    ),
    job(
        "backing_off",
        Operator,
        "The last calls or runners failed, or the forge limits our calls; the text says which.",
        "It is tried again by itself at the time shown; look into the failure if it repeats.",
    ),
    job(
        "proving",
        Nobody,
        "After failures one runner is tried alone before others follow.",
        "That runner comes online, or fails and the wait begins anew.",
    ),
    job(
        "quarantined",
        Operator,
        "A pool, an image or a node failed many times in a row, and is only tried now and then.",
        "Mend what the last failure names, then `remuda release`; a runner that gets a job ends it too.",
    ),
    job(
        "drained",
        Operator,
        "A person ordered that nothing new is placed on the pool, the provider or the node.",
        "`remuda resume`.",
    ),
    job(
        "gathering",
        Nobody,
        "The pool's mode lets it wait for more jobs of the kind before it makes runners for them.",
        "More jobs come, or the time shown does.",
    ),
    job(
        "behind_older",
        Nobody,
        "Older jobs of the same account wait for the same, and are served first.",
        "They are served; or the other codes shown are dealt with for all of them.",
    ),
    job(
        "behind_others",
        Operator,
        "Jobs of other accounts wait for the same: theirs is below its floor, holds less for its \
         weight, or has waited longer for its turn.",
        "They are served and its turn comes; or raise the pool's max, or the account's weight or floor.",
    ),
    job(
        "trust_unknown",
        Nobody,
        "The pool is for trusted jobs, and whether this one is has not been judged yet.",
        "The job is judged by itself.",
    ),
    job(
        "not_trusted",
        Operator,
        "The pool is for trusted jobs, and this one is not.",
        "Offer its labels in a pool for anyone, if such jobs are welcome.",
    ),
    job(
        "runner_starting",
        Nobody,
        "A runner that can take the job is on its way.",
        "It comes online, or fails within the pool's boot limit and another is made.",
    ),
    job(
        "runner_idle",
        Forge,
        "A runner that can take the job is online, and the forge has not assigned it yet.",
        "The forge assigns it. If it does not: the runner's group may not admit the repository, \
         which no delivery tells.",
    ),
    job(
        "unknown_to_forge",
        Nobody,
        "The forge was asked and knows no such job.",
        "It is asked again by itself; a job that stays unknown is forgotten.",
    ),
    runner(
        "launch_due",
        Nobody,
        "The runner was decided and its launch is about to be called.",
        "The next turn calls it.",
    ),
    runner(
        "launch_queued",
        Operator,
        "As many launches are under way at the provider as it is to be given at once.",
        "They end; or raise the provider's launches_max.",
    ),
    runner(
        "launching",
        Nobody,
        "The launch is called and not answered.",
        "It is answered; after its deadline a listing of the provider decides.",
    ),
    runner(
        "booting",
        Nobody,
        "The instance exists and its runner is not online at the forge yet.",
        "It comes online; after the pool's boot limit it is replaced.",
    ),
    runner(
        "idle",
        Nobody,
        "The runner is online and has no job.",
        "The forge gives it one; beyond min_idle it is removed at the idle limit.",
    ),
    runner(
        "running_job",
        Nobody,
        "The runner has its one job.",
        "The job ends; only a declared limit on a job's time ends it sooner.",
    ),
    runner(
        "busy_unexplained",
        Nobody,
        "The forge refused to remove the runner because it has a job, and has not told of which.",
        "A delivery or a listing tells; removal is asked for again at the time shown.",
    ),
    runner(
        "finishing",
        Nobody,
        "Its job is over; the runner is given time to report and to leave by itself.",
        "It leaves, or the pool's finish limit passes.",
    ),
    runner(
        "exited_early",
        Nobody,
        "Its instance ended, and the forge still says that its job runs.",
        "The forge tells the job's end, which is usually a moment behind; else the job is read.",
    ),
    runner(
        "deregistering",
        Nobody,
        "The runner is to leave; its registration is being removed, which proves that it is idle.",
        "The forge removes it, or says that it has a job, which keeps it.",
    ),
    runner(
        "awaiting_launch",
        Nobody,
        "The runner is to leave, but its launch may still take effect.",
        "The launch is answered or its deadline passes.",
    ),
    runner(
        "destroying",
        Nobody,
        "The instance is being ended; it counts until a later listing lacks it.",
        "The provider ends it; the call is repeated at the time shown.",
    ),
    runner(
        "provider_undeclared",
        Operator,
        "The provider of its instance is no longer in the fleet file, so nothing can be asked of it.",
        "Declare the provider again, without a pool that uses it, until its instances are gone.",
    ),
    runner(
        "held",
        Operator,
        "A person ordered that the runner be left alone.",
        "`remuda release RUNNER`.",
    ),
    runner(
        "instance_missing",
        Nobody,
        "The provider's last listing lacks its instance.",
        "A listing shows it again, or it is taken for lost at the time shown.",
    ),
    runner(
        "registration_missing",
        Nobody,
        "The forge's last listing lacks its registration, or shows it offline.",
        "A listing shows it again, or it is replaced.",
    ),
    runner("gone", Nobody, "The runner is gone; its outcome says why.", "Nothing is left to do."),
    pool("serving", Nobody, "Nothing stands in the pool's way.", "Nothing is to be done."),
    pool(
        "below_min_idle",
        Nobody,
        "Fewer runners than min_idle are waiting or on their way.",
        "The next turn makes them, unless one of the other codes shown stands in the way.",
    ),
    pool(
        "wanted",
        Operator,
        "Jobs wait for this pool.",
        "See the other codes shown, and `remuda explain job` for one of them.",
    ),
    provider(
        "never_asked",
        Nobody,
        "The provider has not answered a listing since the server started.",
        "It is asked at the next turn.",
    ),
    provider(
        "answering",
        Nobody,
        "The provider's last listing succeeded.",
        "Nothing is to be done.",
    ),
    provider(
        "failing",
        Operator,
        "The provider's listings fail, so nothing about its instances is believed or destroyed.",
        "It is asked again by itself; `remuda doctor` and the log have the failure.",
    ),
];
