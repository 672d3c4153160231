//! Exit codes, the same for every verb.

use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, and nothing to say against it.
    Done,
    /// 1: it could not be done, or what was checked is not in order.
    Failed,
    /// 2: there are changes to make (`plan`, `drift`).
    Changes,
    /// 64: the command line cannot be understood (`EX_USAGE` of sysexits).
    Usage,
    /// 66: what was named does not exist (`EX_NOINPUT`).
    NotFound,
    /// 69: no server answers (`EX_UNAVAILABLE`).
    Unreachable,
    /// 75: the server that was asked stands by for another one, which it names (`EX_TEMPFAIL`).
    Standby,
    /// 130: ended by Ctrl-C, everything cleaned up.
    Interrupted,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Changes => 2,
            Self::Usage => 64,
            Self::NotFound => 66,
            Self::Unreachable => 69,
            Self::Standby => 75,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
