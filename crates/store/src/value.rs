//! What a column holds, the same for every database: a whole number, a text or bytes, or nothing.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;

use remuda_core::Timestamp;

use crate::wire::Unreadable;

/// A statement of [`crate::sql`] and its parameters, in their order.
pub(crate) type Statement<'a> = (&'a str, Vec<Value<'a>>);

/// A parameter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value<'a> {
    Null,
    Int(i64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
}

impl Value<'_> {
    /// How much room it takes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Null | Self::Int(_) => size_of::<i64>(),
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<i32> for Value<'_> {
    fn from(number: i32) -> Self {
        Self::Int(number.into())
    }
}

/// Kept by its bits: a column holds no more than 63 of them and a sign.
impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Int(number.cast_signed())
    }
}

impl From<bool> for Value<'_> {
    fn from(yes: bool) -> Self {
        Self::Int(yes.into())
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(at: Timestamp) -> Self {
        Self::Int(at.as_millis())
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl<'a> From<&'a Arc<str>> for Value<'a> {
    fn from(text: &'a Arc<str>) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The parameters of a statement.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$($crate::value::Value::from($value)),*] };
}
pub(crate) use values;

/// Why a row is not one that we would have written.
#[derive(Debug, thiserror::Error)]
#[error("column {column}: {why}")]
pub(crate) struct Misread {
    column: String,
    why: Unreadable,
}

impl Misread {
    pub(crate) fn new(column: &str, why: impl Into<Unreadable>) -> Self {
        Self { column: column.into(), why: why.into() }
    }
}

/// A row that was found, by the names of its columns.
pub(crate) trait Cells {
    /// A whole number, or nothing.
    fn int(&self, column: &str) -> Result<Option<i64>, Misread>;
    /// A text, or nothing.
    fn text(&self, column: &str) -> Result<Option<Cow<'_, str>>, Misread>;
    /// Bytes, or nothing.
    fn bytes(&self, column: &str) -> Result<Option<&[u8]>, Misread>;
}

/// What reading a column can fail with.
pub(crate) fn misread<E>(column: &str) -> impl FnOnce(E) -> Misread
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    move |error| Misread::new(column, error)
}
