//! Listing and removing registrations.

use http::Method;
use remuda_core::observation::{Cause, RunnerSeen};
use remuda_forge::{Forge, ForgeError, Removal};

use super::fake::{Fake, Fault, World};
use super::{name, scope};

#[tokio::test]
async fn a_listing_has_every_page() {
    for linkless in [false, true] {
        for count in [0, 1, 99, 100, 101, 200, 250] {
            let mut world = World::acme();
            world.linkless = linkless;
            let ids: Vec<u64> =
                (0..count).map(|n| world.add_runner("orgs/acme", &format!("r-{n}"))).collect();
            let fake = Fake::start(world).await;
            let all = fake.client().runners(&scope("org:acme")).await.unwrap();
            assert_eq!(all.iter().map(|runner| runner.id).collect::<Vec<_>>(), ids);
        }
    }
}

#[tokio::test]
async fn a_runner_is_seen_as_it_is_and_one_without_a_proper_name_is_not_ours() {
    let mut world = World::acme();
    let id = world.add_runner("orgs/acme", "rvv-1");
    world.add_runner("orgs/acme", "evil\u{7}");
    let other = world.add_runner("orgs/acme", "rvv-2");
    let runners = world.runners.get_mut("orgs/acme").unwrap();
    runners[0].busy = true;
    runners[2].online = false;
    let fake = Fake::start(world).await;
    let all = fake.client().runners(&scope("org:acme")).await.unwrap();
    let expected = [
        RunnerSeen { id, name: name("rvv-1"), online: true, busy: true },
        RunnerSeen { id: other, name: name("rvv-2"), online: false, busy: false },
    ];
    assert_eq!(all, expected);
}

#[tokio::test]
async fn a_listing_that_is_too_long_is_an_error_and_not_cut() {
    let mut world = World::acme();
    for n in 0..301 {
        world.add_runner("orgs/acme", &format!("r-{n}"));
    }
    let fake = Fake::start(world).await;
    let error = fake.wary(&Fault::Endless).runners(&scope("org:acme")).await.unwrap_err();
    assert!(matches!(error, ForgeError::TooLong { max: 3, .. }), "{error}");
    assert_eq!(error.cause(), Cause::Invalid);
}

#[tokio::test]
async fn an_unchanged_listing_costs_no_budget() {
    let mut world = World::acme();
    world.budget = Some(100);
    for n in 0..150 {
        world.add_runner("orgs/acme", &format!("r-{n}"));
    }
    let fake = Fake::start(world).await;
    let github = fake.client();
    let first = github.runners(&scope("org:acme")).await.unwrap();
    let left = fake.world().budget;
    let second = github.runners(&scope("org:acme")).await.unwrap();
    assert_eq!((second, fake.world().budget), (first, left));

    fake.world().add_runner("orgs/acme", "r-new");
    assert_eq!(github.runners(&scope("org:acme")).await.unwrap().len(), 151);
    assert!(fake.world().budget < left);
}

#[tokio::test]
async fn a_registration_is_removed_by_its_id_or_by_its_name() {
    for unfiltered in [false, true] {
        let mut world = World { unfiltered, ..World::acme() };
        world.add_runner("orgs/acme", "rvv-22");
        let id = world.add_runner("orgs/acme", "rvv-1");
        world.add_runner("orgs/acme", "rvv-2");
        let fake = Fake::start(world).await;
        let github = fake.client();
        let acme = scope("org:acme");
        assert_eq!(github.deregister(&acme, &name("rvv-1"), Some(id)).await, Ok(Removal::Removed));
        assert_eq!(github.deregister(&acme, &name("rvv-2"), None).await, Ok(Removal::Removed));
        let world = fake.world();
        let [left] = world.runners["orgs/acme"].as_slice() else { panic!() };
        assert_eq!(left.name, "rvv-22");
    }
}

#[tokio::test]
async fn a_runner_with_a_job_is_kept() {
    let mut world = World::acme();
    let id = world.add_runner("orgs/acme", "rvv-1");
    world.runners.get_mut("orgs/acme").unwrap()[0].busy = true;
    let fake = Fake::start(world).await;
    let github = fake.client();
    let acme = scope("org:acme");
    assert_eq!(github.deregister(&acme, &name("rvv-1"), Some(id)).await, Ok(Removal::Busy));
    assert_eq!(github.deregister(&acme, &name("rvv-1"), None).await, Ok(Removal::Busy));
    assert_eq!(fake.world().runners["orgs/acme"].len(), 1);
}

#[tokio::test]
async fn a_registration_that_is_not_there_is_removed() {
    let fake = Fake::start(World::acme()).await;
    let github = fake.client();
    let acme = scope("org:acme");
    assert_eq!(github.deregister(&acme, &name("rvv-1"), Some(7)).await, Ok(Removal::Removed));
    assert_eq!(github.deregister(&acme, &name("rvv-1"), None).await, Ok(Removal::Removed));
}

#[tokio::test]
async fn a_registration_whose_id_was_never_learned_goes_with_its_name() {
    let mut world = World::acme();
    world.add_runner("orgs/acme", "rvv-1");
    let fake = Fake::start(world).await;
    let github = fake.client();
    let removal = github.deregister(&scope("org:acme"), &name("rvv-1"), Some(7)).await;
    assert_eq!(removal, Ok(Removal::Removed));
    assert!(fake.world().runners["orgs/acme"].is_empty());
}

#[tokio::test]
async fn a_404_from_somebody_who_may_not_look_proves_nothing() {
    let mut world = World::acme();
    let id = world.add_runner("orgs/acme", "rvv-1");
    let fake = Fake::start(world).await;
    let not_found = Fault::Answer(404, &[], r#"{"message": "Not Found"}"#);
    fake.world().fail(Method::DELETE, "", not_found.clone());
    fake.world().fail(Method::GET, "/actions/runners", not_found.clone());
    let github = fake.client();
    let acme = scope("org:acme");
    let error = github.deregister(&acme, &name("rvv-1"), Some(id)).await.unwrap_err();
    assert_eq!(error.cause(), Cause::Invalid, "{error}");

    // Nor does one for a runner that is listed.
    fake.world().fail(Method::DELETE, "", not_found.clone());
    fake.world().fail(Method::DELETE, "", not_found);
    let error = github.deregister(&acme, &name("rvv-1"), Some(id)).await.unwrap_err();
    assert_eq!(error.cause(), Cause::Transient, "{error}");
    assert_eq!(fake.world().runners["orgs/acme"].len(), 1);
}

#[tokio::test]
async fn another_422_is_not_a_job() {
    let mut world = World::acme();
    let id = world.add_runner("orgs/acme", "rvv-1");
    world.fail(Method::DELETE, "", Fault::Answer(422, &[], r#"{"message": "Validation Failed"}"#));
    let fake = Fake::start(world).await;
    let acme = scope("org:acme");
    let error = fake.client().deregister(&acme, &name("rvv-1"), Some(id)).await.unwrap_err();
    assert_eq!(error.cause(), Cause::Invalid, "{error}");
}

#[tokio::test]
async fn a_removal_without_an_answer_may_be_asked_again() {
    for fault in [Fault::DoneBut(502, ""), Fault::Hang, Fault::DoneBut(500, "<html>")] {
        let mut world = World::acme();
        let id = world.add_runner("orgs/acme", "rvv-1");
        world.fail(Method::DELETE, "", fault.clone());
        let fake = Fake::start(world).await;
        let github = fake.wary(&fault);
        let acme = scope("org:acme");
        let error = github.deregister(&acme, &name("rvv-1"), Some(id)).await.unwrap_err();
        assert_eq!(error.cause(), Cause::Transient, "{error}");
        let again = github.deregister(&acme, &name("rvv-1"), Some(id)).await;
        assert_eq!(again, Ok(Removal::Removed));
    }
}
