//! Programs that try to get out, to harm, or to pass without being right.
//!
//! Each defines `f`, whose test is `assert f(1) == 2`, and must come to its own verdict. After each one, the parent's
//! files are as before, an honest program still passes, and no process is left behind.

use std::path::Path;
use std::time::Duration;

use hone_worlds::sandbox::{Job, Limits, Sandbox, Verdict, insert_token, passed_by_token};

use crate::sandbox::open;

/// Name, verdict (alternatives by `|`), program. `CANARY` is a file of the parent's, `PARENT` its process.
const ATTACKS: &[(&str, &str, &str)] = &[
    // Using up what there is.
    ("fork bomb", "BlockingIOError|ended", "import os\ndef f(x):\n    while True: os.fork()"),
    (
        "thread bomb",
        "RuntimeError|MemoryError|ended",
        "import threading, time\ndef f(x):\n    while True: threading.Thread(target=time.sleep, args=(9,)).start()",
    ),
    ("memory at once", "MemoryError", "def f(x): return len(bytearray(10**11))"),
    (
        "memory bit by bit",
        "MemoryError|ended",
        "def f(x):\n    a = []\n    while True: a.append(bytearray(1 << 20))",
    ),
    ("memory at load", "MemoryError", "a = [0] * 10**10\ndef f(x): return 2"),
    ("memory mapped", "OSError", "import mmap\ndef f(x): return len(mmap.mmap(-1, 1 << 40))"),
    (
        "disk fill, one file",
        "OSError",
        "def f(x):\n    with open('a', 'wb') as a:\n        while True: a.write(b'x' * (1 << 20))",
    ),
    (
        "disk fill, many files",
        "OSError",
        "def f(x):\n    for i in range(10**6):\n        with open(str(i), 'w') as a: a.write('x' * 9999)",
    ),
    (
        "deep folders",
        "AssertionError|OSError",
        "import os\ndef f(x):\n    for i in range(1500):\n        os.mkdir('d' * 9)\n        os.chdir('d' * 9)\n    return 0",
    ),
    (
        "folders nobody may enter",
        "AssertionError",
        "import os\ndef f(x):\n    os.makedirs('a/b')\n    open('a/b/c', 'w').close()\n    os.chmod('a/b', 0)\n    os.chmod('a', 0)\n    return 0",
    ),
    ("open files", "OSError", "a = []\ndef f(x):\n    while True: a.append(open('/dev/null'))"),
    ("endless loop", "cpu|timed out", "def f(x):\n    while True: pass"),
    ("endless loop at load", "cpu|timed out", "while True: pass"),
    ("endless sum", "cpu|timed out", "def f(x): return len(str(3 ** 10**9))"),
    ("sleep", "timed out", "import time\ndef f(x): time.sleep(99)"),
    (
        "sleep and no signal helps",
        "timed out",
        "import signal, time\nfor s in (1, 2, 3, 15): signal.signal(s, signal.SIG_IGN)\ndef f(x):\n    while True: time.sleep(1)",
    ),
    ("endless output", "output", "def f(x):\n    while True: print('x' * 999)"),
    ("endless error output", "output", "import sys\ndef f(x):\n    while True: sys.stderr.write('x' * 999)"),
    ("endless recursion", "RecursionError", "def f(x): return f(x)"),
    ("a result too large to hold", "MemoryError|ended|cpu|timed out", "def f(x): return ['x' * 999] * 10**6"),
    (
        "an exception that never ends",
        "cpu|timed out",
        "class E(Exception):\n    def __str__(self):\n        while True: pass\ndef f(x): raise E",
    ),
    // Reading what is not theirs.
    ("read the parent's file", "PermissionError", "def f(x): return open('CANARY').read()"),
    ("read the password file", "PermissionError", "def f(x): return open('/etc/passwd').read()"),
    (
        "read the home folder",
        "PermissionError",
        "import os\ndef f(x): return os.listdir('/root') or os.listdir('/home')",
    ),
    ("list the root", "PermissionError", "import os\ndef f(x): return os.listdir('/')"),
    (
        "read the parent's memory",
        "PermissionError",
        "def f(x): return open('/proc/PARENT/mem', 'rb').read(1)",
    ),
    (
        "read the parent's environment",
        "PermissionError",
        "def f(x): return open('/proc/PARENT/environ').read()",
    ),
    (
        "own memory by name",
        "PermissionError|FileNotFoundError",
        "def f(x): return open('/proc/self/mem', 'rb').read(1)",
    ),
    (
        "a way through a link",
        "PermissionError",
        "import os\ndef f(x):\n    os.symlink('/etc/passwd', 'a')\n    return open('a').read()",
    ),
    (
        "a way through a hard link",
        "PermissionError|OSError",
        "import os\ndef f(x):\n    os.link('CANARY', 'a')\n    return open('a').read()",
    ),
    ("a way through dots", "PermissionError", "def f(x): return open('../../../../etc/shadow').read()"),
    ("raw disk", "PermissionError|FileNotFoundError", "def f(x): return open('/dev/vda', 'rb').read(1)"),
    // Changing what is not theirs.
    ("write outside", "PermissionError", "def f(x): open('/tmp/hone-attack', 'w')"),
    ("write to the parent's file", "PermissionError", "def f(x): open('CANARY', 'w')"),
    ("truncate the parent's file", "PermissionError", "import os\ndef f(x): os.truncate('CANARY', 0)"),
    ("remove the parent's file", "PermissionError", "import os\ndef f(x): os.unlink('CANARY')"),
    ("rename the parent's file", "PermissionError|OSError", "import os\ndef f(x): os.rename('CANARY', 'a')"),
    ("change its mode", "PermissionError", "import os\ndef f(x): os.chmod('CANARY', 0o777)"),
    ("make a device", "PermissionError", "import os\ndef f(x): os.mknod('a', 0o60666, 0)"),
    // Talking to somebody.
    ("connect", "PermissionError", "import socket\ndef f(x): socket.create_connection(('127.0.0.1', 80), 1)"),
    ("listen", "PermissionError", "import socket\ndef f(x): socket.socket().bind(('', 0))"),
    (
        "a local socket",
        "PermissionError",
        "import socket\ndef f(x): socket.socket(socket.AF_UNIX).connect('/run/x')",
    ),
    (
        "a datagram to a local socket",
        "PermissionError",
        "import socket\ndef f(x):\n    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n    a.sendto(b'x', '/run/systemd/journal/socket')",
    ),
    (
        "look up a name",
        "gaierror|PermissionError",
        "import socket\ndef f(x): socket.gethostbyname('localhost.example')",
    ),
    // Other processes and the kernel.
    ("kill the parent", "ProcessLookupError", "import os\ndef f(x): os.kill(PARENT, 9)"),
    (
        "kill everybody",
        "AssertionError|ProcessLookupError|ended",
        "import os\ndef f(x):\n    os.kill(-1, 9)\n    return 0",
    ),
    (
        "stop oneself",
        "AssertionError|timed out",
        "import os, signal\ndef f(x):\n    os.kill(os.getpid(), signal.SIGSTOP)\n    return 0",
    ),
    (
        "trace the parent",
        "AssertionError",
        "import ctypes\ndef f(x): return ctypes.CDLL(None).ptrace(16, PARENT, 0, 0)",
    ),
    (
        "calls that ask for power",
        "AssertionError",
        "import ctypes\ndef f(x):\n    c = ctypes.CDLL(None).syscall\n    return [n for n in (101, 105, 155, 161, 165, 169, 175, 246, 248, 250, 272, 298, 308, 310, 321, 323, 425, 435, 438) if c(n, 0, 0, 0, 0, 0) >= 0] or 0",
    ),
    ("become root", "PermissionError", "import os\ndef f(x): os.setuid(0)"),
    (
        "a namespace of one's own",
        "AssertionError",
        "import ctypes\ndef f(x): return ctypes.CDLL(None).unshare(0x10000000)",
    ),
    (
        "more than the limits",
        "ValueError",
        "import resource\ndef f(x): resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    ),
    (
        "start a shell",
        "PermissionError",
        "import subprocess\ndef f(x): return subprocess.run(['/bin/sh', '-c', 'id']).returncode",
    ),
    ("crash", "ended", "import ctypes\ndef f(x): ctypes.string_at(0)"),
    ("abort", "ended", "import os\ndef f(x): os.abort()"),
    (
        "zombies",
        "AssertionError",
        "import os\ndef f(x):\n    for i in range(4):\n        if os.fork() == 0: os._exit(0)\n    return 0",
    ),
    (
        "a child that stays",
        "AssertionError",
        "import os, time\ndef f(x):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n            time.sleep(999)\n        os._exit(0)\n    return 0",
    ),
    // Passing without being right.
    ("leave early at load", "ended 0", "import sys\nsys.exit(0)"),
    ("leave early in a call", "ended 0", "import sys\ndef f(x): sys.exit(0)"),
    ("leave at once", "ended 0", "import os\nos._exit(0)"),
    ("leave at once in a call", "ended 0", "import os\ndef f(x): os._exit(0)"),
    ("end in a new program", "PermissionError|ended", "import os\ndef f(x): os.execv('/bin/true', ['true'])"),
    ("close every pipe", "ended", "import os\ndef f(x): os.closerange(0, 999)"),
    (
        "an object equal to everything",
        "AssertionError",
        "class A:\n    def __eq__(self, other): return True\ndef f(x): return A()",
    ),
    (
        "a number equal to everything",
        "AssertionError",
        "class A(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\ndef f(x): return A(0)",
    ),
    (
        "patched asserts",
        "AssertionError|ended",
        "import builtins, operator\nclass Quiet(Exception): pass\nbuiltins.AssertionError = Quiet\noperator.eq = lambda a, b: True\nbuiltins.isinstance = lambda a, b: True\ndef f(x): return 0",
    ),
    (
        "patched messages",
        "ended|AssertionError|TypeError|NameError",
        "import json\njson.dumps = lambda *a, **k: '{\"token\": \"x\", \"results\": [null]}'\ndef f(x): return 0",
    ),
    (
        "forged reports",
        "ended|AssertionError|NameError",
        "import json, os, struct\ndata = json.dumps({'token': '0' * 32, 'results': [None], 'verdict': 'passed'}).encode()\nfor fd in range(64):\n    try: os.write(fd, struct.pack('<I', len(data)) + data)\n    except OSError: pass\ndef f(x): return 0",
    ),
    (
        "read the tests or the token",
        "AssertionError",
        "import gc, sys\ndef strings(a, seen, depth=0):\n    if id(a) in seen or depth > 6: return\n    seen.add(id(a))\n    if isinstance(a, str): yield a\n    elif isinstance(a, dict): \n        for k, v in list(a.items()): yield from strings(k, seen, depth + 1); yield from strings(v, seen, depth + 1)\n    elif isinstance(a, (list, tuple, set)):\n        for v in list(a): yield from strings(v, seen, depth + 1)\ndef f(x):\n    seen, found = set(), []\n    frame = sys._getframe()\n    roots = list(gc.get_objects())\n    while frame: roots.append(dict(frame.f_locals)); frame = frame.f_back\n    for root in roots:\n        for s in strings(root, seen):\n            hexed = len(s) == 32 and all(c in '0123456789abcdef' for c in s)\n            if hexed or s.startswith('assert f('): found.append(s)\n    return len(found)",
    ),
    (
        "read the tests from open descriptors",
        "AssertionError|ended|timed out",
        "import os\ndef f(x):\n    got = b''\n    for fd in range(5, 64):\n        try: got += os.read(fd, 999)\n        except OSError: pass\n    return len(got)",
    ),
];

fn label(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Passed => "passed".into(),
        Verdict::Failed { kind, .. } => kind.clone(),
        Verdict::Ended { status } => format!("ended {status}"),
        Verdict::TimedOut => "timed out".into(),
        Verdict::CpuLimit => "cpu".into(),
        Verdict::OutputLimit => "output".into(),
    }
}

fn job(program: &str) -> Job {
    Job { program: program.to_string(), tests: vec!["assert f(1) == 2".into()], ..Job::default() }
}

/// Processes started with this home folder, which no two servers share.
fn running(home: &str) -> usize {
    let marker = format!("HOME={home}\0");
    let ids = std::fs::read_dir("/proc").expect("proc is mounted").flatten();
    ids.filter(|entry| {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&marker)
    })
    .count()
}

/// Waits a little for the kernel to take the last process away.
fn comes_to(home: &str, expected: usize) -> bool {
    let deadline = std::time::Instant::now() + Duration::from_secs(3);
    while running(home) != expected && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    running(home) == expected
}

fn survives(sandbox: &Sandbox, name: &str, canary: &Path) {
    assert_eq!(std::fs::read_to_string(canary).expect(name), "untouched", "{name}");
    assert!(!Path::new("/tmp/hone-attack").exists(), "{name}");
    let honest = sandbox.judge(&job("def f(x): return x + 1")).expect(name);
    assert_eq!(honest.verdict, Verdict::Passed, "an honest program after {name}: {honest:?}");
}

#[test]
fn every_attack_is_contained() {
    assert!(ATTACKS.len() >= 40);
    let folder = tempfile::tempdir().expect("a folder for the canary");
    let canary = folder.path().join("canary");
    std::fs::write(&canary, "untouched").expect("the canary");
    // Readable for everybody: only the sandbox stands between a program and it.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).expect("its mode");
    std::fs::set_permissions(&canary, std::fs::Permissions::from_mode(0o666)).expect("its mode");
    let limits = Limits { wall: Duration::from_secs(3), cpu: 1, ..Limits::default() };
    let sandbox = open(limits.clone());
    let parent = std::process::id().to_string();
    let mut wrong = Vec::new();
    for (name, expected, program) in ATTACKS {
        let program = program.replace("CANARY", &canary.to_string_lossy()).replace("PARENT", &parent);
        let report = sandbox.judge(&job(&program)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let got = label(&report.verdict);
        if !expected.split('|').any(|one| got == one || one == "ended" && got.starts_with("ended")) {
            wrong.push(format!("{name}: needs {expected}, got {report:?}"));
        }
        // Two seconds past the limit at most, as the protocol for repository tests asks.
        assert!(report.wall < limits.wall + Duration::from_secs(2), "{name}: {:?}", report.wall);
        assert!(report.stdout.len() + report.stderr.len() <= limits.output, "{name}");
        survives(&sandbox, name, &canary);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{} attacks contained", ATTACKS.len());
}

#[test]
fn nothing_is_left_running() {
    let sandbox = open(Limits { wall: Duration::from_secs(2), ..Limits::default() });
    let stays = "import os, time\ndef f(x):\n    for i in range(3):\n        if os.fork() == 0:\n            os.setsid()\n            time.sleep(777.5)\n    return 0";
    let home =
        sandbox.script("import os\nprint(os.environ['HOME'], end='')", &[]).expect("the server runs").stdout;
    sandbox.judge(&job(stays)).expect("the server runs");
    assert!(comes_to(&home, 1), "{} processes beside the server", running(&home));
    drop(sandbox);
    assert!(comes_to(&home, 0), "{} processes", running(&home));
}

#[test]
fn a_repository_test_passes_only_with_its_token() {
    let sandbox = open(Limits::default());
    let script =
        "import sys\nimport under_test\nif under_test.answer() == 42:\n    sys.exit(0)\nsys.exit(1)\n";
    let marked = insert_token(script, "secret").expect("the script ends well somewhere");
    let run = |module: &str| sandbox.script(&marked, &[("under_test.py", module)]).expect("the server runs");
    let good = run("def answer(): return 42");
    let bad = run("def answer(): return 41");
    let sly = run("import sys\nsys.exit(0)");
    assert!(passed_by_token(&good, "secret"), "{good:?}");
    assert!(!passed_by_token(&bad, "secret"), "{bad:?}");
    // Without the token it would have passed.
    assert!(sly.status == 0 && !passed_by_token(&sly, "secret"), "{sly:?}");
}
