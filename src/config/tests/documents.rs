//! Every example that users see is loaded, and every key is explained to them.

use super::*;

/// Returns the text of a file of the project.
fn project(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Returns the paths of all keys.
fn keys() -> Vec<String> {
    let mut paths = Vec::new();
    keys::Keys::of_file().visit(&mut Vec::new(), &mut |path| paths.push(path.join(".")));
    paths
}

#[test]
fn every_file_in_config_loads() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let config = entry.unwrap().path();
        if config.extension().is_some_and(|extension| extension == "toml") {
            let data = Some("unused".into());
            load(&Sources { config: Some(config), data, ..Sources::default() }).unwrap();
            count += 1;
        }
    }
    assert!(count >= 2);
}

#[test]
fn the_default_file_has_every_key_and_changes_nothing() {
    let text = project("config/default.toml");
    assert_eq!(load_text(&text), defaults());
    for path in keys() {
        let key = path.split('.').rfind(|part| *part != "NAME").unwrap();
        let starts = [format!("{key} = "), format!("# {key} = "), format!("# [[{key}]]")];
        let has = |line: &str| starts.iter().any(|start| line.starts_with(start));
        assert!(text.lines().any(has), "{path} is missing");
    }
}

#[test]
fn every_block_of_the_documentation_loads() {
    let pages = ["README.md", "docs/configuration.md", "docs/mesh.md", "docs/tasks.md"];
    let text = pages.map(project).concat();
    let blocks: Vec<_> =
        text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 18);
    for block in blocks {
        load_text(block);
    }
}

#[test]
fn the_documentation_explains_every_key() {
    let text = project("docs/configuration.md");
    for path in keys() {
        let key = path.split('.').rfind(|part| *part != "NAME").unwrap();
        let starts = [format!("| `{key}` |"), format!("### `[[{key}]]`")];
        let has = |line: &str| starts.iter().any(|start| line.starts_with(start));
        assert!(text.lines().any(has), "{path} is missing");
    }
}

#[test]
fn the_example_has_three_upstreams() {
    let config = load_text(&project("config/upstreams.example.toml"));
    let names: Vec<_> = config.upstreams.keys().map(UpstreamName::as_str).collect();
    assert_eq!(names, ["files", "tickets", "time"]);
}

/// Damages good files at random and loads them: every outcome is fine but a panic.
#[test]
fn damaged_files_never_panic() {
    // A fixed multiplicative generator: the same files every time, no state from outside.
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut below = |bound: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % bound
    };
    let good = [
        project("config/upstreams.example.toml"),
        project("config/default.toml").replace("\n# ", "\n"),
        "[[route]]\ntools = \"[a-b]{c,d}\"\nruntime = \"local\"\n[limits]\nsessions = 1".to_owned(),
    ];
    for _ in 0..200 {
        let mut bytes = good[below(good.len())].clone().into_bytes();
        for _ in 0..=below(4) {
            let at = below(bytes.len());
            let end = (at + below(16)).min(bytes.len());
            match below(3) {
                0 => drop(bytes.drain(at..end)),
                1 => bytes.extend_from_within(at..end),
                _ => bytes[at] = u8::try_from(below(256)).unwrap(),
            }
        }
        let home = Home::with(&bytes);
        if let Ok(loaded) = load(&home.sources()) {
            show::to_toml(&loaded.config, &loaded.layers).unwrap();
        }
    }
}
