//! The queue, the worker and commands: what files mean, and the words of what is wrong with them.

use std::time::Duration;

use super::*;

/// Files that are wrong, and what is said about them.
const BAD: &[(&str, &str)] = &[
    (
        "[queue]\ntasks = 0\npayload_bytes = 1023\nresult_bytes = 4194305\nlease_s = 4\n\
         max_attempts = 1001\nretention_s = 59\ndead_retention_s = 31536001\ntask_after_s = 3601",
        "6:1: queue.max_attempts: must be 1 to 1000, not 1001\n\
         2:1: queue.tasks: must be 1 to 10000000, not 0\n\
         3:1: queue.payload_bytes: must be 1024 to 4194304, not 1023\n\
         4:1: queue.result_bytes: must be 1024 to 4194304, not 4194305\n\
         5:1: queue.lease_s: must be 5 to 300, not 4\n\
         7:1: queue.retention_s: must be 60 to 2592000, not 59\n\
         8:1: queue.dead_retention_s: must be 60 to 31536000, not 31536001\n\
         9:1: queue.task_after_s: must be 1 to 3600, not 3601",
    ),
    (
        "[queue]\nas_task = [\"render__*\", \"[\"]\nrunning = { \"tool.call\" = 0, \"-x\" = 10001 }",
        "2:25: queue.as_task.1: unclosed character class; missing ']'\n\
         3:30: queue.running.-x: a type of tasks must be 1 to 128 of A-Z, a-z, 0-9, ., _, : and -, \
         and start with a letter or digit\n\
         3:30: queue.running.-x: must be 1 to 10000, not 10001\n\
         3:13: queue.running.tool.call: must be 1 to 10000, not 0",
    ),
    ("[queue]\nlease = 3", "2:1: queue.lease: unknown key; did you mean `lease_s`?"),
    (
        "[queue.running]\nrender = \"two\"",
        "2:10: queue.running.render: invalid type: string \"two\", expected a whole number from 0",
    ),
    (
        "[queue]\nclaim_order = \"hash\"",
        "2:15: queue.claim_order: unknown variant `hash`, expected `fair` or `python`",
    ),
    (
        "[worker]\nslots = 1025\nlabels = [\"gpu\", \"a b\"]",
        "2:1: worker.slots: must be 0 to 1024, not 1025\n\
         3:18: worker.labels.1: \"a b\" is not 1 to 64 of A-Z, a-z, 0-9, ., _, = and -",
    ),
    (
        "[command.\"a.b\"]\nprogram = \"x\"\n[command.c]\nargs = []\n[command.d]\nprogram = \"\"",
        "1:10: command.a.b: a command's name must be 1 to 32 of A-Z, a-z, 0-9, _ and -\n\
         3:10: command.c: needs a program\n\
         6:1: command.d.program: must be the name or path of a program",
    ),
    (
        "[command.a]\nprogram = \"x\"\nargs = [\"\\u0000\"]\nenv = { \"A=B\" = \"\" }\n\
         inherit_env = [\"\"]\ntimeout_s = 86401\noutput_bytes = 4194305",
        "3:1: command.a.args: must not hold a zero character\n\
         5:1: command.a.inherit_env: must be names of variables\n\
         4:9: command.a.env.A=B: is not the name of a variable\n\
         6:1: command.a.timeout_s: must be 1 to 86400, not 86401\n\
         7:1: command.a.output_bytes: must be 1024 to 4194304, not 4194305",
    ),
    ("[command.a]\nprogam = \"x\"", "2:1: command.a.progam: unknown key; did you mean `program`?"),
];

#[test]
fn every_bad_queue_is_refused_with_the_place_and_the_reason() {
    for (text, expected) in BAD {
        let home = Home::with(text);
        assert_eq!(home.problems(&home.sources()), *expected, "for\n{text}");
    }
}

#[test]
fn a_node_has_a_queue_and_a_worker_by_default() {
    let Config { queue, worker, commands, .. } = defaults();
    assert_eq!(
        (queue.tasks, queue.payload_bytes, queue.result_bytes),
        (1_000_000, 1 << 20, 4 << 20)
    );
    assert_eq!((queue.lease.as_secs(), queue.max_attempts), (30, 3));
    assert_eq!((queue.retention.as_secs(), queue.dead_retention.as_secs()), (86_400, 604_800));
    assert_eq!(queue.claim_order, ClaimOrder::Fair);
    assert!(queue.as_task.is_empty() && queue.task_after.is_none() && queue.running.is_empty());
    assert_eq!((worker.slots, worker.labels.len(), commands.len()), (16, 0, 0));
}

#[test]
fn the_bounds_of_the_queue_hold_at_both_ends() {
    let most = load_text(
        "[queue]\ntasks = 10000000\npayload_bytes = 4194304\nlease_s = 300\nmax_attempts = 1000\n\
         retention_s = 2592000\ndead_retention_s = 31536000\ntask_after_s = 3600\n\
         claim_order = \"python\"\nrunning = { \"command.a\" = 10000 }\n[worker]\nslots = 1024",
    );
    assert_eq!((most.queue.tasks, most.queue.max_attempts), (10_000_000, 1_000));
    assert_eq!(most.queue.claim_order, ClaimOrder::Python);
    assert_eq!(most.queue.task_after, Some(Duration::from_secs(3_600)));
    assert_eq!(most.queue.running.get("command.a"), Some(&10_000));
    let least = load_text(
        "[queue]\ntasks = 1\npayload_bytes = 1024\nresult_bytes = 1024\nlease_s = 5\n\
         max_attempts = 1\nretention_s = 60\ndead_retention_s = 60\ntask_after_s = 1\n\
         running.x = 1\n[worker]\nslots = 0",
    );
    assert_eq!((least.queue.tasks, least.queue.result_bytes, least.worker.slots), (1, 1_024, 0));
}

#[test]
fn as_many_labels_types_and_commands_fit_as_the_limits_say_and_not_more() {
    let labels = |count: usize| {
        let each = |n: usize| format!("\"{n}{}\"", "x".repeat(60));
        format!("worker.labels = [{}]", (0..count).map(each).collect::<Vec<_>>().join(", "))
    };
    assert_eq!(load_text(&labels(32)).worker.labels.len(), 32);
    let home = Home::with(labels(33));
    assert_eq!(home.problems(&home.sources()), "1:8: worker.labels: at most 32 fit one node");

    let commands = |count: usize| {
        (0..count).map(|n| format!("[command.c{n}]\nprogram = \"x\"\n")).collect::<String>()
    };
    assert_eq!(load_text(&commands(256)).commands.len(), 256);
    let home = Home::with(commands(257));
    let expected = "1:2: command: at most 256 commands fit one node";
    assert_eq!(home.problems(&home.sources()), expected);

    let types = |count: usize| {
        let each = |n: usize| format!("t{n} = 1\n");
        "[queue.running]\n".to_owned() + &(0..count).map(each).collect::<String>()
    };
    assert_eq!(load_text(&types(256)).queue.running.len(), 256);
    let home = Home::with(types(257));
    let expected = "1:8: queue.running: at most 256 types fit one node";
    assert_eq!(home.problems(&home.sources()), expected);

    for (keys, at, beyond) in [
        ("worker.labels", format!("[\"{}\"]", "x".repeat(64)), format!("[\"{}\"]", "x".repeat(65))),
        (
            "queue.running",
            format!("{{ {} = 1 }}", "x".repeat(128)),
            format!("{{ {} = 1 }}", "x".repeat(129)),
        ),
        (
            "command",
            format!("{{ {} = {{ program = \"x\" }} }}", "x".repeat(32)),
            format!("{{ {} = {{ program = \"x\" }} }}", "x".repeat(33)),
        ),
    ] {
        load_text(&format!("{keys} = {at}"));
        let home = Home::with(format!("{keys} = {beyond}"));
        assert!(load(&home.sources()).is_err(), "{keys}");
    }
}

#[test]
fn a_command_is_filled_with_defaults_and_its_paths_start_at_the_file() {
    let home = Home::with(
        "[command.a]\nprogram = \"./bin/x\"\ncwd = \"work\"\nenv.KEY.file = \"key\"\n\
         [command.b]\nprogram = \"x\"\nread_only = true",
    );
    let config = load(&home.sources()).unwrap().config;
    let command = config.commands.get("a").unwrap();
    assert_eq!(command.process.command.as_os_str(), home.0.path().join("bin/x"));
    assert_eq!(command.process.cwd, Some(home.0.path().join("work")));
    let file = home.0.path().join("key");
    assert_eq!(command.process.env.get("KEY"), Some(&Secret::File(FileReference { file })));
    assert_eq!(command.process.inherit_env, ["PATH", "HOME", "USER", "LANG", "TMPDIR"]);
    assert_eq!((command.timeout.as_secs(), command.output_bytes), (600, 1 << 20));
    assert!(!command.read_only && !command.idempotent);
    let command = config.commands.get("b").unwrap();
    assert_eq!(command.process.command, Path::new("x"), "a bare name is for PATH");
    assert!(command.read_only && !command.idempotent);
}

#[test]
fn a_variable_sets_one_key_of_a_command_that_the_file_has() {
    let home = Home::with("[command.a]\nprogram = \"x\"");
    let environment = variables([
        ("TOOLMESH_COMMAND__a__TIMEOUT_S", "7"),
        ("TOOLMESH_QUEUE__RUNNING__render", "2"),
        ("TOOLMESH_WORKER__LABELS", "[\"gpu\"]"),
    ]);
    let config = load(&Sources { environment, ..home.sources() }).unwrap().config;
    assert_eq!(config.commands.get("a").unwrap().timeout, Duration::from_secs(7));
    assert_eq!(config.queue.running.get("render"), Some(&2));
    assert!(config.worker.labels.contains("gpu"));
}

#[test]
fn what_is_shown_of_tasks_means_the_same_when_read_again_and_holds_no_secret() {
    let home = Home::with(
        "[queue]\nas_task = [\"{a,b}*\"]\ntask_after_s = 3\nrunning = { \"command.a\" = 2, x = 1 }\n\
         [worker]\nslots = 0\nlabels = [\"b=1\", \"a\"]\n\
         [command.a]\nprogram = \"/x\"\nargs = [\"#\"]\nenv = { A = { env = \"B\" } }\ncwd = \"/w\"\n\
         timeout_s = 9\noutput_bytes = 2048\nidempotent = true",
    );
    let loaded = load(&home.sources()).unwrap();
    let shown = show::to_toml(&loaded.config, &loaded.layers).unwrap();
    assert_eq!(load_text(&shown), loaded.config, "{shown}");

    let home = Home::with("[command.a]\nprogram = \"x\"\nenv.C = \"hunter2\"");
    let loaded = load(&home.sources()).unwrap();
    let shown = show::to_toml(&loaded.config, &loaded.layers).unwrap();
    assert!(shown.contains("C = \"(redacted)\""), "{shown}");
    assert!(!format!("{loaded:?}{shown}").contains("hunter2"));
    for wrong in ["env = \"hunter2\"", "env.C = { file = \"f\", env = \"hunter2\" }"] {
        let home = Home::with(format!("[command.a]\nprogram = \"x\"\n{wrong}"));
        let problems = home.problems(&home.sources());
        assert!(!problems.contains("hunter2") && problems.contains("expected"), "{problems}");
    }
}
