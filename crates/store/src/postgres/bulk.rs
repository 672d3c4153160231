//! Many statements of one kind as one. A commit in a flood has thousands, and each of them costs us and the
//! server more than the row that it writes.
//!
//! What a statement is about has the same order among its statements as before; those about different
//! things may change places.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::LazyLock;

use bytes::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::sql;
use crate::value::{Statement, Value};

/// Most rows that one statement writes.
const ROWS_MAX: usize = 1000;

/// How statements of one kind become one.
struct Kind {
    /// The form for many, in which [`GIVEN`] stands for the rows and `p1` for what `?1` is in each.
    many: String,
    /// What it is about: the first so many values, of what is called so. None: of nothing else.
    about: (&'static str, usize),
}

const GIVEN: &str = "{given}";
/// As statements ask for the job by its key, which are its first three parameters.
const OF_JOB: &str = "FROM job WHERE forge = ?1 AND namespace = ?2 AND native = ?3";
/// The rows with the job of each. The subselect has it looked up in the index whatever size the table is
/// thought to have.
const KNOWN: &str = "\
WITH known AS MATERIALIZED (
    SELECT given.*, (SELECT id FROM job WHERE forge = p1 AND namespace = p2 AND native = p3) AS id
    FROM {given}
)";

static KINDS: LazyLock<BTreeMap<&'static str, Kind>> = LazyLock::new(|| {
    let (job, runner, instance) = (("job", 3), ("runner", 1), ("instance", 1));
    let prune_waits = format!(
        "{KNOWN} DELETE FROM wait USING known WHERE wait.job = known.id AND wait.number <= \
         (SELECT max(number) FROM wait AS newest WHERE newest.job = known.id) - p4"
    );
    let kinds = [
        (&**sql::PUT_JOB, inserted(&sql::PUT_JOB), job),
        (&sql::PUT_ATTEMPT, of_known_jobs(&sql::PUT_ATTEMPT), job),
        (sql::FORGET_JOB, updated(sql::FORGET_JOB), job),
        (sql::PUT_WAIT, of_known_jobs(sql::PUT_WAIT), job),
        (sql::PRUNE_WAITS, prune_waits, job),
        (&sql::PUT_RUNNER, inserted(&sql::PUT_RUNNER), runner),
        (&sql::PUT_INSTANCE, inserted(&sql::PUT_INSTANCE), instance),
        (sql::PUT_EVENT, inserted(sql::PUT_EVENT), ("event", 0)),
        (sql::MARK_DELIVERY, updated(sql::MARK_DELIVERY), ("delivery", 1)),
    ];
    kinds.into_iter().map(|(single, many, about)| (single, Kind { many, about })).collect()
});

/// `INSERT` of values, for many.
fn inserted(single: &str) -> String {
    let (into, values) = single.split_once("VALUES (").expect("it inserts values");
    let (_, rest) = values.split_once(')').expect("the values end");
    format!("{into} SELECT * FROM {GIVEN} {rest}")
}

/// `INSERT` of what is selected from a job, for many.
fn of_known_jobs(single: &str) -> String {
    let known = single.replace(OF_JOB, "FROM known AS job WHERE id IS NOT NULL");
    format!("{KNOWN} {}", known.replace('?', "p"))
}

/// `UPDATE`, for many.
fn updated(single: &str) -> String {
    let (set, found) = single.split_once("WHERE").expect("it says which rows");
    format!("{set} FROM {GIVEN} WHERE {found}").replace('?', "p")
}

/// A parameter: a value, or one for each row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Param<'a> {
    One(Value<'a>),
    Many(Vec<Value<'a>>),
}

impl ToSql for Param<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::One(value) => value.to_sql_checked(ty, out),
            Self::Many(values) => values.to_sql_checked(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A statement as it goes to the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    /// The statement for one row, whose parameters have the types of the columns.
    pub(super) single: &'a str,
    /// How it is written for many.
    pub(super) many: Option<&'static str>,
    pub(super) params: Vec<Param<'a>>,
}

/// The form for many of rows with these columns.
pub(super) fn written(many: &str, columns: &[Type]) -> String {
    let numbered = || columns.iter().zip(1..);
    let arrays: Vec<_> = numbered().map(|(of, n)| format!("${n}::{}[]", of.name())).collect();
    let names: Vec<_> = numbered().map(|(_, n)| format!("p{n}")).collect();
    let given = format!("unnest({}) AS given ({})", arrays.join(", "), names.join(", "));
    many.replace(GIVEN, &given)
}

/// Statements of one kind that have not been asked yet.
struct Group<'a> {
    single: &'a str,
    kind: &'static Kind,
    rows: Vec<Vec<Value<'a>>>,
}

impl<'a> Group<'a> {
    fn asked(mut self) -> Asked<'a> {
        if self.rows.len() == 1 {
            return one((self.single, self.rows.remove(0)));
        }
        let mut columns: Vec<Vec<Value<'a>>> = Vec::new();
        for row in self.rows {
            columns.resize_with(row.len(), Vec::new);
            columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        }
        let params = columns.into_iter().map(Param::Many).collect();
        Asked { single: self.single, many: Some(&self.kind.many), params }
    }
}

fn one((single, values): Statement<'_>) -> Asked<'_> {
    Asked { single, many: None, params: values.into_iter().map(Param::One).collect() }
}

/// What has the same effect as these statements, in fewer.
pub(super) fn together<'a>(statements: impl Iterator<Item = Statement<'a>>) -> Vec<Asked<'a>> {
    let (mut asked, mut open) = (Vec::new(), Vec::<Group<'a>>::new());
    // In which open group that was which something is about last.
    let mut last: BTreeMap<(&str, Vec<Value<'a>>), usize> = BTreeMap::new();
    for (single, values) in statements {
        let Some(kind) = KINDS.get(single) else {
            asked.extend(open.drain(..).map(Group::asked));
            last.clear();
            asked.push(one((single, values)));
            continue;
        };
        let (what, keys) = kind.about;
        let about = (what, values[..keys].to_vec());
        let mut place = open.iter().position(|group| group.single == single);
        let would_come_before = |place| keys > 0 && last.get(&about).is_some_and(|at| *at >= place);
        if place.is_some_and(|at| open[at].rows.len() == ROWS_MAX || would_come_before(at)) {
            asked.extend(open.drain(..).map(Group::asked));
            last.clear();
            place = None;
        }
        let place = place.unwrap_or_else(|| {
            open.push(Group { single, kind, rows: Vec::new() });
            open.len() - 1
        });
        open[place].rows.push(values);
        last.insert(about, place);
    }
    asked.extend(open.into_iter().map(Group::asked));
    asked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::values;

    const DRAIN: &str = sql::REMOVE_DRAIN;

    fn about(statement: &'static str, job: u64) -> Statement<'static> {
        (statement, values!["github", "rest", job, 1_i64])
    }

    /// Each statement that is asked, with the jobs it is about.
    #[track_caller]
    fn check(statements: &[(&'static str, u64)], expected: &[(&str, &[u64])]) {
        let statements = statements.iter().map(|(sql, job)| about(sql, *job));
        let asked = together(statements);
        let asked: Vec<_> = asked
            .iter()
            .map(|asked| match &asked.params[2] {
                Param::One(job) => (asked.single, std::slice::from_ref(job)),
                Param::Many(jobs) => (asked.single, &jobs[..]),
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(sql, jobs)| (*sql, jobs.iter().map(|job| Value::from(*job)).collect()))
            .collect::<Vec<(_, Vec<_>)>>();
        let expected: Vec<_> = expected.iter().map(|(sql, jobs)| (*sql, &jobs[..])).collect();
        assert_eq!(asked, expected);
    }

    #[test]
    fn statements_of_a_kind_are_one_and_what_is_about_one_thing_keeps_its_order() {
        let (put, attempt, forget) = (&**sql::PUT_JOB, &**sql::PUT_ATTEMPT, sql::FORGET_JOB);
        check(
            &[(put, 1), (attempt, 1), (put, 2), (attempt, 2)],
            &[(put, &[1, 2]), (attempt, &[1, 2])],
        );
        check(&[(put, 1), (put, 2), (put, 1)], &[(put, &[1, 2]), (put, &[1])]);
        check(
            &[(forget, 3), (put, 1), (forget, 2), (forget, 1), (put, 2)],
            &[(forget, &[3, 2]), (put, &[1]), (forget, &[1]), (put, &[2])],
        );
        check(&[(put, 1), (DRAIN, 2), (put, 3)], &[(put, &[1]), (DRAIN, &[2]), (put, &[3])]);
        check(&[], &[]);
    }

    #[test]
    fn no_statement_writes_more_rows_than_allowed() {
        let many = (0..=2 * ROWS_MAX as u64).map(|job| about(&sql::PUT_JOB, job));
        let rows: Vec<_> = together(many)
            .iter()
            .map(|asked| match &asked.params[0] {
                Param::One(_) => 1,
                Param::Many(values) => values.len(),
            })
            .collect();
        assert_eq!(rows, [ROWS_MAX, ROWS_MAX, 1]);
    }
}
