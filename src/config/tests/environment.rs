//! Environment and flags: what wins, and how what is wrong is named.

use super::*;

#[test]
fn later_sources_win_key_by_key() {
    let home = Home::with("name = \"file\"\n[gateway]\nhttp = \"127.0.0.1:1\"\npage_size = 1");
    let sources = Sources {
        environment: variables([
            ("TOOLMESH_GATEWAY__HTTP", "127.0.0.1:2"),
            ("TOOLMESH_GATEWAY__PAGE_SIZE", "2"),
            ("OTHER_GATEWAY__HTTP", "no"),
        ]),
        flags: vec![flag("--http", "gateway.http", "127.0.0.1:3")],
        ..home.sources()
    };
    let config = load(&sources).unwrap().config;
    assert_eq!(config.name.unwrap().as_str(), "file");
    assert_eq!(config.gateway.page_size, 2);
    assert_eq!(config.gateway.http.port(), 3);
}

#[test]
fn a_variable_is_a_string_where_one_fits_and_toml_where_not() {
    let home = Home::with("[upstream.Fs]\ncommand = \"x\"");
    let sources = Sources {
        environment: variables([
            ("TOOLMESH_NAME", "123"),
            ("TOOLMESH_GATEWAY__REQUIRE_TOKEN", "true"),
            ("TOOLMESH_GATEWAY__ALLOWED_HOSTS", "[\"a.example\"]"),
            ("TOOLMESH_GATEWAY__EXPOSURE", "search"),
            ("TOOLMESH_UPSTREAM__Fs__ENV__Some_KEY", "value"),
            ("TOOLMESH_ROUTE", "[{ tools = \"*\", runtime = \"upstream:Fs\" }]"),
        ]),
        ..home.sources()
    };
    let config = load(&sources).unwrap().config;
    assert_eq!(config.name.unwrap().as_str(), "123");
    assert!(config.gateway.require_token);
    assert_eq!(config.gateway.allowed_hosts, ["a.example"]);
    assert_eq!(config.gateway.exposure, Exposure::Search);
    assert_eq!(config.routes.len(), 1);
    let upstream = config.upstreams.into_values().next().unwrap();
    let Transport::Stdio(stdio) = upstream.transport else { unreachable!() };
    assert_eq!(stdio.env.get("Some_KEY"), Some(&Secret::Plain("value".to_owned())));
}

#[test]
fn a_wrong_variable_is_named() {
    for (name, value, expected) in [
        (
            "TOOLMESH_FOO",
            "",
            "no such key of the configuration; unset it, or see `toolmesh config schema`",
        ),
        (
            "TOOLMESH_GATEWAY_HTTP",
            "",
            "no such key of the configuration; did you mean TOOLMESH_GATEWAY__HTTP?",
        ),
        (
            "TOOLMESH_GATEWAY__HTTPS",
            "",
            "no such key of the configuration; did you mean TOOLMESH_GATEWAY__HTTP?",
        ),
        (
            "TOOLMESH_",
            "",
            "no such key of the configuration; unset it, or see `toolmesh config schema`",
        ),
        (
            "TOOLMESH_GATEWAY__PAGE_SIZE",
            "x",
            "invalid type: string \"x\", expected a whole number from 0",
        ),
        (
            "TOOLMESH_GATEWAY__PAGE_SIZE",
            "-1",
            "invalid value: integer `-1`, expected a whole number from 0",
        ),
        ("TOOLMESH_GATEWAY__PAGE_SIZE", "0", "gateway.page_size: must be 1 to 5000, not 0"),
        (
            "TOOLMESH_GATEWAY__ALLOWED_HOSTS",
            "a",
            "invalid type: string \"a\", expected a list such as [\"a\", \"b\"]",
        ),
        (
            "TOOLMESH_ROUTE",
            "[{ tools = \"*\", runtime = \"x\" }]",
            "route.0.runtime: must be \"local\" or \"upstream:NAME\", not \"x\"",
        ),
        (
            "TOOLMESH_UPSTREAM__x__SHARE",
            "true",
            "upstream.x: needs a command (a program to start), a url (a server that runs) or a peer \
             (a Python peer on the mesh)",
        ),
    ] {
        let home = Home::with("");
        let sources = Sources { environment: variables([(name, value)]), ..home.sources() };
        assert_eq!(home.problems(&sources), format!("{name}: {expected}"));
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStringExt;

    let home = Home::with("");
    let environment = [("TOOLMESH_NAME".to_owned(), OsString::from_vec(vec![0xff]))].into();
    let sources = Sources { environment, ..home.sources() };
    assert_eq!(home.problems(&sources), "TOOLMESH_NAME: not UTF-8");
}

#[test]
fn a_wrong_flag_is_named() {
    let home = Home::with("");
    for (value, expected) in [
        ("no", "--http: gateway.http: \"no\" is not IP:PORT, such as 127.0.0.1:7332 or [::1]:7332"),
        ("", "--http: gateway.http: \"\" is not IP:PORT, such as 127.0.0.1:7332 or [::1]:7332"),
    ] {
        let flags = vec![flag("--http", "gateway.http", value)];
        assert_eq!(home.problems(&Sources { flags, ..home.sources() }), expected);
    }
    let flags = vec![flag("--page-size", "gateway.page_size", "x")];
    let expected = "--page-size: invalid type: string \"x\", expected a whole number from 0";
    assert_eq!(home.problems(&Sources { flags, ..home.sources() }), expected);
}

#[test]
fn variables_that_are_no_keys_are_left_alone() {
    let home = Home::with("");
    let environment = variables([
        ("TOOLMESH_URL", "x"),
        ("TOOLMESH_TOKEN", "x"),
        ("TOOLMESH_LOG", "x"),
        ("TOOLMESH_CONFIG", ""),
        ("TOOLMESH_DATA", ""),
    ]);
    load(&Sources { environment, ..home.sources() }).unwrap();
}

#[test]
fn the_file_and_the_data_directory_are_searched_in_order() {
    let home = Home::with("name = \"home\"");
    let other = home.0.path().join("other.toml");
    std::fs::write(&other, "name = \"other\"").unwrap();
    let name = |sources: &Sources| load(sources).unwrap().config.name.unwrap().to_string();

    let path = |path: &Path| path.as_os_str().to_owned();
    let mut sources = Sources::default();
    assert!(load(&sources).unwrap_err().to_string().contains("--data DIR"));
    sources.platform_data = Some(home.0.path().to_owned());
    assert_eq!(name(&sources), "home");
    sources.environment.insert("TOOLMESH_CONFIG".to_owned(), path(&other));
    assert_eq!(name(&sources), "other");
    sources.config = Some(home.file());
    assert_eq!(name(&sources), "home");

    let data = |sources: &Sources| sources.data_directory().unwrap();
    sources.environment.insert("TOOLMESH_DATA".to_owned(), "/from/variable".into());
    assert_eq!(data(&sources), Path::new("/from/variable"));
    sources.data = Some("/from/flag".into());
    assert_eq!(data(&sources), Path::new("/from/flag"));
}

#[test]
fn no_file_is_a_working_node() {
    let empty = tempfile::tempdir().unwrap();
    let sources = Sources { data: Some(empty.path().join("none")), ..Sources::default() };
    let loaded = load(&sources).unwrap();
    assert_eq!(loaded.file, None);
    assert_eq!(loaded.config, defaults());
    assert!(!empty.path().join("none").is_dir(), "loading changes nothing");
}
