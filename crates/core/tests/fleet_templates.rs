//! What is written once for many pools: templates and matrices, and what is said of wrong ones.

use remuda_core::fleet::{Fleet, Problems, Source, parse};
use remuda_core::pool::Pool;

const BASE: &str = "[forge.hub]\ntoken = \"env:T\"\n[provider.local]\nkind = \"process\"\n\
                    [image.run]\ncommand = [\"./run.sh\"]\n[image.other]\ncommand = [\"x\"]\n";
/// Lines of [`BASE`].
const LINES: usize = 8;

/// Reads two files: the one that says what the pools need, and the text.
fn read(text: &str) -> Result<Fleet, Problems> {
    parse(&[Source { name: "base.toml", text: BASE }, Source { name: "fleet.toml", text }])
}

fn good(text: &str) -> Vec<Pool> {
    let fleet = read(text).unwrap_or_else(|problems| panic!("{problems}"));
    fleet.pools.into_values().collect()
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let problems = read(text).map(|_| ()).expect_err("the text has problems");
    let said: Vec<_> = problems
        .shown()
        .iter()
        .map(|problem| {
            assert_eq!(problem.file, "fleet.toml");
            format!("{}:{} {}", problem.line, problem.column, problem.message)
        })
        .collect();
    assert_eq!(said, expected, "{problems}");
}

const COMMON: &str = "[template.common]\nprovider = \"local\"\nimage = \"run\"\nmax = 4\n\
                      limits = { boot = \"1m\", idle = \"2m\" }\n";

#[test]
fn a_pool_takes_from_its_template_what_it_does_not_say() {
    let text = "[template.big]\nuse = \"common\"\nmax = 9\nneeds = { cpu = 2 }\n\
                [pool.a]\nuse = \"big\"\nlabels = [\"a\"]\nlimits = { idle = \"9m\" }\n\
                [pool.b]\nuse = \"common\"\nlabels = [\"b\"]\nimage = \"other\"\n";
    let pools = good(&[COMMON, text].concat());
    let seconds = |pool: &Pool| (pool.limits.boot.as_secs(), pool.limits.idle.as_secs());
    assert_eq!((pools[0].max, pools[0].needs.len(), seconds(&pools[0])), (9, 1, (60, 540)));
    assert_eq!((pools[1].max, pools[1].needs.len(), seconds(&pools[1])), (4, 0, (60, 120)));
    assert_eq!((pools[0].image.as_str(), pools[1].image.as_str()), ("run", "other"));
}

#[test]
fn what_is_wrong_in_a_template_is_said_once_and_where_it_stands() {
    let text = "[template.t]\nprovidr = \"local\"\nimage = \"rn\"\nmax = \"4\"\n\
                [pool.a]\nuse = \"t\"\nlabels = [\"a\"]\n[pool.b]\nuse = \"t\"\nlabels = [\"b\"]\n";
    check(
        text,
        &[
            "2:1 template \"t\": unknown key \"providr\"",
            "3:9 template \"t\": image \"rn\" is not declared",
            "4:7 template \"t\": \"max\" takes a whole number from 1, not text",
        ],
    );
    // A template that nobody uses is read as well.
    let alone = [COMMON, "[pool.a]\nuse = \"common\"\nlabels = [\"a\"]\n[template.x]\nmax = 0\n"];
    check(&alone.concat(), &["10:7 template \"x\": \"max\" must be from 1 to 4294967295"]);
}

#[test]
fn a_template_that_is_not_there_is_one_problem() {
    let pool = "[pool.a]\nuse = \"comon\"\nlabels = [\"a\"]\n";
    check(&[COMMON, pool].concat(), &["7:7 pool \"a\": template \"comon\" is not declared"]);
    let misspelt = "[pool.a]\nues = \"common\"\nlabels = [\"a\"]\n";
    check(&[COMMON, misspelt].concat(), &["7:1 pool \"a\": unknown key \"ues\""]);
    check(
        &[
            COMMON,
            "[pool.a]\nuse = 3\nlabels = [\"a\"]\nmax = 1\nprovider = \"local\"\nimage = \"run\"\n",
        ]
        .concat(),
        &["7:7 pool \"a\": \"use\" takes the name of a template, not a whole number"],
    );
}

#[test]
fn templates_that_use_each_other_in_a_circle_are_named() {
    let text = "[template.a]\nuse = \"b\"\n[template.b]\nuse = \"a\"\n[template.c]\nuse = \"a\"\n\
                [pool.p]\nuse = \"c\"\nlabels = [\"x\"]\n";
    check(
        text,
        &[
            "2:7 template \"a\": it uses itself: \"a\" uses \"b\" uses \"a\"",
            "4:7 template \"b\": it uses itself: \"b\" uses \"a\" uses \"b\"",
        ],
    );
    let deep: Vec<_> = (0..8).map(|n| format!("[template.t{n}]\nuse = \"t{}\"\n", n + 1)).collect();
    let text = [&deep.concat(), "[template.t8]\nmax = 1\n[pool.p]\nuse = \"t0\"\n"].concat();
    check(&text, &["16:7 pool \"p\": more than 8 templates use each other"]);
}

const MATRIX: &str = "[pool_matrix.vaccel]\nuse = \"common\"\nname = \"{flavor}{dind}-2204-{arch}\"\n\
                      labels = [\"{name}\", \"{arch:gnu}\"]\n\
                      axes = { flavor = [\"base\", \"torch\", \"tensorflow\", \"tvm\"], \
                      dind = [\"\", \"-dind\"], arch = [\"amd64\", \"arm64\", \"arm\"] }\n\
                      exclude = [{ flavor = [\"torch\", \"tensorflow\", \"tvm\"], arch = \"arm\" }]\n\
                      maps.gnu = { amd64 = \"x86_64\", arm64 = \"aarch64\", arm = \"armv7l\" }\n";

#[test]
fn a_matrix_makes_vaccels_eighteen_pools() {
    let pools = good(&[COMMON, MATRIX].concat());
    let names: Vec<_> = pools.iter().map(|pool| pool.name.as_str()).collect();
    // The scale sets of seeds/vaccel-ci.md.
    let mut expected: Vec<String> = Vec::new();
    for flavor in ["base", "torch", "tensorflow", "tvm"] {
        for dind in ["", "-dind"] {
            for arch in ["amd64", "arm64", "arm"] {
                if arch != "arm" || flavor == "base" {
                    expected.push(format!("{flavor}{dind}-2204-{arch}"));
                }
            }
        }
    }
    expected.sort();
    assert_eq!((names.len(), names), (18, expected.iter().map(String::as_str).collect()));
    let arm = pools.iter().find(|pool| pool.name.as_str() == "base-dind-2204-arm").unwrap();
    assert_eq!(arm.labels.to_string(), "[armv7l, base-dind-2204-arm]");
    assert_eq!(arm.limits.idle.as_secs(), 120);
}

/// The matrix with one text in place of another.
#[track_caller]
fn spoilt(from: &str, to: &str, expected: &[&str]) {
    assert!(MATRIX.contains(from), "{from}");
    check(&[COMMON, &MATRIX.replacen(from, to, 1)].concat(), expected);
}

#[test]
fn matrices_are_checked() {
    let here = |place: &str, what: &str| format!("{place} pool_matrix \"vaccel\": {what}");
    let one = |from, to, place, what| spoilt(from, to, &[&here(place, what)]);
    one("axes =", "axs =", "10:1", "unknown key \"axs\"");
    one("name = ", "nme = ", "8:1", "unknown key \"nme\"");
    one("{arch}\"", "{arhc}\"", "8:8", "axis \"arhc\" is not declared");
    one("{arch:gnu}", "{arch:gun}", "9:21", "map \"gun\" is not declared");
    one("{arch}\"", "{arch\"", "8:8", "it has a brace without its other half");
    one("-{arch}\"", "\"", "8:8", "two of its pools have the name \"base-2204\"");
    one(", arm = \"armv7l\"", "", "9:21", "map \"gnu\" has nothing for \"arm\"");
    one("arch = \"arm\" }", "arch = \"amr\" }", "11:62", "value \"amr\" is not declared");
    one("arch = \"arm\" }", "arhc = \"arm\" }", "11:55", "axis \"arhc\" is not declared");
    one("\"-dind\"", "\"\"", "10:71", "\"axes\" lists this twice");
    one("dind = [", "name = [", "10:59", "\"name\" cannot be the name of an axis");
    one("arch = \"arm\" }]", "arch = \"arm\" }, {}]", "11:71", "an exclusion must name an axis");
    one("\"common\"", "\"comon\"", "7:7", "template \"comon\" is not declared");
    // What is a pool's own key is read as one, and said once for all pools.
    let pool = "pool \"base-2204-amd64\": unknown key \"labls\"";
    spoilt("labels =", "labls =", &[&format!("9:1 {pool}")]);
    let max = MATRIX.replace("maps.", "max = 0\nmaps.");
    let what = "12:7 pool \"base-2204-amd64\": \"max\" must be from 1 to 4294967295";
    check(&[COMMON, &max].concat(), &[what]);
}

#[test]
fn a_matrix_of_a_million_is_one_problem() {
    let values: Vec<_> = (0..1000).map(|n| format!("\"v{n}\"")).collect();
    let axis = format!("[{}]", values.join(","));
    let text = format!(
        "[pool_matrix.m]\nname = \"{{a}}{{b}}\"\nlabels = [\"x\"]\naxes = {{ a = {axis}, b = {axis} }}\n"
    );
    check(&text, &["4:8 pool_matrix \"m\": it makes 1000000 pools; at most 1000 are allowed"]);
    let all = MATRIX.replace(
        "\"torch\", \"tensorflow\", \"tvm\"], arch = \"arm\"",
        "\"base\", \"torch\", \"tensorflow\", \"tvm\"]",
    );
    check(&[COMMON, &all].concat(), &["11:11 pool_matrix \"vaccel\": it leaves no pool"]);
}

#[test]
fn a_made_pool_and_a_written_one_may_not_have_one_name() {
    let pool = "[pool.base-2204-arm]\nuse = \"common\"\nlabels = [\"x\"]\n";
    check(&[COMMON, MATRIX, pool].concat(), &["8:8 pool \"base-2204-arm\" is declared twice"]);
}

#[test]
fn braces_that_are_meant_are_written_twice() {
    let text = "[pool_matrix.m]\nuse = \"common\"\nname = \"{a}\"\nlabels = [\"{{{a}}}\"]\naxes.a = [\"x\"]\n";
    assert_eq!(good(&[COMMON, text].concat())[0].labels.to_string(), "[{x}]");
}

#[test]
fn places_are_those_of_the_right_file() {
    let broken = parse(&[
        Source { name: "one.toml", text: BASE },
        Source { name: "two.toml", text: "[pool.a]\nlabels = \n" },
        Source { name: "three.toml", text: "[pool.b]\nlabls = [\"a\"]\n" },
    ]);
    let problems = broken.unwrap_err();
    let said: Vec<_> =
        problems.shown().iter().map(|p| (p.file.as_str(), p.line, p.line_text.as_str())).collect();
    assert_eq!(said, [("two.toml", 2, "labels = "), ("three.toml", 2, "labls = [\"a\"]")]);
    assert_eq!(BASE.lines().count(), LINES);
}
