//! `toolmesh store`, on the data directory of a node that does not run.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::harness::{Node, document, err, out, run};

#[test]
fn what_a_node_keeps_is_checked_exported_and_put_elsewhere() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_str().unwrap();
    let file = data.path().join("backup.jsonl");
    let file = file.to_str().unwrap();
    let missing = run(&["store", "verify", "--data", path]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(err(&missing).contains("there is no store in"), "{}", err(&missing));

    let made = document(&run(&["token", "create", "ci", "--data", path, "--json"]));
    let found = document(&run(&["store", "verify", "--data", path, "--json"]));
    assert_eq!((&found["well"], &found["kinds"]["token"]), (&true.into(), &1.into()), "{found}");
    let said = run(&["store", "export", file, "--data", path]);
    assert!(said.status.success() && out(&said).contains("only you can read it (0600)"));
    assert!(err(&said).is_empty(), "no bar where there is no terminal: {}", err(&said));
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(err(&run(&["store", "export", file, "--data", path])).contains("choose another name"));

    let refused = run(&["store", "import", file, "--data", path]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("--replace"), "{}", err(&refused));
    let replaced =
        document(&run(&["store", "import", file, "--replace", "--data", path, "--json"]));
    assert_eq!(replaced["records"], 1);
    assert!(replaced["replaced"].as_str().unwrap().contains("store.replaced-"));

    let elsewhere = tempfile::tempdir().unwrap();
    let other = elsewhere.path().to_str().unwrap();
    let filled = document(&run(&["store", "import", file, "--data", other, "--json"]));
    assert_eq!((&filled["records"], &filled["replaced"]), (&1.into(), &serde_json::Value::Null));
    let listed = document(&run(&["token", "list", "--data", other, "--json"]));
    assert_eq!(listed["tokens"][0]["id"], made["id"]);
}

#[test]
fn what_is_wrong_is_said_with_what_to_do_next() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_str().unwrap();
    let file = data.path().join("backup.jsonl");
    let file = file.to_str().unwrap();
    run(&["token", "create", "ci", "--data", path]);
    run(&["store", "export", file, "--data", path]);
    fs::write(data.path().join("store/conf"), [255; 40]).unwrap();
    let found = run(&["store", "verify", "--data", path]);
    assert_eq!(found.status.code(), Some(1));
    assert!(out(&found).contains("next: "), "{}", out(&found));
    let found = run(&["store", "verify", "--data", path, "--json"]);
    assert_eq!(found.status.code(), Some(1));
    assert!(document(&found)["next"].as_str().unwrap().contains("toolmesh store import"));

    let text = fs::read_to_string(file).unwrap();
    fs::write(file, &text[..text.len() - 20]).unwrap();
    let refused = run(&["store", "import", file, "--replace", "--data", path, "--json"]);
    assert_eq!(refused.status.code(), Some(1));
    let error = &document(&refused)["error"];
    assert!(error["message"].as_str().unwrap().contains("nothing was imported"), "{error}");
    fs::write(file, text).unwrap();
    assert!(run(&["store", "import", file, "--replace", "--data", path]).status.success());
    assert!(run(&["store", "verify", "--data", path]).status.success());
}

#[test]
fn the_store_of_a_running_node_is_left_alone() {
    let node = Node::start();
    for command in [&["store", "verify"][..], &["store", "export", "/nowhere/backup.jsonl"]] {
        let refused = node.run(command);
        assert_eq!(refused.status.code(), Some(1), "{command:?}");
        assert!(err(&refused).contains("a node uses this data directory"), "{}", err(&refused));
    }
}
