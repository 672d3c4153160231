//! `${{ … }}`: only names, such as `matrix.arch`. No functions, no operators.

/// Replaces every `${{ name }}` in `text` by what `lookup` gives for the name; a name without a
/// value becomes empty, as at GitHub. Text that [`names`] refuses is left as it is.
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, inside, after)) = next(rest) {
        out.push_str(before);
        out.push_str(&lookup(inside).unwrap_or_default());
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The names in `text`, or what in it is not a plain name.
pub(crate) fn names(text: &str) -> Result<Vec<&str>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, inside, after)) = next(rest) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if inside.is_empty() || !inside.chars().all(plain) {
            return Err(format!("the expression `{inside}` is not a plain name"));
        }
        found.push(inside);
        rest = after;
    }
    if rest.contains("${{") {
        return Err("an expression is not closed by `}}`".into());
    }
    Ok(found)
}

fn next(text: &str) -> Option<(&str, &str, &str)> {
    let (before, from) = text.split_once("${{")?;
    let (inside, after) = from.split_once("}}")?;
    Some((before, inside.trim(), after))
}

/// When a step or a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Condition {
    /// Nothing before it failed or was cancelled; the default.
    Success,
    /// Something before it failed.
    Failure,
    /// The job or run is cancelled.
    Cancelled,
    /// Whatever happened.
    Always,
    /// `true` without a status function means success, as at GitHub; `false` is never.
    Never,
}

/// How things stand when a condition is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    Good,
    /// Something needed was skipped; only `always()` goes on.
    Skipped,
    Failed,
    Cancelled,
}

impl Condition {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let inside = text
            .strip_prefix("${{")
            .and_then(|text| text.strip_suffix("}}"))
            .map_or(text, str::trim);
        match inside {
            "success()" | "true" => Some(Self::Success),
            "failure()" => Some(Self::Failure),
            "cancelled()" => Some(Self::Cancelled),
            "always()" => Some(Self::Always),
            "false" => Some(Self::Never),
            _ => None,
        }
    }

    pub(crate) fn holds(self, standing: Standing) -> bool {
        match self {
            Self::Success => standing == Standing::Good,
            Self::Failure => standing == Standing::Failed,
            Self::Cancelled => standing == Standing::Cancelled,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_and_unknown_ones_become_empty() {
        let lookup = |name: &str| (name == "matrix.arch").then(|| "riscv64".to_string());
        assert_eq!(expand("a ${{ matrix.arch }}-${{env.NO}}.", lookup), "a riscv64-.");
        assert_eq!(expand("$HOME ${x}", lookup), "$HOME ${x}");
    }

    #[test]
    fn anything_but_a_name_is_refused() {
        assert_eq!(names("${{ env.A }} ${{ matrix.b-c }}"), Ok(vec!["env.A", "matrix.b-c"]));
        assert!(names("${{ a == b }}").is_err());
        assert!(names("${{ toJSON(x) }}").is_err());
        assert!(names("${{ }}").is_err());
        assert!(names("${{ open").is_err());
    }

    #[test]
    fn conditions_hold_as_at_github() {
        let all = [Standing::Good, Standing::Failed, Standing::Cancelled];
        let when = |text: &str| all.map(|standing| Condition::parse(text).unwrap().holds(standing));
        assert_eq!(when("success()"), [true, false, false]);
        assert_eq!(when("${{ failure() }}"), [false, true, false]);
        assert_eq!(when("cancelled()"), [false, false, true]);
        assert_eq!(when("always()"), [true, true, true]);
        assert_eq!(when("false"), [false, false, false]);
        assert_eq!(Condition::parse("github.ref == 'x'"), None);
    }
}
