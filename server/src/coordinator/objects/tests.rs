use std::fs;

use futures::TryStreamExt;
use tempfile::TempDir;

use super::*;

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
