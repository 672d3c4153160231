//! What a fleet file may say, and what is said about one that is wrong.

use std::time::Duration;

use remuda_core::fleet::{
    Fleet, JitBy, Polls, Problems, ProviderKind, SecretRef, Server, Source, Tenants, Terms, parse,
};
use remuda_core::label::LabelSet;
use remuda_core::name::{ForgeName, Login, PoolName, Resource};
use remuda_core::pool::Limits;
use remuda_core::tenant::Scope;

const GITHUB: &str = include_str!("../../../examples/github.toml");
const LAPTOP: &str = include_str!("../../../examples/laptop.toml");

fn read(text: &str) -> Result<Fleet, Problems> {
    parse(&[Source { name: "fleet.toml", text }])
}

fn good(text: &str) -> Fleet {
    read(text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A small fleet, with lines added to the table of each kind. Added to line 3, 6, 9 and 15.
fn with(forge: &str, provider: &str, image: &str, pool: &str) -> String {
    format!(
        "[forge.hub]\ntoken = \"env:T\"\n{forge}\n[provider.local]\nkind = \"process\"\n{provider}\n\
         [image.run]\ncommand = [\"./run.sh\"]\n{image}\n[pool.small]\nlabels = [\"a\"]\n\
         provider = \"local\"\nimage = \"run\"\nmax = 4\n{pool}\n"
    )
}

/// Checks that `text` has exactly these problems, each as `line:column message`.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let problems = read(text).map(|_| ()).expect_err("the text has problems");
    let said: Vec<_> = problems
        .shown()
        .iter()
        .map(|problem| format!("{}:{} {}", problem.line, problem.column, problem.message))
        .collect();
    assert_eq!(said, expected, "{problems}");
}

fn forge(line: &str, expected: &[&str]) {
    check(&with(line, "", "", ""), expected);
}
fn provider(line: &str, expected: &[&str]) {
    check(&with("", line, "", ""), expected);
}
fn image(line: &str, expected: &[&str]) {
    check(&with("", "", line, ""), expected);
}
fn pool(line: &str, expected: &[&str]) {
    check(&with("", "", "", line), expected);
}

#[test]
fn a_small_fleet_has_every_default() {
    let fleet = good(LAPTOP);
    assert_eq!(fleet.server, Server::default());
    assert_eq!(fleet.tenants, Tenants::default());
    let forge = fleet.forges.values().next().unwrap();
    assert_eq!(forge.group.as_str(), "remuda");
    assert_eq!(forge.polls, Polls::default());
    assert_eq!(forge.token, Some(SecretRef::Env("GITHUB_TOKEN".into())));
    let image = fleet.images.values().next().unwrap();
    assert_eq!(image.jit, JitBy::Env(JitBy::OFFICIAL.into()));
    let pool = fleet.pools.values().next().unwrap();
    assert_eq!((pool.limits, pool.min_idle, pool.max), (Limits::default(), 0, 4));
    assert_eq!(&pool.forge, &forge.name);
}

#[test]
fn a_whole_fleet_is_read_as_it_is_written() {
    let fleet = good(GITHUB);
    assert_eq!(fleet.server.listen.to_string(), "0.0.0.0:8080");
    let github = ForgeName::new("github").unwrap();
    let forge = &fleet.forges[&github];
    assert_eq!(forge.api, "https://api.github.com");
    assert_eq!(forge.apps.len(), 2);
    assert_eq!(forge.apps[0].id, "2167633");
    assert_eq!(forge.apps[0].private_key, SecretRef::File("keys/acme.pem".into()));
    assert_eq!(forge.apps[0].webhook_secrets.len(), 2);
    assert_eq!(forge.apps[0].owners, [Login::new("acme").unwrap()]);
    assert_eq!(forge.hooks[0].id, Some(512_034));
    assert_eq!(forge.scopes, [Scope::Organization(Login::new("acme").unwrap())]);
    let ProviderKind::Process(process) = &fleet.providers.values().next().unwrap().kind;
    assert_eq!(process.capacity[&Resource::new("memory").unwrap()], 256 * 1024);
    assert_eq!(process.capacity[&Resource::new("cpu").unwrap()], 64_000);
    let pool = &fleet.pools[&PoolName::new("board").unwrap()];
    assert_eq!(pool.needs[&Resource::new("cpu").unwrap()], 500);
    assert_eq!(pool.limits.job, Some(Duration::from_hours(6)));
    assert_eq!(pool.limits.boot, Duration::from_mins(10));
    assert_eq!(fleet.tenants.default, Terms { cap: 8, floor: 0, weight: 1 });
    let acme = fleet.tenants.terms_of(&github, &Login::new("Acme").unwrap());
    assert_eq!(acme, Terms { cap: u32::MAX, floor: 2, weight: 3 });
}

#[test]
fn several_files_make_one_fleet_and_nothing_is_declared_twice() {
    let (forge, rest) = LAPTOP.split_at(LAPTOP.find("[provider").unwrap());
    let both = [Source { name: "a", text: forge }, Source { name: "b", text: rest }];
    assert_eq!(parse(&both), Ok(good(LAPTOP)));
    let again = [both[0], both[1], Source { name: "c", text: "[pool.small]\nmax = 3" }];
    let problems = parse(&again).unwrap_err();
    assert!(problems.to_string().starts_with("c:1:7: pool \"small\" is declared twice"));
}

#[test]
fn equal_fleets_have_equal_revisions_and_others_others() {
    assert_eq!(good(LAPTOP).revision(), good(&format!("# more\n{LAPTOP}")).revision());
    assert_ne!(good(LAPTOP).revision(), good(&LAPTOP.replace("max = 4", "max = 5")).revision());
    // Where a secret is read from is a part of what is declared.
    let elsewhere = LAPTOP.replace("env:GITHUB_TOKEN", "env:OTHER_TOKEN");
    assert_ne!(good(LAPTOP).revision(), good(&elsewhere).revision());
    assert_eq!(good(LAPTOP).revision().len(), 16);
}

#[test]
fn a_problem_shows_its_line_and_what_would_be_right() {
    let problems =
        read(&with("", "", "", "provder = \"locl\"").replace("provider = \"local\"\n", ""));
    assert_eq!(
        problems.unwrap_err().to_string(),
        "fleet.toml:14:1: pool \"small\": unknown key \"provder\"\n\
         \x2014 | provder = \"locl\"\n\
         \x20   | ^^^^^^^\n\
         \x20   = did you mean \"provider\"?\n\n\
         fleet.toml:14:11: pool \"small\": provider \"locl\" is not declared\n\
         \x2014 | provder = \"locl\"\n\
         \x20   |           ^^^^^^\n\
         \x20   = did you mean \"local\"?\n\n\
         2 problems"
    );
}

#[test]
fn a_process_provider_may_say_which_machine_it_means() {
    let on = |node: &str| {
        LAPTOP.replace("kind = \"process\"", &format!("kind = \"process\"\nnode = {node}"))
    };
    let fleet = good(&on("\"board-1.lab\""));
    let ProviderKind::Process(process) = &fleet.providers.values().next().unwrap().kind;
    assert_eq!(process.node.as_deref(), Some("board-1.lab"));
    for bad in ["\"\"", "\"a b\"", &format!("{:?}", "x".repeat(65))] {
        let problems = read(&on(bad)).unwrap_err().to_string();
        assert!(problems.contains("must be a host name"), "{problems}");
    }
}

#[test]
fn with_a_shared_database_a_process_provider_says_where_it_is() {
    let shared = format!("[server]\ndatabase = \"env:DB\"\n{LAPTOP}");
    let problems = read(&shared).unwrap_err().to_string();
    assert!(problems.contains("a replica on another one would not see them"), "{problems}");
    assert!(problems.contains("node = \"HOST\", directory = \"PATH\""), "{problems}");
    let placed = "kind = \"process\"\nnode = \"board-1\"\ndirectory = \"instances\"";
    let fleet = good(&shared.replace("kind = \"process\"", placed));
    assert_eq!(fleet.server.database, Some(SecretRef::Env("DB".into())));
    for only in ["node = \"board-1\"", "directory = \"instances\""] {
        let half = shared.replace("kind = \"process\"", &format!("kind = \"process\"\n{only}"));
        assert!(read(&half).is_err(), "{only}");
    }
}

#[test]
fn an_empty_file_lacks_everything() {
    check(
        "",
        &[
            "1:1 no forge is declared",
            "1:1 no image is declared",
            "1:1 no pool is declared",
            "1:1 no provider is declared",
        ],
    );
    assert!(parse(&[]).is_err());
}

#[test]
fn a_misspelt_section_is_one_problem() {
    check(&with("", "", "", "").replace("[image.", "[imag."), &["7:2 unknown key \"imag\""]);
    check(&with("", "", "", "").replace("[pool.", "[pools."), &["10:2 unknown key \"pools\""]);
}

#[test]
fn forges_are_checked() {
    forge(
        "api = \"http://example.com\"",
        &["3:7 forge \"hub\": \"api\": must use https; plain http is for this machine only"],
    );
    forge(
        "scopes = [\"org:a\", \"acme\", \"user:x\"]",
        &[
            "3:20 forge \"hub\": \"scopes\": scope \"acme\" is not \"org:NAME\", \"repo:OWNER/NAME\" or \"enterprise:NAME\"",
            "3:28 forge \"hub\": \"scopes\": a person's account is no scope; name its repositories",
        ],
    );
    forge("scopes = [\"org:a\", \"org:A\"]", &["3:20 forge \"hub\": \"scopes\" lists this twice"]);
    forge("kind = \"gitlab\"", &["3:8 forge \"hub\": \"kind\" cannot be \"gitlab\""]);
    forge(
        "polls = { job = 120 }",
        &["3:17 forge \"hub\": \"job\" takes a duration with a unit, not a whole number"],
    );
    forge(
        "polls = { job = \"0s\" }",
        &["3:17 forge \"hub\": \"job\": must be longer than nothing"],
    );
    forge(
        "demand = { sweep = \"0s\", budget = \"0%\", webhooks = 1 }",
        &[
            "3:20 forge \"hub\": \"sweep\": must be longer than nothing",
            "3:35 forge \"hub\": \"budget\": \"0%\" is not a share from \"1%\" to \"100%\"",
            "3:52 forge \"hub\": \"webhooks\" takes `true` or `false`, not a whole number",
        ],
    );
    forge(
        "demand = { webhooks = false, sweep = \"off\" }",
        &["3:38 forge \"hub\": without webhooks and sweeps, nothing tells of jobs"],
    );
    forge(
        "app = [{ id = 0 }]",
        &[
            "3:8 forge \"hub\": \"private_key\" is missing",
            "3:15 forge \"hub\": \"id\" must be from 1 to 9223372036854775807",
        ],
    );
    forge(
        "hook = [{ secret = \"env:A\" }, { secret = \"env:B\" }]",
        &["3:31 forge \"hub\": two hooks have no id; only one can stand for all others"],
    );
    forge(
        "hook = [{ secret = \"env:A\", scope = \"org:a\" }]",
        &["3:9 forge \"hub\": \"scope\" needs \"id\" beside it"],
    );
    forge(
        "hook = [{ secret = \"env:A\", id = 1, scope = \"enterprise:a\" }]",
        &["3:45 forge \"hub\": \"scope\": an enterprise's hook cannot be asked about"],
    );
    forge(
        "demand = { webhooks = false, redelivery = \"5m\" }",
        &["3:43 forge \"hub\": deliveries that are not taken cannot be sent again"],
    );
    forge("hook = [{ secret = [] }]", &["3:20 forge \"hub\": \"secret\" must name at least one"]);
    forge(
        "[forge.hub.app]\nid = 5\nprivate_key = \"env:A\"",
        &["3:1 forge \"hub\": \"app\" takes a list of tables"],
    );
    let without = with("", "", "", "").replace("token = \"env:T\"\n", "");
    check(&without, &["1:1 forge \"hub\": it has neither an App nor a token"]);
    check(
        &format!("{}[forge.Two]\ntoken = \"env:T\"\n", with("", "", "", "")),
        &[
            "10:1 pool \"small\": \"forge\" is missing, and there are several",
            "16:8 forge \"Two\": forge name \"Two\" must begin with a lower-case letter or a digit",
        ],
    );
}

#[test]
fn a_scope_that_no_app_serves_is_found() {
    let app = "app = [{ id = 1, private_key = \"env:K\", owners = [\"acme\"] }]";
    let text = with(app, "", "", "scopes = [\"org:ACME\", \"org:acne\"]");
    check(
        &text.replace("token = \"env:T\"\n", ""),
        &["14:23 pool \"small\": no App of forge \"hub\" serves \"acne\""],
    );
}

#[test]
fn providers_and_images_are_checked() {
    provider("max = 0", &["6:7 provider \"local\": \"max\" must be from 1 to 4294967295"]);
    provider(
        "max = 99999999999",
        &["6:7 provider \"local\": \"max\" must be from 1 to 4294967295"],
    );
    provider("max = -1", &["6:7 provider \"local\": \"max\" must be from 1 to 4294967295"]);
    provider(
        "max = \"5\"",
        &["6:7 provider \"local\": \"max\" takes a whole number from 1, not text"],
    );
    provider(
        "capacity = { cpu = 1.5, memory = \"1GiB\", gpu = 0, cores = 1, slot = \"x\" }",
        &[
            "6:48 provider \"local\": \"gpu\": must be a whole number from 1",
            "6:51 provider \"local\": unknown resource \"cores\"",
            "6:69 provider \"local\": \"slot\": takes a whole number, not text",
        ],
    );
    image(
        "archive = { source = \"ftp://x/y\", sha256 = \"abc\" }",
        &[
            "9:22 image \"run\": \"source\": must begin with https://",
            "9:44 image \"run\": \"sha256\": must be 64 hexadecimal digits; these are 3 characters",
        ],
    );
    image(
        "jit = \"fd:1\"",
        &["9:7 image \"run\": \"jit\": a descriptor is a number from 3 to 255"],
    );
    image(
        "env = { \"A B\" = \"c\", ACTIONS_RUNNER_INPUT_JITCONFIG = \"x\" }",
        &[
            "9:9 image \"run\": \"A B\" cannot be the name of a variable",
            "9:22 image \"run\": this variable carries the JIT configuration",
        ],
    );
    check(
        &with("", "", "", "").replace("[\"./run.sh\"]", "[]"),
        &["8:11 image \"run\": \"command\" must begin with a program"],
    );
}

#[test]
fn pools_are_checked() {
    check(
        &with("", "", "", "").replace("[\"a\"]", "[\"\", \"a\\u0007b\", \"c\", \"C\", 5]"),
        &[
            "11:11 pool \"small\": \"labels\": a label is empty",
            "11:15 pool \"small\": \"labels\": label \"a\\u{7}b\" holds a control character",
            "11:37 pool \"small\": an entry of \"labels\" must be text, not a whole number",
        ],
    );
    check(
        &with("", "", "", "").replace("[\"a\"]", "[\"c\", \"C\"]"),
        &["11:16 pool \"small\": \"labels\" lists this twice"],
    );
    check(
        &with("", "", "", "").replace("[\"a\"]", "[]"),
        &["11:10 pool \"small\": \"labels\" must hold at least one"],
    );
    pool(
        "min_idle = 1",
        &["15:12 pool \"small\": \"min_idle\" needs \"scopes\" to keep runners in"],
    );
    pool(
        "min_idle = 3\nscopes = [\"org:a\", \"org:b\"]",
        &[
            "15:12 pool \"small\": \"min_idle\" wants 3 runners in each of 2 scopes, but \"max\" is 4",
        ],
    );
    pool(
        "group = \"g\"\nscopes = [\"repo:a/b\"]",
        &["15:9 pool \"small\": \"group\" has no effect: repositories have no runner groups"],
    );
    pool(
        "limits = { boot = \"2h\", lifetime = \"1h\" }",
        &[
            "15:19 pool \"small\": \"boot\" must be shorter than \"lifetime\", or no runner comes online",
        ],
    );
    pool("boot = \"2h\"", &["15:1 pool \"small\": unknown key \"boot\""]);
    let room = "capacity = { cpu = 2, memory = \"1GiB\", slot = 1 }";
    let needs = "needs = { cpu = \"2001m\", memory = \"1.5GiB\", slot = 2, board = 1 }";
    check(
        &with("", room, "", needs),
        &[
            "15:17 pool \"small\": \"cpu\" asks for 2001m cores, but provider \"local\" has 2 cores",
            "15:35 pool \"small\": \"memory\" asks for 1536MiB, but provider \"local\" has 1GiB",
            "15:52 pool \"small\": \"slot\" asks for 2, but provider \"local\" has 1",
            "15:55 pool \"small\": provider \"local\" has no \"board\" in its \"capacity\"",
        ],
    );
}

#[test]
fn tenants_are_checked() {
    let text = with("", "", "", "")
        + "[tenant.default]\ncap = -1\n\
        [tenant.a]\nlogin = \"acme\"\nforge = \"hbu\"\n\
        [tenant.b]\nlogin = \"ACME\"\ncap = 1\nfloor = 2\n\
        [tenant.c]\nlogin = \"acme\"\nweight = 0\n\
        [tenant.d]\nlogin = \"acme\"\ncap = \"lots\"\nweight = 1001\n\
        [tenant.defualt]\ncap = 1\n\
        [tenant.e]\nid = 9\n\
        [tenant.f]\nlogin = \"org:acme\"\nkind = \"user\"\n\
        [tenant.g]\nid = 9\nkind = \"organisation\"\n";
    check(
        &text,
        &[
            "17:7 tenant \"default\": \"cap\" must be from 0 to 4294967295",
            "20:9 tenant \"a\": forge \"hbu\" is not declared",
            "24:9 tenant \"b\": \"floor\" is 2, but \"cap\" allows 1 at most",
            "27:10 tenant \"c\": \"weight\" must be from 1 to 1000",
            "30:7 tenant \"d\": \"cap\" cannot be \"lots\"",
            "31:10 tenant \"d\": \"weight\" must be from 1 to 1000",
            "32:9 tenant \"defualt\": it names no account: \"login\" and \"id\" are missing",
            "34:1 tenant \"e\": \"id\" needs \"kind\"",
            "37:9 tenant \"f\": \"login\": \"org:acme\" is not a login: write only the account's name",
            "38:8 tenant \"f\": \"kind\" says of which kind the \"id\" is",
            "41:8 tenant \"g\": \"kind\" cannot be \"organisation\"",
        ],
    );
}

#[test]
fn one_account_has_one_table() {
    let text = with("", "", "", "")
        + "[tenant.a]\nlogin = \"acme\"\n[tenant.b]\nlogin = \"ACME\"\n\
        [tenant.c]\nid = 7\nkind = \"user\"\n[tenant.d]\nid = 7\nkind = \"user\"\n\
        [tenant.e]\nid = 7\nkind = \"organization\"\n";
    check(
        &text,
        &[
            "19:9 tenant \"b\": another table declares this login; case does not matter",
            "24:6 tenant \"d\": another table declares this id",
        ],
    );
}

#[test]
fn a_floor_that_is_inherited_must_fit_the_cap_too() {
    let text = with("", "", "", "")
        + "[tenant.a]\nlogin = \"acme\"\ncap = 1\n[tenant.default]\nfloor = 2\n";
    check(&text, &["18:7 tenant \"a\": \"floor\" is 2, but \"cap\" allows 1 at most"]);
}

/// Two pools of equal labels; the second has another image.
fn twins(first: &str, second: &str) -> String {
    with("", "", "", first)
        + "[image.other]\ncommand = [\"x\"]\n[pool.twin]\nlabels = [\"A\"]\nprovider = \"local\"\n\
           image = \"other\"\nmax = 1\n"
        + second
}

#[test]
fn pools_that_the_forge_would_mix_are_refused() {
    let mixed = "pool \"twin\": pool \"small\" offers the same labels in the same scope and group \
                 with another provider, image or needs, so the forge would mix them";
    let expected = |line: usize| format!("{line}:10 {mixed}");
    for (first, second) in [
        ("", ""),
        ("scopes = [\"org:a\"]", ""),
        ("scopes = [\"org:a\", \"org:b\"]", "scopes = [\"org:b\"]"),
        ("group = \"remuda\"", ""),
        // A repository has no groups to tell its runners apart.
        ("group = \"g\"\nscopes = [\"org:a\", \"repo:x/y\"]", "scopes = [\"repo:X/Y\"]"),
    ] {
        let text = twins(first, second);
        let line = text.lines().position(|line| line.contains("\"A\"")).unwrap() + 1;
        check(&text, &[&expected(line)]);
    }
    for (first, second) in [
        ("scopes = [\"org:a\"]", "scopes = [\"org:b\"]"),
        ("group = \"g\"", ""),
        ("", "group = \"g\""),
    ] {
        good(&twins(first, second));
    }
    // Pools that give a job the same may share a domain, whatever their room.
    good(&twins("", "").replace("image = \"other\"", "image = \"run\""));
}

#[test]
fn rises_rule_for_everyone_is_a_pool_by_its_labels() {
    // RISE A12-A14; its rules by tenant need routes.
    let text = with("", "", "", "").replace("\"a\"", "\"ubuntu-24.04-riscv\"");
    let fleet = good(&text);
    let pools = |labels: &[&str]| {
        let wanted = LabelSet::parse(labels).unwrap();
        fleet.pools.values().filter(|pool| pool.labels.satisfies(&wanted)).count()
    };
    assert_eq!(pools(&["ubuntu-24.04-riscv"]), 1);
    assert_eq!(pools(&["ubuntu-latest"]), 0);
    assert_eq!(pools(&["self-hosted", "ubuntu-24.04-riscv"]), 0);
    assert_eq!(pools(&["ubuntu-26.04-riscv"]), 0);
}
