//! A component's functions, called by `exec` with values as text.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Node, Running};
use wherry_runtime::{ExecOutput, Runtime, RuntimeError, collect};

/// A component that is served and echoes values of many types: a function of each type gives back what it is given.
fn echoes(types: &[(&str, &str)]) -> String {
    let mut text = String::from(
        r#"(component
        (core module $m (memory (export "memory") 1) (global $top (mut i32) (i32.const 4096))
          (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
            (global.set $top (i32.add (local.get $at) (local.get 3))) (local.get $at))
          (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
          (func (export "fails") (result i32) (i32.const 1))
          (func (export "traps") unreachable)
          (func (export "spins") (loop $l (br $l)))
          (func (export "run") (result i32) (loop $l (br $l)) (i32.const 0))
          (func (export "same-i32") (param i32) (result i32) (local.get 0))
          (func (export "same-i64") (param i64) (result i64) (local.get 0))
          (func (export "same-f64") (param f64) (result f64) (local.get 0))
          (func (export "same-pair") (param i32 i32) (result i32)
            (i32.store (i32.const 16) (local.get 0)) (i32.store (i32.const 20) (local.get 1)) (i32.const 16)))
        (core instance $i (instantiate $m))
        (alias core export $i "memory" (core memory $mem))
        (alias core export $i "realloc" (core func $realloc))
        (func (export "add") (param "a" s32) (param "b" s32) (result s32) (canon lift (core func $i "add")))
        (func (export "fails") (result (result)) (canon lift (core func $i "fails")))
        (func (export "traps") (canon lift (core func $i "traps")))
        (func (export "spins") (canon lift (core func $i "spins")))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $run (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $run))
        (func $inner (param "a" s32) (param "b" s32) (result s32) (canon lift (core func $i "add")))
        (instance $math (export "sum" (func $inner)))
        (export "demo:math/ops@1.2.0" (instance $math))
"#,
    );
    for (at, (ty, core)) in types.iter().enumerate() {
        // Types with names are exported to be used.
        let plain =
            !ty.contains('(') || ty.starts_with("(list") || ty.starts_with("(option") || ty.starts_with("(tuple");
        let name = if plain { (*ty).to_owned() } else { format!("$used{at}") };
        if !plain {
            text.push_str(&format!("(type $t{at} {ty}) (export $used{at} \"type{at}\" (type $t{at}))\n"));
        }
        text.push_str(&format!(
            "(func (export \"same{at}\") (param \"x\" {name}) (result {name})
                (canon lift (core func $i \"same-{core}\") (memory $mem) (realloc (core func $realloc))))\n"
        ));
    }
    text + ")"
}

async fn start(node: &Node, types: &[(&str, &str)]) -> Running {
    let spec = node.spec(&node.wat(&echoes(types)));
    node.start(spec).await
}

async fn exec(node: &Node, container: &Running, command: &[&str]) -> Result<(i32, String, String), RuntimeError> {
    let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
    let ExecOutput { code, stdout, stderr } = collect(&*node.runtime, &container.id, &command, 1 << 20).await?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Ok((code, text(&stdout), text(&stderr)))
}

#[tokio::test]
async fn functions_are_called_with_values() {
    let node = Node::new();
    let container = start(&node, &[]).await;
    for (command, code, printed, said) in [
        (&["add", "2", "40"][..], 0, "42\n", ""),
        (&["add", "-1", "// a comment\n1"], 0, "0\n", ""),
        (&["demo:math/ops@1.2.0#sum", "1", "2"], 0, "3\n", ""),
        (&["demo:math/ops#sum", "1", "2"], 0, "3\n", ""),
        (&["fails"], 1, "err\n", ""),
        (&["traps"], 134, "", "unreachable"),
        (&["add", "1"], 2, "", "add: it takes 2 values, 1 were given\nadd: func(a: s32, b: s32) -> s32"),
        (&["add", "1", "x"], 2, "", "b: a s32 is expected at \"x\""),
        (&["add", "1", "4294967296"], 2, "", "a s32 is expected"),
    ] {
        let (seen, stdout, stderr) = exec(&node, &container, command).await.unwrap();
        assert_eq!((seen, stdout.as_str()), (code, printed), "{command:?}: {stderr}");
        assert!(stderr.contains(said), "{command:?}: {stderr}");
    }
    container.kill().await;
}

#[tokio::test]
async fn values_of_every_type_come_back_as_they_were() {
    let types = [
        ("bool", "i32"),
        ("u8", "i32"),
        ("s64", "i64"),
        ("f64", "f64"),
        ("char", "i32"),
        ("string", "pair"),
        ("(list u16)", "pair"),
        ("(option u32)", "pair"),
        ("(tuple s32 u32)", "pair"),
        (r#"(record (field "a" u32) (field "b" u32))"#, "pair"),
        (r#"(variant (case "none") (case "size" u32))"#, "pair"),
        (r#"(enum "red" "err")"#, "i32"),
        (r#"(flags "read" "write")"#, "i32"),
        ("(list string)", "pair"),
    ];
    let node = Node::new();
    let container = start(&node, &types).await;
    for (ty, given, printed) in [
        ("bool", "true", "true"),
        ("u8", "255", "255"),
        ("s64", "-9223372036854775808", "-9223372036854775808"),
        ("f64", "1.5e3", "1500"),
        ("f64", "-inf", "-inf"),
        ("f64", "nan", "nan"),
        ("char", r"'\u{1F600}'", "'\u{1F600}'"),
        ("char", r"'\''", r"'\''"),
        ("string", r#""a \"b\" \n ü""#, r#""a \"b\" \n ü""#),
        ("string", "\"\"\"\n  one\n  two\n  \"\"\"", r#""one\ntwo""#),
        ("(list u16)", "[1, 2, 3,]", "[1, 2, 3]"),
        ("(list u16)", "[]", "[]"),
        ("(list string)", r#"["", "x"]"#, r#"["", "x"]"#),
        ("(option u32)", "some(7)", "some(7)"),
        ("(option u32)", "7", "some(7)"),
        ("(option u32)", "none", "none"),
        ("(tuple s32 u32)", "(-1, 1)", "(-1, 1)"),
        (r#"(record (field "a" u32) (field "b" u32))"#, "{b: 2, a: 1}", "{a: 1, b: 2}"),
        (r#"(variant (case "none") (case "size" u32))"#, "%none", "%none"),
        (r#"(variant (case "none") (case "size" u32))"#, "size( 4 )", "size(4)"),
        (r#"(enum "red" "err")"#, "%err", "%err"),
        (r#"(enum "red" "err")"#, "red", "red"),
        (r#"(flags "read" "write")"#, "{write, read}", "{read, write}"),
        (r#"(flags "read" "write")"#, "{}", "{}"),
    ] {
        let at = types.iter().position(|(other, _)| *other == ty).unwrap();
        let seen = exec(&node, &container, &[&format!("same{at}"), given]).await.unwrap();
        assert_eq!(seen, (0, format!("{printed}\n"), String::new()), "{ty}: {given}");
    }
    for (ty, given) in [
        ("bool", "yes"),
        ("u8", "256"),
        ("u8", "+1"),
        ("f64", "infinity"),
        ("char", "'ab'"),
        ("string", "bare"),
        ("string", "\"open"),
        ("string", r#""\q""#),
        ("(list u16)", "[1, 2"),
        ("(list u16)", "[1] 2"),
        ("(tuple s32 u32)", "(1)"),
        ("(tuple s32 u32)", "(1, 2, 3)"),
        (r#"(record (field "a" u32) (field "b" u32))"#, "{a: 1}"),
        (r#"(record (field "a" u32) (field "b" u32))"#, "{a: 1, a: 1}"),
        (r#"(variant (case "none") (case "size" u32))"#, "none"),
        (r#"(enum "red" "err")"#, "blue"),
        (r#"(flags "read" "write")"#, "{read, read}"),
    ] {
        let at = types.iter().position(|(other, _)| *other == ty).unwrap();
        let (code, stdout, stderr) = exec(&node, &container, &[&format!("same{at}"), given]).await.unwrap();
        assert_eq!((code, stdout.as_str()), (2, ""), "{ty}: {given}: {stderr}");
    }
    // As many brackets as a request holds are no way into the stack.
    let deep = "[".repeat(1 << 20);
    let at = types.iter().position(|(other, _)| *other == "(list u16)").unwrap();
    assert_eq!(exec(&node, &container, &[&format!("same{at}"), &deep]).await.unwrap().0, 2);
    container.kill().await;
}

#[tokio::test]
async fn a_call_that_never_ends_ends_with_its_container() {
    let node = Node::new();
    let container = start(&node, &[]).await;
    let command = ["spins".to_owned()];
    let call = node.runtime.exec(&container.id, &command, false, wherry_runtime::Streams::default());
    let (code, exit) = tokio::join!(call, container.kill());
    assert_eq!((code.unwrap(), exit.code), (137, 137));
}

#[tokio::test]
async fn other_commands_are_the_modules() {
    let node = Node::new();
    // A component that runs: any other word is its own name.
    let text = r#"(component
        (core module $m (func (export "run") (result i32) (i32.const 1)) (func (export "waits") (result i32) (loop $l (br $l)) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func (export "waits") (result (result)) (canon lift (core func $i "waits")))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $x (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $x)))"#;
    let mut spec = node.spec(&node.wat(text));
    spec.command = vec!["app.wasm#waits".into()];
    let container = node.start(spec).await;
    // The container runs an export, and so does what is run anew.
    let served = node.start(node.spec(&node.image(include_bytes!("../../../samples/echo/echo.wasm")))).await;
    let refused = exec(&node, &served, &["none"]).await.unwrap_err().to_string();
    assert!(refused.contains("executable file not found in $PATH"), "{refused}");
    assert_eq!(exec(&node, &container, &["wasi:cli/run#run"]).await.unwrap(), (1, "err\n".into(), String::new()));
    // What takes handles can't be called.
    let name = "wasi:http/incoming-handler#handle";
    let (code, _, said) = exec(&node, &served, &[name, "1", "2"]).await.unwrap();
    assert!(code == 2 && said.contains("a resource can't be written as text"), "{said}");
    container.kill().await;
    served.kill().await;
}
