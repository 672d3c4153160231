//! Numbers of things, each kind a type of its own, so that a job's is never taken for a runner's.

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

ids! {
    /// An App's number.
    AppId,
    /// An organization's or a user's number.
    OwnerId,
    /// A repository's number.
    RepositoryId,
    /// The number of an App's installation at one owner.
    InstallationId,
    /// A runner group's number; 1 is every organization's default group.
    GroupId,
    /// A runner's number.
    RunnerId,
    /// A workflow run's number.
    RunId,
    /// A job's number.
    JobId,
    /// A webhook's number.
    HookId,
    /// The number of one attempt to deliver a webhook.
    DeliveryId,
}
