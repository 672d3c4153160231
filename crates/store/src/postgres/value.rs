//! Columns of `PostgreSQL` to and from our values.
//!
//! A text there cannot hold the character NUL. It is kept as two others, the first of which is from
//! Unicode's private use area and is itself kept as two, so that every text comes back as it was.

use std::borrow::Cow;
use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::Row;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::value::{Cells, Misread, Value, misread};

const MARK: char = '\u{e000}';

/// A text as it is kept.
pub(super) fn stored(text: &str) -> Cow<'_, str> {
    if text.contains(['\0', MARK]) {
        Cow::Owned(text.replace(MARK, "\u{e000}1").replace('\0', "\u{e000}0"))
    } else {
        Cow::Borrowed(text)
    }
}

/// A text as it was before it was kept.
fn restored(text: &str) -> Cow<'_, str> {
    if text.contains(MARK) {
        Cow::Owned(text.replace("\u{e000}0", "\0").replace("\u{e000}1", "\u{e000}"))
    } else {
        Cow::Borrowed(text)
    }
}

impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(number) => number.to_sql_checked(ty, out),
            Self::Text(text) => stored(text).to_sql_checked(ty, out),
            Self::Bytes(bytes) => bytes.as_ref().to_sql_checked(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        [Type::INT8, Type::TEXT, Type::BYTEA].contains(ty)
    }

    to_sql_checked!();
}

impl Cells for Row {
    fn int(&self, column: &str) -> Result<Option<i64>, Misread> {
        self.try_get(column).map_err(misread(column))
    }

    fn text(&self, column: &str) -> Result<Option<Cow<'_, str>>, Misread> {
        let text: Option<&str> = self.try_get(column).map_err(misread(column))?;
        Ok(text.map(restored))
    }

    fn bytes(&self, column: &str) -> Result<Option<&[u8]>, Misread> {
        self.try_get(column).map_err(misread(column))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_text_comes_back_as_it_was(parts in proptest::collection::vec(
            prop_oneof![Just("\0"), Just("\u{e000}"), Just("0"), Just("1"), Just("x")], 0..12,
        )) {
            let text = parts.concat();
            let kept = stored(&text).into_owned();
            prop_assert!(!kept.contains('\0'));
            prop_assert_eq!(restored(&kept), text);
        }
    }
}
