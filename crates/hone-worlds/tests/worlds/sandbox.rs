//! What the sandbox does with ordinary programs.

use hone_worlds::sandbox::{Job, Kernel, Limits, Mode, Part, Report, Sandbox, SandboxError, Verdict};

/// The sandbox of these tests: strict, because what a weak one contains proves nothing.
pub fn open(limits: Limits) -> Sandbox {
    Sandbox::open(Mode::Strict, limits).expect("this machine gives every part of the sandbox")
}

fn judge(program: &str, tests: &[&str]) -> Report {
    let tests = tests.iter().map(|test| (*test).to_string()).collect();
    let job = Job { program: program.to_string(), tests, ..Job::default() };
    open(Limits::default()).judge(&job).expect("the server runs")
}

fn failed(report: &Report) -> (&str, &str, Option<usize>, usize) {
    match &report.verdict {
        Verdict::Failed { kind, text, line, test } => (kind, text, *line, *test),
        other => panic!("{other:?}"),
    }
}

#[test]
fn right_programs_pass() {
    let report =
        judge("def double(x):\n    return 2 * x\n", &["assert double(2) == 4", "assert double(0) == 0"]);
    assert_eq!(report.verdict, Verdict::Passed, "{report:?}");
    assert_eq!(report.passed, [true, true]);
}

#[test]
fn values_of_many_types_cross_unchanged() {
    let tests = [
        "assert same([1, (2.5, 'é'), {3: {4}}, None, True]) == [1, (2.5, 'é'), {3: {4}}, None, True]",
        "assert same(10**60) == 10**60 and same(b'x') == b'x' and same(1+2j) == 1+2j",
        "import datetime\nassert same(datetime.date(2020, 1, 2)) == datetime.date(2020, 1, 2)",
        "x = [3, 1, 2]\nchange(x)\nassert x == [1, 2, 3]",
        "assert list(count(3)) == [0, 1, 2]",
        "p = Pair(1, 2)\nassert p.total() == 3 and p.a == 1",
        "assert max_b([Pair(1, 5), Pair(2, 7)]) == 7",
        "try:\n    fail(1)\n    assert False\nexcept ValueError as error:\n    assert str(error) == 'no 1'",
        "assert CONSTANT == 7",
    ];
    let program = "
from collections import Counter
CONSTANT = 7
def same(x): return x
def change(x): x.sort()
def count(n):
    for i in range(n): yield i
class Pair:
    def __init__(self, a, b): self.a, self.b = a, b
    def total(self): return self.a + self.b
def max_b(pairs): return max(p.b for p in pairs)
def fail(x): raise ValueError(f'no {x}')
";
    let report = judge(program, &tests);
    assert_eq!(report.verdict, Verdict::Passed, "{report:?}");
}

#[test]
fn tracebacks_have_the_programs_own_lines() {
    let program = "def half(x):\n    y = inner(x)\n    return y\n\ndef inner(x):\n    return x / 0\n";
    let report = judge(program, &["assert half(2) == 1"]);
    let expected = "Traceback (most recent call last):\n  File \"program.py\", line 2, in half\n    y = inner(x)\n  \
                    File \"program.py\", line 6, in inner\n    return x / 0\nZeroDivisionError: division by zero";
    assert_eq!(failed(&report), ("ZeroDivisionError", expected, Some(6), 0));

    let report = judge("def half(x):\n    return x //\n", &["assert half(2) == 1"]);
    let expected = "  File \"program.py\", line 2\n    return x //\nSyntaxError: invalid syntax";
    assert_eq!(failed(&report), ("SyntaxError", expected, Some(2), 0));

    let report = judge("def half(x):\n    return x\n", &["assert half(0) == 0", "assert half(2) == 1"]);
    assert_eq!(failed(&report), ("AssertionError", "assert half(2) == 1\nAssertionError: got 2", None, 1));
    assert_eq!(report.passed, [true, false]);

    let report = judge("def half(x):\n    return x\n", &["assert halve(2) == 1"]);
    assert_eq!(failed(&report).0, "NameError");
}

#[test]
fn scripts_write_and_read_and_end() {
    let sandbox = open(Limits::default());
    let done = sandbox
        .script("print(open('a.txt').read())\nopen('b', 'w').write('x')\nprint(1 / 0)", &[("a.txt", "hi")]);
    let done = done.unwrap();
    assert_eq!((done.status, done.stdout.as_str()), (1, "hi\n"));
    assert!(
        done.stderr.ends_with("line 3, in <module>\n    print(1 / 0)\nZeroDivisionError: division by zero\n")
    );
    // The next program finds an empty folder.
    let done = sandbox.script("import os\nprint(os.listdir('.'))", &[]).unwrap();
    assert_eq!((done.status, done.stdout.as_str()), (0, "[]\n"));
    assert!(sandbox.script("", &[("../x", "")]).is_err());
}

#[test]
fn any_executable_runs_shut_in() {
    let sandbox = open(Limits::default());
    let run =
        |script: &str, input: &str| sandbox.run("/bin/sh".as_ref(), &["-c", script], input, &[]).unwrap();
    let done = run("cat; echo x > f; cat f; exit 3", "hello\n");
    assert_eq!((done.status, done.stdout.as_str()), (3, "hello\nx\n"), "{done:?}");
    let done = run("cat /etc/passwd; ls /root; echo x > /tmp/outside", "");
    assert_eq!(done.stdout, "", "{done:?}");
    assert!(!std::path::Path::new("/tmp/outside").exists());
    let missing = sandbox.run("/no/such/program".as_ref(), &[], "", &[]);
    assert!(matches!(missing, Err(SandboxError::Start { .. })), "{missing:?}");
}

#[test]
fn a_kernel_without_a_part_is_refused_by_name() {
    let kernel = Kernel { landlock: 0, ..Kernel::probe() };
    let said = Sandbox::with_kernel(Mode::Strict, Limits::default(), kernel.clone()).unwrap_err().to_string();
    assert!(
        said.starts_with("sandbox: this kernel lacks Landlock (file access): not there or not enabled"),
        "{said}"
    );
    assert!(said.ends_with("or accept a weaker sandbox (--sandbox=weak)"), "{said}");

    let none = Kernel {
        landlock: 0,
        seccomp: false,
        namespaces: Err((Part::UserNamespace, "Operation not permitted".to_string())),
    };
    let weak = Sandbox::with_kernel(Mode::Weak, Limits::default(), none).expect("weak asks for nothing");
    let job =
        Job { program: "def f(): return 1".into(), tests: vec!["assert f() == 1".into()], ..Job::default() };
    assert_eq!(weak.judge(&job).unwrap().verdict, Verdict::Passed);
    let done = weak.run("/bin/echo".as_ref(), &["hi"], "", &[]).unwrap();
    assert_eq!((done.status, done.stdout.as_str()), (0, "hi\n"));
}

#[test]
fn impossible_limits_are_refused() {
    let refused = |limits| Sandbox::open(Mode::Strict, limits).unwrap_err().to_string();
    assert_eq!(
        refused(Limits { memory: 1 << 20, ..Limits::default() }),
        "sandbox: limit memory: needs at least 64 MiB, got 1048576 bytes"
    );
    assert_eq!(
        refused(Limits { cpu: 0, ..Limits::default() }),
        "sandbox: limit cpu: needs at least 1 s, got 0"
    );
}

#[test]
fn threads_share_one_sandbox() {
    let sandbox = open(Limits::default());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let sandbox = &sandbox;
            scope.spawn(move || {
                for turn in 0..5 {
                    // Each program knows a number that no other does, so a verdict on another's would show.
                    let number = thread * 100 + turn;
                    let job = Job {
                        program: format!("def f(): return {number}"),
                        tests: vec![format!("assert f() == {number}")],
                        ..Job::default()
                    };
                    assert_eq!(sandbox.judge(&job).expect("the server runs").verdict, Verdict::Passed);
                }
            });
        }
    });
}
