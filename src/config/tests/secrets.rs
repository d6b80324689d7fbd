//! Secrets: read when asked for, printed never.

use super::*;

/// Stands for a value that must not appear anywhere.
const CONFIDENTIAL: &str = "hunter2";

fn reference(file: PathBuf) -> Secret {
    Secret::File(FileReference { file })
}

#[test]
fn references_are_resolved_when_asked() {
    let none = |_: &str| None;
    assert_eq!(Secret::Plain("a".to_owned()).resolve(none).unwrap(), "a");

    let variable = Secret::Env(EnvReference { env: "KEY".to_owned() });
    let environment = |name: &str| (name == "KEY").then(|| CONFIDENTIAL.to_owned());
    assert_eq!(variable.resolve(environment).unwrap(), CONFIDENTIAL);
    assert!(variable.resolve(none).unwrap_err().to_string().starts_with("variable KEY is not set"));

    let home = Home::with(format!("{CONFIDENTIAL}\r\n"));
    assert_eq!(reference(home.file()).resolve(none).unwrap(), CONFIDENTIAL);
    let missing = reference(home.0.path().join("none")).resolve(none);
    assert!(matches!(missing, Err(SecretError::Unreadable { .. })));
}

#[test]
fn a_secret_file_is_read_up_to_its_limit_and_not_beyond() {
    let limit = 64 * 1024;
    let home = Home::with("x".repeat(limit));
    assert_eq!(reference(home.file()).resolve(|_| None).unwrap().len(), limit);
    let home = Home::with("x".repeat(limit + 1));
    let oversized = reference(home.file()).resolve(|_| None);
    assert!(matches!(oversized, Err(SecretError::Oversized(_))));
}

#[test]
fn debug_and_show_hide_what_was_written_in_the_clear() {
    let home = Home::with(format!(
        "[upstream.a]\nurl = \"http://y/?key={CONFIDENTIAL}\"\n\
         headers = {{ A = \"{CONFIDENTIAL}\", B = {{ env = \"VAR\" }} }}\n\
         [upstream.b]\ncommand = \"x\"\nenv.C = \"{CONFIDENTIAL}\"\n"
    ));
    let loaded = load(&home.sources()).unwrap();
    let shown = show::to_toml(&loaded.config, &loaded.layers).unwrap();
    assert!(!shown.contains(CONFIDENTIAL), "{shown}");
    assert!(shown.contains("a = \"(redacted)\""), "{shown}");
    assert!(shown.contains("b = { env = \"VAR\" }"), "{shown}");
    assert!(!format!("{loaded:?}").contains(CONFIDENTIAL));
}

#[test]
fn errors_hide_what_was_written_in_the_clear() {
    for text in [
        format!("upstream.a.headers = \"{CONFIDENTIAL}\""),
        format!("upstream.a.env = [\"{CONFIDENTIAL}\"]"),
        format!("upstream.a.headers.A = {{ file = \"f\", env = \"{CONFIDENTIAL}\" }}"),
        format!("upstream.a.headers.A = \"{CONFIDENTIAL}"),
        format!("upstream.a.headers.A = \"{CONFIDENTIAL}\" \"{CONFIDENTIAL}\""),
        format!("upstream.a.url = \"https://u:{CONFIDENTIAL}@y\""),
        format!("upstream.a.url = \"http://y\"\nupstream.a.headers.A = \"{CONFIDENTIAL}\\u0007\""),
    ] {
        let home = Home::with(&text);
        let problems = home.problems(&home.sources());
        assert!(!problems.contains(CONFIDENTIAL), "{problems}");
    }
}
