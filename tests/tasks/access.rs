//! Whose a task is: its submitter's and the operators', and of other nodes only what policy says.

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::identity::Keypair;
use serde_json::{Value, json};
use toolmesh_net::join::Key;

use crate::{
    kit::{Ask, proof},
    mesh::{MCP, config, connect, secret, stateless, try_to_join},
    raw_peer::{RawPeer, RawStream},
    support::{Client, Home, Node, Outcome, STATELESS, upstream, wait_for},
};

/// A client with a token of its own.
fn with_token(home: &Home, node: &Node, name: &str) -> Outcome<Client> {
    let output = home.run(&["token", "create", name, "--json"])?;
    let said: Value = serde_json::from_slice(&output.stdout)?;
    let token = said["token"].as_str().ok_or_else(|| format!("no token: {said}"))?;
    Client::connect(node.address(), STATELESS, Some(token))
}

#[test]
fn a_task_of_somebody_else_does_not_exist() -> Outcome {
    let node = Node::start("")?;
    let home = node.home().clone();
    let (mut mine, mut other) = (with_token(&home, &node, "a")?, with_token(&home, &node, "b")?);
    let (mut local, mut operator) = (node.client(STATELESS)?, node.operator()?);
    let task = json!({"task_type": "t", "payload": 1, "idempotency_key": "k", "tags": ["x"]});
    let id = mine.submit(task)?;
    for stranger in [&mut other, &mut local] {
        for (short, more) in [
            ("task_status", json!({})),
            ("get_result", json!({})),
            ("wait", json!({})),
            ("cancel", json!({})),
            ("update_task", json!({"tags": []})),
            ("priority", json!({"priority": 10})),
            ("resubmit", json!({})),
        ] {
            let error = stranger.refused(short, crate::kit::with(json!({"task_id": id}), &more))?;
            assert_eq!(error["code"], "not_found", "{short}: {error}");
        }
        assert_eq!(stranger.ask("list_tasks", json!({}))?["tasks"], json!([]));
    }
    assert_eq!(mine.ask("list_tasks", json!({}))?["tasks"][0]["task_id"], *id);
    let seen = operator.ask("list_tasks", json!({"tags": ["x"]}))?["tasks"][0].clone();
    assert_eq!(seen["task_id"], *id);
    assert!(seen["submitter"].as_str().is_some_and(|who| who.starts_with("token:")), "{seen}");
    operator.ask("priority", json!({"task_id": id, "priority": 9}))?;

    // Any client may be a worker; only the one that has the lease tells how it went.
    let taken = other.claim("w", "t")?;
    assert_eq!(mine.refused("complete", proof("w", &taken))?["code"], "stale_fence");
    other.ask("complete", proof("w", &taken))?;
    assert_eq!(mine.result(&id)?["state"], "completed");
    assert_eq!(other.refused("get_result", json!({"task_id": id}))?["code"], "not_found");
    // Who has it run again does not become its owner.
    let again = operator.ask("resubmit", json!({"task_id": id}))?;
    let again = again["task_id"].as_str().ok_or("no id")?;
    assert_eq!(mine.task(again)?["state"], "queued");
    Ok(())
}

#[test]
fn the_queues_switches_are_for_operators() -> Outcome {
    let node = Node::start("")?;
    let mut client = with_token(&node.home().clone(), &node, "a")?;
    for short in ["pause", "resume", "purge", "shutdown", "dead_letters"] {
        let name = format!("p2p_taskqueue_{short}");
        assert!(!client.has(&name) && node.operator()?.has(&name), "{name}");
        let refused = client.try_call(&name, json!({}))?;
        assert_eq!(refused.code(), -32602, "{name}: {:?}", refused.message);
    }
    assert_eq!(client.ask("status", json!({}))?["paused"], false);
    Ok(())
}

/// A session of a member with a node.
struct Session {
    stream: RawStream,
    _peer: RawPeer,
}

impl Session {
    async fn open(node: &Node) -> Outcome<Self> {
        let peer = connect(node, 0, &Keypair::generate_ed25519()).await?;
        try_to_join(&peer, &Key::Secret(secret(node)?)).await??;
        let stream = peer.open(MCP).await?.ok_or("members may open it")?;
        Ok(Self { stream, _peer: peer })
    }

    async fn request(&mut self, method: &str, params: &str) -> Outcome<Value> {
        let request = stateless(method, params);
        self.stream.write_all(&u32::try_from(request.len())?.to_be_bytes()).await?;
        self.stream.write_all(&request).await?;
        self.stream.flush().await?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut answer).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Asks the queue: what it says, or its error.
    async fn ask(&mut self, short: &str, arguments: &Value) -> Outcome<Value> {
        let call = json!({"name": format!("p2p_taskqueue_{short}"), "arguments": arguments});
        let answer = self.request("tools/call", &call.to_string()).await?;
        let result = &answer["result"];
        assert!(result.is_object(), "{short} {arguments}: {answer}");
        let said = &result["structuredContent"];
        Ok(if result["isError"] == true { said["error"].clone() } else { said.clone() })
    }

    async fn code(&mut self, task_type: &str, payload: Value) -> Outcome<Value> {
        let task = json!({"task_type": task_type, "payload": payload});
        let said = self.ask("submit", &task).await?;
        Ok(said.get("code").cloned().unwrap_or_else(|| said["created"].clone()))
    }
}

/// A node with a shared server, one that is not, and a command.
fn sharing(policy: &str) -> Outcome<Node> {
    let private = upstream("private", "fixture-server", &[])?;
    let more = format!("{policy}\n[command.cat]\nprogram = \"cat\"\n{private}");
    let node = Node::start(&config("node-a", &more)?)?;
    node.wait_upstream("box", "ready")?;
    node.wait_upstream("private", "ready")?;
    Ok(node)
}

fn call(tool: &str) -> Value {
    json!({"tool": tool, "arguments": {"message": "from afar"}})
}

#[test]
fn a_member_hands_in_calls_of_shared_tools_and_work_for_workers() -> Outcome {
    let node = sharing("")?;
    let mut local = node.client(STATELESS)?;
    let foreign = local.submit(json!({"task_type": "t", "payload": "not for others"}))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut member = Session::open(&node).await?;
        let task = json!({"task_type": "tool.call", "payload": call("box__echo")});
        let receipt = member.ask("submit", &task).await?;
        let id = receipt["task_id"].clone();
        let result = member.ask("get_result", &json!({"task_id": id, "wait_s": 20})).await?;
        assert_eq!(result["result"]["content"][0]["text"], "from afar", "{receipt} {result}");
        let mine = member.ask("list_tasks", &json!({})).await?;
        assert_eq!(mine["tasks"].as_array().map(Vec::len), Some(1), "{mine}");
        assert!(mine["tasks"][0]["submitter"].as_str().is_some_and(|who| who.starts_with("peer:")));

        assert_eq!(member.code("command.cat", json!({})).await?, "not_permitted");
        for kind in ["t", "demo.sum"] {
            assert_eq!(member.code(kind, json!({})).await?, true, "workers choose what they take");
        }
        for tool in ["private__echo", "node_status", "nothing", "p2p_taskqueue_pause"] {
            assert_eq!(member.code("tool.call", call(tool)).await?, "unknown_tool", "{tool}");
        }
        for short in ["task_status", "get_result", "cancel"] {
            let said = member.ask(short, &json!({"task_id": foreign})).await?;
            assert_eq!(said["code"], "not_found", "{short}: {said}");
        }
        let listed = member.request("tools/list", "{}").await?.to_string();
        for short in ["submit", "cancel", "claim", "complete"] {
            assert!(listed.contains(&format!("\"p2p_taskqueue_{short}\"")), "{short}");
        }
        for short in ["pause", "purge", "shutdown", "announce", "dead_letters"] {
            assert!(!listed.contains(&format!("\"p2p_taskqueue_{short}\"")), "{short}");
            let call = json!({"name": format!("p2p_taskqueue_{short}"), "arguments": {}});
            let answer = member.request("tools/call", &call.to_string()).await?;
            assert_eq!(answer["error"]["code"], -32602, "{short}: {answer}");
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    assert_eq!(local.counts()?["queued"], 3, "what was refused left nothing");
    Ok(())
}

#[test]
fn policy_says_which_tasks_members_hand_in() -> Outcome {
    let node = sharing("[policy.members]\ntasks = [\"command.*\", \"demo.*\"]\ntools = []\n")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut member = Session::open(&node).await?;
        let task = json!({"task_type": "command.cat", "payload": {"a": 1}});
        let id = member.ask("submit", &task).await?["task_id"].clone();
        let result = member.ask("get_result", &json!({"task_id": id, "wait_s": 20})).await?;
        assert_eq!(result["result"], json!({"a": 1}), "{result}");
        assert_eq!(member.code("demo.sum", json!({})).await?, true);
        assert_eq!(member.code("command.rm", json!({})).await?, "unknown_type");
        assert_eq!(member.code("other", json!({})).await?, "not_permitted");
        assert_eq!(member.code("tool.call", call("box__echo")).await?, "not_permitted");
        Ok(())
    })
}

/// What a member may call is asked again when its task runs.
#[test]
fn what_a_member_may_no_longer_call_is_not_run_for_it() -> Outcome {
    let node = sharing("")?;
    let mut operator = node.operator()?;
    operator.ask("shutdown", json!({}))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let id = runtime.block_on(async {
        let mut member = Session::open(&node).await?;
        let task = json!({"task_type": "tool.call", "payload": call("box__echo")});
        let id = member.ask("submit", &task).await?["task_id"].clone();
        Ok::<_, Box<dyn std::error::Error>>(id.as_str().ok_or("no id")?.to_owned())
    })?;
    let home = node.home().clone();
    let closed = "[policy.members]\ntools = []\n";
    home.configure(&config("node-a", closed)?)?;
    wait_for("the policy is in force", || {
        home.log().contains("configuration reloaded").then_some(())
    })?;
    operator.ask("resume", json!({"worker_id": "node"}))?;
    let result = operator.result(&id)?;
    assert_eq!((&result["state"], &result["attempts"]), (&json!("failed"), &json!(1)), "{result}");
    Ok(())
}
