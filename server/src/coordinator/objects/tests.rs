mod stand_in;

use std::fs;

use axum::http::StatusCode;
use futures::TryStreamExt;
use tempfile::TempDir;

use super::*;
use stand_in::{BUCKET, Mood, StandIn};

fn local(folder: &TempDir) -> (Objects, String) {
    let root = folder.path().to_str().expect("a readable name").to_owned();
    let settings = CoordinatorSettings {
        storage: Storage::Local { path: root.clone() },
        ..CoordinatorSettings::default()
    };
    (Objects::new(&settings), root)
}

fn write(path: &str, content: &str) {
    fs::create_dir_all(FilePath::new(path).parent().expect("a folder")).expect("folders");
    fs::write(path, content).expect("a file");
}

async fn names(objects: &Objects, prefix: &str) -> Vec<String> {
    let files: Vec<ObjectFile> = objects.list(prefix).try_collect().await.expect("a listing");
    let mut names: Vec<_> = files.into_iter().map(|file| file.path).collect();
    names.sort();
    names
}

#[tokio::test]
async fn local_names_are_absolute_and_listings_show_what_is_there() {
    let folder = TempDir::new().expect("a folder");
    let (objects, root) = local(&folder);
    let one = format!("{root}/delta_log/1/2/3/4");
    let two = format!("{root}/delta_log/1/2/33/5");
    write(&one, "12345");
    write(&two, "");
    assert_eq!(names(&objects, &format!("{root}/delta_log")).await, [one.clone(), two]);
    assert_eq!(names(&objects, &format!("{root}/delta_log/1/2/3")).await, [one]);
    assert_eq!(names(&objects, &format!("{root}/insert_log")).await, [""; 0]);
}

#[tokio::test]
async fn a_copy_is_young_and_independent_of_its_original() {
    let folder = TempDir::new().expect("a folder");
    let (objects, root) = local(&folder);
    let (from, to) = (format!("{root}/delta_log/1/2/3/4"), format!("{root}/delta_log/1/2/9/4"));
    write(&from, "rows");
    let old = SystemTime::now() - Duration::from_secs(7200);
    fs::File::open(&from).and_then(|file| file.set_modified(old)).expect("an old file");

    objects.copy(&from, &to).await.expect("a copy");
    objects.copy(&from, &to).await.expect("the copy again");
    let files: Vec<ObjectFile> = objects.list(&root).try_collect().await.expect("a listing");
    let copy = files.iter().find(|file| file.path == to).expect("the copy");
    let age = SystemTime::now().duration_since(copy.modified).unwrap_or_default();
    assert!(age < Duration::from_secs(600), "{age:?}");
    objects.delete(&from).await.expect("a deletion");
    assert_eq!(fs::read_to_string(&to).expect("the copy"), "rows");
    let missing = objects.copy(&from, &to).await.expect_err("no original");
    assert!(matches!(missing, ObjectError::Missing { .. }), "{missing}");
}

#[tokio::test]
async fn what_is_missing_counts_as_deleted_and_empty_folders_go() {
    let folder = TempDir::new().expect("a folder");
    let (objects, root) = local(&folder);
    let path = format!("{root}/insert_log/1/2/3/100/4");
    write(&path, "rows");
    objects.delete(&path).await.expect("a deletion");
    objects.delete(&path).await.expect("a deletion of nothing");
    objects.delete_empty_folders(&path, 2).await;
    assert!(!FilePath::new(&format!("{root}/insert_log/1/2/3")).exists());
    assert!(FilePath::new(&format!("{root}/insert_log/1/2")).exists());
}

#[tokio::test]
async fn a_store_that_cannot_be_says_so_on_every_call() {
    let settings = CoordinatorSettings {
        storage: Storage::Local { path: "data".to_owned() },
        ..CoordinatorSettings::default()
    };
    let objects = Objects::new(&settings);
    let error = objects.delete("files/insert_log/1").await.expect_err("nowhere");
    assert_eq!(error.to_string(), "the object store is not configured: data is no absolute folder");
}

/// Over the stand-in, with a short patience.
fn remote(stand_in: &StandIn, change: impl FnOnce(&mut RemoteStorage)) -> Objects {
    let mut remote = RemoteStorage {
        address: "127.0.0.1".to_owned(),
        port: stand_in.port,
        access_key_id: "key".to_owned(),
        secret_access_key: "secret".to_owned(),
        bucket: BUCKET.to_owned(),
        root_path: "files".to_owned(),
        ..RemoteStorage::default()
    };
    change(&mut remote);
    let settings =
        CoordinatorSettings { storage: Storage::Remote(remote), ..CoordinatorSettings::default() };
    let mut objects = Objects::new(&settings);
    objects.timeout = Duration::from_millis(500);
    objects
}

const ONE: &str = "files/delta_log/1/2/3/4";
const TWO: &str = "files/delta_log/1/2/3/5";

#[tokio::test]
async fn a_remote_store_lists_copies_and_deletes() {
    let stand_in = StandIn::start().await;
    let objects = remote(&stand_in, |_| {});
    stand_in.put(ONE);
    assert_eq!(names(&objects, "files/delta_log").await, [ONE]);
    objects.copy(ONE, TWO).await.expect("a copy");
    objects.delete(ONE).await.expect("a deletion");
    objects.delete(ONE).await.expect("a deletion of nothing");
    assert_eq!(stand_in.keys(), [TWO]);
    let missing = objects.copy(ONE, TWO).await.expect_err("no original");
    assert!(matches!(missing, ObjectError::Missing { .. }), "{missing}");
    assert_eq!(objects.health().failing, None);
}

#[tokio::test]
async fn a_store_that_hangs_or_refuses_is_an_error_until_it_answers_again() {
    let stand_in = StandIn::start().await;
    let objects = remote(&stand_in, |_| {});
    stand_in.put(ONE);
    for mood in [
        Mood::Hangs,
        Mood::Answers(StatusCode::SERVICE_UNAVAILABLE),
        Mood::Answers(StatusCode::FORBIDDEN),
    ] {
        stand_in.is(mood);
        let listed: Result<Vec<ObjectFile>, _> =
            objects.list("files/delta_log").try_collect().await;
        assert!(listed.is_err(), "{mood:?}: no listing is an empty one");
        assert!(objects.probe("files/delta_log").await.is_err(), "{mood:?}");
        assert!(objects.delete(ONE).await.is_err(), "{mood:?}");
        assert!(objects.copy(ONE, TWO).await.is_err(), "{mood:?}");
        let (_, why) = objects.health().failing.expect("it fails");
        match mood {
            Mood::Hangs => assert!(why.contains("no answer about"), "{why}"),
            Mood::Answers(StatusCode::FORBIDDEN) => assert!(why.contains("AccessDenied"), "{why}"),
            Mood::Answers(_) | Mood::Serves | Mood::ListsInPart(_) => {}
        }
        assert_eq!(stand_in.keys(), [ONE]);
        stand_in.is(Mood::Serves);
        objects.probe("files/delta_log").await.expect("it answers again");
        assert_eq!(objects.health().failing, None);
    }
    let [n_ok, n_timeouts, n_failed] = objects.health().counts;
    assert!(n_ok >= 3 && n_timeouts >= 4 && n_failed >= 4, "{n_ok} {n_timeouts} {n_failed}");
}

#[tokio::test]
async fn a_listing_in_part_shows_what_is_there_and_nothing_else() {
    let stand_in = StandIn::start().await;
    let objects = remote(&stand_in, |_| {});
    stand_in.put(ONE);
    stand_in.put(TWO);
    stand_in.is(Mood::ListsInPart(1));
    assert_eq!(names(&objects, "files/delta_log").await, [ONE]);
}

#[tokio::test]
async fn the_time_of_a_store_is_what_its_answers_say() {
    const YEAR_S: u64 = 365 * 86_400;
    let stand_in = StandIn::start().await;
    let objects = remote(&stand_in, |_| {});
    stand_in.put(ONE);
    assert_eq!(objects.store_now(), None, "it has not been asked");
    for ahead_s in [i64::try_from(YEAR_S).expect("a year"), -86_400] {
        stand_in.is_ahead(ahead_s);
        let files: Vec<ObjectFile> =
            objects.list("files/delta_log").try_collect().await.expect("a listing");
        let store_now = objects.store_now().expect("it was asked");
        let age = store_now.duration_since(files[0].modified).unwrap_or_default();
        assert!(age < Duration::from_secs(600), "written just now by that clock: {age:?}");
        let ours = SystemTime::now();
        let apart = store_now.duration_since(ours).unwrap_or_else(|error| error.duration());
        assert!(apart.as_secs().abs_diff(ahead_s.unsigned_abs()) < 600, "{apart:?}");
    }
}

#[tokio::test]
async fn the_role_of_a_machine_signs_calls() {
    let stand_in = StandIn::start().await;
    stand_in.put(ONE);
    // The service that gives out roles speaks HTTP without TLS, beside a store of either kind.
    let endpoint = format!("http://127.0.0.1:{}", stand_in.port);
    let objects = remote(&stand_in, |remote| {
        remote.use_iam = true;
        remote.iam_endpoint = endpoint;
    });
    assert_eq!(names(&objects, "files/delta_log").await, [ONE]);
    assert_eq!(stand_in.tokens(), ["of-the-role"]);
}
